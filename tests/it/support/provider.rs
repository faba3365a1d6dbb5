//! A model whose turns are written down beforehand.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{Peer, Piece, Recorded, Reply};

/// A provider that gives its replies in order; the last one again when they are used up.
pub struct FakeProvider {
    pub peer: Peer,
}

impl FakeProvider {
    pub async fn start(replies: Vec<Reply>) -> FakeProvider {
        let replies = Arc::new(Mutex::new(VecDeque::from(replies)));
        let peer = Peer::start(move |_| {
            replies
                .lock()
                .unwrap()
                .pop_front()
                .unwrap_or(Reply::Json(500, json!({ "error": { "message": "the script is over" } })))
        })
        .await;
        FakeProvider { peer }
    }

    /// The bodies of the requests so far.
    pub fn bodies(&self) -> Vec<Value> {
        self.peer.requests().iter().map(Recorded::json).collect()
    }
}

/// A whole answer with this text.
pub fn text(content: &str) -> Reply {
    whole(json!({ "role": "assistant", "content": content }), "stop")
}

/// A whole answer that calls functions: `(id, name, arguments)`.
pub fn calls(list: &[(&str, &str, Value)]) -> Reply {
    whole(json!({ "role": "assistant", "content": null, "tool_calls": tool_calls(list) }), "tool_calls")
}

/// One call, streamed: its arguments in two parts.
pub fn call(id: &str, name: &str, arguments: &Value) -> Reply {
    let arguments = arguments.to_string();
    let (one, two) = arguments.split_at(arguments.len() / 2);
    let first = json!({ "tool_calls": [{ "index": 0, "id": id, "type": "function", "function": { "name": name, "arguments": one } }] });
    let second = json!({ "tool_calls": [{ "index": 0, "function": { "arguments": two } }] });
    events(&[
        delta(&json!({ "role": "assistant", "content": null })),
        delta(&first),
        delta(&second),
        finish("tool_calls"),
        usage(),
    ])
}

/// This text, streamed word by word.
pub fn text_stream(content: &str) -> Reply {
    let mut list = vec![delta(&json!({ "role": "assistant", "content": "" }))];
    list.extend(content.split_inclusive(' ').map(|word| delta(&json!({ "content": word }))));
    list.extend([finish("stop"), usage()]);
    events(&list)
}

fn events(list: &[Value]) -> Reply {
    let mut pieces: Vec<Piece> =
        list.iter().map(|value| Piece::Bytes(format!("data: {value}\n\n").into_bytes())).collect();
    pieces.push(Piece::Bytes(b"data: [DONE]\n\n".to_vec()));
    Reply::Stream { pieces, cut: false }
}

fn chunk(choices: &Value) -> Value {
    json!({ "id": "chatcmpl-fake", "object": "chat.completion.chunk", "created": 1, "model": "fake-model-1", "system_fingerprint": "fp_1", "choices": choices })
}

pub fn delta(delta: &Value) -> Value {
    chunk(&json!([{ "index": 0, "delta": delta, "finish_reason": null }]))
}

fn finish(reason: &str) -> Value {
    chunk(&json!([{ "index": 0, "delta": {}, "finish_reason": reason }]))
}

fn usage() -> Value {
    let mut last = chunk(&json!([]));
    last["usage"] = json!({ "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15 });
    last
}

fn whole(message: Value, reason: &str) -> Reply {
    let body = json!({
        "id": "chatcmpl-fake", "object": "chat.completion", "created": 1, "model": "fake-model-1",
        "choices": [{ "index": 0, "message": message, "finish_reason": reason }],
        "usage": { "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15 },
    });
    Reply::Json(200, body)
}

fn tool_calls(list: &[(&str, &str, Value)]) -> Value {
    list.iter().map(|(id, name, arguments)| json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments.to_string() } })).collect()
}
