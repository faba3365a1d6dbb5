//! `/v1/runs/{id}`: how a run stands, its events, its end.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header};
use serde_json::{Map, Value, json};

use super::{ApiError, App, body, keep};
use crate::bounds::BoundGuard;
use crate::completion::event::RunEvent;
use crate::completion::{Changed, LogViewer, Reader, Record, Status, Visibility};
use crate::openai::{ErrorKind, InvalidField};
use crate::{sse, store};

/// Most bytes of events that are sent as one piece.
const PIECE_BYTES: usize = 64 << 10;

/// `GET /v1/runs/{id}`.
///
/// # Errors
/// 401, 404, 429, 503.
pub async fn find(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    head: Parts,
) -> Result<Response, ApiError> {
    let (record, _) = read(&app, &id, &head).await?;
    let view = view(&app, &record).await?;
    Ok(json_response(StatusCode::OK, &view))
}

/// `POST /v1/runs/{id}`: changes `visibility` and `metadata`.
///
/// # Errors
/// 400, 401, 403, 404, 429, 503.
pub async fn change(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let reader = app.reader(&head).await?;
    let fields =
        body::read_request(&app, None, body, &head.headers, app.settings.limits.body_bytes.min(1 << 20))
            .await?;
    if let Some((unknown, _)) = fields.fields().find(|(key, _)| !matches!(*key, "visibility" | "metadata")) {
        let message = format!("`{unknown}` cannot be changed; `visibility` and `metadata` can");
        return Err(InvalidField::new(unknown, message).into());
    }
    let visibility = match fields.get::<String>("visibility", "a text")? {
        Some(word) => Some(Visibility::parse(&word).ok_or_else(|| {
            InvalidField::new("visibility", "`visibility` must be `private`, `unlisted` or `public`")
        })?),
        None => None,
    };
    let metadata = fields.get::<Map<String, Value>>("metadata", "an object")?;
    if let Some(metadata) = &metadata {
        keep::check_metadata(metadata)?;
    }
    let changed = app.runs().change(&id, &reader, metadata.as_ref(), visibility).await?;
    let record = done(changed)?;
    let view = view(&app, &record).await?;
    Ok(json_response(StatusCode::OK, &view))
}

/// `POST /v1/runs/{id}/cancel`.
///
/// # Errors
/// 401, 403, 404, 429, 503.
pub async fn cancel(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    head: Parts,
) -> Result<Response, ApiError> {
    let reader = app.reader(&head).await?;
    let record = done(app.runs().cancel(&id, &reader).await?)?;
    let view = view(&app, &record).await?;
    Ok(json_response(StatusCode::OK, &view))
}

