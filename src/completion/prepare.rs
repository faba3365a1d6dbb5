//! From a request to a run: checks, tools of all servers, hidden turns put back. Nothing reaches the model here.

use std::sync::Arc;

use http::HeaderMap;
use serde_json::{Value, json};

use super::agent::Agent;
use super::conversation::{self, Conversation};
use super::event::{AuthorizationRequired, FinishReason, Notice, RunEvent};
use super::options::{OnAuth, Options};
use super::sink::Sink;
use super::toolset::Toolset;
use super::{Engine, Started};
use crate::id::random_id;
use crate::openai::{ChatRequest, ErrorBody, ErrorKind, InvalidField};
use crate::tools::{self, Challenge, Outcome, Resolved, Spec};
use crate::upstream::Target;

/// Events that may wait for the viewer.
const EVENTS_AHEAD: usize = 64;

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
    /// The caller's namespace.
    pub namespace: Arc<str>,
}

/// Why no run came about.
#[derive(Debug)]
pub enum Error {
    /// 400.
    Invalid(InvalidField),
    /// 401: logins are missing and the request wants to fail then.
    AuthorizationRequired(Vec<AuthorizationRequired>),
    /// 424: servers that cannot be used.
    ServersFailed(ErrorBody),
}

impl From<InvalidField> for Error {
    fn from(error: InvalidField) -> Self {
        Error::Invalid(error)
    }
}

/// What asking the servers came to.
#[derive(Default)]
struct Found {
    ready: Vec<Resolved>,
    missing: Vec<AuthorizationRequired>,
    /// Of `missing`, whether any server is indispensable.
    blocked: bool,
    notices: Vec<Notice>,
}

impl Engine {
    /// Prepares the run and starts it.
    ///
    /// # Errors
    /// [`Error`]; then nothing was sent to the model.
    pub async fn start(&self, incoming: Incoming) -> Result<Started, Error> {
        let Incoming { request, headers, forwarded, target, path, options, namespace } = incoming;
        let messages = conversation::messages(&request)?;
        let scope = scope(&request, &headers, &namespace, &options)?;
        let tools_text = request.raw("tools").unwrap_or("[]");
        let entries = tools::read_entries(tools_text, &headers, self.mcp.max_servers)?;
        if request.get::<u32>("n", "a number")?.is_some_and(|n| n != 1) {
            let message = "`n` must be 1 when tools of MCP servers or options of the gateway are used: \
                           tool calls cannot be made once for several answers";
            return Err(InvalidField::new("n", message).into());
        }
        for spec in &entries.servers {
            self.egress.check(&spec.uri).map_err(|refusal| not_allowed(spec, &refusal.to_string()))?;
        }
        let parallel = request.get::<bool>("parallel_tool_calls", "true or false")?.unwrap_or(true);
        let found = gather(tools::resolve(&self.tools, entries.servers, &scope).await)?;
        if found.blocked && options.on_auth == OnAuth::Fail {
            return Err(Error::AuthorizationRequired(found.missing));
        }
        let toolset = Toolset::build(found.ready, &entries.others, &target.provider)?;
        let (messages, _) = self.memory.put_back(&scope, &messages);
        let quirks = target.provider.quirks;
        let conversation = Conversation::new(&request, &target.model, messages, &toolset, quirks)?;

        let model = request.get::<String>("model", "the name of a model")?.unwrap_or_default();
        let (sink, events) = Sink::new(EVENTS_AHEAD);
        let output = options.output;
        let (streamed, include_usage) = (conversation.is_streamed(), conversation.wants_usage());
        let task = if found.blocked {
            tokio::spawn(answer_with_logins(sink, found.missing, found.notices))
        } else {
            let early = found.missing;
            let agent = Agent {
                upstream: self.upstream.clone(),
                tools: self.tools.clone(),
                memory: self.memory.clone(),
                metrics: Arc::clone(&self.metrics),
                run: Arc::clone(&self.run),
                mcp: Arc::clone(&self.mcp),
                target,
                path,
                headers: forwarded,
                conversation,
                toolset,
                options,
                parallel,
                scope,
                missing: early,
                notices: found.notices,
                sink,
            };
            tokio::spawn(agent.run())
        };
        Ok(Started {
            run_id: random_id("run_"),
            model,
            created: self.clock.unix_seconds(),
            streamed,
            include_usage,
            output,
            events,
            task: super::CancelOnDrop(task.abort_handle()),
        })
    }
}

/// The run of a request that cannot go on without a login: it says so, and ends.
async fn answer_with_logins(sink: Sink, missing: Vec<AuthorizationRequired>, notices: Vec<Notice>) {
    let logins = missing.into_iter().map(RunEvent::AuthorizationRequired);
    let events = notices.into_iter().map(RunEvent::Notice).chain(logins);
    for event in events.chain([RunEvent::Finish { reason: FinishReason::AuthorizationRequired }]) {
        if sink.send(event).await.is_err() {
            return;
        }
    }
}

