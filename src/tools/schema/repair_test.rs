use super::*;
use proptest::prelude::*;
use serde_json::json;

fn repaired_value(schema: Value, simple: bool) -> Value {
    serde_json::from_str(repair(&schema.to_string(), simple).get()).expect("valid JSON")
}

#[test]
fn a_good_schema_passes_byte_for_byte() {
    for schema in [
        r#"{ "type": "object", "properties": {} }"#,
        r##"{"type":"object","properties":{"a":{"type":"string","enum":["x"],"default":"x"},"$ref":{"type":"array",
           "items":{"$ref":"#/$defs/T"}},"b":{"anyOf":[{"type":"integer","minimum":1.50},{"type":"null"}]},
           "c":{"type":["array","null"],"items":{}}},
           "required":["a"],"additionalProperties":false,"$defs":{"T":{"type":"object","additionalProperties":true}}}"##,
    ] {
        assert_eq!(repair(schema, false).get(), schema);
    }
}

#[test]
fn what_providers_refuse_is_repaired_and_the_rest_kept() {
    let empty = json!({"type": "object", "properties": {}});
    for (schema, expect) in [
        (json!(null), empty.clone()),
        (json!(true), empty.clone()),
        (json!([1]), empty.clone()),
        (json!({}), empty.clone()),
        (json!({"type": "object"}), empty.clone()),
        (json!({"type": ["object", "null"], "properties": null}), empty.clone()),
        (json!({"$schema": "x", "$id": "y", "type": "object", "properties": {}}), empty.clone()),
        (
            json!({"type": "object", "properties": {"a": {"type": "array"}, "b": {"type": "int"}, "c": true,
                "d": "text", "e": {"type": "array", "items": [{"type": "str"}, {"type": "str"}]},
                "f": {"type": "number", "minimum": 1, "exclusiveMinimum": true, "required": true},
                "g": {"type": "any", "enum": []}}, "required": ["a", "a", 3]}),
            json!({"type": "object", "properties": {"a": {"type": "array", "items": {}}, "b": {"type": "integer"},
                "c": {}, "d": {}, "e": {"type": "array", "items": {"type": "string"}},
                "f": {"type": "number", "exclusiveMinimum": 1}, "g": {}}, "required": ["a"]}),
        ),
        (
            json!({"$ref": "#/definitions/A", "definitions": {"A": {"type": "object", "properties": {"a": {}}}}}),
            json!({"definitions": {"A": {"type": "object", "properties": {"a": {}}}}, "type": "object",
                "properties": {"a": {}}}),
        ),
        (
            json!({"type": "object", "properties": {"a": {"$ref": "https://evil.example/schema"},
                "b": {"$ref": "#/$defs/missing", "description": "bee"}, "c": {"$ref": "other.json#/x"}}}),
            json!({"type": "object", "properties": {"a": {"description": "Simplified: its definition is elsewhere."},
                "b": {"description": "bee"}, "c": {"description": "Simplified: its definition is elsewhere."}}}),
        ),
        (
            json!({"type": "object", "allOf": [{"properties": {"a": {}}, "required": ["a"]},
                {"$ref": "#/$defs/B"}], "$defs": {"B": {"properties": {"b": {}}, "required": ["b"]}}}),
            json!({"type": "object", "$defs": {"B": {"properties": {"b": {}}, "required": ["b"]}},
                "properties": {"a": {}, "b": {}}, "required": ["a", "b"]}),
        ),
        (
            json!({"description": "Find.", "oneOf": [
                {"properties": {"id": {"type": "integer"}, "x": {"type": "string"}}, "required": ["id", "x"]},
                {"properties": {"id": {"type": "string"}, "url": {}}, "required": ["url", "x"]}]}),
            json!({"description": "Find.\nGive one of these sets of arguments: id, x | url, x.", "type": "object",
                "properties": {"id": {"anyOf": [{"type": "integer"}, {"type": "string"}]}, "x": {"type": "string"},
                    "url": {}}, "required": ["x"]}),
        ),
        (
            json!({"type": "object", "properties": {"a": {"description": "a\u{200b}b\u{e0041}\u{202e}c"}}}),
            json!({"type": "object", "properties": {"a": {"description": "abc"}}}),
        ),
    ] {
        assert_eq!(repaired_value(schema.clone(), false), expect, "{schema}");
    }
    assert!(repair("not json", false).get().contains("unreadable"));
}

#[test]
fn simple_schemas_have_simple_keywords_only() {
    for (schema, expect) in [
        (
            json!({"type": "object", "additionalProperties": false, "properties": {
                "a": {"type": ["string", "null"], "format": "uri", "minLength": 1},
                "b": {"$ref": "#/$defs/B", "description": "bee"},
                "c": {"anyOf": [{"type": "integer", "format": "int32"}, {"type": "null"}], "default": null},
                "d": {"const": "x"}, "e": {"enum": [1, 2], "type": "integer"},
                "f": {"allOf": [{"$ref": "#/$defs/B"}]}},
                "required": ["a", "zz"],
                "$defs": {"B": {"type": "object", "properties": {"again": {"$ref": "#/$defs/B"}}, "description": "B"}}}),
            json!({"type": "object", "properties": {
                "a": {"type": "string", "nullable": true},
                "b": {"type": "object", "properties": {"again": {}}, "description": "bee"},
                "c": {"type": "integer", "format": "int32", "nullable": true},
                "d": {"type": "string", "enum": ["x"]},
                "e": {"type": "integer", "description": "One of: 1, 2."},
                "f": {"type": "object", "properties": {"again": {}}, "description": "B"}},
                "required": ["a"]}),
        ),
        (json!({"type": "object"}), json!({"type": "object", "properties": {}})),
    ] {
        assert_eq!(repaired_value(schema.clone(), true), expect, "{schema}");
    }
}

