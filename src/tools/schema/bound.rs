//! How deep, how many, how large.

use serde_json::{Map, Value, json};

use crate::tools::text;

/// Largest schema that is sent.
pub const OUTPUT_BYTES: usize = 64 << 10;
/// Levels of objects and arrays.
const MAX_DEPTH: usize = 32;
/// Values of all kinds.
const MAX_NODES: usize = 10_000;
/// Length of a parameter's description in a schema that is too large.
const SHORT_DESCRIPTION_BYTES: usize = 300;

/// Replaces everything below 32 levels with what allows anything.
pub fn depth(schema: &mut Value) {
    prune(schema, MAX_DEPTH);
}

/// Whether `value` may stay.
fn prune(value: &mut Value, levels: usize) -> bool {
    match value {
        Value::Object(members) if levels == 0 => {
            if !members.is_empty() {
                *value = json!({ "description": "Simplified: the schema nests too deeply." });
            }
            true
        }
        Value::Array(items) if levels == 0 => items.is_empty(),
        Value::Object(members) => {
            members.retain(|_, member| prune(member, levels - 1));
            true
        }
        Value::Array(items) => {
            items.retain_mut(|item| prune(item, levels - 1));
            true
        }
        _ => true,
    }
}

/// Keeps only the first level of a schema of more than 10,000 values, or nothing of it.
pub fn number(schema: &mut Value) {
    if count(schema) > MAX_NODES {
        *schema = first_level(schema);
    }
    if count(schema) > MAX_NODES {
        *schema = too_large();
    }
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Object(members) => members.values().map(count).sum(),
        Value::Array(items) => items.iter().map(count).sum(),
        _ => 0,
    }
}

fn too_large() -> Value {
    json!({
        "type": "object",
        "description": "The schema of these arguments is too large to be shown.",
        "properties": {},
    })
}

/// `schema` as text within the bound, losing examples first, then everything but the first level, then all.
pub fn size(mut schema: Value) -> String {
    let text = schema.to_string();
    if text.len() <= OUTPUT_BYTES {
        return text;
    }
    without_remarks(&mut schema, false);
    let text = schema.to_string();
    if text.len() <= OUTPUT_BYTES {
        return text;
    }
    let text = first_level(&schema).to_string();
    if text.len() <= OUTPUT_BYTES {
        return text;
    }
    too_large().to_string()
}

/// Removes remarks of schemas; `named` says that the keys of `value` are names and not keywords.
fn without_remarks(value: &mut Value, named: bool) {
    match value {
        Value::Object(members) => {
            if !named {
                members.retain(|key, _| {
                    !matches!(&**key, "examples" | "example" | "default" | "title" | "$comment")
                });
                shorten_description(members);
            }
            for (key, member) in members {
                let names = !named && matches!(&**key, "properties" | "$defs" | "definitions");
                without_remarks(member, names);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| without_remarks(item, false)),
        _ => {}
    }
}

fn shorten_description(members: &mut Map<String, Value>) {
    if let Some(Value::String(description)) = members.get_mut("description")
        && description.len() > SHORT_DESCRIPTION_BYTES
    {
        *description = text::cut(description.as_str().into(), SHORT_DESCRIPTION_BYTES).into_owned();
    }
}

fn first_level(schema: &Value) -> Value {
    let mut properties = Map::new();
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let mut kept = Map::new();
        for key in ["type", "description"] {
            if let Some(value) = property.get(key) {
                kept.insert(key.to_owned(), value.clone());
            }
        }
        if allows_arrays(kept.get("type")) {
            kept.insert("items".to_owned(), json!({}));
        }
        properties.insert(name.clone(), Value::Object(kept));
    }
    let mut top = Map::new();
    top.insert("type".to_owned(), json!("object"));
    top.insert("description".to_owned(), json!("Simplified: the schema of these arguments is too large."));
    top.insert("properties".to_owned(), Value::Object(properties));
    if let Some(required) = schema.get("required") {
        top.insert("required".to_owned(), required.clone());
    }
    Value::Object(top)
}

/// Whether a `type` allows arrays.
pub fn allows_arrays(kind: Option<&Value>) -> bool {
    match kind {
        Some(Value::String(kind)) => kind == "array",
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "array"),
        _ => false,
    }
}
