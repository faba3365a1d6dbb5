//! Ending connections: here at once, and at the authorization server until it has agreed (RFC 7009).

use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::access::Endpoints;
use super::service::{Connections, Inner};
use super::take_in::Gained;
use super::vault::Bound;
use super::webhooks::host_of_url;
use super::work::Job;
use super::{Error, Owner, RevokeOutcome};
use crate::clean_json;
use crate::config::Secret;
use crate::egress::Reach;
use crate::id::random_id;
use crate::oauth::{self, Hint, Revoked, TokenEndpoint, Tokens};
use crate::store::{
    CONNECTION_ACCESS, CONNECTION_REFRESH, ConnectionRow, FLOW_TOKENS, FlowRow, REVOCATION_ACCESS,
    REVOCATION_REFRESH, RevocationRow, Take, Transaction,
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
        let mut open = inner.store.begin().await?;
        let Some(revocation) = inner.end_in(&mut open, row, reason, by, GRACE).await? else {
            return Ok(RevokeOutcome::NotFound);
        };
        open.commit().await?;
        inner.changed(&owner_of_connection(row)).await;
        let Some(revocation) = revocation else { return Ok(RevokeOutcome::Unsupported) };
        if revocation.outcome != "waiting" {
            return Ok(RevokeOutcome::Unsupported);
        }
        let connections = self.clone();
        let (project, id) = (row.project.clone(), revocation.id);
        let attempt = tokio::spawn(async move { connections.0.revoke_now(&project, &id).await });
        let _ = tokio::time::timeout(PATIENCE, attempt).await;
        let settled = inner.store.find_revocation(&row.project, &row.id).await?;
        Ok(settled.map_or(RevokeOutcome::Retrying, |settled| outcome_of(&settled.outcome)))
    }
}