#[test]
fn depth_number_and_size_are_bounded() {
    let mut deep = json!({"type": "string"});
    for _ in 0..50 {
        deep = json!({"type": "object", "properties": {"a": deep}});
    }
    let text = repaired_value(deep, false).to_string();
    assert!(text.contains("nests too deeply") && text.len() < 3000, "{text}");

    let unreadable = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(repair(&unreadable, false).get(), r#"{"type":"object","properties":{}}"#);
    assert!(repair(&format!("\"{}\"", "x".repeat(2 << 20)), false).get().contains("too large"));

    let property =
        |n: usize| (format!("p{n}"), json!({"type": "array", "items": {"enum": vec!["some value"; 20]}}));
    let properties: serde_json::Map<String, Value> = (0..900).map(property).collect();
    let many = repair(&json!({"type": "object", "properties": properties}).to_string(), false);
    assert!(many.get().len() <= bound::OUTPUT_BYTES);
    assert!(many.get().contains(r#""p899":{"type":"array","items":{}}"#), "{}", &many.get()[..300]);

    let told =
        json!({"type": "object", "properties": {"a": {"type": "string", "examples": ["x".repeat(70_000)]}}});
    assert_eq!(
        repaired_value(told, false),
        json!({"type": "object", "properties": {"a": {"type": "string"}}})
    );

    // Each definition twice the one before: written out, 2^30 schemas.
    let mut definitions = serde_json::Map::new();
    for n in 0..30 {
        let next = json!({"$ref": format!("#/$defs/d{}", n + 1)});
        definitions.insert(format!("d{n}"), json!({"type": "object", "properties": {"a": next, "b": next}}));
    }
    definitions.insert("d30".to_owned(), json!({}));
    let bomb = json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": definitions});
    assert!(repair(&bomb.to_string(), true).get().len() <= bound::OUTPUT_BYTES);
}

#[test]
fn descriptions_are_bounded_and_clean() {
    assert_eq!(description("Say\u{1b}[1m hi\0\u{feff}"), "Say hi");
    let long = description(&"d".repeat(100_000));
    assert!(long.len() <= DESCRIPTION_BYTES && long.ends_with("bytes not shown]"));
}

/// JSON whose keys are mostly keywords, and whose values mostly fit them.
fn schema_like() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        (-3_i64..30).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop_oneof![
            Just("object"),
            Just("string"),
            Just("array"),
            Just("integer"),
            Just("null"),
            Just("any"),
            Just("#"),
            Just("#/$defs/a"),
            Just("#/properties/a"),
            Just("#/anyOf/0"),
            Just("#/definitions/%61"),
            Just("http://x/y"),
            Just("a"),
            Just("b"),
            Just("date-time"),
            Just("\u{202e}\0"),
        ]
        .prop_map(Value::from),
    ];
    let key = prop_oneof![
        Just("type"),
        Just("properties"),
        Just("items"),
        Just("required"),
        Just("anyOf"),
        Just("oneOf"),
        Just("allOf"),
        Just("$ref"),
        Just("$defs"),
        Just("definitions"),
        Just("enum"),
        Just("const"),
        Just("not"),
        Just("description"),
        Just("additionalProperties"),
        Just("format"),
        Just("exclusiveMinimum"),
        Just("minimum"),
        Just("default"),
        Just("a"),
        Just("b"),
        Just("$schema"),
        Just("id"),
        Just("title"),
        Just("nullable"),
        Just("prefixItems"),
        Just("$dynamicRef"),
        Just("if"),
    ];
    leaf.prop_recursive(6, 80, 6, move |inner| {
        prop_oneof![
            1 => proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            4 => proptest::collection::vec((key.clone(), inner), 0..6).prop_map(|members| {
                Value::Object(members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_repaired_schema_is_an_object_schema_and_stays_as_it_is(schema in schema_like(), simple in any::<bool>()) {
        let once = repair(&schema.to_string(), simple);
        let value: Value = serde_json::from_str(once.get()).unwrap();
        prop_assert_eq!(&value["type"], "object");
        prop_assert!(value["properties"].is_object());
        for key in ["anyOf", "oneOf", "allOf", "enum", "not", "$ref", "$schema", "$id"] {
            prop_assert!(value.get(key).is_none(), "{key} in {value}");
        }
        prop_assert!(!once.get().contains("http://x/y") || schema.to_string().matches("http://x/y").count() > 0);
        let twice = repair(once.get(), simple);
        prop_assert_eq!(twice.get(), once.get());
    }

    #[test]
    fn any_text_is_survived(text in "[\\[\\]{}\",:a#$/0-9 ]{0,60}", simple in any::<bool>()) {
        repair(&text, simple);
    }
}
