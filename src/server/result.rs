//! `GET /{id}`: a page for people, data for programs.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;

use crate::api;

/// The result of a run, in the form that is asked for.
pub(super) async fn show(State(app): State<Arc<api::App>>, path: Path<String>, head: Parts) -> Response {
    api::show_result(State(app), path, head).await.into_response()
}
