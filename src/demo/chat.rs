//! The demo model as an OpenAI-compatible provider: requests in, completions and chunks out.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::Request;
use axum::response::Response;
use futures_util::stream;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::brain::{self, Call, Choice, Decision, Tool};
use super::router;
use crate::clean_json;
use crate::clock::Clock;
use crate::{id, sse};

const MODEL: &str = "demo";
const BODY_BYTES: usize = 32 << 20;
/// Between two words of a stream, so that one sees it stream.
const WORD_INTERVAL: Duration = Duration::from_millis(2);

/// A refused request, in OpenAI's terms.
#[derive(Debug, PartialEq)]
struct Refusal {
    status: StatusCode,
    message: String,
    param: Option<&'static str>,
    code: Option<&'static str>,
}

/// What of a request is acted upon.
#[derive(Debug)]
struct Asked {
    tools: Vec<Tool>,
    messages: Vec<Value>,
    choice: Choice,
    is_parallel: bool,
    is_streamed: bool,
    with_usage: bool,
    /// In words, the demo's tokens.
    max_tokens: Option<usize>,
}

/// `GET /v1/models`.
pub fn models() -> Response {
    let model = json!({"id": MODEL, "object": "model", "created": 1_700_000_000, "owned_by": "toolgate"});
    router::json(StatusCode::OK, &json!({"object": "list", "data": [model]}))
}

/// `POST /v1/chat/completions`.
pub async fn complete(clock: Clock, request: Request) -> Response {
    let asked = match axum::body::to_bytes(request.into_body(), BODY_BYTES).await {
        Ok(body) => read(&body),
        Err(_) => Err(Refusal {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            message: format!("the body is larger than {BODY_BYTES} bytes or broke off"),
            param: None,
            code: None,
        }),
    };
    match asked {
        Err(refusal) => refuse(&refusal),
        Ok(asked) => {
            let decision = brain::decide(&asked.tools, &asked.messages, &asked.choice, asked.is_parallel);
            let completion = Completion::new(&clock, &asked, decision);
            if asked.is_streamed { completion.into_stream(asked.with_usage) } else { completion.into_json() }
        }
    }
}

fn refuse(refusal: &Refusal) -> Response {
    let error = json!({
        "message": refusal.message,
        "type": "invalid_request_error",
        "param": refusal.param,
        "code": refusal.code,
    });
    router::json(refusal.status, &json!({"error": error}))
}

fn read(body: &[u8]) -> Result<Asked, Refusal> {
    let bad = |param, message: &str| Refusal {
        status: StatusCode::BAD_REQUEST,
        message: message.to_owned(),
        param,
        code: None,
    };
    let request: Value = clean_json::from_slice(body).map_err(|_| bad(None, "the body is not JSON"))?;
    let Value::Object(mut request) = request else { return Err(bad(None, "the body must be a JSON object")) };
    match request.get("model") {
        Some(Value::String(model)) if model == MODEL => {}
        Some(Value::String(model)) => {
            let model: String = model.chars().take(100).collect();
            return Err(Refusal {
                status: StatusCode::NOT_FOUND,
                message: format!("the demo provider has no model `{model}`; it has `{MODEL}`"),
                param: Some("model"),
                code: Some("model_not_found"),
            });
        }
        _ => return Err(bad(Some("model"), "`model` must be a string")),
    }
    let messages = match request.remove("messages") {
        Some(Value::Array(messages)) if !messages.is_empty() => messages,
        _ => return Err(bad(Some("messages"), "`messages` must be a list with at least one message")),
    };
    if request.get("n").is_some_and(|n| !n.is_null() && *n != json!(1)) {
        return Err(bad(Some("n"), "the demo model gives one choice"));
    }
    let tools = match request.remove("tools") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(tools)) => tools
            .into_iter()
            .map(|tool| {
                function(tool).ok_or_else(|| bad(Some("tools"), "each tool must be a function with a name"))
            })
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(bad(Some("tools"), "`tools` must be a list")),
    };
    let choice = choice(request.get("tool_choice")).ok_or_else(|| {
        bad(Some("tool_choice"), "`tool_choice` must be none, auto, required or a function")
    })?;
    if let Choice::Function(name) = &choice
        && !tools.iter().any(|tool| tool.name == *name)
    {
        return Err(bad(Some("tool_choice"), "`tool_choice` names a function that is not in `tools`"));
    }
    let flag = |key: &str, default| request.get(key).and_then(Value::as_bool).unwrap_or(default);
    let limit =
        ["max_completion_tokens", "max_tokens"].into_iter().find_map(|key| request.get(key)?.as_u64());
    Ok(Asked {
        tools,
        messages,
        choice,
        is_parallel: flag("parallel_tool_calls", true),
        is_streamed: flag("stream", false),
        with_usage: request
            .get("stream_options")
            .and_then(|options| options.get("include_usage"))
            .and_then(Value::as_bool)
            .unwrap_or(false),
        max_tokens: limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
    })
}

fn function(mut tool: Value) -> Option<Tool> {
    let function = tool.get_mut("function")?;
    let name = function.get("name")?.as_str().filter(|name| !name.is_empty())?.to_owned();
    let description = function.get("description").and_then(Value::as_str).unwrap_or_default().to_owned();
    let parameters = function.get_mut("parameters").map(Value::take).unwrap_or_default();
    Some(Tool { name, description, parameters })
}

