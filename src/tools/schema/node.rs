//! Keywords of one schema: what providers' validators refuse, put right or taken out.
//!
//! Providers check parameters against JSON Schema 2020-12. Servers send older drafts, booleans where objects belong,
//! and types of their own language.

use serde_json::{Map, Value, json};

use super::bound::allows_arrays;

/// Distinct values of one array; comparing each with each must stay cheap, and no real schema has as many.
const MAX_COMPARED: usize = 500;

/// Keywords whose value is one schema.
const ONE: &[&str] = &[
    "items",
    "additionalProperties",
    "not",
    "if",
    "then",
    "else",
    "contains",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
    "additionalItems",
    "contentSchema",
];
/// Keywords whose value is an array of schemas.
const SEVERAL: &[&str] = &["anyOf", "oneOf", "allOf", "prefixItems"];
/// Keywords whose value is an object of named schemas.
const NAMED: &[&str] = &["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];

/// Calls `visit` with every schema directly below `schema`.
pub fn for_each_below(schema: &mut Map<String, Value>, visit: &mut dyn FnMut(&mut Value)) {
    for (key, value) in schema {
        match value {
            Value::Object(members) if NAMED.contains(&&**key) => members.values_mut().for_each(&mut *visit),
            Value::Array(items) if SEVERAL.contains(&&**key) => items.iter_mut().for_each(&mut *visit),
            // A boolean is the usual form everywhere but for items.
            value if ONE.contains(&&**key) && (!value.is_boolean() || key == "items") => visit(value),
            _ => {}
        }
    }
}

/// Repairs `schema`, which is an object, and all schemas below it.
pub fn repair_below(schema: &mut Value) {
    let Value::Object(members) = schema else {
        // `true` allows anything, and so does what nobody understands; `false` is kept.
        if *schema != Value::Bool(false) {
            *schema = json!({});
        }
        return;
    };
    repair_type(members);
    repair_items(members);
    repair_limit(members, "exclusiveMinimum", "minimum");
    repair_limit(members, "exclusiveMaximum", "maximum");
    members.retain(|key, value| match key.as_str() {
        "required" => match value {
            Value::Array(names) => {
                distinct(names);
                names.retain(Value::is_string);
                true
            }
            _ => false,
        },
        "enum" => value.as_array().is_some_and(|values| !values.is_empty()),
        key if NAMED.contains(&key) => value.is_object(),
        key if SEVERAL.contains(&key) => value.as_array().is_some_and(|schemas| !schemas.is_empty()),
        "pattern" | "format" | "title" | "description" | "$ref" | "$dynamicRef" | "$recursiveRef" => {
            value.is_string()
        }
        "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" | "multipleOf" => value.is_number(),
        "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties" => {
            value.is_u64()
        }
        _ => true,
    });
    for key in ["description", "title"] {
        if let Some(Value::String(text)) = members.get_mut(key) {
            let clean = super::description(text);
            if clean != *text {
                *text = clean;
            }
        }
    }
    for_each_below(members, &mut repair_below);
}

fn repair_type(schema: &mut Map<String, Value>) {
    let Some(kind) = schema.get_mut("type") else { return };
    let keep = match kind {
        Value::String(name) => rename(name),
        Value::Array(names) => {
            names.retain_mut(|name| match name {
                Value::String(name) => rename(name),
                _ => false,
            });
            distinct(names);
            !names.is_empty()
        }
        _ => false,
    };
    if !keep {
        schema.shift_remove("type");
    }
}

/// Turns other languages' names of types into JSON Schema's; whether there is one.
fn rename(name: &mut String) -> bool {
    let known = match name.to_ascii_lowercase().as_str() {
        "string" | "str" | "text" => "string",
        "integer" | "int" | "long" => "integer",
        "number" | "float" | "double" => "number",
        "boolean" | "bool" => "boolean",
        "object" | "dict" | "map" => "object",
        "array" | "list" => "array",
        "null" | "none" => "null",
        _ => return false,
    };
    if name != known {
        known.clone_into(name);
    }
    true
}

/// An array must say what is in it, in one schema. Older drafts list one schema per position.
fn repair_items(schema: &mut Map<String, Value>) {
    match schema.get_mut("items") {
        Some(Value::Array(positions)) => {
            let mut schemas = std::mem::take(positions);
            distinct(&mut schemas);
            let items = match schemas.len() {
                0 => json!({}),
                1 => schemas.swap_remove(0),
                _ => json!({ "anyOf": schemas }),
            };
            schema.insert("items".to_owned(), items);
        }
        Some(_) => {}
        None => {
            if allows_arrays(schema.get("type")) {
                schema.insert("items".to_owned(), json!({}));
            }
        }
    }
}

fn distinct(values: &mut Vec<Value>) {
    let mut seen: Vec<Value> = Vec::new();
    values.retain(|value| {
        let new = seen.len() < MAX_COMPARED && !seen.contains(value);
        if new {
            seen.push(value.clone());
        }
        new
    });
}

/// Draft 4 says with a boolean that `limit` is exclusive.
fn repair_limit(schema: &mut Map<String, Value>, exclusive: &str, limit: &str) {
    if let Some(Value::Bool(is_exclusive)) = schema.get(exclusive) {
        let is_exclusive = *is_exclusive;
        schema.shift_remove(exclusive);
        if is_exclusive && let Some(value) = schema.shift_remove(limit) {
            schema.insert(exclusive.to_owned(), value);
        }
    }
}
