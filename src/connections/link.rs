//! What is behind a link, and leaving for the authorization server.

use http::Uri;
use serde::{Deserialize, Serialize};

use super::clients::{NoClient, Source};
use super::doctor::by_hand;
use super::flow::{Kept, KeptApplication, LIFE, host_of, reason_of};
use super::pages::{FlowPage, LinkView, Proof, Proven, Stage};
use super::service::{Connections, Inner};
use super::vault::Bound;
use super::{FlowError, Owner, PageError};
use crate::config::Secret;
use crate::crypto::{constant_time_eq, sha256};
use crate::id::random_bytes;
use crate::oauth::{self, AuthMethod, Authorize, Pkce, split_scopes};
use crate::store::{AuditRow, FLOW_VERIFIER, FlowRow, Leaving};

/// What the way back needs, sealed.
#[derive(Serialize, Deserialize)]
pub(super) struct Verifier {
    pub verifier: String,
    pub redirect_uri: String,
    /// The link for several, when the person came by that.
    pub batch: Option<String>,
}

/// The client that left, as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct LeftAs {
    pub id: String,
    pub source: Source,
    pub auth_method: AuthMethod,
}

impl Connections {
    /// What is behind a link, as the browser with this cookie sees it. Changes nothing: previews and prefetching
    /// browsers open links too.
    ///
    /// # Errors
    /// [`PageError::Unknown`], or when the store fails.
    pub async fn view_link(&self, link: &str, browser: Option<&Secret>) -> Result<LinkView, PageError> {
        let hash = sha256(link.as_bytes());
        if let Some(flow) = self.0.store.find_flow_by_link(&hash).await? {
            return Ok(LinkView::One(Box::new(self.0.page(&flow, link, browser))));
        }
        let flows = self.0.store.find_batch(&hash).await?.ok_or(PageError::Unknown)?;
        let mut pages = Vec::with_capacity(flows.len());
        for flow in &flows {
            let own = self.0.link_of(flow)?;
            pages.push(self.0.page(flow, &own, browser));
        }
        if pages.is_empty() { Err(PageError::Unknown) } else { Ok(LinkView::Several(pages)) }
    }

    /// Where the person goes to agree. Only now is there a state that could come back.
    ///
    /// # Errors
    /// See [`PageError`]; a wrong person is written down.
    pub async fn begin(&self, link: &str, proven: Proven) -> Result<Uri, PageError> {
        let inner = &self.0;
        let (flow, batch) = inner.open_flow(link).await?;
        let browser = inner.check_proof(&flow, link, &proven).await?;
        let now = inner.now();
        let kept: Kept = serde_json::from_slice(&flow.discovered).map_err(|_| super::Error::Store)?;
        let resource: Option<Uri> = flow.server_url.parse().ok();
        let quirks = inner.quirks.find(Some(&kept.authorization_server), resource.as_ref());
        let found = oauth::Discovered {
            resource: flow.resource.clone(),
            resource_name: kept.resource_name,
            scopes: split_scopes(&flow.scopes),
            scopes_listed: kept.scopes_listed,
            authorization_server: kept.authorization_server,
            server: kept.server,
            quirks,
        };
        let page = || Box::new(inner.page(&flow, link, None));
        let again = flow.state == "started";
        let (client, source) = match inner.client_for(&found, &found.scopes, again).await {
            Ok(client) => client,
            Err(NoClient::Store(error)) => return Err(error.into()),
            Err(NoClient::Registration(error)) => {
                let hint = by_hand(&found, &inner.clients.redirect_uri);
                tracing::warn!(%error, %hint, oauth.issuer = found.server.issuer, "no client for a login");
                return Err(PageError::Failed(page()));
            }
        };
        let pkce = Pkce::new();
        let state = Secret::new(crate::crypto::to_hex(&random_bytes::<32>()));
        let redirect_uri = inner.clients.redirect_uri.clone();
        let authorize = Authorize {
            server: &found.server,
            client_id: &client.id,
            redirect_uri: &redirect_uri,
            scopes: &found.scopes,
            state: &state,
            pkce: &pkce,
            resource: Some(&found.resource),
            quirks: &found.quirks,
        };
        let target = oauth::authorize_url(&authorize).map_err(|error| {
            tracing::warn!(%error, oauth.issuer = found.server.issuer, "an authorization endpoint cannot be used");
            PageError::Failed(page())
        })?;
        let verifier = Verifier { verifier: pkce.verifier.expose().to_owned(), redirect_uri, batch };
        let bound = Bound { row: &flow.id, project: &flow.project, user: &flow.user };
        let sealed = serde_json::to_vec(&verifier).expect("texts are JSON");
        let left = LeftAs { id: client.id.clone(), source, auth_method: client.auth_method };
        let leaving = Leaving {
            browser_hash: &sha256(browser.expose().as_bytes()),
            state_hash: &sha256(state.expose().as_bytes()),
            sealed_verifier: inner.vault.seal(&FLOW_VERIFIER, bound, &sealed),
            client: serde_json::to_vec(&left).expect("texts are JSON"),
            expires_at: flow.expires_at.max(now + LIFE),
        };
        if !inner.store.send_flow(&flow, leaving, now).await? {
            return Err(PageError::Expired(page()));
        }
        Ok(target)
    }

