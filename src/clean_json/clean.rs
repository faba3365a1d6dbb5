//! Replaces what is valid JSON by its grammar but fits into no tree of values, and leaves all other bytes alone.
//!
//! A lone surrogate becomes U+FFFD, a number beyond a double becomes the largest one, what is nested too deeply becomes
//! its own text, and a key that serde_json keeps for itself loses its first character. Text that is no JSON stays none:
//! its reader says so.

use std::borrow::Cow;
use std::ops::Range;

/// Levels of arrays and objects that are kept. Readers give up at 128, and what is kept is wrapped again.
const MAX_DEPTH: usize = 100;

/// The key by which serde_json carries a `RawValue`: where it reads a tree, an object with it is replaced by what its
/// text holds, which is read anew without regard to the depth so far. Outside JSON could end the process with it.
const RESERVED_KEY: &str = "$serde_json::private::RawValue";
/// What stands for it.
const HARMLESS_KEY: &str = "\"\u{FFFD}serde_json::private::RawValue\"";
/// Numbers of fewer characters and without exponent are within a double.
const SHORT_NUMBER: usize = 300;

/// The text without what no tree of values can hold; borrowed where there is nothing of the kind.
pub fn clean(text: &str) -> Cow<'_, str> {
    clean_to(text, MAX_DEPTH)
}

/// As [`clean`], with another number of levels.
pub(super) fn clean_to(text: &str, max_depth: usize) -> Cow<'_, str> {
    let mut cleaner = Cleaner { text, max_depth, at: 0, copied: 0, depth: 0, out: String::new() };
    cleaner.run();
    if cleaner.copied == 0 {
        return Cow::Borrowed(text);
    }
    cleaner.out.push_str(text.get(cleaner.copied..).unwrap_or_default());
    Cow::Owned(cleaner.out)
}

struct Cleaner<'t> {
    text: &'t str,
    max_depth: usize,
    at: usize,
    /// Up to here the text is in `out`; 0 when nothing was replaced.
    copied: usize,
    depth: usize,
    out: String,
}

impl Cleaner<'_> {
    fn run(&mut self) {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            match byte {
                b'"' => self.string(),
                b'[' | b'{' if self.depth == self.max_depth => {
                    let end = end_of_container(bytes, self.at);
                    let inside = self.text.get(self.at..end).unwrap_or_default();
                    // What is no JSON stays none. This reader keeps no stack.
                    if serde_json::from_str::<serde::de::IgnoredAny>(inside).is_ok() {
                        let quoted = serde_json::Value::from(inside).to_string();
                        self.replace(self.at..end, &quoted);
                    }
                    self.at = end;
                }
                b'[' | b'{' => {
                    self.depth += 1;
                    self.at += 1;
                }
                b']' | b'}' => {
                    self.depth = self.depth.saturating_sub(1);
                    self.at += 1;
                }
                b'-' | b'0'..=b'9' => self.number(),
                _ => self.at += 1,
            }
        }
    }

    fn replace(&mut self, range: Range<usize>, with: &str) {
        self.out.push_str(self.text.get(self.copied..range.start).unwrap_or_default());
        self.out.push_str(with);
        self.copied = range.end;
    }

    fn string(&mut self) {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let (mut at, mut lone) = (start + 1, Vec::new());
        let mut escaped = false;
        while let Some(found) = memchr::memchr2(b'"', b'\\', bytes.get(at..).unwrap_or_default()) {
            at += found;
            if bytes[at] == b'"' {
                break;
            }
            escaped = true;
            match (unit(bytes, at), unit(bytes, at + 6)) {
                (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => at += 12,
                (Some(0xD800..=0xDFFF), _) => {
                    lone.push(at..at + 6);
                    at += 6;
                }
                (Some(_), _) => at += 6,
                (None, _) => at += 2,
            }
        }
        // Behind the closing quote, or at the end of a text that has none.
        self.at = if at < bytes.len() && bytes[at] == b'"' { at + 1 } else { bytes.len() };
        let whole = self.text.get(start..self.at).unwrap_or_default();
        if lone.is_empty() && is_reserved(whole, escaped) && is_key(bytes, self.at) {
            self.replace(start..self.at, HARMLESS_KEY);
        }
        for unit in lone {
            self.replace(unit, "\\ufffd");
        }
    }

    fn number(&mut self) {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let length = rest.iter().take_while(|byte| is_part(byte)).count();
        let (start, end) = (self.at, self.at + length);
        self.at = end;
        let number = self.text.get(start..end).unwrap_or_default();
        if number.len() < SHORT_NUMBER && !number.contains(['e', 'E']) {
            return;
        }
        let is_json = serde_json::from_str::<serde::de::IgnoredAny>(number).is_ok();
        if let Ok(value) = number.parse::<f64>()
            && is_json
            && serde_json::from_str::<serde_json::Value>(number).is_err()
        {
            self.replace(start..end, &serde_json::Value::from(value.clamp(f64::MIN, f64::MAX)).to_string());
        }
    }
}

/// The UTF-16 unit that is escaped at `at`.
fn unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at.checked_add(6)?)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |unit, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(unit << 4 | u16::try_from(digit).ok()?)
    })
}

/// Whether a string, with its quotes, says [`RESERVED_KEY`].
fn is_reserved(string: &str, escaped: bool) -> bool {
    if !escaped {
        return string.len() == RESERVED_KEY.len() + 2 && string.contains(RESERVED_KEY);
    }
    // Each character takes at most six.
    string.len() <= 6 * RESERVED_KEY.len() + 2
        && serde_json::from_str::<String>(string).is_ok_and(|text| text == RESERVED_KEY)
}

/// Whether the string that ends at `at` names a member of an object.
fn is_key(bytes: &[u8], at: usize) -> bool {
    bytes.get(at..).unwrap_or_default().iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':')
}

/// Behind the array or object that begins at `at`, or the end of a text in which it does not end.
fn end_of_container(bytes: &[u8], at: usize) -> usize {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for (offset, byte) in bytes.get(at..).unwrap_or_default().iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => {
                depth -= 1;
                if depth == 0 {
                    return at + offset + 1;
                }
            }
            _ => {}
        }
    }
    bytes.len()
}

#[cfg(test)]
#[path = "clean_test.rs"]
mod tests;
