//! Coming back from the authorization server, and storing what it gave.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::access::Endpoints;
use super::flow::{Kept, KeptApplication};
use super::link::{LeftAs, Verifier, is_browser, owner_of};
use super::pages::{Callback, Finished, Proven};
use super::service::{Connections, Inner};
use super::vault::Bound;
use super::{Error, PageError};
use crate::config::Secret;
use crate::crypto::sha256;
use crate::egress::Reach;
use crate::id::random_id;
use crate::oauth::{self, TokenEndpoint, TokenError, Tokens};
use crate::store::{
    CONNECTION_ACCESS, CONNECTION_REFRESH, ConnectionRow, FLOW_TOKENS, FLOW_VERIFIER, FlowRow, NewSecrets,
};

/// Tokens on their way into a connection; sealed where they wait for the person.
#[derive(Serialize, Deserialize)]
struct Gained {
    access: String,
    refresh: Option<String>,
    issued_at: i64,
    expires_at: Option<i64>,
    scopes: String,
    account: Option<String>,
    batch: Option<String>,
}

/// What the fields of the way back say.
struct Answer {
    state: String,
    code: Option<Secret>,
    error: Option<String>,
    iss: Option<String>,
}

impl Connections {
    /// The browser came back. Everything is checked before the code is spent: the browser, the state, which is good
    /// once, and the issuer (RFC 9207).
    ///
    /// # Errors
    /// See [`PageError`]; then nothing is stored.
    pub async fn finish(&self, callback: Callback) -> Result<Finished, PageError> {
        let inner = &self.0;
        let Some(answer) = read(callback.fields) else {
            inner.note_stranger("flow.malformed_callback").await?;
            return Err(PageError::Unknown);
        };
        let hash = sha256(answer.state.as_bytes());
        let Some(flow) = inner.store.find_flow_by_state(&hash).await? else {
            inner.note_stranger("flow.unknown_state").await?;
            return Err(PageError::Unknown);
        };
        let link = inner.link_of(&flow)?;
        if !callback.browser.as_ref().is_some_and(|browser| is_browser(&flow, browser)) {
            inner.note_wrong_browser(&flow).await?;
            return Err(PageError::NotThisBrowser(Some(Secret::new(link))));
        }
        let Some(flow) = inner.store.consume_state(&hash, inner.now()).await? else {
            inner.note_flow(&flow, "flow.unknown_state", "browser", Some("used or expired")).await?;
            return Err(PageError::Expired(Box::new(inner.page(&flow, &link, None))));
        };
        // A task of its own: a browser that goes away must not take the tokens with it.
        let connections = self.clone();
        let finishing = tokio::spawn(async move { connections.0.come_back(flow, link, answer).await });
        finishing.await.unwrap_or(Err(PageError::Store(Error::Store)))
    }

    /// The person says that the other account is right.
    ///
    /// # Errors
    /// See [`PageError`].
    pub async fn keep(&self, link: &str, proven: Proven) -> Result<Finished, PageError> {
        let inner = &self.0;
        let (flow, _) = inner.open_flow(link).await?;
        let page = || Box::new(inner.page(&flow, link, None));
        let browser = inner.check_proof(&flow, link, &proven).await?;
        if !is_browser(&flow, browser) {
            return Err(PageError::NotThisBrowser(Some(Secret::new(link))));
        }
        let Some(sealed) = flow.sealed_tokens.as_ref().filter(|_| flow.state == "confirming") else {
            return Err(PageError::Expired(page()));
        };
        let bound = Bound { row: &flow.id, project: &flow.project, user: &flow.user };
        let opened = inner.vault.open(&FLOW_TOKENS, bound, sealed)?;
        let gained: Gained = serde_json::from_slice(&opened).map_err(|_| Error::Store)?;
        inner.store_connection(&flow, link, "confirming", gained).await
    }
}

/// `None` when a field is there twice, or `state` is not.
fn read(fields: Vec<(String, String)>) -> Option<Answer> {
    let mut known = HashMap::new();
    for (name, value) in fields {
        if matches!(name.as_str(), "state" | "code" | "error" | "iss")
            && (value.len() > 8192 || known.insert(name, value).is_some())
        {
            return None;
        }
    }
    Some(Answer {
        state: known.remove("state").filter(|state| !state.is_empty())?,
        code: known.remove("code").filter(|code| !code.is_empty()).map(Secret::new),
        error: known.remove("error"),
        iss: known.remove("iss"),
    })
}