fn choice(value: Option<&Value>) -> Option<Choice> {
    match value {
        None | Some(Value::Null) => Some(Choice::Auto),
        Some(Value::String(word)) => match word.as_str() {
            "auto" => Some(Choice::Auto),
            "none" => Some(Choice::None),
            "required" => Some(Choice::Required),
            _ => None,
        },
        Some(value) => {
            let name = value.pointer("/function/name").or_else(|| value.get("name"))?.as_str()?;
            Some(Choice::Function(name.to_owned()))
        }
    }
}

/// A finished completion that can be told in one piece or in many.
struct Completion {
    id: String,
    created: i64,
    content: Option<String>,
    /// With their ids.
    calls: Vec<(String, Call)>,
    finish_reason: &'static str,
    usage: Value,
}

impl Completion {
    fn new(clock: &Clock, asked: &Asked, decision: Decision) -> Self {
        let (content, calls, finish_reason) = match decision {
            Decision::Call(calls) => {
                let calls = calls.into_iter().map(|call| (id::random_id("call_"), call)).collect();
                (None, calls, "tool_calls")
            }
            Decision::Say(text) => {
                let limit = asked.max_tokens.unwrap_or(usize::MAX);
                let kept: Vec<&str> = pieces(&text).take(limit).collect();
                let kept = kept.concat();
                let reason = if kept.len() < text.len() { "length" } else { "stop" };
                (Some(kept), Vec::new(), reason)
            }
        };
        let arguments = |call: &Call| word_count(&Value::Object(call.arguments.clone()).to_string());
        let completion_words = content.as_deref().map_or(0, word_count)
            + calls.iter().map(|(_, call): &(String, Call)| 1 + arguments(call)).sum::<usize>();
        let prompt_words: usize =
            asked.messages.iter().map(|message| word_count(&brain::text_of(message))).sum::<usize>()
                + asked.tools.iter().map(|tool| 1 + word_count(&tool.description)).sum::<usize>();
        let usage = json!({
            "prompt_tokens": prompt_words,
            "completion_tokens": completion_words,
            "total_tokens": prompt_words + completion_words,
        });
        let created = clock.unix_seconds();
        Completion { id: id::random_id("chatcmpl-"), created, content, calls, finish_reason, usage }
    }

    fn into_json(self) -> Response {
        let mut message = Map::new();
        message.insert("role".to_owned(), json!("assistant"));
        message.insert("content".to_owned(), json!(self.content));
        message.insert("refusal".to_owned(), Value::Null);
        if !self.calls.is_empty() {
            let calls = self.calls.iter().map(|(id, call)| {
                let arguments = Value::Object(call.arguments.clone()).to_string();
                json!({"id": id, "type": "function", "function": {"name": call.name, "arguments": arguments}})
            });
            message.insert("tool_calls".to_owned(), calls.collect());
        }
        let body = json!({
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": MODEL,
            "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": self.finish_reason}],
            "usage": self.usage,
        });
        router::json(StatusCode::OK, &body)
    }

    /// The chunks of the stream, without `[DONE]`.
    fn chunks(&self, with_usage: bool) -> Vec<Value> {
        let chunk = |choices: Value, usage: Value| {
            let mut chunk = json!({
                "id": self.id,
                "object": "chat.completion.chunk",
                "created": self.created,
                "model": MODEL,
                "choices": choices,
            });
            if with_usage {
                chunk["usage"] = usage;
            }
            chunk
        };
        let delta = |delta: Value, finish: Option<&str>| {
            chunk(
                json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}]),
                Value::Null,
            )
        };
        let content = if self.calls.is_empty() { json!("") } else { Value::Null };
        let mut chunks = vec![delta(json!({"role": "assistant", "content": content, "refusal": null}), None)];
        for piece in self.content.as_deref().map(pieces).into_iter().flatten() {
            chunks.push(delta(json!({"content": piece}), None));
        }
        for (index, (id, call)) in self.calls.iter().enumerate() {
            let head = json!({"index": index, "id": id, "type": "function", "function": {"name": call.name, "arguments": ""}});
            chunks.push(delta(json!({"tool_calls": [head]}), None));
            let arguments = Value::Object(call.arguments.clone()).to_string();
            for part in parts(&arguments) {
                let part = json!({"index": index, "function": {"arguments": part}});
                chunks.push(delta(json!({"tool_calls": [part]}), None));
            }
        }
        chunks.push(delta(json!({}), Some(self.finish_reason)));
        if with_usage {
            chunks.push(chunk(json!([]), self.usage.clone()));
        }
        chunks
    }

    fn into_stream(self, with_usage: bool) -> Response {
        let mut events: Vec<Bytes> = Vec::new();
        for chunk in self.chunks(with_usage) {
            let mut event = Vec::new();
            sse::data(&mut event, chunk.to_string().as_bytes());
            events.push(event.into());
        }
        let mut end = Vec::new();
        sse::done(&mut end);
        events.push(end.into());
        router::event_stream(stream::unfold(
            (events.into_iter(), false),
            |(mut events, has_begun)| async move {
                let event = events.next()?;
                if has_begun {
                    tokio::time::sleep(WORD_INTERVAL).await;
                }
                Some((Ok(event), (events, true)))
            },
        ))
    }
}

/// A text in words, each with the space after it; together they are the text.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(char::is_whitespace)
}

/// Arguments in pieces of about eight characters, cut between characters.
fn parts(text: &str) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    characters.chunks(8).map(|part| part.iter().collect()).collect()
}

fn word_count(text: &str) -> usize {
    text.split_whitespace().count()
}
