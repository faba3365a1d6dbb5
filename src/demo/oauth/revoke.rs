//! Token revocation (RFC 7009).

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use serde_json::json;

use super::error::{Refusal, private_json};
use super::fields::Fields;
use crate::demo::router::Demo;

/// `POST /demo/oauth/revoke`: ends the whole login, whichever of its tokens is given.
pub async fn revoke(State(demo): State<Demo>, request: Request) -> Response {
    match revoked(&demo, request).await {
        Ok(()) => private_json(StatusCode::OK, &json!({})),
        Err(refusal) => refusal.into_response(),
    }
}

async fn revoked(demo: &Demo, request: Request) -> Result<(), Refusal> {
    let fields = Fields::of_form(request).await?;
    let client = fields.get("client_id", "`client_id` is missing")?;
    let token = fields.get("token", "`token` is missing")?;
    demo.memory.revoke(demo.clock.unix_seconds(), client, token)
}
