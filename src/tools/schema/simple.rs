//! The small set of keywords that the least capable providers know: no references, no compositions but `anyOf`, one
//! type each.

use serde_json::{Map, Value, json};

use super::bound::allows_arrays;
use super::reference;

const KEPT: &[&str] = &[
    "type",
    "description",
    "properties",
    "required",
    "items",
    "enum",
    "format",
    "anyOf",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "nullable",
];
/// Values of a schema whose references are written out; a schema that refers to itself many times grows fast.
const MAX_NODES: usize = 2000;
const MAX_DEPTH: usize = 32;
/// Values that a description lists.
const MAX_LISTED: usize = 50;

/// Reduces `root`, whose references lead somewhere.
pub fn simplify(root: &mut Value) {
    let whole = root.clone();
    let mut left = MAX_NODES;
    let mut simple = Simplifier { whole: &whole, left: &mut left, following: Vec::new() };
    *root = simple.schema(&whole, MAX_DEPTH);
    if let Value::Object(members) = root {
        members.insert("type".to_owned(), json!("object"));
        members.entry("properties").or_insert_with(|| json!({}));
    }
}

struct Simplifier<'a> {
    whole: &'a Value,
    left: &'a mut usize,
    /// References being written out, so that none is inside itself.
    following: Vec<&'a str>,
}

impl<'a> Simplifier<'a> {
    fn schema(&mut self, schema: &'a Value, levels: usize) -> Value {
        let Value::Object(members) = schema else { return json!({}) };
        if levels == 0 || *self.left == 0 {
            return json!({});
        }
        *self.left -= 1;
        let target = members.get("$ref").and_then(Value::as_str);
        let mut simple = Map::new();
        if let Some(target) = target
            && !self.following.contains(&target)
            && let Some(found) = reference::find(self.whole, target)
        {
            self.following.push(target);
            if let Value::Object(found) = self.schema(found, levels - 1) {
                simple = found;
            }
            self.following.pop();
        }
        // `allOf` of one is the usual way to put a description beside a reference.
        for part in members.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            if let Value::Object(part) = self.schema(part, levels - 1) {
                add_missing(&mut simple, part);
            }
        }
        for (key, value) in members {
            let value = match (key.as_str(), value) {
                ("properties", Value::Object(properties)) => {
                    let properties = properties
                        .iter()
                        .map(|(name, property)| (name.clone(), self.schema(property, levels - 1)))
                        .collect();
                    Value::Object(properties)
                }
                ("items", items) => self.schema(items, levels - 1),
                ("anyOf" | "oneOf", Value::Array(choices)) => {
                    self.choices(choices, levels - 1, &mut simple);
                    continue;
                }
                ("type", Value::Array(kinds)) => {
                    if kinds.iter().any(|kind| kind == "null") {
                        simple.insert("nullable".to_owned(), json!(true));
                    }
                    match kinds.iter().find(|kind| *kind != "null") {
                        Some(kind) => kind.clone(),
                        None => continue,
                    }
                }
                ("type", Value::String(kind)) if kind == "null" => {
                    simple.insert("nullable".to_owned(), json!(true));
                    continue;
                }
                ("const", value) => {
                    simple.insert("enum".to_owned(), json!([value]));
                    continue;
                }
                (key, value) if KEPT.contains(&key) => value.clone(),
                _ => continue,
            };
            simple.insert(key.clone(), value);
        }
        tidy(&mut simple);
        Value::Object(simple)
    }

    /// The choices that are more than null; a single one is no choice.
    fn choices(&mut self, choices: &'a [Value], levels: usize, simple: &mut Map<String, Value>) {
        let mut kept = Vec::new();
        for choice in choices {
            if choice.get("type").is_some_and(|kind| kind == "null") {
                simple.insert("nullable".to_owned(), json!(true));
                continue;
            }
            let choice = self.schema(choice, levels);
            if !kept.contains(&choice) {
                kept.push(choice);
            }
        }
        match kept.len() {
            0 => {}
            1 => {
                if let Some(Value::Object(choice)) = kept.pop() {
                    add_missing(simple, choice);
                }
            }
            _ => {
                simple.insert("anyOf".to_owned(), Value::Array(kept));
            }
        }
    }
}

fn add_missing(simple: &mut Map<String, Value>, more: Map<String, Value>) {
    for (key, value) in more {
        match (key.as_str(), simple.get_mut(&key), value) {
            ("properties", Some(Value::Object(known)), Value::Object(more)) => add_missing(known, more),
            (_, None, value) => {
                simple.insert(key, value);
            }
            _ => {}
        }
    }
}

/// Keywords that must agree with each other.
fn tidy(schema: &mut Map<String, Value>) {
    if schema.contains_key("properties") {
        schema.insert("type".to_owned(), json!("object"));
        schema.shift_remove("anyOf");
    } else if schema.contains_key("anyOf") {
        schema.shift_remove("type");
    }
    tidy_enum(schema);
    let kind = schema.get("type").and_then(Value::as_str);
    let known_format = match (kind, schema.get("format").and_then(Value::as_str)) {
        (Some("string"), Some(format)) => format == "date-time",
        (Some("integer"), Some(format)) => matches!(format, "int32" | "int64"),
        (Some("number"), Some(format)) => matches!(format, "float" | "double"),
        _ => false,
    };
    if !known_format {
        schema.shift_remove("format");
    }
    if allows_arrays(schema.get("type")) {
        schema.entry("items").or_insert_with(|| json!({}));
    } else {
        schema.shift_remove("items");
    }
    tidy_required(schema);
}

/// Only texts may be listed; other values are for the model to read.
fn tidy_enum(schema: &mut Map<String, Value>) {
    let Some(Value::Array(values)) = schema.get("enum") else { return };
    let may_be_text = schema.get("type").is_none_or(|kind| kind == "string") && !schema.contains_key("anyOf");
    if may_be_text && values.iter().all(Value::is_string) {
        schema.insert("type".to_owned(), json!("string"));
        return;
    }
    let values: Vec<String> = values.iter().take(MAX_LISTED).map(Value::to_string).collect();
    let allowed = format!("One of: {}.", values.join(", "));
    let description = match schema.get("description").and_then(Value::as_str) {
        Some(description) => format!("{description} {allowed}"),
        None => allowed,
    };
    schema.insert("description".to_owned(), json!(super::description(&description)));
    schema.shift_remove("enum");
}

/// What is required must be a property.
fn tidy_required(schema: &mut Map<String, Value>) {
    let Some(Value::Array(mut required)) = schema.shift_remove("required") else { return };
    let Some(Value::Object(properties)) = schema.get("properties") else { return };
    required.retain(|name| name.as_str().is_some_and(|name| properties.contains_key(name)));
    if !required.is_empty() {
        schema.insert("required".to_owned(), Value::Array(required));
    }
}
