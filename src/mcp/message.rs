//! JSON-RPC messages in and out.

use http::StatusCode;
use serde_json::{Map, Value, json};

/// What is no JSON (JSON-RPC 2.0 §5.1, as the next three).
pub const PARSE_ERROR: i64 = -32700;
/// What is no message, or not for the one who sends it.
pub const INVALID_REQUEST: i64 = -32600;
/// A method that is not there.
pub const METHOD_NOT_FOUND: i64 = -32601;
/// Parameters of another shape, and names of what is not there.
pub const INVALID_PARAMS: i64 = -32602;
/// The server cannot do what it should be able to.
pub const INTERNAL_ERROR: i64 = -32603;
/// A header says something else than the body (MCP 2026-07-28 streamable HTTP, as the next one).
pub const HEADER_MISMATCH: i64 = -32020;
/// A revision that is not spoken here.
pub const UNSUPPORTED_VERSION: i64 = -32022;

/// One message of a client.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// `None` for a notification.
    pub id: Option<Value>,
    pub method: String,
    /// Empty when there are none.
    pub params: Map<String, Value>,
}

/// A refused message: the HTTP status and the JSON-RPC error.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    pub status: StatusCode,
    pub code: i64,
    pub message: String,
    pub data: Option<Value>,
}

impl Refusal {
    /// A refusal without `data`.
    pub fn new(status: StatusCode, code: i64, message: impl Into<String>) -> Self {
        Refusal { status, code, message: message.into(), data: None }
    }

    /// One with status 400.
    pub fn bad_request(code: i64, message: impl Into<String>) -> Self {
        Refusal::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// The error response to the request `id`; `None` when the id could not be read.
    pub fn to_json(&self, id: Option<&Value>) -> Value {
        let mut error = json!({"code": self.code, "message": self.message});
        if let Some(data) = &self.data {
            error["data"] = data.clone();
        }
        let mut response = json!({"jsonrpc": "2.0"});
        if let Some(id) = id {
            response["id"] = id.clone();
        }
        response["error"] = error;
        response
    }
}

/// The response to the request `id`.
pub fn response(id: &Value, result: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "result": result})
}

/// Reads one message.
///
/// # Errors
/// When it is not a JSON-RPC 2.0 request or notification.
pub fn read(value: Value) -> Result<Message, Refusal> {
    let invalid = |message: &str| Refusal::bad_request(INVALID_REQUEST, message);
    let Value::Object(mut fields) = value else { return Err(invalid("a message is a JSON object")) };
    if fields.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return Err(invalid("`jsonrpc` must be \"2.0\""));
    }
    let Some(Value::String(method)) = fields.remove("method") else {
        return Err(invalid("`method` must be a string; responses are not expected here"));
    };
    let id = match fields.remove("id") {
        None => None,
        Some(id) if id.is_string() || id.is_i64() || id.is_u64() => Some(id),
        Some(_) => return Err(invalid("`id` must be a string or a whole number")),
    };
    let params = match fields.remove("params") {
        None => Map::new(),
        Some(Value::Object(params)) => params,
        Some(_) => return Err(Refusal::bad_request(INVALID_PARAMS, "`params` must be an object")),
    };
    Ok(Message { id, method, params })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_json_rpc_is_refused() {
        for (message, code) in [
            (json!([]), INVALID_REQUEST),
            (json!({"method": "ping", "id": 1}), INVALID_REQUEST),
            (json!({"jsonrpc": "2.0", "id": 1, "result": {}}), INVALID_REQUEST),
            (json!({"jsonrpc": "2.0", "id": null, "method": "ping"}), INVALID_REQUEST),
            (json!({"jsonrpc": "2.0", "id": 1.5, "method": "ping"}), INVALID_REQUEST),
            (json!({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": []}), INVALID_PARAMS),
        ] {
            assert_eq!(read(message.clone()).unwrap_err().code, code, "{message}");
        }
        let ping = read(json!({"jsonrpc": "2.0", "id": "a", "method": "ping"})).unwrap();
        assert_eq!((ping.id, ping.method.as_str()), (Some(json!("a")), "ping"));
    }
}
