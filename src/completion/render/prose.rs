//! What the model's own Markdown has left open, so that a block of ours can stand on its own after it.
//!
//! A small reading of CommonMark's block structure (§4.5 fences, §4.6 HTML blocks, §5.2 list items), one line at a
//! time. It needs to know only what could swallow the next block: a fence or an HTML block that nobody closed.

/// Bytes of one line that are looked at; the rest cannot start anything.
const LINE_BYTES: usize = 4096;

/// The state of the prose sent so far.
#[derive(Debug, Clone, Default)]
pub struct Prose {
    /// The unfinished last line.
    line: String,
    line_has_more: bool,
    skip_line_feed: bool,
    started: bool,
    /// The last finished line is blank, or ours.
    blank: bool,
    /// The last finished line is text that the next one may continue.
    paragraph: bool,
    /// That text stands in a block quotation.
    quoted: bool,
    /// The last finished line is the mark of a list item and nothing more.
    empty_item: bool,
    /// Columns at which the contents of the open list items begin.
    lists: Vec<usize>,
    open: Option<Open>,
}

#[derive(Debug, Clone)]
enum Open {
    Fence {
        mark: u8,
        length: usize,
        indent: usize,
        container: usize,
    },
    /// Ends with the line that contains `end`.
    Html {
        end: &'static str,
        container: usize,
    },
    /// Ends with a blank line.
    HtmlToBlank {
        container: usize,
    },
}

impl Prose {
    /// Takes note of `text` having been sent.
    pub fn push(&mut self, text: &str) {
        let mut rest = text;
        if self.skip_line_feed && !rest.is_empty() {
            rest = rest.strip_prefix('\n').unwrap_or(rest);
            self.skip_line_feed = false;
        }
        self.started |= !text.is_empty();
        while let Some(at) = memchr::memchr2(b'\n', b'\r', rest.as_bytes()) {
            self.extend_line(&rest[..at]);
            self.end_line();
            let carriage_return = rest.as_bytes()[at] == b'\r';
            rest = &rest[at + 1..];
            if carriage_return {
                self.skip_line_feed = rest.is_empty();
                rest = rest.strip_prefix('\n').unwrap_or(rest);
            }
        }
        self.extend_line(rest);
    }

    /// Ends whatever is open. Gives what must be sent so that a block can follow: at the start of a line, after a
    /// blank one.
    pub fn break_block(&mut self) -> String {
        let mut sent = String::new();
        if !self.started {
            return sent;
        }
        if !self.line.is_empty() {
            sent.push('\n');
            self.end_line();
        } else if self.skip_line_feed {
            // Not every reader takes a carriage return alone for the end of a line.
            sent.push('\n');
        }
        match self.open.take() {
            Some(Open::Fence { mark, length, indent, .. }) => {
                sent.extend(std::iter::repeat_n(' ', indent));
                sent.extend(std::iter::repeat_n(char::from(mark), length));
                sent.push('\n');
                self.blank = false;
            }
            Some(Open::Html { end, container }) => {
                sent.extend(std::iter::repeat_n(' ', container));
                sent.push_str(end);
                sent.push('\n');
                self.blank = false;
            }
            Some(Open::HtmlToBlank { .. }) | None => {}
        }
        if !self.blank {
            sent.push('\n');
        }
        self.block_sent();
        sent
    }

    /// Takes note of a block of ours having been sent, which ends in a blank line.
    pub fn block_sent(&mut self) {
        *self = Prose { started: true, blank: true, ..Prose::default() };
    }

    fn extend_line(&mut self, text: &str) {
        let room = LINE_BYTES.saturating_sub(self.line.len());
        let start = &text[..text.floor_char_boundary(room)];
        self.line.push_str(start);
        self.line_has_more |= start.len() < text.len();
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let has_more = std::mem::take(&mut self.line_has_more);
        self.read_line(&line, has_more);
        self.line = line;
        self.line.clear();
    }

