//! The older era (MCP 2025-03-26 to 2025-11-25): `initialize`, then requests within a session.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use serde::Deserialize;

use super::client::quiet;
use super::deadline::Deadline;
use super::event_stream::{self, EventStream};
use super::interruption::deal;
use super::link::{Answer, Rejection, SESSION, VERSION, cut};
use super::lost_session::{self, SessionDoubt};
use super::message::{Message, harmless};
use super::modern::Asked;
use super::peer::Peer;
use super::reading::Messages;
use super::request::{self, Ask};
use super::{Core, Era, Follow};
use crate::clean_json;
use crate::tools::Error;

/// How often a cut stream is resumed before something new arrives on it.
const MOST_RESUMES: u32 = 5;
/// The wait before resuming when the server does not name one, and the longest it may name.
const RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// Requests of the server that are answered during one of ours.
const MOST_REQUESTS: u32 = 100;
/// Time for a message whose answer does not matter.
const COURTESY: Duration = Duration::from_secs(2);

/// An open session. Ends at the server (HTTP DELETE) when it is no longer kept and nobody uses it.
pub(crate) struct Session {
    core: Arc<Core>,
    /// With the credential of the last request: those of a connection change while its session lasts.
    peer: Mutex<Arc<Peer>>,
    /// Session and version, which every request repeats.
    headers: HeaderMap,
    transport: Transport,
    /// Requests under way.
    users: AtomicUsize,
    /// It is not kept any more: it ends with the last request.
    leaving: AtomicBool,
    ended: AtomicBool,
}

enum Transport {
    Posts,
    Stream(EventStream),
}

/// What became of a request within a session.
pub(crate) enum Within {
    Asked(Asked),
    /// The server does not know the session; it did not carry out the request. With its words, where it has some.
    Lost(Option<Rejection>),
}

impl Session {
    /// Opens a session, offering `version`; over a 2024-11-05 event stream when posting is not understood, or
    /// at once when `era` says so. `Ok(Err(_))` is the server's refusal to open one.
    ///
    /// # Errors
    /// What kept the server from answering.
    pub(crate) async fn open(
        core: &Arc<Core>,
        peer: &Peer,
        version: &'static str,
        era: Era,
        deadline: &mut Deadline,
    ) -> Result<Result<Session, Rejection>, Error> {
        if era == Era::EventStream
            && let Ok(stream) = event_stream::open(core, peer, deadline).await?
        {
            return Session::open_on(core, peer, version, stream, deadline).await;
        }
        let id = core.next_id();
        let body = request::initialize(id, version);
        let answer = core.link.post(peer, &peer.uri, HeaderMap::new(), body, deadline).await?;
        let (mut messages, session) = match answer {
            Answer::Messages(messages, session) => (messages, session),
            Answer::Accepted => return Err(Error::Protocol("it does not answer `initialize`".into())),
            Answer::Rejected(rejection) if rejection.means_event_stream() && era != Era::EventStream => {
                return match event_stream::open(core, peer, deadline).await? {
                    Ok(stream) => Session::open_on(core, peer, version, stream, deadline).await,
                    Err(_) => Ok(Err(rejection)),
                };
            }
            Answer::Rejected(rejection) => return Ok(Err(rejection)),
        };
        let result = loop {
            match deadline.within(messages.next()).await?? {
                Some(Message::Response { outcome: Ok(result), .. }) => break result,
                Some(Message::Response { outcome: Err(rpc), .. }) => return Ok(Err(Rejection::by_rpc(rpc))),
                Some(_) => {}
                None => return Err(cut("the answer to `initialize` ended early")),
            }
        };
        messages.finish().await;
        let headers = session_headers(session, &result)?;
        let opened = Session::new(core, peer, headers, Transport::Posts);
        let headers = opened.headers.clone();
        core.link.post(peer, &peer.uri, headers, request::initialized(), deadline).await?;
        Ok(Ok(opened))
    }

