//! The demo's routes.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::Response;
use axum::routing::{any, get, post};
use http::{StatusCode, header};
use serde_json::Value;

use super::{chat, mcp};
use crate::clock::Clock;

/// The access token that `/private/mcp` accepts. Not a secret: it is printed in the tour.
pub const DEMO_TOKEN: &str = "demo-token";

/// Everything under `/demo`: the model at `/v1`, the MCP servers at `/mcp` and `/private/mcp`.
///
/// To be mounted in local mode only.
pub fn router() -> Router {
    Router::new()
        .route("/v1/chat/completions", post(|request: Request| chat::complete(Clock::system(), request)))
        .route("/v1/models", get(async || chat::models()))
        .route("/mcp", any(|request: Request| mcp::open(Clock::system(), request)))
        .route("/private/mcp", any(|request: Request| mcp::private(Clock::system(), request)))
        .route("/.well-known/oauth-protected-resource", get(async |request: Request| mcp::metadata(&request)))
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
