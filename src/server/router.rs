//! The whole HTTP surface.

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRef, Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use http::{Method, Uri};

use crate::completion::is_run_id;
use crate::{api, web};

/// Every route there is, with those of the demo.
pub fn router(app: Arc<api::App>, demo: Option<Router>, site: Arc<web::Site>) -> Router {
    let router = Router::new()
        // chat completions
        .route("/v1/chat/completions", post(api::create_chat_completion))
        .route("/chat/completions", post(api::create_chat_completion))
        // models
        .route("/v1/models", get(api::list_models))
        .route("/v1/models/{*model}", get(api::find_model))
        // other endpoints of the provider that has the model
        .route("/v1/embeddings", post(api::relay_by_model))
        .route("/v1/completions", post(api::relay_by_model))
        .route("/v1/moderations", post(api::relay_by_model))
        .route("/v1/images/generations", post(api::relay_by_model))
        .route("/v1/audio/speech", post(api::relay_by_model))
        // logins of users
        .route("/v1/connections", get(api::list_connections).post(api::create_connection))
        .route("/v1/connections/check", post(api::check_connections))
        .route("/v1/connections/tokens", post(api::give_out_tokens))
        .route("/v1/connections/{id}", delete(api::delete_connection))
        .route("/v1/connections/{id}/reauthorize", post(api::reauthorize_connection))
        .route("/v1/flows/confirm", post(api::confirm_flow))
        .route("/v1/webhooks/secret", get(api::show_webhook_secret))
        // operating
        .route("/healthz", get(api::healthz))
        .route("/readyz", get(api::readyz))
        .route("/metrics", get(api::metrics));
    // a run's page
    let router = router.route("/{id}", get(result));
    // any provider by its address: /{provider-host}/{path}
    let router =
        router.method_not_allowed_fallback(api::method_not_allowed).fallback(api::any_host).with_state(Shared { app, site: Arc::clone(&site) });
    // pages: /, /runs, /connect, /oauth, /login, /account, /connections, /static
    let router = router.merge(web::router(site));
    // in local mode: /demo and its /.well-known
    match demo {
        Some(demo) => router.merge(demo),
        None => router,
    }
}

/// What the routes of `api` and the page of a run share.
#[derive(Clone)]
struct Shared {
    app: Arc<api::App>,
    site: Arc<web::Site>,
}

impl FromRef<Shared> for Arc<api::App> {
    fn from_ref(shared: &Shared) -> Self {
        Arc::clone(&shared.app)
    }
}

/// A run's page; what is no run's id belongs to the last route.
async fn result(State(shared): State<Shared>, Path(id): Path<String>, request: Request) -> Response {
    if is_run_id(&id) {
        return web::run_page(&shared.site, &id, request.uri(), request.headers()).await;
    }
    api::any_host(State(shared.app), request).await.into_response()
}

/// Whether a request is for the first two routes above, which are not worth a search.
pub fn is_chat_completion(method: &Method, uri: &Uri) -> bool {
    method == Method::POST && matches!(uri.path(), "/v1/chat/completions" | "/chat/completions")
}
