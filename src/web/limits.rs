//! How often pages may be asked for: from one address, and through one link.
//!
//! Looking at a page may cost look-ups in the store, beginning a sign-in a request to a provider, and a wrong person at
//! a link a line in the audit log and a webhook. None of them may be had without end by who has no key.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use url::form_urlencoded;

use super::message::{Message, Often};
use super::return_to::is_link;
use super::site::{Site, Visitor};
use crate::rate_limit::{RateLimit, RetryAfterSeconds};

/// From which address a connection comes; the server puts it on requests.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

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
        peer: Option<IpAddr>,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<(), (Often, RetryAfterSeconds)> {
        if self.per_minute == 0 {
            return Ok(());
        }
        // First, so that links made up by one address do not push real ones out of memory.
        if let Some(address) = peer.and_then(|peer| counted_as(peer, headers)) {
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
    let peer = request.extensions().get::<Peer>().map(|Peer(address)| *address);
    match site.limits.check(peer, request.method(), request.uri().path(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err((often, RetryAfterSeconds(seconds))) => {
            let page = Message::too_often(often, seconds);
            let mut response = site.message(&Visitor::nobody(), StatusCode::TOO_MANY_REQUESTS, page);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            response
        }
    }
}

/// Whose request it is, as far as the limit goes.
///
/// Only a connection from this machine or a private network can be a proxy's, so only there is the last entry of
/// `X-Forwarded-For` believed: the one that the proxy itself wrote. A proxy on this machine that writes none stands for
/// nobody, since all people would share its number. An IPv6 network of 64 bits is one place.
fn counted_as(peer: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
    let peer = peer.to_canonical();
    let is_private = match peer {
        IpAddr::V4(address) => address.is_private(),
        IpAddr::V6(address) => address.is_unique_local(),
    };
    let forwarded = || {
        let last = headers.get_all("x-forwarded-for").iter().next_back()?.to_str().ok()?;
        last.rsplit(',').next()?.trim().parse::<IpAddr>().ok()
    };
    let address = match (peer.is_loopback(), is_private) {
        (true, _) => forwarded()?,
        (false, true) => forwarded().unwrap_or(peer),
        (false, false) => peer,
    };
    Some(match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address @ IpAddr::V4(_) => address,
    })
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

    fn address(peer: &str, pairs: &[(&'static str, &'static str)]) -> Option<String> {
        counted_as(peer.parse().unwrap(), &headers(pairs)).map(|address| address.to_string())
    }

    #[test]
    fn only_what_a_proxy_nearby_wrote_itself_is_believed() {
        let forged = [("x-forwarded-for", "198.51.100.1")];
        assert_eq!(address("203.0.113.7", &forged).as_deref(), Some("203.0.113.7"), "nobody's proxy");
        assert_eq!(address("::ffff:203.0.113.7", &forged).as_deref(), Some("203.0.113.7"));
        let passed_on = [("x-forwarded-for", "198.51.100.1, 203.0.113.7")];
        let lines = [("x-forwarded-for", "198.51.100.1"), ("x-forwarded-for", "203.0.113.7")];
        for peer in ["127.0.0.1", "::1", "10.0.0.2", "192.168.1.1", "fd00::2"] {
            assert_eq!(address(peer, &passed_on).as_deref(), Some("203.0.113.7"), "{peer}");
            assert_eq!(address(peer, &lines).as_deref(), Some("203.0.113.7"), "{peer}");
        }
        assert_eq!(address("127.0.0.1", &[]), None);
        assert_eq!(address("127.0.0.1", &[("x-forwarded-for", "unknown")]), None);
        assert_eq!(address("10.0.0.2", &[]).as_deref(), Some("10.0.0.2"));
        assert_eq!(address("2001:db8:1:2:3:4:5:6", &[]).as_deref(), Some("2001:db8:1:2::"));
        assert_eq!(address("2001:db8:1:2:ffff::", &[]).as_deref(), Some("2001:db8:1:2::"), "one network");
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
