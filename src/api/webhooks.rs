//! `GET /v1/webhooks/secret`: the key by which an application knows that a webhook is from this gateway.
//!
//! Never the secret of a project: that one is shown once, when it is made.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde_json::json;

use super::connections::answer;
use super::{ApiError, App};
use crate::config::KeyScope;
use crate::identity::Surface;
use crate::openai::{ErrorBody, ErrorKind};

/// `GET /v1/webhooks/secret`: `{"secret":"whsec_…"}`, the same every time.
///
/// # Errors
/// 401, 403 without the scope and for people, who share a namespace; 409 when the project has a secret of its own;
/// 429, 503.
pub async fn secret(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, ApiError> {
    let caller = app.admit_for(&headers, Surface::V1, KeyScope::Connections).await?;
    if caller.own_user().is_some() {
        let message = "this key is for applications, which call with a key";
        let body = ErrorBody::new(ErrorKind::Permission, Some("application_required"), message);
        return Err(ApiError::from_body(StatusCode::FORBIDDEN, body));
    }
    match app.connections.webhook_secret(&caller.namespace).await? {
        Some(secret) => Ok(answer(StatusCode::OK, &json!({ "secret": secret.expose() }))),
        None => {
            let message = "this project has a webhook secret of its own, which signs these webhooks too and was shown when \
                           it was made; `toolgate project update NAME --new-webhook-secret` makes another";
            let body = ErrorBody::new(ErrorKind::InvalidRequest, Some("secret_shown_once"), message);
            Err(ApiError::from_body(StatusCode::CONFLICT, body))
        }
    }
}
