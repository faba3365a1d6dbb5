//! Which headers pass through the gateway.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Headers that belong to one connection (RFC 9110 §7.6.1), not to the message.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    const NAMES: [&str; 5] =
        ["keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "http2-settings"];
    [header::CONNECTION, header::TE, header::TRAILER, header::TRANSFER_ENCODING, header::UPGRADE]
        .contains(name)
        || NAMES.contains(&name.as_str())
}

/// What of the caller's headers a provider gets: all but those of the connection, the gateway's own, cookies,
/// credentials (the provider's key is attached elsewhere) and traces of the caller's network.
pub fn forward_request_headers(from: &HeaderMap) -> HeaderMap {
    let mut to = HeaderMap::with_capacity(from.len() + 2);
    for (name, value) in from {
        let text = name.as_str();
        let ours = [
            header::HOST,
            header::CONTENT_LENGTH,
            header::AUTHORIZATION,
            header::COOKIE,
            header::EXPECT,
            header::FORWARDED,
        ]
        .contains(name)
            || text.starts_with("x-toolgate-")
            || text.starts_with("x-forwarded-")
            || matches!(
                text,
                "x-mcp-authorization" | "x-request-id" | "x-real-ip" | "via" | "origin" | "referer"
            )
            || text.starts_with("sec-");
        // A key of this gateway, under whatever name a client sends it, is for this gateway.
        let secret = memchr::memmem::find(value.as_bytes(), b"tgk_").is_some();
        if !ours && !secret && !is_hop_by_hop(name) && !is_named_by_connection(from, text) {
            to.append(name, value.clone());
        }
    }
    to
}

/// Headers that speak to a browser about the whole origin, which is the gateway's and not the provider's, and those
/// that the gateway sets itself.
fn is_for_our_origin(name: &HeaderName) -> bool {
    let text = name.as_str();
    text.starts_with("access-control-")
        || matches!(
            text,
            "set-cookie"
                | "set-cookie2"
                | "strict-transport-security"
                | "alt-svc"
                | "clear-site-data"
                | "refresh"
                | "service-worker-allowed"
                | "nel"
                | "report-to"
                | "reporting-endpoints"
                | "content-security-policy"
                | "content-security-policy-report-only"
                | "x-content-type-options"
        )
}

/// What of a provider's headers the caller gets: all but those of the connection and those that would act on the
/// gateway's own origin. The provider's `x-request-id` becomes `x-provider-request-id`, because the gateway answers with
/// its own. Whatever the answer is, no browser takes it for a page of the gateway.
pub fn forward_response_headers(from: HeaderMap) -> HeaderMap {
    let named: Option<Vec<String>> = from
        .get(header::CONNECTION)
        .and_then(|value| value.to_str().ok())
        .map(|list| list.split(',').map(|name| name.trim().to_ascii_lowercase()).collect());
    let mut to = HeaderMap::with_capacity(from.len() + 5);
    let mut last = None;
    for (name, value) in from {
        let Some(name) = name.or(last.take()) else { continue };
        last = Some(name.clone());
        let dropped = is_for_our_origin(&name)
            || is_hop_by_hop(&name)
            || named.as_ref().is_some_and(|named| named.iter().any(|other| other == name.as_str()));
        if dropped {
            continue;
        }
        if name == "x-request-id" {
            to.append(HeaderName::from_static("x-provider-request-id"), value);
        } else {
            to.append(name, value);
        }
    }
    to.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    to.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    to
}

fn is_named_by_connection(headers: &HeaderMap, name: &str) -> bool {
    headers
        .get(header::CONNECTION)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|list| list.split(',').any(|named| named.trim().eq_ignore_ascii_case(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn names(map: &HeaderMap) -> Vec<&str> {
        map.keys().map(HeaderName::as_str).collect()
    }

    #[test]
    fn a_provider_sees_no_cookie_and_no_credential() {
        let from = map(&[
            ("authorization", "Bearer secret"),
            ("cookie", "a=b"),
            ("x-mcp-authorization", "secret"),
            ("connection", "close, x-once"),
            ("x-once", "1"),
            ("openai-organization", "org"),
            ("x-toolgate-user", "u"),
        ]);
        assert_eq!(names(&forward_request_headers(&from)), ["openai-organization"]);
    }

    #[test]
    fn a_caller_sees_rate_limits_but_nothing_that_acts_on_our_origin() {
        let from = map(&[
            ("set-cookie", "a"),
            ("access-control-allow-origin", "*"),
            ("refresh", "0; url=/connections"),
            ("x-ratelimit-remaining", "1"),
            ("x-request-id", "r"),
            ("transfer-encoding", "chunked"),
        ]);
        assert_eq!(
            names(&forward_response_headers(from)),
            [
                "x-ratelimit-remaining",
                "x-provider-request-id",
                "content-security-policy",
                "x-content-type-options"
            ]
        );
    }
}
