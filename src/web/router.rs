//! The pages' routes.

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};

use super::{Site, account, assets, callback, connect, connections, limits, login, runs};

/// Every page. `HEAD` is answered like `GET` without the text. What is below the line with the limits is not limited.
pub fn router(site: Arc<Site>) -> Router {
    Router::new()
        // connecting
        .route("/connect/{link}", get(connect::show).post(connect::act))
        .route("/connect/{link}/account", post(callback::account))
        .route("/oauth/callback", get(callback::finish))
        // signing in
        .route("/login", get(login::choose))
        .route("/login/{provider}", post(login::begin))
        .route("/login/{provider}/callback", get(login::finish))
        .route("/logout", post(login::end))
        // one's own things
        .route("/account", get(account::show))
        .route("/account/sessions/{session}", post(account::end_session))
        .route("/account/sign-out-everywhere", post(account::sign_out_everywhere))
        .route("/connections", get(connections::show))
        .route("/connections/{id}/disconnect", post(connections::disconnect))
        .route("/connections/{id}/scopes", post(connections::change_scopes))
        // runs
        .route("/", get(runs::start_page).post(runs::start))
        .route("/runs", get(runs::list))
        .route("/runs/{id}/delete", post(runs::delete))
        .route("/{id}/live", get(runs::live))
        .route("/{id}/share", post(runs::share))
        .route("/{id}/cancel", post(runs::cancel))
        .route("/{id}/resume", post(runs::resume))
        .route("/{id}/delete", post(runs::delete))
        .route_layer(from_fn_with_state(Arc::clone(&site), limits::check))
        // what pages load, and authorization servers
        .route("/oauth/client-metadata.json", get(callback::client_metadata))
        .route("/static/style.css", get(assets::style))
        .route("/static/icon.svg", get(assets::icon))
        .route("/static/run.js", get(assets::run_script))
        .route("/static/try.js", get(assets::try_script))
        .with_state(site)
}
