//! Ending connections: here at once, and at the authorization server until it has agreed (RFC 7009).

use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::access::Endpoints;
use super::list::owner_of_row;
use super::service::{Connections, Inner};
use super::vault::Bound;
use super::webhooks::host_of_url;
use super::work::Job;
use super::{Error, Owner, RevokeOutcome};
use crate::config::Secret;
use crate::egress::Reach;
use crate::id::random_id;
use crate::oauth::{self, Hint, Revoked, TokenEndpoint};
use crate::store::{
    CONNECTION_ACCESS, CONNECTION_REFRESH, ConnectionRow, REVOCATION_ACCESS, REVOCATION_REFRESH,
    RevocationRow, Take,
};

/// How long whoever ends a connection waits for the authorization server.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time for one attempt before another instance may try, in milliseconds.
const LEASE: i64 = 90_000;
/// Longest attempt, which is shorter: a row must not be taken twice.
const LONGEST: Duration = Duration::from_secs(60);
/// Revocations at one host at the same time.
const PER_HOST: i64 = 4;
/// Time for the first attempt, which is made by whoever ends the connection, in milliseconds.
const GRACE: i64 = 15_000;
/// Connections that are ended at the same time.
const AT_ONCE: usize = 8;
/// Attempts before the tokens are forgotten: about three days.
const MOST_ATTEMPTS: i64 = 24;

impl Connections {
    /// Ends a connection for good. It is over here when this returns; the outcome says what the authorization server
    /// did. `by` names who wanted it.
    ///
    /// # Errors
    /// When the store fails; then nothing has changed.
    pub async fn revoke(&self, project: &str, id: &str, by: &str) -> Result<RevokeOutcome, Error> {
        let Some(row) = self.0.store.find_connection(project, id).await? else {
            return Ok(RevokeOutcome::NotFound);
        };
        self.revoke_row(&row, "user", by).await
    }

    /// Ends every connection of a project, a user or an issuer, and says for each what came of it.
    ///
    /// # Errors
    /// When the store fails; connections ended before that stay ended.
    pub async fn revoke_all(
        &self,
        project: Option<&str>,
        user: Option<&str>,
        issuer: Option<&str>,
        by: &str,
    ) -> Result<Vec<(ConnectionRow, RevokeOutcome)>, Error> {
        let rows = self.0.store.list_connections_everywhere(project, user, issuer).await?;
        stream::iter(rows)
            .map(async |row| self.revoke_row(&row, "bulk", by).await.map(|outcome| (row, outcome)))
            .buffered(AT_ONCE)
            .try_collect()
            .await
    }

    pub(super) async fn revoke_row(
        &self,
        row: &ConnectionRow,
        reason: &str,
        by: &str,
    ) -> Result<RevokeOutcome, Error> {
        let inner = &self.0;
        let revocation = match inner.end(row, reason, by, GRACE).await? {
            End::Before => return Ok(RevokeOutcome::NotFound),
            End::Here => return Ok(RevokeOutcome::Unsupported),
            End::Revoking(revocation) => revocation,
        };
        let (connections, project) = (self.clone(), row.project.clone());
        let attempt = tokio::spawn(async move { connections.0.revoke_now(&project, &revocation).await });
        let _ = tokio::time::timeout(PATIENCE, attempt).await;
        let settled = inner.store.find_revocation(&row.project, &row.id).await?;
        Ok(settled.map_or(RevokeOutcome::Retrying, |settled| outcome_of(&settled.outcome)))
    }
}

/// How a connection was ended.
pub(super) enum End {
    /// It had ended before.
    Before,
    /// There is nothing to do at the authorization server.
    Here,
    /// The revocation with this id is to be made.
    Revoking(String),
}

impl Inner {
    /// Ends a connection here, says so, and puts its tokens up for revocation, all or nothing. Whoever calls makes the
    /// first attempt within `grace` milliseconds, or leaves it to the worker.
    pub(super) async fn end(
        &self,
        row: &ConnectionRow,
        reason: &str,
        by: &str,
        grace: i64,
    ) -> Result<End, Error> {
        let owner = owner_of_row(row);
        let now = self.now();
        let mut open = self.store.begin().await?;
        let Some(secrets) = open.end_connection(row, reason, now).await? else {
            return Ok(End::Before);
        };
        let endpoints: Option<Endpoints> = serde_json::from_slice(&row.endpoints).ok();
        let revocation = secrets.and_then(|secrets| {
            let id = random_id("rev_");
            let from = Bound { row: &row.id, project: &row.project, user: &row.user };
            let to = Bound { row: &id, project: &row.project, user: &row.user };
            // What does not open cannot be revoked; it is of no use to anybody either.
            let access = self.vault.open(&CONNECTION_ACCESS, from, &secrets.sealed_access).ok()?;
            let refresh = secrets
                .sealed_refresh
                .as_ref()
                .and_then(|sealed| self.vault.open(&CONNECTION_REFRESH, from, sealed).ok());
            let can = endpoints.as_ref().is_some_and(|endpoints| endpoints.revocation.is_some());
            Some(RevocationRow {
                project: row.project.clone(),
                connection: row.id.clone(),
                user: row.user.clone(),
                sealed_refresh: refresh
                    .filter(|_| can)
                    .map(|token| self.vault.seal(&REVOCATION_REFRESH, to, &token)),
                sealed_access: can.then(|| self.vault.seal(&REVOCATION_ACCESS, to, &access)),
                issuer: row.issuer.clone(),
                client_id: row.client_id.clone(),
                endpoints: row.endpoints.clone(),
                host: endpoints
                    .as_ref()
                    .and_then(|endpoints| endpoints.revocation.as_deref())
                    .map(host_of_url)
                    .unwrap_or_default(),
                attempts: 0,
                outcome: if can { "waiting" } else { "unsupported" }.to_owned(),
                id,
            })
        });
        if let Some(revocation) = &revocation {
            open.add_revocation(revocation, now, grace).await?;
        }
        let mut entry = self.audit(&owner, "connection.revoked", by);
        entry.connection = Some(row.id.clone());
        entry.resource = Some(row.resource.clone());
        entry.detail = Some(reason.to_owned());
        open.add_audit(&entry).await?;
        self.tell_project(
            &mut open,
            &owner,
            &row.id,
            "connection.revoked",
            serde_json::json!({ "connection": row.id, "resource": row.resource, "reason": reason }),
        )
        .await?;
        open.commit().await?;
        self.changed(&owner).await;
        Ok(match revocation {
            Some(revocation) if revocation.outcome == "waiting" => End::Revoking(revocation.id),
            Some(_) | None => End::Here,
        })
    }
}

