//! OpenAI's error envelope.

use serde_json::{Map, Value, json};

/// OpenAI's `error.type` words that the gateway itself uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    InvalidRequest,
    Authentication,
    AuthRequired,
    Permission,
    RateLimit,
    FailedDependency,
    Upstream,
    Server,
}

impl ErrorKind {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorKind::InvalidRequest => "invalid_request_error",
            ErrorKind::Authentication => "authentication_error",
            ErrorKind::AuthRequired => "auth_required",
            ErrorKind::Permission => "permission_error",
            ErrorKind::RateLimit => "rate_limit_error",
            ErrorKind::FailedDependency => "mcp_server_error",
            ErrorKind::Upstream => "upstream_error",
            ErrorKind::Server => "server_error",
        }
    }
}

/// The value of `error` in the envelope: `message`, `type`, `param`, `code`, and what else belongs to it.
#[derive(Debug, Clone, PartialEq)]
pub struct ErrorBody(Map<String, Value>);

impl ErrorBody {
    /// An error with a message that says what happened and what to do next.
    pub fn new(kind: ErrorKind, code: Option<&str>, message: impl Into<String>) -> Self {
        let mut body = Map::new();
        body.insert("message".into(), message.into().into());
        body.insert("type".into(), kind.as_str().into());
        body.insert("param".into(), Value::Null);
        body.insert("code".into(), code.map_or(Value::Null, Into::into));
        ErrorBody(body)
    }

    /// Names the field of the request that is wrong.
    #[must_use]
    pub fn param(mut self, param: impl Into<String>) -> Self {
        self.0.insert("param".into(), Value::String(param.into()));
        self
    }

    /// Adds a field beyond OpenAI's four.
    #[must_use]
    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.0.insert(key.into(), value);
        self
    }

    /// A provider's own error object, its message completed by who said it. Missing fields become null.
    pub fn from_provider(mut error: Map<String, Value>, provider: &str) -> Self {
        let said = error.get("message").and_then(Value::as_str).unwrap_or("no message").to_owned();
        error.insert("message".into(), Value::String(format!("{provider}: {said}")));
        for key in ["type", "param", "code"] {
            error.entry(key).or_insert(Value::Null);
        }
        ErrorBody(error)
    }

    /// The message.
    pub fn message(&self) -> &str {
        self.0.get("message").and_then(Value::as_str).unwrap_or_default()
    }

    /// The value of `error`.
    pub fn into_value(self) -> Value {
        Value::Object(self.0)
    }

    /// The whole body: `{"error":{…}}`.
    pub fn to_bytes(&self) -> Vec<u8> {
        json!({ "error": self.0 }).to_string().into_bytes()
    }
}
