//! The demo's routes.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{any, get, post};
use http::{StatusCode, header};
use serde_json::{Value, json};

use super::{chat, mcp, oauth};
use crate::clock::Clock;
use crate::egress::Egress;

/// An access token that `/demo/private/mcp` always accepts. Not a secret: it is printed in the tour.
pub const DEMO_TOKEN: &str = "demo-token";

/// What the demo's parts share. Cheap to clone.
#[derive(Clone)]
pub(super) struct Demo {
    pub clock: Clock,
    /// To read the documents that clients name (CIMD).
    pub egress: Egress,
    pub memory: oauth::Memory,
}

/// Everything under `/demo`, and where clients look for what it says of itself: the model at `/demo/v1`, the MCP
/// servers at `/demo/mcp` and `/demo/private/mcp`, the authorization server at `/demo/oauth`.
///
/// To be mounted in local mode only.
pub fn router<S: Clone + Send + Sync + 'static>(clock: Clock, egress: Egress) -> Router<S> {
    let inside = Router::new()
        .route(
            "/v1/chat/completions",
            post(|State(demo): State<Demo>, request: Request| chat::complete(demo.clock, request)),
        )
        .route("/v1/models", get(async || chat::models()))
        .route("/mcp", any(mcp::open))
        .route("/private/mcp", any(mcp::private))
        // logins
        .route("/oauth/authorize", get(oauth::show_login).post(oauth::answer_login))
        .route("/oauth/token", post(oauth::token))
        .route("/oauth/revoke", post(oauth::revoke))
        .route("/oauth/register", post(oauth::register))
        .route("/oauth/style.css", get(async || oauth::style()))
        .fallback(async || json(StatusCode::NOT_FOUND, &json!({"error": "the demo has nothing here"})));
    Router::new()
        .nest("/demo", inside)
        .route("/.well-known/oauth-protected-resource/demo/private/mcp", get(oauth::resource_metadata))
        .route("/.well-known/oauth-authorization-server/demo/oauth", get(oauth::server_metadata))
        .with_state(Demo { clock, egress, memory: oauth::Memory::default() })
}

/// A JSON answer.
pub(super) fn json(status: StatusCode, value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// An event stream that is flushed per event and that no proxy may hold back.
pub(super) fn event_stream<S>(chunks: S) -> Response
where
    S: futures_util::Stream<Item = Result<Bytes, std::convert::Infallible>> + Send + 'static,
{
    let mut response = Response::new(Body::from_stream(chunks));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", header::HeaderValue::from_static("no"));
    response
}
