//! Arguments that a tool wants mirrored into headers (`x-mcp-header`, MCP 2026-07-28, custom headers).
//!
//! Pure. It never follows a `$ref`: an annotation counts only where the schema itself shows it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};

use crate::clean_json;

const KEY: &str = "x-mcp-header";
/// Larger schemas with annotations are not looked into.
const SCHEMA_BYTES: usize = 1 << 20;
const MOST_ANNOTATIONS: usize = 64;
const OPENING: &str = "=?base64?";
const CLOSING: &str = "?=";

/// Keywords under which one schema, a list of schemas or named schemas stand (JSON Schema 2020-12).
const ONE: [&str; 11] = [
    "items",
    "contains",
    "unevaluatedItems",
    "additionalProperties",
    "propertyNames",
    "unevaluatedProperties",
    "not",
    "if",
    "then",
    "else",
    "contentSchema",
];
const LIST: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];
const NAMED: [&str; 4] = ["patternProperties", "dependentSchemas", "$defs", "definitions"];

/// An annotated argument: its path from the root, and the header that mirrors it.
pub(crate) type HeaderArgument = (Vec<String>, HeaderName);

/// The annotated arguments of an input schema.
///
/// # Errors
/// The reason why the tool must not be used: an annotation that is not a header name, is used twice, or stands
/// where it may not.
pub(crate) fn find(schema: &str) -> Result<Vec<HeaderArgument>, String> {
    // Nearly no tool has annotations, and then nothing needs to be parsed. `\` could hide one in an escape.
    if memchr::memmem::find(schema.as_bytes(), KEY.as_bytes()).is_none()
        && memchr::memmem::find(schema.as_bytes(), b"\\u").is_none()
    {
        return Ok(Vec::new());
    }
    if schema.len() > SCHEMA_BYTES {
        return Err("its input schema is too large".to_owned());
    }
    let schema: Value =
        clean_json::exact(schema).map_err(|_| "its input schema is nested too deeply".to_owned())?;
    let mut found: Vec<HeaderArgument> = Vec::new();
    // Every place knows its parent; a path is put together only where an annotation stands.
    let mut steps: Vec<Step<'_>> = Vec::new();
    let mut open: Vec<(Place, &Value)> = vec![(Place::Argument(None), &schema)];
    while let Some((place, position)) = open.pop() {
        let Value::Object(position) = position else { continue };
        if let Some(annotation) = position.get(KEY) {
            let path = place.path(&steps).ok_or("an x-mcp-header stands where no argument is")?;
            let header = header_name(&path, annotation, position.get("type"))?;
            if found.iter().any(|(_, other)| *other == header) {
                return Err(format!("two arguments use the header {header}"));
            }
            if found.len() == MOST_ANNOTATIONS {
                return Err(format!("more than {MOST_ANNOTATIONS} arguments have an x-mcp-header"));
            }
            found.push((path, header));
        }
        for (keyword, below) in position {
            match (keyword.as_str(), below) {
                ("properties", Value::Object(properties)) => {
                    for (name, schema) in properties {
                        let below = match place {
                            Place::Argument(parent) => {
                                steps.push(Step { parent, name });
                                Place::Argument(Some(steps.len() - 1))
                            }
                            Place::Elsewhere => Place::Elsewhere,
                        };
                        open.push((below, schema));
                    }
                }
                (one, schema) if ONE.contains(&one) => open.push((Place::Elsewhere, schema)),
                (list, Value::Array(schemas)) if LIST.contains(&list) => {
                    open.extend(schemas.iter().map(|schema| (Place::Elsewhere, schema)));
                }
                (named, Value::Object(schemas)) if NAMED.contains(&named) => {
                    open.extend(schemas.values().map(|schema| (Place::Elsewhere, schema)));
                }
                _ => {}
            }
        }
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(found)
}

/// One step of a path: a property, and the step before it.
struct Step<'a> {
    parent: Option<usize>,
    name: &'a str,
}

