//! Finding out what a server speaks, and asking it in that way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use moka::sync::Cache;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::deadline::Deadline;
use super::input::{self, Answers, Ending};
use super::link::Link;
use super::lists::Lists;
use super::message::code;
use super::modern::{self, Asked};
use super::page::Pages;
use super::peer::Peer;
use super::polling::{self, Polling};
use super::request::{Ask, LEGACY, LEGACY_VERSIONS, MODERN};
use super::session::Within;
use super::sessions::Sessions;
use super::task::Created;
use crate::clean_json;
use crate::config;
use crate::egress::Egress;
use crate::memory_budget::MemoryBudget;
use crate::tools::{Error, Follower, Progress, TaskRef, Tool, ToolList};

/// Told of what happens during a call.
pub(crate) type Follow<'a> = &'a dyn Follower;

/// Follows nothing.
pub(crate) fn quiet(_: Progress) {}

/// How a server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Era {
    /// 2026-07-28: single posts.
    Modern,
    /// 2025-03-26 to 2025-11-25: posts after `initialize`.
    Posts,
    /// 2024-11-05: a stream to listen on, an address to post to.
    EventStream,
}

/// Servers whose era is remembered, and for how long: a server that was renewed is noticed.
const MOST_ERAS: u64 = 10_000;
const ERA_AGE: Duration = Duration::from_secs(4 * 3600);
/// How often a call is repeated because the server asks for it.
const MOST_ROUNDS: u32 = 5;

/// What everything that talks to servers shares.
pub(crate) struct Core {
    pub(crate) link: Link,
    pub(crate) lists: Arc<Lists>,
    ids: AtomicU64,
}

impl Core {
    /// An id that no other request of this process has.
    pub(crate) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }
}

/// The client of all servers.
pub(crate) struct Client {
    core: Arc<Core>,
    sessions: Sessions,
    eras: Cache<Uri, Era>,
    settings: config::Mcp,
}

/// What a call gave.
enum Called {
    Result(Bytes),
    Task(Created),
}

/// What first contact gave.
enum First {
    Answered(Bytes),
    Speaks(Era),
}

impl Client {
    pub(crate) fn new(egress: Egress, settings: &config::Mcp, memory: MemoryBudget) -> Self {
        let core = Core {
            link: Link { egress, limit: settings.response_bytes, memory },
            lists: Arc::new(Lists::new(Duration::from_secs(settings.tool_list_seconds))),
            ids: AtomicU64::new(1),
        };
        Client {
            core: Arc::new(core),
            sessions: Sessions::new(
                settings.max_sessions,
                Duration::from_secs(settings.session_idle_seconds),
            ),
            eras: Cache::builder().max_capacity(MOST_ERAS).time_to_live(ERA_AGE).build(),
            settings: settings.clone(),
        }
    }

    /// The server's tools, kept or asked for.
    ///
    /// # Errors
    /// What kept the server from answering.
    pub(crate) async fn list(self: &Arc<Self>, peer: Peer) -> Result<Arc<ToolList>, Error> {
        if let Some(kept) = self.core.lists.find(&peer) {
            return Ok(kept);
        }
        // Of one session, not only of one credential: a flight speaks in the session of its user. And of one token: its
        // refusal must not be taken for that of a newer one.
        let key = peer.request;
        let asking = || {
            let client = Arc::clone(self);
            async move { client.list_anew(&peer).await }
        };
        self.core.lists.once(key, asking).await
    }

    async fn list_anew(&self, peer: &Peer) -> Result<Arc<ToolList>, Error> {
        let mut deadline = Deadline::new(Duration::from_secs(self.settings.list_seconds));
        let mut pages = Pages::new(self.settings.max_tools_per_server);
        let mut cursor = None;
        loop {
            let ask = Ask::List { cursor: cursor.as_deref() };
            let page = match self.request(peer, ask, &mut deadline, &quiet).await {
                Err(Error::Rpc { code: code::METHOD_NOT_FOUND, .. }) => {
                    let message = "it has no tools".to_owned();
                    return Err(Error::Rpc { code: code::METHOD_NOT_FOUND, message });
                }
                other => other?,
            };
            cursor = pages.add(&page)?;
            if cursor.is_none() {
                return Ok(self.core.lists.keep(peer, pages.finish()));
            }
        }
    }

