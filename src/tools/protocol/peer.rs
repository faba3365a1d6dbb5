//! A server as one user sees it: its address, what is sent along, and under which keys things are kept.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use sha2::{Digest, Sha256};

use crate::oauth::covers;
use crate::tools::{Error, Server};

/// Names something kept, without containing a secret.
pub(crate) type Key = [u8; 32];

/// What every request to one server, for one user, has in common.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) uri: Uri,
    /// The user's headers, the credential among them. Values are marked sensitive.
    pub(crate) headers: HeaderMap,
    /// What the credential is for, when it is for less than the whole origin.
    resource: Option<Arc<str>>,
    /// Address and credential: whose tool list it is.
    pub(crate) private: Key,
    /// Address and headers without the credential: what a public tool list depends on.
    pub(crate) public: Key,
    /// Address, credential and scope: whose session it is.
    pub(crate) session: Key,
    /// As `session`, with the very token: those of a connection change, and what a server says of one is not said of
    /// the next.
    pub(crate) request: Key,
}

impl Peer {
    /// # Errors
    /// [`Error::Protocol`] when the credential or a header's value cannot be sent in a header.
    pub(crate) fn new(server: &Server) -> Result<Self, Error> {
        let mut headers = HeaderMap::new();
        let given = server.headers.iter().map(|(name, value)| (name.clone(), value));
        let credential = server.authorization.iter().map(|value| (AUTHORIZATION, value));
        for (name, value) in given.chain(credential) {
            if is_ours(&name) {
                continue;
            }
            let mut value = HeaderValue::from_str(value.expose()).map_err(|_| {
                Error::Protocol(format!("the value given for `{name}` is not a header value"))
            })?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let address = server.uri.to_string();
        let key = |with_credential: bool, scope: &str| {
            let mut hash = Sha256::new();
            let mut add = |part: &[u8]| {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part);
            };
            add(address.as_bytes());
            add(scope.as_bytes());
            let mut sorted: Vec<_> = headers.iter().collect();
            sorted.sort_by(|one, other| one.0.as_str().cmp(other.0.as_str()));
            for (name, value) in sorted {
                if name == AUTHORIZATION && server.connection.is_some() {
                    continue;
                }
                if with_credential || name != AUTHORIZATION {
                    add(name.as_str().as_bytes());
                    add(value.as_bytes());
                }
            }
            if let Some(connection) = server.connection.as_ref().filter(|_| with_credential) {
                // No header is called so: a connection's name is never the same as some credential's value.
                add(b"connection:");
                add(connection.as_bytes());
            }
            hash.finalize().into()
        };
        let session: Key = key(true, &format!("session {}", server.scope));
        let mut request = Sha256::new();
        request.update(session);
        request.update(headers.get(AUTHORIZATION).map_or(&[][..], HeaderValue::as_bytes));
        Ok(Peer {
            uri: server.uri.clone(),
            resource: server.resource.clone(),
            private: key(true, "list"),
            public: key(false, "public"),
            session,
            request: request.finalize().into(),
            headers,
        })
    }
}

impl Peer {
    /// Whether the credential may follow a redirect to `uri`, which is at the same origin. Where the operator accepts a
    /// resource that does not cover the server it belongs to (`accept_resource`), the server's address counts.
    pub(crate) fn covers(&self, uri: &Uri) -> bool {
        let Some(resource) = &self.resource else { return true };
        covers(resource, uri) || (covers(&self.uri.to_string(), uri) && !covers(resource, &self.uri))
    }

    /// Whether no credential is sent.
    pub(crate) fn is_anonymous(&self) -> bool {
        !self.headers.contains_key(AUTHORIZATION)
    }
}

/// Headers that belong to the protocol or the connection and are never taken from a request.
fn is_ours(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("mcp-")
        || name.starts_with("proxy-")
        || matches!(
            name,
            "host"
                | "content-length"
                | "content-type"
                | "content-encoding"
                | "transfer-encoding"
                | "connection"
                | "keep-alive"
                | "te"
                | "trailer"
                | "upgrade"
                | "expect"
                | "accept"
                | "accept-encoding"
                | "last-event-id"
                | "user-agent"
        )
}

/// Whether two addresses have scheme, host and port in common.
pub(crate) fn same_origin(one: &Uri, other: &Uri) -> bool {
    fn port(uri: &Uri) -> Option<u16> {
        uri.port_u16().or(match uri.scheme_str() {
            Some("https") => Some(443),
            Some("http") => Some(80),
            _ => None,
        })
    }
    let host = |uri: &Uri| uri.host().map(str::to_ascii_lowercase);
    one.scheme() == other.scheme() && host(one) == host(other) && port(one) == port(other)
}

