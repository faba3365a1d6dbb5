//! Who we are to an authorization server.

use http::HeaderValue;
use serde::Serialize;
use url::form_urlencoded::byte_serialize;

use super::{AuthMethod, ServerMetadata};
use crate::config::Secret;

/// A registered client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    pub id: String,
    pub secret: Option<Secret>,
    pub auth_method: AuthMethod,
}

impl Client {
    /// A client without a secret, such as one whose id is the address of its metadata document.
    pub fn public(id: impl Into<String>) -> Client {
        Client { id: id.into(), secret: None, auth_method: AuthMethod::None }
    }

    /// A client with a secret that was registered by hand; the method is the best that the server lists.
    pub fn confidential(id: impl Into<String>, secret: Secret, server: &ServerMetadata) -> Client {
        Client { id: id.into(), secret: Some(secret), auth_method: server.secret_auth_method() }
    }

    /// What goes into the form, or into the header given back, to prove this client (RFC 6749 §2.3.1).
    pub(super) fn prove(
        &self,
        method: AuthMethod,
        form: &mut Vec<(&'static str, String)>,
    ) -> Option<HeaderValue> {
        match (method, &self.secret) {
            (AuthMethod::ClientSecretBasic, Some(secret)) => {
                // Both halves are form-encoded first, so that a colon in the id cannot move the border.
                let encode = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
                let pair = format!("{}:{}", encode(&self.id), encode(secret.expose()));
                let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pair);
                let mut value =
                    HeaderValue::try_from(format!("Basic {encoded}")).expect("base 64 is visible ASCII");
                value.set_sensitive(true);
                Some(value)
            }
            (AuthMethod::ClientSecretPost, Some(secret)) => {
                form.push(("client_id", self.id.clone()));
                form.push(("client_secret", secret.expose().to_owned()));
                None
            }
            (AuthMethod::None | AuthMethod::ClientSecretPost | AuthMethod::ClientSecretBasic, _) => {
                form.push(("client_id", self.id.clone()));
                None
            }
        }
    }
}

/// What we say of ourselves: the body of a registration (RFC 7591 §2), and our client metadata document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClientDocument {
    /// The document's own address; only in the document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    pub client_name: String,
    pub client_uri: String,
    pub redirect_uris: Vec<String>,
    pub grant_types: Vec<&'static str>,
    pub response_types: Vec<&'static str>,
    /// What the redirect address allows (OpenID Connect Registration §2): `native` for plain http on this machine, which
    /// strict servers refuse to `web` clients, else `web`.
    pub application_type: &'static str,
    pub token_endpoint_auth_method: AuthMethod,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
}

impl ClientDocument {
    /// For a gateway at `public_url` (without a trailing slash) to which browsers come back at `redirect_uri`.
    pub fn new(public_url: &str, redirect_uri: &str) -> ClientDocument {
        ClientDocument {
            client_id: None,
            client_name: "toolgate".to_owned(),
            client_uri: public_url.to_owned(),
            redirect_uris: vec![redirect_uri.to_owned()],
            grant_types: vec!["authorization_code", "refresh_token"],
            response_types: vec!["code"],
            application_type: if is_plain_loopback(redirect_uri) { "native" } else { "web" },
            token_endpoint_auth_method: AuthMethod::None,
            scope: None,
        }
    }

    /// The document to be served at the address `client_id`, which is the client's id at the same time.
    #[must_use]
    pub fn served_at(mut self, client_id: &str) -> ClientDocument {
        self.client_id = Some(client_id.to_owned());
        self
    }
}

fn is_plain_loopback(redirect_uri: &str) -> bool {
    let url = url::Url::parse(redirect_uri).ok();
    url.filter(|url| url.scheme() == "http").is_some_and(|url| match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    })
}
