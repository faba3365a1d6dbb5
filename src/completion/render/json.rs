//! JSON for readers: indented, every number and escape as it was written, invisible characters as escapes.

use std::fmt::Write;

use crate::clean_json;
use crate::tools::text;

const INDENT: usize = 2;
/// Indentation may make a text this many times longer; beyond, as with deep nesting, it is left as it is.
const MAX_GROWTH: usize = 4;
const FREE_BYTES: usize = 4096;

/// `json` on indented lines, or `None` when it is not an object or array, or is not JSON.
pub fn pretty(json: &str) -> Option<String> {
    let json = json.trim_ascii();
    if !json.starts_with(['{', '['])
        || clean_json::borrowed::<serde::de::IgnoredAny>(json.as_bytes()).is_err()
    {
        return None;
    }
    Some(indented(json).unwrap_or_else(|| visible(json)))
}

/// `None` when the result would be too long. `json` is valid.
fn indented(json: &str) -> Option<String> {
    let limit = json.len() * MAX_GROWTH + FREE_BYTES;
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = 0;
    let mut rest = json;
    while let Some(c) = rest.chars().next() {
        if out.len() > limit {
            return None;
        }
        match c {
            '"' => {
                let end = end_of_string(rest);
                write_visible(&mut out, &rest[..end]);
                rest = &rest[end..];
                continue;
            }
            '{' | '[' => {
                out.push(c);
                let inside = rest[1..].trim_ascii_start();
                if let Some(after) = inside.strip_prefix(['}', ']']) {
                    out.push(if c == '{' { '}' } else { ']' });
                    rest = after;
                    continue;
                }
                depth += 1;
                new_line(&mut out, depth);
            }
            '}' | ']' => {
                depth -= 1;
                new_line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                new_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => out.push(c),
        }
        rest = &rest[c.len_utf8()..];
    }
    Some(out)
}

fn new_line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n(' ', depth * INDENT));
}

/// The position after the string literal that `json` starts with.
fn end_of_string(json: &str) -> usize {
    let bytes = json.as_bytes();
    let mut at = 1;
    while let Some(found) = memchr::memchr2(b'"', b'\\', &bytes[at..]) {
        at += found;
        if bytes[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    bytes.len()
}

fn visible(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    write_visible(&mut out, json);
    out
}

/// Valid JSON has such characters in strings only, apart from carriage returns, which are white space outside.
fn write_visible(out: &mut String, json: &str) {
    for c in json.chars() {
        if c == '\r' {
            out.push(' ');
        } else if text::is_line_break(c) || text::is_hidden_from_readers(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}").expect("writing to a String cannot fail");
            }
        } else {
            out.push(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    #[test]
    fn objects_and_arrays_are_indented_and_kept_exactly() {
        for (input, expect) in [
            ("{}", Some("{}")),
            (" [ ] ", Some("[]")),
            (
                r#"{"a":[1,{"b":"x,\"{y"}],"c":{ }}"#,
                Some("{\n  \"a\": [\n    1,\n    {\n      \"b\": \"x,\\\"{y\"\n    }\n  ],\n  \"c\": {}\n}"),
            ),
            ("[12345678901234567890123,1.50]", Some("[\n  12345678901234567890123,\n  1.50\n]")),
            ("[\"\u{202e}\u{2028}\u{e0041}\"]", Some("[\n  \"\\u202e\\u2028\\udb40\\udc41\"\n]")),
            ("3", None),
            ("\"text\"", None),
            ("{not json", None),
            ("[1] and more", None),
        ] {
            assert_eq!(pretty(input).as_deref(), expect, "{input}");
        }
    }

    #[test]
    fn deep_nesting_does_not_grow_without_bound() {
        let deep =
            format!("{}{}", "[[0,".repeat(60), "[]]]".repeat(60).replacen("[]", "1", 1).replace("[]", ""));
        let wide = format!("[{}]", vec![format!("{}0{}", "[".repeat(100), "]".repeat(100)); 200].join(","));
        for json in [deep, wide] {
            if let Some(shown) = pretty(&json) {
                assert!(shown.len() <= json.len() * (MAX_GROWTH + 1) + FREE_BYTES + 1000);
            }
        }
        let far_too_deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert!(pretty(&far_too_deep).is_none_or(|shown| shown.len() < 2_000_000));
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::vec((any::<String>(), inner), 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_shown_means_the_same(value in json()) {
            if let Some(shown) = pretty(&value.to_string()) {
                prop_assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), value);
                prop_assert!(!shown.chars().any(|c| text::is_line_break(c) || text::is_hidden_from_readers(c)));
            } else {
                prop_assert!(!value.is_object() && !value.is_array());
            }
        }

        #[test]
        fn any_text_is_survived(text in "[\\[\\]{}\",:\\\\ua0-9 \r\n]{0,60}") {
            pretty(&text);
        }
    }
}