    /// Calls a tool and gives the raw result, of the task if it becomes one.
    ///
    /// # Errors
    /// What kept the server from answering, and its refusals.
    pub(crate) async fn call(
        self: &Arc<Self>,
        peer: &Peer,
        tool: &Tool,
        arguments: &Map<String, Value>,
        answers: Option<&Answers>,
        follow: Follow<'_>,
    ) -> Result<Bytes, Error> {
        let mut deadline = Deadline::with_silence(
            Duration::from_secs(self.settings.call_seconds),
            Duration::from_secs(self.settings.call_max_seconds),
        );
        let called = match self.call_to_the_end(peer, tool, arguments, answers, &mut deadline, follow).await {
            // The server refused the request because its annotations have changed since they were read.
            Err(Error::Rpc { code: code::HEADER_MISMATCH, message }) => {
                self.core.lists.forget(peer);
                let list = self.list(peer.clone()).await?;
                let renewed = list.tools.iter().find(|renewed| renewed.name == tool.name);
                match renewed.filter(|renewed| renewed.header_arguments != tool.header_arguments) {
                    Some(tool) => {
                        self.call_to_the_end(peer, tool, arguments, answers, &mut deadline, follow).await
                    }
                    None => Err(Error::Rpc { code: code::HEADER_MISMATCH, message }),
                }
            }
            other => other,
        };
        match called? {
            Called::Result(result) => Ok(result),
            Called::Task(Created { task, works }) => {
                let polling = self.polling(peer.clone(), tool, &task, follow);
                follow.task(&task).await;
                polling.finish(works).await
            }
        }
    }