/// Whose sessions, caches and hidden turns these are: namespace, user and profile.
pub(super) fn scope(
    request: &ChatRequest,
    headers: &HeaderMap,
    namespace: &str,
    options: &Options,
) -> Result<Arc<str>, InvalidField> {
    let mut user = None;
    for field in ["user", "safety_identifier"] {
        user = user.or(request.get::<String>(field, "a text")?);
    }
    let header = headers.get("x-toolgate-user").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let user = user.or(header).unwrap_or_default();
    if user.len() > 512 {
        return Err(InvalidField::new("user", "`user` must have at most 512 characters"));
    }
    Ok(json!([namespace, user, options.profile]).to_string().into())
}

fn gather(outcomes: Vec<Outcome>) -> Result<Found, Error> {
    let mut found = Found::default();
    let mut failed = Vec::new();
    for outcome in outcomes {
        match outcome {
            Outcome::Ready(resolved) => {
                found.notices.extend(remarks(&resolved));
                found.ready.push(resolved);
            }
            Outcome::Unauthorized { spec, challenge } => {
                found.blocked |= !spec.optional;
                found.missing.push(login(&spec, &challenge));
            }
            Outcome::Failed { spec, error: tools::Error::Refused(refusal) } => {
                return Err(not_allowed(&spec, &refusal.to_string()).into());
            }
            Outcome::Failed { spec, error } if spec.optional => {
                let message = format!("{} could not be used and was left out: {error}.", spec.host());
                found.notices.push(Notice { code: "server_unreachable".into(), message });
            }
            Outcome::Failed { spec, error } => failed.push((spec, error.to_string())),
        }
    }
    if failed.is_empty() { Ok(found) } else { Err(Error::ServersFailed(failed_dependency(&failed))) }
}

/// What a reader should know about a server that answered.
fn remarks(server: &Resolved) -> Vec<Notice> {
    let host = server.spec.host();
    let mut notices = Vec::new();
    if !server.absent.is_empty() {
        let names: Vec<String> =
            server.absent.iter().take(10).map(|name| format!("\"{}\"", name.escape_default())).collect();
        let message = format!("{host} has no tool called {}, which allowed_tools names.", names.join(", "));
        notices.push(Notice { code: "tool_absent".into(), message });
    }
    if !server.list.dropped.is_empty() {
        let shown = server
            .list
            .dropped
            .iter()
            .take(5)
            .map(|(name, reason)| format!("\"{}\" ({reason})", name.escape_default()));
        let message = format!(
            "{} tools of {host} cannot be used: {}.",
            server.list.dropped.len(),
            shown.collect::<Vec<_>>().join(", ")
        );
        notices.push(Notice { code: "tools_left_out".into(), message });
    }
    if server.chosen.is_empty() {
        notices.push(Notice {
            code: "no_tools".into(),
            message: format!("{host} offers no tool that may be used here."),
        });
    }
    notices
}

fn login(spec: &Spec, challenge: &Challenge) -> AuthorizationRequired {
    let host = spec.host();
    let how = format!(
        "in the field authorization of this tool, or in the header X-MCP-Authorization as {host}=TOKEN"
    );
    let reason = match (&spec.authorization, challenge.status) {
        (Some(_), 403) => format!("The credential it was given does not suffice. Send one that does {how}."),
        (Some(_), _) => format!("It refuses the credential it was given. Send a valid one {how}."),
        (None, _) => format!("It wants a login. Send its access token {how}."),
    };
    let scopes = challenge
        .scope
        .iter()
        .flat_map(|scopes| scopes.split_whitespace())
        .take(100)
        .map(str::to_owned)
        .collect();
    AuthorizationRequired {
        resource: spec.server_url.clone(),
        server_label: spec.label.clone(),
        host: host.to_owned(),
        connect_url: None,
        scopes,
        reason,
        expires_at: None,
    }
}

fn not_allowed(spec: &Spec, reason: &str) -> InvalidField {
    let param = spec.param("server_url");
    InvalidField::new(param.clone(), format!("`{param}`: {reason}"))
}

fn failed_dependency(failed: &[(Spec, String)]) -> ErrorBody {
    let named: Vec<String> =
        failed.iter().map(|(spec, reason)| format!("{}: {reason}", spec.host())).collect();
    let message = format!(
        "{} could not be used, and nothing was sent to the model. Try again, or set `\"optional\": true` to go on without: {}",
        if failed.len() == 1 { "An MCP server" } else { "Some MCP servers" },
        named.join("; ")
    );
    let servers: Vec<Value> = failed
        .iter()
        .map(|(spec, reason)| json!({ "server_url": spec.server_url, "server_label": spec.label, "reason": reason }))
        .collect();
    let param = failed.first().map(|(spec, _)| spec.param("server_url")).unwrap_or_default();
    ErrorBody::new(ErrorKind::FailedDependency, Some("mcp_server_unreachable"), message)
        .param(param)
        .with("servers", Value::Array(servers))
}
