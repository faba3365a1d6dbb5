//! The whole HTTP surface.

use std::sync::Arc;

use axum::Router;
use axum::routing::{any, delete, get, post};
use http::{Method, Uri};

use super::result;
use crate::{api, web};

/// Every route there is, with those of the demo.
pub fn router(app: Arc<api::App>, demo: Option<Router>, site: Arc<web::Site>) -> Router {
    let router = Router::new()
        // chat completions
        .route("/v1/chat/completions", post(api::create_chat_completion).get(api::list_stored_completions))
        .route("/chat/completions", post(api::create_chat_completion))
        .route(
            "/v1/chat/completions/{id}",
            get(api::find_stored_completion)
                .post(api::update_stored_completion)
                .delete(api::delete_stored_completion),
        )
        .route("/v1/chat/completions/{id}/messages", get(api::list_stored_messages))
        .route("/{id}/chat/completions", post(api::complete_at).fallback(api::any_host))
        .route("/{id}/mcp", any(api::serve_run_as_mcp))
        // runs and their results
        .route("/v1/tasks", post(api::create_task))
        .route("/v1/runs", get(api::list_runs))
        .route("/v1/runs/{id}", get(api::find_run).post(api::change_run).delete(api::delete_run))
        .route("/v1/runs/{id}/events", get(api::follow_run))
        .route("/v1/runs/{id}/cancel", post(api::cancel_run))
        .route("/v1/runs/{id}/resume", post(api::resume_run))
        .route("/{id}", get(result::show).fallback(api::any_host))
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
    // any provider by its address: /{provider-host}/{path}
    let router = router
        .method_not_allowed_fallback(api::method_not_allowed)
        .fallback(api::any_host)
        .with_state(result::Shared { app, site: Arc::clone(&site) });
    // pages: /, /runs, /connect, /oauth, /login, /account, /connections, /static
    let router = router.merge(web::router(site));
    // in local mode: /demo and its /.well-known
    match demo {
        Some(demo) => router.merge(demo),
        None => router,
    }
}

/// Whether a request is for the first two routes above, which are not worth a search.
pub fn is_chat_completion(method: &Method, uri: &Uri) -> bool {
    method == Method::POST && matches!(uri.path(), "/v1/chat/completions" | "/chat/completions")
}
