//! From an owner and an address to a token. When warm, without the store.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::{PoisonError, RwLock};

use http::Uri;
use serde::{Deserialize, Serialize};

use super::clients::Source;
use super::service::{Connections, Inner};
use super::vault::Bound;
use super::{Access, Error, Owner, Reason, Renewed};
use crate::clean_json;
use crate::config::Secret;
use crate::oauth::{self, AuthMethod, Challenge};
use crate::store::{CONNECTION_ACCESS, ConnectionRow, SecretsRow};

/// A token this close to its end is not sent any more, in milliseconds: it would arrive too late.
const MARGIN: i64 = 2_000;
/// A token is called fresh this long after it was issued, in milliseconds.
pub(super) const FRESH: i64 = 60_000;

/// How the tokens of a connection are renewed and revoked. Kept as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Endpoints {
    pub token: String,
    pub revocation: Option<String>,
    pub authorization_server: String,
    pub source: Source,
    pub auth_method: AuthMethod,
    /// The address the application named, for those who ask where it leads.
    pub server_url: String,
    /// Under which proof it was made: `gateway`, `app` or `local`.
    pub proof: String,
    pub application: String,
    pub verified: bool,
}

/// The connections of one owner.
pub(super) struct Holdings(pub Vec<Arc<Held>>);

/// One connection in memory.
pub(super) struct Held {
    pub row: ConnectionRow,
    pub endpoints: Endpoints,
    pub owner: Owner,
    tokens: RwLock<Current>,
    /// Only one renewal of this process at a time.
    pub renewing: Arc<tokio::sync::Mutex<()>>,
}

/// The tokens now.
#[derive(Clone)]
pub(super) struct Current {
    pub generation: i64,
    pub authorization: Secret,
    pub can_renew: bool,
    pub issued_at: i64,
    pub expires_at: Option<i64>,
    /// Only a new login helps.
    pub ended: Option<Reason>,
    /// Set while renewals fail.
    pub failing: Option<RenewalTrouble>,
}

/// Renewals that failed one after the other. The tokens stay: another attempt, or a new login, may help.
#[derive(Clone, Copy)]
pub(super) struct RenewalTrouble {
    /// Milliseconds since 1970.
    pub since: i64,
    pub failures: i64,
    /// The authorization server said no, and not that it is busy.
    pub is_refused: bool,
}

/// When renewals have failed for so long that a new login is offered beside further attempts.
#[derive(Clone, Copy)]
pub(super) struct RenewalPatience {
    pub failures: i64,
    pub milliseconds: i64,
}

impl RenewalPatience {
    /// Whether the user is offered a new login once the access token does not work any more.
    pub(super) fn is_over(self, trouble: Option<RenewalTrouble>, now: i64) -> bool {
        trouble.is_some_and(|trouble| {
            let has_lasted =
                trouble.failures >= self.failures && now.saturating_sub(trouble.since) >= self.milliseconds;
            trouble.is_refused || has_lasted
        })
    }
}

impl Held {
    /// Whether its tokens are for `uri`. Where the operator accepts a resource that does not cover the address it
    /// belongs to (`accept_resource`), that address counts.
    fn covers(&self, uri: &Uri) -> bool {
        let (resource, server_url) = (&self.row.resource, &self.endpoints.server_url);
        let is_apart = || server_url.parse().is_ok_and(|server: Uri| !oauth::covers(resource, &server));
        oauth::covers(resource, uri) || (oauth::covers(server_url, uri) && is_apart())
    }

    pub(super) fn current(&self) -> Current {
        self.tokens.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn replace(&self, current: Current) {
        let mut tokens = self.tokens.write().unwrap_or_else(PoisonError::into_inner);
        if current.generation >= tokens.generation {
            *tokens = current;
        }
    }

    /// Says that only a new login helps against the end of the tokens of `generation`.
    pub(super) fn end(&self, generation: i64, reason: Reason) {
        let mut tokens = self.tokens.write().unwrap_or_else(PoisonError::into_inner);
        if tokens.generation == generation {
            tokens.ended = Some(reason);
        }
    }

    pub(super) fn access(&self, current: &Current) -> Access {
        Access {
            connection: self.row.id.as_str().into(),
            resource: self.row.resource.as_str().into(),
            generation: current.generation,
            authorization: current.authorization.clone(),
        }
    }
}

impl Current {
    /// Whether its life is over, or so nearly that it must not be sent.
    fn is_over(&self, now: i64) -> bool {
        self.expires_at.is_some_and(|end| now >= end - MARGIN.min((end - self.issued_at) / 5))
    }

