//! What the tests stand on.

pub mod authorization_server;
mod browser;
mod cluster;
mod gate;
mod gateway;
mod http;
pub mod issuer;
mod logs;
mod mcp;
mod peer;
mod person;
mod place;
mod program;
mod protected;
pub mod provider;
pub mod small_disk;
mod stream;
mod wire;

pub use browser::{Browser, fields_of};
pub use cluster::Cluster;
pub use gate::Gate;
pub use gateway::{Gateway, settings};
pub use http::{Answer, Client, whole};
pub use logs::Logs;
pub use mcp::{FakeMcp, FakeTool, rpc_result, text_result};
pub use peer::{PATIENCE, Peer, Piece, Reply};
pub use person::{Page, Person};
pub use place::{Place, on_postgres};
pub use program::{Program, Running, free_address};
pub use protected::{Protected, escaped, field};
pub use provider::{FakeProvider, calls, calls_stream, text, text_stream};
pub use stream::Stream;
pub use wire::Recorded;

use serde_json::{Value, json};

/// A request with one question for the model `m`, and these tools.
pub fn ask(tools: &[Value]) -> Value {
    let mut body = json!({ "model": "m", "messages": [{ "role": "user", "content": "question" }] });
    if !tools.is_empty() {
        body["tools"] = Value::Array(tools.to_vec());
    }
    body
}

/// `body` with these fields added or replaced.
pub fn with(mut body: Value, fields: Value) -> Value {
    let Value::Object(fields) = fields else { panic!("fields are an object") };
    body.as_object_mut().expect("a request is an object").extend(fields);
    body
}

/// `body` without `field`.
pub fn without(mut body: Value, field: &str) -> Value {
    body.as_object_mut().expect("a request is an object").remove(field);
    body
}
