//! A run as one JSON answer.

use serde_json::{Map, Value, json};

use super::event::{RunError, RunEvent};
use super::growing_text::append_text;
use super::render::{Output, Renderer};
use super::unsettled::Unsettled;
use super::usage;
use crate::memory_budget::MemoryReservation;

/// Gathers the events of one run into a chat completion.
pub struct Answer {
    id: String,
    model: String,
    created: i64,
    head: Map<String, Value>,
    renderer: Renderer,
    content: Option<String>,
    message: Map<String, Value>,
    calls: Vec<Map<String, Value>>,
    logprobs: Option<Value>,
    usage: Map<String, Value>,
    turns: u32,
    /// Calls handed to the caller by the turns that ended.
    calls_of_ended_turns: usize,
    tool_calls: Vec<Map<String, Value>>,
    authorization_required: Vec<Value>,
    connect_all_url: Option<String>,
    unsettled: Unsettled,
    notices: Vec<Value>,
    finish_reason: Option<String>,
    error: Option<RunError>,
    /// Counts the memory that these fields take.
    memory: MemoryReservation,
}

impl Answer {
    /// For the run `id`; `model` is what the caller asked for, `created` in Unix seconds. What it gathers is counted in
    /// `memory`.
    pub fn new(id: String, model: String, created: i64, output: Output, memory: MemoryReservation) -> Self {
        Answer {
            id,
            model,
            created,
            head: Map::new(),
            renderer: Renderer::new(output),
            content: None,
            message: Map::new(),
            calls: Vec::new(),
            logprobs: None,
            usage: Map::new(),
            turns: 0,
            calls_of_ended_turns: 0,
            tool_calls: Vec::new(),
            authorization_required: Vec::new(),
            connect_all_url: None,
            unsettled: Unsettled::default(),
            notices: Vec::new(),
            finish_reason: None,
            error: None,
            memory,
        }
    }

    /// Takes in an event.
    pub fn add(&mut self, event: RunEvent) {
        // It is there already, and the run that sends it waits where there is little.
        self.memory.grow_anyway(event.json_bytes());
        if let Some(before) = self.unsettled.settle(&event) {
            for event in before {
                self.take_in(event);
            }
            self.take_in(event);
        }
    }

    fn take_in(&mut self, event: RunEvent) {
        if let Some(shown) = self.renderer.event(&event) {
            append_text(self.content.get_or_insert_default(), &shown);
        }
        let data =
            event.data().and_then(|data| if let Value::Object(fields) = data { Some(fields) } else { None });
        match event {
            RunEvent::TurnStarted { turn, mut head } => {
                self.turns = turn;
                self.calls_of_ended_turns = self.calls.len();
                if turn == 1 {
                    if let Some(Value::String(model)) = head.remove("model") {
                        self.model = model;
                    }
                    self.head = head;
                }
            }
            RunEvent::Delta { mut delta, logprobs } => {
                match delta.remove("content") {
                    Some(Value::String(content)) => {
                        append_text(self.content.get_or_insert_default(), &content)
                    }
                    Some(other) => drop(delta.insert("content".into(), other)),
                    None => {}
                }
                for (key, value) in &delta {
                    super::turn::merge(&mut self.message, key, value);
                }
                if let Some(logprobs) = logprobs {
                    let mut both = self
                        .logprobs
                        .take()
                        .map(|so_far| json!({ "logprobs": so_far }))
                        .unwrap_or_else(|| json!({}));
                    if let Value::Object(fields) = &mut both {
                        super::turn::merge(fields, "logprobs", &logprobs);
                        self.logprobs = fields.remove("logprobs");
                    }
                }
            }
            RunEvent::CallerCall { index, call } => self.caller_call(index, call),
            RunEvent::Usage(turn) => usage::add(&mut self.usage, turn),
            RunEvent::ToolCall(_) => self.tool_calls.extend(without_event(data)),
            RunEvent::ToolResult(result) => {
                let place = self.tool_calls.iter_mut().find(|call| {
                    call.get("call_id").is_some_and(|id| *id == result.call_id)
                        && !call.contains_key("milliseconds")
                });
                if let (Some(call), Some(data)) = (place, without_event(data)) {
                    call.extend(data);
                }
            }
            RunEvent::AuthorizationRequired(_) => {
                self.authorization_required.extend(without_event(data).map(Value::Object))
            }
            RunEvent::AuthorizationBatch(batch) => self.connect_all_url = batch.connect_all_url,
            RunEvent::Waiting { .. } | RunEvent::Authorized { .. } => {}
            RunEvent::Notice(_) => self.notices.extend(without_event(data).map(Value::Object)),
            // The turn begins anew, and with it the calls that it hands out.
            RunEvent::Resumed { .. } => self.calls.truncate(self.calls_of_ended_turns),
            RunEvent::Accepted | RunEvent::ToolProgress { .. } => {}
            RunEvent::Finish { reason } => self.finish_reason = Some(reason.as_openai().to_owned()),
            RunEvent::Error(error) => self.error = Some(error),
        }
    }

    fn caller_call(&mut self, index: u32, call: Map<String, Value>) {
        let index = index as usize;
        if self.calls.len() <= index {
            self.calls.resize_with(index + 1, Map::new);
        }
        let known = &mut self.calls[index];
        for (key, value) in call {
            match (key.as_str(), known.get_mut(&key)) {
                // Parts of the arguments after the first.
                ("function", Some(Value::Object(function))) => {
                    if let Some(part) = value.get("arguments") {
                        super::turn::merge(function, "arguments", part);
                    }
                }
                _ => drop(known.insert(key, value)),
            }
        }
    }

    /// The whole answer, and what counts its memory.
    ///
    /// # Errors
    /// The run's own error.
    pub fn finish(self) -> Result<(Value, MemoryReservation), RunError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let mut message = Map::new();
        message.insert("role".into(), "assistant".into());
        message.insert("content".into(), self.content.map_or(Value::Null, Value::String));
        message.insert("refusal".into(), Value::Null);
        message.extend(self.message);
        if !self.calls.is_empty() {
            message.insert("tool_calls".into(), self.calls.into_iter().map(Value::Object).collect());
        }
        let mut answer = Map::new();
        answer.insert("id".into(), self.id.as_str().into());
        answer.insert("object".into(), "chat.completion".into());
        answer.insert("created".into(), self.created.into());
        answer.insert("model".into(), self.model.into());
        answer.extend(self.head);
        answer.insert(
            "choices".into(),
            json!([{ "index": 0, "message": message, "logprobs": self.logprobs, "finish_reason": self.finish_reason }]),
        );
        if let Some(usage) = usage::of_run(self.usage, self.turns) {
            answer.insert("usage".into(), usage);
        }
        let toolgate = json!({
            "run_id": self.id,
            "turns": self.turns,
            "tool_calls": self.tool_calls,
            "authorization_required": self.authorization_required,
            "connect_all_url": self.connect_all_url,
            "notices": self.notices,
        });
        answer.insert("toolgate".into(), toolgate);
        Ok((Value::Object(answer), self.memory))
    }
}

fn without_event(data: Option<Map<String, Value>>) -> Option<Map<String, Value>> {
    data.map(|mut data| {
        data.shift_remove("event");
        data
    })
}