impl Inner {
    async fn come_back(&self, flow: FlowRow, link: String, answer: Answer) -> Result<Finished, PageError> {
        let page = || Box::new(self.page(&flow, &link, None));
        let kept: Kept = serde_json::from_slice(&flow.discovered).map_err(|_| Error::Store)?;
        let left: LeftAs = flow
            .client
            .as_deref()
            .and_then(|client| serde_json::from_slice(client).ok())
            .ok_or(Error::Store)?;
        let bound = Bound { row: &flow.id, project: &flow.project, user: &flow.user };
        let sealed = flow.sealed_verifier.as_deref().ok_or(Error::Store)?;
        let opened = self.vault.open(&FLOW_VERIFIER, bound, sealed)?;
        let verifier: Verifier = serde_json::from_slice(&opened).map_err(|_| Error::Store)?;
        if !kept.server.admits_issuer(answer.iss.as_deref()) {
            self.fail(&flow, "flow.issuer_mismatch", "iss").await?;
            return Err(PageError::Failed(page()));
        }
        if let Some(error) = answer.error {
            if error == "access_denied" {
                self.end_declined(&flow, "returned", "at the authorization server").await?;
                return Err(PageError::Refused(page()));
            }
            if matches!(error.as_str(), "invalid_client" | "unauthorized_client" | "invalid_scope") {
                self.lose_client(left.source, &kept.server.issuer, &left.id).await?;
            }
            self.fail(&flow, "flow.failed", &code_of(&error)).await?;
            return Err(PageError::Failed(page()));
        }
        let Some(code) = answer.code else {
            self.fail(&flow, "flow.failed", "no_code").await?;
            return Err(PageError::Failed(page()));
        };
        let issuer = &kept.server.issuer;
        let client = self
            .client_of(left.source, issuer, &kept.authorization_server, &left.id, left.auth_method)
            .await?;
        let Some(client) = client else {
            self.fail(&flow, "flow.failed", "client_replaced").await?;
            return Err(PageError::Failed(page()));
        };
        let resource: Option<http::Uri> = flow.server_url.parse().ok();
        let quirks = self.quirks.find(Some(&kept.authorization_server), resource.as_ref());
        let endpoint = TokenEndpoint {
            url: &kept.server.token_endpoint,
            reach: Reach::Requested,
            client: &client,
            resource: Some(&flow.resource),
            quirks: &quirks,
        };
        let given = oauth::exchange_code(
            &self.egress,
            &endpoint,
            &code,
            &verifier.redirect_uri,
            &Secret::new(verifier.verifier.as_str()),
        )
        .await;
        let tokens = match given {
            Ok(tokens) => tokens,
            Err(error) => {
                tracing::warn!(%error, oauth.issuer = issuer, "a login could not be finished");
                if matches!(error, TokenError::InvalidClient) {
                    self.lose_client(left.source, issuer, &left.id).await?;
                }
                self.fail(&flow, "flow.failed", "exchange").await?;
                return Err(PageError::Failed(page()));
            }
        };
        let now = self.now();
        let gained = Gained {
            access: tokens.access.expose().to_owned(),
            refresh: tokens.refresh.as_ref().map(|refresh| refresh.expose().to_owned()),
            issued_at: now,
            expires_at: tokens
                .expires_in_seconds
                .map(|life| now + 1000 * i64::try_from(life).unwrap_or(i64::MAX / 2000)),
            scopes: tokens.scope.clone().unwrap_or_else(|| flow.scopes.clone()),
            account: account_of(&tokens),
            batch: verifier.batch,
        };
        if let Some((before, is)) = self.other_account(&flow, gained.account.as_deref()).await? {
            let sealed = serde_json::to_vec(&gained).expect("texts are JSON");
            let sealed = self.vault.seal(&FLOW_TOKENS, bound, &sealed);
            let mut open = self.store.begin().await?;
            open.hold_flow(&flow, sealed, &is, now).await?;
            open.commit().await?;
            return Ok(Finished::OtherAccount { flow: page(), before, now: is });
        }
        self.store_connection(&flow, &link, "returned", gained).await
    }

    /// The account of the connection there is, and the one now, when they are known and differ.
    async fn other_account(
        &self,
        flow: &FlowRow,
        account: Option<&str>,
    ) -> Result<Option<(String, String)>, Error> {
        let Some(account) = account else { return Ok(None) };
        let known = self.store.list_connections_of(&flow.project, &flow.user, &flow.profile).await?;
        let before = known.into_iter().find(|row| row.resource == flow.resource).and_then(|row| row.account);
        Ok(before.filter(|before| before != account).map(|before| (before, account.to_owned())))
    }

