//! HTTP+SSE (MCP 2024-11-05): a GET whose stream names an address to post to and carries every answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Uri};
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::client::quiet;
use super::deadline::Deadline;
use super::input;
use super::interruption::deal;
use super::link::{Answer, Rejection, cut};
use super::message::{Message, RpcError};
use super::modern::Asked;
use super::peer::{Peer, resolve, same_origin};
use super::reading::Messages;
use super::session::Within;
use super::{Core, Follow};
use crate::tools::{Error, Progress};

/// Progress notifications of one call that may wait to be reported; more are left out.
const WAITING_PROGRESS: usize = 16;
/// The request of a server that wants something from a person.
const ELICITATION: &str = "elicitation/create";
/// Time to answer a request of the server.
const COURTESY: Duration = Duration::from_secs(2);

/// An open stream, read by one task that ends with it.
pub(crate) struct EventStream {
    /// Where to post.
    pub(crate) uri: Uri,
    calls: Arc<Mutex<Calls>>,
    reader: AbortHandle,
}

/// Who waits for which answer; `None` once the stream has ended.
type Calls = Option<HashMap<u64, Call>>;

struct Call {
    answer: oneshot::Sender<Result<Bytes, RpcError>>,
    progress: mpsc::Sender<Progress>,
    /// Pages that the server wants opened, each with the id of its request.
    pages: mpsc::Sender<(Box<RawValue>, Box<input::Asked>)>,
}

/// Opens the stream at the server's address. `Ok(Err(_))` when there is none.
///
/// # Errors
/// What kept the server from answering, and an endpoint at another origin.
pub(crate) async fn open(
    core: &Arc<Core>,
    peer: &Peer,
    deadline: &Deadline,
) -> Result<Result<EventStream, Rejection>, Error> {
    let mut messages = match core.link.get(peer, &peer.uri, HeaderMap::new(), deadline).await? {
        Answer::Messages(messages, _) if messages.is_stream() => messages,
        Answer::Rejected(rejection) => return Ok(Err(rejection)),
        Answer::Messages(..) | Answer::Accepted => {
            return Err(Error::Protocol("it neither answers `initialize` nor opens an event stream".into()));
        }
    };
    let uri = loop {
        match deadline.within(messages.next()).await?? {
            Some(Message::Endpoint(endpoint)) => break resolve(&peer.uri, &endpoint)?,
            Some(_) => {}
            None => return Err(Error::Protocol("its event stream names no endpoint".into())),
        }
    };
    if !same_origin(&uri, &peer.uri) {
        return Err(Error::Protocol("its event stream names an endpoint at another origin".into()));
    }
    let calls = Arc::new(Mutex::new(Some(HashMap::new())));
    let reader =
        Reader { core: Arc::clone(core), peer: peer.clone(), uri: uri.clone(), calls: Arc::clone(&calls) };
    let reader = tokio::spawn(reader.read(messages)).abort_handle();
    Ok(Ok(EventStream { uri, calls, reader }))
}

impl EventStream {
    /// Whether the stream has ended.
    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.calls).is_none()
    }

    /// Lets go of the stream; whoever waits is told.
    pub(crate) fn close(&self) {
        self.reader.abort();
        *lock(&self.calls) = None;
    }

    /// Posts the request `id` and waits for its answer on the stream.
    ///
    /// # Errors
    /// What kept the request from being answered.
    #[expect(clippy::too_many_arguments, reason = "each is a different part of one request")]
    pub(crate) async fn ask(
        &self,
        core: &Core,
        peer: &Peer,
        headers: HeaderMap,
        id: u64,
        body: Bytes,
        deadline: &mut Deadline,
        follow: Follow<'_>,
    ) -> Result<Within, Error> {
        let (sender, mut answer) = oneshot::channel();
        let (said, mut heard) = mpsc::channel(WAITING_PROGRESS);
        let (wanting, mut wanted) = mpsc::channel(1);
        let mut pages = 0;
        let _registered = match lock(&self.calls).as_mut() {
            Some(calls) => {
                calls.insert(id, Call { answer: sender, progress: said, pages: wanting });
                Registered { calls: &self.calls, id }
            }
            None => return Ok(Within::Lost(None)),
        };
        match core.link.post(peer, &self.uri, headers.clone(), body, deadline).await? {
            Answer::Rejected(r) if r.status.is_success() => {}
            Answer::Rejected(r)
                if matches!(r.status.as_u16(), 404 | 410) || (r.status == 400 && r.about_session) =>
            {
                return Ok(Within::Lost(Some(r)));
            }
            Answer::Rejected(rejection) => return Ok(Within::Asked(Asked::Rejected(rejection))),
            Answer::Accepted | Answer::Messages(..) => {}
        }
        loop {
            tokio::select! {
                biased;
                Some(said) = heard.recv() => {
                    deadline.extend();
                    follow.progress(said);
                }
                Some((id, asked)) = wanted.recv() => {
                    let dealt = deal(&id, ELICITATION, Some(&*asked), &mut pages, follow).await;
                    tell(core, peer, &self.uri, headers.clone(), dealt.answer).await;
                    if let Some(patience) = dealt.then? {
                        deadline.allow(patience);
                    }
                }
                answer = deadline.within(&mut answer) => {
                    return match answer? {
                        Ok(Ok(result)) => Ok(Within::Asked(Asked::Result(result))),
                        Ok(Err(rpc)) => Ok(Within::Asked(Asked::Rejected(Rejection::by_rpc(rpc)))),
                        Err(_) => Err(cut("the event stream ended before the answer")),
                    };
                }
            }
        }
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        self.close();
    }
}

