//! `/{provider-host}/…`: any provider by its address, with the caller's own key for it.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};

use super::relay::no_page;
use super::runs::not_found;
use super::{ApiError, App, body, chat, view};
use crate::completion::{is_run_id, relay};
use crate::config::AnyHostMode;
use crate::egress;
use crate::identity::{Caller, Surface};
use crate::openai::ErrorKind;
use crate::upstream::{KeptTarget, Target};

/// Everything that no route of ours matches: chat completions of a host get the gateway's features, its other
/// endpoints are relayed.
///
/// # Errors
/// 403 for hosts that policy refuses and for browsers that want to show the answer, 404 for paths that name no host, and those of chat completions.
pub async fn any_host(State(app): State<Arc<App>>, request: Request<Body>) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    if let Some(path) = head.uri.path().strip_prefix("/run_") {
        return at_run(&head.method, path);
    }
    let (host, path) = split(&head.uri).ok_or_else(|| nothing_at(&head.uri))?;
    no_page(&head.headers)?;
    let caller = app.admit(&head.headers, Surface::ProviderHost).await?;
    let caller = caller.from_peer(head.extensions.get(), &head.headers);
    allow(&app, host)?;
    let key = caller.forward_key.as_ref();
    let query = head.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    if let Some(base) = path.strip_suffix("/chat/completions").filter(|_| head.method == Method::POST) {
        let target = app.providers.by_host(host, base, key)?;
        check(&app, &target.provider.base)?;
        let request =
            body::read_request(&app, Some(&caller), body, &head.headers, app.settings.limits.body_bytes)
                .await?;
        let path = format!("/chat/completions{query}");
        return chat::complete(&app, &caller, request, head.headers, target, &path).await;
    }
    let target = app.providers.by_host(host, "", key)?;
    check(&app, &target.provider.base)?;
    let body = body::read(&app, Some(&caller), body, &head.headers, app.settings.limits.body_bytes).await?;
    let path = format!("{path}{query}");
    let open = app.open_answer(&caller, None, &head.headers)?;
    let response =
        relay::forward(app.upstream(), &target, head.method, &path, &head.headers, egress::full(body))
            .await?;
    Ok(view::relayed(response, app.relay_terms(open, &path)))
}

/// Below an address that only runs have, whatever stands in it: no host is asked. `path` begins behind `/run_`.
fn at_run(method: &Method, path: &str) -> Result<Response, ApiError> {
    let (allowed, message) = match path.split_once('/') {
        None => {
            let id = path.split('.').next().filter(|id| is_run_id(&format!("run_{id}")));
            let url = id.map_or("/v1/runs/{id}".to_owned(), |id| format!("/v1/runs/run_{id}"));
            ("GET, HEAD", format!("`{method}` is not possible here; a run is changed and deleted at {url}"))
        }
        Some((id, "chat/completions")) if is_run_id(&format!("run_{id}")) => {
            ("POST", format!("`{method}` is not possible here; POST a chat completion"))
        }
        Some(_) => return Err(not_found()),
    };
    let mut response = not_allowed(message).into_response();
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    Ok(response)
}

/// The target of who asked a run at a provider's address, and goes on there: with their own key, as for any request to
/// that host.
///
/// # Errors
/// 400, and 403 for hosts that policy refuses by now.
pub(super) fn at_address(app: &App, caller: &Caller, kept: &KeptTarget) -> Result<Target, ApiError> {
    let target = app.providers.find_named(kept, caller.forward_key.as_ref()).ok_or_else(not_found)?;
    allow(app, &target.provider.name)?;
    check(app, &target.provider.base)?;
    Ok(target)
}

/// Host and path of `/{host}/{path}`; `None` when the first part cannot be a host.
pub fn split(uri: &Uri) -> Option<(&str, &str)> {
    let rest = uri.path().strip_prefix('/')?;
    let (host, _) = rest.split_once('/')?;
    let like_a_host = host.contains('.') || host.contains(':') || host == "localhost";
    like_a_host.then(|| (host, &rest[host.len()..]))
}

fn allow(app: &App, host: &str) -> Result<(), ApiError> {
    let settings = &app.settings.any_host;
    let listed = || {
        app.providers.knows_host(host) || settings.hosts.iter().any(|known| known.eq_ignore_ascii_case(host))
    };
    let hint = match settings.mode {
        AnyHostMode::Public => return Ok(()),
        AnyHostMode::Listed if listed() => return Ok(()),
        AnyHostMode::Listed => "it is not in `any_host.hosts`",
        AnyHostMode::Off => "calling providers by their address is turned off (`any_host.mode`)",
    };
    Err(forbidden(format!("`{}` cannot be called: {hint}", host.escape_default())))
}

fn check(app: &App, base: &Uri) -> Result<(), ApiError> {
    app.engine.check_address(base).map_err(|refusal| forbidden(refusal.to_string()))
}

fn forbidden(message: String) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, ErrorKind::Permission, Some("host_not_allowed"), message)
}

/// The path exists, but not for this method.
pub async fn method_not_allowed(method: Method) -> ApiError {
    not_allowed(format!("`{method}` is not possible here"))
}

fn not_allowed(message: String) -> ApiError {
    let code = Some("method_not_allowed");
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, ErrorKind::InvalidRequest, code, message)
}

/// What is told of an address that leads nowhere.
pub(super) fn nothing_at(uri: &Uri) -> ApiError {
    let path: String = uri.path().chars().take(200).collect();
    let hint = if path.starts_with("/v1/responses") {
        "the Responses API is not available; use chat completions (in LangChain: `use_responses_api=False`)"
    } else {
        "the API is at /v1/chat/completions, and providers at /{provider-host}/…"
    };
    let message = format!("there is nothing at `{}`; {hint}", path.escape_default());
    ApiError::new(StatusCode::NOT_FOUND, ErrorKind::InvalidRequest, Some("not_found"), message)
}
