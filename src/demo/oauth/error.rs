//! What the authorization server refuses, in OAuth's words.

use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::demo::router;

/// An error code and a sentence for whoever wrote the client. Nothing in it comes from the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// RFC 6749 §4.1.2.1 and §5.2, RFC 7591 §3.2.2, RFC 8707 §2.
    pub code: &'static str,
    pub description: &'static str,
}

impl Refusal {
    pub const fn new(code: &'static str, description: &'static str) -> Refusal {
        Refusal { code, description }
    }

    pub const fn invalid_request(description: &'static str) -> Refusal {
        Refusal::new("invalid_request", description)
    }

    pub const fn invalid_grant(description: &'static str) -> Refusal {
        Refusal::new("invalid_grant", description)
    }

    /// The error as JSON (RFC 6749 §5.2).
    pub fn into_response(self) -> Response {
        let status =
            if self.code == "invalid_client" { StatusCode::UNAUTHORIZED } else { StatusCode::BAD_REQUEST };
        private_json(status, &json!({"error": self.code, "error_description": self.description}))
    }
}

/// A JSON answer that nobody keeps (RFC 6749 §5.1).
pub fn private_json(status: StatusCode, value: &Value) -> Response {
    let mut response = router::json(status, value);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
