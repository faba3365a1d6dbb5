//! Being known to an authorization server: the operator's own client, our metadata document, or a registration by
//! request, in this order (MCP 2026-07-28, client registration).
//!
//! A registration is kept before it is used, and never deleted: tokens that were issued to it can be renewed and revoked
//! by nobody else.

use serde::Serialize;

use crate::config::{self, AuthMethod, Secret, Settings};
use crate::crypto::{Keyring, OpenError};
use crate::egress::Egress;
use crate::id::{random_bytes, random_id};
use crate::oauth::{self, Client, ClientDocument, Discovered, RegistrationError};
use crate::store::{self, REGISTRATION_SECRET, Registration, Store};

/// Registrations that an authorization server disowned within this time count against a new one.
const FORGETFUL: i64 = 60 * 60 * 1000;
/// So many of them, and no new one is asked for.
const MOST_DISOWNED: usize = 2;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Registration(#[from] RegistrationError),
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A stored secret does not open.
    #[error("the client's secret cannot be opened: {0}")]
    Sealed(#[from] OpenError),
}

/// How we become known to an authorization server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "by", content = "with", rename_all = "snake_case")]
pub enum Choice {
    /// The operator's client of this id, from `[[oauth_clients]]`.
    Operator(String),
    /// Our client metadata document at this address.
    Document(String),
    /// A registration by request, at this address.
    Request(String),
    /// Not at all: the operator has to register us by hand. The text says where and how.
    ByHand(String),
}

/// What is known without asking anybody: the operator's clients and our own addresses. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Clients {
    operators: Vec<Operator>,
    public_url: String,
    redirect_uri: String,
    document_url: Option<String>,
}

#[derive(Debug, Clone)]
struct Operator {
    entry: config::OauthClient,
    secret: Option<Secret>,
}

impl Clients {
    /// For a gateway that people reach at `public_url`, without a trailing slash. `variable` reads the environment.
    ///
    /// # Errors
    /// A secret that cannot be had; the text names the entry.
    pub fn new(
        settings: &Settings,
        public_url: &str,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Clients, String> {
        let operators = settings
            .oauth_clients
            .iter()
            .map(|entry| Ok(Operator { entry: entry.clone(), secret: secret_of(entry, variable)? }));
        // Nobody can fetch a document from here when we are not on the web.
        let document_url = settings.connections.client_metadata_url.clone().or_else(|| {
            public_url.starts_with("https://").then(|| format!("{public_url}/oauth/client-metadata.json"))
        });
        Ok(Clients {
            operators: operators.collect::<Result<_, String>>()?,
            public_url: public_url.to_owned(),
            redirect_uri: format!("{public_url}/oauth/callback"),
            document_url,
        })
    }

    /// Where browsers come back to.
    pub fn redirect_uri(&self) -> &str {
        &self.redirect_uri
    }

    /// What is served at `/oauth/client-metadata.json`: JSON, below 5 KiB.
    pub fn document(&self) -> String {
        let mut document = self.describe(&[]);
        document.client_id = self.document_url.clone();
        serde_json::to_string(&document).expect("texts and lists are JSON")
    }

    /// How we become known to this server, as far as that can be said without the store.
    pub fn choose(&self, found: &Discovered) -> Choice {
        if let Some(operator) = self.operator(found) {
            return Choice::Operator(operator.entry.client_id.clone());
        }
        if found.server.client_id_metadata_document_supported
            && let Some(url) = &self.document_url
        {
            return Choice::Document(url.clone());
        }
        match &found.server.registration_endpoint {
            Some(url) => Choice::Request(url.clone()),
            None => Choice::ByHand(self.by_hand(found)),
        }
    }

    /// What the operator can do when the server registers nobody, or not us.
    pub fn by_hand(&self, found: &Discovered) -> String {
        let host = host_of(&found.authorization_server);
        let about = match &found.quirks.registration {
            Some(about) => format!("{host} {about}"),
            None => format!("{host} registers no clients by itself"),
        };
        format!(
            "{about}. Register this gateway there with the redirect address {}, and add the client under \
             `[[oauth_clients]]` with `issuer = \"{}\"`",
            self.redirect_uri, found.server.issuer
        )
    }

    /// The scopes that the operator wants for clients of this server; empty for no wish.
    pub fn scopes(&self, found: &Discovered) -> &[String] {
        self.operator(found).map_or(&[], |operator| &operator.entry.scopes)
    }

    fn operator(&self, found: &Discovered) -> Option<&Operator> {
        let names = [found.server.issuer.as_str(), found.authorization_server.as_str()];
        let is_same = |issuer: &str| {
            names.iter().any(|name| name.trim_end_matches('/') == issuer.trim_end_matches('/'))
        };
        self.operators.iter().find(|operator| is_same(&operator.entry.issuer))
    }

    fn operator_client(&self, found: &Discovered) -> Option<Client> {
        let Operator { entry, secret } = self.operator(found)?;
        let mut client = match secret {
            Some(secret) => Client::confidential(&entry.client_id, secret.clone(), &found.server),
            None => Client::public(&entry.client_id),
        };
        client.auth_method = entry.auth_method.unwrap_or(client.auth_method);
        Some(client)
    }

    fn describe(&self, scopes: &[String]) -> ClientDocument {
        let mut document = ClientDocument::new(&self.public_url, &self.redirect_uri);
        document.scope = (!scopes.is_empty()).then(|| scopes.join(" "));
        document
    }
}

/// Finds and makes clients. Cheap to clone.
#[derive(Clone)]
pub struct Registrar {
    pub clients: Clients,
    egress: Egress,
    store: Store,
    keyring: Keyring,
}

impl Registrar {
    /// Over this store; secrets are sealed with `keyring`.
    pub fn new(clients: Clients, egress: Egress, store: Store, keyring: Keyring) -> Registrar {
        Registrar { clients, egress, store, keyring }
    }

