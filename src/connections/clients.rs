//! Who this gateway is to an authorization server: registered by the operator, by its metadata document, or on request.
//!
//! MCP 2026-07-28 authorization, client registration: in that order.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::Error;
use super::service::Inner;
use super::vault::Bound;
use crate::config::{OauthClient, Secret, Settings};
use crate::oauth::{self, AuthMethod, Client, ClientDocument, Discovered, RegistrationError, join_scopes};
use crate::store::{REGISTRATION_SECRET, RegistrationRow};

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
    refused: Mutex<HashSet<String>>,
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
        Ok(Clients { configured, redirect_uri, document, document_url, refused: Mutex::default() })
    }

    pub(super) fn document(&self) -> String {
        let document = match &self.document_url {
            Some(url) => self.document.clone().served_at(url),
            None => self.document.clone(),
        };
        serde_json::to_string(&document).expect("texts and lists are JSON")
    }

    /// This issuer does not take our document; it is registered with from now on.
    pub(super) fn refuse_document(&self, issuer: &str) {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).insert(issuer.to_owned());
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
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        self.document_url.as_deref().filter(|_| {
            found.server.client_id_metadata_document_supported && !refused.contains(&found.server.issuer)
        })
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
        if let Some(known) = self.registered(issuer).await.map_err(NoClient::Store)? {
            return Ok((known, Source::Registered));
        }
        let mut document = self.clients.document.clone();
        // Some servers refuse later what a client did not name when it was registered.
        let named = join_scopes(&join_scopes(scopes, &found.scopes_listed), &found.server.scopes_supported);
        document.scope = Some(named.join(" ")).filter(|scope| !scope.is_empty());
        let made =
            oauth::register(&self.egress, &found.server, &document).await.map_err(NoClient::Registration)?;
        let place = format!("{issuer} {}", self.clients.redirect_uri);
        let bound = Bound { row: &place, project: "", user: "" };
        let row = RegistrationRow {
            issuer: issuer.clone(),
            redirect_uri: self.clients.redirect_uri.clone(),
            client_id: made.id.clone(),
            sealed_secret: made
                .secret
                .as_ref()
                .map(|secret| self.vault.seal(&REGISTRATION_SECRET, bound, secret.expose().as_bytes())),
            auth_method: method_name(made.auth_method).to_owned(),
        };
        let kept = self.store.keep_registration(&row, self.now()).await;
        kept.map_err(|error| NoClient::Store(error.into()))?;
        // Another instance may have been first; then its client is everybody's.
        match self.registered(issuer).await.map_err(NoClient::Store)? {
            Some(client) => Ok((client, Source::Registered)),
            None => Ok((made, Source::Registered)),
        }
    }

    /// The client that `issuer` made for us.
    pub(super) async fn registered(&self, issuer: &str) -> Result<Option<Client>, Error> {
        let row = self.store.find_registration(issuer, &self.clients.redirect_uri).await?;
        row.map(|row| self.registered_client(row)).transpose()
    }

    fn registered_client(&self, row: RegistrationRow) -> Result<Client, Error> {
        let place = format!("{} {}", row.issuer, row.redirect_uri);
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

    /// The server does not know this client any more: the next login gets another one.
    pub(super) async fn lose_client(&self, source: Source, issuer: &str, id: &str) -> Result<(), Error> {
        match source {
            Source::Configured => {
                tracing::error!(
                    oauth.issuer = issuer,
                    "the authorization server refuses the client of `oauth_clients`"
                );
            }
            Source::Document => self.clients.refuse_document(issuer),
            Source::Registered => {
                let redirect = &self.clients.redirect_uri;
                self.store.void_registration(issuer, redirect, id, self.now()).await?;
            }
        }
        Ok(())
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
