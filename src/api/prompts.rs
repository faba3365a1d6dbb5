//! `POST /{id}/chat/completions`: what a run was asked, as the instructions of new requests.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::Request;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::any_host::{any_host, at_address};
use super::app::reader_of;
use super::runs::not_found;
use super::{ApiError, App, chat};
use crate::clean_json;
use crate::completion::{Record, is_run_id, text_of};
use crate::identity::{Caller, CallerKind};
use crate::openai::{ChatRequest, InvalidField};
use crate::upstream::Target;

/// The prompt of a run becomes the system message; its model and its tools are those of requests that name none. A first
/// part that is no run's id may be a provider's host.
///
/// # Errors
/// Those of chat completions, and 404 for runs that the caller may not read.
pub async fn complete(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    if !is_run_id(&id) {
        return any_host(State(app), request).await;
    }
    let (caller, headers, request) = chat::read(&app, request).await?;
    let record = find(&app, &caller, &id).await?;
    let (request, target, path) = follow(&app, &caller, &request, &record).await?;
    chat::complete(&app, &caller, request, headers, target, &path).await
}

/// The run whose prompt `caller` wants to use.
///
/// # Errors
/// 404, also for runs that the caller may not read; 503.
pub(super) async fn find(app: &App, caller: &Caller, id: &str) -> Result<Record, ApiError> {
    app.runs().find(id, &reader_of(caller)).await?.ok_or_else(not_found)
}

/// `request` as it follows the run's prompt, the target that its model means, and the endpoint there.
///
/// The model of a run that somebody else asked says where its author wants it answered, so nobody's own key follows it.
///
/// # Errors
/// 400, 401, 403, 404.
pub(super) async fn follow(
    app: &App,
    caller: &Caller,
    request: &ChatRequest,
    record: &Record,
) -> Result<(ChatRequest, Target, String), ApiError> {
    let own_model = request.get::<String>("model", "the name of a model")?.filter(|model| !model.is_empty());
    let request = with_prompt(request, record)?;
    let means_the_runs = own_model.as_ref().is_none_or(|model| *model == record.model);
    if let Some(provider) = &record.named_provider
        && means_the_runs
        && record.is_callers
    {
        let target = at_address(app, caller, &provider.target)?;
        return Ok((request, target, provider.path.clone()));
    }
    if own_model.is_none() {
        let at = format!("{}/chat/completions", app.runs().url(&record.id));
        if caller.kind == CallerKind::PassThrough && !record.is_callers {
            let message = format!(
                "somebody else asked this run, and your key may not be for its provider: name the `model` that your \
                 key is for at {at}, or use an API key of this gateway"
            );
            return Err(InvalidField::new("model", message).into());
        }
        if record.named_provider.is_some() {
            let message = format!(
                "this run was asked at a provider's address, and only who asked it can go on there: name a `model` \
                 that GET /v1/models lists, at {at}"
            );
            return Err(InvalidField::new("model", message).into());
        }
    }
    let target = chat::select(app, caller, &request).await?;
    Ok((request, target, "/chat/completions".to_owned()))
}

/// The request with the run's prompt before its own messages.
fn with_prompt(request: &ChatRequest, record: &Record) -> Result<ChatRequest, InvalidField> {
    let own =
        request.raw("messages").ok_or_else(|| InvalidField::new("messages", "`messages` is missing"))?;
    let own: Vec<&RawValue> = clean_json::borrowed(own.as_bytes())
        .map_err(|_| InvalidField::new("messages", "`messages` must be a list of messages"))?;
    let asked = record.messages().iter().filter(|message| {
        matches!(message.get("role").and_then(Value::as_str), Some("system" | "developer" | "user"))
    });
    let prompt: Vec<String> =
        asked.map(|message| text_of(message.get("content"))).filter(|text| !text.trim().is_empty()).collect();
    let system = json!({ "role": "system", "content": prompt.join("\n\n") }).to_string();
    let system = Some(system.as_str()).filter(|_| !prompt.is_empty());
    let messages: Vec<&str> = system.into_iter().chain(own.iter().map(|message| message.get())).collect();
    let mut fields: Vec<String> = request
        .fields()
        .filter(|(key, _)| *key != "messages")
        .map(|(key, value)| format!("{}:{value}", Value::from(key)))
        .collect();
    fields.push(format!("\"messages\":[{}]", messages.join(",")));
    if request.raw("model").is_none_or(|model| model == "\"\"") {
        fields.retain(|field| !field.starts_with("\"model\":"));
        fields.push(format!("\"model\":{}", Value::from(record.model.as_str())));
    }
    // Their addresses may hold keys.
    if record.is_callers
        && request.raw("tools").is_none()
        && let Some(tools) = record.request.get("tools")
    {
        fields.retain(|field| !field.starts_with("\"tools\":"));
        fields.push(format!("\"tools\":{tools}"));
    }
    ChatRequest::parse(format!("{{{}}}", fields.join(",")).into())
}
