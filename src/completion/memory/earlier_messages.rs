//! Digests of the messages that stand before an answer: the same however a client writes them down again, and another
//! one for another conversation.
//!
//! Instructions (`system`, `developer`) do not count: many clients write the time into them anew for every request.

use serde_json::value::RawValue;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::clean_json;

/// Fields of a message that count, besides its role, its content and its calls.
const COUNTED: [&str; 2] = ["tool_call_id", "function_call"];

/// A digest of messages.
pub type MessagesDigest = [u8; 32];

/// Messages of a conversation, taken in one after the other.
#[derive(Debug, Clone, Default)]
pub struct EarlierMessages {
    whole: Sha256,
    /// Since the last message of the user.
    question: Sha256,
}

impl EarlierMessages {
    /// All of `messages`.
    pub fn of(messages: &[&RawValue]) -> Self {
        let mut earlier = EarlierMessages::default();
        messages.iter().for_each(|message| earlier.push(message));
        earlier
    }

    /// Takes in the next message.
    pub fn push(&mut self, message: &RawValue) {
        let mut digest = Sha256::new();
        match clean_json::from_str::<Map<String, Value>>(message.get()) {
            Ok(fields) => {
                let role = fields.get("role").and_then(Value::as_str).unwrap_or_default();
                match role {
                    "system" | "developer" => return,
                    "user" => self.question = Sha256::new(),
                    _ => {}
                }
                add_message(&mut digest, role, &fields);
            }
            Err(_) => add_text(&mut digest, message.get()),
        }
        let digest = digest.finalize();
        self.whole.update(digest);
        self.question.update(digest);
    }

    /// The digest of all messages so far.
    pub fn whole(&self) -> MessagesDigest {
        self.whole.clone().finalize().into()
    }

    /// The digest of the messages since the last one of the user, which counts.
    pub fn question(&self) -> MessagesDigest {
        self.question.clone().finalize().into()
    }
}

fn add_message(digest: &mut Sha256, role: &str, fields: &Map<String, Value>) {
    add_text(digest, role);
    match fields.get("content") {
        None | Some(Value::Null) => add_text(digest, ""),
        Some(content) => match text_of(content) {
            Some(text) => add_text(digest, text.trim()),
            None => add_value(digest, content),
        },
    }
    for call in fields.get("tool_calls").and_then(Value::as_array).into_iter().flatten() {
        add_text(digest, "call");
        add_call(digest, call);
    }
    for key in COUNTED {
        if let Some(value) = fields.get(key).filter(|value| !value.is_null()) {
            add_text(digest, key);
            add_value(digest, value);
        }
    }
}

/// Clients re-encode arguments, and leave out what they do not know of a call.
fn add_call(digest: &mut Sha256, call: &Value) {
    let Some(function) = call.get("function") else { return add_value(digest, call) };
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    add_text(digest, &text(call.get("id")));
    add_text(digest, &text(function.get("name")));
    let arguments = text(function.get("arguments"));
    match clean_json::exact::<Value>(&arguments) {
        Ok(arguments) => add_value(digest, &arguments),
        Err(_) => add_text(digest, &arguments),
    }
}

/// A text itself, or parts that are all text.
fn text_of(content: &Value) -> Option<String> {
    match content {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => parts
            .iter()
            .map(|part| {
                let is_text = part.get("type").and_then(Value::as_str) == Some("text");
                part.get("text").and_then(Value::as_str).filter(|_| is_text)
            })
            .collect(),
        _ => None,
    }
}

/// A value without the order of its fields, and without those that are null.
fn add_value(digest: &mut Sha256, value: &Value) {
    match value {
        Value::Array(list) => {
            add_text(digest, "list");
            digest.update((list.len() as u64).to_le_bytes());
            list.iter().for_each(|value| add_value(digest, value));
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().filter(|(_, value)| !value.is_null()).collect();
            fields.sort_by_key(|(key, _)| *key);
            add_text(digest, "object");
            digest.update((fields.len() as u64).to_le_bytes());
            for (key, value) in fields {
                add_text(digest, key);
                add_value(digest, value);
            }
        }
        Value::String(text) => {
            add_text(digest, "text");
            add_text(digest, text);
        }
        other => add_text(digest, &other.to_string()),
    }
}

