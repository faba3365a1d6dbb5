//! Telling applications what becomes of their users' logins: signed, at least once, in order per flow.
//!
//! <https://www.standardwebhooks.com> 1.0. No tokens are in them.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Request, header};
use serde_json::{Value, json};

use super::flow::KeptApplication;
use super::link::owner_of;
use super::service::{Connections, Inner};
use super::vault::Bound;
use super::work::Job;
use super::{Error, Owner};
use crate::config::Secret;
use crate::crypto::hmac_sha256;
use crate::egress::{Reach, full, parse_uri};
use crate::id::random_id;
use crate::oauth::split_scopes;
use crate::store::{
    self, FLOW_CALLBACK_KEY, FlowRow, OUTBOX_BODY, OUTBOX_KEY, OutboxRow, PROJECT_WEBHOOK_SECRET, Take,
    Transaction,
};

/// What every such key begins with.
const PREFIX: &str = "whsec_";
/// Time for the receiver to answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long one attempt may take before another instance may try, in milliseconds.
const LEASE: i64 = 60_000;
/// Webhooks to one host at the same time.
const PER_HOST: i64 = 8;
/// Attempts before a webhook is given up: about a day.
const MOST_ATTEMPTS: i64 = 20;

/// Where a webhook goes, and its key.
struct Target {
    url: String,
    key: Secret,
}

/// What is told of a run.
pub struct RunNews<'a> {
    pub project: &'a str,
    pub run: &'a str,
    /// Such as `run.completed`.
    pub event: &'a str,
    pub data: Value,
    /// The address that the request named.
    pub url: Option<&'a str>,
}

impl Connections {
    /// Tells of a run: the address that its request named, and the project's. In the transaction in which it happens.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn tell_run(&self, open: &mut Transaction, news: RunNews<'_>) -> Result<(), store::Error> {
        let inner = &self.0;
        let owner = Owner { project: news.project.into(), user: "".into(), profile: "".into() };
        let own = inner.project_target_in(open, news.project).await.map_err(|error| unavailable(&error))?;
        let mut targets = Vec::new();
        if let Some(url) = news.url {
            // With the project's own key, where it has one.
            let key = own.as_ref().map_or_else(|| inner.webhook_key(news.project), |own| own.key.clone());
            targets.push(Target { url: url.to_owned(), key });
        }
        targets.extend(own.filter(|own| news.url != Some(own.url.as_str())));
        for target in targets {
            let put = inner.put(open, &owner, news.run, news.event, &news.data, target).await;
            put.map_err(|error| unavailable(&error))?;
        }
        Ok(())
    }

    /// The key that signs webhooks to the addresses that requests of this project name. `None` when they are signed with
    /// the project's own secret, which was shown when it was made.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn webhook_secret(&self, project: &str) -> Result<Option<Secret>, Error> {
        let own = self.0.project_target(project).await?;
        Ok(own.is_none().then(|| self.0.webhook_key(project)))
    }
}

impl Inner {
    /// The key of webhooks to whoever has no project of the store: made from what only this gateway knows.
    pub(super) fn webhook_key(&self, project: &str) -> Secret {
        let key = hmac_sha256(&self.pepper, format!("webhooks {project}").as_bytes());
        Secret::new(format!("{PREFIX}{}", STANDARD.encode(key)))
    }

    /// The key of webhooks to addresses that requests name: the project's own, where it has one.
    pub(super) async fn callback_key(&self, project: &str) -> Result<Secret, Error> {
        let own = self.project_target(project).await?;
        Ok(own.map_or_else(|| self.webhook_key(project), |target| target.key))
    }

    /// Tells of a flow: the address the request gave, and the project's. In the transaction in which it happens, so that
    /// a crash neither forgets to tell nor tells what never was.
    pub(super) async fn tell_flow(
        &self,
        open: &mut Transaction,
        flow: &FlowRow,
        event: &str,
        url: Option<&str>,
    ) -> Result<(), Error> {
        let mut targets = Vec::new();
        if let (Some(url), Some(sealed)) = (&flow.callback_url, &flow.sealed_callback_key) {
            let bound = Bound { row: &flow.id, project: &flow.project, user: &flow.user };
            match self.vault.open_text(&FLOW_CALLBACK_KEY, bound, sealed) {
                Ok(key) => targets.push(Target { url: url.clone(), key }),
                // What cannot be signed must not hold up what happened.
                Err(error) => tracing::error!(%error, flow = flow.id, "a webhook cannot be signed"),
            }
        }
        let own = self.project_target_in(open, &flow.project).await?;
        targets.extend(own.filter(|own| flow.callback_url.as_ref() != Some(&own.url)));
        if targets.is_empty() {
            return Ok(());
        }
        let host = parse_uri(&flow.server_url).map(|uri| super::flow::host_of(&uri)).unwrap_or_default();
        let application = KeptApplication::of(&flow.application);
        let mut data = json!({
            "flow": flow.id,
            "user": flow.user,
            "profile": Some(&flow.profile).filter(|profile| !profile.is_empty()),
            "resource": flow.server_url,
            "scopes": split_scopes(&flow.scopes),
            "run_id": flow.run_id,
            "application": &*application.name,
            "expires_at": flow.expires_at / 1000,
        });
        if let Some(url) = url {
            data["url"] = url.into();
            data["message"] = format!("{} wants a login at {host}.", application.name).into();
        }
        for target in targets {
            self.put(open, &owner_of(flow), &flow.id, event, &data, target).await?;
        }
        Ok(())
    }

