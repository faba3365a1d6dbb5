//! `POST /v1/flows/confirm`: an application says which of its users sits at the browser that it was sent.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::Request;
use serde_json::json;

use super::connections::{answer, only, read};
use super::{ApiError, App};
use crate::config::KeyScope;
use crate::openai::InvalidField;

/// Longer references are none of ours.
const LONGEST_REFERENCE: usize = 200;

/// `POST /v1/flows/confirm {flow_ref, user}`: where to send the browser back to.
///
/// # Errors
/// 400, 401, 403, 404 for references that are unknown, used or expired, 409 when the login was asked for another user.
pub async fn confirm(State(app): State<Arc<App>>, request: Request<Body>) -> Result<Response, ApiError> {
    let (caller, fields) = read(&app, request, KeyScope::Connections).await?;
    only(&fields, &["flow_ref", "user"])?;
    let text = |field: &'static str, longest: usize| {
        let value = fields.get::<String>(field, "a text")?;
        let fits = |value: &String| (1..=longest).contains(&value.len());
        value
            .filter(fits)
            .ok_or_else(|| InvalidField::new(field, format!("`{field}` is missing, or too long")))
    };
    let (flow_ref, user) = (text("flow_ref", LONGEST_REFERENCE)?, text("user", 512)?);
    let back = app.connections.confirm(&caller.namespace, &flow_ref, &user).await?;
    Ok(answer(http::StatusCode::OK, &json!({ "redirect_url": back.to_string() })))
}