fn add_text(digest: &mut Sha256, text: &str) {
    digest.update((text.len() as u64).to_le_bytes());
    digest.update(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn digests(messages: &Value) -> (MessagesDigest, MessagesDigest) {
        let list: Vec<Box<RawValue>> = messages
            .as_array()
            .unwrap()
            .iter()
            .map(|message| RawValue::from_string(message.to_string()).unwrap())
            .collect();
        let list: Vec<&RawValue> = list.iter().map(|message| &**message).collect();
        let earlier = EarlierMessages::of(&list);
        (earlier.whole(), earlier.question())
    }

    fn call(arguments: &str) -> Value {
        json!({ "id": "c", "type": "function", "function": { "name": "f", "arguments": arguments } })
    }

    #[test]
    fn the_same_messages_are_known_however_a_client_writes_them() {
        let picture = json!({ "type": "image_url", "image_url": { "url": "u", "detail": "low" } });
        let one = json!([
            { "role": "system", "content": "It is 12:00." },
            { "role": "user", "content": [{ "type": "text", "text": "look" }, picture] },
            { "role": "assistant", "content": null, "tool_calls": [call("{\"a\":1,\"b\":[2]}")] },
            { "role": "tool", "tool_call_id": "c", "content": "4" },
            { "role": "user", "content": "and then?" },
        ]);
        let other_picture =
            json!({ "image_url": { "detail": "low", "url": "u" }, "type": "image_url", "x": null });
        let other = json!([
            { "role": "developer", "content": "It is 12:01." },
            { "content": [{ "text": "look", "type": "text" }, other_picture], "role": "user", "name": null },
            { "tool_calls": [call("{ \"b\": [2], \"a\": 1 }")], "refusal": null, "annotations": [], "content": "", "role": "assistant" },
            { "content": [{ "type": "text", "text": "4" }], "role": "tool", "tool_call_id": "c" },
            { "role": "user", "content": [{ "type": "text", "text": "and " }, { "type": "text", "text": "then? " }] },
        ]);
        assert_eq!(digests(&one), digests(&other));
    }

    #[test]
    fn every_change_of_what_was_said_makes_another_digest() {
        let one = json!([
            { "role": "user", "content": "a" },
            { "role": "assistant", "tool_calls": [call("{}")] },
            { "role": "tool", "tool_call_id": "c", "content": "4" },
        ]);
        let mut others = Vec::new();
        for (place, field, value) in [
            (0, "content", json!("b")),
            (0, "role", json!("assistant")),
            (1, "tool_calls", json!([])),
            (1, "tool_calls", json!([call("{\"a\":1}")])),
            (1, "content", json!("x")),
            (2, "tool_call_id", json!("d")),
            (2, "content", json!("5")),
        ] {
            let mut other = one.clone();
            other[place][field] = value;
            others.push(digests(&other));
        }
        others.push(digests(&json!([one[0], one[1]])));
        for (place, other) in others.iter().enumerate() {
            assert_ne!(other.0, digests(&one).0, "{place}");
            assert_ne!(other.1, digests(&one).1, "{place}");
        }
    }

    #[test]
    fn a_question_is_the_same_when_what_was_said_before_it_is_trimmed() {
        let question = json!({ "role": "user", "content": "b" });
        let long = digests(
            &json!([{ "role": "user", "content": "a" }, { "role": "assistant", "content": "x" }, question]),
        );
        let short = digests(&json!([question]));
        assert_eq!(long.1, short.1);
        assert_ne!(long.0, short.0);
    }
}