    fn read_line(&mut self, line: &str, has_more: bool) {
        let (mut indent, mut rest) = indentation(line, 0);
        self.blank = rest.is_empty() && !has_more;
        if self.continues_open(indent, rest, has_more) {
            return;
        }
        if std::mem::take(&mut self.empty_item) && self.blank {
            self.lists.pop();
        }
        if self.blank {
            self.paragraph = false;
            self.quoted = false;
            return;
        }
        let in_item = !self.quoted && self.lists.last().is_none_or(|&content| indent >= content);
        // Text right below text belongs to it, however little it is indented.
        let container = self.lists.iter().copied().rfind(|&content| content <= indent).unwrap_or(0);
        let deep = indent >= container + 4;
        let lazy = self.paragraph && (deep || !starts_block(rest, in_item));
        if lazy {
            let underline = rest.bytes().all(|b| b == b'=') || rest.bytes().all(|b| b == b'-');
            self.paragraph = deep || !in_item || !underline;
            return;
        }
        if !in_item {
            self.paragraph = false;
        }
        while self.lists.last().is_some_and(|&content| indent < content) {
            self.lists.pop();
        }
        loop {
            let container = self.lists.last().copied().unwrap_or(0);
            if indent >= container + 4 {
                return;
            }
            let Some((content, after)) = list_item(rest, indent, self.paragraph) else {
                self.quoted = rest.starts_with('>');
                self.paragraph = match rest.strip_prefix('>') {
                    Some(quoted) => !quoted.trim().is_empty() && !starts_block(quoted.trim(), true),
                    None => {
                        let opens = self.open_block(rest, indent, container, has_more);
                        !opens && !rest.starts_with('#') && !is_rule(rest)
                    }
                };
                return;
            };
            self.paragraph = false;
            self.lists.push(content.min(indent + 16));
            if after.is_empty() {
                self.empty_item = !rest.contains([' ', '\t']);
                return;
            }
            indent = content;
            rest = after;
        }
    }

    /// Whether the line belongs to an open fence or HTML block; closes it where the line does.
    fn continues_open(&mut self, indent: usize, rest: &str, has_more: bool) -> bool {
        let (container, closes) = match &self.open {
            None => return false,
            Some(Open::HtmlToBlank { container }) => (*container, self.blank),
            Some(Open::Fence { mark, length, container, .. }) => {
                let run = rest.bytes().take_while(|b| b == mark).count();
                let only = rest[run..].trim_matches([' ', '\t']).is_empty() && !has_more;
                (*container, run >= *length && only && indent < container + 4)
            }
            Some(Open::Html { end, container }) => (*container, contains(rest, end)),
        };
        if !self.blank && indent < container {
            // The list item that held it is over.
            self.open = None;
            return false;
        }
        if closes {
            self.open = None;
        }
        true
    }

    /// Opens what `rest` opens; whether it is more than text.
    fn open_block(&mut self, rest: &str, indent: usize, container: usize, has_more: bool) -> bool {
        if let Some((mark, length)) = fence_start(rest) {
            self.open = Some(Open::Fence { mark, length, indent, container });
            return true;
        }
        if let Some((skip, end)) = html_start(rest) {
            if !contains(&rest[skip..], end) {
                self.open = Some(Open::Html { end, container });
            }
            return true;
        }
        if is_html_block(rest, self.paragraph, has_more) {
            self.open = Some(Open::HtmlToBlank { container });
            return true;
        }
        false
    }
}

/// The column of the first character that is not white space, and the text from there without white space at its end.
fn indentation(line: &str, from: usize) -> (usize, &str) {
    let mut column = from;
    for (at, byte) in line.bytes().enumerate() {
        match byte {
            b' ' => column += 1,
            b'\t' => column += 4 - column % 4,
            _ => return (column, line[at..].trim_end_matches([' ', '\t'])),
        }
    }
    (column, "")
}

/// Whether `rest` is, or may be, more than a continuation of a paragraph. `in_item` says that it is indented like it.
fn starts_block(rest: &str, in_item: bool) -> bool {
    rest.starts_with(['>', '#'])
        || fence_start(rest).is_some()
        || html_start(rest).is_some()
        || is_html_block(rest, true, false)
        || is_rule(rest)
        || list_item(rest, 0, in_item).is_some()
}

fn fence_start(rest: &str) -> Option<(u8, usize)> {
    let mark = *rest.as_bytes().first().filter(|b| matches!(b, b'`' | b'~'))?;
    let length = rest.bytes().take_while(|&b| b == mark).count();
    (length >= 3 && (mark == b'~' || !rest[length..].contains('`'))).then_some((mark, length))
}

