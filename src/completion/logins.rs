//! The logins that one run needs: finding credentials, offering links, waiting for people.
//!
//! Links are made by `connections` and shown by the run. They never pass through the model, and nothing here opens one.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::defuse::OwnLinks;
use super::durable::{Log, Stop};
use super::engine::Parts;
use super::event::{AuthorizationBatch, AuthorizationRequired, LinkKind, RunEvent};
use super::options::OnAuth;
use super::sink::{Gone, Sink};
use crate::bounds::{Bound, BoundGuard, LimitReached, Principal};
use crate::connections::{
    self, Access, Application, FlowError, Owner, PendingFlow, Reason, Renewed, Scopes, Waited, Wanted,
};
use crate::rate_limit::RetryAfterSeconds;
use crate::tools::{self, Challenge, Outcome, Resolved, Server, Spec};

/// How often one request or call gets another token before a login is asked for.
const MOST_RENEWALS: u32 = 2;

/// The logins of one run.
pub struct Logins {
    pub parts: Arc<Parts>,
    /// `None` when the request names nobody.
    pub owner: Option<Owner>,
    pub application: Application,
    pub on_auth: OnAuth,
    pub wait: Duration,
    pub callback_url: Option<String>,
    pub run_id: String,
    /// The caller's namespace, user and profile.
    pub scope: Arc<str>,
    /// What was said already: calls of one turn that want the same say it once.
    pub said: Mutex<HashSet<String>>,
    pub used: UsedLogins,
    /// Whose things the run is counted among.
    pub principal: Principal,
    /// The run's place among those under way.
    pub run_guard: BoundGuard,
    /// Another process began the run: it waits on, whatever else its principal waits for.
    pub is_resumed: bool,
}

/// Whether a credential of the user, or of the request, was sent to a server.
#[derive(Default)]
pub struct UsedLogins {
    /// The run's log, where it is kept.
    pub log: OnceLock<Arc<Log>>,
}

impl UsedLogins {
    fn note(&self) {
        if let Some(log) = self.log.get() {
            log.use_login();
        }
    }
}

/// A login that is not there. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Missing {
    pub shown: Arc<AuthorizationRequired>,
    /// `None` when the gateway cannot offer the login.
    pub flow: Option<Arc<PendingFlow>>,
}

impl Missing {
    fn flow(&self) -> Option<PendingFlow> {
        self.flow.as_deref().cloned()
    }
}

/// What a server's refusal came to.
pub enum Refused {
    /// Another token: ask again with it.
    Renewed(Access),
    Missing(Missing),
    /// The request names nobody whose login it could be.
    Nobody,
    /// No login can be begun before that.
    Busy(RetryAfterSeconds),
    /// It cannot be known.
    Unknown(connections::Error),
}

/// What asking a server for its tools came to.
pub enum Asked {
    Ready(Resolved),
    Missing(Spec, Missing),
    Nobody(Spec),
    Busy(Spec, RetryAfterSeconds),
    Failed(Spec, tools::Error),
    Unknown(Spec, connections::Error),
}

/// What a server means that hides an expired token.
pub fn expired() -> Challenge {
    let error = Some("invalid_token".to_owned());
    Challenge { status: 401, error, ..Challenge::default() }
}

/// How waiting ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came {
    All,
    /// The person said no, or could not log in.
    Ended,
    TimedOut,
    /// The process stops.
    Stopping,
    /// Its principal waits for too much already.
    Refused(LimitReached),
}

impl Logins {
    /// A place among the requests that wait.
    ///
    /// # Errors
    /// [`LimitReached`].
    pub fn start_waiting(&self) -> Result<BoundGuard, LimitReached> {
        let bounds = &self.parts.bounds;
        match self.is_resumed {
            true => Ok(bounds.acquire_unchecked(Bound::Waiting, &self.principal)),
            false => bounds.acquire(Bound::Waiting, &self.principal),
        }
    }

