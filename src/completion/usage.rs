//! Adding up what the turns of a run used.

use serde_json::{Map, Value, json};

/// The usage of a run of so many turns. `None` when its provider does not tell.
pub fn of_run(sum: Map<String, Value>, turns: u32) -> Option<Value> {
    match (sum.is_empty(), turns) {
        (false, _) => Some(Value::Object(sum)),
        (true, 0) => Some(json!({ "prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0 })),
        (true, _) => None,
    }
}

/// Adds the usage of a turn to the sum: numbers are added, at any depth; other values are taken over.
pub fn add(sum: &mut Map<String, Value>, turn: Map<String, Value>) {
    for (key, value) in turn {
        match (sum.get_mut(&key), value) {
            (Some(Value::Number(so_far)), Value::Number(more)) => {
                *so_far = match (so_far.as_u64(), more.as_u64()) {
                    (Some(one), Some(two)) => one.saturating_add(two).into(),
                    _ => {
                        let total = so_far.as_f64().unwrap_or(0.0) + more.as_f64().unwrap_or(0.0);
                        serde_json::Number::from_f64(total).unwrap_or(more)
                    }
                };
            }
            (Some(Value::Object(so_far)), Value::Object(more)) => add(so_far, more),
            (Some(_), Value::Null) => {}
            (_, value) => {
                sum.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_summed_at_every_depth() {
        let mut sum = Map::new();
        for turn in [
            json!({"prompt_tokens": 3, "completion_tokens_details": {"reasoning_tokens": 1}, "cost": 0.5}),
            json!({"prompt_tokens": 4, "completion_tokens_details": {"reasoning_tokens": 2, "x": null}, "cost": 0.25}),
        ] {
            add(&mut sum, turn.as_object().unwrap().clone());
        }
        let expect = json!({"prompt_tokens": 7, "completion_tokens_details": {"reasoning_tokens": 3, "x": null}, "cost": 0.75});
        assert_eq!(Value::Object(sum), expect);
    }
}
