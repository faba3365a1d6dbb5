//! Dynamic client registration (RFC 7591).

use axum::extract::{Request, State};
use axum::response::Response;
use http::{StatusCode, header};
use serde::Deserialize;
use serde_json::json;

use super::client::Client;
use super::error::{Refusal, private_json};
use super::metadata::SCOPE;
use crate::clean_json;
use crate::demo::router::Demo;

const MAX_BYTES: usize = 16 << 10;

#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    client_name: String,
    redirect_uris: Vec<String>,
}

/// `POST /demo/oauth/register`. Whatever a client asks for, it gets no secret (RFC 7591 §3.2.1).
pub async fn register(State(demo): State<Demo>, request: Request) -> Response {
    match registered(request).await {
        Err(refusal) => refusal.into_response(),
        Ok(client) => private_json(
            StatusCode::CREATED,
            &json!({
                "client_id": client.id,
                "client_id_issued_at": demo.clock.unix_seconds(),
                "client_name": client.name,
                "redirect_uris": client.redirect_uris,
                "grant_types": ["authorization_code", "refresh_token"],
                "response_types": ["code"],
                "token_endpoint_auth_method": "none",
                "scope": SCOPE,
            }),
        ),
    }
}

async fn registered(request: Request) -> Result<Client, Refusal> {
    let bad = |description| Refusal::new("invalid_client_metadata", description);
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !kind.is_some_and(|kind| kind.to_ascii_lowercase().starts_with("application/json")) {
        return Err(bad("the body must be application/json"));
    }
    let body = axum::body::to_bytes(request.into_body(), MAX_BYTES).await;
    let body = body.map_err(|_| bad("the body is too large or broke off"))?;
    let asked: Asked =
        clean_json::from_slice(&body).map_err(|_| bad("the body must be an object with `redirect_uris`"))?;
    Client::register(&asked.client_name, asked.redirect_uris)
}