fn is_rule(rest: &str) -> bool {
    ['-', '*', '_'].iter().any(|&mark| {
        rest.chars().filter(|&c| c == mark).count() >= 3
            && rest.chars().all(|c| c == mark || c == ' ' || c == '\t')
    })
}

/// The column of an item's content and the content, when `rest` (at column `indent`) begins a list item.
fn list_item(rest: &str, indent: usize, in_paragraph: bool) -> Option<(usize, &str)> {
    if is_rule(rest) {
        return None;
    }
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let marker = match (digits, rest.as_bytes().get(digits)?) {
        (0, b'-' | b'+' | b'*') => 1,
        (1..=9, b'.' | b')') => digits + 1,
        _ => return None,
    };
    let after = &rest[marker..];
    if after.is_empty() {
        return (!in_paragraph).then_some((indent + marker + 1, after));
    }
    if !after.starts_with([' ', '\t']) || (in_paragraph && digits > 0 && &rest[..digits] != "1") {
        return None;
    }
    let (content, text) = indentation(after, indent + marker);
    // Five columns and more are one column and indented code.
    if content - (indent + marker) > 4 { Some((indent + marker + 1, "")) } else { Some((content, text)) }
}

/// HTML blocks that blank lines do not end (CommonMark §4.6, kinds 1–5): bytes of the start, and the end.
fn html_start(rest: &str) -> Option<(usize, &'static str)> {
    if !rest.starts_with('<') {
        return None;
    }
    for (name, end) in
        [("pre", "</pre>"), ("script", "</script>"), ("style", "</style>"), ("textarea", "</textarea>")]
    {
        if let Some(start) = rest.get(1..=name.len())
            && start.eq_ignore_ascii_case(name)
            && matches!(rest.as_bytes().get(name.len() + 1), None | Some(b' ' | b'\t' | b'>'))
        {
            return Some((name.len() + 1, end));
        }
    }
    if rest.starts_with("<!--") {
        // `<!-->` is a whole comment.
        Some((2, "-->"))
    } else if rest.starts_with("<?") {
        Some((2, "?>"))
    } else if rest.starts_with("<![CDATA[") {
        Some((9, "]]>"))
    } else if rest.starts_with("<!") && rest.as_bytes().get(2).is_some_and(u8::is_ascii_alphabetic) {
        Some((2, ">"))
    } else {
        None
    }
}

/// HTML blocks that end at a blank line (kinds 6 and 7).
fn is_html_block(rest: &str, in_paragraph: bool, has_more: bool) -> bool {
    let Some(tag) = rest.strip_prefix('<') else { return false };
    let tag = tag.strip_prefix('/').unwrap_or(tag);
    let length = tag.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'-').count();
    let (name, after) = tag.split_at(length);
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return false;
    }
    if BLOCK_TAGS.iter().any(|block| block.eq_ignore_ascii_case(name)) {
        return after.is_empty() || after.starts_with([' ', '\t', '>']) || after.starts_with("/>");
    }
    !in_paragraph && !has_more && after.find('>').is_some_and(|end| end + 1 == after.len())
}

fn contains(text: &str, end: &str) -> bool {
    text.as_bytes().windows(end.len()).any(|part| part.eq_ignore_ascii_case(end.as_bytes()))
}

const BLOCK_TAGS: &[&str] = &[
    "address",
    "article",
    "aside",
    "base",
    "basefont",
    "blockquote",
    "body",
    "caption",
    "center",
    "col",
    "colgroup",
    "dd",
    "details",
    "dialog",
    "dir",
    "div",
    "dl",
    "dt",
    "fieldset",
    "figcaption",
    "figure",
    "footer",
    "form",
    "frame",
    "frameset",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "head",
    "header",
    "hr",
    "html",
    "iframe",
    "legend",
    "li",
    "link",
    "main",
    "menu",
    "menuitem",
    "nav",
    "noframes",
    "ol",
    "optgroup",
    "option",
    "p",
    "param",
    "search",
    "section",
    "summary",
    "table",
    "tbody",
    "td",
    "tfoot",
    "th",
    "thead",
    "title",
    "tr",
    "track",
    "ul",
];

#[cfg(test)]
#[path = "prose_test.rs"]
mod tests;
