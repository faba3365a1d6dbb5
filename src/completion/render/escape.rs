//! Strangers' words between our own: entities in summaries, escapes in prose, fences around everything long.

use crate::tools::text;

/// `text` inside `<summary>`: one line, no markup for HTML, and none for readers that take HTML for Markdown.
pub fn summary(text: &str, limit: usize) -> String {
    let mut out = String::new();
    for c in text::one_line(text, limit).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '`' => out.push_str("&#96;"),
            '*' => out.push_str("&#42;"),
            '[' => out.push_str("&#91;"),
            ']' => out.push_str("&#93;"),
            '\\' => out.push_str("&#92;"),
            c => out.push(c),
        }
    }
    out
}

/// `text` inside a line of Markdown prose: one line that shows exactly these characters.
pub fn inline(text: &str, limit: usize) -> String {
    let line = text::one_line(text, limit);
    let mut out = String::new();
    let mut before = ' ';
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        let inside_a_word =
            before.is_alphanumeric() && rest.peek().is_some_and(|next| next.is_alphanumeric());
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '_' if inside_a_word => out.push('_'),
            '\\' | '`' | '*' | '_' | '[' | ']' | '~' | '|' | '$' | '#' | '!' => out.extend(['\\', c]),
            c => out.push(c),
        }
        before = c;
    }
    out
}

/// `text` as a code span on one line. Empty text gives nothing, as Markdown has no empty code span.
pub fn code_span(text: &str, limit: usize) -> String {
    let line = text::one_line(text, limit);
    if line.is_empty() {
        return line;
    }
    let ticks = "`".repeat(longest_run(&line, b'`') + 1);
    // A reader takes one space off both ends, which also keeps backticks at the ends apart from the delimiter.
    let space = if line.starts_with('`') || line.ends_with('`') { " " } else { "" };
    format!("{ticks}{space}{line}{space}{ticks}")
}

/// Appends `text`, made fit for readers, as a fenced code block of its own lines, longer fenced than anything inside.
pub fn fence(out: &mut String, language: &str, text: &str) {
    let ticks = "`".repeat((longest_run(text, b'`') + 1).max(3));
    out.push_str(&ticks);
    out.push_str(language);
    out.push('\n');
    out.push_str(text);
    if !text.is_empty() && !text.ends_with('\n') {
        out.push('\n');
    }
    out.push_str(&ticks);
    out.push('\n');
}

fn longest_run(text: &str, byte: u8) -> usize {
    let (mut longest, mut run) = (0, 0);
    for &b in text.as_bytes() {
        run = if b == byte { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_have_no_markup() {
        assert_eq!(summary("get_weather", 50), "get_weather");
        assert_eq!(
            summary("</summary>\n\n<b>\"[x](y)`*\\&", 50),
            "&lt;/summary&gt; &lt;b&gt;&quot;&#91;x&#93;(y)&#96;&#42;&#92;&amp;"
        );
        assert_eq!(summary("abcdef", 4), "abc…");
    }

    #[test]
    fn prose_keeps_names_readable() {
        assert_eq!(inline("tool get_weather of 127.0.0.1:8080", 50), "tool get_weather of 127.0.0.1:8080");
        assert_eq!(inline("_a_ *b* [c](d) <e>", 50), r"\_a\_ \*b\* \[c\](d) &lt;e&gt;");
    }

    #[test]
    fn code_is_delimited_by_more_backticks_than_it_has() {
        assert_eq!(code_span("a", 9), "`a`");
        assert_eq!(code_span("`a``b", 9), "``` `a``b ```");
        assert_eq!(code_span(" \n", 9), "");
        let mut out = String::new();
        fence(&mut out, "text", "a\n````\nb");
        assert_eq!(out, "`````text\na\n````\nb\n`````\n");
    }
}