pub(super) fn outcome_of(outcome: &str) -> RevokeOutcome {
    match outcome {
        "revoked" => RevokeOutcome::Revoked,
        "unsupported" => RevokeOutcome::Unsupported,
        _ => RevokeOutcome::Retrying,
    }
}

impl Inner {
    /// Makes this revocation, unless somebody else does.
    async fn revoke_now(&self, project: &str, id: &str) -> Result<(), Error> {
        match self.store.take_revocation(project, id, &self.instance, self.now(), LEASE).await? {
            Some(due) => due.run(self).await,
            None => Ok(()),
        }
    }

    /// First the refresh token, which ends the grant at most servers, then the access token.
    async fn revoke_at_server(&self, due: &RevocationRow) -> Result<Revoked, Error> {
        let endpoints: Endpoints = serde_json::from_slice(&due.endpoints).map_err(|_| Error::Store)?;
        let Some(url) = endpoints.revocation.as_deref() else { return Ok(Revoked::NotSupported) };
        let client = self
            .client_of(
                endpoints.source,
                &due.issuer,
                &endpoints.authorization_server,
                &due.client_id,
                endpoints.auth_method,
            )
            .await?;
        let Some(client) = client else { return Ok(Revoked::NotSupported) };
        let quirks = self.quirks.find(Some(&due.issuer), None);
        let endpoint =
            TokenEndpoint { url, reach: Reach::Requested, client: &client, resource: None, quirks: &quirks };
        let bound = Bound { row: &due.id, project: &due.project, user: &due.user };
        let mut result = Revoked::NotSupported;
        for (sealed, column, hint) in [
            (&due.sealed_refresh, &REVOCATION_REFRESH, Hint::Refresh),
            (&due.sealed_access, &REVOCATION_ACCESS, Hint::Access),
        ] {
            let Some(sealed) = sealed else { continue };
            let token: Secret = self.vault.open_text(column, bound, sealed)?;
            match oauth::revoke(&self.egress, &endpoint, &token, hint).await {
                Revoked::Done => result = Revoked::Done,
                Revoked::NotSupported => {}
                failing @ Revoked::Failing { .. } => return Ok(failing),
            }
        }
        Ok(result)
    }
}

impl Job for RevocationRow {
    const AT_ONCE: usize = 32;

    async fn take(inner: &Inner, most: usize) -> Result<Vec<Self>, Error> {
        let (owner, now) = (inner.instance.as_str(), inner.now());
        let take = Take { owner, now, lease: LEASE, most, per_host: PER_HOST };
        Ok(inner.store.take_revocations(&take).await?)
    }

    async fn run(self, inner: &Inner) -> Result<(), Error> {
        let (outcome, pause) = match tokio::time::timeout(LONGEST, inner.revoke_at_server(&self)).await {
            Ok(Ok(Revoked::Done)) => ("revoked", 0),
            Ok(Ok(Revoked::NotSupported)) => ("unsupported", 0),
            Ok(Ok(Revoked::Failing { reason, retry_after })) => {
                tracing::warn!(reason, connection.id = self.connection, "tokens could not be revoked yet");
                later(self.attempts, retry_after)
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, connection.id = self.connection, "tokens could not be revoked yet");
                later(self.attempts, None)
            }
            Err(_) => later(self.attempts, None),
        };
        let now = inner.now();
        // What the entry of the audit log says about whose they were.
        let row = inner.store.find_connection(&self.project, &self.connection).await?;
        let mut open = inner.store.begin().await?;
        let settled = open.settle_revocation(&self, &inner.instance, outcome, now + pause, now).await?;
        if settled && outcome != "waiting" {
            let owner = Owner {
                project: self.project.as_str().into(),
                user: self.user.as_str().into(),
                profile: row.as_ref().map_or("", |row| &row.profile).into(),
            };
            let mut entry = inner.audit(&owner, "token.revocation", "gateway");
            entry.resource = row.map(|row| row.resource);
            entry.connection = Some(self.connection);
            entry.detail = Some(outcome.to_owned());
            open.add_audit(&entry).await?;
        }
        Ok(open.commit().await?)
    }
}

fn later(attempts: i64, wanted: Option<Duration>) -> (&'static str, i64) {
    if attempts >= MOST_ATTEMPTS {
        return ("given_up", 0);
    }
    let doubled = 5_000_i64 << attempts.clamp(0, 12);
    let wanted = wanted.map_or(0, |wanted| i64::try_from(wanted.as_millis()).unwrap_or(0));
    ("waiting", doubled.max(wanted).min(6 * 3_600_000))
}
