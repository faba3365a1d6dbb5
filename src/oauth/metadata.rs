//! Authorization server metadata (RFC 8414, and OpenID Connect Discovery, which says the same). Pure but for the
//! address policy, which every address in it must pass.

use serde::{Deserialize, Serialize};

use super::AuthMethod;
use super::protected_resource::shape;
use super::scope;
use crate::clean_json;
use crate::config::OauthEndpoints;
use crate::egress::{Egress, Reach, Refusal, parse_uri};

/// Longest address that is kept, in bytes.
const MAX_URL_BYTES: usize = 2048;
/// Most words kept of a list of methods.
const MAX_WORDS: usize = 32;

/// What an authorization server says of itself. Small enough to be kept with a flow.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerMetadata {
    /// As the document says it: what `iss` must equal (RFC 9207 §2.4).
    pub issuer: String,
    pub authorization_endpoint: String,
    pub token_endpoint: String,
    pub registration_endpoint: Option<String>,
    pub revocation_endpoint: Option<String>,
    pub userinfo_endpoint: Option<String>,
    pub jwks_uri: Option<String>,
    pub scopes_supported: Vec<String>,
    pub code_challenge_methods_supported: Vec<String>,
    /// `None` when it does not say.
    pub token_endpoint_auth_methods_supported: Option<Vec<String>>,
    pub authorization_response_iss_parameter_supported: bool,
    pub client_id_metadata_document_supported: bool,
    /// It published nothing: these are the places that MCP 2025-03-26 names, and nobody may be listening there.
    pub assumed: bool,
}

/// Every field may be missing or `null`.
#[derive(Deserialize)]
struct Document {
    issuer: Option<String>,
    authorization_endpoint: Option<String>,
    token_endpoint: Option<String>,
    registration_endpoint: Option<String>,
    revocation_endpoint: Option<String>,
    userinfo_endpoint: Option<String>,
    jwks_uri: Option<String>,
    scopes_supported: Option<Vec<String>>,
    code_challenge_methods_supported: Option<Vec<String>>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    authorization_response_iss_parameter_supported: Option<bool>,
    client_id_metadata_document_supported: Option<bool>,
}

