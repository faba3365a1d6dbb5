//! `GET /v1/models`: what the caller may name as `model`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::{ApiError, App};
use crate::identity::Surface;
use crate::openai::{ErrorBody, ErrorKind};

/// `GET /v1/models`: aliases, and `provider/model` for every provider that the caller can use.
///
/// # Errors
/// 401, 429.
pub async fn list(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, ApiError> {
    let models = all(&app, &headers).await?;
    Ok(json_response(&json!({ "object": "list", "data": models })))
}

/// `GET /v1/models/{model}`.
///
/// # Errors
/// 401, 404, 429.
pub async fn find(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let models = all(&app, &headers).await?;
    let bare = |known: &Value| {
        known["id"].as_str().and_then(|known| known.split_once('/')).map(|(_, rest)| rest.to_owned())
    };
    let found = models
        .iter()
        .find(|model| model["id"] == id.as_str())
        .or_else(|| models.iter().find(|model| bare(model).as_deref() == Some(&id)));
    match found {
        Some(model) => Ok(json_response(model)),
        None => {
            let body = ErrorBody::new(
                ErrorKind::InvalidRequest,
                Some("model_not_found"),
                format!("the model `{id}` does not exist here"),
            );
            Err(ApiError::from_body(StatusCode::NOT_FOUND, body.param("model")))
        }
    }
}

async fn all(app: &App, headers: &HeaderMap) -> Result<Vec<Value>, ApiError> {
    let caller = app.admit(headers, Surface::V1).await?;
    let listed = app.providers.list(app.upstream(), app.provider_key(&caller)).await;
    let entry =
        |id: &str, owner: &str| json!({ "id": id, "object": "model", "created": 0, "owned_by": owner });
    let aliases = app.providers.aliases().map(|(alias, _)| entry(alias, "alias"));
    Ok(aliases
        .chain(listed.iter().map(|(provider, model)| entry(&format!("{provider}/{model}"), provider)))
        .collect())
}

fn json_response(value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