    /// Somebody else than the user, signed in under `ids`, has opened a link: written down, and nothing else.
    ///
    /// # Errors
    /// See [`PageError`].
    pub async fn note_wrong_person(&self, link: &str, ids: &[String]) -> Result<(), PageError> {
        let (flow, _) = self.0.open_flow(link).await?;
        if flow.proof == "gateway" && !ids.contains(&flow.user) {
            self.0.note_mismatch(&flow, "signed-in person").await?;
        }
        Ok(())
    }

    /// The person says no, also to another account than before.
    ///
    /// # Errors
    /// See [`PageError`]; [`PageError::Expired`] also when the login was finished or left behind just before.
    pub async fn decline(&self, link: &str) -> Result<FlowPage, PageError> {
        let inner = &self.0;
        let (flow, _) = inner.open_flow(link).await?;
        let mut page = inner.page(&flow, link, None);
        if !inner.end_declined(&flow, &flow.state, "here").await? {
            return Err(PageError::Expired(Box::new(page)));
        }
        page.stage = Stage::Declined;
        Ok(page)
    }

    /// The application's verifier, with a reference that is good once, for this browser.
    ///
    /// # Errors
    /// See [`PageError`].
    pub async fn app_reference(&self, link: &str, browser: &Secret) -> Result<Uri, PageError> {
        let inner = &self.0;
        let (flow, _) = inner.open_flow(link).await?;
        let verifier = flow.verifier_url.as_deref().and_then(|url| url::Url::parse(url).ok());
        let Some(mut verifier) = verifier.filter(|_| flow.proof == "app") else {
            return Err(PageError::Failed(Box::new(inner.page(&flow, link, None))));
        };
        let reference = format!("ref_{}", crate::crypto::to_hex(&random_bytes::<32>()));
        let browser = sha256(browser.expose().as_bytes());
        let hash = sha256(reference.as_bytes());
        if !inner.store.refer_flow(&flow, &browser, &hash, inner.now()).await? {
            return Err(PageError::Expired(Box::new(inner.page(&flow, link, None))));
        }
        verifier.query_pairs_mut().append_pair("flow_ref", &reference);
        verifier.as_str().parse().map_err(|_| PageError::Failed(Box::new(inner.page(&flow, link, None))))
    }

    /// The application says which of its users came with a reference. Gives where to send the browser back.
    ///
    /// # Errors
    /// [`FlowError::Unknown`]; [`FlowError::UserMismatch`], which is written down and uses the reference up.
    pub async fn confirm(&self, project: &str, flow_ref: &str, user: &str) -> Result<Uri, FlowError> {
        let inner = &self.0;
        let hash = sha256(flow_ref.as_bytes());
        let now = inner.now();
        let flow = inner.store.find_flow_by_reference(project, &hash).await?.ok_or(FlowError::Unknown)?;
        let is_user = user == flow.user;
        if !inner.store.answer_reference(&flow, &hash, is_user, now).await? {
            return Err(FlowError::Unknown);
        }
        if !is_user {
            inner.note_mismatch(&flow, "application").await?;
            return Err(FlowError::UserMismatch);
        }
        let link = inner.link_of(&flow)?;
        let back = format!("{}/connect/{link}", inner.public_url);
        back.parse().map_err(|_| FlowError::Unknown)
    }
}

impl Inner {
    /// The flow of a link that can still be used: of a link for several, the first; with that link then.
    pub(super) async fn open_flow(&self, link: &str) -> Result<(FlowRow, Option<String>), PageError> {
        let hash = sha256(link.as_bytes());
        let is_open = |flow: &FlowRow| {
            matches!(flow.state.as_str(), "pending" | "started" | "confirming")
                && flow.expires_at > self.now()
        };
        if let Some(flow) = self.store.find_flow_by_link(&hash).await? {
            return if is_open(&flow) {
                Ok((flow, None))
            } else {
                Err(PageError::Expired(Box::new(self.page(&flow, link, None))))
            };
        }
        let flows = self.store.find_batch(&hash).await?.ok_or(PageError::Unknown)?;
        match flows.iter().find(|flow| is_open(flow)) {
            Some(flow) => Ok((flow.clone(), Some(link.to_owned()))),
            None => match flows.last() {
                Some(flow) => Err(PageError::Expired(Box::new(self.page(flow, link, None)))),
                None => Err(PageError::Unknown),
            },
        }
    }

