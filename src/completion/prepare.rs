//! From a request to a run: checks, credentials, tools of all servers, hidden turns put back. Nothing reaches the model
//! here.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use http::HeaderMap;

use super::agent::Agent;
use super::conversation::{self, Conversation, Shape};
use super::engine::Parts;
use super::event::{AuthorizationRequired, RunError};
use super::gather::{Found, authorization_required, ended, gather, not_allowed};
use super::logins::{Logins, Missing};
use super::memory::Seen;
use super::options::{OnAuth, Options};
use super::sink::Sink;
use super::toolset::Toolset;
use super::who::{OtherUser, Who, scope};
use super::{Engine, Started, held};
use crate::id::random_id;
use crate::openai::{ChatRequest, ErrorBody, ErrorKind, InvalidField};
use crate::tools;
use crate::upstream::Target;

/// Events that may wait for the viewer.
const EVENTS_AHEAD: usize = 64;
/// How long a login is waited for when the request does not say: a stream is kept alive, other answers are given up by
/// many proxies after a minute.
const WAIT_STREAMED: u32 = 120;
const WAIT_WHOLE: u32 = 55;

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
}

impl Engine {
    /// Prepares the run and starts it.
    ///
    /// # Errors
    /// [`Error`]; then nothing was sent to the model.
    pub async fn start(&self, incoming: Incoming) -> Result<Started, Error> {
        let Incoming { request, headers, forwarded, target, path, options, who } = incoming;
        let parts = &self.parts;
        conversation::messages(&request)?;
        let shape = Shape::read(&request)?;
        let user = who.user(&request, &headers)?;
        let owner = who.owner(user.as_ref(), options.profile.as_deref()).map_err(|OtherUser| other_user())?;
        let scope = scope(&who, user.as_deref(), &options);
        let tools_text = request.raw("tools").unwrap_or("[]");
        let servers = tools::read_entries(tools_text, &headers, parts.mcp.max_servers)?;
        if request.get::<u32>("n", "a number")?.is_some_and(|n| n != 1) {
            let message = "`n` must be 1 when tools of MCP servers or options of the gateway are used: \
                           tool calls cannot be made once for several answers";
            return Err(InvalidField::new("n", message).into());
        }
        let has_servers = !servers.is_empty();
        for spec in &servers {
            parts.egress.check(&spec.uri).map_err(|refusal| not_allowed(spec, &refusal.to_string()))?;
        }
        if let Some(callback) = &options.authorization_callback_url {
            let param = "toolgate.authorization_callback_url";
            let wrong = |refusal| InvalidField::new(param, format!("`{param}`: {refusal}"));
            parts.egress.check(callback).map_err(wrong)?;
        }
        let parallel = request.get::<bool>("parallel_tool_calls", "true or false")?.unwrap_or(true);
        let model = request.get::<String>("model", "the name of a model")?.unwrap_or_default();
        let run_id = random_id("run_");
        let logins = Logins {
            parts: Arc::clone(parts),
            owner,
            application: who.application,
            on_auth: options.on_auth,
            wait: patience(shape.stream, options.wait_seconds),
            callback_url: options.authorization_callback_url.as_ref().map(ToString::to_string),
            run_id: run_id.clone(),
            scope,
            said: Mutex::default(),
        };
        let found = gather(
            join_all(servers.into_iter().map(|spec| logins.resolve(spec, false))).await,
            &parts.links,
        )?;
        let blocked = found.is_blocked();
        if blocked && options.on_auth == OnAuth::Fail {
            return Err(fail(&logins, &found.logins()).await.into());
        }
        let (sink, events) = Sink::new(EVENTS_AHEAD);
        let output = options.output;
        let sink = sink.with(Seen::new(output).filter(|_| has_servers));
        let prepared = Prepared {
            parts: Arc::clone(parts),
            request,
            forwarded,
            target,
            path,
            options,
            parallel,
            logins,
            sink,
        };
        let task = if blocked {
            held::spawn(prepared, found)
        } else {
            let agent = Box::pin(prepared.agent(found)).await?;
            tokio::spawn(agent.run())
        };
        Ok(Started {
            run_id,
            model,
            created: parts.clock.unix_seconds(),
            streamed: shape.stream,
            include_usage: shape.include_usage,
            output,
            events,
            task: super::CancelOnDrop(task.abort_handle()),
        })
    }
}

impl Prepared {
    /// The run on the servers that are ready.
    ///
    /// # Errors
    /// When the request does not fit them.
    pub async fn agent(self, mut found: Found) -> Result<Agent, Error> {
        let Prepared { parts, request, forwarded, target, path, options, parallel, logins, sink } = self;
        found.ready.sort_by_key(|server| server.spec.position);
        let missing = found.logins();
        let others = tools::other_entries(request.raw("tools").unwrap_or("[]"));
        let toolset = Toolset::build(found.ready, &others, &target.provider)?;
        let caller_saw = conversation::messages(&request)?;
        let whose = logins.whose(&target);
        let messages = parts.memory.put_back(&whose, toolset.json().is_some(), &caller_saw).await;
        let messages = parts.links.forgotten_in(messages);
        let quirks = target.provider.quirks;
        let conversation = Conversation::new(&request, &target.model, messages, &toolset, quirks)?;
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
        })
    }
}

/// The 401 for these logins.
pub(super) async fn fail(logins: &Logins, missing: &[Missing]) -> RunError {
    let connect_all_url = logins.batch(missing).await.map(|batch| batch.connect_all_url);
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