    /// Whether it should be renewed while it is still good: less than a fifth of its life is left, five minutes of
    /// lives that are long enough.
    fn is_aging(&self, now: i64) -> bool {
        self.expires_at.is_some_and(|end| {
            let life = (end - self.issued_at).max(0);
            let margin = if life >= 25 * 60_000 { (life / 5).max(300_000) } else { life / 5 };
            self.can_renew && end - now < margin
        })
    }
}

impl Connections {
    /// A credential for `uri`, when this owner has a connection whose resource covers it: the same scheme, host and
    /// port, and the longest path. Without the store when warm. A token near its end is renewed beside this; one that
    /// is over, before.
    ///
    /// # Errors
    /// When the store is needed and fails, or an expired token cannot be renewed just now.
    pub async fn find_access(&self, owner: &Owner, uri: &Uri) -> Result<Option<Access>, Error> {
        self.access(owner, uri, true).await
    }

    /// As [`Connections::find_access`], for those who only look whether there is one: that is no use of it.
    ///
    /// # Errors
    /// As [`Connections::find_access`].
    pub async fn look_up(&self, owner: &Owner, uri: &Uri) -> Result<Option<Access>, Error> {
        self.access(owner, uri, false).await
    }

    /// Why the connection that covers `uri` gives no access any more. `None` when there is none, or it does.
    ///
    /// # Errors
    /// When the store is needed and fails.
    pub async fn find_end(&self, owner: &Owner, uri: &Uri) -> Result<Option<Reason>, Error> {
        let Some(held) = self.0.find_held(owner, uri).await? else { return Ok(None) };
        let current = held.current();
        let is_stuck = self.0.renewal_patience.is_over(current.failing, self.0.now());
        Ok(current.ended.or(is_stuck.then_some(Reason::Expired)))
    }

    async fn access(&self, owner: &Owner, uri: &Uri, is_use: bool) -> Result<Option<Access>, Error> {
        let Some(held) = self.0.find_held(owner, uri).await? else { return Ok(None) };
        let current = held.current();
        if current.ended.is_some() {
            return Ok(None);
        }
        let now = self.0.now();
        if is_use {
            self.0.used(&held, now);
        }
        if current.is_over(now) {
            return match self.renew_held(&held, current.generation).await? {
                Renewed::Access(access) => Ok(Some(access)),
                Renewed::LoginNeeded { .. } => Ok(None),
            };
        }
        if current.is_aging(now) && held.renewing.try_lock().is_ok() {
            let (connections, held, generation) = (self.clone(), Arc::clone(&held), current.generation);
            tokio::spawn(async move {
                if let Err(error) = connections.renew_held(&held, generation).await {
                    tracing::info!(%error, connection.id = held.row.id, "a token could not be renewed yet");
                }
            });
        }
        Ok(Some(held.access(&current)))
    }

    /// As [`Connections::find_access`], with what the store says now: a login at another instance may not have been
    /// heard of yet.
    ///
    /// # Errors
    /// As [`Connections::find_access`].
    pub async fn find_access_anew(&self, owner: &Owner, uri: &Uri) -> Result<Option<Access>, Error> {
        self.0.forget(owner);
        self.find_access(owner, uri).await
    }

