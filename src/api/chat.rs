//! `POST /v1/chat/completions`: relayed as bytes, or run as a loop with tools.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, Request};

use super::relay::no_page;
use super::{ApiError, App, body, view};
use crate::completion::{Incoming, Options, Users, Who, relay};
use crate::connections::Application;
use crate::identity::{Caller, CallerKind, Surface};
use crate::openai::{ChatRequest, InvalidField};
use crate::upstream::{Target, forward_request_headers};

/// `POST /v1/chat/completions`.
///
/// # Errors
/// 400, 401, 403, 404, 413, 424, 429, and the provider's own statuses.
pub async fn create(State(app): State<Arc<App>>, request: Request<Body>) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    no_page(&head.headers)?;
    let caller = app.admit(&head.headers, Surface::V1).await?;
    let caller = caller.from_peer(head.extensions.get(), &head.headers);
    let request = body::read_request(body, &head.headers, app.settings.limits.body_bytes).await?;
    let model = request.get::<String>("model", "the name of a model")?.filter(|model| !model.is_empty());
    let model = model.ok_or_else(|| {
        InvalidField::new("model", "`model` is missing: name one that GET /v1/models lists")
    })?;
    let target = app.providers.select(app.upstream(), &model, app.provider_key(&caller)).await?;
    complete(&app, &caller, request, head.headers, target, "/chat/completions").await
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
    if !app.engine.is_needed(&request, &headers, &options, || who(caller))? {
        let body =
            if target.model.is_empty() { request.body().clone() } else { request.with_model(&target.model) };
        let response = relay::post(app.upstream(), &target, path, &headers, body).await?;
        return Ok(view::relayed(response));
    }
    // Boxed, because it is large and a relayed request should not carry room for it.
    Box::pin(run(app, caller, request, headers, target, path, options)).await
}

async fn run(
    app: &App,
    caller: &Caller,
    request: ChatRequest,
    headers: HeaderMap,
    target: Target,
    path: &str,
    options: Options,
) -> Result<Response, ApiError> {
    let mut target = target;
    if target.model.is_empty() {
        target.model = request.get::<String>("model", "the name of a model")?.unwrap_or_default();
    }
    let mut forwarded = forward_request_headers(&headers);
    // The answers are read here, so they must not come compressed.
    for name in [
        http::header::ACCEPT_ENCODING,
        http::header::ACCEPT,
        http::header::IF_NONE_MATCH,
        http::header::RANGE,
    ] {
        forwarded.remove(name);
    }
    let incoming =
        Incoming { request, headers, forwarded, target, path: path.to_owned(), options, who: who(caller) };
    let started = app.engine.start(incoming).await?;
    if started.streamed {
        view::stream(started, app.settings.run.keep_alive_seconds).await
    } else {
        view::whole(started).await
    }
}

/// The user on whose behalf a caller of local mode asks when it names nobody.
const LOCAL_USER: &str = "local";

/// For whom the caller may ask.
pub(super) fn who(caller: &Caller) -> Who {
    let (users, application) = match &caller.kind {
        CallerKind::Local => (
            Users::AnyOr(LOCAL_USER.into()),
            Application { name: "an application on this computer".into(), verified: true, place: None },
        ),
        CallerKind::Project { name, .. } => {
            (Users::Any, Application { name: Arc::clone(name), verified: true, place: None })
        }
        CallerKind::PassThrough => {
            let name = match caller.key_ending.as_str() {
                "" => "an unverified application".to_owned(),
                ending => format!("an unverified application with a key ending {ending}"),
            };
            (Users::Any, Application { name: name.into(), verified: false, place: caller.place })
        }
        CallerKind::Person { account } => {
            let name = "the gateway's own pages".into();
            let application = Application { name, verified: true, place: None };
            (Users::Only(Arc::clone(account)), application)
        }
    };
    Who { namespace: Arc::clone(&caller.namespace), users, application }
}
