//! What is behind a link, and leaving for the authorization server.

use http::Uri;
use serde::{Deserialize, Serialize};

use super::clients::{NoClient, Source};
use super::doctor::by_hand;
use super::flow::{Kept, KeptApplication, LIFE, host_of, reason_of};
use super::pages::{FlowPage, LinkView, Proof, Proven, Stage};
use super::service::{Connections, Inner};
use super::vault::Bound;
use super::{Owner, PageError};
use crate::clean_json;
use crate::config::Secret;
use crate::crypto::{constant_time_eq, sha256};
use crate::id::random_bytes;
use crate::oauth::{self, AuthMethod, Authorize, Pkce, split_scopes};
use crate::store::{AuditRow, FLOW_VERIFIER, FlowRow, Leaving};

/// Times that others may be faster with the same flow.
const MOST_TRIES: usize = 3;

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
        let (flows, several) = self.0.flows_of(link).await?;
        let mut pages: Vec<FlowPage> = flows.iter().map(|flow| self.0.page(flow, link, browser)).collect();
        match (several, pages.pop()) {
            (_, None) => Err(PageError::Unknown),
            (false, Some(page)) => Ok(LinkView::One(Box::new(page))),
            (true, Some(page)) => {
                pages.push(page);
                Ok(LinkView::Several(pages))
            }
        }
    }

    /// Where the person goes to agree to the flow `shown`, which is behind the link. Only now is there a state that could
    /// come back.
    ///
    /// # Errors
    /// See [`PageError`]; a wrong person is written down.
    pub async fn begin(&self, link: &str, shown: &str, proven: Proven) -> Result<Uri, PageError> {
        let (flow, batch) = self.0.shown_flow(link, shown).await?;
        let browser = self.0.check_proof(&flow, link, &proven).await?;
        self.0.leave(flow, link, batch, browser).await
    }

    /// The person says no to the flow `shown`, also to another account than before. Like going on, it takes proof: else
    /// whoever comes across a link could end what is somebody else's.
    ///
    /// # Errors
    /// See [`PageError`]; [`PageError::Expired`] also when the login was finished just before.
    pub async fn decline(&self, link: &str, shown: &str, proven: Proven) -> Result<FlowPage, PageError> {
        let inner = &self.0;
        for _ in 0..MOST_TRIES {
            let (flow, _) = inner.shown_flow(link, shown).await?;
            inner.check_proof(&flow, link, &proven).await?;
            if inner.end_declined(&flow, &flow.state, "here").await? {
                let mut page = inner.page(&flow, link, None);
                page.stage = Stage::Declined;
                return Ok(page);
            }
        }
        Err(super::Error::Store.into())
    }
}

impl Inner {
    /// Sends a browser whose person is proven to the authorization server.
    pub(super) async fn leave(
        &self,
        flow: FlowRow,
        link: &str,
        batch: Option<String>,
        browser: &Secret,
    ) -> Result<Uri, PageError> {
        let inner = self;
        let now = inner.now();
        let kept: Kept = clean_json::from_slice(&flow.discovered).map_err(|_| super::Error::Store)?;
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
        let mut open = inner.store.begin().await?;
        if !open.send_flow(&flow, leaving, now).await? {
            drop(open);
            return Err(inner.overtaken(&flow, link).await);
        }
        inner.revoke_held(&mut open, &flow).await?;
        open.commit().await?;
        Ok(target)
    }

    /// The flows behind a link, and whether it is one for several.
    async fn flows_of(&self, link: &str) -> Result<(Vec<FlowRow>, bool), PageError> {
        let hash = sha256(link.as_bytes());
        if let Some(flow) = self.store.find_flow_by_link(&hash).await? {
            return Ok((vec![flow], false));
        }
        let flows = self.store.find_batch(&hash).await?.ok_or(PageError::Unknown)?;
        Ok((flows, true))
    }

    fn is_open(&self, flow: &FlowRow) -> bool {
        matches!(flow.state.as_str(), "pending" | "started" | "confirming") && flow.expires_at > self.now()
    }

    /// The flow of a link that can still be used: of a link for several, the first; with that link then.
    pub(super) async fn open_flow(&self, link: &str) -> Result<(FlowRow, Option<String>), PageError> {
        let (flows, several) = self.flows_of(link).await?;
        match flows.iter().find(|flow| self.is_open(flow)) {
            Some(flow) => Ok((flow.clone(), several.then(|| link.to_owned()))),
            None => match flows.last() {
                Some(flow) => Err(PageError::Expired(Box::new(self.page(flow, link, None)))),
                None => Err(PageError::Unknown),
            },
        }
    }

    /// The flow that the person was shown, and no other behind the same link: what they agreed to is that one.
    pub(super) async fn shown_flow(
        &self,
        link: &str,
        shown: &str,
    ) -> Result<(FlowRow, Option<String>), PageError> {
        let (flows, several) = self.flows_of(link).await?;
        let flow = flows.into_iter().find(|flow| flow.id == shown).ok_or(PageError::Unknown)?;
        if !self.is_open(&flow) {
            return Err(PageError::Expired(Box::new(self.page(&flow, link, None))));
        }
        Ok((flow, several.then(|| link.to_owned())))
    }

    /// What is to be said of a flow that somebody else was faster with.
    pub(super) async fn overtaken(&self, flow: &FlowRow, link: &str) -> PageError {
        match self.store.find_flow(&flow.project, &flow.id).await {
            Ok(Some(flow)) => PageError::Expired(Box::new(self.page(&flow, link, None))),
            Ok(None) => PageError::Unknown,
            Err(error) => error.into(),
        }
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
        // A no to one account is none to another that somebody came back with meanwhile.
        if from == "confirming" && !open.still_holds(flow).await? {
            return Ok(false);
        }
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
            "returned" => Stage::Returned,
            _ => Stage::Open,
        };
        let kept: Option<Kept> = clean_json::from_slice(&flow.discovered).ok();
        let sign_in = kept.and_then(|kept| kept.server.authorization_endpoint.parse().ok());
        let proof = match flow.proof.as_str() {
            "app" => Proof::App,
            "local" => Proof::Local,
            _ => Proof::Gateway,
        };
        FlowPage {
            link: link.to_owned(),
            flow: flow.id.clone(),
            host: flow.server_url.parse().map(|uri| host_of(&uri)).unwrap_or_default(),
            sign_in_host: sign_in.map(|uri| host_of(&uri)).unwrap_or_default(),
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
    is_hash_of(flow.browser_hash.as_deref(), browser)
}

/// Whether this is the SHA-256 of the browser's cookie.
pub(super) fn is_hash_of(known: Option<&[u8]>, browser: &Secret) -> bool {
    let hash = sha256(browser.expose().as_bytes());
    known.is_some_and(|known| constant_time_eq(known, &hash))
}

pub(super) fn owner_of(flow: &FlowRow) -> Owner {
    Owner {
        project: flow.project.as_str().into(),
        user: flow.user.as_str().into(),
        profile: flow.profile.as_str().into(),
    }
}