    /// Tells the project of a connection.
    pub(super) async fn tell_project(
        &self,
        open: &mut Transaction,
        owner: &Owner,
        stream: &str,
        event: &str,
        mut data: Value,
    ) -> Result<(), Error> {
        let Some(target) = self.project_target_in(open, &owner.project).await? else { return Ok(()) };
        data["user"] = (*owner.user).into();
        if !owner.profile.is_empty() {
            data["profile"] = (*owner.profile).into();
        }
        self.put(open, owner, stream, event, &data, target).await
    }

    async fn project_target(&self, project: &str) -> Result<Option<Target>, Error> {
        let Some(name) = project.strip_prefix("project:") else { return Ok(None) };
        let Some(found) = self.store.find_project(name).await? else { return Ok(None) };
        self.target(name, found.webhook_url, found.sealed_webhook_secret)
    }

    /// As `project_target`; a database in memory has one connection only, which the transaction holds.
    async fn project_target_in(
        &self,
        open: &mut Transaction,
        project: &str,
    ) -> Result<Option<Target>, Error> {
        let Some(name) = project.strip_prefix("project:") else { return Ok(None) };
        let Some((url, sealed)) = open.find_webhook(name).await? else { return Ok(None) };
        Ok(self.target(name, url, sealed).unwrap_or_else(|error| {
            tracing::error!(%error, project = name, "a webhook cannot be signed");
            None
        }))
    }

    fn target(
        &self,
        name: &str,
        url: Option<String>,
        sealed: Option<Vec<u8>>,
    ) -> Result<Option<Target>, Error> {
        let (Some(url), Some(sealed)) = (url, sealed) else { return Ok(None) };
        let key = self.vault.open_text(
            &PROJECT_WEBHOOK_SECRET,
            Bound { row: name, project: name, user: "" },
            &sealed,
        )?;
        Ok(Some(Target { url, key }))
    }

    async fn put(
        &self,
        open: &mut Transaction,
        owner: &Owner,
        stream: &str,
        event: &str,
        data: &Value,
        target: Target,
    ) -> Result<(), Error> {
        let id = random_id("msg_");
        let body = json!({ "type": event, "timestamp": self.now() / 1000, "data": data });
        let bound = Bound { row: &id, project: &owner.project, user: "" };
        let webhook = OutboxRow {
            project: owner.project.to_string(),
            host: host_of_url(&target.url),
            url: target.url,
            sealed_key: self.vault.seal(&OUTBOX_KEY, bound, target.key.expose().as_bytes()),
            sealed_body: self.vault.seal(&OUTBOX_BODY, bound, body.to_string().as_bytes()),
            attempts: 0,
            id,
        };
        open.add_webhook(&webhook, stream, self.now()).await?;
        Ok(())
    }

    async fn send(&self, webhook: &OutboxRow) -> Result<u16, Error> {
        let bound = Bound { row: &webhook.id, project: &webhook.project, user: "" };
        let key = self.vault.open_text(&OUTBOX_KEY, bound, &webhook.sealed_key)?;
        let body = self.vault.open(&OUTBOX_BODY, bound, &webhook.sealed_body)?;
        let timestamp = self.now() / 1000;
        let signature = sign(&key, &webhook.id, timestamp, &body).ok_or(Error::Sealed)?;
        let uri = parse_uri(&webhook.url).map_err(|_| Error::Store)?;
        let request = Request::post(uri)
            .header(header::CONTENT_TYPE, "application/json")
            .header("webhook-id", &webhook.id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .body(full(body.to_vec()))
            .map_err(|_| Error::Store)?;
        match self.egress.send(Reach::Requested, request, PATIENCE).await {
            Ok(response) => Ok(response.status().as_u16()),
            Err(error) => {
                tracing::info!(%error, webhook.id = webhook.id, "a webhook was not delivered yet");
                Err(Error::NotNow)
            }
        }
    }
}

impl Job for OutboxRow {
    const AT_ONCE: usize = 64;

    async fn take(inner: &Inner, most: usize) -> Result<Vec<Self>, Error> {
        let (owner, now) = (inner.instance.as_str(), inner.now());
        let take = Take { owner, now, lease: LEASE, most, per_host: PER_HOST };
        Ok(inner.store.take_webhooks(&take).await?)
    }

    async fn run(self, inner: &Inner) -> Result<(), Error> {
        let outcome = inner.send(&self).await;
        let now = inner.now();
        let (state, status, next_at) = match outcome {
            Ok(status) if (200..300).contains(&status) => ("delivered", Some(i64::from(status)), now),
            _ if self.attempts >= MOST_ATTEMPTS => ("given_up", outcome.ok().map(i64::from), now),
            Ok(410) => ("given_up", Some(410), now),
            _ => {
                let pause = (1_000_i64 << self.attempts.clamp(0, 14)).min(3 * 3_600_000);
                ("waiting", outcome.ok().map(i64::from), now + pause)
            }
        };
        Ok(inner.store.settle_webhook(&self, &inner.instance, state, status, next_at).await?)
    }
}

fn unavailable(error: &Error) -> store::Error {
    store::Error::Unavailable(error.to_string())
}

/// Host and port of an address: those with the same share places.
pub(super) fn host_of_url(url: &str) -> String {
    parse_uri(url).map(|uri| super::flow::host_of(&uri).to_ascii_lowercase()).unwrap_or_default()
}

/// The value of `webhook-signature`; `None` when the key is none.
fn sign(key: &Secret, id: &str, timestamp: i64, body: &[u8]) -> Option<String> {
    let key = zeroize::Zeroizing::new(STANDARD.decode(key.expose().strip_prefix(PREFIX)?).ok()?);
    let key: &[u8; 32] = key.as_slice().try_into().ok()?;
    let mut message = format!("{id}.{timestamp}.").into_bytes();
    message.extend_from_slice(body);
    Some(format!("v1,{}", STANDARD.encode(hmac_sha256(key, &message))))
}
