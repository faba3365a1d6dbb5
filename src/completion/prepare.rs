//! From a request to a run: checks, credentials, tools of all servers, hidden turns put back. Nothing reaches the model
//! here.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use http::HeaderMap;

use super::agent::Agent;
use super::conversation::{self, Conversation, Shape};
use super::durable::{Keep, Kind, Resume, Viewer};
use super::engine::Parts;
use super::event::{AuthorizationRequired, Notice, RunError, RunEvent};
use super::gather::{Found, authorization_required, ended, gather, limit_reached, not_allowed};
use super::json_notice::json_repaired;
use super::logins::{Logins, Missing, UsedLogins};
use super::memory::{AskedMessages, Seen};
use super::options::{OnAuth, Options};
use super::repeated_requests::{RepeatKey, Repeated};
use super::run_budget::RunBudget;
use super::sink::Sink;
use super::start_kept::{broke_off, conflict};
use super::toolset::Toolset;
use super::who::{OtherUser, Who, scope};
use super::{Engine, Started, held};
use crate::bounds::{Bound, BoundGuard};
use crate::id::random_id;
use crate::openai::{ChatRequest, ErrorBody, ErrorKind, InvalidField};
use crate::telemetry::{Metrics, PanicSite, catch_panic};
use crate::tools::{self, Spec};
use crate::upstream::Target;

/// Events that may wait for the viewer.
const EVENTS_AHEAD: usize = 64;
/// How long a login is waited for when the request does not say: a stream is kept alive, other answers are given up by
/// many proxies after a minute.
const WAIT_STREAMED: u32 = 120;
const WAIT_WHOLE: u32 = 55;
/// Tasks hold no connection: as long as a login link lasts.
const WAIT_OF_TASKS: u32 = 600;

/// One request, ready to be prepared.
pub struct Incoming {
    pub request: ChatRequest,
    /// The caller's headers.
    pub headers: HeaderMap,
    /// Headers that go to the provider.
    pub forwarded: HeaderMap,
    pub target: Target,
    /// The endpoint below the provider's base address.
    pub path: String,
    pub options: Options,
    pub who: Who,
    /// How the run is kept; `None`: for its only viewer, in memory.
    pub keep: Option<Keep>,
    /// What another try of the request is known by.
    pub repeat: Option<RepeatKey>,
}

/// Why no run came about. Nothing was sent to the model.
#[derive(Debug)]
pub enum Error {
    /// 400.
    Invalid(InvalidField),
    /// The status that it says: a missing login, servers that cannot be used, a user that is not the caller.
    Ended(RunError),
}

impl From<InvalidField> for Error {
    fn from(error: InvalidField) -> Self {
        Error::Invalid(error)
    }
}

impl From<Error> for RunError {
    fn from(error: Error) -> Self {
        match error {
            Error::Ended(error) => error,
            Error::Invalid(InvalidField { param, message }) => {
                let body = ErrorBody::new(ErrorKind::InvalidRequest, Some("invalid_request"), message);
                ended(
                    400,
                    match param {
                        Some(param) => body.param(param),
                        None => body,
                    },
                )
            }
        }
    }
}

/// A request that has been checked.
pub(super) struct Checked {
    pub request: ChatRequest,
    pub forwarded: HeaderMap,
    pub target: Target,
    pub path: String,
    pub options: Options,
    pub parallel: bool,
    pub logins: Logins,
    pub servers: Vec<Spec>,
    pub has_servers: bool,
    /// The model as the caller named it.
    pub model: String,
    pub streamed: bool,
    pub include_usage: bool,
}

/// A request that has been checked, and what its run is made of.
pub(super) struct Prepared {
    pub parts: Arc<Parts>,
    pub request: ChatRequest,
    pub forwarded: HeaderMap,
    pub target: Target,
    pub path: String,
    pub options: Options,
    pub parallel: bool,
    pub logins: Logins,
    pub sink: Sink,
    /// Where it goes on, when another process began it.
    pub resume: Option<Resume>,
}

