//! What single servers do differently, as data: a table of rows, and what applies to one server.
//!
//! The rows themselves stand elsewhere (the built-in ones in `connections`, an operator's in the configuration).

use std::collections::BTreeMap;
use std::sync::Arc;

use http::Uri;

use super::AuthMethod;
use crate::config::{OauthEndpoints, OauthQuirk, SendResource};
use crate::egress::parse_uri;

/// Rows, the later ones stronger. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct QuirkTable(Arc<[OauthQuirk]>);

/// What applies to one server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quirks {
    /// What the rows that apply say they are about.
    pub about: Vec<String>,
    pub resource: SendResource,
    pub assume_s256: bool,
    pub accept_issuer: Option<String>,
    pub accept_resource: Option<String>,
    pub authorize_parameters: BTreeMap<String, String>,
    pub scope_parameter: Option<String>,
    pub scope_separator: Option<String>,
    pub auth_method: Option<AuthMethod>,
    pub endpoints: Option<OauthEndpoints>,
    pub token_field: Option<String>,
    pub grant_errors: Vec<String>,
    pub client_errors: Vec<String>,
    pub expired_statuses: Vec<u16>,
    pub expired_text: Option<String>,
    pub open_list: bool,
    pub registration: Option<String>,
}

impl QuirkTable {
    /// The table of these rows.
    pub fn new(rows: impl IntoIterator<Item = OauthQuirk>) -> QuirkTable {
        QuirkTable(rows.into_iter().collect())
    }

    /// What applies to a server; either address may be unknown.
    pub fn find(&self, issuer: Option<&str>, resource: Option<&Uri>) -> Quirks {
        let issuer = issuer.and_then(|issuer| parse_uri(issuer).ok());
        let mut found = Quirks::default();
        for row in self.0.iter() {
            let named = |hosts: &[String], uri: Option<&Uri>| {
                uri.is_some_and(|uri| hosts.iter().any(|host| is_host(host, uri)))
            };
            if named(&row.issuers, issuer.as_ref()) || named(&row.resources, resource) {
                found.add(row);
            }
        }
        found
    }
}

impl Quirks {
    fn add(&mut self, row: &OauthQuirk) {
        fn replace<T: Clone>(old: &mut Option<T>, new: &Option<T>) {
            if new.is_some() {
                old.clone_from(new);
            }
        }
        self.about.extend(row.about.clone());
        self.resource = row.resource.unwrap_or(self.resource);
        self.assume_s256 = row.assume_s256.unwrap_or(self.assume_s256);
        replace(&mut self.accept_issuer, &row.accept_issuer);
        replace(&mut self.accept_resource, &row.accept_resource);
        self.authorize_parameters.extend(row.authorize_parameters.clone());
        replace(&mut self.scope_parameter, &row.scope_parameter);
        replace(&mut self.scope_separator, &row.scope_separator);
        replace(&mut self.auth_method, &row.auth_method);
        replace(&mut self.endpoints, &row.endpoints);
        replace(&mut self.token_field, &row.token_field);
        self.grant_errors.extend(row.grant_errors.iter().cloned());
        self.client_errors.extend(row.client_errors.iter().cloned());
        self.expired_statuses.extend(&row.expired_statuses);
        replace(&mut self.expired_text, &row.expired_text);
        self.open_list = row.open_list.unwrap_or(self.open_list);
        replace(&mut self.registration, &row.registration);
    }

    /// Whether this answer to a request with a token is the server's way to say that the token has expired. `text` is
    /// the beginning of the answer. 401 always means it; ask this for other statuses.
    pub fn hides_expiry(&self, status: u16, text: &[u8]) -> bool {
        self.expired_statuses.contains(&status)
            || (status == 200
                && self.expired_text.as_ref().is_some_and(|wanted| {
                    !wanted.is_empty() && memchr::memmem::find(text, wanted.as_bytes()).is_some()
                }))
    }

    /// What `resource` to send with requests to the authorization server, if any.
    pub fn resource_parameter<'a>(&self, resource: &'a str) -> Option<&'a str> {
        match self.resource {
            SendResource::Send => Some(resource),
            SendResource::Omit => None,
        }
    }
}

/// Whether `pattern` (`name`, `name:port`, or a name with one `*` for anything) is the host of `uri`.
pub fn is_host(pattern: &str, uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    let pattern = pattern.to_ascii_lowercase();
    let authority = uri.authority().map_or("", http::uri::Authority::as_str);
    if pattern.eq_ignore_ascii_case(authority) {
        return true;
    }
    if uri.port().is_some() {
        return false;
    }
    match pattern.split_once('*') {
        Some((before, after)) => {
            host.len() > before.len() + after.len() && host.starts_with(before) && host.ends_with(after)
        }
        None => pattern == host,
    }
}