/// An answer that is waited for, until it is not.
struct Registered<'a> {
    calls: &'a Mutex<Calls>,
    id: u64,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        if let Some(calls) = lock(self.calls).as_mut() {
            calls.remove(&self.id);
        }
    }
}

struct Reader {
    core: Arc<Core>,
    peer: Peer,
    uri: Uri,
    calls: Arc<Mutex<Calls>>,
}

impl Reader {
    async fn read(self, mut messages: Box<Messages>) {
        loop {
            match messages.next().await {
                Ok(Some(Message::Response { id: Some(id), outcome })) => {
                    let call = lock(&self.calls).as_mut().and_then(|calls| calls.remove(&id));
                    if let Some(call) = call {
                        // Nobody waits any more when this fails.
                        let _ = call.answer.send(outcome);
                    }
                }
                Ok(Some(Message::Progress { token: Some(id), progress })) => {
                    if let Some(call) = lock(&self.calls).as_ref().and_then(|calls| calls.get(&id)) {
                        // A full queue only means that the reader hears of an older one.
                        let _ = call.progress.try_send(progress);
                    }
                }
                Ok(Some(Message::Request { id, method, asked })) => self.answer(id, &method, asked).await,
                Ok(Some(Message::ToolsChanged)) => self.core.lists.forget(&self.peer),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(mcp.host = self.peer.uri.host(), %error, "an event stream broke");
                    break;
                }
            }
        }
        // Dropping the senders tells everyone who waits.
        *lock(&self.calls) = None;
    }

    /// A page is for whoever waits, when that is one alone: the stream does not say which call wants it.
    async fn answer(&self, id: Box<RawValue>, method: &str, asked: Option<Box<input::Asked>>) {
        let page = asked.filter(|asked| method == ELICITATION && asked.is_page());
        let only = lock(&self.calls).as_ref().and_then(|calls| {
            let mut waiting = calls.values();
            waiting.next().filter(|_| waiting.next().is_none()).map(|call| call.pages.clone())
        });
        let id = match (page, only) {
            (Some(page), Some(only)) => match only.try_send((id, page)) {
                Ok(()) => return,
                Err(unsent) => unsent.into_inner().0,
            },
            _ => id,
        };
        let dealt = deal(&id, method, None, &mut 0, &quiet).await;
        tell(&self.core, &self.peer, &self.uri, HeaderMap::new(), dealt.answer).await;
    }
}

/// Sends an answer to the server, which answers nothing to that.
async fn tell(core: &Core, peer: &Peer, uri: &Uri, headers: HeaderMap, body: Bytes) {
    let deadline = Deadline::new(COURTESY);
    if let Err(error) = core.link.post(peer, uri, headers, body, &deadline).await {
        tracing::debug!(mcp.host = peer.uri.host(), %error, "the server could not be answered");
    }
}

fn lock(calls: &Mutex<Calls>) -> std::sync::MutexGuard<'_, Calls> {
    // A panic while the lock is held cannot leave the map half changed.
    calls.lock().unwrap_or_else(PoisonError::into_inner)
}
