//! `POST /v1/tasks`: a chat completion that is started now and read later.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderValue, Request, StatusCode, header};
use serde_json::{Value, json};

use super::chat::{Asked, incoming, read, select};
use super::runs::{json_response, summary};
use super::{ApiError, App, keep};
use crate::completion::Options;

/// `POST /v1/tasks`: 202 as soon as the task is in the store.
///
/// # Errors
/// 400, 401, 403, 404, 409, 413, 429, 503.
pub async fn create(State(app): State<Arc<App>>, request: Request<Body>) -> Result<Response, ApiError> {
    let (caller, headers, request) = read(&app, request).await?;
    let target = select(&app, &caller, &request).await?;
    let options = Options::read(&request, &headers, &app.settings.run)?;
    let asked = Asked { request, headers, target, path: "/chat/completions", options };
    let keep = keep::of_task(&app, &caller, &asked).await?;
    let started = app.engine.start(incoming(&caller, asked, Some(keep))?).await?;
    started.created().await?;
    let reader = super::app::reader_of(&caller);
    let record = app.runs().find(&started.run_id, &reader).await?.ok_or_else(super::runs::not_found)?;
    let mut task = summary(&app, &record);
    let readable = match record.visibility {
        crate::completion::Visibility::Private => "by its owner only",
        _ => "by whoever has its address: keep the addresses to those who may read it",
    };
    task["readable"] = Value::from(readable);
    task["cancel_url"] = json!(format!("{}/cancel", app.run_url(&record.id)));
    let mut response = json_response(StatusCode::ACCEPTED, &task);
    if let Ok(location) = HeaderValue::try_from(app.run_url(&record.id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}