    /// Lets the person try again.
    async fn fail(&self, flow: &FlowRow, event: &str, detail: &str) -> Result<(), Error> {
        self.store.reopen_flow(flow, detail, self.now()).await?;
        self.note_flow(flow, event, "authorization server", Some(detail)).await
    }

    async fn store_connection(
        &self,
        flow: &FlowRow,
        link: &str,
        from: &str,
        gained: Gained,
    ) -> Result<Finished, PageError> {
        let owner = owner_of(flow);
        let kept: Kept = serde_json::from_slice(&flow.discovered).map_err(|_| Error::Store)?;
        let left: LeftAs = flow
            .client
            .as_deref()
            .and_then(|client| serde_json::from_slice(client).ok())
            .ok_or(Error::Store)?;
        let application = KeptApplication::of(&flow.application);
        let endpoints = Endpoints {
            token: kept.server.token_endpoint.clone(),
            revocation: kept.server.revocation_endpoint.clone(),
            authorization_server: kept.authorization_server.clone(),
            source: left.source,
            auth_method: left.auth_method,
            server_url: flow.server_url.clone(),
            proof: flow.proof.clone(),
            application: application.name.to_string(),
            verified: application.verified,
        };
        let now = self.now();
        let mut open = self.store.begin().await?;
        let known = open.find_connection_to(&flow.project, &flow.user, &flow.profile, &flow.resource).await?;
        let id = known.as_ref().map_or_else(|| random_id("conn_"), |known| known.id.clone());
        let row = ConnectionRow {
            project: flow.project.clone(),
            id: id.clone(),
            user: flow.user.clone(),
            profile: flow.profile.clone(),
            resource: flow.resource.clone(),
            issuer: kept.server.issuer.clone(),
            client_id: left.id.clone(),
            scopes: gained.scopes.clone(),
            account: gained
                .account
                .clone()
                .or_else(|| known.as_ref().and_then(|known| known.account.clone())),
            application: flow.application.clone(),
            endpoints: serde_json::to_vec(&endpoints).expect("texts are JSON"),
            status: "active".to_owned(),
            reason: None,
            created_at: now,
            changed_at: now,
            last_used_at: now,
        };
        let bound = Bound { row: &id, project: &flow.project, user: &flow.user };
        let secrets = NewSecrets {
            sealed_access: self.vault.seal(&CONNECTION_ACCESS, bound, gained.access.as_bytes()),
            sealed_refresh: gained
                .refresh
                .as_ref()
                .map(|refresh| self.vault.seal(&CONNECTION_REFRESH, bound, refresh.as_bytes())),
            issued_at: gained.issued_at,
            expires_at: gained.expires_at,
        };
        if !open.end_flow(flow, from, "granted", None, Some(&id), now).await? {
            return Err(PageError::Expired(Box::new(self.page(flow, link, None))));
        }
        if known.is_some() {
            open.renew_connection(&row, &secrets).await?;
        } else {
            open.create_connection(&row, &secrets).await?;
        }
        let likewise = open.grant_likewise(flow, &id, now).await?;
        let mut entry = self.audit(
            &owner,
            if known.is_some() { "connection.renewed" } else { "connection.created" },
            "person",
        );
        entry.flow = Some(flow.id.clone());
        entry.connection = Some(id.clone());
        entry.resource = Some(flow.resource.clone());
        open.add_audit(&entry).await?;
        open.commit().await?;
        self.changed(&owner).await;
        for id in &likewise {
            self.wake_here(id);
        }
        self.wake(&flow.id).await;
        self.tell_flow(flow, "authorization.completed", None).await?;
        let mut page = self.page(flow, link, None);
        page.stage = super::Stage::Granted;
        // Goes on only where there is something left to do.
        let next = match gained.batch {
            Some(batch) => self.open_flow(&batch).await.is_ok().then_some(batch),
            None => None,
        };
        Ok(Finished::Connected { flow: Box::new(page), account: gained.account, next })
    }
}

/// A code of RFC 6749 §4.1.2.1, or a word for what is none: the text of a server is never kept.
fn code_of(error: &str) -> String {
    let is_code = (1..=64).contains(&error.len())
        && error.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if is_code { error.to_owned() } else { "unreadable_error".to_owned() }
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
        serde_json::from_slice::<Claims>(&bytes).ok()
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
