//! What a URI points at, read the way browsers read it (WHATWG URL), so that every spelling of a host is
//! seen as the host it is. What is checked here is what is dialled and what the `Host` header says.

use std::net::IpAddr;

use bytes::Bytes;
use http::Uri;
use http::uri::{Authority, PathAndQuery};
use url::Url;

use super::Refusal;

/// Longest URI that is taken from outside, in bytes.
const MAX_URI_BYTES: usize = 8192;

/// A scheme, host and port; equal targets are the same origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub https: bool,
    pub host: Host,
    pub port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    /// Lower case, ASCII, without the root's dot.
    Name(String),
    Ip(IpAddr),
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name),
            Host::Ip(IpAddr::V4(v4)) => v4.fmt(f),
            Host::Ip(IpAddr::V6(v6)) => write!(f, "[{v6}]"),
        }
    }
}

/// Reads an address as a person wrote it. Says whether it is one, not whether it may be called.
///
/// # Errors
/// [`Refusal`], other than those about public addresses and ports.
pub fn parse_uri(text: &str) -> Result<Uri, Refusal> {
    if text.len() > MAX_URI_BYTES || text.contains(|c: char| c.is_control() || c == ' ' || c == '\\') {
        return Err(malformed(text));
    }
    let url = Url::parse(text).map_err(|_| malformed(text))?;
    let uri = uri_of(&url)?;
    // Browsers read `https:host` and `https:////host` too; here they are more likely a mistake or a trick.
    match text.split_once("://") {
        Some((_, rest)) if !rest.starts_with('/') => Ok(uri),
        _ => Err(malformed(text)),
    }
}

/// The URI that an answer from `base` redirects to; its fragment is not sent.
pub(super) fn join_uri(base: &Uri, location: &str) -> Result<Uri, Refusal> {
    if location.len() > MAX_URI_BYTES || location.contains(|c: char| c.is_control() || c == '\\') {
        return Err(malformed(location));
    }
    let base = Url::parse(&base.to_string()).map_err(|_| malformed(location))?;
    uri_of(&base.join(location).map_err(|_| malformed(location))?)
}

fn uri_of(url: &Url) -> Result<Uri, Refusal> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Refusal::Scheme(short(url.scheme())));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Refusal::Credentials);
    }
    let text = &url[..url::Position::AfterQuery];
    let uri: Uri = text.parse().map_err(|_| malformed(text))?;
    let target = Target::of(&uri)?;
    Ok(target.canonical(uri))
}

impl Target {
    /// # Errors
    /// When the URI is not an http or https address with a host, or carries credentials.
    pub fn of(uri: &Uri) -> Result<Target, Refusal> {
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            other => return Err(Refusal::Scheme(short(other.unwrap_or_default()))),
        };
        let authority = uri.authority().ok_or_else(|| malformed(&uri.to_string()))?.as_str();
        if authority.contains('@') {
            return Err(Refusal::Credentials);
        }
        let (host, port) = split_port(authority).ok_or_else(|| malformed(authority))?;
        let port = match port {
            "" if https => 443,
            "" => 80,
            digits if digits.bytes().all(|b| b.is_ascii_digit()) => match digits.parse::<u16>() {
                Ok(port @ 1..) => port,
                _ => return Err(malformed(authority)),
            },
            _ => return Err(malformed(authority)),
        };
        let host = Host::parse(host).ok_or_else(|| malformed(authority))?;
        Ok(Target { https, host, port })
    }

    /// The same URI with its host and port written in the one way that we compare, dial and send.
    pub fn canonical(&self, uri: Uri) -> Uri {
        let authority = self.authority();
        if uri.authority().is_some_and(|given| given.as_str() == authority) {
            return uri;
        }
        let mut parts = uri.into_parts();
        let shared = Bytes::from(authority);
        parts.authority = Some(
            Authority::from_maybe_shared(shared).expect("a checked host and a number form an authority"),
        );
        parts.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
        Uri::from_parts(parts).expect("scheme, authority and path are all present")
    }

    /// Whether the address itself says that it means this machine.
    pub fn names_this_machine(&self) -> bool {
        match &self.host {
            Host::Ip(ip) => ip.is_loopback(),
            // RFC 6761 §6.3
            Host::Name(name) => name == "localhost" || name.ends_with(".localhost"),
        }
    }

    /// https on its usual port: all that a request may name unless a rule says otherwise.
    pub fn is_usual(&self) -> bool {
        self.https && self.port == 443
    }

    fn authority(&self) -> String {
        if self.port == if self.https { 443 } else { 80 } {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl Host {
    /// Reads a host with the brackets of an IPv6 address; `None` when no server can have it.
    pub fn parse(text: &str) -> Option<Host> {
        match url::Host::parse(text).ok()? {
            url::Host::Ipv4(v4) => Some(Host::Ip(IpAddr::V4(v4))),
            url::Host::Ipv6(v6) => Some(Host::Ip(IpAddr::V6(v6))),
            url::Host::Domain(mut name) => {
                if name.ends_with('.') {
                    name.pop();
                }
                is_host_name(&name).then_some(Host::Name(name))
            }
        }
    }
}

/// RFC 1123 §2.1, and the underscore that some internal names have.
fn is_host_name(name: &str) -> bool {
    name.len() <= 253
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
        })
}

fn split_port(authority: &str) -> Option<(&str, &str)> {
    let host_end = if authority.starts_with('[') {
        authority.find(']')? + 1
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (host, rest) = authority.split_at(host_end);
    Some((host, if rest.is_empty() { "" } else { rest.strip_prefix(':')? }))
}

fn malformed(text: &str) -> Refusal {
    // What stands before an `@` may be a password.
    let shown = if text.contains('@') { "the given text" } else { text };
    Refusal::Malformed(short(shown))
}

fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}
