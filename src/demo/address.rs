//! The demo's own addresses, as the client called it.

use http::{HeaderMap, Uri, header};

/// The origin that the client used, such as `http://127.0.0.1:8787`. It is on this machine: any other would let a
/// stranger choose what we say of ourselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Here(String);

impl Here {
    /// From the `Host` header; `None` when it names another machine.
    pub fn of(headers: &HeaderMap) -> Option<Here> {
        let host = headers.get(header::HOST)?.to_str().ok()?;
        let origin = format!("http://{host}");
        is_on_this_machine(&origin).then_some(Here(origin))
    }

    /// The address of the server that wants a login: the protected resource.
    pub fn resource(&self) -> String {
        format!("{}/demo/private/mcp", self.0)
    }

    /// What the resource says of itself (RFC 9728 §3.1).
    pub fn resource_metadata(&self) -> String {
        format!("{}/.well-known/oauth-protected-resource/demo/private/mcp", self.0)
    }

    /// The authorization server.
    pub fn issuer(&self) -> String {
        format!("{}/demo/oauth", self.0)
    }
}

/// Whether an origin is a loopback address or `localhost`, and nothing but an origin.
pub fn is_on_this_machine(origin: &str) -> bool {
    let Ok(uri) = origin.parse::<Uri>() else { return false };
    let has_only_origin = uri.path_and_query().is_none_or(|path| path.as_str() == "/");
    let userless = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    has_only_origin && userless && uri.host().is_some_and(is_loopback)
}

/// Whether a host, IPv6 in brackets, is this machine.
pub fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}
