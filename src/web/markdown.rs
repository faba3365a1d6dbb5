//! Markdown of models and people as HTML that a page can hold.
//!
//! Pure. The text is hostile: every tag and attribute that can come out stands in this file, whatever the text says.
//! Raw HTML is shown as the text it is, links lead to web and mail addresses only, and nothing is ever loaded: an
//! image is a link that says where it is.

use std::borrow::Cow;

use pulldown_cmark::{
    Alignment, CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd, TextMergeStream,
};
use url::Url;

use crate::tools::text;

/// Most bytes of Markdown that are shown.
const MAX_BYTES: usize = 1 << 20;
/// Most bytes of HTML. Only what was made to grow (a link's address used a thousand times) comes near.
const MAX_HTML_BYTES: usize = 8 << 20;
/// Tags inside one another. Deeper ones are left out, their text is not.
const MAX_DEPTH: usize = 24;
/// Longest alternative text of an image, in characters.
const ALT_CHARACTERS: usize = 120;
/// Longest address of a link, in bytes.
const ADDRESS_BYTES: usize = 4096;
const REL: &str = "nofollow noopener noreferrer ugc";

/// `markdown` as HTML, in its top-level elements: what comes to the end of the text later leaves the first ones as
/// they are. Of text that is too long the beginning is shown, and the last element says so.
pub(super) fn elements(markdown: &str) -> Vec<String> {
    let clean = text::cut(text::for_reader(markdown), MAX_BYTES);
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    let mut writer = Writer::default();
    for event in TextMergeStream::new(Parser::new_ext(&clean, options)) {
        writer.event(event);
    }
    writer.finish()
}

/// As [`elements`], in one piece.
pub(super) fn html(markdown: &str) -> String {
    elements(markdown).concat()
}

/// The words of `markdown` without its marks, as one text.
pub(super) fn words(markdown: &str) -> String {
    let clean = text::cut(text::for_reader(markdown), MAX_BYTES);
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    let mut words = String::new();
    for event in Parser::new_ext(&clean, options) {
        match event {
            Event::Text(part) | Event::Code(part) | Event::Html(part) | Event::InlineHtml(part) => {
                words.push_str(&part);
            }
            Event::End(TagEnd::Emphasis | TagEnd::Strong | TagEnd::Strikethrough | TagEnd::Link) => {}
            Event::SoftBreak | Event::HardBreak | Event::End(_) => words.push(' '),
            _ => {}
        }
    }
    words
}

#[derive(Default)]
struct Writer {
    done: Vec<String>,
    /// The element being written.
    out: String,
    /// What ends each open tag; empty for those that were not written.
    open: Vec<&'static str>,
    /// Bytes in `done`.
    bytes: usize,
    is_full: bool,
    in_head: bool,
    in_code: bool,
    links: usize,
    cells: Vec<Alignment>,
    cell: usize,
    image: Option<Image>,
}

/// An image whose alternative text is being read.
struct Image {
    /// Tags open inside it.
    depth: usize,
    address: Option<Url>,
    alt: String,
}

