//! How often pages may be asked for: from one address, and through one link.
//!
//! Looking at a page may cost look-ups in the store, beginning a sign-in a request to a provider, and a wrong person at
//! a link a line in the audit log and a webhook. None of them may be had without end by who has no key.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use url::form_urlencoded;

use super::message::{Message, Often};
use super::return_to::is_link;
use super::site::{Site, Visitor};
use crate::identity::Peer;
use crate::rate_limit::{RateLimit, RetryAfterSeconds};

/// What was asked for lately. Bounded: see [`RateLimit`].
#[derive(Default)]
pub(super) struct PageLimits {
    /// From one address; 0 is no limit.
    per_minute: u32,
    pages: RateLimit,
    sign_ins: RateLimit,
    links: RateLimit,
}

impl PageLimits {
    /// `per_minute` pages from one address, a fifth of that through one link, a tenth of that sign-ins; 0 is no limit.
    pub fn new(per_minute: u32) -> Self {
        PageLimits { per_minute, ..PageLimits::default() }
    }

    /// Counts a request for a page.
    fn check(
        &self,
        peer: Option<Peer>,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<(), (Often, RetryAfterSeconds)> {
        if self.per_minute == 0 {
            return Ok(());
        }
        // First, so that links made up by one address do not push real ones out of memory.
        if let Some(address) = peer.and_then(|peer| peer.place(headers)) {
            let address: Arc<str> = address.to_string().into();
            self.pages.check(&address, self.per_minute).map_err(|wait| (Often::Pages, wait))?;
            if *method == Method::POST && path.starts_with("/login/") {
                let most = (self.per_minute / 10).max(1);
                self.sign_ins.check(&address, most).map_err(|wait| (Often::SignIns, wait))?;
            }
        }
        let link = path.strip_prefix("/connect/").and_then(|rest| rest.split('/').next()).map(decoded);
        if let Some(link) = link.filter(|link| is_link(link)) {
            let most = (self.per_minute / 5).max(1);
            self.links.check(&(*link).into(), most).map_err(|wait| (Often::Link, wait))?;
        }
        Ok(())
    }
}

/// A segment of a path as the pages read it: written in other ways, a link is the same link.
fn decoded(segment: &str) -> Cow<'_, str> {
    // The decoder of forms also reads these, which are themselves in a path, and in no link.
    if !segment.contains('%') || segment.contains(['+', '&', '=']) {
        return Cow::Borrowed(segment);
    }
    form_urlencoded::parse(segment.as_bytes()).next().map_or(Cow::Borrowed(segment), |(name, _)| name)
}

/// Lets a request through, or answers with a page that says when to try again.
pub(super) async fn check(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    match refusal(&site, &head) {
        None => next.run(Request::from_parts(head, body)).await,
        Some(refused) => refused,
    }
}

/// The page that says when to try again, for a request that comes too soon.
pub(super) fn refusal(site: &Site, head: &Parts) -> Option<Response> {
    let peer = head.extensions.get::<Peer>().copied();
    let checked = site.limits.check(peer, &head.method, head.uri.path(), &head.headers);
    let (often, RetryAfterSeconds(seconds)) = checked.err()?;
    let page = Message::too_often(often, seconds);
    let mut response = site.message(&Visitor::nobody(), StatusCode::TOO_MANY_REQUESTS, page);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    Some(response)
}

/// Whether a page is only looked at, by a preview, a scanner or a browser that guesses where its person goes next.
pub(super) fn is_only_looked_at(method: &Method, headers: &HeaderMap) -> bool {
    let guesses = |name: &str| {
        headers.get_all(name).iter().any(|value| {
            let value = value.as_bytes().to_ascii_lowercase();
            value.starts_with(b"prefetch") || value.starts_with(b"prerender") || value.starts_with(b"preview")
        })
    };
    // The first is the standard's (Fetch, "`Sec-Purpose`"), the others are what browsers sent before it.
    *method == Method::HEAD || ["sec-purpose", "purpose", "x-purpose", "x-moz"].into_iter().any(guesses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (http::HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut map = HeaderMap::new();
        for (name, value) in pairs.iter().map(pair) {
            map.append(name, value);
        }
        map
    }

    #[test]
    fn a_link_is_counted_as_the_pages_read_it() {
        for segment in ["flw_0123456789", "%66lw_0123456789", "flw%5f0123456789", "%66%6C%77_0123456789"] {
            assert_eq!(decoded(segment), "flw_0123456789", "{segment}");
        }
        for segment in
            ["%66lw_0123456789+", "%66lw_0123456789&x", "%66lw_0123456789=", "flw_0123%2f456789", "%"]
        {
            assert!(!is_link(&decoded(segment)), "{segment}");
        }
    }

    #[test]
    fn looking_is_told_from_opening() {
        let looks = |method: &Method, pairs: &[(&'static str, &'static str)]| {
            is_only_looked_at(method, &headers(pairs))
        };
        assert!(looks(&Method::HEAD, &[]));
        for pair in [
            ("sec-purpose", "prefetch"),
            ("sec-purpose", "prefetch;prerender"),
            ("sec-purpose", "prefetch;anonymous-client-ip"),
            ("purpose", "prefetch"),
            ("x-purpose", "preview"),
            ("x-moz", "prefetch"),
        ] {
            assert!(looks(&Method::GET, &[pair]), "{pair:?}");
        }
        assert!(!looks(&Method::GET, &[("sec-fetch-mode", "navigate")]));
        assert!(!looks(&Method::GET, &[("sec-purpose", "")]));
    }
}
