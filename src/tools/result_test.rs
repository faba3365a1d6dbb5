use super::*;
use crate::tools::Error;
use proptest::prelude::*;

const PNG: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

fn read(json: &str) -> ToolResult {
    ToolResult::parse(json.as_bytes()).expect("a tool result")
}

fn text(text: impl Into<String>) -> Part {
    Part::Text(text.into())
}

#[test]
fn every_kind_of_content_is_read() {
    let result = read(&format!(
        r#"{{"content":[
            {{"type":"text","text":"a\nb","annotations":{{"audience":["user"]}}}},
            {{"type":"image","data":"{PNG}","mimeType":"image/PNG; x=y"}},
            {{"type":"audio","data":"QUFB","mimeType":"<b>"}},
            {{"type":"resource_link","uri":"file:///a","name":"a\u001b[1m\nb","size":12,"mimeType":"text/x"}},
            {{"type":"resource","resource":{{"uri":"file:///t","text":"tee","mimeType":"text/plain"}}}},
            {{"type":"resource","resource":{{"uri":"file:///b","blob":"QQ=="}}}},
            {{"type":"resource","resource":{{"uri":"file:///c"}}}},
            {{"type":"image","data":"not base64!"}},
            {{"type":"hologram","x":[1,2,3]}},
            {{"type":"text","text":7}},
            {{"type":"text","text":"lone \ud800 surrogate"}},
            {{"text":"no type"}},
            3
        ],"isError":null,"resultType":"complete","_meta":{{}}}}"#
    ));
    let labels: Vec<String> =
        result.parts.iter().map(|part| part.label().unwrap_or_else(|| format!("{part:?}"))).collect();
    assert_eq!(
        labels,
        [
            "Text(\"a\\nb\")",
            "[image image/png, 70 bytes]",
            "[audio application/octet-stream, 3 bytes]",
            "[link a b: file:///a, text/x, 12 bytes]",
            "[resource file:///t, text/plain]",
            "[resource file:///b, application/octet-stream, 1 byte]",
            "[resource file:///c without content, 50 bytes]",
            "[image that is not base64, 37 bytes]",
            "[hologram, 31 bytes]",
            "[content that is not MCP, 24 bytes]",
            "Text(\"lone \u{fffd} surrogate\")",
            "[content without a type, 18 bytes]",
            "[content that is not MCP, 1 byte]",
        ]
    );
    assert!(!result.is_error);
}

#[test]
fn what_is_no_tool_result_is_an_error() {
    for raw in [&b"[]"[..], b"", b"{\"content\":3}", b"{\"content\":[}", b"{\"isError\":\"yes\"}", b"\xff"] {
        assert!(matches!(ToolResult::parse(raw), Err(Error::Protocol(_))), "{raw:?}");
    }
    assert!(ToolResult::parse(b"{}").expect("an empty result").parts.is_empty());
}

