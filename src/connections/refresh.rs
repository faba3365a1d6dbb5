//! Renewing tokens: one renewal per connection, on any number of instances, with the database alone.
//!
//! The right to renew is a lease in the store. It is taken before the refresh token is spent, so that a store that
//! cannot be written is noticed in time. What the authorization server gives is stored by a task that nobody can
//! cancel, if the generation is still the one that was spent.

use std::sync::Arc;
use std::time::Duration;

use super::access::{Current, Endpoints, Held, RenewalTrouble, end_of};
use super::clients::Source;
use super::service::{Connections, Inner};
use super::vault::Bound;
use super::{Error, Reason, Renewed};
use crate::clean_json;
use crate::config::Secret;
use crate::egress::Reach;
use crate::oauth::{self, Client, TokenEndpoint, TokenError, Tokens};
use crate::store::{
    CONNECTION_ACCESS, CONNECTION_REFRESH, ConnectionRow, NewSecrets, RenewalFailure, SecretsRow,
};

/// How long one renewal may take before another instance may try, in milliseconds. Longer than a token request.
const LEASE: i64 = 45_000;
/// How often a renewal by somebody else is looked after.
const LOOK: Duration = Duration::from_millis(100);
/// How long tokens that could not be stored are held on to.
pub(super) const HOLD_ON: Duration = Duration::from_secs(600);
/// Longest pause after failures, in milliseconds.
const LONGEST_PAUSE: i64 = 300_000;

impl Connections {
    /// Newer tokens than those of `generation`.
    ///
    /// # Errors
    /// When they cannot be had just now.
    pub(super) async fn renew_held(&self, held: &Arc<Held>, generation: i64) -> Result<Renewed, Error> {
        let (inner, held) = (Arc::clone(&self.0), Arc::clone(held));
        // A task of its own: neither a client that leaves nor a run that is cancelled may stop it halfway.
        let renewing = tokio::spawn(async move {
            let _one_at_a_time = held.renewing.lock().await;
            inner.renew_once(&held, generation).await
        });
        renewing.await.unwrap_or(Err(Error::NotNow))
    }
}

