//! The style sheet and the icon, compiled in.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, header};

pub(super) async fn style() -> Response {
    asset("text/css; charset=utf-8", include_str!("../../static/style.css"))
}

pub(super) async fn icon() -> Response {
    asset("image/svg+xml", include_str!("../../static/icon.svg"))
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