#[test]
fn hostile_sizes_are_bounded() {
    let many = read(&format!(r#"{{"content":[{}{{}}]}}"#, "{},".repeat(4999)));
    assert_eq!(many.parts.len(), 1001);
    assert_eq!(many.parts[1000], text("… [cut: 4000 more parts not shown]"));

    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let result = read(&format!(r#"{{"structuredContent":{{"a":{deep}}},"content":[{deep}]}}"#));
    let structured: Value = serde_json::from_str(result.structured.as_ref().unwrap().get()).unwrap();
    assert!(result.is_repaired && structured["a"].is_array(), "deep inside, it is a text");
    assert!(result.for_model().len() > 200_000);
}

#[test]
fn structured_content_that_a_text_repeats_is_given_once() {
    for (json, expect) in [
        (r#"{"structuredContent":{"a":1}}"#, "{\"a\":1}"),
        (
            r#"{"structuredContent":{"a":1},"content":[{"type":"text","text":"{\n \"a\": 1.0 }"}]}"#,
            "{\n \"a\": 1.0 }\n{\"a\":1}",
        ),
        (
            r#"{"structuredContent":{"a":1,"b":"\u00e9"},"content":[{"type":"text","text":"{\"b\": \"é\", \"a\": 1}"}]}"#,
            "{\"b\": \"é\", \"a\": 1}",
        ),
        (r#"{"structuredContent":{"result":"sunny"},"content":[{"type":"text","text":"sunny"}]}"#, "sunny"),
        (
            r#"{"structuredContent":{"result":[1,"b"]},"content":[{"type":"text","text":"1"},{"type":"text","text":"b"}]}"#,
            "1\nb",
        ),
        (
            r#"{"structuredContent":{"result":"sunny"},"content":[{"type":"text","text":"rain"}]}"#,
            "rain\n{\"result\":\"sunny\"}",
        ),
        (r#"{"structuredContent":null,"content":[{"type":"text","text":"rain"}]}"#, "rain"),
    ] {
        assert_eq!(read(json).for_model(), expect, "{json}");
    }
}

#[test]
fn the_model_is_told_about_failures_and_silence() {
    assert_eq!(ToolResult::failure("no such file").for_model(), "The tool call failed:\nno such file");
    assert_eq!(ToolResult::default().for_model(), "(the tool returned nothing)");
    let silent = ToolResult { is_error: true, ..ToolResult::default() };
    assert_eq!(silent.for_model(), "The tool call failed:\n(the tool returned nothing)");
    assert_eq!(ToolResult::failure("a\0b\u{1b}c\u{e0041}").for_model(), "The tool call failed:\nabc");
}

#[test]
fn images_are_given_with_the_type_of_their_bytes() {
    let result = read(&format!(
        r#"{{"content":[{{"type":"image","data":"{PNG}","mimeType":"image/jpeg"}},
            {{"type":"image","data":"QUFBQUFBQUFBQUFBQUFBQQ==","mimeType":"image/png"}},
            {{"type":"resource","resource":{{"uri":"x","blob":"{PNG}","mimeType":"image/png"}}}}]}}"#
    ));
    let images = result.images();
    assert_eq!(images.len(), 2);
    assert_eq!(images[0], Image { mime_type: "image/png", base64: PNG });
    assert!(images[0].data_url().starts_with("data:image/png;base64,iVBOR"));
    assert_eq!(result.estimate_tokens(), 2000 + result.for_model().len().div_ceil(4));
}

#[test]
fn a_cut_says_what_is_missing() {
    let result = ToolResult { parts: vec![text("é".repeat(750_000))], ..ToolResult::default() }.cut(265_433);
    let Part::Text(shown) = &result.parts[0] else { panic!("{result:?}") };
    assert!(shown.ends_with("é\n… [cut: 1,234,664 of 1,500,000 bytes not shown]"));

    let parts = vec![text("a".repeat(50)), text("b".repeat(200)), text("c".repeat(200))];
    let result = ToolResult { parts, ..ToolResult::default() }.cut(200);
    assert_eq!(
        result.for_model(),
        format!("{}\n{}\n… [cut: 346 of 450 bytes not shown]", "a".repeat(50), "b".repeat(54))
    );
}

#[test]
fn a_cut_takes_structured_content_too() {
    let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(500));
    let result = read(&format!(r#"{{"structuredContent":{long}}}"#)).cut(300);
    assert!(result.structured.is_none());
    assert!(result.for_model().ends_with("bytes not shown]"), "{}", result.for_model());

    let twice = serde_json::json!({"structuredContent": {"a": "x".repeat(500)}, "content": [{"type": "text", "text": long}]});
    let result = read(&twice.to_string()).cut(300);
    assert_eq!(result.parts.len(), 1);
    assert!(result.structured.is_none() && result.for_model().len() <= 300);
}

#[test]
fn media_beyond_the_bound_are_named() {
    let image =
        |size: usize| Part::Image { mime_type: "image/png".to_owned(), data: Bytes::from(vec![b'A'; size]) };
    let result =
        ToolResult { parts: vec![image(16 << 20), image(8 << 20), image(8 << 20)], ..ToolResult::default() }
            .cut(1000);
    let labels: Vec<_> = result.parts.iter().filter_map(Part::label).collect();
    assert_eq!(
        labels,
        [
            "[image/png left out for its size, 12.0 MiB]",
            "[image image/png, 6.0 MiB]",
            "[image/png left out for its size, 6.0 MiB]"
        ]
    );
}

fn any_part() -> impl Strategy<Value = Part> {
    prop_oneof![
        "\\PC{0,60}".prop_map(Part::Text),
        ("[a-z]{0,9}", "\\PC{0,60}").prop_map(|(uri, text)| Part::ResourceText {
            uri,
            mime_type: None,
            text
        }),
        ("[a-z]{0,40}", 0_usize..90).prop_map(|(kind, size_bytes)| Part::Unknown { kind, size_bytes }),
        Just(Part::Image { mime_type: "image/png".to_owned(), data: Bytes::from_static(b"QUFB") }),
    ]
}

proptest! {
    #[test]
    fn a_cut_result_is_within_the_limit_and_cut_once(
        parts in proptest::collection::vec(any_part(), 0..8),
        structured in proptest::option::of("[a-z]{0,90}"),
        limit in 100_usize..400,
    ) {
        let structured = structured.map(|word| CleanJson::read(&format!("{{\"a\":\"{word}\"}}")).unwrap());
        let whole = ToolResult { parts, structured, ..ToolResult::default() };
        let size = |result: &ToolResult| {
            result.parts.iter().map(Part::readable_bytes).sum::<usize>()
                + result.unrepeated_structured().map_or(0, str::len)
        };
        let cut = whole.clone().cut(limit);
        prop_assert!(size(&cut) <= limit);
        prop_assert_eq!(cut.for_model().contains("[cut: "), size(&whole) > limit);
        prop_assert_eq!(cut.clone().cut(limit).for_model(), cut.for_model());
    }

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(result) = ToolResult::parse(&bytes) {
            result.estimate_tokens();
        }
    }
}
