//! Who sits at the browser: what pages say of that is checked here, and what applications say is taken.
//!
//! An application is asked through the browser, by a reference. Its word comes from its server, and proves nobody: it
//! makes a proof that it sends back by the browser it sees. Only where that is the browser that left with the reference
//! is anybody proven. Otherwise whoever has a link could send the way to the application to its user, and go on in a
//! browser of their own as soon as the application has truthfully confirmed that user.

use http::Uri;

use super::link::{is_browser, is_hash_of};
use super::pages::Proven;
use super::service::{Connections, Inner};
use super::vault::Bound;
use super::work::about;
use super::{FlowError, PageError};
use crate::config::Secret;
use crate::crypto::{constant_time_eq, sha256, to_hex};
use crate::id::random_bytes;
use crate::store::{FLOW_BATCH, FlowRow, Transaction};

impl Connections {
    /// Somebody else than the user, signed in under `ids`, was shown the flow: written down, and nothing else.
    ///
    /// # Errors
    /// See [`PageError`].
    pub async fn note_wrong_person(&self, link: &str, shown: &str, ids: &[String]) -> Result<(), PageError> {
        let (flow, _) = self.0.shown_flow(link, shown).await?;
        if flow.proof == "gateway" && !ids.contains(&flow.user) {
            self.0.note_mismatch(&flow, "signed-in person", &ids.join("\n")).await?;
        }
        Ok(())
    }

    /// The application's verifier, with a reference that is good once, for this browser.
    ///
    /// # Errors
    /// See [`PageError`].
    pub async fn app_reference(&self, link: &str, shown: &str, browser: &Secret) -> Result<Uri, PageError> {
        let inner = &self.0;
        let (flow, batch) = inner.shown_flow(link, shown).await?;
        let failed = || PageError::Failed(Box::new(inner.page(&flow, link, None)));
        let verifier = flow.verifier_url.as_deref().and_then(|url| url::Url::parse(url).ok());
        let mut verifier = verifier.filter(|_| flow.proof == "app").ok_or_else(failed)?;
        let reference = format!("ref_{}", to_hex(&random_bytes::<32>()));
        let browser = sha256(browser.expose().as_bytes());
        let hash = sha256(reference.as_bytes());
        let bound = Bound { row: &flow.id, project: &flow.project, user: &flow.user };
        let batch = batch.map(|batch| inner.vault.seal(&FLOW_BATCH, bound, batch.as_bytes()));
        if !inner.store.refer_flow(&flow, &browser, &hash, batch, inner.now()).await? {
            return Err(inner.overtaken(&flow, link).await);
        }
        verifier.query_pairs_mut().append_pair("flow_ref", &reference);
        verifier.as_str().parse().map_err(|_| failed())
    }

    /// The application says which of its users came with a reference. Gives where to send that browser back: who has the
    /// address is proven by it, once, in the browser that left with the reference.
    ///
    /// # Errors
    /// [`FlowError::Unknown`]; [`FlowError::UserMismatch`], which is written down. Both use the reference up.
    pub async fn confirm(&self, project: &str, flow_ref: &str, user: &str) -> Result<Uri, FlowError> {
        let inner = &self.0;
        let hash = sha256(flow_ref.as_bytes());
        let flow = inner.store.find_flow_by_reference(project, &hash).await?.ok_or(FlowError::Unknown)?;
        let proof = format!("prf_{}", to_hex(&random_bytes::<32>()));
        let proof_hash = sha256(proof.as_bytes());
        let is_user = user == flow.user;
        let mut open = inner.store.begin().await?;
        let given = is_user.then_some(proof_hash.as_slice());
        if !open.answer_reference(&flow, &hash, given, inner.now()).await? {
            return Err(FlowError::Unknown);
        }
        if !is_user {
            inner.note_mismatch_in(&mut open, &flow, "application", user).await?;
        }
        open.commit().await?;
        if !is_user {
            return Err(FlowError::UserMismatch);
        }
        let link = inner.link_of(&flow)?;
        let back = format!("{}/connect/{link}?proof={proof}", inner.public_url);
        back.parse().map_err(|_| FlowError::Unknown)
    }

