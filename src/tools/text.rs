//! Text from strangers: which characters of it reach a model and which a reader.
//!
//! Pure. A model gets the text as it is, minus characters that no text needs and that hide words from the reader;
//! a reader gets it without anything that moves, hides or reorders what stands around it.

use std::borrow::Cow;

/// `text` for a model: without C0 controls other than tab and line breaks, and without the invisible twins of
/// ASCII (Unicode tags, supplementary variation selectors) in which instructions are smuggled past readers.
pub fn for_model(text: &str) -> Cow<'_, str> {
    if text.chars().any(is_hidden_from_models) {
        Cow::Owned(text.chars().filter(|&c| !is_hidden_from_models(c)).collect())
    } else {
        Cow::Borrowed(text)
    }
}

/// `text` for a reader: terminal escape sequences, controls, zero-width and bidirectional marks removed, and every
/// kind of line break (CR, CRLF, VT, FF, NEL, U+2028, U+2029) a line feed. The joiners U+200C and U+200D stay, as
/// several scripts and emoji need them.
pub fn for_reader(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| is_line_break(c) || is_hidden_from_readers(c)) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => rest = after_escape(rest.as_str()).chars(),
            '\u{9b}' => rest = after_control_sequence(rest.as_str()).chars(),
            '\r' => {
                if rest.as_str().starts_with('\n') {
                    rest.next();
                }
                clean.push('\n');
            }
            c if is_line_break(c) => clean.push('\n'),
            c if is_hidden_from_readers(c) => {}
            c => clean.push(c),
        }
    }
    Cow::Owned(clean)
}

/// `text` for a reader, on one line of at most `limit` characters; `…` shows that more was there.
pub fn one_line(text: &str, limit: usize) -> String {
    let clean = for_reader(text);
    let mut line = String::new();
    let words = clean.split_whitespace().enumerate();
    let characters = words.flat_map(|(n, word)| (n > 0).then_some(' ').into_iter().chain(word.chars()));
    for (count, c) in characters.enumerate() {
        if count == limit {
            line.pop();
            line.push('…');
            break;
        }
        line.push(c);
    }
    line
}

