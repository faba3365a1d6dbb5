//! Whom a request is addressed to, as far as HTTP has rules for it. It holds for any version of HTTP, though the
//! listener speaks HTTP/1 only.

use http::request::Parts;
use http::uri::Authority;
use http::{HeaderValue, Version, header};

/// Checks the authority of a request, and returns the `Host` that handlers should see where that is another one than the
/// request's own: of a target in absolute form (RFC 9112 §3.2.2), or an `:authority` (RFC 9113 §8.3.1).
///
/// # Errors
/// The reason for a 400: `Host` is missing, doubled or malformed (RFC 9112 §3.2), or contradicts `:authority`.
pub(super) fn check_host(head: &Parts) -> Result<Option<HeaderValue>, &'static str> {
    let mut given = head.headers.get_all(header::HOST).iter();
    let (host, second) = (given.next(), given.next());
    if second.is_some() {
        return Err("the request has more than one `Host` header; send exactly one");
    }
    if host.is_some_and(|host| !is_host_and_port(host.as_bytes())) {
        return Err(
            "the `Host` header is malformed; send the gateway's host name, and its port if it has one",
        );
    }
    let absolute = head.uri.scheme().is_some();
    let target = head.uri.authority().filter(|_| absolute);
    if absolute && !matches!(head.uri.scheme_str(), Some("http" | "https")) {
        return Err("the request's target is neither an http nor an https address");
    }
    if target.is_some_and(|target| !is_host_and_port(target.as_str().as_bytes())) {
        return Err("the host in the request's target is malformed");
    }
    match (host, target) {
        (None, None) if head.version >= Version::HTTP_11 => {
            Err("the request has no `Host` header; send exactly one")
        }
        (None, Some(_)) if head.version == Version::HTTP_11 => {
            Err("the request has no `Host` header; send exactly one")
        }
        (Some(host), Some(target))
            if head.version >= Version::HTTP_2 && !is_same(host, target, &head.uri) =>
        {
            Err("the request's `Host` and `:authority` differ; send only `:authority`")
        }
        (_, None) => Ok(None),
        (_, Some(target)) => Ok(HeaderValue::from_str(target.as_str()).ok()),
    }
}

/// Whether both name the same host and port; the port that the scheme implies may be left out.
fn is_same(host: &HeaderValue, target: &Authority, uri: &http::Uri) -> bool {
    let implied = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    let Ok(host) = Authority::try_from(host.as_bytes()) else { return false };
    let port = |authority: &Authority| authority.port_u16().unwrap_or(implied);
    host.host().eq_ignore_ascii_case(target.host()) && port(&host) == port(target)
}

/// Whether these bytes are `uri-host [ ":" port ]` (RFC 9110 §7.2), the host not empty.
fn is_host_and_port(text: &[u8]) -> bool {
    let (host, port) = match text.strip_prefix(b"[") {
        Some(rest) => {
            let Some(end) = rest.iter().position(|byte| *byte == b']') else { return false };
            let address = std::str::from_utf8(&rest[..end]).ok();
            if address.is_none_or(|address| address.parse::<std::net::Ipv6Addr>().is_err()) {
                return false;
            }
            (&rest[..end], &rest[end + 1..])
        }
        None => {
            let end = text.iter().position(|byte| *byte == b':').unwrap_or(text.len());
            if !text[..end].iter().all(|byte| is_in_name(*byte)) {
                return false;
            }
            text.split_at(end)
        }
    };
    let port_is_one = match port.strip_prefix(b":") {
        // An empty port is none (RFC 3986 §3.2.3).
        Some(b"") => true,
        Some(digits) => std::str::from_utf8(digits).is_ok_and(|digits| {
            digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok()
        }),
        None => port.is_empty(),
    };
    !host.is_empty() && port_is_one
}

/// What a registered name may contain (RFC 3986 §3.2.2).
fn is_in_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(version: Version, target: &str, hosts: &[&str]) -> Result<Option<String>, &'static str> {
        let mut request = http::Request::builder().version(version).uri(target);
        for host in hosts {
            request = request.header(header::HOST, *host);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        check_host(&head).map(|host| host.map(|host| host.to_str().unwrap().to_owned()))
    }

    #[test]
    fn http_1_requests_have_exactly_one_well_formed_host() {
        for good in
            ["a", "a.example", "a.example:8787", "a.example:", "127.0.0.1:1", "[::1]", "[::1]:8787", "A_b"]
        {
            assert_eq!(outcome(Version::HTTP_11, "/x", &[good]), Ok(None), "{good}");
        }
        for bad in [
            "",
            " ",
            ":80",
            "a b",
            "user@a.example",
            "a.example/x",
            "a.example:port",
            "a.example:65536",
            "a.example:+1",
            "a:1:2",
            "[::1",
            "::1",
            "[::1]x",
            "[zz]",
            "a,b:c",
            "http://a.example",
            "a?b",
            "a#b",
            "a\\b",
        ] {
            assert!(outcome(Version::HTTP_11, "/x", &[bad]).is_err(), "{bad}");
        }
        assert!(outcome(Version::HTTP_11, "/x", &[]).is_err());
        assert!(outcome(Version::HTTP_11, "/x", &["a", "a"]).is_err(), "twice the same is still twice");
        assert_eq!(outcome(Version::HTTP_10, "/x", &[]), Ok(None), "HTTP/1.0 had none");
        assert!(outcome(Version::HTTP_10, "/x", &["a", "b"]).is_err());
        assert!(outcome(Version::HTTP_11, "http://a.example/x", &[]).is_err());
    }

    #[test]
    fn a_target_in_absolute_form_wins_over_the_header() {
        let of = |target: &str, host: &str| outcome(Version::HTTP_11, target, &[host]);
        assert_eq!(of("http://a.example:1/x", "b.example"), Ok(Some("a.example:1".to_owned())));
        assert!(of("http://user@a.example/x", "a.example").is_err());
        assert!(of("ftp://a.example/x", "a.example").is_err());
        assert!(of("http://a.example/x", "b c").is_err(), "the header must be one all the same");
    }

    #[test]
    fn over_http_2_the_header_must_not_contradict_the_authority() {
        let of = |target: &str, hosts: &[&str]| outcome(Version::HTTP_2, target, hosts);
        let authority = || Ok(Some("a.example".to_owned()));
        assert_eq!(of("https://a.example/x", &[]), authority());
        assert_eq!(of("https://a.example/x", &["A.example"]), authority());
        assert_eq!(of("https://a.example/x", &["a.example:443"]), authority());
        assert!(of("https://a.example/x", &["a.example:444"]).is_err());
        assert!(of("https://a.example/x", &["b.example"]).is_err());
        assert_eq!(of("/x", &["b.example"]), Ok(None), "an intermediary may leave `:authority` out");
        assert!(of("/x", &[]).is_err());
    }
}
