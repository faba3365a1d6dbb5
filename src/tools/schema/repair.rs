//! The order of repairs, and what becomes of a schema that cannot be repaired.

use serde_json::Value;
use serde_json::value::RawValue;

use super::{bound, node, reference, simple, top};
use crate::clean_json;
use crate::tools::text;

/// Longest description of a tool or a parameter.
const DESCRIPTION_BYTES: usize = 8 << 10;
/// Larger schemas are not even looked at.
const INPUT_BYTES: usize = 1 << 20;
/// Removing one broken reference may break others; after as many rounds the whole schema is given up.
const REFERENCE_ROUNDS: usize = 16;

/// The parameters of a function as providers take them, from a tool's `inputSchema`. `simple` keeps only the
/// keywords that the least capable providers know.
pub fn repair(schema: &str, simple: bool) -> Box<RawValue> {
    if schema.len() > INPUT_BYTES {
        return permissive("The schema of these arguments is too large to be shown.");
    }
    let schema = clean_json::clean(schema);
    let Ok(original) = clean_json::from_str::<Value>(&schema) else {
        return permissive("The schema of these arguments is unreadable.");
    };
    let Some(repaired) = repaired(original.clone(), simple) else {
        return permissive("The schema of these arguments refers to itself in ways that cannot be shown.");
    };
    if repaired == original && schema.len() <= bound::OUTPUT_BYTES {
        return raw(schema.into_owned());
    }
    raw(bound::size(repaired))
}

/// A description as models get it: without characters that hide, and of bounded length.
pub fn description(text: &str) -> String {
    let clean = text::for_reader(text);
    text::cut(clean, DESCRIPTION_BYTES).into_owned()
}

fn repaired(mut schema: Value, simple: bool) -> Option<Value> {
    top::make_object(&mut schema);
    node::repair_below(&mut schema);
    bound::depth(&mut schema);
    let mut rounds = 0;
    while reference::remove_broken(&mut schema) {
        rounds += 1;
        if rounds == REFERENCE_ROUNDS {
            return None;
        }
    }
    bound::number(&mut schema);
    if simple {
        simple::simplify(&mut schema);
    }
    Some(schema)
}

fn permissive(why: &str) -> Box<RawValue> {
    raw(serde_json::json!({ "type": "object", "description": why, "properties": {} }).to_string())
}

fn raw(json: String) -> Box<RawValue> {
    RawValue::from_string(json).expect("it was parsed, or written by serde_json")
}

#[cfg(test)]
#[path = "repair_test.rs"]
mod tests;