    /// Whether the person at the browser is the user. Gives the browser's cookie.
    pub(super) async fn check_proof<'p>(
        &self,
        flow: &FlowRow,
        link: &str,
        proven: &'p Proven,
    ) -> Result<&'p Secret, PageError> {
        match (proven, flow.proof.as_str()) {
            (Proven::Gateway { ids, browser }, "gateway") => {
                if ids.contains(&flow.user) {
                    return Ok(browser);
                }
                self.note_mismatch(flow, "signed-in person").await?;
                Err(PageError::UserMismatch(Box::new(self.page(flow, link, None))))
            }
            (Proven::App { browser }, "app") => {
                if flow.proven && is_browser(flow, browser) {
                    Ok(browser)
                } else {
                    Err(PageError::NotProven)
                }
            }
            (Proven::Local { browser }, "local") if self.local => Ok(browser),
            (Proven::Gateway { .. } | Proven::App { .. } | Proven::Local { .. }, _) => {
                Err(PageError::NotProven)
            }
        }
    }

    pub(super) async fn note_mismatch(&self, flow: &FlowRow, actor: &str) -> Result<(), super::Error> {
        let mut open = self.store.begin().await?;
        open.add_audit(&self.flow_entry(flow, "flow.user_mismatch", actor, None)).await?;
        self.tell_flow(&mut open, flow, "authorization.user_mismatch", None).await?;
        Ok(open.commit().await?)
    }

    /// Writes down what happened to a flow.
    pub(super) async fn note_flow(
        &self,
        flow: &FlowRow,
        event: &str,
        actor: &str,
        detail: Option<&str>,
    ) -> Result<(), super::Error> {
        self.note(self.flow_entry(flow, event, actor, detail)).await
    }

    /// An entry of the audit log about a flow.
    pub(super) fn flow_entry(
        &self,
        flow: &FlowRow,
        event: &str,
        actor: &str,
        detail: Option<&str>,
    ) -> AuditRow {
        let mut entry = self.audit(&owner_of(flow), event, actor);
        entry.flow = Some(flow.id.clone());
        entry.resource = Some(flow.resource.clone());
        entry.detail = detail.map(str::to_owned);
        entry
    }

    /// Ends a flow because the person said no. False when it is not in the state `from` any more.
    pub(super) async fn end_declined(
        &self,
        flow: &FlowRow,
        from: &str,
        place: &str,
    ) -> Result<bool, super::Error> {
        let mut open = self.store.begin().await?;
        if !open.end_flow(flow, from, "declined", Some(place), None, self.now()).await? {
            return Ok(false);
        }
        self.revoke_held(&mut open, flow).await?;
        open.add_audit(&self.flow_entry(flow, "flow.declined", "person", Some(place))).await?;
        self.tell_flow(&mut open, flow, "authorization.denied", None).await?;
        open.commit().await?;
        self.wake(&flow.id).await;
        Ok(true)
    }

    /// A flow as its page shows it to the browser with this cookie.
    pub(super) fn page(&self, flow: &FlowRow, link: &str, browser: Option<&Secret>) -> FlowPage {
        let stage = match flow.state.as_str() {
            "granted" => Stage::Granted,
            "declined" => Stage::Declined,
            "expired" => Stage::Expired,
            _ if flow.expires_at <= self.now() => Stage::Expired,
            "confirming" => Stage::OtherAccount,
            _ => Stage::Open,
        };
        let proof = match flow.proof.as_str() {
            "app" => Proof::App,
            "local" => Proof::Local,
            _ => Proof::Gateway,
        };
        FlowPage {
            link: link.to_owned(),
            host: flow.server_url.parse().map(|uri| host_of(&uri)).unwrap_or_default(),
            resource: flow.resource.clone(),
            label: flow.server_label.clone(),
            application: KeptApplication::of(&flow.application),
            user: flow.user.clone(),
            profile: flow.profile.clone(),
            scopes: split_scopes(&flow.scopes),
            reason: reason_of(&flow.reason),
            proof,
            stage,
            proven: flow.proven && browser.is_some_and(|browser| is_browser(flow, browser)),
            created_at_ms: flow.created_at,
            expires_at_ms: flow.expires_at,
        }
    }
}

pub(super) fn is_browser(flow: &FlowRow, browser: &Secret) -> bool {
    let hash = sha256(browser.expose().as_bytes());
    flow.browser_hash.as_deref().is_some_and(|known| constant_time_eq(known, &hash))
}

pub(super) fn owner_of(flow: &FlowRow) -> Owner {
    Owner {
        project: flow.project.as_str().into(),
        user: flow.user.as_str().into(),
        profile: flow.profile.as_str().into(),
    }
}