    /// A browser is back from the application, with a proof: where it goes to agree. `None` when the proof is none, or
    /// used; then nothing has happened.
    ///
    /// # Errors
    /// [`PageError::NotThisBrowser`] when another browser left with the reference: nobody is proven, and it is written
    /// down. A browser with a cookie also uses the proof up; without one, it may be whoever previews addresses.
    pub async fn come_proven(
        &self,
        link: &str,
        proof: &str,
        browser: Option<&Secret>,
    ) -> Result<Option<Uri>, PageError> {
        let inner = &self.0;
        let proof_hash = sha256(proof.as_bytes());
        let flow = inner.store.find_flow_by_link(&sha256(link.as_bytes())).await?;
        let is_its_proof = |flow: &FlowRow| {
            let known = flow.proof_hash.as_deref();
            known.is_some_and(|known| constant_time_eq(known, &proof_hash))
        };
        let Some(flow) = flow.filter(is_its_proof) else { return Ok(None) };
        let asked = browser.filter(|browser| is_hash_of(flow.asked_hash.as_deref(), browser));
        let mut open = inner.store.begin().await?;
        let Some(browser) = asked else {
            if open.doubt_proof(&flow, &proof_hash, browser.is_some(), inner.now()).await? {
                open.add_audit(&inner.flow_entry(&flow, "flow.wrong_browser", "browser", Some("proof")))
                    .await?;
                open.commit().await?;
            }
            return Err(PageError::NotThisBrowser(None));
        };
        let browser_hash = sha256(browser.expose().as_bytes());
        let Some(proven) = open.prove_flow(&flow, &proof_hash, &browser_hash, inner.now()).await? else {
            drop(open);
            return Err(inner.overtaken(&flow, link).await);
        };
        inner.revoke_held(&mut open, &flow).await?;
        open.commit().await?;
        let bound = Bound { row: &flow.id, project: &flow.project, user: &flow.user };
        let batch = match &flow.sealed_batch {
            Some(sealed) => Some(inner.vault.open_text(&FLOW_BATCH, bound, sealed)?.expose().to_owned()),
            None => None,
        };
        inner.leave(proven, link, batch, browser).await.map(Some)
    }
}

impl Inner {
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
                self.note_mismatch(flow, "signed-in person", &ids.join("\n")).await?;
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

    async fn note_mismatch(&self, flow: &FlowRow, actor: &str, person: &str) -> Result<(), super::Error> {
        let mut open = self.store.begin().await?;
        self.note_mismatch_in(&mut open, flow, actor, person).await?;
        Ok(open.commit().await?)
    }

    /// Writes down and tells that `person` is not the user of a flow: once, however often they come.
    async fn note_mismatch_in(
        &self,
        open: &mut Transaction,
        flow: &FlowRow,
        actor: &str,
        person: &str,
    ) -> Result<(), super::Error> {
        const EVENT: &str = "flow.user_mismatch";
        let mut entry = self.flow_entry(flow, EVENT, actor, None);
        entry.id = about(&[EVENT, &flow.id, person]);
        if open.add_audit_once(&entry).await? {
            self.tell_flow(open, flow, "authorization.user_mismatch", None).await?;
        }
        Ok(())
    }

    /// Writes down that the way back of a flow was taken in another browser: once each time that somebody left.
    pub(super) async fn note_wrong_browser(&self, flow: &FlowRow) -> Result<(), super::Error> {
        const EVENT: &str = "flow.wrong_browser";
        let mut entry = self.flow_entry(flow, EVENT, "browser", None);
        // Every departure has a verifier of its own.
        let departure = flow.sealed_verifier.as_deref().unwrap_or_default();
        entry.id = about(&[EVENT, &flow.id, &to_hex(departure)]);
        let mut open = self.store.begin().await?;
        open.add_audit_once(&entry).await?;
        Ok(open.commit().await?)
    }
}
