//! `GET /{id}`: a page for people, data for programs.

use std::sync::Arc;

use axum::extract::{FromRef, Path, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;

use crate::api::Form;
use crate::{api, web};

/// What the routes of `api` have, and the page of a run besides.
#[derive(Clone)]
pub(super) struct Shared {
    pub app: Arc<api::App>,
    pub site: Arc<web::Site>,
}

impl FromRef<Shared> for Arc<api::App> {
    fn from_ref(shared: &Shared) -> Self {
        Arc::clone(&shared.app)
    }
}

/// The result of a run, in the form that is asked for.
pub(super) async fn show(State(shared): State<Shared>, path: Path<String>, head: Parts) -> Response {
    let (id, form) = Form::of(&path, &head.uri, &head.headers);
    // Addresses that cannot be a run's are for programs, which get theirs wrong more often.
    if form == Form::Page && id.starts_with("run_") {
        return web::run_page(&shared.site, id, &head).await;
    }
    api::show_result(State(shared.app), path, head).await.into_response()
}
