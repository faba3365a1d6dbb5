//! The fast path: a completion that uses nothing of the gateway goes to its provider byte for byte, and so comes back.

use bytes::Bytes;
use http::{HeaderMap, Method, Response};
use hyper::body::Incoming;

use crate::egress::Body;
use crate::upstream::{Error, Target, Upstream, forward_request_headers, forward_response_headers};

/// Posts `body` to the target and gives its answer, whatever the status, with the headers that matter.
///
/// # Errors
/// When there is no answer at all.
pub async fn post(
    upstream: &Upstream,
    target: &Target,
    path: &str,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Response<Incoming>, Error> {
    upstream.post(target, path, forward_request_headers(headers), body).await.map(cleaned)
}

/// Sends any other request to the target, its body as it comes.
///
/// # Errors
/// When there is no answer at all.
pub async fn forward(
    upstream: &Upstream,
    target: &Target,
    method: Method,
    path: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response<Incoming>, Error> {
    upstream.forward(target, method, path, forward_request_headers(headers), body).await.map(cleaned)
}

fn cleaned(response: Response<Incoming>) -> Response<Incoming> {
    let (mut parts, body) = response.into_parts();
    parts.headers = forward_response_headers(parts.headers);
    parts.extensions.clear();
    Response::from_parts(parts, body)
}