    /// The client to send somebody to this server with, who is to be asked for `scopes`. Made when there is none yet; a
    /// registration for fewer scopes is not used, since many servers hold clients to those they named at first.
    ///
    /// # Errors
    /// See [`Error`]; [`Clients::by_hand`] says what the operator can do.
    pub async fn client_for(
        &self,
        found: &Discovered,
        scopes: &[String],
        now_ms: i64,
    ) -> Result<Client, Error> {
        if let Some(client) = self.clients.operator_client(found) {
            return Ok(client);
        }
        let issuer = found.authorization_server.as_str();
        let known = self.store.list_registrations(issuer, &self.clients.redirect_uri).await?;
        let document = match self.clients.choose(found) {
            Choice::Document(url) => Some(url),
            Choice::Operator(_) | Choice::Request(_) | Choice::ByHand(_) => None,
        };
        if let Some(url) = document
            && known.iter().all(|row| row.client_id != url)
        {
            return Ok(Client::public(url));
        }
        let scopes = oauth::join_scopes(scopes, &found.scopes_listed);
        if let Some(row) = usable(&known, &scopes, now_ms) {
            return self.open(row);
        }
        let disowned = known.iter().filter(|row| row.invalid_at.is_some_and(|at| at > now_ms - FORGETFUL));
        if disowned.count() >= MOST_DISOWNED {
            let host = host_of(issuer);
            return Err(RegistrationError::Refused { host, code: "invalid_client".to_owned() }.into());
        }
        let registered =
            oauth::register(&self.egress, &found.server, &self.clients.describe(&scopes)).await?;
        let mut row = Registration {
            id: random_id("reg_"),
            issuer: issuer.to_owned(),
            redirect_uri: self.clients.redirect_uri.clone(),
            client_id: registered.client.id.clone(),
            sealed_secret: None,
            auth_method: word_of(registered.client.auth_method).to_owned(),
            scopes: scopes.join(" "),
            created_at: now_ms,
            expires_at: registered.expires_at_ms,
            invalid_at: None,
        };
        row.sealed_secret = registered.client.secret.as_ref().map(|secret| {
            let place = REGISTRATION_SECRET.place(&row.id, "", "");
            self.keyring.seal(random_bytes(), &place, secret.expose().as_bytes())
        });
        self.store.create_registration(&row).await?;
        // Of several instances that registered at once, all take the one that was kept first.
        let known = self.store.list_registrations(issuer, &self.clients.redirect_uri).await?;
        self.open(usable(&known, &scopes, now_ms).unwrap_or(&row))
    }