    /// The server refused `access`. Renews once per generation; a fresh token that is refused ends the connection
    /// until the next login.
    ///
    /// # Errors
    /// When the store fails, or the authorization server cannot be asked just now.
    pub async fn renew(
        &self,
        owner: &Owner,
        access: &Access,
        challenge: &Challenge,
    ) -> Result<Renewed, Error> {
        if challenge.is_insufficient_scope() {
            return Ok(Renewed::LoginNeeded { reason: Reason::StepUp });
        }
        let holdings = self.0.holdings(owner).await?;
        let held = holdings.0.iter().find(|held| *held.row.id == *access.connection).cloned();
        let Some(held) = held else { return Ok(Renewed::LoginNeeded { reason: Reason::Revoked }) };
        let current = held.current();
        if let Some(reason) = current.ended {
            return Ok(Renewed::LoginNeeded { reason });
        }
        if current.generation > access.generation {
            return Ok(Renewed::Access(held.access(&current)));
        }
        // Renewed because it was refused, and refused again at once: another renewal would be refused as well.
        if self.0.was_refused_before(&held, access.generation) && self.0.now() - current.issued_at < FRESH {
            let _one_at_a_time = held.renewing.lock().await;
            if held.current().ended.is_none() {
                self.0.end_login(&held, current.generation, None, "refused").await?;
            }
            return Ok(Renewed::LoginNeeded { reason: Reason::Refused });
        }
        match self.renew_held(&held, access.generation).await? {
            // Nothing newer can be had, and this one was just refused.
            Renewed::Access(same) if same.generation <= access.generation => self.0.not_now(&held),
            renewed => Ok(renewed),
        }
    }

    /// Whether this answer to a request with `access` is the server's way to say that the token has expired: some say it
    /// with another status than 401, or in a result. Where the token's end is known, an answer means what it says until
    /// then. `text` is the beginning of the answer.
    pub async fn hides_expiry(
        &self,
        owner: &Owner,
        access: &Access,
        uri: &Uri,
        status: u16,
        text: &[u8],
    ) -> bool {
        if !self.0.quirks.find(None, Some(uri)).hides_expiry(status, text) {
            return false;
        }
        let Ok(holdings) = self.0.holdings(owner).await else { return false };
        let held = holdings.0.iter().find(|held| *held.row.id == *access.connection);
        held.is_some_and(|held| {
            let current = held.current();
            current.generation != access.generation
                || current.expires_at.is_none_or(|end| self.0.now() >= end)
        })
    }

    /// Whether the server at `uri` is known to tell its tools to everybody and to want a login for the calls.
    pub fn has_open_list(&self, uri: &Uri) -> bool {
        self.0.quirks.find(None, Some(uri)).open_list
    }

    /// A credential for the application itself; that it was given out is written down.
    ///
    /// # Errors
    /// As [`Connections::find_access`].
    pub async fn give_out(&self, owner: &Owner, uri: &Uri, by: &str) -> Result<Option<Access>, Error> {
        let found = self.find_access(owner, uri).await?;
        if let Some(access) = &found {
            let mut entry = self.0.audit(owner, "token.given_out", by);
            entry.connection = Some(access.connection.to_string());
            entry.resource = Some(uri.to_string());
            self.0.note(entry).await?;
        }
        Ok(found)
    }
}

/// What people are told about an end that is kept under this word.
pub(super) fn end_of(reason: &str) -> Reason {
    match reason {
        "expired" => Reason::Expired,
        "refused" => Reason::Refused,
        _ => Reason::Revoked,
    }
}

impl Inner {
    pub(super) async fn find_held(&self, owner: &Owner, uri: &Uri) -> Result<Option<Arc<Held>>, Error> {
        let holdings = self.holdings(owner).await?;
        let covering = holdings.0.iter().filter(|held| held.covers(uri));
        Ok(covering.max_by_key(|held| held.row.resource.trim_end_matches('/').len()).cloned())
    }