    /// A credential for the server, when its user has a connection and the request brings none.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn find_access(&self, spec: &Spec) -> Result<Option<Access>, connections::Error> {
        match &self.owner {
            Some(owner) if spec.authorization.is_none() => {
                self.parts.connections.find_access(owner, &spec.uri).await
            }
            _ => Ok(None),
        }
    }

    /// The server as it is asked with `access`, or with what the request brings.
    pub fn server(&self, spec: &Spec, access: Option<&Access>) -> Server {
        if access.is_some() || spec.authorization.is_some() || !spec.headers.is_empty() {
            self.used.note();
        }
        Server {
            uri: spec.uri.clone(),
            authorization: match access {
                Some(access) => Some(access.authorization.clone()),
                None => spec.authorization.clone(),
            },
            connection: access.map(|access| Arc::clone(&access.connection)),
            resource: access.map(|access| Arc::clone(&access.resource)),
            headers: spec.headers.clone(),
            scope: Arc::clone(&self.scope),
        }
    }

    /// Asks the server for its tools, with the user's credential. `anew` after a login: what was kept before it is
    /// forgotten.
    pub async fn resolve(&self, mut spec: Spec, anew: bool) -> Asked {
        let mut access = match self.find_access(&spec).await {
            Ok(access) => access,
            Err(error) => return Asked::Unknown(spec, error),
        };
        let mut renewals = 0;
        loop {
            let server = self.server(&spec, access.as_ref());
            if anew && renewals == 0 {
                self.parts.tools.forget(&server);
            }
            let challenge = match tools::resolve(&self.parts.tools, spec, server).await {
                Outcome::Ready(resolved) => {
                    let Err(refused) = self.login_for_calls(&resolved.spec, access.as_ref()).await else {
                        return Asked::Ready(resolved);
                    };
                    return match refused {
                        Refused::Missing(missing) => Asked::Missing(resolved.spec, missing),
                        Refused::Busy(after) => Asked::Busy(resolved.spec, after),
                        Refused::Unknown(error) => Asked::Unknown(resolved.spec, error),
                        Refused::Renewed(_) | Refused::Nobody => Asked::Ready(resolved),
                    };
                }
                Outcome::Failed { spec: back, error } => {
                    if !self.is_expiry(&back, access.as_ref(), &Err(&error)).await {
                        return Asked::Failed(back, error);
                    }
                    spec = back;
                    expired()
                }
                // Forbidden for another reason than the token: no other token and no login changes that.
                Outcome::Unauthorized { spec: back, challenge }
                    if access.is_some() && challenge.is_forbidden() =>
                {
                    return Asked::Failed(back, tools::Error::Unauthorized(challenge));
                }
                Outcome::Unauthorized { spec: back, challenge } => {
                    spec = back;
                    challenge
                }
            };
            match self.refused(&spec, access.as_ref(), &challenge, renewals).await {
                Refused::Renewed(renewed) => access = Some(renewed),
                Refused::Missing(missing) => return Asked::Missing(spec, missing),
                Refused::Nobody => return Asked::Nobody(spec),
                Refused::Busy(after) => return Asked::Busy(spec, after),
                Refused::Unknown(error) => return Asked::Unknown(spec, error),
            }
            renewals += 1;
        }
    }

    /// Whether what a server answered to a request with `access` means that the token has expired, although it does not
    /// say so with 401. `answer` is a result, or why there is none.
    pub async fn is_expiry(
        &self,
        spec: &Spec,
        access: Option<&Access>,
        answer: &Result<&[u8], &tools::Error>,
    ) -> bool {
        let (Some(owner), Some(access)) = (&self.owner, access) else { return false };
        let (status, text) = match answer {
            // A result that is none is the only kind that can mean this.
            Ok(text) if memchr::memmem::find(text, b"isError").is_some() => (200, *text),
            Err(tools::Error::Status { status }) => (*status, &[][..]),
            // Where a redirect led, to a page for people most likely.
            Err(tools::Error::Protocol(_)) => (307, &[][..]),
            Ok(_) | Err(_) => return false,
        };
        self.parts.connections.hides_expiry(owner, access, &spec.uri, status, text).await
    }

    /// What to do about a server that refuses `access`, or wants a login.
    pub async fn refused(
        &self,
        spec: &Spec,
        access: Option<&Access>,
        challenge: &Challenge,
        renewals: u32,
    ) -> Refused {
        if spec.authorization.is_some() {
            return Refused::Missing(without_link(spec, challenge, None, &self.parts.links));
        }
        let Some(owner) = &self.owner else { return Refused::Nobody };
        let reason = match access {
            None => match self.parts.connections.find_access_anew(owner, &spec.uri).await {
                Ok(Some(access)) => return Refused::Renewed(access),
                Ok(None) => match self.parts.connections.find_end(owner, &spec.uri).await {
                    Ok(ended) => ended.unwrap_or(Reason::FirstUse),
                    Err(error) => return Refused::Unknown(error),
                },
                Err(error) => return Refused::Unknown(error),
            },
            Some(_) if renewals >= MOST_RENEWALS => Reason::Refused,
            Some(access) => match self.parts.connections.renew(owner, access, challenge).await {
                Ok(Renewed::Access(renewed)) => return Refused::Renewed(renewed),
                Ok(Renewed::LoginNeeded { reason }) => reason,
                Err(error) => return Refused::Unknown(error),
            },
        };
        let wanted = self.wanted(spec, Some(challenge.clone()), reason);
        match self.parts.connections.start_flow(owner, wanted).await {
            Ok(flow) => Refused::Missing(with_link(spec, flow, reason, self.on_auth, &self.parts.links)),
            Err(FlowError::Store(error)) => Refused::Unknown(error),
            Err(FlowError::Busy(after)) => Refused::Busy(after),
            Err(error) => Refused::Missing(without_link(spec, challenge, Some(&error), &self.parts.links)),
        }
    }

    /// The login for calls at a server that tells its tools to everybody: better asked for now than when the model has
    /// been paid for. Nothing where that is not known of it, where there is a credential, or where no login can be had.
    async fn login_for_calls(&self, spec: &Spec, access: Option<&Access>) -> Result<(), Refused> {
        let connections = &self.parts.connections;
        let Some(owner) = self.owner.as_ref().filter(|_| access.is_none()) else { return Ok(()) };
        // A header may well be a key.
        let brings_own = spec.authorization.is_some() || !spec.headers.is_empty();
        if brings_own || !connections.has_open_list(&spec.uri) {
            return Ok(());
        }
        let ended = connections.find_end(owner, &spec.uri).await.map_err(Refused::Unknown)?;
        let reason = ended.unwrap_or(Reason::FirstUse);
        match connections.start_flow(owner, self.wanted(spec, None, reason)).await {
            Ok(flow) => Err(Refused::Missing(with_link(spec, flow, reason, self.on_auth, &self.parts.links))),
            Err(FlowError::Store(error)) => Err(Refused::Unknown(error)),
            Err(FlowError::Busy(after)) => Err(Refused::Busy(after)),
            Err(error) => {
                tracing::info!(mcp.host = spec.host(), %error, "no login for calls can be offered");
                Ok(())
            }
        }
    }

    fn wanted(&self, spec: &Spec, challenge: Option<Challenge>, reason: Reason) -> Wanted {
        Wanted {
            uri: spec.uri.clone(),
            label: spec.label.clone(),
            challenge,
            scopes: Scopes::AsAsked,
            reason,
            application: self.application.clone(),
            callback_url: self.callback_url.clone(),
            run_id: Some(self.run_id.clone()),
            lasting: if self.on_auth == OnAuth::Wait { self.wait } else { Duration::ZERO },
        }
    }

    /// One link for all of `missing`, when there are several.
    pub async fn batch(&self, missing: &[Missing]) -> Option<AuthorizationBatch> {
        let flows: Vec<PendingFlow> = missing.iter().filter_map(Missing::flow).collect();
        let owner = self.owner.as_ref().filter(|_| flows.len() > 1)?;
        match self.parts.connections.start_batch(owner, &flows).await {
            Ok(connect_all_url) => {
                let with_flow = missing.iter().filter(|missing| missing.flow.is_some());
                let resources = with_flow.map(|missing| missing.shown.resource.clone()).collect();
                Some(AuthorizationBatch { connect_all_url: Some(connect_all_url), resources })
            }
            Err(error) => {
                // Every single link is there; only the convenience is missing.
                tracing::warn!(%error, "no link for several logins could be made");
                None
            }
        }
    }

    /// Shows what was not shown yet.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn show(&self, missing: &[Missing], sink: &Sink) -> Result<(), Gone> {
        let mut new = Vec::new();
        for one in missing {
            let what = one.shown.connect_url.as_ref().unwrap_or(&one.shown.resource);
            if self.first(format!("shown {what}")) {
                new.push(one.clone());
                sink.send(RunEvent::AuthorizationRequired(Arc::clone(&one.shown))).await?;
            }
        }
        if let Some(batch) = self.batch(&new).await {
            sink.send(RunEvent::AuthorizationBatch(batch)).await?;
        }
        Ok(())
    }

    /// Says that the run waits, once for the same logins.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn show_waiting(&self, missing: &[Missing], sink: &Sink) -> Result<(), Gone> {
        let resources: Vec<String> = missing.iter().map(|missing| missing.shown.resource.clone()).collect();
        // A page of the same server, or another login there, is another wait.
        let links = missing.iter().map(|missing| missing.shown.connect_url.as_ref());
        let links: Vec<&str> =
            links.zip(&resources).map(|(url, resource)| url.unwrap_or(resource).as_str()).collect();
        if self.first(format!("waiting {}", links.join(" "))) {
            sink.send(RunEvent::Waiting { seconds: self.wait.as_secs(), resources }).await?;
        }
        Ok(())
    }

    /// Says that a login is there, once.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn show_authorized(&self, missing: &Missing, sink: &Sink) -> Result<(), Gone> {
        let AuthorizationRequired { resource, host, connect_url, .. } = &*missing.shown;
        if self.first(format!("authorized {}", connect_url.as_ref().unwrap_or(resource))) {
            let (resource, host) = (resource.clone(), host.clone());
            sink.send(RunEvent::Authorized { resource, host }).await?;
        }
        Ok(())
    }

    /// Shows `missing` and waits for the logins among them that have a link.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn wait_for(&self, missing: &[Missing], sink: &Sink) -> Result<Came, Gone> {
        self.show(missing, sink).await?;
        let flows: Vec<PendingFlow> = missing.iter().filter_map(Missing::flow).collect();
        if flows.is_empty() {
            return Ok(Came::Ended);
        }
        let _waiting = match self.start_waiting() {
            Ok(guard) => guard,
            Err(reached) => return Ok(Came::Refused(reached)),
        };
        let waited_for: Vec<Missing> =
            missing.iter().filter(|missing| missing.flow.is_some()).cloned().collect();
        self.show_waiting(&waited_for, sink).await?;
        let until = Instant::now() + self.wait;
        let waiting = Box::pin(self.parts.connections.wait(&flows, until));
        let waited = tokio::select! {
            waited = waiting => waited,
            () = self.stopping() => {
                self.hand_over(sink)?;
                return Ok(Came::Stopping);
            }
        };
        match waited {
            Waited::Granted => {
                for one in &waited_for {
                    self.show_authorized(one, sink).await?;
                }
                Ok(Came::All)
            }
            Waited::Ended(_) => Ok(Came::Ended),
            Waited::TimedOut => Ok(Came::TimedOut),
        }
    }

    /// The process stops: a run that is kept goes on elsewhere, and its requests look there.
    ///
    /// # Errors
    /// [`Gone`] for such a run.
    pub fn hand_over(&self, sink: &Sink) -> Result<(), Gone> {
        let Some(log) = sink.log() else { return Ok(()) };
        log.end_early(Stop::HandedOver);
        Err(Gone)
    }

    /// Ready when the process is asked to stop.
    pub async fn stopping(&self) {
        let mut stopping = self.parts.stopping.subscribe();
        // The sender lives as long as the parts.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    }

    fn first(&self, saying: String) -> bool {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).insert(saying)
    }
}

