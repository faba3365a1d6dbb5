//! What a run keeps of itself.

use serde_json::{Map, Value, json};

use super::key;
use super::shelf::Reader;
use super::turns::Whose;
use crate::completion::agent::Agent;
use crate::completion::logins::Logins;
use crate::completion::turn::Call;
use crate::upstream::Target;

impl Agent {
    /// Keeps the messages since `start` under the calls that the caller is handed.
    pub(in crate::completion) fn remember_calls(&self, start: usize, callers: &[Call]) {
        let seen =
            callers.iter().map(|call| (call.id.as_str(), call.function.as_str(), call.arguments.as_str()));
        let keys = [key::of_calls(&self.logins.scope, seen)];
        self.parts.memory.keep(
            &self.logins.whose(&self.target),
            &keys,
            self.conversation.since(start).to_vec(),
            Reader::Program,
        );
    }

    /// Keeps the messages since `start`, and `last`, under the text that the caller got, if it shows tool calls.
    ///
    /// Only where the model has had the last word: some providers take no question right after a tool's result.
    pub(in crate::completion) fn remember_answer(&self, start: usize, last: &Map<String, Value>) {
        let before = self.conversation.since(start);
        let said = last.get("content").and_then(Value::as_str).filter(|text| !text.trim().is_empty());
        let (false, Some(said)) = (before.is_empty(), said) else { return };
        let keys: Vec<_> =
            self.sink.seen().iter().map(|text| key::of_text(&self.logins.scope, text)).collect();
        if keys.is_empty() {
            return;
        }
        // Not the fields beside the text: callers do not send them back either.
        let last = json!({ "role": "assistant", "content": said }).to_string();
        let whose = self.logins.whose(&self.target);
        self.parts.memory.keep(&whose, &keys, [before, b",", last.as_bytes()].concat(), Reader::Person);
    }
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
