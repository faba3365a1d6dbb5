//! Settings about authorization servers: clients the operator registered by hand, and known oddities.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::validate::{Problem, http_url, is_loopback, problem};
use super::{Secret, Settings};

/// A client that the operator registered at an authorization server by hand.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OauthClient {
    /// The authorization server's issuer, character by character as its metadata says it.
    pub issuer: String,
    pub client_id: String,
    /// Hosts of the protected resources that it is for: a name, `name:port`, or `*.example.com` for every name below it.
    /// Tokens of this client go to no other.
    pub resources: Vec<String>,
    pub client_secret: Option<Secret>,
    /// The environment variable that holds the secret.
    pub client_secret_env: Option<String>,
    /// The file that holds the secret.
    pub client_secret_file: Option<PathBuf>,
    /// All that may be asked for; asked for where a challenge names nothing. Empty: whatever the server lists.
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
    /// Tells its tools to everybody and wants a login for the calls: it is asked for before the first one.
    pub open_list: Option<bool>,
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

/// Checks what concerns authorization servers.
pub(super) fn check(settings: &Settings) -> Result<(), Problem> {
    if let Some(url) = &settings.connections.client_metadata_url {
        let path = "connections.client_metadata_url";
        let url = http_url(path, url)?;
        if url.scheme() != "https" || url.path().len() < 2 {
            return Err(problem(path, "must begin with https:// and have a path")
                .hint("such as https://tools.example.com/oauth/client-metadata.json"));
        }
    }
    for (number, entry) in settings.oauth_clients.iter().enumerate() {
        check_client(&format!("oauth_clients.{number}"), entry)?;
        if settings.oauth_clients[..number].iter().any(|other| other.issuer == entry.issuer) {
            return Err(problem(format!("oauth_clients.{number}.issuer"), "is given to two clients"));
        }
    }
    for (number, row) in settings.oauth_quirks.iter().enumerate() {
        check_quirk(&format!("oauth_quirks.{number}"), row)?;
    }
    Ok(())
}

fn check_client(path: &str, entry: &OauthClient) -> Result<(), Problem> {
    let at = |key: &str| format!("{path}.{key}");
    if entry.issuer.is_empty() {
        return Err(
            problem(at("issuer"), "is missing").hint("`toolgate doctor URL` shows the issuer of a server")
        );
    }
    safe_url(&at("issuer"), &entry.issuer)?;
    if entry.client_id.is_empty() {
        return Err(problem(at("client_id"), "is missing")
            .hint("the server gives it when you register the gateway there"));
    }
    if !is_visible(&entry.client_id) {
        return Err(problem(at("client_id"), "must be one line of visible characters"));
    }
    if entry.resources.is_empty() {
        return Err(problem(at("resources"), "is missing")
            .hint("the hosts of the MCP servers that this client is for, such as `[\"mcp.example.com\"]`"));
    }
    check_hosts(&at("resources"), &entry.resources)?;
    if entry.client_secret.as_ref().is_some_and(|secret| !is_visible(secret.expose())) {
        return Err(problem(at("client_secret"), "must be one line of visible characters"));
    }
    let sources = [
        ("client_secret", entry.client_secret.is_some()),
        ("client_secret_env", entry.client_secret_env.is_some()),
        ("client_secret_file", entry.client_secret_file.is_some()),
    ];
    let given: Vec<&str> = sources.iter().filter(|(_, given)| *given).map(|(key, _)| *key).collect();
    if let [first, second, ..] = given[..] {
        return Err(problem(at(second), format!("contradicts `{first}`"))
            .hint("keep one of `client_secret`, `client_secret_env` and `client_secret_file`"));
    }
    match (entry.auth_method, given.is_empty()) {
        (Some(AuthMethod::ClientSecretPost | AuthMethod::ClientSecretBasic), true) => {
            Err(problem(at("auth_method"), "needs a secret")
                .hint("give `client_secret_env`, `client_secret_file` or `client_secret`"))
        }
        (Some(_) | None, _) => Ok(()),
    }
}

fn check_hosts(path: &str, hosts: &[String]) -> Result<(), Problem> {
    for (place, host) in hosts.iter().enumerate() {
        let is_host = !host.is_empty() && host != "*" && !host.contains(['/', '@', ' ']);
        if !is_host || host.matches('*').count() > 1 {
            return Err(problem(format!("{path}.{place}"), "must be a host name alone")
                .hint("such as `login.example.com`, `localhost:8080` or `*.example.com`"));
        }
    }
    Ok(())
}

fn check_quirk(path: &str, row: &OauthQuirk) -> Result<(), Problem> {
    let at = |key: &str| format!("{path}.{key}");
    if row.issuers.is_empty() && row.resources.is_empty() {
        return Err(problem(path, "applies to no server").hint("give it `issuers` or `resources`"));
    }
    for (key, hosts) in [("issuers", &row.issuers), ("resources", &row.resources)] {
        check_hosts(&at(key), hosts)?;
    }
    if let Some(endpoints) = &row.endpoints {
        let optional = [("registration", &endpoints.registration), ("revocation", &endpoints.revocation)];
        let all = [("authorization", &endpoints.authorization), ("token", &endpoints.token)]
            .into_iter()
            .chain(optional.into_iter().filter_map(|(name, url)| Some((name, url.as_ref()?))));
        for (name, url) in all {
            safe_url(&at(&format!("endpoints.{name}")), url)?;
        }
    }
    Ok(())
}

fn safe_url(path: &str, text: &str) -> Result<(), Problem> {
    let url = http_url(path, text)?;
    if url.scheme() == "https" || url.host().is_some_and(is_loopback) {
        return Ok(());
    }
    Err(problem(path, "must begin with https:// outside this machine"))
}

fn is_visible(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}
