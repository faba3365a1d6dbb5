//! OpenAI's stored chat completions, over stored runs.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::request::Parts;
use http::{Request, StatusCode};
use serde_json::{Map, Value, json};

use super::lists::{Listed, Query, envelope, read_page};
use super::reading::ReadingMemory;
use super::runs::{done, json_response, not_found};
use super::{ApiError, App, body, keep};
use crate::completion::event::RunEvent;
use crate::completion::{Answer, Reader, Record, Status};
use crate::identity::Surface;
use crate::openai::{ErrorBody, ErrorKind, InvalidField};
use crate::store::RunFilter;

/// A completion as a value, and as what is sent.
const COPIES: usize = 2;

/// `GET /v1/chat/completions`: `model`, `metadata[key]`, `limit`, `order`, `after`.
///
/// # Errors
/// 400, 401, 403, 429, 503.
pub async fn list(State(app): State<Arc<App>>, head: Parts) -> Result<Response, ApiError> {
    let caller = app.admit(&head.headers, Surface::V1).await?;
    let reader = super::app::reader_of(&caller);
    let query = Query::read(head.uri.query().unwrap_or_default(), false, Listed::Completions)?;
    let filter = RunFilter {
        project: &caller.namespace,
        user: reader.only_user.as_deref(),
        model: query.model.as_deref(),
        stored_only: true,
        ..RunFilter::default()
    };
    let fits = |record: &Record| is_completion(record) && query.fits(record);
    let (found, mut has_more) = read_page(&app, &reader, filter, &query, fits).await?;
    let mut data = Vec::with_capacity(found.len());
    let memory = ReadingMemory::new(&app, COPIES);
    for listed in &found {
        // How it is shown is said in its request, which lists do not have; deleted meanwhile, it is left out.
        let Some(record) = app.runs().find(&listed.id, &reader).await? else { continue };
        match completion(&app, &record, &memory).await {
            Ok(completion) => data.extend(completion),
            // A page may have fewer than were asked for.
            Err(error) if error.is_memory_exhausted() && !data.is_empty() => {
                has_more = true;
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(memory.json(envelope(data, has_more)))
}

/// `GET /v1/chat/completions/{id}`.
///
/// # Errors
/// 401, 404, 429, 503.
pub async fn find(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    head: Parts,
) -> Result<Response, ApiError> {
    let (record, _) = stored(&app, &id, &head).await?;
    given(&app, &record).await
}

/// `GET /v1/chat/completions/{id}/messages`: `limit`, `order`, `after`.
///
/// # Errors
/// 400, 401, 404, 429, 503.
pub async fn messages(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    head: Parts,
) -> Result<Response, ApiError> {
    let (record, _) = stored(&app, &id, &head).await?;
    let query = Query::read(head.uri.query().unwrap_or_default(), false, Listed::Messages)?;
    let mut messages: Vec<Value> = record
        .messages()
        .iter()
        .enumerate()
        .map(|(place, message)| {
            let mut fields = message.as_object().cloned().unwrap_or_default();
            fields.insert("id".into(), format!("{}-{place}", record.id).into());
            // OpenAI shows texts and parts of messages in two fields.
            let parts = fields.get("content").filter(|content| content.is_array()).cloned();
            if let Some(parts) = &parts {
                fields.insert("content".into(), Value::from(crate::completion::text_of(Some(parts))));
            }
            fields.insert("content_parts".into(), parts.unwrap_or(Value::Null));
            Value::Object(fields)
        })
        .collect();
    if query.newest_first {
        messages.reverse();
    }
    if let Some(after) = &query.after {
        let place = messages.iter().position(|message| message["id"] == after.as_str());
        let place =
            place.ok_or_else(|| InvalidField::new("after", "`after` is no message of this completion"))?;
        messages.drain(..=place);
    }
    let has_more = messages.len() > query.limit;
    messages.truncate(query.limit);
    Ok(json_response(StatusCode::OK, &envelope(messages, has_more)))
}

/// `POST /v1/chat/completions/{id}`: replaces `metadata`; null leaves it, `{}` empties it.
///
/// # Errors
/// 400, 401, 403, 404, 429, 503.
pub async fn update(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let (record, reader) = stored(&app, &id, &head).await?;
    let fields =
        body::read_request(&app, None, body, &head.headers, app.settings.limits.body_bytes.min(1 << 20))
            .await?;
    if !is_completion(&record) {
        return Err(no_completion(&app, &record));
    }
    let metadata = fields.get::<Map<String, Value>>("metadata", "an object")?;
    if !fields.fields().any(|(key, _)| key == "metadata") {
        return Err(InvalidField::new("metadata", "`metadata` is missing").into());
    }
    // As at /v1/runs: null leaves it as it is.
    if let Some(metadata) = &metadata {
        keep::check_metadata(metadata)?;
    }
    let changed = done(app.runs().change(&record.id, &reader, metadata.as_ref(), None).await?)?;
    given(&app, &changed).await
}

/// `DELETE /v1/chat/completions/{id}`.
///
/// # Errors
/// 401, 403, 404, 409, 429, 503.
pub async fn delete(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    head: Parts,
) -> Result<Response, ApiError> {
    let (record, reader) = stored(&app, &id, &head).await?;
    done(app.runs().delete(&record.id, &reader).await?)?;
    let deleted = json!({ "object": "chat.completion.deleted", "id": record.id, "deleted": true });
    Ok(json_response(StatusCode::OK, &deleted))
}

/// A stored run of the caller's own, and who the caller is.
async fn stored(app: &App, id: &str, head: &Parts) -> Result<(Record, Reader), ApiError> {
    let reader = app.owner(head).await?;
    let record = app.runs().find(id, &reader).await?;
    let record = record.filter(|record| record.is_own && record.stored).ok_or_else(not_found)?;
    Ok((record, reader))
}

/// Why there is no completion, for who may read the run.
fn no_completion(app: &App, record: &Record) -> ApiError {
    let (id, url) = (&record.id, app.run_url(&record.id));
    let message = match (record.status, &record.reason) {
        (Status::Failed, Some(reason)) => {
            format!("the run {id} failed (`{reason}`), so there is no completion; GET {url} says more")
        }
        (Status::Failed, None) => {
            format!("the run {id} failed, so there is no completion; GET {url} says more")
        }
        _ => {
            format!("the run {id} has not ended, so there is no completion yet; GET {url} says how it stands")
        }
    };
    let body = ErrorBody::new(ErrorKind::InvalidRequest, Some("no_completion"), message)
        .with("status", record.status.as_str().into())
        .with("reason", json!(record.reason))
        .with("url", url.into());
    ApiError::from_body(StatusCode::NOT_FOUND, body).of_run(id, Some(&app.runs().url(id)))
}

/// Whether a completion came of it: OpenAI's lists have no others.
fn is_completion(record: &Record) -> bool {
    matches!(record.status, Status::Completed | Status::Incomplete | Status::Cancelled)
}

/// The answer with a run's completion.
async fn given(app: &App, record: &Record) -> Result<Response, ApiError> {
    let memory = ReadingMemory::new(app, COPIES);
    let completion = completion(app, record, &memory).await?.ok_or_else(|| no_completion(app, record))?;
    Ok(memory.json(completion))
}

/// The run as a chat completion; `None` for one that has none, yet or at all.
async fn completion(app: &App, record: &Record, memory: &ReadingMemory) -> Result<Option<Value>, ApiError> {
    let Some(mut answer) = begun_completion(app, record) else { return Ok(None) };
    let mut events = app.runs().events(record).await?;
    while let Some(event) = events.next().await? {
        memory.take(&event).await?;
        answer.add(RunEvent::clone(&event));
    }
    Ok(ended_completion(record, answer))
}

/// The completion of a run before its first event; `None` for one that has none, yet or at all. `memory` counts what is
/// made of it, too, so that this one needs no part of the budget.
pub(super) fn begun_completion(app: &App, record: &Record) -> Option<Answer> {
    let created = record.created_at.div_euclid(1000);
    let uncounted = app.memory_budget.uncounted();
    is_completion(record)
        .then(|| Answer::new(record.id.clone(), record.model.clone(), created, record.output, uncounted))
}

/// The completion of a run after its last event.
pub(super) fn ended_completion(record: &Record, answer: Answer) -> Option<Value> {
    let Ok((Value::Object(mut completion), _)) = answer.finish() else { return None };
    if !record.is_callers {
        return Some(Value::Object(completion));
    }
    // What OpenAI tells of a stored completion, too.
    completion.insert("metadata".into(), Value::Object(record.metadata.clone()));
    let asked = |key: &str| record.request.get(key).cloned().unwrap_or(Value::Null);
    for key in [
        "temperature",
        "top_p",
        "presence_penalty",
        "frequency_penalty",
        "seed",
        "tools",
        "tool_choice",
        "response_format",
    ] {
        completion.insert(key.into(), asked(key));
    }
    completion.insert("input_user".into(), asked("user"));
    completion.insert("request_id".into(), record.id.as_str().into());
    Some(Value::Object(completion))
}