    async fn open_on(
        core: &Arc<Core>,
        peer: &Peer,
        version: &'static str,
        stream: EventStream,
        deadline: &mut Deadline,
    ) -> Result<Result<Session, Rejection>, Error> {
        let id = core.next_id();
        let body = request::initialize(id, version);
        let opening = stream.ask(core, peer, HeaderMap::new(), id, body, deadline, &quiet).await?;
        let result = match opening {
            Within::Asked(Asked::Result(result)) => result,
            Within::Asked(Asked::Rejected(rejection)) => return Ok(Err(rejection)),
            Within::Lost(_) => return Err(cut("the event stream ended at once")),
        };
        let headers = session_headers(None, &result)?;
        let uri = stream.uri.clone();
        let opened = Session::new(core, peer, headers.clone(), Transport::Stream(stream));
        core.link.post(peer, &uri, headers, request::initialized(), deadline).await?;
        Ok(Ok(opened))
    }

    fn new(core: &Arc<Core>, peer: &Peer, headers: HeaderMap, transport: Transport) -> Self {
        let (core, peer) = (Arc::clone(core), Mutex::new(Arc::new(peer.clone())));
        let (users, leaving, ended) = Default::default();
        Session { core, peer, headers, transport, users, leaving, ended }
    }

    /// How to open the next one.
    pub(crate) fn era(&self) -> Era {
        match self.transport {
            Transport::Posts => Era::Posts,
            Transport::Stream(_) => Era::EventStream,
        }
    }

    /// Whether it can certainly not be used any more.
    pub(crate) fn is_dead(&self) -> bool {
        let closed = match &self.transport {
            Transport::Posts => false,
            Transport::Stream(stream) => stream.is_closed(),
        };
        closed || self.ended.load(Ordering::Relaxed)
    }

