//! A model whose turns are written down beforehand.

use std::collections::VecDeque;
use std::sync::Mutex;

use serde_json::{Value, json};

use super::{Peer, Piece, Recorded, Reply};

/// A provider that gives its replies in order, and an error when they are used up.
pub struct FakeProvider {
    pub peer: Peer,
}

impl FakeProvider {
    pub async fn start(replies: Vec<Reply>) -> FakeProvider {
        let replies = Mutex::new(VecDeque::from(replies));
        let over = || Reply::with_headers(418, &[], r#"{"error":{"message":"the script is over"}}"#);
        let peer = Peer::start(move |_| replies.lock().unwrap().pop_front().unwrap_or_else(over)).await;
        FakeProvider { peer }
    }

    /// Answers every request by itself.
    pub async fn answering(answer: impl Fn(&Recorded) -> Reply + Send + Sync + 'static) -> FakeProvider {
        FakeProvider { peer: Peer::start(answer).await }
    }

    /// The bodies of the requests so far.
    pub fn bodies(&self) -> Vec<Value> {
        self.peer.requests().iter().map(Recorded::json).collect()
    }

    /// The body of the last request.
    pub fn last_body(&self) -> Value {
        self.bodies().pop().expect("the provider was asked")
    }

    /// The messages of the last request with this role, only their `content`.
    pub fn last_said(&self, role: &str) -> Vec<Value> {
        let body = self.last_body();
        let messages = body["messages"].as_array().expect("messages are a list");
        messages
            .iter()
            .filter(|message| message["role"] == role)
            .map(|message| message["content"].clone())
            .collect()
    }

    /// The names of the functions offered in the last request.
    pub fn last_functions(&self) -> Vec<String> {
        let body = self.last_body();
        let tools = body["tools"].as_array().cloned().unwrap_or_default();
        tools.iter().map(|tool| tool["function"]["name"].as_str().expect("a name").to_owned()).collect()
    }
}

/// A whole answer with this text.
pub fn text(content: &str) -> Reply {
    whole(&json!({ "role": "assistant", "content": content }), "stop")
}

/// A whole answer that calls functions: `(id, name, arguments)`.
pub fn calls(list: &[(&str, &str, Value)]) -> Reply {
    let calls: Vec<Value> =
        list.iter().map(|(id, name, arguments)| function_call(id, name, &arguments.to_string())).collect();
    whole(&json!({ "role": "assistant", "content": null, "tool_calls": calls }), "tool_calls")
}

/// A call as a message carries it.
pub fn function_call(id: &str, name: &str, arguments: &str) -> Value {
    json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } })
}

/// Calls, streamed: their arguments in two parts.
pub fn calls_stream(list: &[(&str, &str, Value)]) -> Reply {
    let mut events = vec![delta(&json!({ "role": "assistant", "content": null }))];
    for (index, (id, name, arguments)) in list.iter().enumerate() {
        let arguments = arguments.to_string();
        let (one, two) = arguments.split_at(arguments.len() / 2);
        let mut first = function_call(id, name, one);
        first["index"] = index.into();
        events.push(delta(&json!({ "tool_calls": [first] })));
        events.push(delta(&json!({ "tool_calls": [{ "index": index, "function": { "arguments": two } }] })));
    }
    events.extend([finish("tool_calls"), usage()]);
    stream(&events)
}

/// This text, streamed word by word.
pub fn text_stream(content: &str) -> Reply {
    let mut list = vec![delta(&json!({ "role": "assistant", "content": "" }))];
    list.extend(content.split_inclusive(' ').map(|word| delta(&json!({ "content": word }))));
    list.extend([finish("stop"), usage()]);
    stream(&list)
}

/// These chunks and `[DONE]`.
pub fn stream(chunks: &[Value]) -> Reply {
    let mut pieces: Vec<Piece> = chunks.iter().map(event).collect();
    pieces.push("data: [DONE]\n\n".into());
    Reply::stream(pieces)
}

/// One chunk as a piece of a stream.
pub fn event(chunk: &Value) -> Piece {
    Piece::Bytes(format!("data: {chunk}\n\n").into_bytes())
}

fn chunk(choices: &Value) -> Value {
    json!({ "id": "chatcmpl-fake", "object": "chat.completion.chunk", "created": 1, "model": "fake-model-1", "system_fingerprint": "fp_1", "choices": choices })
}

pub fn delta(delta: &Value) -> Value {
    chunk(&json!([{ "index": 0, "delta": delta, "finish_reason": null }]))
}

pub fn finish(reason: &str) -> Value {
    chunk(&json!([{ "index": 0, "delta": {}, "finish_reason": reason }]))
}

pub fn usage() -> Value {
    let mut last = chunk(&json!([]));
    last["usage"] = json!({ "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15 });
    last
}

/// A whole answer with this message.
pub fn whole(message: &Value, reason: &str) -> Reply {
    let body = json!({
        "id": "chatcmpl-fake", "object": "chat.completion", "created": 1, "model": "fake-model-1",
        "choices": [{ "index": 0, "message": message, "finish_reason": reason }],
        "usage": { "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15 },
    });
    Reply::Json(200, body)
}
