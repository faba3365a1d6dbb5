//! Who this gateway is to an authorization server: registered by the operator, by its metadata document, or on request.
//!
//! MCP 2026-07-28 authorization, client registration: in that order.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::sync::Cache;
use serde::{Deserialize, Serialize};

use super::Error;
use super::flow::LIFE;
use super::service::Inner;
use super::vault::Bound;
use crate::config::{OauthClient, Secret, Settings};
use crate::oauth::{
    self, AuthMethod, Client, ClientDocument, Discovered, Registered, RegistrationError, join_scopes,
    split_scopes,
};
use crate::store::{REGISTRATION_SECRET, RegistrationRow};

/// Issuers that refused our document, and for how long that is remembered.
const MOST_REFUSALS: u64 = 10_000;
const REFUSAL_AGE: Duration = Duration::from_secs(3600);
/// A client made this shortly ago, in milliseconds, is not made anew because a browser brought an error.
const YOUNG: i64 = 600_000;

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
    /// Issuers that did not take the document.
    refused: Cache<String, ()>,
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
        let refused = Cache::builder().max_capacity(MOST_REFUSALS).time_to_live(REFUSAL_AGE).build();
        Ok(Clients { configured, redirect_uri, document, document_url, refused, turns: Mutex::default() })
    }

    pub(super) fn document(&self) -> String {
        let document = match &self.document_url {
            Some(url) => self.document.clone().served_at(url),
            None => self.document.clone(),
        };
        serde_json::to_string(&document).expect("texts and lists are JSON")
    }

    /// This issuer does not take our document; for a while it is registered with instead.
    fn refuse_document(&self, issuer: &str) {
        self.refused.insert(issuer.to_owned(), ());
    }

    /// Where registrations at an issuer come one after the other.
    fn turn(&self, issuer: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(issuer.to_owned()).or_default())
    }

    /// The operator's client at an issuer.
    pub(super) fn configured(&self, issuer: &str, server: Option<&oauth::ServerMetadata>) -> Option<Client> {
        let (client, secret) = self.configured.iter().find(|(client, _)| client.issuer == issuer)?;
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
        Some(made)
    }

    /// What the operator wants to be asked for at an issuer.
    pub(super) fn scopes(&self, issuer: &str) -> &[String] {
        self.configured
            .iter()
            .find(|(client, _)| client.issuer == issuer)
            .map_or(&[], |(client, _)| &client.scopes)
    }

    /// Whether there is any way to become known to this server.
    pub(super) fn has_way(&self, found: &Discovered) -> bool {
        found.server.registration_endpoint.is_some()
            || self.takes_document(found).is_some()
            || self.configured(&found.server.issuer, None).is_some()
            || self.configured(&found.authorization_server, None).is_some()
    }

    fn takes_document(&self, found: &Discovered) -> Option<&str> {
        // Without another way it is tried again.
        let is_refused =
            found.server.registration_endpoint.is_some() && self.refused.contains_key(&found.server.issuer);
        self.document_url
            .as_deref()
            .filter(|_| found.server.client_id_metadata_document_supported && !is_refused)
    }
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
    /// The client to be at the server that was found. A registration is stored before it is used.
    pub(super) async fn client_for(
        &self,
        found: &Discovered,
        scopes: &[String],
    ) -> Result<(Client, Source), NoClient> {
        let issuer = &found.server.issuer;
        if let Some(client) = self
            .clients
            .configured(issuer, Some(&found.server))
            .or_else(|| self.clients.configured(&found.authorization_server, Some(&found.server)))
        {
            return Ok((client, Source::Configured));
        }
        if let Some(url) = self.clients.takes_document(found) {
            return Ok((Client::public(url), Source::Document));
        }
        if let Some(known) = self.registered(issuer, scopes).await.map_err(NoClient::Store)? {
            return Ok((known, Source::Registered));
        }
        let turn = self.clients.turn(issuer);
        let _turn = turn.lock().await;
        if let Some(known) = self.registered(issuer, scopes).await.map_err(NoClient::Store)? {
            return Ok((known, Source::Registered));
        }
        let made = self.register(found, scopes).await?;
        Ok((made, Source::Registered))
    }

    async fn register(&self, found: &Discovered, scopes: &[String]) -> Result<Client, NoClient> {
        let store = |error| NoClient::Store(Error::from(error));
        let (issuer, redirect_uri) = (&found.server.issuer, &self.clients.redirect_uri);
        let now = self.now();
        let before = self.store.find_registration(issuer, redirect_uri, now).await.map_err(store)?;
        let before = before.map(|row| split_scopes(&row.scopes)).unwrap_or_default();
        // Some servers refuse later what a client did not name when it was registered.
        let named = [&found.scopes_listed, &found.server.scopes_supported, &before]
            .into_iter()
            .fold(join_scopes(scopes, &[]), |all, more| join_scopes(&all, more))
            .join(" ");
        let mut document = self.clients.document.clone();
        document.scope = Some(named.clone()).filter(|scope| !scope.is_empty());
        let Registered { client, secret_expires_at_seconds } =
            oauth::register(&self.egress, &found.server, &document).await.map_err(NoClient::Registration)?;
        let place = place_of(issuer, redirect_uri, &client.id);
        let bound = Bound { row: &place, project: "", user: "" };
        let sealed_secret = client
            .secret
            .as_ref()
            .map(|secret| self.vault.seal(&REGISTRATION_SECRET, bound, secret.expose().as_bytes()));
        let row = RegistrationRow {
            issuer: issuer.clone(),
            redirect_uri: redirect_uri.clone(),
            client_id: client.id.clone(),
            sealed_secret,
            auth_method: method_name(client.auth_method).to_owned(),
            scopes: named,
            // An end that is over already is a mistake of the server: it has just given the secret.
            expires_at: secret_expires_at_seconds.map(|end| end * 1000).filter(|end| *end > now),
        };
        self.store.keep_registration(&row, now).await.map_err(store)?;
        Ok(client)
    }

    /// The client that `issuer` made for us, if it may ask for these scopes and outlives a flow.
    async fn registered(&self, issuer: &str, scopes: &[String]) -> Result<Option<Client>, Error> {
        let until = self.now() + LIFE;
        let row = self.store.find_registration(issuer, &self.clients.redirect_uri, until).await?;
        let row = row.filter(|row| {
            let named = split_scopes(&row.scopes);
            scopes.iter().all(|scope| named.contains(scope))
        });
        row.map(|row| self.registered_client(row)).transpose()
    }

    fn registered_client(&self, row: RegistrationRow) -> Result<Client, Error> {
        let place = place_of(&row.issuer, &row.redirect_uri, &row.client_id);
        let bound = Bound { row: &place, project: "", user: "" };
        let secret = row
            .sealed_secret
            .as_ref()
            .map(|sealed| self.vault.open_text(&REGISTRATION_SECRET, bound, sealed))
            .transpose()?;
        Ok(Client { id: row.client_id, secret, auth_method: method_of(&row.auth_method) })
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
            Source::Configured => self
                .clients
                .configured(issuer, None)
                .or_else(|| self.clients.configured(authorization_server, None)),
            Source::Document => Some(Client::public(id)),
            Source::Registered => {
                let row = self.store.find_registration_of(issuer, id).await?;
                row.map(|row| self.registered_client(row)).transpose()?
            }
        };
        Ok(client.filter(|client| client.id == id).map(|client| Client { auth_method: method, ..client }))
    }

    /// The server itself says that it does not know this client any more: the next login gets another one.
    pub(super) async fn lose_client(&self, source: Source, issuer: &str, id: &str) -> Result<(), Error> {
        match source {
            Source::Configured => refused_operator(issuer),
            Source::Document => self.clients.refuse_document(issuer),
            Source::Registered => {
                let redirect = &self.clients.redirect_uri;
                self.store.void_registration(issuer, redirect, id, self.now()).await?;
            }
        }
        Ok(())
    }

    /// A browser says that the server does not want this client. Whoever has the browser can say so: the next login gets
    /// another client, and nobody loses theirs.
    pub(super) async fn doubt_client(&self, source: Source, issuer: &str, id: &str) -> Result<(), Error> {
        match source {
            Source::Configured => refused_operator(issuer),
            Source::Document => self.clients.refuse_document(issuer),
            Source::Registered => {
                let (redirect, now) = (&self.clients.redirect_uri, self.now());
                self.store.retire_registration(issuer, redirect, id, now - YOUNG, now).await?;
            }
        }
        Ok(())
    }
}

fn refused_operator(issuer: &str) {
    tracing::error!(
        oauth.issuer = issuer,
        "the authorization server refuses the client of `oauth_clients`; check its id and secret"
    );
}

/// What the secret of a registration is sealed to.
fn place_of(issuer: &str, redirect_uri: &str, client_id: &str) -> String {
    format!("{issuer} {redirect_uri} {client_id}")
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