fn with_link(spec: &Spec, flow: PendingFlow, reason: Reason, on_auth: OnAuth, links: &OwnLinks) -> Missing {
    let mut reason = match reason {
        Reason::FirstUse => "It wants you to log in.",
        Reason::Expired => "The login has expired. Log in again.",
        Reason::Revoked => "The login was withdrawn. Log in again to go on.",
        Reason::StepUp => "It wants more permissions than it was given. Log in again to grant them.",
        Reason::Refused | Reason::ReAuthorize => "It does not accept the login any more. Log in again.",
    }
    .to_owned();
    // Who waits need not ask again, and who wants an error is an application.
    if on_auth == OnAuth::Link {
        reason.push_str(" Then ask again.");
    }
    let shown = AuthorizationRequired {
        resource: spec.server_url.clone(),
        server_label: spec.label.clone(),
        host: spec.host().to_owned(),
        connect_url: Some(flow.connect_url.clone()),
        scopes: shown_scopes(flow.scopes.iter().map(String::as_str), links),
        reason,
        expires_at: Some(flow.expires_at_ms / 1000),
        kind: LinkKind::Connection,
    };
    Missing { shown: Arc::new(shown), flow: Some(Arc::new(flow)) }
}

/// A login that the gateway cannot offer: the credential must come with the request.
fn without_link(spec: &Spec, challenge: &Challenge, why: Option<&FlowError>, links: &OwnLinks) -> Missing {
    let host = spec.host();
    let how = format!(
        "in the field authorization of this tool, or in the header X-MCP-Authorization as {host}=TOKEN"
    );
    let reason = match (&spec.authorization, challenge.status, why) {
        (Some(_), 403, _) => {
            format!("The credential it was given does not suffice. Send one that does {how}.")
        }
        (Some(_), _, _) => format!("It refuses the credential it was given. Send a valid one {how}."),
        (None, _, Some(why)) => {
            // Why not may repeat what the server says of itself.
            let why = links.broken_in(&why.to_string()).into_owned();
            format!("It wants a login that cannot be offered here: {why}. Send its access token {how}.")
        }
        (None, _, None) => format!("It wants a login. Send its access token {how}."),
    };
    let scopes = challenge.scope.iter().flat_map(|scopes| scopes.split_whitespace());
    let shown = AuthorizationRequired {
        resource: spec.server_url.clone(),
        server_label: spec.label.clone(),
        host: host.to_owned(),
        connect_url: None,
        scopes: shown_scopes(scopes.take(100), links),
        reason,
        expires_at: None,
        kind: LinkKind::Connection,
    };
    Missing { shown: Arc::new(shown), flow: None }
}

/// Scopes as a reader sees them; a server may call one like a link of ours.
fn shown_scopes<'s>(scopes: impl Iterator<Item = &'s str>, links: &OwnLinks) -> Vec<String> {
    scopes.map(|scope| links.broken_in(scope).into_owned()).collect()
}
