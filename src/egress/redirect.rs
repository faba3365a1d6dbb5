//! Following redirects by hand: every hop is checked anew, and what was meant for one origin stays there.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_LANGUAGE, AUTHORIZATION, CONTENT_TYPE, LOCATION, USER_AGENT};
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, Uri, request};
use hyper::body::Incoming;

use super::target::{Target, join_uri};
use super::{Egress, Error, Reach, full};

/// What may go on to another origin. Everything else might be a secret.
const SAFE_HEADERS: [HeaderName; 7] = [
    ACCEPT,
    ACCEPT_LANGUAGE,
    CONTENT_TYPE,
    USER_AGENT,
    HeaderName::from_static("mcp-protocol-version"),
    // These repeat what the body says, and servers refuse a body without them.
    HeaderName::from_static("mcp-method"),
    HeaderName::from_static("mcp-name"),
];

impl Egress {
    /// Sends one request and follows its redirects. 307 and 308 keep method and body; 301, 302 and 303 are
    /// followed for GET and HEAD only and else given as they are. At another origin only harmless headers
    /// are sent, and the policy for requested addresses holds, whatever `reach` was. At the same origin
    /// `Authorization` goes on while `covered` says that the credential is for that address; what was left
    /// behind once does not come back. `first_byte` bounds the time to the head of the last answer. Also gives
    /// the URI that answered.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Redirect`] when there are too many or one leads where it must not.
    pub async fn send_following(
        &self,
        mut reach: Reach,
        parts: request::Parts,
        body: Bytes,
        first_byte: Duration,
        covered: &(dyn Fn(&Uri) -> bool + Sync),
    ) -> Result<(Response<Incoming>, Uri), Error> {
        let deadline = tokio::time::Instant::now() + first_byte;
        let request::Parts { method, mut uri, mut headers, .. } = parts;
        let mut target = Target::of(&uri)?;
        let mut followed = 0;
        loop {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            let mut request = Request::new(full(body.clone()));
            *request.method_mut() = method.clone();
            *request.uri_mut() = uri.clone();
            request.headers_mut().clone_from(&headers);
            let response = match self.send(reach, request, left).await {
                Err(Error::Timeout { host, .. }) => return Err(Error::Timeout { host, after: first_byte }),
                answered => answered?,
            };
            if !is_followed(response.status(), &method) {
                return Ok((response, uri));
            }
            let refused = |reason| Error::Redirect { host: target.host.to_string(), reason };
            if followed == self.max_redirects() {
                return Err(refused("too often"));
            }
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let next_uri = join_uri(&uri, location.ok_or_else(|| refused("without saying where to"))?)?;
            let next = Target::of(&next_uri)?;
            if target.https && !next.https {
                return Err(refused("from https to plain http"));
            }
            if next.names_this_machine() && !target.names_this_machine() {
                return Err(refused("to the machine the gateway runs on"));
            }
            if next != target {
                headers = only_safe(&headers);
                reach = Reach::Requested;
            } else if headers.contains_key(AUTHORIZATION) && !covered(&next_uri) {
                headers.remove(AUTHORIZATION);
            }
            (uri, target) = (next_uri, next);
            followed += 1;
        }
    }
}

fn is_followed(status: StatusCode, method: &Method) -> bool {
    match status {
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER => {
            matches!(*method, Method::GET | Method::HEAD)
        }
        _ => false,
    }
}

fn only_safe(headers: &HeaderMap) -> HeaderMap {
    SAFE_HEADERS
        .iter()
        .filter_map(|name| headers.get(name).map(|value| (name.clone(), value.clone())))
        .collect()
}
