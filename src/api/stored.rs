//! OpenAI's stored chat completions, over stored runs.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::request::Parts;
use http::{Request, StatusCode};
use serde_json::{Map, Value, json};

use super::runs::{done, json_response, not_found, read};
use super::{ApiError, App, body, keep};
use crate::completion::{Answer, Record, Status};
use crate::identity::Surface;
use crate::openai::InvalidField;
use crate::store::RunFilter;

/// Most entries of one page.
const MOST: usize = 100;
/// Runs that are looked through for one page when `metadata` is asked for.
const MOST_LOOKED_AT: usize = 10_000;

/// `GET /v1/chat/completions`: `model`, `metadata[key]`, `limit`, `order`, `after`.
///
/// # Errors
/// 400, 401, 403, 429, 503.
pub async fn list(State(app): State<Arc<App>>, head: Parts) -> Result<Response, ApiError> {
    let caller = app.admit(&head.headers, Surface::V1).await?;
    let reader = super::app::reader_of(&caller);
    let query = Query::read(head.uri.query().unwrap_or_default(), "asc")?;
    let mut cursor = match &query.after {
        Some(id) => {
            let found = app.runs().find(id, &reader).await?.filter(|record| record.is_own && record.stored);
            let found = found
                .ok_or_else(|| InvalidField::new("after", "`after` is no stored completion of yours"))?;
            Some((found.created_at, found.id))
        }
        None => None,
    };
    let mut found: Vec<Record> = Vec::new();
    let mut looked_at = 0;
    loop {
        let filter = RunFilter {
            project: &caller.namespace,
            user: reader.only_user.as_deref(),
            model: query.model.as_deref(),
            stored_only: true,
            newest_first: query.newest_first,
            after: cursor.as_ref().map(|(at, id)| (*at, id.as_str())),
            limit: i64::try_from(MOST).unwrap_or(i64::MAX),
            ..RunFilter::default()
        };
        let page = app.runs().list(&filter, &reader).await?;
        let is_last = page.len() < MOST;
        looked_at += page.len();
        cursor = page.last().map(|record| (record.created_at, record.id.clone()));
        found.extend(page.into_iter().filter(|record| is_completion(record) && query.fits(record)));
        if is_last || found.len() > query.limit || looked_at >= MOST_LOOKED_AT {
            break;
        }
    }
    let has_more = found.len() > query.limit;
    found.truncate(query.limit);
    let mut data = Vec::with_capacity(found.len());
    for listed in &found {
        // How it is shown is said in its request, which lists do not have; deleted meanwhile, it is left out.
        if let Some(record) = app.runs().find(&listed.id, &reader).await? {
            data.extend(completion(&app, &record).await?);
        }
    }
    Ok(json_response(StatusCode::OK, &page(data, has_more)))
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
    let record = stored(&app, &id, &head).await?;
    let completion = completion(&app, &record).await?.ok_or_else(not_found)?;
    Ok(json_response(StatusCode::OK, &completion))
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
    let record = stored(&app, &id, &head).await?;
    let query = Query::read(head.uri.query().unwrap_or_default(), "asc")?;
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
    Ok(json_response(StatusCode::OK, &page(messages, has_more)))
}

/// `POST /v1/chat/completions/{id}`: replaces `metadata`.
///
/// # Errors
/// 400, 401, 403, 404, 429, 503.
pub async fn update(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let reader = app.reader(&head.headers, head.extensions.get()).await?;
    // Read in any case: a connection with the rest of a request on it cannot be used again.
    let fields = body::read_request(body, &head.headers, app.settings.limits.body_bytes).await?;
    let record = stored(&app, &id, &head).await?;
    let metadata = fields.get::<Map<String, Value>>("metadata", "an object")?;
    let metadata = metadata.ok_or_else(|| InvalidField::new("metadata", "`metadata` is missing"))?;
    keep::check_metadata(&metadata)?;
    let changed = done(app.runs().change(&record.id, &reader, Some(&metadata), None).await?)?;
    let completion = completion(&app, &changed).await?.ok_or_else(not_found)?;
    Ok(json_response(StatusCode::OK, &completion))
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
    let record = stored(&app, &id, &head).await?;
    let reader = app.reader(&head.headers, head.extensions.get()).await?;
    done(app.runs().delete(&record.id, &reader).await?)?;
    let deleted = json!({ "object": "chat.completion.deleted", "id": record.id, "deleted": true });
    Ok(json_response(StatusCode::OK, &deleted))
}

/// A stored run of the caller's own.
async fn stored(app: &App, id: &str, head: &Parts) -> Result<Record, ApiError> {
    app.admit(&head.headers, Surface::V1).await?;
    let (record, _) = read(app, id, head).await?;
    if record.is_own && record.stored { Ok(record) } else { Err(not_found()) }
}

/// Whether a completion came of it: OpenAI's lists have no others.
fn is_completion(record: &Record) -> bool {
    matches!(record.status, Status::Completed | Status::Incomplete | Status::Cancelled)
}

/// The run as a chat completion; `None` for one that has none, yet or at all.
pub(super) async fn completion(app: &App, record: &Record) -> Result<Option<Value>, ApiError> {
    if !is_completion(record) {
        return Ok(None);
    }
    let created = record.created_at.div_euclid(1000);
    let mut answer = Answer::new(record.id.clone(), record.model.clone(), created, record.output);
    for event in app.runs().events(record).await? {
        answer.add((*event).clone());
    }
    let Ok(Value::Object(mut completion)) = answer.finish() else { return Ok(None) };
    if !record.is_callers {
        return Ok(Some(Value::Object(completion)));
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
    Ok(Some(Value::Object(completion)))
}

fn page(data: Vec<Value>, has_more: bool) -> Value {
    let id = |entry: Option<&Value>| entry.map(|entry| entry["id"].clone());
    json!({
        "object": "list",
        "first_id": id(data.first()),
        "last_id": id(data.last()),
        "has_more": has_more,
        "data": data,
    })
}

/// What a list is asked for.
struct Query {
    after: Option<String>,
    limit: usize,
    newest_first: bool,
    model: Option<String>,
    metadata: Vec<(String, String)>,
}

impl Query {
    fn read(query: &str, order: &str) -> Result<Self, InvalidField> {
        let mut read = Query {
            after: None,
            limit: 20,
            newest_first: order == "desc",
            model: None,
            metadata: Vec::new(),
        };
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "after" => read.after = Some(value.into_owned()),
                "model" => read.model = Some(value.into_owned()),
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=MOST).contains(limit));
                    read.limit = limit.ok_or_else(|| {
                        InvalidField::new("limit", "`limit` must be a number from 1 to 100")
                    })?;
                }
                "order" => {
                    read.newest_first = match &*value {
                        "asc" => false,
                        "desc" => true,
                        _ => return Err(InvalidField::new("order", "`order` must be `asc` or `desc`")),
                    };
                }
                name => {
                    let key = name.strip_prefix("metadata[").and_then(|rest| rest.strip_suffix(']'));
                    read.metadata.extend(key.map(|key| (key.to_owned(), value.into_owned())));
                }
            }
        }
        Ok(read)
    }

    fn fits(&self, record: &Record) -> bool {
        self.metadata
            .iter()
            .all(|(key, value)| record.metadata.get(key).is_some_and(|there| there == value.as_str()))
    }
}