    pub(super) async fn holdings(&self, owner: &Owner) -> Result<Arc<Holdings>, Error> {
        if let Some(known) = self.owners.get(owner)
            && !self.is_behind()
        {
            return Ok(known);
        }
        let epoch = self.epoch.load(Ordering::SeqCst);
        if self.is_outsider(owner).await? {
            return Ok(Arc::new(Holdings(Vec::new())));
        }
        let rows = self.store.list_connections_of(&owner.project, &owner.user, &owner.profile).await?;
        let mut held = Vec::with_capacity(rows.len());
        for row in rows {
            let Some(secrets) = self.store.find_secrets(&row.project, &row.id).await? else { continue };
            held.push(Arc::new(self.hold(owner, row, &secrets)?));
        }
        let holdings = Arc::new(Holdings(held));
        self.owners.insert(owner.clone(), Arc::clone(&holdings));
        // What was read may have changed before it was kept, and whoever said so found nothing to forget.
        if self.epoch.load(Ordering::SeqCst) != epoch {
            self.owners.invalidate(owner);
        }
        Ok(holdings)
    }

    /// Whether the user is a person who has signed in here and is not let in any more: nobody uses their logins for them.
    pub(super) async fn is_outsider(&self, owner: &Owner) -> Result<bool, Error> {
        let may_be_person = self.admission.is_selective()
            && (owner.project.starts_with("project:")
                || &*owner.project == "person"
                || owner.project.starts_with("pt:"));
        if !may_be_person {
            return Ok(false);
        }
        let Some(account) = self.store.find_account(&owner.user).await? else { return Ok(false) };
        let is_let_in = self.admission.admits(&account.provider, &account.issuer, &account.email_domain);
        // Where the application proves its users, the name may be its own.
        Ok(!is_let_in && (!owner.project.starts_with("project:") || self.has_people(&owner.project).await?))
    }

    fn hold(&self, owner: &Owner, row: ConnectionRow, secrets: &SecretsRow) -> Result<Held, Error> {
        let endpoints = clean_json::from_slice(&row.endpoints).map_err(|_| Error::Store)?;
        let current = self.open_current(&row, secrets)?;
        Ok(Held {
            endpoints,
            owner: owner.clone(),
            tokens: RwLock::new(current),
            renewing: self.renewing.get_with_by_ref(&row.id, Arc::default),
            row,
        })
    }

    pub(super) fn open_current(&self, row: &ConnectionRow, secrets: &SecretsRow) -> Result<Current, Error> {
        let bound = Bound { row: &row.id, project: &row.project, user: &row.user };
        let access = self.vault.open_text(&CONNECTION_ACCESS, bound, &secrets.sealed_access)?;
        let ended = (row.status != "active").then(|| end_of(row.reason.as_deref().unwrap_or_default()));
        Ok(Current {
            generation: secrets.generation,
            authorization: Secret::new(format!("Bearer {}", access.expose())),
            can_renew: secrets.sealed_refresh.is_some(),
            issued_at: secrets.issued_at,
            expires_at: secrets.expires_at,
            ended,
            failing: secrets.failing_since.map(|since| RenewalTrouble {
                since,
                failures: secrets.failures,
                is_refused: secrets.refusal.is_some(),
            }),
        })
    }

    /// What the server of a connection does differently, looked up as at the login.
    pub(super) fn quirks_of(&self, endpoints: &Endpoints) -> oauth::Quirks {
        let server_url: Option<Uri> = endpoints.server_url.parse().ok();
        self.quirks.find(Some(&endpoints.authorization_server), server_url.as_ref())
    }

    /// Forgets what is kept of an owner, here.
    pub(super) fn forget(&self, owner: &Owner) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        self.owners.invalidate(owner);
    }

    /// Notes that the server refused a token of `generation`, and says whether it had refused an older one shortly
    /// before.
    fn was_refused_before(&self, held: &Held, generation: i64) -> bool {
        let noted = self.refused.entry_by_ref(&held.row.id).and_upsert_with(|noted| {
            let (before, newest) = noted.map_or((0, 0), moka::Entry::into_value);
            if generation > newest { (newest, generation) } else { (before, newest) }
        });
        let (before, newest) = noted.into_value();
        before > 0 && newest == generation
    }

    /// Remembers a use; it is written a little later.
    fn used(&self, held: &Held, now: i64) {
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        uses.insert((held.row.project.clone(), held.row.id.clone()), now);
    }
}