    /// The client of this id, to renew or revoke what was issued to it; `None` when nobody knows it any more.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Sealed`].
    pub async fn find_client(&self, found: &Discovered, client_id: &str) -> Result<Option<Client>, Error> {
        if let Some(client) = self.clients.operator_client(found).filter(|client| client.id == client_id) {
            return Ok(Some(client));
        }
        if self.clients.document_url.as_deref() == Some(client_id) {
            return Ok(Some(Client::public(client_id)));
        }
        let issuer = &found.authorization_server;
        let known = self.store.list_registrations(issuer, &self.clients.redirect_uri).await?;
        known.iter().find(|row| row.client_id == client_id).map(|row| self.open(row)).transpose()
    }

    /// The server said `invalid_client`, or refused our document: the next flow uses another client. Says whether that
    /// is news; if so, what was issued to this client cannot be renewed any more.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn disown(&self, found: &Discovered, client_id: &str, now_ms: i64) -> Result<bool, Error> {
        if self.clients.document_url.as_deref() != Some(client_id) {
            let issuer = &found.authorization_server;
            return Ok(self.store.mark_registration_invalid(issuer, client_id, now_ms).await?);
        }
        let known =
            self.store.list_registrations(&found.authorization_server, &self.clients.redirect_uri).await?;
        if known.iter().any(|row| row.client_id == client_id) {
            return Ok(false);
        }
        // A row that is invalid from the start: the document is passed over from now on.
        let refused = Registration {
            id: random_id("reg_"),
            issuer: found.authorization_server.clone(),
            redirect_uri: self.clients.redirect_uri.clone(),
            client_id: client_id.to_owned(),
            sealed_secret: None,
            auth_method: word_of(AuthMethod::None).to_owned(),
            scopes: String::new(),
            created_at: now_ms,
            expires_at: None,
            invalid_at: Some(now_ms),
        };
        self.store.create_registration(&refused).await?;
        Ok(true)
    }

    fn open(&self, row: &Registration) -> Result<Client, Error> {
        let secret = match &row.sealed_secret {
            Some(sealed) => {
                let opened = self.keyring.open(&REGISTRATION_SECRET.place(&row.id, "", ""), sealed)?;
                let text = std::str::from_utf8(&opened).map_err(|_| OpenError::Malformed)?;
                Some(Secret::new(text))
            }
            None => None,
        };
        Ok(Client { id: row.client_id.clone(), secret, auth_method: method_of(&row.auth_method) })
    }
}

/// The first registration that is good for these scopes.
fn usable<'a>(known: &'a [Registration], scopes: &[String], now_ms: i64) -> Option<&'a Registration> {
    known.iter().find(|row| {
        row.invalid_at.is_none()
            && row.expires_at.is_none_or(|at| at > now_ms)
            && scopes.iter().all(|scope| row.scopes.split(' ').any(|known| known == scope))
    })
}

fn word_of(method: AuthMethod) -> &'static str {
    match method {
        AuthMethod::None => "none",
        AuthMethod::ClientSecretPost => "client_secret_post",
        AuthMethod::ClientSecretBasic => "client_secret_basic",
    }
}

fn method_of(word: &str) -> AuthMethod {
    match word {
        "client_secret_post" => AuthMethod::ClientSecretPost,
        "client_secret_basic" => AuthMethod::ClientSecretBasic,
        _ => AuthMethod::None,
    }
}

fn host_of(url: &str) -> String {
    let uri = url.parse::<http::Uri>().ok();
    uri.and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_else(|| "the server".to_owned())
}

fn secret_of(
    entry: &config::OauthClient,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<Secret>, String> {
    if let Some(path) = &entry.client_secret_file {
        let text = std::fs::read_to_string(path).map_err(|error| {
            format!("the secret file {} of the client at {}: {error}", path.display(), entry.issuer)
        })?;
        return Ok(Some(Secret::new(text.trim())));
    }
    if let Some(name) = &entry.client_secret_env {
        let text = variable(name).filter(|text| !text.is_empty());
        let text = text.ok_or_else(|| {
            format!("the client at {} takes its secret from {name}, which is not set", entry.issuer)
        })?;
        return Ok(Some(Secret::new(text)));
    }
    Ok(entry.client_secret.clone())
}
