//! Refusals as JSON-RPC errors, with the status and headers that an answer of the API would have.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde_json::{Value, json};

use crate::api::ApiError;
use crate::api::runs::json_response;
use crate::mcp::{INTERNAL_ERROR, INVALID_REQUEST, Refusal};

/// Why a request is not answered.
pub(super) enum Refused {
    /// It is no request of MCP, or one that asks for what is not there. With the id of the message, where that is known.
    Message(Refusal, Option<Value>),
    /// What the whole API would refuse.
    Api(ApiError),
    /// Nobody knows who asks, though a key was brought.
    BadKey(ApiError),
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Refused::Message(refusal, None)
    }
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Refused::Api(error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        match self {
            Refused::Message(refusal, id) => json_response(refusal.status, &refusal.to_json(id.as_ref())),
            Refused::Api(error) => of_api(error),
            Refused::BadKey(error) => {
                let mut response = of_api(error);
                // RFC 6750 §3.1: only who brought something is told that it is not good.
                let challenge = HeaderValue::from_static(r#"Bearer realm="toolgate", error="invalid_token""#);
                response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
                response
            }
        }
    }
}

fn of_api(error: ApiError) -> Response {
    let code = if error.status().is_server_error() { INTERNAL_ERROR } else { INVALID_REQUEST };
    let word = error.error().get("code").filter(|code| code.is_string());
    let data = word.map(|code| match error.error().get("param") {
        // Which bound it is.
        Some(param) if code == "limit_reached" => json!({ "code": code, "param": param }),
        _ => json!({ "code": code }),
    });
    let refusal = Refusal { data, ..Refusal::new(error.status(), code, error.message()) };
    let body = json_response(refusal.status, &refusal.to_json(None));
    // `Retry-After` and the challenge stay.
    let mut response = error.into_response();
    let (head, body) = body.into_parts();
    response.headers_mut().extend(head.headers);
    response.map(|_: Body| body)
}