impl Writer {
    fn event(&mut self, event: Event<'_>) {
        if self.image.is_some() {
            return self.inside_image(event);
        }
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(_) => self.end(),
            Event::Text(words) if self.in_code || self.links > 0 => self.text(&words),
            Event::Text(words) => self.text_with_addresses(&words),
            Event::Html(raw) | Event::InlineHtml(raw) => self.text(&raw),
            Event::Code(code) => {
                self.raw("<code>");
                self.text(&code);
                self.raw("</code>");
            }
            Event::SoftBreak => self.raw("\n"),
            Event::HardBreak => self.raw("<br>"),
            Event::Rule => self.raw("<hr>"),
            Event::TaskListMarker(true) => self.raw("☑ "),
            Event::TaskListMarker(false) => self.raw("☐ "),
            // Not enabled; they would be text.
            Event::InlineMath(words) | Event::DisplayMath(words) | Event::FootnoteReference(words) => {
                self.text(&words);
            }
        }
        if self.open.is_empty() && !self.out.is_empty() {
            self.bytes += self.out.len();
            self.done.push(std::mem::take(&mut self.out));
        }
        if self.bytes + self.out.len() > MAX_HTML_BYTES {
            self.is_full = true;
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        if self.open.len() >= MAX_DEPTH && !matches!(tag, Tag::Image { .. }) {
            return self.open.push("");
        }
        let closing = match tag {
            Tag::Paragraph | Tag::HtmlBlock => self.tag("<p>", "</p>\n"),
            // The page has its own first heading.
            Tag::Heading { level: HeadingLevel::H1 | HeadingLevel::H2, .. } => self.tag("<h3>", "</h3>\n"),
            Tag::Heading { level: HeadingLevel::H3, .. } => self.tag("<h4>", "</h4>\n"),
            Tag::Heading { .. } => self.tag("<h5>", "</h5>\n"),
            Tag::BlockQuote(_) => self.tag("<blockquote>", "</blockquote>\n"),
            Tag::CodeBlock(kind) => {
                self.in_code = true;
                match language(&kind) {
                    Some(language) => self.raw(&format!("<pre data-language=\"{language}\"><code>")),
                    None => self.raw("<pre><code>"),
                }
                "</code></pre>\n"
            }
            Tag::List(None) => self.tag("<ul>\n", "</ul>\n"),
            Tag::List(Some(1)) => self.tag("<ol>\n", "</ol>\n"),
            Tag::List(Some(first)) => {
                self.raw(&format!("<ol start=\"{first}\">\n"));
                "</ol>\n"
            }
            Tag::Item => self.tag("<li>", "</li>\n"),
            Tag::Table(cells) => {
                self.cells = cells;
                self.tag("<div class=\"table\"><table>\n", "</table></div>\n")
            }
            Tag::TableHead => {
                (self.in_head, self.cell) = (true, 0);
                self.tag("<tr>", "</tr>\n")
            }
            Tag::TableRow => {
                (self.in_head, self.cell) = (false, 0);
                self.tag("<tr>", "</tr>\n")
            }
            Tag::TableCell => self.table_cell(),
            Tag::Emphasis => self.tag("<em>", "</em>"),
            Tag::Strong => self.tag("<strong>", "</strong>"),
            Tag::Strikethrough => self.tag("<del>", "</del>"),
            Tag::Link { dest_url, .. } => match address(&dest_url).filter(|_| self.links == 0) {
                Some(url) => {
                    self.links += 1;
                    self.anchor(&url);
                    "</a>"
                }
                None => "",
            },
            Tag::Image { dest_url, .. } => {
                self.image = Some(Image { depth: 0, address: address(&dest_url), alt: String::new() });
                return;
            }
            // Not enabled.
            Tag::FootnoteDefinition(_)
            | Tag::DefinitionList
            | Tag::DefinitionListTitle
            | Tag::DefinitionListDefinition
            | Tag::Superscript
            | Tag::Subscript
            | Tag::MetadataBlock(_) => "",
        };
        self.open.push(if self.is_full && !closing.is_empty() { "" } else { closing });
    }

    fn tag(&mut self, opening: &str, closing: &'static str) -> &'static str {
        self.raw(opening);
        closing
    }

    fn table_cell(&mut self) -> &'static str {
        let class = match self.cells.get(self.cell) {
            Some(Alignment::Right) => " class=\"right\"",
            Some(Alignment::Center) => " class=\"center\"",
            _ => "",
        };
        self.cell += 1;
        let (name, closing) = if self.in_head { ("th", "</th>") } else { ("td", "</td>") };
        self.raw(&format!("<{name}{class}>"));
        closing
    }

    fn end(&mut self) {
        let closing = self.open.pop().unwrap_or_default();
        match closing {
            "</a>" => self.links -= 1,
            "</code></pre>\n" => self.in_code = false,
            _ => {}
        }
        self.out.push_str(closing);
    }