/// Where in a schema something stands.
#[derive(Clone, Copy)]
enum Place {
    /// At an argument: its last step, `None` at the root.
    Argument(Option<usize>),
    /// Where no single argument is meant.
    Elsewhere,
}

impl Place {
    /// The path of an argument below the root.
    fn path(self, steps: &[Step<'_>]) -> Option<Vec<String>> {
        let Place::Argument(Some(last)) = self else { return None };
        let mut path = Vec::new();
        let mut next = Some(last);
        while let Some(step) = next.and_then(|place| steps.get(place)) {
            path.push(step.name.to_owned());
            next = step.parent;
        }
        path.reverse();
        Some(path)
    }
}

fn header_name(path: &[String], annotation: &Value, kind: Option<&Value>) -> Result<HeaderName, String> {
    let argument = path.join(".");
    let Some(Value::String(kind)) = kind else {
        return Err(format!("argument `{argument}` has an x-mcp-header but no single type"));
    };
    if !matches!(kind.as_str(), "string" | "integer" | "boolean") {
        return Err(format!("argument `{argument}` has an x-mcp-header, which its type does not allow"));
    }
    annotation
        .as_str()
        .filter(|name| !name.is_empty() && name.bytes().all(is_token))
        .and_then(|name| HeaderName::from_bytes(format!("mcp-param-{name}").as_bytes()).ok())
        .ok_or_else(|| format!("argument `{argument}` has an x-mcp-header that is no header name"))
}

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Adds the headers that mirror `arguments`; an argument that is absent or null has none.
pub(crate) fn mirror(headers: &mut HeaderMap, annotated: &[HeaderArgument], arguments: &Map<String, Value>) {
    for (path, header) in annotated {
        let Some((first, rest)) = path.split_first() else { continue };
        let value = rest.iter().try_fold(arguments.get(first), |value, key| Some(value?.get(key)));
        let text = match value.flatten() {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            Some(Value::Bool(truth)) => truth.to_string(),
            _ => continue,
        };
        headers.insert(header.clone(), encode(&text));
    }
}

/// `text` as a header value: itself when it is plain, else base64 in MCP's sentinel.
pub(crate) fn encode(text: &str) -> HeaderValue {
    let looks_encoded = text.starts_with(OPENING) && text.ends_with(CLOSING);
    let at_the_edge = text.starts_with(' ') || text.ends_with(' ');
    let plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~')) && !at_the_edge && !looks_encoded;
    let value = if plain {
        HeaderValue::from_str(text)
    } else {
        HeaderValue::from_str(&format!("{OPENING}{}{CLOSING}", STANDARD.encode(text)))
    };
    value.expect("visible ASCII is a header value")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn arguments_of(schema: Value) -> Result<Vec<(String, String)>, String> {
        find(&schema.to_string()).map(|found| {
            found.into_iter().map(|(path, header)| (path.join("."), header.to_string())).collect()
        })
    }

    #[test]
    fn finds_annotated_arguments_at_any_depth() {
        let schema = json!({"type": "object", "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "deep": {"type": "object", "properties": {"n": {"type": "integer", "x-mcp-header": "N"}}},
            "plain": {"type": "string", "default": {"x-mcp-header": "data, not schema"}},
        }});
        let expect = vec![("deep.n", "mcp-param-n"), ("region", "mcp-param-region")];
        let expect: Vec<_> = expect.into_iter().map(|(a, b)| (a.to_owned(), b.to_owned())).collect();
        assert_eq!(arguments_of(schema), Ok(expect));
    }

