//! `POST /v1/chat/completions`: relayed as bytes, or run as a loop with tools.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, Request};

use super::relay::no_page;
use super::relay_body::RelayTerms;
use super::{ApiError, App, body, keep, view};
use crate::completion::{Incoming, Keep, Options, Started, Who, relay};
use crate::identity::{Caller, Surface};
use crate::openai::{ChatRequest, InvalidField};
use crate::upstream::{Target, forward_request_headers};

/// `POST /v1/chat/completions`.
///
/// # Errors
/// 400, 401, 403, 404, 413, 424, 429, and the provider's own statuses.
pub async fn create(State(app): State<Arc<App>>, request: Request<Body>) -> Result<Response, ApiError> {
    let (caller, headers, request) = read(&app, request).await?;
    let target = select(&app, &caller, &request).await?;
    complete(&app, &caller, request, headers, target, "/chat/completions").await
}

/// Completes `request` at `target`, whose endpoint is `path`.
///
/// # Errors
/// As [`create`].
pub(super) async fn complete(
    app: &App,
    caller: &Caller,
    request: ChatRequest,
    headers: HeaderMap,
    target: Target,
    path: &str,
) -> Result<Response, ApiError> {
    let options = Options::read(&request, &headers, &app.settings.run)?;
    if request.raw("messages").is_none() {
        return Err(InvalidField::new("messages", "`messages` is missing").into());
    }
    let is_stored = keep::is_stored(&request)?;
    if !is_stored && !app.engine.is_needed(&request, &headers, &options, || Who::of(caller))? {
        let fitting = request.with_fields(|field| target.provider.quirks.sent_as(field));
        let sent = fitting.as_ref().unwrap_or(&request);
        let body = if target.model.is_empty() { sent.body().clone() } else { sent.with_model(&target.model) };
        let open = app.open_answer(caller, Some(&request), &headers)?;
        let response = relay::post(app.upstream(), &target, path, &headers, body).await?;
        let has_one_choice = request.raw("n").is_none_or(|n| matches!(n.trim(), "1" | "null"));
        let terms = RelayTerms { ends_with_finish: has_one_choice, ..app.relay_terms(open, path) };
        return Ok(view::relayed(response, terms));
    }
    // Boxed, because it is large and a relayed request should not carry room for it.
    Box::pin(run(app, caller, Asked { request, headers, target, path, options })).await
}

/// A request for a completion, and where it goes.
pub(super) struct Asked<'a> {
    pub request: ChatRequest,
    pub headers: HeaderMap,
    pub target: Target,
    pub path: &'a str,
    pub options: Options,
}

async fn run(app: &App, caller: &Caller, asked: Asked<'_>) -> Result<Response, ApiError> {
    let open = app.open_answer(caller, Some(&asked.request), &asked.headers)?;
    let started = start(app, caller, asked).await?;
    if started.streamed {
        view::stream(started, app.settings.run.keep_alive_seconds, open).await
    } else {
        view::whole(started, app.memory_budget.reserve()).await
    }
}

/// Starts the run of a request.
///
/// # Errors
/// 400, 401, 403, 424, 503.
pub(super) async fn start(app: &App, caller: &Caller, asked: Asked<'_>) -> Result<Started, ApiError> {
    let keep = keep::of_completion(app, caller, &asked).await?;
    let incoming = incoming(caller, asked, keep)?;
    Ok(app.engine.start(incoming).await?)
}

/// The request as the engine takes it.
pub(super) fn incoming(caller: &Caller, asked: Asked<'_>, keep: Option<Keep>) -> Result<Incoming, ApiError> {
    let Asked { request, headers, mut target, path, options } = asked;
    if target.model.is_empty() {
        target.model = request.get::<String>("model", "the name of a model")?.unwrap_or_default();
    }
    let repeat = keep::repeat_key(caller, &headers, &request, &target, path)?;
    let mut forwarded = forward_request_headers(&headers);
    // The answers are read here, so they must not come compressed.
    for name in [
        http::header::ACCEPT_ENCODING,
        http::header::ACCEPT,
        http::header::IF_NONE_MATCH,
        http::header::RANGE,
        // The requests of a run are several, and none is another one's repetition.
        http::HeaderName::from_static("idempotency-key"),
    ] {
        forwarded.remove(name);
    }
    let (path, who) = (path.to_owned(), Who::of(caller));
    Ok(Incoming { repeat, request, headers, forwarded, target, path, options, who, keep })
}

/// Who sends a request, what it asks, and the target that its `model` means.
///
/// # Errors
/// 400, 401, 403, 404, 413, 429.
pub(super) async fn read(
    app: &App,
    request: Request<Body>,
) -> Result<(Caller, HeaderMap, ChatRequest), ApiError> {
    let (head, body) = request.into_parts();
    no_page(&head.headers)?;
    let caller = app.admit(&head.headers, Surface::V1).await?;
    let caller = caller.from_peer(head.extensions.get(), &head.headers);
    let request =
        body::read_request(app, Some(&caller), body, &head.headers, app.settings.limits.body_bytes).await?;
    Ok((caller, head.headers, request))
}

/// The target that the request's `model` means.
///
/// # Errors
/// 400, 401, 404.
pub(super) async fn select(app: &App, caller: &Caller, request: &ChatRequest) -> Result<Target, ApiError> {
    let model = request.get::<String>("model", "the name of a model")?.filter(|model| !model.is_empty());
    let model = model.ok_or_else(|| {
        InvalidField::new("model", "`model` is missing: name one that GET /v1/models lists")
    })?;
    Ok(app.providers.select(app.upstream(), &model, app.provider_key(caller)).await?)
}