impl Engine {
    /// Prepares the run and starts it.
    ///
    /// # Errors
    /// [`Error`]; then nothing was sent to the model.
    pub async fn start(&self, mut incoming: Incoming) -> Result<Started, Error> {
        incoming.request = incoming.request.cleaned()?;
        if let Some(keep) = incoming.keep.take() {
            // A task of its own: a client that leaves now must not leave half a run behind.
            let engine = Engine { parts: Arc::clone(&self.parts) };
            let started = tokio::spawn(async move { engine.start_kept(incoming, keep).await });
            return started.await.unwrap_or_else(|_| Err(Error::Ended(broke_off())));
        }
        let repeat = incoming.repeat.take();
        let mut checked = self.check(incoming, random_id("run_"), None)?;
        if let Some(repeat) = repeat.filter(|_| checked.has_servers) {
            return self.start_repeatable(checked, &repeat).await;
        }
        checked.logins.run_guard = self.take_run_place(&checked)?;
        let found = checked.gather().await?;
        let (sink, events) = Sink::new(EVENTS_AHEAD);
        let mut started = checked.started(&self.parts, Viewer::Only(events));
        let prepared = checked.prepared(sink);
        let (metrics, run_id) = (Arc::clone(&self.parts.metrics), started.run_id.clone());
        let task = if found.is_blocked() {
            spawn_run(metrics, run_id, held::carry_out(prepared, found))
        } else {
            let agent = Box::pin(prepared.agent(found)).await?;
            spawn_run(metrics, run_id, agent.run())
        };
        started.task = Some(super::CancelOnDrop(task.abort_handle()));
        Ok(started)
    }

    /// A place among the runs that its principal has under way.
    ///
    /// # Errors
    /// 429 when there is none.
    pub(super) fn take_run_place(&self, checked: &Checked) -> Result<BoundGuard, Error> {
        let place = self.parts.bounds.acquire(Bound::Runs, &checked.logins.principal);
        place.map_err(|reached| Error::Ended(limit_reached(reached)))
    }

    /// Starts a run that its client may ask for again, or joins the one that it has begun.
    async fn start_repeatable(&self, mut checked: Checked, repeat: &RepeatKey) -> Result<Started, Error> {
        let (guard, viewer) = match self.parts.repeatable.begin(repeat, &checked.logins.run_id) {
            Ok(begun) => begun,
            Err(Repeated::Joined(run, viewer)) => {
                let mut started = checked.started(&self.parts, Viewer::Shared(viewer));
                let age = started.created.saturating_sub(run.created);
                (started.run_id, started.created) = (run.run_id.clone(), run.created);
                started.age = Some(u64::try_from(age).unwrap_or(0));
                return Ok(started);
            }
            Err(Repeated::Lost(error)) => return Err(Error::Ended(error)),
            Err(Repeated::Reused) => return Err(conflict()),
        };
        let run = Arc::clone(&guard.run);
        // Who joins a run takes no place among those that are under way.
        checked.logins.run_guard = self.take_run_place(&checked)?;
        let started = checked.started(&self.parts, Viewer::Shared(viewer));
        let sink = Sink::to_shared(Arc::clone(&run));
        let prepared = async move {
            let found = checked.gather().await?;
            let prepared = checked.prepared(sink);
            Ok::<_, Error>(if found.is_blocked() {
                Box::pin(held::carry_out(prepared, found)) as BoxFuture<'static, ()>
            } else {
                Box::pin(Box::pin(prepared.agent(found)).await?.run())
            })
        };
        let carrying_out = match prepared.await {
            Ok(carrying_out) => carrying_out,
            Err(error) => {
                // Who has joined is told, too.
                let error = RunError::from(error);
                run.add(RunEvent::Error(error.clone()));
                return Err(Error::Ended(error));
            }
        };
        let task = tokio::spawn(async move {
            carrying_out.await;
            drop(guard);
        });
        run.set_task(task.abort_handle());
        Ok(started)
    }

