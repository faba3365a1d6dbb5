//! The token endpoint (RFC 6749 §3.2).

use axum::extract::{Request, State};
use axum::response::Response;
use http::{StatusCode, header};
use serde_json::json;

use super::error::{Refusal, private_json};
use super::fields::Fields;
use super::memory::{ACCESS_SECONDS, Issued, Redemption};
use super::metadata::SCOPE;
use crate::demo::router::Demo;

/// `POST /demo/oauth/token`: a code for tokens, or a refresh token for newer ones.
pub async fn token(State(demo): State<Demo>, request: Request) -> Response {
    match issued(&demo, request).await {
        Err(refusal) => refusal.into_response(),
        Ok(issued) => private_json(
            StatusCode::OK,
            &json!({
                "access_token": issued.access,
                "token_type": "Bearer",
                "expires_in": ACCESS_SECONDS,
                "refresh_token": issued.refresh,
                "scope": SCOPE,
                // Beyond the standard, so that a client can say whose login it holds.
                "username": issued.person,
            }),
        ),
    }
}

async fn issued(demo: &Demo, request: Request) -> Result<Issued, Refusal> {
    let has_header = request.headers().contains_key(header::AUTHORIZATION);
    let fields = Fields::of_form(request).await?;
    if has_header || fields.find("client_secret").is_some() {
        return Err(Refusal::new("invalid_client", "clients have no secrets here: send `client_id` alone"));
    }
    let client_id = fields.get("client_id", "`client_id` is missing")?;
    let (now, resource) = (demo.clock.unix_seconds(), fields.find("resource"));
    match fields.get("grant_type", "`grant_type` is missing")? {
        "authorization_code" => {
            let redemption = Redemption {
                client_id,
                code: fields.get("code", "`code` is missing")?,
                redirect_uri: fields.get("redirect_uri", "`redirect_uri` is missing")?,
                verifier: fields.get("code_verifier", "`code_verifier` is missing")?,
                resource,
            };
            demo.memory.redeem(now, &redemption)
        }
        "refresh_token" => {
            let token = fields.get("refresh_token", "`refresh_token` is missing")?;
            demo.memory.refresh(now, client_id, token, resource)
        }
        _ => Err(Refusal::new("unsupported_grant_type", "there is `authorization_code` and `refresh_token`")),
    }
}