    /// Goes on with a call that has become a task.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub(crate) async fn resume(
        &self,
        peer: Peer,
        tool: &Tool,
        task: &TaskRef,
        follow: Follow<'_>,
    ) -> Result<Bytes, Error> {
        self.polling(peer, tool, task, follow).finish(false).await
    }

    /// Says that nobody waits for a task any more.
    pub(crate) async fn cancel(&self, peer: &Peer, task: &TaskRef) {
        polling::cancel(&self.core, peer, &task.id).await;
    }

    fn polling<'a>(
        &'a self,
        peer: Peer,
        tool: &'a Tool,
        task: &'a TaskRef,
        follow: Follow<'a>,
    ) -> Polling<'a> {
        let bound = Duration::from_secs(self.settings.task_seconds);
        Polling::new(&self.core, peer, tool, task, bound, follow)
    }

    /// Calls, and repeats the call as long as the server asks for that and can be answered.
    async fn call_to_the_end(
        &self,
        peer: &Peer,
        tool: &Tool,
        arguments: &Map<String, Value>,
        answers: Option<&Answers>,
        deadline: &mut Deadline,
        follow: Follow<'_>,
    ) -> Result<Called, Error> {
        let mut answers = answers.cloned();
        for _ in 0..MOST_ROUNDS {
            let ask = Ask::Call { tool, arguments, answers: answers.as_ref() };
            let result = self.request(peer, ask, deadline, follow).await?;
            match input::read(&result)? {
                Ending::Complete => return Ok(Called::Result(result)),
                Ending::Again(again) => answers = Some(again),
                // The tasks of 2025-11-25 are others, and nobody of the older eras was told that we know these.
                Ending::Task(_) if self.eras.get(&peer.uri).is_some_and(|era| era != Era::Modern) => {
                    return Err(Error::Protocol("a task that it was not told it may make".into()));
                }
                Ending::Task(created) => return Ok(Called::Task(created)),
            }
        }
        Err(Error::InputRequired("it asks again and again".into()))
    }

    /// Forgets the peer's tool list and session.
    pub(crate) fn forget(&self, peer: &Peer) {
        self.core.lists.forget(peer);
        self.sessions.drop_session(peer);
    }

    /// Ends every session.
    pub(crate) async fn close(&self) {
        self.sessions.close().await;
    }

    /// Asks in the way the server understands. What it understands is remembered, and found out anew when it
    /// refuses; a request is repeated only after such a refusal.
    async fn request(
        &self,
        peer: &Peer,
        ask: Ask<'_>,
        deadline: &mut Deadline,
        follow: Follow<'_>,
    ) -> Result<Bytes, Error> {
        let mut doubt = None;
        if let Some(era) = self.eras.get(&peer.uri) {
            match self.ask_in(era, peer, ask, deadline, follow).await? {
                Asked::Result(result) => return Ok(result),
                Asked::Rejected(rejection) if rejection.doubts_the_era() => doubt = Some((era, rejection)),
                Asked::Rejected(rejection) => return Err(rejection.into()),
            }
            self.eras.invalidate(&peer.uri);
        }
        // A list may be asked for at once; whether a call may be made must be known before.
        let is_list = matches!(ask, Ask::List { .. });
        let probe = if is_list { ask } else { Ask::Discover };
        let era = match (self.first_contact(peer, probe, deadline).await, doubt) {
            (Ok(First::Answered(result)), _) if is_list => return Ok(result),
            (Ok(First::Answered(_)), Some((Era::Modern, rejection))) => return Err(rejection.into()),
            (Ok(First::Answered(_)), _) => Era::Modern,
            (Ok(First::Speaks(era)), Some((doubted, rejection))) if era == doubted => {
                return Err(rejection.into());
            }
            (Ok(First::Speaks(era)), _) => era,
            (Err(Error::Unauthorized(challenge)), _) => return Err(Error::Unauthorized(challenge)),
            (Err(_), Some((_, rejection))) => return Err(rejection.into()),
            (Err(error), None) => return Err(error),
        };
        match self.ask_in(era, peer, ask, deadline, follow).await? {
            Asked::Result(result) => Ok(result),
            Asked::Rejected(rejection) => Err(rejection.into()),
        }
    }

    /// Asks a server of unknown era: in the modern way, then by opening a session.
    async fn first_contact(
        &self,
        peer: &Peer,
        probe: Ask<'_>,
        deadline: &mut Deadline,
    ) -> Result<First, Error> {
        let mut version = LEGACY;
        let (answer, refusal) = match modern::ask(&self.core, peer, probe, deadline, &quiet).await? {
            Asked::Result(result) => match legacy_version(probe, &result) {
                None => {
                    self.eras.insert(peer.uri.clone(), Era::Modern);
                    return Ok(First::Answered(result));
                }
                Some(legacy) => {
                    version = legacy;
                    (Some(result), None)
                }
            },
            Asked::Rejected(rejection) if rejection.means_legacy() => {
                version = rejection.legacy_version().unwrap_or(version);
                (None, Some(rejection))
            }
            Asked::Rejected(rejection) => return Err(rejection.into()),
        };
        match self.sessions.get_or_open(&self.core, peer, version, Era::Posts, deadline).await? {
            Ok(session) => {
                self.eras.insert(peer.uri.clone(), session.era());
                Ok(First::Speaks(session.era()))
            }
            Err(second) => match (answer, refusal) {
                // It answers, and has no sessions: it may be asked like that.
                (Some(result), _) => {
                    self.eras.insert(peer.uri.clone(), Era::Modern);
                    Ok(First::Answered(result))
                }
                // An error about the question itself says more than the refusal of `initialize`.
                (None, Some(first)) if first.rpc.is_some() && !first.doubts_the_era() => Err(first.into()),
                (None, _) => Err(second.into()),
            },
        }
    }

    async fn ask_in(
        &self,
        era: Era,
        peer: &Peer,
        ask: Ask<'_>,
        deadline: &mut Deadline,
        follow: Follow<'_>,
    ) -> Result<Asked, Error> {
        if era == Era::Modern {
            return modern::ask(&self.core, peer, ask, deadline, follow).await;
        }
        let mut is_second = false;
        loop {
            let opened = self.sessions.get_or_open(&self.core, peer, LEGACY, era, deadline).await?;
            let session = match opened {
                Ok(session) => session,
                Err(rejection) => return Ok(Asked::Rejected(rejection)),
            };
            match session.ask(peer, ask, deadline, follow).await? {
                Within::Asked(asked) => return Ok(asked),
                // In a new session it is believed.
                Within::Lost(Some(rejection)) if is_second && !rejection.names_session() => {
                    return Ok(Asked::Rejected(rejection));
                }
                Within::Lost(_) if is_second => {
                    return Err(Error::Protocol("it forgets its session at once".into()));
                }
                Within::Lost(_) => is_second = true,
            }
        }
    }
}

/// `None` when the answer shows a modern server, else the older version to open a session with. Servers of the
/// older eras that check little answer a modern request too, without the kind of result that modern ones name.
fn legacy_version(probe: Ask<'_>, result: &Bytes) -> Option<&'static str> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Discovered {
        supported_versions: Vec<String>,
    }
    if !matches!(probe, Ask::Discover) {
        return memchr::memmem::find(result, b"\"resultType\"").is_none().then_some(LEGACY);
    }
    let Ok(Discovered { supported_versions }) = clean_json::from_slice(result) else { return Some(LEGACY) };
    let has = |version: &str| supported_versions.iter().any(|supported| supported == version);
    if has(MODERN) { None } else { LEGACY_VERSIONS.into_iter().find(|version| has(version)).or(Some(LEGACY)) }
}