    /// Alternative text only; what it is marked up with is left out.
    fn inside_image(&mut self, event: Event<'_>) {
        let Some(image) = &mut self.image else { return };
        match event {
            Event::Start(_) => image.depth += 1,
            Event::End(_) if image.depth > 0 => image.depth -= 1,
            Event::End(_) => self.show_image(),
            Event::Text(words) | Event::Code(words) | Event::InlineHtml(words) => image.alt.push_str(&words),
            _ => image.alt.push(' '),
        }
    }

    fn show_image(&mut self) {
        let Some(image) = self.image.take() else { return };
        let alt = text::one_line(&image.alt, ALT_CHARACTERS);
        let alt = if alt.is_empty() { "without words".to_owned() } else { alt };
        match image.address.filter(|url| url.has_host()) {
            Some(url) => {
                let host = url.host_str().unwrap_or_default().to_owned();
                let is_link = self.links == 0;
                if is_link {
                    self.raw_anchor(&url, " class=\"image\"");
                }
                self.text(&format!("image: {alt} ({host})"));
                if is_link {
                    self.raw("</a>");
                }
            }
            None => self.text(&format!("image: {alt}")),
        }
    }

    fn anchor(&mut self, url: &Url) {
        self.raw_anchor(url, "");
    }

    /// `class` is ours.
    fn raw_anchor(&mut self, url: &Url, class: &str) {
        let url = escaped(url.as_str());
        self.raw(&format!("<a{class} href=\"{url}\" title=\"{url}\" target=\"_blank\" rel=\"{REL}\">"));
    }

    /// Text, in which addresses become links.
    fn text_with_addresses(&mut self, words: &str) {
        let mut rest = words;
        while let Some((before, found)) = next_address(rest) {
            let url = address(found);
            self.text(before);
            match &url {
                Some(url) => {
                    self.anchor(url);
                    self.text(found);
                    self.raw("</a>");
                }
                None => self.text(found),
            }
            rest = &rest[before.len() + found.len()..];
        }
        self.text(rest);
    }

    fn text(&mut self, words: &str) {
        self.raw(&escaped(words));
    }

    fn raw(&mut self, html: &str) {
        if !self.is_full {
            self.out.push_str(html);
        }
    }

    fn finish(mut self) -> Vec<String> {
        if self.is_full {
            self.done.push("<p class=\"soft\">… [cut: the rest is too long to show]</p>\n".to_owned());
        }
        self.done
    }
}

/// `text` with what HTML gives a meaning escaped, also for attributes in double quotes.
pub(super) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(['&', '<', '>', '"', '\'']) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Where a link may lead: to the web or to somebody's mail, written out in full.
pub(super) fn address(written: &str) -> Option<Url> {
    if written.len() > ADDRESS_BYTES {
        return None;
    }
    Url::parse(written).ok().filter(|url| match url.scheme() {
        "http" | "https" => url.has_host() && url.username().is_empty() && url.password().is_none(),
        "mailto" => true,
        _ => false,
    })
}

/// The next address in plain text, and what stands before it. Full stops and the like at its end are the sentence's.
fn next_address(text: &str) -> Option<(&str, &str)> {
    let start = [text.find("https://"), text.find("http://")].into_iter().flatten().min()?;
    let rest = &text[start..];
    let end = rest.find(|c: char| c.is_whitespace() || "<>\"'`|\\^{}".contains(c)).unwrap_or(rest.len());
    let mut found = rest[..end].trim_end_matches(['.', ',', ';', ':', '!', '?', '*', '_', ']']);
    if found.ends_with(')') && !found.contains('(') {
        found = found.trim_end_matches([')', '.', ',']);
    }
    Some((&text[..start], found))
}

/// A code block's language, when it is a plain word.
fn language(kind: &CodeBlockKind<'_>) -> Option<String> {
    let CodeBlockKind::Fenced(info) = kind else { return None };
    let word = info.split([' ', ',', '{']).next().unwrap_or_default();
    let is_plain = (1..=20).contains(&word.len())
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+#-_.".contains(&byte));
    is_plain.then(|| word.to_ascii_lowercase())
}

#[cfg(test)]
#[path = "markdown_test.rs"]
mod tests;
