//! The outermost level: providers want an object with properties there, and nothing that chooses between several.

use serde_json::{Map, Value, json};

use super::reference;

/// References followed from the outermost level.
const MAX_HOPS: usize = 8;
const CHOICE_BYTES: usize = 1000;

/// Makes `schema` an object schema with `properties`, merging what it is composed of.
pub fn make_object(schema: &mut Value) {
    follow_references(schema);
    let root = schema.clone();
    let Value::Object(members) = schema else {
        *schema = json!({ "type": "object", "properties": {} });
        return;
    };
    for key in ["$schema", "$id", "id", "$anchor", "$dynamicAnchor", "$vocabulary", "enum", "const", "not"] {
        // `id` is draft 4's `$id`; only texts are.
        if members.get(key).is_some_and(|value| key != "id" || value.is_string()) {
            members.shift_remove(key);
        }
    }
    if !members.get("properties").is_some_and(Value::is_object) {
        members.shift_remove("properties");
    }
    for part in take_array(members, "allOf") {
        merge(members, resolved(&root, &part), Needs::All);
    }
    for key in ["anyOf", "oneOf"] {
        let choices = take_array(members, key);
        if !choices.is_empty() {
            choose(members, &root, &choices);
        }
    }
    if members.get("type").is_none_or(|kind| kind != "object") {
        members.insert("type".to_owned(), json!("object"));
    }
    members.entry("properties").or_insert_with(|| json!({}));
}

/// `{"$ref": "#/$defs/Arguments", "$defs": …}` means the definition, with the rest beside it.
fn follow_references(schema: &mut Value) {
    for _ in 0..MAX_HOPS {
        let Some(reference) = schema.get("$ref").and_then(Value::as_str) else { return };
        let target = reference::find(schema, reference).and_then(Value::as_object).cloned();
        let Value::Object(members) = schema else { return };
        members.shift_remove("$ref");
        for (key, value) in target.unwrap_or_default() {
            members.entry(key).or_insert(value);
        }
    }
    if let Value::Object(members) = schema {
        members.shift_remove("$ref");
    }
}

/// `part`, or what it refers to.
fn resolved<'a>(root: &'a Value, part: &'a Value) -> &'a Value {
    part.get("$ref").and_then(Value::as_str).and_then(|target| reference::find(root, target)).unwrap_or(part)
}

fn take_array(members: &mut Map<String, Value>, key: &str) -> Vec<Value> {
    match members.shift_remove(key) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Needs {
    /// What the part requires is required.
    All,
    /// The part is one of several: what it requires may be absent.
    None,
}

/// Adds the properties of `part`. Where both know a property, either form of it is allowed.
fn merge(members: &mut Map<String, Value>, part: &Value, needs: Needs) {
    if let Some(Value::Object(more)) = part.get("properties") {
        let properties = members.entry("properties").or_insert_with(|| json!({}));
        for (name, schema) in more {
            let Value::Object(properties) = &mut *properties else { return };
            match properties.get_mut(name) {
                None => {
                    properties.insert(name.clone(), schema.clone());
                }
                Some(known) if known == schema => {}
                Some(known) => widen(known, schema),
            }
        }
    }
    if needs == Needs::All {
        let mut required = names(members.get("required"));
        for name in names(part.get("required")) {
            if !required.contains(&name) {
                required.push(name);
            }
        }
        if !required.is_empty() {
            members.insert("required".to_owned(), json!(required));
        }
    }
    if let (Some(description), false) = (part.get("description"), members.contains_key("description"))
        && needs == Needs::All
    {
        members.insert("description".to_owned(), description.clone());
    }
    // A part that names its properties exhaustively says nothing about those of the others.
    members.shift_remove("additionalProperties");
    members.shift_remove("unevaluatedProperties");
}

fn widen(known: &mut Value, other: &Value) {
    if let Value::Object(members) = known
        && members.len() == 1
        && let Some(Value::Array(choices)) = members.get_mut("anyOf")
    {
        if !choices.contains(other) {
            choices.push(other.clone());
        }
    } else {
        *known = json!({ "anyOf": [known.take(), other] });
    }
}

/// Allows the properties of all choices, requires what all of them require, and tells the model about the rest.
fn choose(members: &mut Map<String, Value>, root: &Value, choices: &[Value]) {
    let choices: Vec<&Value> = choices.iter().map(|choice| resolved(root, choice)).collect();
    let mut common: Option<Vec<String>> = None;
    let mut sets = Vec::new();
    for choice in &choices {
        let required = names(choice.get("required"));
        match &mut common {
            None => common = Some(required.clone()),
            Some(common) => common.retain(|name| required.contains(name)),
        }
        if !required.is_empty() {
            sets.push(required.join(", "));
        }
        merge(members, choice, Needs::None);
    }
    let mut required = names(members.get("required"));
    for name in common.unwrap_or_default() {
        if !required.contains(&name) {
            required.push(name);
        }
    }
    if !required.is_empty() {
        members.insert("required".to_owned(), json!(required));
    }
    if sets.len() > 1 {
        let mut choice = format!("Give one of these sets of arguments: {}.", sets.join(" | "));
        if choice.len() > CHOICE_BYTES {
            "Not all arguments are given together.".clone_into(&mut choice);
        }
        let description = match members.get("description").and_then(Value::as_str) {
            Some(description) => format!("{description}\n{choice}"),
            None => choice,
        };
        members.insert("description".to_owned(), json!(description));
    }
}

fn names(required: Option<&Value>) -> Vec<String> {
    required
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect()
}
