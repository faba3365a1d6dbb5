//! The style sheet, the icon and two small scripts, compiled in.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, header};

pub(super) async fn style() -> Response {
    asset("text/css; charset=utf-8", include_str!("../../static/style.css"))
}

pub(super) async fn icon() -> Response {
    asset("image/svg+xml", include_str!("../../static/icon.svg"))
}

/// What a run's page does by itself.
pub(super) async fn run_script() -> Response {
    asset("text/javascript; charset=utf-8", include_str!("../../static/run.js"))
}

/// What the page for trying does by itself.
pub(super) async fn try_script() -> Response {
    asset("text/javascript; charset=utf-8", include_str!("../../static/try.js"))
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    let mut response = Response::new(Body::from(text));
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "public, max-age=3600"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
