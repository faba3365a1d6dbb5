//! Who this gateway is to an authorization server: registered by the operator, by its metadata document, or on request.
//!
//! MCP 2026-07-28 authorization, client registration: in that order.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use http::Uri;
use serde::{Deserialize, Serialize};

use super::Error;
use super::doctor::not_for;
use super::service::Inner;
use super::vault::Bound;
use crate::config::{OauthClient, Secret, Settings};
use crate::oauth::{
    self, AuthMethod, Client, ClientDocument, Discovered, RegistrationError, join_scopes, split_scopes,
};
use crate::store::{REGISTRATION_SECRET, RegistrationRow};

/// For so long an issuer that did not take our document is registered with, in milliseconds.
const REFUSAL: i64 = 3_600_000;
/// Such issuers that are remembered.
const MOST_REFUSALS: usize = 1000;
/// Clients of one issuer in a day: then the one there is has to do. What servers and browsers say can lead to a new one.
const MOST_A_DAY: i64 = 50;
/// Clients of one issuer in a day that a browser's word can lead to.
const MOST_BY_BROWSERS: i64 = 10;
const DAY: i64 = 24 * 3_600_000;

/// Where a client comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Source {
    /// The operator registered it.
    Configured,
    /// Its id is the address of our document.
    Document,
    /// The server made it on request.
    Registered,
}

/// The operator's clients, and what all others say of themselves.
pub(super) struct Clients {
    configured: Vec<(OauthClient, Option<Secret>)>,
    pub redirect_uri: String,
    document: ClientDocument,
    /// The address of our document, where servers can reach it.
    document_url: Option<String>,
    /// Issuers that did not take the document, and until when that is believed.
    refused: Mutex<HashMap<String, i64>>,
    /// Issuers where we are being registered: by one login at a time.
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// Why there is no client.
pub(super) enum NoClient {
    Registration(RegistrationError),
    Store(Error),
}

impl Clients {
    pub(super) fn new(
        settings: &Settings,
        variable: &dyn Fn(&str) -> Option<String>,
        public_url: &str,
    ) -> Result<Self, String> {
        let mut configured = Vec::new();
        for client in &settings.oauth_clients {
            configured.push((client.clone(), secret_of(client, variable)?));
        }
        let redirect_uri = format!("{public_url}/oauth/callback");
        let document_url = settings.connections.client_metadata_url.clone().or_else(|| {
            public_url.starts_with("https://").then(|| format!("{public_url}/oauth/client-metadata.json"))
        });
        let document = ClientDocument::new(public_url, &redirect_uri);
        let (refused, turns) = Default::default();
        Ok(Clients { configured, redirect_uri, document, document_url, refused, turns })
    }

    pub(super) fn document(&self) -> String {
        let document = match &self.document_url {
            Some(url) => self.document.clone().served_at(url),
            None => self.document.clone(),
        };
        serde_json::to_string(&document).expect("texts and lists are JSON")
    }

    /// This issuer does not take our document; it is registered with for a while.
    fn refuse_document(&self, issuer: &str, now: i64) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.len() >= MOST_REFUSALS {
            refused.clear();
        }
        refused.insert(issuer.to_owned(), now + REFUSAL);
    }

    /// Where registrations at an issuer come one after the other: many of them count how often they are asked.
    fn turn(&self, issuer: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(issuer.to_owned()).or_default())
    }

    /// The operator's client for what was found. Anybody's metadata may name any issuer: a client is for the resources
    /// that the operator named with it, and its tokens go nowhere else.
    fn configured_for(&self, found: &Discovered) -> Option<&(OauthClient, Option<Secret>)> {
        let resource: Uri = found.resource.parse().ok()?;
        self.configured.iter().find(|(client, _)| is_of(client, found) && is_for(client, &resource))
    }

    /// The operator's client at an issuer, with this id.
    fn configured_as(&self, issuers: [&str; 2], id: &str) -> Option<Client> {
        let known = self
            .configured
            .iter()
            .find(|(client, _)| issuers.contains(&client.issuer.as_str()) && client.client_id == id);
        known.map(|known| Self::made(known, None))
    }

    fn made(
        (client, secret): &(OauthClient, Option<Secret>),
        server: Option<&oauth::ServerMetadata>,
    ) -> Client {
        let fallback = oauth::ServerMetadata::default();
        let mut made = match secret {
            Some(secret) => {
                Client::confidential(&client.client_id, secret.clone(), server.unwrap_or(&fallback))
            }
            None => Client::public(&client.client_id),
        };
        if let Some(method) = client.auth_method {
            made.auth_method = method;
        }
        made
    }

    /// All that the operator lets be asked for with the client for what was found; empty when there is no limit.
    pub(super) fn most_scopes(&self, found: &Discovered) -> &[String] {
        self.configured_for(found).map_or(&[], |(client, _)| &client.scopes)
    }

    /// Why there is no way to become known to this server, if there is none.
    pub(super) fn no_way(&self, found: &Discovered) -> Option<String> {
        let has_way = found.server.registration_endpoint.is_some()
            || self.takes_document(found, 0).is_some()
            || self.configured_for(found).is_some();
        (!has_way).then(|| match self.configured.iter().find(|(client, _)| is_of(client, found)) {
            Some((client, _)) => not_for(client, found),
            None => super::doctor::by_hand(found, &self.redirect_uri),
        })
    }

    /// The address of our document, where this server takes it. What refused it is registered with, where that is
    /// possible.
    fn takes_document(&self, found: &Discovered, now: i64) -> Option<&str> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let is_refused = refused.get(&found.server.issuer).is_some_and(|until| *until > now)
            && found.server.registration_endpoint.is_some();
        self.document_url
            .as_deref()
            .filter(|_| found.server.client_id_metadata_document_supported && !is_refused)
    }
}