    #[test]
    fn refuses_annotations_that_are_wrong_or_out_of_place() {
        let property = |schema: Value| json!({"properties": {"a": schema}});
        for schema in [
            property(json!({"type": "string", "x-mcp-header": ""})),
            property(json!({"type": "string", "x-mcp-header": "My Region"})),
            property(json!({"type": "string", "x-mcp-header": "A:B"})),
            property(json!({"type": "string", "x-mcp-header": "Région"})),
            property(json!({"type": "string", "x-mcp-header": "A\tB"})),
            property(json!({"type": "string", "x-mcp-header": 7})),
            property(json!({"type": "number", "x-mcp-header": "A"})),
            property(json!({"type": "object", "x-mcp-header": "A"})),
            property(json!({"type": ["string", "null"], "x-mcp-header": "A"})),
            property(json!({"x-mcp-header": "A"})),
            property(json!({"type": "array", "items": {"type": "string", "x-mcp-header": "A"}})),
            json!({"x-mcp-header": "A", "type": "string"}),
            json!({"anyOf": [property(json!({"type": "string", "x-mcp-header": "A"}))]}),
            json!({"$defs": {"d": {"type": "string", "x-mcp-header": "A"}}}),
            json!({"properties": {
                "a": {"type": "string", "x-mcp-header": "Same"},
                "b": {"type": "string", "x-mcp-header": "same"},
            }}),
        ] {
            assert!(arguments_of(schema.clone()).is_err(), "{schema}");
        }
    }

    #[test]
    fn finds_an_annotation_whose_name_is_written_with_escapes() {
        let schema = r#"{"properties":{"a":{"type":"number","x\u002dmcp-header":"A"}}}"#;
        assert!(find(schema).is_err());
    }

    #[test]
    fn mirrors_values_and_leaves_out_what_is_absent_or_null() {
        let annotated: Vec<HeaderArgument> = ["text", "number", "truth", "null", "absent", "deep.text"]
            .iter()
            .map(|path| {
                (path.split('.').map(str::to_owned).collect(), format!("mcp-param-{path}").parse().unwrap())
            })
            .collect();
        let Value::Object(arguments) = json!({
            "text": " ü", "number": 7, "truth": false, "null": null, "deep": {"text": "a b"},
        }) else {
            unreachable!()
        };
        let mut headers = HeaderMap::new();
        mirror(&mut headers, &annotated, &arguments);
        let mut found: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        found.sort();
        assert_eq!(
            found,
            [
                "mcp-param-deep.text: a b",
                "mcp-param-number: 7",
                "mcp-param-text: =?base64?IMO8?=",
                "mcp-param-truth: false"
            ]
        );
    }

    proptest! {
        #[test]
        fn every_text_survives_the_header(text in "\\PC{0,20}|[ -~]{0,20}|=\\?base64\\?[a-z]{0,4}\\?=|[\\t\\r\\n a]{0,5}") {
            let value = encode(&text);
            let value = value.to_str().unwrap();
            let back = match value.strip_prefix(OPENING).and_then(|rest| rest.strip_suffix(CLOSING)) {
                Some(payload) => String::from_utf8(STANDARD.decode(payload).unwrap()).unwrap(),
                None => value.to_owned(),
            };
            prop_assert_eq!(back, text);
        }
    }

    #[test]
    fn long_names_above_many_siblings_cost_no_copies_and_annotations_are_counted() {
        let siblings = |count: usize, inside: &str| {
            (0..count)
                .map(|n| format!("\"p{n}\":{}", inside.replace('#', &n.to_string())))
                .collect::<Vec<_>>()
                .join(",")
        };
        let name = "n".repeat(100_000);
        let wide = format!(
            r#"{{"x":"\u0041","properties":{{"{name}":{{"properties":{{{}}}}}}}}}"#,
            siblings(20_000, "{}")
        );
        // Copied for every sibling, the name alone would take two gigabytes.
        assert_eq!(find(&wide).unwrap(), Vec::new());
        let annotated = |count| {
            format!(r#"{{"properties":{{{}}}}}"#, siblings(count, r#"{"type":"string","x-mcp-header":"H#"}"#))
        };
        assert_eq!(find(&annotated(64)).unwrap().len(), 64);
        assert!(find(&annotated(65)).unwrap_err().contains("more than 64"));
        let large = format!(r#"{{"x-mcp-header":1,"x":"{}"}}"#, "y".repeat(SCHEMA_BYTES));
        assert!(find(&large).unwrap_err().contains("too large"));
    }
}
