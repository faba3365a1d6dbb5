//! Storing what a login gave: in a new connection, or in the one that its user has there.
//!
//! These tokens exist nowhere else, and other logins, renewals and revocations may be stored at the same time, here and
//! on other instances. So everything is decided in one transaction, which is repeated when another one was faster.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::access::Endpoints;
use super::back::question_of;
use super::flow::{Kept, KeptApplication};
use super::link::{LeftAs, owner_of};
use super::pages::{Finished, Question, Stage};
use super::service::Inner;
use super::vault::Bound;
use super::{Error, PageError};
use crate::clean_json;
use crate::config::Secret;
use crate::id::random_id;
use crate::oauth::Tokens;
use crate::store::{
    self, CONNECTION_ACCESS, CONNECTION_REFRESH, ConnectionRow, FLOW_TOKENS, FlowRow, NewSecrets, Transaction,
};

/// How long tokens that could not be stored are held on to, while the person waits for the page.
const HOLD_ON: Duration = Duration::from_secs(60);
/// Times that others may be faster.
const MOST_TRIES: usize = 10;

/// Tokens on their way into a connection; sealed where they wait for the person.
#[derive(Serialize, Deserialize)]
pub(super) struct Gained {
    pub(super) access: String,
    pub(super) refresh: Option<String>,
    issued_at: i64,
    expires_at: Option<i64>,
    scopes: String,
    account: Option<String>,
    batch: Option<String>,
}

impl Gained {
    /// What a token endpoint gave for `flow` at `now`, the person having come by the link for several `batch`.
    pub(super) fn new(tokens: &Tokens, flow: &FlowRow, batch: Option<String>, now: i64) -> Self {
        Gained {
            access: tokens.access.expose().to_owned(),
            refresh: tokens.refresh.as_ref().map(|refresh| refresh.expose().to_owned()),
            issued_at: now,
            expires_at: tokens
                .expires_in_seconds
                .map(|life| now.saturating_add(i64::try_from(life).unwrap_or(i64::MAX).saturating_mul(1000))),
            scopes: tokens.scope.clone().unwrap_or_else(|| flow.scopes.clone()),
            account: account_of(tokens),
            batch,
        }
    }
}

/// What became of one attempt.
enum Attempt {
    Stored,
    /// Held until the person says that the other account is right.
    Held(Question),
    /// The flow has ended meanwhile, or begun anew.
    Over,
    /// What it was to be put into has changed meanwhile.
    Overtaken,
}

