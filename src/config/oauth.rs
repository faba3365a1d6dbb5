//! Settings about authorization servers: clients the operator registered by hand, and known oddities.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Secret;

/// A client that the operator registered at an authorization server by hand.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OauthClient {
    /// The authorization server's issuer, character by character as its metadata says it.
    pub issuer: String,
    pub client_id: String,
    pub client_secret: Option<Secret>,
    /// The environment variable that holds the secret.
    pub client_secret_env: Option<String>,
    /// The file that holds the secret.
    pub client_secret_file: Option<PathBuf>,
    /// Asked for instead of what the server lists; a challenge's own scopes win.
    pub scopes: Vec<String>,
    /// `None` is what the server lists, `client_secret_basic` first; `none` without a secret.
    pub auth_method: Option<AuthMethod>,
}

/// How a client proves itself at the token endpoint (RFC 6749 §2.3.1, RFC 7591 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthMethod {
    /// Not at all: a public client.
    None,
    /// The secret in the body.
    ClientSecretPost,
    /// The secret in the `Authorization` header.
    ClientSecretBasic,
}

/// What one authorization server or protected resource does differently. A row applies when the issuer's host is one of
/// `issuers` or the resource's host is one of `resources`; of several rows that apply, later ones win field by field.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OauthQuirk {
    /// Hosts of issuers: a name, `name:port`, or `*.example.com` for every name below it.
    pub issuers: Vec<String>,
    /// Hosts of protected resources, written alike.
    pub resources: Vec<String>,
    /// What it does, for the person who reads the diagnosis.
    pub about: Option<String>,
    /// Whether to send the `resource` parameter (RFC 8707). Default: `send`.
    pub resource: Option<SendResource>,
    /// Takes PKCE with S256 although its metadata does not say so.
    pub assume_s256: Option<bool>,
    /// The `issuer` its metadata may name although it was asked for another.
    pub accept_issuer: Option<String>,
    /// The `resource` its metadata may name although that does not cover the address.
    pub accept_resource: Option<String>,
    /// Added to the authorize URL.
    pub authorize_parameters: BTreeMap<String, String>,
    /// The authorize parameter that takes the scopes. Default: `scope`.
    pub scope_parameter: Option<String>,
    /// What stands between scopes. Default: a space.
    pub scope_separator: Option<String>,
    /// How to prove the client, whatever the metadata lists.
    pub auth_method: Option<AuthMethod>,
    /// Used when it publishes no metadata.
    pub endpoints: Option<OauthEndpoints>,
    /// The field of a token response that holds the object with the user's token.
    pub token_field: Option<String>,
    /// Error codes that mean `invalid_grant`.
    pub grant_errors: Vec<String>,
    /// Error codes that mean `invalid_client`.
    pub client_errors: Vec<String>,
    /// Statuses, other than 401, by which the resource says that a token has expired.
    pub expired_statuses: Vec<u16>,
    /// A part of a successful answer's text by which the resource says that a token has expired.
    pub expired_text: Option<String>,
    /// No registration by program; completes "{host} …" for the operator.
    pub registration: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SendResource {
    #[default]
    Send,
    Omit,
}

/// Addresses of an authorization server without metadata.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OauthEndpoints {
    pub authorization: String,
    pub token: String,
    pub registration: Option<String>,
    pub revocation: Option<String>,
}