/// `text` within `limit` bytes, on a character boundary; where something is missing, a last line says how much.
/// A limit too small for that line is exceeded by it.
pub fn cut(text: Cow<'_, str>, limit: usize) -> Cow<'_, str> {
    if text.len() <= limit {
        return text;
    }
    let kept = &text[..text.floor_char_boundary(limit.saturating_sub(CUT_MARK_BYTES))];
    Cow::Owned(format!("{kept}{}", cut_mark(text.len() - kept.len(), text.len())))
}

/// More than [`cut_mark`] takes.
pub const CUT_MARK_BYTES: usize = 96;

/// The line that says that bytes are missing.
pub fn cut_mark(missing: usize, of: usize) -> String {
    format!("\n… [cut: {} of {} bytes not shown]", thousands(missing), thousands(of))
}

fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Whether a reader must not get `c`; the renderer of JSON writes such characters as escapes.
pub fn is_hidden_from_readers(c: char) -> bool {
    is_hidden_from_models(c)
        || matches!(c,
            '\u{7f}'..='\u{9f}' | '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}'
            | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fff9}'..='\u{fffb}' | '\u{feff}')
}

/// Whether `c` ends a line for some reader, the line feed itself aside.
pub fn is_line_break(c: char) -> bool {
    matches!(c, '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn is_hidden_from_models(c: char) -> bool {
    matches!(c,
        '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{e0000}'..='\u{e007f}'
        | '\u{e0100}'..='\u{e01ef}')
}

/// What follows an escape sequence whose ESC was read (ECMA-48 §5.3–5.6, in brief).
fn after_escape(rest: &str) -> &str {
    let mut chars = rest.chars();
    match chars.next() {
        Some('[') => after_control_sequence(chars.as_str()),
        // Operating system commands and other strings: up to BEL or ST, on this line.
        Some(']' | 'P' | 'X' | '^' | '_') => {
            let body = chars.as_str();
            let end = body.find(['\u{7}', '\u{1b}', '\u{9c}', '\n', '\r']).unwrap_or(body.len());
            let rest = &body[end..];
            rest.strip_prefix('\u{7}')
                .or_else(|| rest.strip_prefix("\u{1b}\\"))
                .or_else(|| rest.strip_prefix('\u{9c}'))
                .unwrap_or(rest)
        }
        Some(' '..='/') => {
            let end = chars.as_str().trim_start_matches(|c| matches!(c, ' '..='/'));
            end.strip_prefix(|c| matches!(c, '0'..='~')).unwrap_or(end)
        }
        Some('0'..='~') => chars.as_str(),
        _ => rest,
    }
}

fn after_control_sequence(rest: &str) -> &str {
    let end = rest.trim_start_matches(|c| matches!(c, ' '..='?'));
    end.strip_prefix(|c| matches!(c, '@'..='~')).unwrap_or(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn readers_get_no_controls_and_one_kind_of_line_break() {
        for (input, expect) in [
            ("plain\ttext\n", "plain\ttext\n"),
            ("a\r\nb\rc\u{2028}d\u{85}e\u{b}f", "a\nb\nc\nd\ne\nf"),
            ("\u{1b}[31mred\u{1b}[0m \u{9b}1mbold", "red bold"),
            ("\u{1b}]8;;http://x\u{7}link\u{1b}]8;;\u{1b}\\!", "link!"),
            ("\u{1b}]never ends\nnext", "\nnext"),
            ("\u{1b}(Bx\u{1b}cy\u{1b}", "xy"),
            ("a\0b\u{200b}c\u{202e}d\u{feff}e\u{e0041}f", "abcdef"),
            ("می\u{200c}خواهم 👩\u{200d}💻", "می\u{200c}خواهم 👩\u{200d}💻"),
        ] {
            assert_eq!(for_reader(input), expect, "{input:?}");
        }
    }

    #[test]
    fn models_get_line_breaks_and_marks_as_they_are() {
        assert_eq!(for_model("a\r\nb\u{200b}c"), "a\r\nb\u{200b}c");
        assert_eq!(for_model("a\0b\u{1b}c\u{e0041}d"), "abcd");
    }

    #[test]
    fn a_line_is_one_line_of_bounded_length() {
        assert_eq!(one_line("  a \n\n b\t", 10), "a b");
        assert_eq!(one_line("abcdef", 6), "abcdef");
        assert_eq!(one_line("abcdefg", 6), "abcde…");
        assert_eq!(one_line("ab cd", 3), "ab…");
        assert_eq!(one_line("ab cd", 2), "a…");
    }

    #[test]
    fn a_cut_is_visible_and_happens_once() {
        assert_eq!(cut("short".into(), 5), "short");
        let text = "é".repeat(750_000);
        let shown = cut(text.as_str().into(), 265_433);
        assert!(
            shown.ends_with("é\n… [cut: 1,234,664 of 1,500,000 bytes not shown]"),
            "{}",
            &shown[265_300..]
        );
        assert!(shown.len() <= 265_433);
        assert_eq!(cut(shown.clone(), 265_433), shown);
        assert_eq!(cut("abcdef".into(), 3), "\n… [cut: 6 of 6 bytes not shown]");
        assert!(cut_mark(usize::MAX, usize::MAX).len() < CUT_MARK_BYTES);
    }

    proptest! {
        #[test]
        fn nothing_hidden_is_left(text in any::<String>(), bad in "[\u{1b}\u{9b}\\[\\]0-9m\r\n\u{202e}\\\\]{0,20}") {
            let text = format!("{bad}{text}{bad}");
            let clean = for_reader(&text).into_owned();
            prop_assert!(!clean.chars().any(|c| is_line_break(c) || is_hidden_from_readers(c)));
            prop_assert_eq!(for_reader(&clean), &*clean);
            prop_assert!(one_line(&text, 20).chars().count() <= 20);
            prop_assert!(!one_line(&text, 20).contains('\n'));
        }
    }
}