    fn peer(&self) -> Arc<Peer> {
        Arc::clone(&self.peer.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The peer as it is now, for this request and for what is said later in its name.
    fn renewed(&self, peer: &Peer) -> Arc<Peer> {
        let mut known = self.peer.lock().unwrap_or_else(PoisonError::into_inner);
        if known.headers != peer.headers {
            *known = Arc::new(peer.clone());
        }
        Arc::clone(&known)
    }

    /// Asks within the session, with the credential of `peer`. When the future is dropped, or the time is up, the server is told.
    ///
    /// # Errors
    /// What kept the request from being answered.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        peer: &Peer,
        ask: Ask<'_>,
        deadline: &mut Deadline,
        follow: Follow<'_>,
    ) -> Result<Within, Error> {
        let _in_use = InUse::new(self);
        let peer = self.renewed(peer);
        let id = self.core.next_id();
        let mut cancel = CancelOnDrop { session: self, id, armed: true };
        let asked = match &self.transport {
            Transport::Posts => self.ask_by_post(&peer, id, ask, deadline, follow).await,
            Transport::Stream(stream) => {
                let (headers, body) = (self.headers.clone(), ask.legacy(id));
                stream.ask(&self.core, &peer, headers, id, body, deadline, follow).await
            }
        };
        let still_runs = matches!(
            &asked,
            Err(Error::Timeout { .. }
                | Error::Unreachable { maybe_ran: true, .. }
                | Error::PageRequired(_)
                | Error::InputRequired(_))
        );
        cancel.armed = still_runs;
        if matches!(asked, Ok(Within::Lost(_))) {
            self.ended.store(true, Ordering::Relaxed);
        }
        asked
    }

    async fn ask_by_post(
        &self,
        peer: &Peer,
        id: u64,
        ask: Ask<'_>,
        deadline: &mut Deadline,
        follow: Follow<'_>,
    ) -> Result<Within, Error> {
        let outcome = self.exchange(peer, id, ask.legacy(id), deadline, follow).await;
        let is_lost = match lost_session::doubt(&outcome, self.headers.contains_key(SESSION)) {
            SessionDoubt::None => false,
            SessionDoubt::Ping => self.refuses_ping(peer, &outcome, deadline).await,
            SessionDoubt::Lost => true,
        };
        if !is_lost {
            return outcome.map(Within::Asked);
        }
        self.ended.store(true, Ordering::Relaxed);
        if !lost_session::may_repeat(&ask, &outcome) {
            // The next request opens another session; what became of this call is unknown.
            return outcome.map(Within::Asked);
        }
        Ok(Within::Lost(match outcome {
            Ok(Asked::Rejected(rejection)) => Some(rejection),
            Ok(Asked::Result(_)) | Err(_) => None,
        }))
    }

    /// Whether the server refuses a `ping` in this session in the same way as `outcome`.
    async fn refuses_ping(&self, peer: &Peer, outcome: &Result<Asked, Error>, deadline: &Deadline) -> bool {
        let id = self.core.next_id();
        let mut short = Deadline::new(COURTESY.min(deadline.left()));
        let pinged = self.exchange(peer, id, request::ping(id), &mut short, &quiet).await;
        lost_session::sign(&pinged).is_some_and(|refused| Some(refused) == lost_session::sign(outcome))
    }

    /// Posts one request and reads until its answer.
    async fn exchange(
        &self,
        peer: &Peer,
        id: u64,
        body: Bytes,
        deadline: &mut Deadline,
        follow: Follow<'_>,
    ) -> Result<Asked, Error> {
        let headers = self.headers.clone();
        let mut messages = match self.core.link.post(peer, &peer.uri, headers, body, deadline).await? {
            Answer::Messages(messages, _) => messages,
            Answer::Accepted => return Err(Error::Protocol("it does not answer the request".into())),
            Answer::Rejected(rejection) => return Ok(Asked::Rejected(rejection)),
        };
        let (mut resumes, mut requests, mut pages) = (0, 0, 0);
        loop {
            match deadline.within(messages.next()).await? {
                Ok(Some(Message::Response { id: Some(other), .. })) if other != id => {}
                Ok(Some(Message::Response { outcome, .. })) => {
                    messages.finish().await;
                    return Ok(match outcome {
                        Ok(result) => Asked::Result(result),
                        Err(rpc) => Asked::Rejected(Rejection::by_rpc(rpc)),
                    });
                }
                Ok(Some(Message::Progress { token: Some(token), progress: said })) if token == id => {
                    deadline.extend();
                    follow.progress(said);
                }
                Ok(Some(Message::Request { id, method, asked })) if requests < MOST_REQUESTS => {
                    requests += 1;
                    let dealt = deal(&id, &method, asked.as_deref(), &mut pages, follow).await;
                    self.tell(dealt.answer).await;
                    if let Some(patience) = dealt.then? {
                        deadline.allow(patience);
                    }
                }
                Ok(Some(Message::ToolsChanged)) => self.core.lists.forget(peer),
                Ok(Some(_)) => {}
                Ok(None) | Err(Error::Unreachable { .. }) if messages.is_stream() => {
                    messages = self.resume(peer, messages, &mut resumes, deadline).await?;
                }
                Ok(None) => return Err(cut("the answer ended without a result")),
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes up a stream that ended before the answer (MCP 2025-11-25, resumability). The request itself is
    /// never sent again.
    async fn resume(
        &self,
        peer: &Peer,
        old: Box<Messages>,
        resumes: &mut u32,
        deadline: &Deadline,
    ) -> Result<Box<Messages>, Error> {
        let ended = || cut("the connection was cut before the answer");
        let last = old.last_event_id.as_deref().ok_or_else(ended)?;
        loop {
            *resumes += 1;
            if *resumes > MOST_RESUMES {
                return Err(ended());
            }
            let wait = old.retry.unwrap_or(RETRY).min(LONGEST_RETRY);
            deadline.within(tokio::time::sleep(wait)).await?;
            let mut headers = self.headers.clone();
            headers.insert("last-event-id", HeaderValue::from_str(last).map_err(|_| ended())?);
            match self.core.link.get(peer, &peer.uri, headers, deadline).await {
                Ok(Answer::Messages(mut messages, _)) => {
                    messages.last_event_id = Some(last.to_owned());
                    messages.retry = old.retry;
                    return Ok(messages);
                }
                Err(Error::Unreachable { .. }) => {}
                Ok(_) => return Err(ended()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends a message whose answer does not matter.
    async fn tell(&self, body: Bytes) {
        let peer = self.peer();
        let uri = match &self.transport {
            Transport::Posts => &peer.uri,
            Transport::Stream(stream) => &stream.uri,
        };
        let deadline = Deadline::new(COURTESY);
        let told = self.core.link.post(&peer, uri, self.headers.clone(), body, &deadline).await;
        if let Err(error) = told {
            tracing::debug!(mcp.host = peer.uri.host(), %error, "the server could not be told");
        }
    }

    /// It is not kept any more: ends it, or lets the last request under way do so. A request that begins after
    /// that finds the session lost and opens another.
    pub(crate) fn leave(&self) {
        self.leaving.store(true, Ordering::SeqCst);
        self.end_if_unused();
    }

    fn end_if_unused(&self) {
        if self.leaving.load(Ordering::SeqCst) && self.users.load(Ordering::SeqCst) == 0 {
            self.spawn_end();
        }
    }

    fn spawn_end(&self) {
        if let (Some(deletion), Ok(runtime)) = (self.deletion(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(deletion);
        }
    }

    /// Ends the session at the server; a session without a name there just ends.
    pub(crate) async fn end(&self) {
        if let Some(deletion) = self.deletion() {
            deletion.await;
        }
    }

    fn deletion(&self) -> Option<impl Future<Output = ()> + Send + 'static> {
        if let Transport::Stream(stream) = &self.transport {
            stream.close();
        }
        let named = self.headers.contains_key(SESSION);
        if self.ended.swap(true, Ordering::Relaxed) || !named {
            return None;
        }
        let (link, peer, headers) = (self.core.link.clone(), self.peer(), self.headers.clone());
        Some(async move {
            let deadline = Deadline::new(COURTESY);
            let sent = link.send(Method::DELETE, &peer, &peer.uri, headers, Bytes::new(), &deadline).await;
            if let Err(error) = sent {
                tracing::debug!(mcp.host = peer.uri.host(), %error, "the session could not be ended");
            }
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.spawn_end();
    }
}

/// Counts a request under way.
struct InUse<'a>(&'a Session);

impl<'a> InUse<'a> {
    fn new(session: &'a Session) -> Self {
        session.users.fetch_add(1, Ordering::SeqCst);
        InUse(session)
    }
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        self.0.users.fetch_sub(1, Ordering::SeqCst);
        self.0.end_if_unused();
    }
}

/// Tells the server that nobody waits for an answer any more: dropping the connection does not.
struct CancelOnDrop<'a> {
    session: &'a Arc<Session>,
    id: u64,
    armed: bool,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if let (true, Ok(runtime)) = (self.armed, tokio::runtime::Handle::try_current()) {
            let (session, id) = (Arc::clone(self.session), self.id);
            runtime.spawn(async move { session.tell(request::cancelled(id)).await });
        }
    }
}

/// What every later request repeats, from the answer to `initialize`.
fn session_headers(session: Option<HeaderValue>, result: &Bytes) -> Result<HeaderMap, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Initialized {
        protocol_version: String,
    }
    let Initialized { protocol_version } = clean_json::from_slice(result)
        .map_err(|_| Error::Protocol("its answer to `initialize` cannot be read".into()))?;
    let Some(version) = request::LEGACY_VERSIONS.into_iter().find(|known| *known == protocol_version) else {
        let version = harmless(&protocol_version);
        return Err(Error::Protocol(format!("it wants the unknown protocol version `{version}`")));
    };
    let mut headers = HeaderMap::new();
    headers.insert(VERSION, HeaderValue::from_static(version));
    if let Some(session) = session {
        headers.insert(SESSION, session);
    }
    Ok(headers)
}