/// `POST /v1/runs/{id}/resume`: continues a run that was interrupted, under a new id.
///
/// # Errors
/// 401, 403, 404, 409, 429, 503.
pub async fn resume(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    head: Parts,
) -> Result<Response, ApiError> {
    let reader = app.reader(&head).await?;
    let record = done(app.runs().resume_interrupted(&id, &reader).await?)?;
    let view = view(&app, &record).await?;
    let mut response = json_response(StatusCode::ACCEPTED, &view);
    if let Ok(location) = HeaderValue::try_from(app.run_url(&record.id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// `DELETE /v1/runs/{id}`.
///
/// # Errors
/// 401, 403, 404, 409, 429, 503.
pub async fn delete(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    head: Parts,
) -> Result<Response, ApiError> {
    let reader = app.reader(&head).await?;
    let record = done(app.runs().delete(&id, &reader).await?)?;
    let deleted = json!({ "id": record.id, "object": "run.deleted", "deleted": true });
    Ok(json_response(StatusCode::OK, &deleted))
}

/// `GET /v1/runs/{id}/events`: from the start, or behind `Last-Event-ID`, to the end.
///
/// # Errors
/// 401, 404, 429, 503.
pub async fn events(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    head: Parts,
) -> Result<Response, ApiError> {
    let (record, reader) = read(&app, &id, &head).await?;
    follow(&app, &record, &reader, &head).await
}

/// The run of this id, and who reads it.
///
/// # Errors
/// 401, 404, 429, 503.
pub(super) async fn read(app: &App, id: &str, head: &Parts) -> Result<(Record, Reader), ApiError> {
    let reader = app.reader(head).await?;
    let record = app.runs().find(id, &reader).await?.ok_or_else(not_found)?;
    Ok((record, reader))
}

/// The events of a run as a stream.
///
/// # Errors
/// 429, 503.
pub(super) async fn follow(
    app: &App,
    record: &Record,
    reader: &Reader,
    head: &Parts,
) -> Result<Response, ApiError> {
    let open = app.open_answer_to_reader(reader, head)?;
    let viewer = app.runs().follow(record, first_wanted(&head.headers, &head.uri)).await?;
    if viewer.is_at_end() {
        // An event source that has seen the end asks again until it is told that there is nothing (HTML, "server-sent
        // events").
        let mut nothing = Response::new(Body::empty());
        *nothing.status_mut() = StatusCode::NO_CONTENT;
        return Ok(nothing);
    }
    let keep_alive = Duration::from_secs(app.settings.run.keep_alive_seconds.max(1));
    let stopping = app.engine.stopping();
    let state = Box::new(Following { viewer, keep_alive, stopping, _open: open });
    let mut response = Response::new(Body::from_stream(stream::unfold(state, next)));
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

/// The number of the first event that the client has not seen.
fn first_wanted(headers: &HeaderMap, uri: &Uri) -> usize {
    let header = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let query = uri.query().unwrap_or_default();
    let given = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "last_event_id");
    let given = header.map(str::to_owned).or(given.map(|(_, value)| value.into_owned()));
    // What is no number has seen nothing.
    given.and_then(|text| text.trim().parse::<usize>().ok()).map_or(0, |last| last.saturating_add(1))
}

struct Following {
    viewer: LogViewer,
    keep_alive: Duration,
    stopping: tokio::sync::watch::Receiver<bool>,
    _open: BoundGuard,
}

async fn next(mut state: Box<Following>) -> Option<(Result<Bytes, Infallible>, Box<Following>)> {
    let mut out = Vec::new();
    let found = tokio::select! {
        found = tokio::time::timeout(state.keep_alive, state.viewer.next()) => found,
        // Who follows comes back, here or at another instance, and goes on where it was.
        _ = state.stopping.wait_for(|stopping| *stopping) => return None,
    };
    match found {
        Err(_) => sse::comment(&mut out, "keep-alive"),
        Ok(None) => return None,
        Ok(Some((number, event))) => {
            write(&mut out, number, &event);
            while out.len() < PIECE_BYTES
                && let Some((number, event)) = state.viewer.ready()
            {
                write(&mut out, number, &event);
            }
        }
    }
    Some((Ok(out.into()), state))
}

fn write(out: &mut Vec<u8>, number: usize, event: &RunEvent) {
    let (name, data) = event.view();
    out.extend_from_slice(format!("id: {number}\nevent: {name}\n").as_bytes());
    sse::data(out, data.to_string().as_bytes());
}

/// What became of a wish to change a run.
pub(super) fn done(changed: Changed) -> Result<Record, ApiError> {
    match changed {
        Changed::Done(record) => Ok(*record),
        Changed::Unknown => Err(not_found()),
        Changed::NotYours => {
            let message = "the run is somebody else's; only its owner may change it";
            Err(ApiError::new(StatusCode::FORBIDDEN, ErrorKind::Permission, Some("not_yours"), message))
        }
        Changed::Stale => {
            let message = "the run has changed meanwhile; read it again";
            Err(ApiError::new(StatusCode::CONFLICT, ErrorKind::InvalidRequest, Some("stale"), message))
        }
        Changed::NotInterrupted => {
            let message =
                "only a run that ended as `interrupted` can be resumed; send the request again instead";
            Err(ApiError::new(
                StatusCode::CONFLICT,
                ErrorKind::InvalidRequest,
                Some("not_interrupted"),
                message,
            ))
        }
        Changed::StillRunning => {
            let message = "the run has not ended yet; try again in a moment";
            Err(ApiError::new(
                StatusCode::CONFLICT,
                ErrorKind::InvalidRequest,
                Some("still_running"),
                message,
            ))
        }
    }
}

/// One answer for what is not there and for what is not for the reader.
pub(super) fn not_found() -> ApiError {
    let message = "there is no such run, or you may not see it; it may have been deleted";
    ApiError::new(StatusCode::NOT_FOUND, ErrorKind::InvalidRequest, Some("run_not_found"), message)
}

/// A run as JSON, without its events.
pub(super) async fn view(app: &App, record: &Record) -> Result<Value, ApiError> {
    let mut view = summary(app, record);
    if let Some(mut outcome) = EventOutcome::of(record) {
        let mut events = app.runs().events(record).await?;
        while let Some(event) = events.next().await? {
            outcome.note(&event);
        }
        outcome.add_to(&mut view);
    }
    Ok(view)
}

/// Why a run waits, or did not succeed: what only its events tell.
pub(super) struct EventOutcome {
    fields: Map<String, Value>,
    waited_for: Vec<Value>,
}

impl EventOutcome {
    /// `None` for a run whose record says everything.
    pub fn of(record: &Record) -> Option<Self> {
        let is_open = matches!(record.status, Status::RequiresAction | Status::Failed | Status::Incomplete);
        is_open.then(|| EventOutcome { fields: Map::new(), waited_for: Vec::new() })
    }

    /// Takes in the next event.
    pub fn note(&mut self, event: &RunEvent) {
        match event {
            RunEvent::AuthorizationRequired(login) => self.waited_for.push(json!(**login)),
            RunEvent::AuthorizationBatch(batch) => {
                self.fields.insert("connect_all_url".into(), json!(batch.connect_all_url));
            }
            RunEvent::Authorized { resource, .. } => {
                self.waited_for.retain(|login| login["resource"] != **resource);
            }
            RunEvent::Error(error) => drop(self.fields.insert("error".into(), error.error.clone())),
            _ => {}
        }
    }

    /// Adds what they told to the run's JSON.
    pub fn add_to(self, view: &mut Value) {
        if let Value::Object(view) = view {
            view.extend(self.fields);
            view.insert("authorization_required".into(), self.waited_for.into());
        }
    }
}

/// A run as JSON, from what the record alone says.
pub(super) fn summary(app: &App, record: &Record) -> Value {
    let url = app.runs().url(&record.id);
    let seconds = |at: i64| at.div_euclid(1000);
    json!({
        "id": record.id,
        "object": if record.kind == "task" { "task" } else { "run" },
        "kind": record.kind,
        "status": record.status.as_str(),
        "reason": record.reason,
        "model": record.model,
        "user": Some(&record.user).filter(|user| record.is_callers && !user.is_empty()),
        "created_at": seconds(record.created_at),
        "ended_at": record.ended_at.map(seconds),
        "expires_at": record.expires_at.map(seconds),
        "visibility": record.visibility.as_str(),
        "used_logins": record.used_logins,
        "store": record.stored,
        "metadata": if record.is_callers { Value::Object(record.metadata.clone()) } else { json!({}) },
        "turns": record.turns,
        "tool_calls": record.tool_calls,
        "usage": {
            "prompt_tokens": record.prompt_tokens,
            "completion_tokens": record.completion_tokens,
            "total_tokens": record.prompt_tokens + record.completion_tokens,
        },
        "url": url,
        "markdown_url": format!("{url}.md"),
        "json_url": format!("{url}.json"),
        "events_url": app.events_url(&record.id),
    })
}

/// A JSON answer that nobody keeps and no browser takes for something else.
pub(super) fn json_response(status: StatusCode, value: &Value) -> Response {
    json_body(status, Body::from(value.to_string()))
}

/// As [`json_response`], of a body that is JSON.
pub(super) fn json_body(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    for (name, value) in [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

impl From<store::Error> for ApiError {
    fn from(error: store::Error) -> Self {
        tracing::error!(%error, "runs cannot be read or written");
        crate::completion::unwritable().into()
    }
}
