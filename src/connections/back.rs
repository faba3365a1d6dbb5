//! Coming back from the authorization server.

use std::collections::HashMap;

use super::flow::Kept;
use super::link::{LeftAs, Verifier, is_browser};
use super::pages::{Callback, Finished, FlowPage, Proven, Question, Stage};
use super::service::{Connections, Inner};
use super::take_in::Gained;
use super::vault::Bound;
use super::{Error, PageError};
use crate::clean_json;
use crate::config::Secret;
use crate::crypto::{constant_time_eq, sha256, to_hex};
use crate::egress::Reach;
use crate::oauth::{self, TokenEndpoint, TokenError};
use crate::store::{FLOW_TOKENS, FLOW_VERIFIER, FlowRow};

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
            // Not where it may be begun anew: who has a state needs not have the link.
            return Err(PageError::NotThisBrowser(None));
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

    /// The person says that the account of the question with this id is right.
    ///
    /// # Errors
    /// See [`PageError`]; [`PageError::NotAsked`] when another question is open, or none, and then nothing is done.
    pub async fn keep(&self, link: &str, question: &str, proven: Proven) -> Result<Finished, PageError> {
        let inner = &self.0;
        let (flow, sealed) = inner.asked_flow(link, question, &proven).await?;
        let bound = Bound { row: &flow.id, project: &flow.project, user: &flow.user };
        let opened = inner.vault.open(&FLOW_TOKENS, bound, &sealed)?;
        let gained: Gained = clean_json::from_slice(&opened).map_err(|_| Error::Store)?;
        inner.take_in(&flow, link, "confirming", &gained).await
    }

    /// The person says that the account of the question with this id is not right.
    ///
    /// # Errors
    /// As [`Connections::keep`].
    pub async fn drop_other(
        &self,
        link: &str,
        question: &str,
        proven: Proven,
    ) -> Result<FlowPage, PageError> {
        let inner = &self.0;
        let (flow, _) = inner.asked_flow(link, question, &proven).await?;
        if !inner.end_declined(&flow, "confirming", "here").await? {
            return Err(PageError::NotAsked(Secret::new(link)));
        }
        let mut page = inner.page(&flow, link, None);
        page.stage = Stage::Declined;
        Ok(page)
    }

    /// What is asked, when a login of this browser waits for the person's word on its account.
    ///
    /// # Errors
    /// See [`PageError`].
    pub async fn waits_for_word(&self, link: &str, browser: &Secret) -> Result<Option<Question>, PageError> {
        let inner = &self.0;
        let (flow, _) = inner.open_flow(link).await?;
        let Some(sealed) = flow.sealed_tokens.as_ref().filter(|_| flow.state == "confirming") else {
            return Ok(None);
        };
        if !is_browser(&flow, browser) {
            return Ok(None);
        }
        let known = inner.store.list_connections_of(&flow.project, &flow.user, &flow.profile).await?;
        let before = known.into_iter().find(|row| row.resource == flow.resource).and_then(|row| row.account);
        let id = question_of(sealed);
        Ok(before.zip(flow.account).map(|(before, now)| Question { id, before, now }))
    }
}

/// The id of the question about tokens that wait: they are sealed anew, and so differently, with every way back.
pub(super) fn question_of(sealed: &[u8]) -> String {
    to_hex(&sha256(sealed))
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
    /// The flow that waits for the answer to the question with this id, and the tokens that wait in it.
    async fn asked_flow(
        &self,
        link: &str,
        question: &str,
        proven: &Proven,
    ) -> Result<(FlowRow, Vec<u8>), PageError> {
        let (flow, _) = self.open_flow(link).await?;
        let browser = self.check_proof(&flow, link, proven).await?;
        if !is_browser(&flow, browser) {
            return Err(PageError::NotThisBrowser(Some(Secret::new(link))));
        }
        let held = flow.sealed_tokens.clone().filter(|_| flow.state == "confirming");
        let held =
            held.filter(|sealed| constant_time_eq(question_of(sealed).as_bytes(), question.as_bytes()));
        match held {
            Some(sealed) => Ok((flow, sealed)),
            None => Err(PageError::NotAsked(Secret::new(link))),
        }
    }

    async fn come_back(&self, flow: FlowRow, link: String, answer: Answer) -> Result<Finished, PageError> {
        let page = || Box::new(self.page(&flow, &link, None));
        let kept: Kept = clean_json::from_slice(&flow.discovered).map_err(|_| Error::Store)?;
        let left: LeftAs = flow
            .client
            .as_deref()
            .and_then(|client| clean_json::from_slice(client).ok())
            .ok_or(Error::Store)?;
        let bound = Bound { row: &flow.id, project: &flow.project, user: &flow.user };
        let sealed = flow.sealed_verifier.as_deref().ok_or(Error::Store)?;
        let opened = self.vault.open(&FLOW_VERIFIER, bound, sealed)?;
        let verifier: Verifier = clean_json::from_slice(&opened).map_err(|_| Error::Store)?;
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
                self.doubt_client(left.source, &kept.server.issuer, &left.id).await?;
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
        let gained = Gained::new(&tokens, &flow, verifier.batch, self.now());
        self.take_in(&flow, &link, "returned", &gained).await
    }

    /// Lets the person try again.
    async fn fail(&self, flow: &FlowRow, event: &str, detail: &str) -> Result<(), Error> {
        let mut open = self.store.begin().await?;
        open.reopen_flow(flow, detail, self.now()).await?;
        open.add_audit(&self.flow_entry(flow, event, "authorization server", Some(detail))).await?;
        Ok(open.commit().await?)
    }
}

/// A code of RFC 6749 §4.1.2.1, or a word for what is none: the text of a server is never kept.
fn code_of(error: &str) -> String {
    let is_code = (1..=64).contains(&error.len())
        && error.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if is_code { error.to_owned() } else { "unreadable_error".to_owned() }
}
