//! A run as OpenAI's chunks: one id, one role, indices without gaps, one `finish_reason`, `[DONE]`.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::event::{RunError, RunEvent};
use super::render::{Output, Renderer};
use super::usage;
use crate::sse;

/// Writes the events of one run as an event stream.
pub struct Chunks {
    id: String,
    created: i64,
    model: String,
    head: Map<String, Value>,
    renderer: Renderer,
    include_usage: bool,
    usage: Map<String, Value>,
    turns: u32,
    begun: bool,
    ended: bool,
}

#[derive(Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: i64,
    model: &'a str,
    #[serde(flatten)]
    head: &'a Map<String, Value>,
    choices: &'a [Choice<'a>],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    toolgate: Option<Value>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u32,
    delta: Cow<'a, Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<&'a Value>,
    finish_reason: Option<&'a str>,
}

impl Chunks {
    /// A writer for the run `id`; `model` is what the caller asked for, `created` in Unix seconds.
    pub fn new(id: String, model: String, created: i64, output: Output, include_usage: bool) -> Self {
        Chunks {
            id,
            created,
            model,
            head: Map::new(),
            renderer: Renderer::new(output),
            include_usage,
            usage: Map::new(),
            turns: 0,
            begun: false,
            ended: false,
        }
    }

    /// Whether the stream has had its `[DONE]`.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Appends what `event` means to the stream.
    pub fn write(&mut self, event: &RunEvent, out: &mut Vec<u8>) {
        let shown = self.renderer.event(event);
        let data = event.data();
        match event {
            RunEvent::TurnStarted { turn, head } => {
                self.turns = *turn;
                if *turn == 1 {
                    let mut head = head.clone();
                    if let Some(Value::String(model)) = head.remove("model") {
                        self.model = model;
                    }
                    self.head = head;
                }
                self.begin(out);
            }
            RunEvent::Delta { delta, logprobs } => {
                let mut delta = Cow::Borrowed(delta);
                if let Some(shown) = &shown
                    && let Some(Value::String(content)) = delta.to_mut().get_mut("content")
                {
                    content.insert_str(0, shown);
                }
                self.delta(delta, logprobs.as_ref(), None, out);
            }
            RunEvent::CallerCall { index, call } => {
                let mut call = call.clone();
                call.insert("index".into(), (*index).into());
                let delta = [("tool_calls".to_owned(), Value::Array(vec![Value::Object(call)]))]
                    .into_iter()
                    .collect();
                self.delta(Cow::Owned(delta), None, None, out);
            }
            RunEvent::Usage(turn) => usage::add(&mut self.usage, turn.clone()),
            RunEvent::Accepted => {}
            RunEvent::ToolCall(_)
            | RunEvent::ToolProgress { .. }
            | RunEvent::ToolResult(_)
            | RunEvent::AuthorizationRequired(_)
            | RunEvent::AuthorizationBatch(_)
            | RunEvent::Waiting { .. }
            | RunEvent::Authorized { .. }
            | RunEvent::Notice(_)
            | RunEvent::Resumed { .. } => self.delta(content(shown), None, data, out),
            RunEvent::Finish { reason } => {
                if shown.is_some() {
                    self.delta(content(shown), None, None, out);
                }
                self.finish(reason.as_openai(), out);
            }
            RunEvent::Error(error) => {
                if shown.is_some() {
                    self.delta(content(shown), None, None, out);
                }
                self.fail(error, out);
            }
        }
    }

    fn finish(&mut self, reason: &str, out: &mut Vec<u8>) {
        self.begin(out);
        let delta = Cow::Owned(Map::new());
        let choice = Choice { index: 0, delta, logprobs: None, finish_reason: Some(reason) };
        self.chunk(&[choice], self.include_usage.then_some(Value::Null), None, out);
        if self.include_usage
            && let Some(usage) = usage::of_run(std::mem::take(&mut self.usage), self.turns)
        {
            self.chunk(&[], Some(usage), None, out);
        }
        sse::done(out);
        self.ended = true;
    }

    fn fail(&mut self, error: &RunError, out: &mut Vec<u8>) {
        sse::data(out, json!({ "error": error.error }).to_string().as_bytes());
        sse::done(out);
        self.ended = true;
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if !self.begun {
            self.begun = true;
            let delta = [("role".to_owned(), "assistant".into()), ("content".to_owned(), "".into())]
                .into_iter()
                .collect();
            self.delta(Cow::Owned(delta), None, None, out);
        }
    }

    fn delta(
        &mut self,
        delta: Cow<'_, Map<String, Value>>,
        logprobs: Option<&Value>,
        data: Option<Value>,
        out: &mut Vec<u8>,
    ) {
        self.begin(out);
        let choice = Choice { index: 0, delta, logprobs, finish_reason: None };
        self.chunk(&[choice], self.include_usage.then_some(Value::Null), data, out);
    }

    fn chunk(
        &self,
        choices: &[Choice<'_>],
        usage: Option<Value>,
        toolgate: Option<Value>,
        out: &mut Vec<u8>,
    ) {
        let chunk = Chunk {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.created,
            model: &self.model,
            head: &self.head,
            choices,
            usage,
            toolgate,
        };
        out.extend_from_slice(b"data: ");
        serde_json::to_writer(&mut *out, &chunk).expect("a chunk is written to memory");
        out.extend_from_slice(b"\n\n");
    }
}

fn content(shown: Option<String>) -> Cow<'static, Map<String, Value>> {
    Cow::Owned(shown.map(|shown| ("content".to_owned(), Value::String(shown))).into_iter().collect())
}
