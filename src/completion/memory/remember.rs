//! What a run keeps of itself.

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::earlier_messages::{EarlierMessages, MessagesDigest};
use super::key;
use super::shelf::Reader;
use super::turns::{NewTurns, Whose};
use crate::clean_json;
use crate::completion::agent::Agent;
use crate::completion::logins::Logins;
use crate::completion::turn::Call;
use crate::upstream::Target;

/// Largest turns that are kept under a text that may be another conversation's, too, in bytes: less than what one block shows of a result.
const MOST_SHOWN: usize = 1 << 20;

/// Digests of what a run was asked, as its caller sees the conversation.
#[derive(Debug, Clone, Copy)]
pub struct AskedMessages {
    whole: MessagesDigest,
    question: MessagesDigest,
}

impl AskedMessages {
    /// The caller's own messages.
    pub fn of(messages: &[&RawValue]) -> Self {
        let earlier = EarlierMessages::of(messages);
        AskedMessages { whole: earlier.whole(), question: earlier.question() }
    }
}

impl Agent {
    /// Keeps the messages since `start` under the calls that the caller is handed.
    pub(in crate::completion) fn remember_calls(&self, start: usize, callers: &[Call]) {
        let shown =
            callers.iter().map(|call| (call.shown_id(), call.function.as_str(), call.arguments.as_str()));
        let keys = [key::of_calls(&self.logins.scope, shown)];
        let turns = NewTurns {
            question: self.asked.question,
            ids: callers.iter().map(|call| (call.shown_id().to_owned(), call.id.clone())).collect(),
            messages: self.conversation.since(start).to_vec(),
        };
        self.parts.memory.keep(&self.logins.whose(&self.target), &keys, turns, Reader::Program);
    }

    /// Keeps the messages since `start`, and `last`, under the text that the caller got, if it shows tool calls.
    ///
    /// Only where the model has had the last word: some providers take no question right after a tool's result.
    pub(in crate::completion) fn remember_answer(&self, start: usize, last: &Map<String, Value>) {
        let before = self.conversation.since(start);
        let said = last.get("content").and_then(Value::as_str).filter(|text| !text.trim().is_empty());
        let (false, Some(said)) = (before.is_empty(), said) else { return };
        let (scope, earlier) = (&self.logins.scope, &self.asked.whole);
        let keys: Vec<_> = self.sink.seen().iter().map(|text| key::of_text(scope, text, earlier)).collect();
        if keys.is_empty() {
            return;
        }
        // Not the fields beside the text: callers do not send them back either.
        let last = json!({ "role": "assistant", "content": said }).to_string();
        let whose = self.logins.whose(&self.target);
        let messages = [before, b",", last.as_bytes()].concat();
        // People whom nobody tells apart, or one in two conversations, may have asked the same and read the same.
        let memory = &self.parts.memory;
        let is_another_s = |key| memory.find(key).is_some_and(|entry| entry.run != whose.run);
        let is_ambiguous = whose.is_shared() || keys.iter().any(is_another_s);
        let messages = if is_ambiguous { only_shown(&messages) } else { Some(messages) };
        let Some(messages) = messages else { return };
        let turns = NewTurns { question: self.asked.question, ids: Vec::new(), messages };
        self.parts.memory.keep(&whose, &keys, turns, Reader::Person);
    }
}

/// Of a run's messages, what stands in its answer, too: no pictures and sounds, which stand in messages of the user, and
/// no thoughts. `None` where a block may have shown only a part.
fn only_shown(messages: &[u8]) -> Option<Vec<u8>> {
    if messages.len() > MOST_SHOWN {
        return None;
    }
    let list: Vec<Map<String, Value>> = clean_json::from_slice(&[b"[", messages, b"]"].concat()).ok()?;
    let shown = list.into_iter().filter(|message| message.get("role").is_some_and(|role| role != "user"));
    let shown: Vec<String> = shown
        .map(|mut message| {
            message
                .retain(|key, _| ["role", "content", "tool_calls", "tool_call_id"].contains(&key.as_str()));
            Value::Object(message).to_string()
        })
        .collect();
    Some(shown.join(",").into_bytes())
}

impl Logins {
    /// Whose turns the memory keeps, made with `target`.
    pub(in crate::completion) fn whose<'a>(&'a self, target: &'a Target) -> Whose<'a> {
        Whose {
            scope: &self.scope,
            verified: self.application.verified,
            run: &self.run_id,
            provider: &target.provider.name,
            model: &target.model,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_reader_was_shown_is_left_out() {
        let messages = json!([
            { "role": "assistant", "content": null, "reasoning_content": "secret", "tool_calls": [{ "id": "c" }] },
            { "role": "tool", "tool_call_id": "c", "content": "4" },
            { "role": "user", "content": [{ "type": "image_url" }] },
            { "role": "assistant", "content": "It is 4." },
        ]);
        let text = messages.to_string();
        let shown = only_shown(text.trim_matches(['[', ']']).as_bytes()).unwrap();
        let shown: Value = serde_json::from_slice(&[b"[", &shown[..], b"]"].concat()).unwrap();
        let expect = json!([
            { "role": "assistant", "content": null, "tool_calls": [{ "id": "c" }] },
            { "role": "tool", "tool_call_id": "c", "content": "4" },
            { "role": "assistant", "content": "It is 4." },
        ]);
        assert_eq!(shown, expect);
        assert!(only_shown(&vec![b' '; MOST_SHOWN + 1]).is_none());
    }
}
