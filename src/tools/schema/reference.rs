//! `$ref`: to places in the same schema only.

use serde_json::{Map, Value, json};

use super::node::for_each_below;

const KEYWORDS: &[&str] = &["$ref", "$dynamicRef", "$recursiveRef"];

/// Replaces schemas whose reference leads elsewhere or nowhere with permissive ones. Whether there were any.
pub fn remove_broken(root: &mut Value) -> bool {
    let mut broken = Vec::new();
    collect(root, &mut broken);
    broken.retain(|target| !leads_to_a_schema(root, target));
    if broken.is_empty() {
        return false;
    }
    broken.sort_unstable();
    replace(root, &broken);
    true
}

/// The place in `root` that `reference` means, when it is one: `#` or `#/…` (RFC 6901 §6).
pub fn find<'a>(root: &'a Value, reference: &str) -> Option<&'a Value> {
    let pointer = reference.strip_prefix('#')?;
    if pointer.is_empty() || !pointer.contains('%') {
        return root.pointer(pointer);
    }
    let mut bytes = Vec::with_capacity(pointer.len());
    let mut rest = pointer.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte == b'%'
            && let Some(digits) = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok())
            && let Ok(decoded) = u8::from_str_radix(digits, 16)
        {
            bytes.push(decoded);
            rest = &after[2..];
        } else {
            bytes.push(*byte);
        }
    }
    root.pointer(std::str::from_utf8(&bytes).ok()?)
}

fn leads_to_a_schema(root: &Value, reference: &str) -> bool {
    find(root, reference).is_some_and(|target| target.is_object() || target.is_boolean())
}

fn references(schema: &Map<String, Value>) -> impl Iterator<Item = &str> {
    KEYWORDS.iter().filter_map(|key| schema.get(*key)?.as_str())
}

fn collect(schema: &mut Value, found: &mut Vec<String>) {
    if let Value::Object(members) = schema {
        found.extend(references(members).map(str::to_owned));
        found.sort_unstable();
        found.dedup();
        for_each_below(members, &mut |below| collect(below, found));
    }
}

fn replace(schema: &mut Value, broken: &[String]) {
    if let Value::Object(members) = schema {
        if references(members).any(|target| broken.binary_search_by(|b| b.as_str().cmp(target)).is_ok()) {
            KEYWORDS.iter().for_each(|key| {
                members.shift_remove(*key);
            });
            if !members.contains_key("description") {
                members.insert("description".to_owned(), json!("Simplified: its definition is elsewhere."));
            }
        }
        for_each_below(members, &mut |below| replace(below, broken));
    }
}
