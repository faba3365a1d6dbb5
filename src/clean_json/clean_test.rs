use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::clean_json::{self, CleanJson};

#[test]
fn what_fits_is_left_alone() {
    for text in [
        r#"{"a": [1, 2.50, -0, 1e308, 18446744073709551615, 1E-400], "b":"😀 😀 \\ud800 \" é"}"#,
        "",
        "no JSON \"",
        r#"["$serde_json::private::RawValue"]"#,
    ] {
        assert!(matches!(clean(text), Cow::Borrowed(_)), "{text}");
    }
}

#[test]
fn what_does_not_fit_is_replaced() {
    let long = "9".repeat(400);
    for (text, expect) in [
        (r#""\ud800""#.to_owned(), r#""\ufffd""#),
        (r#""a\uDC00b\ud83dc\ud83d\ude00""#.to_owned(), r#""a\ufffdb\ufffdc\ud83d\ude00""#),
        (r#""\ud800\ud800\udc00""#.to_owned(), r#""\ufffd\ud800\udc00""#),
        ("[1e400,-1E999]".to_owned(), "[1.7976931348623157e+308,-1.7976931348623157e+308]"),
        (long, "1.7976931348623157e+308"),
        (
            r#"{"$serde_json::private::RawValue":"[]"}"#.to_owned(),
            "{\"\u{FFFD}serde_json::private::RawValue\":\"[]\"}",
        ),
        (
            r#"{"\u0024serde_json::private::RawValue" : "[]"}"#.to_owned(),
            "{\"\u{FFFD}serde_json::private::RawValue\" : \"[]\"}",
        ),
    ] {
        assert_eq!(clean(&text), expect);
        clean_json::from_str::<Value>(&text).unwrap();
    }
}

#[test]
fn what_is_nested_too_deeply_becomes_its_text() {
    let nested = |levels: usize| format!("{}{}{}", "[".repeat(levels), r#""]\"""#, "]".repeat(levels));
    assert!(matches!(clean(&nested(MAX_DEPTH)), Cow::Borrowed(_)));
    let mut value: Value = clean_json::from_str(&nested(5000)).unwrap();
    for _ in 0..MAX_DEPTH {
        value = value[0].take();
    }
    assert_eq!(value, nested(5000 - MAX_DEPTH));
}

#[test]
fn what_is_no_json_stays_none() {
    let deep = format!("{}a{}", "[".repeat(200), "]".repeat(200));
    for text in
        [deep.as_str(), "01e400", "1.e400", "[1e400", "+1e400", "-", "{\"a\":\"\\ud800}", "\"\\ud8", "[[1}"]
    {
        assert!(clean_json::from_str::<Value>(text).is_err(), "{text}");
        assert!(CleanJson::read(text).is_err(), "{text}");
    }
}

/// serde_json reads the text behind its own key anew, as deep as the depth so far had not been.
#[test]
fn the_readers_own_key_cannot_exhaust_the_stack() {
    let mut text = "[]".to_owned();
    for _ in 0..40 {
        let quoted = text.replace('\\', "\\u005c").replace('"', "\\u0022");
        let (open, close) = ("[".repeat(90), "]".repeat(90));
        text = format!("{open}{{\"$serde_json::private::RawValue\":\"{quoted}\"}}{close}");
    }
    let depth = |text: &str| {
        let mut value = clean_json::from_str::<Value>(text).unwrap();
        let mut depth = 0;
        while let Some(inner) = value.as_array_mut().and_then(|list| list.first_mut()).map(Value::take) {
            (value, depth) = (inner, depth + 1);
        }
        (depth, value)
    };
    let (depth, inside) = depth(&text);
    assert_eq!(depth, 90);
    assert!(inside.as_object().unwrap().keys().next().unwrap().starts_with('\u{FFFD}'));
    // Without the entrance it does what is said of it; else this module has one thing less to do.
    let small = r#"{"$serde_json::private::RawValue":"[7]"}"#;
    assert_eq!(serde_json::from_str::<Value>(small).unwrap(), json!([7]));
}

#[test]
fn values_of_ours_never_panic_whatever_they_hold() {
    #[derive(serde::Serialize)]
    struct Raw(Box<serde_json::value::RawValue>);
    for (text, expect) in [
        (r#""\ud800""#, json!("\u{FFFD}")),
        ("1e400", json!(f64::MAX)),
        (r#"{"a":[true]}"#, json!({ "a": [true] })),
    ] {
        let raw = Raw(serde_json::value::RawValue::from_string(text.to_owned()).unwrap());
        assert_eq!(clean_json::to_value(&raw), expect);
        let clean = CleanJson::read(text).unwrap();
        assert_eq!(json!({ "inside": clean })["inside"], expect);
        let stored: CleanJson = serde_json::from_str(text).unwrap();
        assert_eq!(stored.to_value(), expect);
    }
}

proptest! {
    #[test]
    fn any_json_like_text_is_cleaned_to_what_can_be_read(
        text in r#"([\[\]{}:,"e0-9.+-]|\\u[dD][89a-fA-F][0-9a-f]{2}|\\[nu"\\]|1e[0-9]{1,5}| |é|true|"\$serde_json::private::RawValue":){0,40}"#
    ) {
        let cleaned = clean(&text);
        let is_json = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
        prop_assert_eq!(is_json, serde_json::from_str::<serde::de::IgnoredAny>(&cleaned).is_ok());
        if is_json {
            let clean = CleanJson::read(&text).unwrap();
            prop_assert!(serde_json::to_value(&clean).is_ok());
            prop_assert!(matches!(super::clean(clean.get()), Cow::Borrowed(_)));
        }
    }

    #[test]
    fn any_value_stays_what_it_is(texts in proptest::collection::vec(".{0,20}", 0..8), number: f64, whole: i64) {
        let value = json!({ "texts": texts, "n": [number, whole], "o": { "k": null } });
        prop_assert!(matches!(clean(&value.to_string()), Cow::Borrowed(_)));
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = clean_json::from_slice::<Value>(&bytes);
    }
}