impl ServerMetadata {
    /// Reads a document. Says nothing about its addresses; [`ServerMetadata::check`] does.
    ///
    /// # Errors
    /// What is wrong with it; completes "the document …".
    pub fn parse(body: &[u8]) -> Result<ServerMetadata, &'static str> {
        let document: Document = clean_json::from_slice(body).map_err(|error| shape(&error))?;
        let words = |words: Vec<String>| {
            let mut words: Vec<String> = words.into_iter().filter(|word| word.len() <= 64).collect();
            words.truncate(MAX_WORDS);
            words
        };
        let metadata = ServerMetadata {
            issuer: document.issuer.ok_or("names no `issuer`")?,
            authorization_endpoint: document
                .authorization_endpoint
                .ok_or("names no `authorization_endpoint`")?,
            token_endpoint: document.token_endpoint.ok_or("names no `token_endpoint`")?,
            registration_endpoint: document.registration_endpoint,
            revocation_endpoint: document.revocation_endpoint,
            userinfo_endpoint: document.userinfo_endpoint,
            jwks_uri: document.jwks_uri,
            scopes_supported: scope::clean(document.scopes_supported.unwrap_or_default()),
            code_challenge_methods_supported: words(
                document.code_challenge_methods_supported.unwrap_or_default(),
            ),
            token_endpoint_auth_methods_supported: document.token_endpoint_auth_methods_supported.map(words),
            authorization_response_iss_parameter_supported: document
                .authorization_response_iss_parameter_supported
                .unwrap_or_default(),
            client_id_metadata_document_supported: document
                .client_id_metadata_document_supported
                .unwrap_or_default(),
            assumed: false,
        };
        let too_long =
            |(_, url): &(&str, &str)| url.len() > MAX_URL_BYTES || metadata.issuer.len() > MAX_URL_BYTES;
        if metadata.endpoints().iter().any(too_long) {
            return Err("names an address that is too long");
        }
        Ok(metadata)
    }

    /// The places that MCP 2025-03-26 gives a server without metadata.
    pub fn assumed(origin: &str) -> ServerMetadata {
        ServerMetadata {
            issuer: origin.to_owned(),
            authorization_endpoint: format!("{origin}/authorize"),
            token_endpoint: format!("{origin}/token"),
            registration_endpoint: Some(format!("{origin}/register")),
            code_challenge_methods_supported: vec!["S256".to_owned()],
            assumed: true,
            ..ServerMetadata::default()
        }
    }

    /// Known by heart, for a server that publishes nothing.
    pub(super) fn known(issuer: &str, endpoints: &OauthEndpoints) -> ServerMetadata {
        ServerMetadata {
            issuer: issuer.to_owned(),
            authorization_endpoint: endpoints.authorization.clone(),
            token_endpoint: endpoints.token.clone(),
            registration_endpoint: endpoints.registration.clone(),
            revocation_endpoint: endpoints.revocation.clone(),
            ..ServerMetadata::default()
        }
    }

    /// Every address in it, with its name.
    fn endpoints(&self) -> Vec<(&'static str, &str)> {
        let optional = [
            ("registration_endpoint", &self.registration_endpoint),
            ("revocation_endpoint", &self.revocation_endpoint),
            ("userinfo_endpoint", &self.userinfo_endpoint),
            ("jwks_uri", &self.jwks_uri),
        ];
        let mut all = vec![
            ("authorization_endpoint", self.authorization_endpoint.as_str()),
            ("token_endpoint", self.token_endpoint.as_str()),
        ];
        all.extend(optional.iter().filter_map(|(name, url)| url.as_deref().map(|url| (*name, url))));
        all
    }

    /// Whether every address in it may be used: http(s), public, and https but for what the operator allows.
    ///
    /// # Errors
    /// The name of the first that may not, and why.
    pub fn check(&self, egress: &Egress, reach: Reach) -> Result<(), (&'static str, Refusal)> {
        for (name, url) in self.endpoints() {
            let checked = parse_uri(url).and_then(|uri| match reach {
                Reach::Configured => Ok(()),
                Reach::Requested => egress.check(&uri),
            });
            match checked {
                // The browser goes there, not we: any port will do.
                Err(Refusal::Port { .. }) if name == "authorization_endpoint" => {}
                other => other.map_err(|refusal| (name, refusal))?,
            }
        }
        Ok(())
    }

    /// Whether it says that it takes PKCE with S256.
    pub fn has_s256(&self) -> bool {
        self.code_challenge_methods_supported.iter().any(|method| method == "S256")
    }

    /// Whether an authorization response with this `iss` may be this server's (RFC 9207 §2.4): the same text when there
    /// is one, and there must be one when the server says that it sends it.
    pub fn admits_issuer(&self, iss: Option<&str>) -> bool {
        match iss {
            Some(iss) => iss == self.issuer,
            None => !self.authorization_response_iss_parameter_supported,
        }
    }

    /// How a client with a secret proves itself here; the default of RFC 8414 §2 is `client_secret_basic`.
    pub(super) fn secret_auth_method(&self) -> AuthMethod {
        let Some(listed) = &self.token_endpoint_auth_methods_supported else {
            return AuthMethod::ClientSecretBasic;
        };
        // Servers made with MCP's Python SDK take the header only beside a `client_id` in the body.
        if listed.iter().any(|method| method == "client_secret_post") {
            AuthMethod::ClientSecretPost
        } else {
            AuthMethod::ClientSecretBasic
        }
    }

    /// How a client that is registered by request proves itself: by PKCE alone where the server takes that, so that there
    /// is no secret to keep.
    pub(super) fn registered_auth_method(&self) -> AuthMethod {
        let takes_none = self
            .token_endpoint_auth_methods_supported
            .as_ref()
            .is_some_and(|listed| listed.iter().any(|method| method == "none"));
        if takes_none || self.assumed { AuthMethod::None } else { self.secret_auth_method() }
    }
}
