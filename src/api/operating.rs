//! For operators: is it alive, is it ready, what does it do.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};

use super::App;

/// `GET /healthz`: the process is alive.
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// How long the store may take to say that it is there.
const STORE_PATIENCE: Duration = Duration::from_secs(2);

/// `GET /readyz`: new requests may be sent here. 503 once the process is asked to stop, while the store takes no writes,
/// as its probe last found, and while it cannot be read or was migrated by another version. It writes nothing. (Without
/// its keys the process does not start.)
pub async fn readyz(State(app): State<Arc<App>>) -> Response {
    let unready = |why: String| (StatusCode::SERVICE_UNAVAILABLE, why).into_response();
    if app.is_draining() {
        return unready("stopping\n".to_owned());
    }
    if let Some(reason) = app.store.outage() {
        return unready(format!("the store takes no writes: {reason}\n"));
    }
    match tokio::time::timeout(STORE_PATIENCE, app.store.is_migrated()).await {
        Ok(Ok(true)) => "ready\n".into_response(),
        Ok(Ok(false)) => unready("the store was migrated by another version\n".to_owned()),
        Ok(Err(_)) | Err(_) => unready("the store cannot be reached\n".to_owned()),
    }
}

/// `GET /metrics`: Prometheus' text form.
pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], app.metrics.encode()).into_response()
}