/// `reference` as seen from `base`.
///
/// # Errors
/// [`Error::Protocol`] when that is not an address.
pub(crate) fn resolve(base: &Uri, reference: &str) -> Result<Uri, Error> {
    url::Url::parse(&base.to_string())
        .and_then(|base| base.join(reference))
        .ok()
        .map(|mut url| {
            url.set_fragment(None);
            url
        })
        .and_then(|url| url.as_str().parse().ok())
        .ok_or_else(|| Error::Protocol("it names an address that is none".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn server(authorization: Option<&str>, headers: &[(&'static str, &str)], scope: &str) -> Server {
        Server {
            uri: "https://a.example/mcp".parse().unwrap(),
            authorization: authorization.map(Secret::new),
            connection: None,
            resource: None,
            headers: headers
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), Secret::new(*value)))
                .collect(),
            scope: scope.into(),
        }
    }

    #[test]
    fn keys_differ_exactly_where_sharing_would_leak() {
        let plain = Peer::new(&server(None, &[], "a")).unwrap();
        let token = Peer::new(&server(Some("Bearer x"), &[], "a")).unwrap();
        let other_token = Peer::new(&server(Some("Bearer y"), &[], "a")).unwrap();
        let other_user = Peer::new(&server(Some("Bearer x"), &[], "b")).unwrap();
        let header = Peer::new(&server(Some("Bearer x"), &[("x-team", "7")], "a")).unwrap();
        assert!(plain.public == token.public && token.public == other_token.public);
        assert!(token.public != header.public);
        assert!(token.private != other_token.private && token.private != header.private);
        assert!(token.private == other_user.private);
        assert!(token.session != other_user.session && token.session != other_token.session);
    }

    #[test]
    fn a_connection_keeps_its_things_over_new_tokens_and_shares_them_with_nobody() {
        let by = |connection: Option<&str>, token: &str, scope: &str| {
            let server = server(Some(token), &[], scope);
            Peer::new(&Server { connection: connection.map(Into::into), ..server }).unwrap()
        };
        let first = by(Some("conn_1"), "Bearer x", "a");
        let refreshed = by(Some("conn_1"), "Bearer y", "a");
        assert!(first.private == refreshed.private && first.session == refreshed.session);
        assert!(first.headers != refreshed.headers);
        assert!(first.request != refreshed.request);
        assert!(first.request == by(Some("conn_1"), "Bearer x", "a").request);
        for other in [
            by(Some("conn_2"), "Bearer x", "a"),
            by(None, "Bearer x", "a"),
            by(None, "conn_1", "a"),
            by(None, "connection:conn_1", "a"),
        ] {
            assert!(first.private != other.private && first.session != other.session);
            assert!(first.public == other.public);
        }
        assert!(first.session != by(Some("conn_1"), "Bearer x", "b").session);
    }

    #[test]
    fn a_credential_follows_to_what_it_is_for_and_to_the_server_that_it_is_accepted_for() {
        for (resource, covered, elsewhere) in [
            (None, &["/mcp/", "/other"][..], &[][..]),
            (
                Some("https://a.example/mcp"),
                &["/mcp", "/mcp/", "/mcp/x"],
                &["/other", "/mcpx", "/mcp/%2e%2e/x"],
            ),
            (Some("https://a.example/sse"), &["/mcp/", "/sse/x"], &["/other", "/", "/mcp/%2e%2e/x"]),
            (Some("https://b.example/"), &["/mcp/", "/mcp/x"], &["/other", "/", "/mcpx"]),
        ] {
            let server = Server { resource: resource.map(Into::into), ..server(Some("Bearer x"), &[], "a") };
            let peer = Peer::new(&server).unwrap();
            let covers = |path: &&str| peer.covers(&format!("https://a.example{path}").parse().unwrap());
            assert!(covered.iter().all(covers) && !elsewhere.iter().any(covers), "{resource:?}");
        }
    }

    #[test]
    fn given_headers_cannot_touch_the_protocol_and_are_not_printed() {
        let given = [("mcp-session-id", "x"), ("host", "b.example"), ("x-team", "hidden")];
        let peer = Peer::new(&server(Some("Bearer hidden"), &given, "a")).unwrap();
        assert_eq!(peer.headers.len(), 2);
        assert!(!format!("{:?}", peer.headers).contains("hidden"));
        assert!(Peer::new(&server(Some("a\nb"), &[], "a")).is_err());
    }

    #[test]
    fn origins_compare_with_default_ports() {
        let uri = |text: &str| text.parse::<Uri>().unwrap();
        assert!(same_origin(&uri("https://a.example/x"), &uri("https://A.example:443/y")));
        for other in ["http://a.example/x", "https://b.example/x", "https://a.example:444/"] {
            assert!(!same_origin(&uri("https://a.example/x"), &uri(other)), "{other}");
        }
    }

    #[test]
    fn references_are_resolved_against_the_address() {
        let base: Uri = "http://a.example/x/sse".parse().unwrap();
        for (reference, expect) in [
            ("/m?id=1", "http://a.example/m?id=1"),
            ("m", "http://a.example/x/m"),
            ("https://b.example/", "https://b.example/"),
        ] {
            assert_eq!(resolve(&base, reference).unwrap().to_string(), expect);
        }
        assert!(resolve(&base, "data:text/plain,x").is_err() || resolve(&base, "http://[").is_err());
    }
}