    /// Checks what can be checked without asking anybody.
    ///
    /// # Errors
    /// [`Error`].
    pub(super) fn check(
        &self,
        incoming: Incoming,
        run_id: String,
        kind: Option<Kind>,
    ) -> Result<Checked, Error> {
        let Incoming { request, headers, forwarded, target, path, mut options, who, keep: _, repeat: _ } =
            incoming;
        let parts = &self.parts;
        conversation::messages(&request)?;
        let shape = Shape::read(&request)?;
        let user = who.user(&request, &headers)?;
        let principal = who.principal(user.as_ref());
        let owner = who.owner(user.as_ref(), options.profile.as_deref()).map_err(|OtherUser| other_user())?;
        let scope = scope(&who, user.as_deref(), &options);
        let tools_text = request.raw("tools").unwrap_or("[]");
        let servers = tools::read_entries(tools_text, &headers, parts.mcp.max_servers)?;
        if request.get::<u32>("n", "a number")?.is_some_and(|n| n != 1) {
            let message = "`n` must be 1 when tools of MCP servers or options of the gateway are used: \
                           tool calls cannot be made once for several answers";
            return Err(InvalidField::new("n", message).into());
        }
        for spec in &servers {
            parts.egress.check(&spec.uri).map_err(|refusal| not_allowed(spec, &refusal.to_string()))?;
        }
        for (param, url) in [
            ("toolgate.authorization_callback_url", &options.authorization_callback_url),
            ("toolgate.webhook_url", &options.webhook_url),
        ] {
            let Some(url) = url else { continue };
            let wrong = |refusal| InvalidField::new(param, format!("`{param}`: {refusal}"));
            parts.egress.check(url).map_err(wrong)?;
        }
        let parallel = request.get::<bool>("parallel_tool_calls", "true or false")?.unwrap_or(true);
        let model = request.get::<String>("model", "the name of a model")?.unwrap_or_default();
        // Nobody holds a connection for these: they wait for their person.
        let is_patient = matches!(kind, Some(Kind::Task | Kind::Page));
        if is_patient && !options.on_auth_given {
            options.on_auth = OnAuth::Wait;
        }
        let logins = Logins {
            parts: Arc::clone(parts),
            owner,
            application: who.application,
            on_auth: options.on_auth,
            wait: if is_patient {
                Duration::from_secs(options.wait_seconds.unwrap_or(WAIT_OF_TASKS).into())
            } else {
                patience(shape.stream, options.wait_seconds)
            },
            callback_url: options.authorization_callback_url.as_ref().map(ToString::to_string),
            run_id,
            scope,
            said: Mutex::default(),
            used: UsedLogins::default(),
            principal,
            run_guard: BoundGuard::default(),
            is_resumed: false,
        };
        let (streamed, include_usage) = (shape.stream, shape.include_usage);
        Ok(Checked {
            request,
            forwarded,
            target,
            path,
            options,
            parallel,
            logins,
            has_servers: !servers.is_empty(),
            servers,
            model,
            streamed,
            include_usage,
        })
    }
}

impl Checked {
    /// Asks all servers for their tools.
    ///
    /// # Errors
    /// [`Error`], also for a login that is missing when the request wants to fail then.
    pub async fn gather(&mut self) -> Result<Found, Error> {
        let logins = &self.logins;
        let asked = std::mem::take(&mut self.servers).into_iter().map(|spec| logins.resolve(spec, false));
        let found = gather(join_all(asked).await, &logins.parts.links)?;
        if found.is_blocked() && self.options.on_auth == OnAuth::Fail {
            return Err(fail(logins, &found.logins()).await.into());
        }
        Ok(found)
    }

    /// What its viewer is told; the task comes later.
    pub fn started(&self, parts: &Parts, events: Viewer) -> Started {
        Started {
            run_id: self.logins.run_id.clone(),
            result_url: None,
            model: self.model.clone(),
            created: parts.clock.unix_seconds(),
            age: None,
            streamed: self.streamed,
            include_usage: self.include_usage,
            output: self.options.output,
            events,
            task: None,
        }
    }

    /// Ready to be carried out.
    pub fn prepared(self, sink: Sink) -> Prepared {
        let Checked { request, forwarded, target, path, options, parallel, logins, .. } = self;
        let parts = Arc::clone(&logins.parts);
        let sink = sink.with(Seen::new(options.output).filter(|_| self.has_servers));
        Prepared { parts, request, forwarded, target, path, options, parallel, logins, sink, resume: None }
    }
}