impl Inner {
    /// Puts tokens where they belong, if the flow is in the state `from`. A store that fails is asked again for a while.
    pub(super) async fn take_in(
        &self,
        flow: &FlowRow,
        link: &str,
        from: &str,
        gained: &Gained,
    ) -> Result<Finished, PageError> {
        let started = tokio::time::Instant::now();
        let mut pause = Duration::from_millis(50);
        let (mut tries, mut in_doubt) = (0, false);
        loop {
            let page = || Box::new(self.page(flow, link, None));
            match self.try_to_take_in(flow, from, gained).await {
                Ok(Attempt::Stored) => return Ok(self.finished(flow, link, gained).await),
                Ok(Attempt::Held(question)) => {
                    return Ok(Finished::OtherAccount { flow: page(), question });
                }
                Ok(Attempt::Over) => {
                    // The attempt before may have stored it, and only have failed to say so.
                    let state = if in_doubt { self.store.find_flow_state(&flow.id).await? } else { None };
                    if state.as_deref() == Some("granted") {
                        return Ok(self.finished(flow, link, gained).await);
                    }
                    // Nobody will use these. Those that waited went with their flow.
                    if from == "returned" && state.as_deref() != Some("confirming") {
                        let mut open = self.store.begin().await.map_err(Error::from)?;
                        self.revoke_gained(&mut open, flow, gained).await?;
                        open.commit().await.map_err(Error::from)?;
                    }
                    if from == "confirming" {
                        return Err(PageError::NotAsked(Secret::new(link)));
                    }
                    return Err(PageError::Expired(page()));
                }
                Ok(Attempt::Overtaken) => {
                    tries += 1;
                    if tries == MOST_TRIES {
                        return Err(Error::Store.into());
                    }
                }
                Err(Error::Store) if started.elapsed() < HOLD_ON => {
                    tracing::error!(flow.id = flow.id, "the tokens of a login could not be stored yet");
                    in_doubt = true;
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn try_to_take_in(&self, flow: &FlowRow, from: &str, gained: &Gained) -> Result<Attempt, Error> {
        let mut open = self.store.begin().await?;
        let known = open.find_connection_to(&flow.project, &flow.user, &flow.profile, &flow.resource).await?;
        let before = known.as_ref().and_then(|known| known.account.as_deref());
        if from == "returned"
            && let (Some(before), Some(now)) = (before, gained.account.as_deref())
            && before != now
        {
            let bound = Bound { row: &flow.id, project: &flow.project, user: &flow.user };
            let sealed = serde_json::to_vec(gained).expect("texts are JSON");
            let sealed = self.vault.seal(&FLOW_TOKENS, bound, &sealed);
            let id = question_of(&sealed);
            if !open.hold_flow(flow, sealed, now, self.now()).await? {
                return Ok(Attempt::Over);
            }
            let entry = self.flow_entry(flow, "flow.other_account", "authorization server", None);
            open.add_audit(&entry).await?;
            open.commit().await?;
            return Ok(Attempt::Held(Question { id, before: before.to_owned(), now: now.to_owned() }));
        }
        if from == "confirming" && !open.still_holds(flow).await? {
            return Ok(Attempt::Over);
        }
        let mut row = self.connection_row(flow, gained, known.as_ref())?;
        // Another account, or the account of another server, is another connection: nothing that was kept for the one
        // before, such as a session at the server, is used for it, and that one's tokens end.
        let replaced = known.as_ref().filter(|known| {
            let account = gained.account.as_deref();
            known.issuer != row.issuer || (account.is_some() && before.is_some() && account != before)
        });
        if replaced.is_some() {
            row.id = random_id("conn_");
        }
        if !open.end_flow(flow, from, "granted", None, Some(&row.id), row.changed_at).await? {
            return Ok(Attempt::Over);
        }
        if let Some(replaced) = replaced
            && self.end_in(&mut open, replaced, "replaced", "person", 0).await?.is_none()
        {
            return Ok(Attempt::Overtaken);
        }
        let known = known.as_ref().filter(|_| replaced.is_none());
        let stored = self.put_in(&mut open, &row, gained, known).await;
        match stored {
            Ok(true) => {}
            Ok(false) | Err(store::Error::Exists) => return Ok(Attempt::Overtaken),
            Err(error) => return Err(error.into()),
        }
        let likewise = open.grant_likewise(flow, &row.id, row.changed_at).await?;
        let event = if known.is_some() { "connection.renewed" } else { "connection.created" };
        let mut entry = self.flow_entry(flow, event, "person", None);
        entry.connection = Some(row.id);
        open.add_audit(&entry).await?;
        for done in std::iter::once(flow).chain(&likewise) {
            self.tell_flow(&mut open, done, "authorization.completed", None).await?;
        }
        open.commit().await?;
        for other in &likewise {
            self.wake_here(&other.id);
        }
        Ok(Attempt::Stored)
    }

    pub(super) fn connection_row(
        &self,
        flow: &FlowRow,
        gained: &Gained,
        known: Option<&ConnectionRow>,
    ) -> Result<ConnectionRow, Error> {
        let kept: Kept = clean_json::from_slice(&flow.discovered).map_err(|_| Error::Store)?;
        let left: Option<LeftAs> =
            flow.client.as_deref().and_then(|client| clean_json::from_slice(client).ok());
        let left = left.ok_or(Error::Store)?;
        let application = KeptApplication::of(&flow.application);
        let endpoints = Endpoints {
            token: kept.server.token_endpoint,
            revocation: kept.server.revocation_endpoint,
            authorization_server: kept.authorization_server,
            source: left.source,
            auth_method: left.auth_method,
            server_url: flow.server_url.clone(),
            proof: flow.proof.clone(),
            application: application.name.to_string(),
            verified: application.verified,
        };
        let now = self.now();
        Ok(ConnectionRow {
            project: flow.project.clone(),
            id: known.map_or_else(|| random_id("conn_"), |known| known.id.clone()),
            user: flow.user.clone(),
            profile: flow.profile.clone(),
            resource: flow.resource.clone(),
            issuer: kept.server.issuer,
            client_id: left.id,
            scopes: gained.scopes.clone(),
            // Not whose it was before: a login that does not tell may be anybody's.
            account: gained.account.clone(),
            application: flow.application.clone(),
            endpoints: serde_json::to_vec(&endpoints).expect("texts are JSON"),
            status: "active".to_owned(),
            reason: None,
            created_at: now,
            changed_at: now,
            last_used_at: now,
        })
    }

    /// False when the connection that was there has ended, or has become another account's, meanwhile.
    async fn put_in(
        &self,
        open: &mut Transaction,
        row: &ConnectionRow,
        gained: &Gained,
        known: Option<&ConnectionRow>,
    ) -> Result<bool, store::Error> {
        let bound = Bound { row: &row.id, project: &row.project, user: &row.user };
        let seal = |column, token: &str| self.vault.seal(column, bound, token.as_bytes());
        let secrets = NewSecrets {
            sealed_access: seal(&CONNECTION_ACCESS, &gained.access),
            sealed_refresh: gained.refresh.as_deref().map(|refresh| seal(&CONNECTION_REFRESH, refresh)),
            issued_at: gained.issued_at,
            expires_at: gained.expires_at,
        };
        match known {
            Some(known) => open.renew_connection(row, &secrets, known.account.as_deref()).await,
            None => open.create_connection(row, &secrets).await.map(|()| true),
        }
    }

    /// What everybody is told once it is stored.
    async fn finished(&self, flow: &FlowRow, link: &str, gained: &Gained) -> Finished {
        self.changed(&owner_of(flow)).await;
        self.wake(&flow.id).await;
        let mut page = self.page(flow, link, None);
        page.stage = Stage::Granted;
        // Goes on only where there is something left to do.
        let next = match &gained.batch {
            Some(batch) => self.open_flow(batch).await.is_ok().then(|| batch.clone()),
            None => None,
        };
        Finished::Connected { flow: Box::new(page), account: gained.account.clone(), next }
    }
}

/// Whose tokens these are, as far as the server says. The ID token comes straight from the token endpoint, and what it
/// says is only shown.
fn account_of(tokens: &Tokens) -> Option<String> {
    #[derive(Deserialize)]
    struct Claims {
        email: Option<String>,
        preferred_username: Option<String>,
        name: Option<String>,
    }
    let claims = tokens.id_token.as_ref().and_then(|token| {
        use base64::Engine;
        let middle = token.expose().split('.').nth(1)?.to_owned();
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(middle).ok()?;
        clean_json::from_slice::<Claims>(&bytes).ok()
    });
    let claimed = claims.and_then(|claims| claims.email.or(claims.preferred_username).or(claims.name));
    let named = ["email", "user_name", "username", "account_id", "user", "user_id", "workspace_name", "team"];
    let extra = || named.iter().find_map(|field| tokens.extra.get(*field).cloned());
    claimed
        .or_else(extra)
        .map(|account| {
            account.chars().filter(|character| !character.is_control()).take(200).collect::<String>()
        })
        .filter(|account| !account.is_empty())
}