impl Inner {
    async fn renew_once(&self, held: &Held, generation: i64) -> Result<Renewed, Error> {
        let known = held.current();
        if known.generation > generation && known.ended.is_none() {
            return Ok(Renewed::Access(held.access(&known)));
        }
        loop {
            let row = self.store.find_connection(&held.row.project, &held.row.id).await?;
            let secrets = self.store.find_secrets(&held.row.project, &held.row.id).await?;
            let (Some(row), Some(secrets)) = (row, secrets) else {
                self.forget(&held.owner);
                return Ok(Renewed::LoginNeeded { reason: Reason::Revoked });
            };
            let current = self.open_current(&row, &secrets)?;
            held.replace(current.clone());
            if let Some(reason) = current.ended {
                return Ok(Renewed::LoginNeeded { reason });
            }
            if current.generation > generation {
                return Ok(Renewed::Access(held.access(&current)));
            }
            let Some(sealed) = &secrets.sealed_refresh else {
                self.end_login(held, generation, None, "expired").await?;
                return Ok(Renewed::LoginNeeded { reason: Reason::Expired });
            };
            let now = self.now();
            if secrets.retry_at > now {
                return self.not_now(held);
            }
            // Whatever can fail, and is not the renewal itself, comes before the lease: an error would keep it.
            let bound = Bound { row: &row.id, project: &row.project, user: &row.user };
            let refresh = self.vault.open_text(&CONNECTION_REFRESH, bound, sealed)?;
            // Of this row, not of what is in memory: another login may have led to another server since.
            let endpoints: Endpoints = clean_json::from_slice(&row.endpoints).map_err(|_| Error::Store)?;
            let client = self.client_of(
                endpoints.source,
                &row.issuer,
                &endpoints.authorization_server,
                &row.client_id,
                endpoints.auth_method,
            );
            let Some(client) = client.await? else {
                self.end_login(held, generation, None, "client_replaced").await?;
                return Ok(Renewed::LoginNeeded { reason: Reason::Revoked });
            };
            let until = self.now() + LEASE;
            let taken = self.store.take_lease(&row, generation, &self.instance, now, LEASE).await?;
            if !taken {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            // A process that slept until now has lost what it took.
            if self.now() >= until {
                continue;
            }
            return self.spend(held, &row, &endpoints, &secrets, &client, refresh).await;
        }
    }

    /// Spends the refresh token. The lease is ours.
    async fn spend(
        &self,
        held: &Held,
        row: &ConnectionRow,
        endpoints: &Endpoints,
        secrets: &SecretsRow,
        client: &Client,
        refresh: Secret,
    ) -> Result<Renewed, Error> {
        let generation = secrets.generation;
        let quirks = self.quirks_of(endpoints);
        let endpoint = TokenEndpoint {
            url: &endpoints.token,
            reach: Reach::Requested,
            client,
            resource: Some(&row.resource),
            quirks: &quirks,
        };
        match oauth::refresh(&self.egress, &endpoint, &refresh).await {
            Ok(tokens) => self.keep_rotation(held, row, generation, &refresh, &tokens).await,
            Err(TokenError::InvalidGrant) => {
                // Somebody may have spent it before us: then theirs is the good one.
                let newest = self.store.find_secrets(&row.project, &row.id).await?;
                if let Some(newest) = newest.filter(|newest| newest.generation > generation) {
                    let current = self.open_current(row, &newest)?;
                    held.replace(current.clone());
                    return Ok(Renewed::Access(held.access(&current)));
                }
                // An attempt before this one never said how it ended: it may have spent the token.
                let in_doubt = secrets.attempt_started_at.is_some();
                let reason = if in_doubt { "in_doubt" } else { "ended" };
                self.end_login(held, generation, Some(&self.instance), reason).await?;
                Ok(Renewed::LoginNeeded { reason: Reason::Revoked })
            }
            Err(TokenError::InvalidClient) if endpoints.source == Source::Registered => {
                self.lose_client(endpoints.source, &row.issuer, &row.client_id).await?;
                self.end_login(held, generation, Some(&self.instance), "client_unknown").await?;
                Ok(Renewed::LoginNeeded { reason: Reason::Revoked })
            }
            Err(
                error @ (TokenError::Temporary { .. }
                | TokenError::NotAnAnswer { .. }
                | TokenError::InvalidTarget
                | TokenError::InvalidScope
                | TokenError::InvalidClient
                | TokenError::Refused { .. }
                | TokenError::Address(_)),
            ) => self.fail_renewal(held, row, endpoints, secrets, &error).await,
        }
    }

    /// A renewal failed, and nothing says that the refresh token is good for nothing: it is kept and tried again. When
    /// the server refused it, or does not recover, the user may also log in anew.
    async fn fail_renewal(
        &self,
        held: &Held,
        row: &ConnectionRow,
        endpoints: &Endpoints,
        secrets: &SecretsRow,
        error: &TokenError,
    ) -> Result<Renewed, Error> {
        // The operator's own client, or our document: with the right secret, or when the document can be fetched again,
        // everybody's login is as good as before.
        if matches!(error, TokenError::InvalidClient) {
            self.lose_client(endpoints.source, &row.issuer, &row.client_id).await?;
        }
        // Some servers that have forgotten a client say this. The next login gets another one.
        if matches!(error, TokenError::Refused { code } if code == "unauthorized_client") {
            self.doubt_client(endpoints.source, &row.issuer, &row.client_id).await?;
        }
        let wanted = match error {
            TokenError::Temporary { retry_after, .. } => *retry_after,
            _ => None,
        };
        // Once the token may have been spent, that stays so until an answer says otherwise.
        let in_doubt = secrets.attempt_started_at.is_some()
            || match error {
                TokenError::Temporary { in_doubt, .. } | TokenError::NotAnAnswer { in_doubt, .. } => {
                    *in_doubt
                }
                _ => false,
            };
        // A new login would be refused for the operator's own client just the same.
        let refusal = match (error, endpoints.source) {
            (TokenError::InvalidClient, Source::Configured) => None,
            (error, _) => refusal_of(error),
        };
        let now = self.now();
        let retry_at = now + pause(secrets.failures, wanted);
        tracing::warn!(%error, connection.id = row.id, oauth.issuer = row.issuer, "a token was not renewed");
        let failure = RenewalFailure { at: now, retry_at, in_doubt, refusal };
        self.store.give_lease_back(row, secrets.generation, &self.instance, &failure).await?;
        let mut current = held.current();
        if current.generation == secrets.generation {
            current.failing = Some(RenewalTrouble {
                since: secrets.failing_since.unwrap_or(now),
                failures: secrets.failures + 1,
                is_refused: refusal.is_some() || secrets.refusal.is_some(),
            });
            held.replace(current.clone());
        }
        match current.expires_at {
            Some(end) if end > self.now() => Ok(Renewed::Access(held.access(&current))),
            _ => self.not_now(held),
        }
    }

    /// What to do while there are no new tokens: to wait, or to log in anew.
    pub(super) fn not_now(&self, held: &Held) -> Result<Renewed, Error> {
        if self.renewal_patience.is_over(held.current().failing, self.now()) {
            return Ok(Renewed::LoginNeeded { reason: Reason::Expired });
        }
        Err(Error::NotNow)
    }

    /// Stores what a renewal gave. A store that fails now is asked again: these tokens exist nowhere else.
    async fn keep_rotation(
        &self,
        held: &Held,
        row: &ConnectionRow,
        generation: i64,
        old: &Secret,
        tokens: &Tokens,
    ) -> Result<Renewed, Error> {
        let now = self.now();
        let bound = Bound { row: &row.id, project: &row.project, user: &row.user };
        let refresh = tokens.refresh.as_ref().unwrap_or(old);
        let secrets = NewSecrets {
            sealed_access: self.vault.seal(&CONNECTION_ACCESS, bound, tokens.access.expose().as_bytes()),
            sealed_refresh: Some(self.vault.seal(&CONNECTION_REFRESH, bound, refresh.expose().as_bytes())),
            issued_at: now,
            expires_at: tokens
                .expires_in_seconds
                .map(|life| now.saturating_add(i64::try_from(life).unwrap_or(i64::MAX).saturating_mul(1000))),
        };
        let scopes = tokens.scope.as_deref().unwrap_or(&row.scopes);
        let started = tokio::time::Instant::now();
        let mut pause = Duration::from_millis(50);
        let stored = loop {
            match self.try_keep(held, row, generation, &secrets, scopes).await {
                Ok(stored) => break stored,
                Err(error) if started.elapsed() < HOLD_ON => {
                    tracing::error!(%error, connection.id = row.id, "renewed tokens could not be stored yet");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
                Err(error) => return Err(error),
            }
        };
        if !stored {
            // A newer login or rotation is there already.
            let newest = self.store.find_secrets(&row.project, &row.id).await?;
            let Some(newest) = newest else {
                // The connection was ended meanwhile, with the tokens that were spent just then: these live on.
                self.forget(&held.owner);
                self.revoke_late(row, tokens).await?;
                return Ok(Renewed::LoginNeeded { reason: Reason::Revoked });
            };
            let current = self.open_current(row, &newest)?;
            held.replace(current.clone());
            return Ok(Renewed::Access(held.access(&current)));
        }
        let current = Current {
            generation: generation + 1,
            authorization: Secret::new(format!("Bearer {}", tokens.access.expose())),
            can_renew: true,
            issued_at: now,
            expires_at: secrets.expires_at,
            ended: None,
            failing: None,
        };
        held.replace(current.clone());
        self.store.notify("connection").await;
        Ok(Renewed::Access(held.access(&current)))
    }

    async fn try_keep(
        &self,
        held: &Held,
        row: &ConnectionRow,
        generation: i64,
        secrets: &NewSecrets,
        scopes: &str,
    ) -> Result<bool, Error> {
        let now = self.now();
        let mut open = self.store.begin().await?;
        let mut stored =
            open.rotate_secrets(row, generation, Some(&self.instance), secrets, scopes, now).await?;
        if !stored {
            // The lease ran out meanwhile, and nobody has got newer tokens: ours are the only good ones.
            stored = open.rotate_secrets(row, generation, None, secrets, scopes, now).await?;
        }
        if stored {
            let mut entry = self.audit(&held.owner, "token.refreshed", "gateway");
            entry.connection = Some(row.id.clone());
            entry.resource = Some(row.resource.clone());
            open.add_audit(&entry).await?;
        }
        open.commit().await?;
        Ok(stored)
    }

    /// Says that only a new login helps.
    pub(super) async fn end_login(
        &self,
        held: &Held,
        generation: i64,
        lease: Option<&str>,
        reason: &str,
    ) -> Result<(), Error> {
        let row = &held.row;
        let now = self.now();
        let mut open = self.store.begin().await?;
        let ended = open.need_login(row, generation, lease, reason, now).await?;
        if ended {
            let mut entry = self.audit(&held.owner, "connection.needs_reauth", "gateway");
            entry.connection = Some(row.id.clone());
            entry.resource = Some(row.resource.clone());
            entry.detail = Some(reason.to_owned());
            open.add_audit(&entry).await?;
            self.tell_project(
                &mut open,
                &held.owner,
                &row.id,
                "connection.needs_reauth",
                serde_json::json!({ "connection": row.id, "resource": row.resource, "reason": reason }),
            )
            .await?;
        }
        open.commit().await?;
        if ended {
            held.end(generation, end_of(reason));
        }
        self.changed(&held.owner).await;
        Ok(())
    }
}

/// The word for a failure that is a refusal; `None` when the server is busy, broken or not to be reached.
fn refusal_of(error: &TokenError) -> Option<&str> {
    match error {
        TokenError::InvalidGrant => Some("invalid_grant"),
        TokenError::InvalidClient => Some("invalid_client"),
        TokenError::InvalidTarget => Some("invalid_target"),
        TokenError::InvalidScope => Some("invalid_scope"),
        TokenError::Refused { code } => Some(code),
        TokenError::NotAnAnswer { .. } => Some("no_answer"),
        TokenError::Temporary { .. } | TokenError::Address(_) => None,
    }
}

/// Milliseconds until the next attempt, after `failures` others.
fn pause(failures: i64, wanted: Option<Duration>) -> i64 {
    let doubled = 1000_i64.saturating_mul(1 << failures.clamp(0, 9));
    let wanted = wanted.map_or(0, |wanted| i64::try_from(wanted.as_millis()).unwrap_or(LONGEST_PAUSE));
    doubled.max(wanted).min(LONGEST_PAUSE)
}