impl Prepared {
    /// The run on the servers that are ready.
    ///
    /// # Errors
    /// When the request does not fit them.
    pub async fn agent(self, mut found: Found) -> Result<Agent, Error> {
        let Prepared { parts, request, forwarded, target, path, options, parallel, logins, sink, resume } =
            self;
        if request.is_repaired() {
            found.notices.insert(0, json_repaired("Your request"));
        }
        found.ready.sort_by_key(|server| server.spec.position);
        let missing = found.logins();
        let others = tools::other_entries(request.raw("tools").unwrap_or("[]"));
        let toolset = Toolset::build(found.ready, &others, &target.provider)?;
        let caller_saw = conversation::messages(&request)?;
        let begun = resume.as_ref().and_then(|resume| resume.begun.clone());
        let (messages, is_changed) = match begun {
            Some(begun) => (begun.into_bytes(), false),
            None if resume.as_ref().is_some_and(Resume::has_begun) => {
                (conversation::joined(&caller_saw), false)
            }
            None => {
                let whose = logins.whose(&target);
                let restored = parts.memory.put_back(&whose, toolset.json().is_some(), &caller_saw).await;
                found.notices.extend(restored.is_mismatched.then(changed_history));
                let messages = parts.links.forgotten_in(restored.messages);
                let is_changed = sink.log().is_some() && messages != conversation::joined(&caller_saw);
                (messages, is_changed)
            }
        };
        let begun = is_changed.then(|| String::from_utf8_lossy(&messages).into_owned());
        let quirks = &target.provider.quirks;
        let mut conversation = Conversation::new(&request, &target.model, messages, &toolset, quirks)?;
        let start = conversation.mark();
        if sink.log().is_some() {
            conversation.stream_for_viewers();
        }
        if let Some(resume) = &resume {
            conversation.push_text(&resume.added);
        }
        let budget = RunBudget::new(options.max_bytes.unwrap_or(parts.run.max_bytes), &parts.memory_budget);
        Ok(Agent {
            parts,
            target,
            path,
            headers: forwarded,
            conversation,
            toolset,
            options,
            parallel,
            logins,
            missing,
            notices: found.notices,
            sink,
            budget,
            start,
            asked: AskedMessages::of(&caller_saw),
            begun,
            resume,
        })
    }
}

/// A run in a task of its own. When it panics, its viewer is told that it ended unexpectedly.
fn spawn_run(
    metrics: Arc<Metrics>,
    id: String,
    run: impl Future<Output = ()> + Send + 'static,
) -> tokio::task::JoinHandle<()> {
    // It is counted and logged there.
    tokio::spawn(catch_panic(metrics, PanicSite::Run, id, run).map(drop))
}

/// What is said when a call of the caller stands after another question than its run was asked.
fn changed_history() -> Notice {
    let message = "The messages before a function call were changed, so the model does not get the tool results that led to \
                   the call. Send the messages as they were to keep them.";
    Notice { code: "history_changed".to_owned(), message: message.to_owned() }
}

/// The 401 for these logins.
pub(super) async fn fail(logins: &Logins, missing: &[Missing]) -> RunError {
    let connect_all_url = logins.batch(missing).await.and_then(|batch| batch.connect_all_url);
    let shown: Vec<&AuthorizationRequired> = missing.iter().map(|missing| &*missing.shown).collect();
    authorization_required(&shown, connect_all_url)
}

impl From<RunError> for Error {
    fn from(error: RunError) -> Self {
        Error::Ended(error)
    }
}

/// How long a login is waited for.
fn patience(is_streamed: bool, wanted_seconds: Option<u32>) -> Duration {
    let seconds = if is_streamed {
        wanted_seconds.unwrap_or(WAIT_STREAMED)
    } else {
        wanted_seconds.unwrap_or(WAIT_WHOLE).min(WAIT_WHOLE)
    };
    Duration::from_secs(seconds.into())
}

fn other_user() -> Error {
    let message = OtherUser.to_string();
    let body = ErrorBody::new(ErrorKind::Permission, Some("user_mismatch"), message).param("user");
    Error::Ended(ended(403, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_answer_is_not_waited_for_longer_than_proxies_do() {
        for (is_streamed, wanted, seconds) in [
            (true, None, 120),
            (true, Some(300), 300),
            (true, Some(1), 1),
            (false, None, 55),
            (false, Some(300), 55),
            (false, Some(1), 1),
        ] {
            assert_eq!(patience(is_streamed, wanted).as_secs(), seconds, "{is_streamed} {wanted:?}");
        }
    }
}
