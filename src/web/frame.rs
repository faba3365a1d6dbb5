//! What every page has around it: the head line, and the headers that keep it from being framed, cached, or made to
//! load anything.

use askama::Template;
use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use http_body_util::BodyExt as _;

use crate::memory_budget::MemoryReservation;

/// Nothing but our own style sheet and icon is loaded; nothing frames us; forms go to us. A form's answer never
/// redirects elsewhere, because browsers hold every redirect after a form against `form-action`: pages that lead
/// away do so by `Refresh` and a link.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; \
                      frame-ancestors 'none'; base-uri 'none'";

/// As [`POLICY`], for pages that go on by themselves: with our own script.
const POLICY_WITH_SCRIPT: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; \
                                  frame-ancestors 'none'; base-uri 'none'; script-src 'self'; connect-src 'self'";

/// The head line of a page.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    /// The gateway's own host, so that a person can compare it with what the address bar says.
    pub host: String,
    /// The token of this page's forms.
    pub csrf: String,
    pub signed_in: Option<SignedIn>,
}

/// Somebody is signed in.
#[derive(Debug, Clone, Copy)]
pub(super) struct SignedIn {
    /// Not on one's own machine, where nobody signs in.
    pub can_sign_out: bool,
}

/// A page as a response.
pub(super) fn page<T: Template>(status: StatusCode, template: &T, https: bool) -> Response {
    let (status, text) = match template.render() {
        Ok(text) => (status, text),
        Err(error) => {
            tracing::error!(%error, "a page could not be written");
            (StatusCode::INTERNAL_SERVER_ERROR, "The page could not be written.".to_owned())
        }
    };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    protect(&mut response, https);
    response
}

/// The page, its bytes counted until its reader has them or has left.
pub(super) async fn counted(page: Response, memory: MemoryReservation) -> Response {
    let (head, body) = page.into_parts();
    // It is there whole, and in one piece.
    let bytes = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    Response::from_parts(head, Body::from(memory.bind(bytes)))
}

/// The page may run our own script, which asks nobody but us.
pub(super) fn allow_script(response: &mut Response) {
    let policy = HeaderValue::from_static(POLICY_WITH_SCRIPT);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
}

/// Search engines may list the page.
pub(super) fn allow_robots(response: &mut Response) {
    response.headers_mut().remove("x-robots-tag");
}

/// Puts the headers on a response that every page has.
pub(super) fn protect(response: &mut Response, https: bool) {
    let headers = response.headers_mut();
    for (name, value) in [
        ("content-security-policy", POLICY),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("permissions-policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
        ("cache-control", "no-store"),
        ("x-robots-tag", "noindex, nofollow"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if https {
        let year = HeaderValue::from_static("max-age=31536000");
        headers.insert(header::STRICT_TRANSPORT_SECURITY, year);
    }
}
