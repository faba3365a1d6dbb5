//! The pages' routes.

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use super::{Site, account, assets, login};

/// Every page. `HEAD` is answered like `GET` without the text.
pub fn router(site: Arc<Site>) -> Router {
    Router::new()
        // signing in
        .route("/login", get(login::choose))
        .route("/login/{provider}", post(login::begin))
        .route("/login/{provider}/callback", get(login::finish))
        .route("/logout", post(login::end))
        // one's own things
        .route("/account", get(account::show))
        .route("/account/sessions/{session}", post(account::end_session))
        .route("/account/sign-out-everywhere", post(account::sign_out_everywhere))
        // what pages load
        .route("/static/style.css", get(assets::style))
        .route("/static/icon.svg", get(assets::icon))
        .with_state(site)
}