/// The scopes to ask for with a client that may ask for `most` at most; empty is no limit. Where the server wants some
/// right now, those of them that are within.
pub(super) fn within(scopes: Vec<String>, most: &[String], challenged: bool) -> Vec<String> {
    if most.is_empty() {
        return scopes;
    }
    let wanted: Vec<String> = scopes.into_iter().filter(|scope| challenged && most.contains(scope)).collect();
    if wanted.is_empty() { most.to_vec() } else { wanted }
}

pub(super) fn is_of(client: &OauthClient, found: &Discovered) -> bool {
    client.issuer == found.server.issuer || client.issuer == found.authorization_server
}

/// Whether the operator's client may be used for this resource.
pub(super) fn is_for(client: &OauthClient, resource: &Uri) -> bool {
    client.resources.iter().any(|host| oauth::is_host(host, resource))
}

fn secret_of(
    client: &OauthClient,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<Secret>, String> {
    if let Some(secret) = &client.client_secret {
        return Ok(Some(secret.clone()));
    }
    if let Some(name) = &client.client_secret_env {
        let value = variable(name).ok_or_else(|| {
            format!("the variable `{name}`, which `oauth_clients` names for {}, is not set", client.issuer)
        })?;
        return Ok(Some(Secret::new(value)));
    }
    if let Some(file) = &client.client_secret_file {
        let text = std::fs::read_to_string(file).map_err(|error| {
            format!("`{}`, which `oauth_clients` names, cannot be read: {error}", file.display())
        })?;
        return Ok(Some(Secret::new(text.trim_end_matches(['\n', '\r']))));
    }
    Ok(None)
}

impl Inner {
    /// The client to be at the server that was found. A registration is stored before it is used. `again` when the person
    /// has left for this server before, and did not come back.
    pub(super) async fn client_for(
        &self,
        found: &Discovered,
        scopes: &[String],
        again: bool,
    ) -> Result<(Client, Source), NoClient> {
        if let Some(known) = self.clients.configured_for(found) {
            return Ok((Clients::made(known, Some(&found.server)), Source::Configured));
        }
        // Servers that refuse our document say so on a page of their own, and lead nobody back.
        let document = !again || found.server.registration_endpoint.is_none();
        if let Some(url) = self.clients.takes_document(found, self.now()).filter(|_| document) {
            return Ok((Client::public(url), Source::Document));
        }
        let client = self.registered_for(found, scopes).await?;
        Ok((client, Source::Registered))
    }

    /// The client that the server made for us; a new one when there is none that suffices.
    ///
    /// It is everybody's at this server, and anybody's resource may name scopes of any server: so only those count that
    /// the server knows, where it says which it does.
    async fn registered_for(&self, found: &Discovered, scopes: &[String]) -> Result<Client, NoClient> {
        let (issuer, redirect_uri) = (&found.server.issuer, &self.clients.redirect_uri);
        let turn = self.clients.turn(issuer);
        let _turn = turn.lock().await;
        let now = self.now();
        let find = || self.store.find_registration(issuer, redirect_uri);
        let known = find().await.map_err(NoClient::store)?;
        let made = self.store.count_registrations(issuer, now - DAY).await.map_err(NoClient::store)?;
        let supported = &found.server.scopes_supported;
        let known_of = |scopes: &[String]| -> Vec<String> {
            let is_known = |scope: &&String| supported.is_empty() || supported.contains(scope);
            scopes.iter().filter(is_known).cloned().collect()
        };
        let scopes = known_of(scopes);
        // What is wanted now comes first: a list is cut where it gets too long.
        let mut named = join_scopes(&scopes, &known_of(&found.scopes_listed));
        if let Some(row) = &known {
            let before = split_scopes(&row.scope);
            // Some servers refuse what a client did not name when it was registered.
            let suffices = scopes.iter().all(|scope| before.contains(scope));
            let is_over = row.expires_at.is_some_and(|end| end <= now);
            if !is_over && (suffices || made >= MOST_A_DAY) {
                return self.registered_client(row).map_err(NoClient::Store);
            }
            named = join_scopes(&named, &known_of(&before));
        }
        if made >= MOST_A_DAY {
            let reason = format!("{issuer} has registered this gateway {made} times today");
            return Err(NoClient::Registration(RegistrationError::Temporary { reason, retry_after: None }));
        }
        named = join_scopes(&named, supported);
        let mut document = self.clients.document.clone();
        document.scope = Some(named.join(" ")).filter(|scope| !scope.is_empty());
        let new =
            oauth::register(&self.egress, &found.server, &document).await.map_err(NoClient::Registration)?;
        let row = self.registration_row(issuer, &new, named.join(" "), now);
        if let Some(known) = known {
            let retired = self.store.retire_registration(issuer, &known.client_id, now).await;
            retired.map_err(NoClient::store)?;
        }
        self.store.keep_registration(&row, now).await.map_err(NoClient::store)?;
        // Another instance may have been first; then its client is everybody's.
        match find().await.map_err(NoClient::store)? {
            Some(row) => self.registered_client(&row).map_err(NoClient::Store),
            None => Ok(new.client),
        }
    }

    fn registration_row(
        &self,
        issuer: &str,
        new: &oauth::NewClient,
        scope: String,
        now: i64,
    ) -> RegistrationRow {
        let redirect_uri = self.clients.redirect_uri.clone();
        let client = &new.client;
        let place = format!("{issuer} {redirect_uri} {}", client.id);
        let bound = Bound { row: &place, project: "", user: "" };
        let seal = |secret: &Secret| self.vault.seal(&REGISTRATION_SECRET, bound, secret.expose().as_bytes());
        // An end in the past means something else, such as a number of seconds: then it is not known.
        let ends = new.secret_ends.map(|end| end.saturating_mul(1000)).filter(|end| *end > now);
        RegistrationRow {
            issuer: issuer.to_owned(),
            client_id: client.id.clone(),
            sealed_secret: client.secret.as_ref().map(seal),
            auth_method: method_name(client.auth_method).to_owned(),
            scope,
            expires_at: ends,
            redirect_uri,
        }
    }

    fn registered_client(&self, row: &RegistrationRow) -> Result<Client, Error> {
        let place = format!("{} {} {}", row.issuer, row.redirect_uri, row.client_id);
        let bound = Bound { row: &place, project: "", user: "" };
        let secret = row
            .sealed_secret
            .as_ref()
            .map(|sealed| self.vault.open_text(&REGISTRATION_SECRET, bound, sealed))
            .transpose()?;
        Ok(Client { id: row.client_id.clone(), secret, auth_method: method_of(&row.auth_method) })
    }

    /// The client that a connection was made with; `None` when the server has made another one since.
    pub(super) async fn client_of(
        &self,
        source: Source,
        issuer: &str,
        authorization_server: &str,
        id: &str,
        method: AuthMethod,
    ) -> Result<Option<Client>, Error> {
        let client = match source {
            Source::Configured => self.clients.configured_as([issuer, authorization_server], id),
            Source::Document => Some(Client::public(id)),
            Source::Registered => {
                let row = self.store.find_registration_of(issuer, id).await?;
                row.as_ref().map(|row| self.registered_client(row)).transpose()?
            }
        };
        Ok(client.filter(|client| client.id == id).map(|client| Client { auth_method: method, ..client }))
    }

    /// The token endpoint does not know this client any more: nobody can use it, and the next login gets another one.
    pub(super) async fn lose_client(&self, source: Source, issuer: &str, id: &str) -> Result<(), Error> {
        match source {
            Source::Configured => {
                tracing::error!(
                    oauth.issuer = issuer,
                    "the authorization server refuses the client of `oauth_clients`"
                );
            }
            Source::Document => self.clients.refuse_document(issuer, self.now()),
            Source::Registered => self.store.void_registration(issuer, id, self.now()).await?,
        }
        Ok(())
    }

    /// A browser says that the server does not take this client. That may be anybody's word, so it is believed for new
    /// logins only, and not too often; connections that were made with the client go on with it.
    pub(super) async fn doubt_client(&self, source: Source, issuer: &str, id: &str) -> Result<(), Error> {
        match source {
            Source::Configured => {
                tracing::warn!(
                    oauth.issuer = issuer,
                    "a login says that the client of `oauth_clients` is refused"
                );
            }
            Source::Document => self.clients.refuse_document(issuer, self.now()),
            Source::Registered => {
                let now = self.now();
                if self.store.count_registrations(issuer, now - DAY).await? < MOST_BY_BROWSERS {
                    self.store.retire_registration(issuer, id, now).await?;
                }
            }
        }
        Ok(())
    }
}

impl NoClient {
    fn store(error: crate::store::Error) -> Self {
        NoClient::Store(error.into())
    }
}

fn method_name(method: AuthMethod) -> &'static str {
    match method {
        AuthMethod::None => "none",
        AuthMethod::ClientSecretPost => "client_secret_post",
        AuthMethod::ClientSecretBasic => "client_secret_basic",
    }
}

fn method_of(name: &str) -> AuthMethod {
    match name {
        "client_secret_post" => AuthMethod::ClientSecretPost,
        "client_secret_basic" => AuthMethod::ClientSecretBasic,
        _ => AuthMethod::None,
    }
}
