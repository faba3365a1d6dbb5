//! Endpoints other than chat completions, relayed to the provider whose model the body names.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, Request, StatusCode};

use super::{ApiError, App, body, view};
use crate::completion::relay;
use crate::identity::Surface;
use crate::openai::{ErrorKind, InvalidField};

/// `POST /v1/embeddings`, `/v1/completions`, `/v1/moderations`, `/v1/images/generations`, `/v1/audio/speech`.
///
/// # Errors
/// 400, 401, 403, 404, 413, 429, and the provider's own statuses.
pub async fn by_model(State(app): State<Arc<App>>, request: Request<Body>) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    no_page(&head.headers)?;
    let caller = app.admit(&head.headers, Surface::V1).await?;
    let caller = caller.from_peer(head.extensions.get(), &head.headers);
    let request =
        body::read_request(&app, Some(&caller), body, &head.headers, app.settings.limits.body_bytes).await?;
    let model = request.get::<String>("model", "the name of a model")?;
    let model = model.ok_or_else(|| {
        InvalidField::new("model", "`model` is missing: name one that GET /v1/models lists")
    })?;
    let target = app.providers.select(app.upstream(), &model, app.provider_key(&caller)).await?;
    let path = head.uri.path().strip_prefix("/v1").unwrap_or(head.uri.path());
    let body = request.with_model(&target.model);
    let open = app.open_answer(&caller, Some(&request), &head.headers)?;
    let response = relay::post(app.upstream(), &target, path, &head.headers, body).await?;
    Ok(view::relayed(response, app.relay_terms(open, path)))
}

/// Refuses a browser that would show or run what a provider answers: as a page, a frame, a script, a picture. It would
/// do so on this gateway's own origin, where our pages and forms are. What a program asks for is `empty` (Fetch Metadata
/// §2.1); clients that are no browsers do not say.
///
/// # Errors
/// 403.
pub(super) fn no_page(headers: &HeaderMap) -> Result<(), ApiError> {
    if headers.get_all("sec-fetch-dest").iter().all(|wanted| wanted == "empty") {
        return Ok(());
    }
    let message = "what providers answer is for programs and is not shown by browsers here; \
                   send the request from a program, or with `fetch` from a page";
    Err(ApiError::new(StatusCode::FORBIDDEN, ErrorKind::Permission, Some("not_a_page"), message))
}