pub(super) fn owner_of_connection(row: &ConnectionRow) -> Owner {
    Owner {
        project: row.project.as_str().into(),
        user: row.user.as_str().into(),
        profile: row.profile.as_str().into(),
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
    /// The revocation of these tokens of a connection.
    fn revocation(&self, row: &ConnectionRow, access: &[u8], refresh: Option<&[u8]>) -> RevocationRow {
        let id = random_id("rev_");
        let bound = Bound { row: &id, project: &row.project, user: &row.user };
        let endpoints: Option<Endpoints> = clean_json::from_slice(&row.endpoints).ok();
        let endpoint = endpoints.and_then(|endpoints| endpoints.revocation);
        let can = endpoint.is_some();
        let seal = |column, token: &[u8]| can.then(|| self.vault.seal(column, bound, token));
        RevocationRow {
            project: row.project.clone(),
            connection: row.id.clone(),
            user: row.user.clone(),
            profile: row.profile.clone(),
            resource: Some(row.resource.clone()),
            sealed_refresh: refresh.and_then(|refresh| seal(&REVOCATION_REFRESH, refresh)),
            sealed_access: seal(&REVOCATION_ACCESS, access),
            issuer: row.issuer.clone(),
            client_id: row.client_id.clone(),
            endpoints: row.endpoints.clone(),
            host: endpoint.as_deref().map(host_of_url).unwrap_or_default(),
            attempts: 0,
            outcome: if can { "waiting" } else { "unsupported" }.to_owned(),
            id,
        }
    }

    /// Revokes tokens that came when their connection had been ended already.
    pub(super) async fn revoke_late(&self, row: &ConnectionRow, tokens: &Tokens) -> Result<(), Error> {
        let refresh = tokens.refresh.as_ref().map(|refresh| refresh.expose().as_bytes());
        let revocation = self.revocation(row, tokens.access.expose().as_bytes(), refresh);
        let mut open = self.store.begin().await?;
        open.add_revocation(&revocation, self.now(), 0).await?;
        Ok(open.commit().await?)
    }

    /// Revokes tokens of a login that nobody will use.
    pub(super) async fn revoke_gained(
        &self,
        open: &mut Transaction,
        flow: &FlowRow,
        gained: &Gained,
    ) -> Result<(), Error> {
        let row = self.connection_row(flow, gained, None)?;
        let refresh = gained.refresh.as_deref().map(str::as_bytes);
        let revocation = self.revocation(&row, gained.access.as_bytes(), refresh);
        Ok(open.add_revocation(&revocation, self.now(), 0).await?)
    }

    /// Revokes the tokens of a login that waited for the person's word on the other account, if there are any.
    pub(super) async fn revoke_held(&self, open: &mut Transaction, flow: &FlowRow) -> Result<(), Error> {
        let Some(sealed) = &flow.sealed_tokens else { return Ok(()) };
        let bound = Bound { row: &flow.id, project: &flow.project, user: &flow.user };
        let opened = self.vault.open(&FLOW_TOKENS, bound, sealed).ok();
        // What does not open cannot be revoked; it is of no use to anybody either.
        let gained: Option<Gained> = opened.and_then(|opened| clean_json::from_slice(&opened).ok());
        if let Some(gained) = gained {
            self.revoke_gained(open, flow, &gained).await?;
        }
        Ok(open.clear_held_tokens(flow).await?)
    }

    /// Ends a connection in `open`, and gives the revocation of its tokens, which is due after `grace` milliseconds.
    /// `None` when it has ended before.
    pub(super) async fn end_in(
        &self,
        open: &mut Transaction,
        row: &ConnectionRow,
        reason: &str,
        by: &str,
        grace: i64,
    ) -> Result<Option<Option<RevocationRow>>, Error> {
        let now = self.now();
        let Some(secrets) = open.end_connection(row, reason, now).await? else { return Ok(None) };
        let revocation = secrets.and_then(|secrets| {
            let from = Bound { row: &row.id, project: &row.project, user: &row.user };
            let access = self.vault.open(&CONNECTION_ACCESS, from, &secrets.sealed_access).ok()?;
            let sealed = secrets.sealed_refresh.as_ref();
            let refresh = sealed.and_then(|sealed| self.vault.open(&CONNECTION_REFRESH, from, sealed).ok());
            Some(self.revocation(row, &access, refresh.as_ref().map(|refresh| refresh.as_slice())))
        });
        if let Some(revocation) = &revocation {
            open.add_revocation(revocation, now, grace).await?;
        }
        let owner = owner_of_connection(row);
        let mut entry = self.audit(&owner, "connection.revoked", by);
        entry.connection = Some(row.id.clone());
        entry.resource = Some(row.resource.clone());
        entry.detail = Some(reason.to_owned());
        open.add_audit(&entry).await?;
        let told = serde_json::json!({ "connection": row.id, "resource": row.resource, "reason": reason });
        self.tell_project(open, &owner, &row.id, "connection.revoked", told).await?;
        Ok(Some(revocation))
    }

    /// Makes this revocation, unless somebody else does.
    async fn revoke_now(&self, project: &str, id: &str) -> Result<(), Error> {
        match self.store.take_revocation(project, id, &self.instance, self.now(), LEASE).await? {
            Some(due) => due.run(self).await,
            None => Ok(()),
        }
    }

    /// First the refresh token, which ends the grant at most servers, then the access token.
    async fn revoke_at_server(&self, due: &RevocationRow) -> Result<Revoked, Error> {
        let endpoints: Endpoints = clean_json::from_slice(&due.endpoints).map_err(|_| Error::Store)?;
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
        let quirks = self.quirks_of(&endpoints);
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
        let mut open = inner.store.begin().await?;
        let settled = open.settle_revocation(&self, &inner.instance, outcome, now + pause, now).await?;
        if settled && outcome != "waiting" {
            let owner =
                Owner { project: self.project.into(), user: self.user.into(), profile: self.profile.into() };
            let mut entry = inner.audit(&owner, "token.revocation", "gateway");
            entry.connection = Some(self.connection);
            entry.resource = self.resource;
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
