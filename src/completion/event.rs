//! What a run does, in order. The stream, the JSON answer, the pages and the store are viewers of this.
//!
//! A stored run keeps its events in the form that `serde` gives them; viewers get [`RunEvent::view`].

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::clean_json::CleanJson;
use crate::tools::ToolResult;

/// One record of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunEvent {
    /// The provider has taken the request of a turn: from now on there is an answer, whatever becomes of it.
    Accepted,
    /// The answer of a turn begins; the first is 1. `head` has what the provider says of itself: `model`,
    /// `system_fingerprint`, `service_tier`.
    TurnStarted { turn: u32, head: Map<String, Value> },
    /// Part of the assistant's message: `content`, `refusal`, reasoning fields, whatever the provider sends
    /// except tool calls, exactly as it sends it. `logprobs` belongs to the choice.
    Delta {
        delta: Map<String, Value>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        logprobs: Option<Value>,
    },
    /// Part of a function call that the caller must answer. `index` counts the caller's calls without gaps.
    CallerCall { index: u32, call: Map<String, Value> },
    /// An MCP tool is about to be called.
    ToolCall(ToolCall),
    /// A tool says how far it is.
    ToolProgress { call_id: String, progress: f64, total: Option<f64>, message: Option<String> },
    /// A tool call has ended.
    ToolResult(ToolResultEvent),
    /// A person must do something at a page: log in for an MCP server, or what the server itself asks for.
    AuthorizationRequired(Arc<AuthorizationRequired>),
    /// One link that leads through all logins named just before.
    AuthorizationBatch(AuthorizationBatch),
    /// The run does nothing until those are done, for at most so long.
    Waiting { seconds: u64, resources: Vec<String> },
    /// One of them is done.
    Authorized { resource: String, host: String },
    /// Something the reader should know.
    Notice(Notice),
    /// The process that carried out the run was lost. What was shown of the turn it was in stays; another process goes
    /// on with `turn`.
    Resumed { turn: u32 },
    /// The tokens of one turn, as the provider counts them.
    Usage(Map<String, Value>),
    /// The end: exactly one, and nothing after it.
    Finish { reason: FinishReason },
    /// The end by failure: nothing after it.
    Error(RunError),
}

/// An MCP tool call, as shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ToolCall {
    /// The provider's id of the call.
    pub call_id: String,
    /// The tool's own name.
    pub tool: String,
    /// The name the model knows it by.
    pub function: String,
    pub server_label: String,
    /// Host, and port where it is not the scheme's.
    pub host: String,
    /// The arguments as JSON, or as the model wrote them when they are not JSON.
    pub arguments: Value,
}

/// How a call ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ToolResultEvent {
    pub call_id: String,
    pub tool: String,
    pub host: String,
    pub result: ToolResult,
    pub milliseconds: u64,
    #[serde(default)]
    pub outcome: CallOutcome,
}

/// What is known of a tool call that is over, for whoever would make it again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallOutcome {
    /// The tool was carried out.
    Ok,
    /// The tool says that it failed.
    ToolError,
    /// It may have been carried out.
    #[default]
    Unknown,
    /// It was not carried out.
    NotCalled,
}

impl CallOutcome {
    /// The outcome in words.
    pub fn as_words(self) -> &'static str {
        match self {
            CallOutcome::Ok => "ok",
            CallOutcome::ToolError => "failed",
            CallOutcome::Unknown => "outcome unknown",
            CallOutcome::NotCalled => "not called",
        }
    }
}

/// One missing login.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AuthorizationRequired {
    /// The MCP server's address.
    pub resource: String,
    pub server_label: String,
    pub host: String,
    /// Where the person goes; `None` when the server offers no login, and wants a credential in the request.
    pub connect_url: Option<String>,
    pub scopes: Vec<String>,
    /// What to do, in one sentence.
    pub reason: String,
    /// Unix seconds.
    pub expires_at: Option<i64>,
    /// Who made `connect_url`.
    pub kind: LinkKind,
}

/// Where a link to a page comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkKind {
    /// The gateway: a login that it keeps as a connection.
    Connection,
    /// The MCP server: a page of its own choosing, which the gateway shows and never opens.
    Elicitation,
}

/// One link for several logins.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AuthorizationBatch {
    /// `None`: the reader is nobody to log in.
    pub connect_all_url: Option<String>,
    /// The servers it leads through.
    pub resources: Vec<String>,
}

/// A remark of the gateway.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Notice {
    /// A stable word, such as `server_unreachable`.
    pub code: String,
    pub message: String,
}

/// Why a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The provider's own reason: `stop`, `length`, `content_filter`, …
    Model(String),
    /// The caller has function calls to answer.
    ToolCalls,
    /// A `stop_when` condition was met.
    StopWhen,
    /// `max_turns` was reached.
    MaxTurns,
    /// `max_tool_calls` was reached.
    MaxToolCalls,
    /// `max_tokens` over all turns is used up.
    TokenBudget,
    /// The run's bytes over all turns are used up, or the memory of the process.
    ByteBudget,
    /// The run's wall clock.
    Time,
    /// A login is missing; the model was not asked, or not again.
    AuthorizationRequired,
    /// Somebody who may asked for it.
    Cancelled,
}

impl FinishReason {
    /// OpenAI's word for it.
    pub fn as_openai(&self) -> &str {
        match self {
            FinishReason::Model(reason) => reason,
            FinishReason::ToolCalls => "tool_calls",
            FinishReason::StopWhen | FinishReason::AuthorizationRequired | FinishReason::Cancelled => "stop",
            FinishReason::MaxTurns
            | FinishReason::MaxToolCalls
            | FinishReason::TokenBudget
            | FinishReason::ByteBudget
            | FinishReason::Time => "length",
        }
    }

    /// Our own word for it, which tells more of them apart.
    pub fn as_str(&self) -> &str {
        match self {
            FinishReason::Model(reason) => reason,
            FinishReason::ToolCalls => "tool_calls",
            FinishReason::StopWhen => "stop_when",
            FinishReason::MaxTurns => "max_turns",
            FinishReason::MaxToolCalls => "max_tool_calls",
            FinishReason::TokenBudget => "token_budget",
            FinishReason::ByteBudget => "byte_budget",
            FinishReason::Time => "time_limit",
            FinishReason::AuthorizationRequired => "authorization_required",
            FinishReason::Cancelled => "cancelled",
        }
    }
}

/// A failure that ends the run, in OpenAI's terms.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunError {
    /// The HTTP status, when none was sent yet.
    pub status: u16,
    /// The value of `error` in OpenAI's envelope.
    pub error: Value,
    /// `Retry-After`, handed on.
    pub retry_after: Option<String>,
    /// For a missing login: where to log in, for programs that only look at headers.
    pub login: Option<Box<LoginHeaders>>,
}

/// What the headers of a 401 say about a missing login.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LoginHeaders {
    /// `X-Login-URL`.
    pub login_url: Option<String>,
}

impl RunError {
    /// Whether tools were called before it, so that clients must not repeat the request by themselves.
    pub fn is_after_tools(&self) -> bool {
        self.error.get("tool_calls").is_some_and(Value::is_array)
    }

    /// The missing logins that it is about, with their links.
    pub fn logins(&self) -> Vec<AuthorizationRequired> {
        let providers = self.error.get("providers").and_then(Value::as_array);
        let login = |provider: &Value| {
            let text = |name: &str| provider.get(name).and_then(Value::as_str);
            let connect_url = text("login_url").map(str::to_owned);
            let reason = match connect_url {
                Some(_) => "Log in there, then run it again.",
                None => "A login is missing.",
            };
            AuthorizationRequired {
                resource: text("url").unwrap_or_default().to_owned(),
                server_label: String::new(),
                host: text("hostname").unwrap_or_default().to_owned(),
                connect_url,
                scopes: Vec::new(),
                reason: reason.to_owned(),
                expires_at: None,
                kind: match text("provider_type") {
                    Some("page") => LinkKind::Elicitation,
                    _ => LinkKind::Connection,
                },
            }
        };
        providers.into_iter().flatten().map(login).collect()
    }

    /// The one link for all of [`RunError::logins`].
    pub fn login_batch(&self) -> Option<AuthorizationBatch> {
        let connect_all_url = self.error.get("connect_all_url").and_then(Value::as_str)?.to_owned();
        let resources = self.logins().into_iter().map(|login| login.resource).collect();
        Some(AuthorizationBatch { connect_all_url: Some(connect_all_url), resources })
    }

    /// As [`RunEvent::for_strangers`].
    fn for_strangers(&self, with_links: bool) -> RunError {
        let mut error = RunError { login: None, ..self.clone() };
        let Value::Object(fields) = &mut error.error else { return error };
        let mut kept = vec!["message", "type", "param", "code", "servers", "providers"];
        kept.extend(with_links.then_some("connect_all_url"));
        fields.retain(|key, _| kept.contains(&key.as_str()));
        for (list, url, known) in [
            ("servers", "server_url", &["server_url", "reason"][..]),
            ("providers", "url", &["url", "hostname", "login_url", "provider_type"][..]),
        ] {
            let entries = fields.get_mut(list).and_then(Value::as_array_mut);
            for entry in entries.into_iter().flatten().filter_map(Value::as_object_mut) {
                entry.retain(|key, _| known.contains(&key.as_str()));
                let address = entry.get(url).and_then(Value::as_str).map(origin).unwrap_or_default();
                entry.insert(url.to_owned(), address.into());
                let is_page = entry.get("provider_type").is_some_and(|kind| kind == "page");
                if (!with_links || is_page) && entry.contains_key("login_url") {
                    entry.insert("login_url".to_owned(), Value::Null);
                }
            }
        }
        error
    }
}

impl RunEvent {
    /// The event as data: the top-level `toolgate` object of a chunk. `None` for what a chunk says by itself.
    pub fn data(&self) -> Option<Value> {
        let (name, value) = match self {
            RunEvent::ToolCall(call) => ("tool_call", json!(call)),
            RunEvent::ToolProgress { call_id, progress, total, message } => (
                "tool_progress",
                json!({ "call_id": call_id, "progress": progress, "total": total, "message": message }),
            ),
            RunEvent::ToolResult(ended) => (
                "tool_result",
                json!({
                    "call_id": ended.call_id,
                    "tool": ended.tool,
                    "host": ended.host,
                    "is_error": ended.result.is_error,
                    "milliseconds": ended.milliseconds,
                    "tokens": ended.result.estimate_tokens(),
                    "text": ended.result.for_model(),
                    "structured": ended.result.structured.as_ref().map(CleanJson::to_value),
                }),
            ),
            RunEvent::AuthorizationRequired(login) => ("authorization_required", json!(**login)),
            RunEvent::AuthorizationBatch(batch) => ("authorization_batch", json!(batch)),
            RunEvent::Waiting { seconds, resources } => {
                ("waiting", json!({ "seconds": seconds, "resources": resources }))
            }
            RunEvent::Authorized { resource, host } => {
                ("authorized", json!({ "resource": resource, "host": host }))
            }
            RunEvent::Notice(notice) => ("notice", json!(notice)),
            RunEvent::Resumed { turn } => ("resumed", json!({ "turn": turn })),
            RunEvent::Accepted
            | RunEvent::TurnStarted { .. }
            | RunEvent::Delta { .. }
            | RunEvent::CallerCall { .. }
            | RunEvent::Usage(_)
            | RunEvent::Finish { .. }
            | RunEvent::Error(_) => return None,
        };
        let mut data = Map::new();
        data.insert("event".into(), name.into());
        if let Value::Object(fields) = value {
            data.extend(fields);
        }
        Some(Value::Object(data))
    }

    /// Its name and all of it as data, for viewers that follow a run event by event.
    pub fn view(&self) -> (&'static str, Value) {
        let (name, mut fields) = match self {
            RunEvent::Accepted => ("accepted", Map::new()),
            RunEvent::TurnStarted { turn, head } => {
                let mut fields = head.clone();
                fields.insert("turn".into(), (*turn).into());
                ("turn_started", fields)
            }
            RunEvent::Delta { delta, logprobs } => {
                let mut fields = Map::new();
                fields.insert("delta".into(), Value::Object(delta.clone()));
                fields.extend(logprobs.clone().map(|logprobs| ("logprobs".to_owned(), logprobs)));
                ("delta", fields)
            }
            RunEvent::CallerCall { index, call } => {
                let mut fields = Map::new();
                fields.insert("index".into(), (*index).into());
                fields.insert("call".into(), Value::Object(call.clone()));
                ("caller_call", fields)
            }
            RunEvent::Usage(usage) => {
                ("usage", [("usage".to_owned(), Value::Object(usage.clone()))].into_iter().collect())
            }
            RunEvent::Finish { reason } => {
                let mut fields = Map::new();
                fields.insert("reason".into(), reason.as_str().into());
                fields.insert("finish_reason".into(), reason.as_openai().into());
                ("finish", fields)
            }
            RunEvent::Error(error) => {
                let mut fields = Map::new();
                fields.insert("status".into(), error.status.into());
                fields.insert("error".into(), error.error.clone());
                ("error", fields)
            }
            RunEvent::ToolCall(_) => ("tool_call", self.fields()),
            RunEvent::ToolProgress { .. } => ("tool_progress", self.fields()),
            RunEvent::ToolResult(_) => ("tool_result", self.fields()),
            RunEvent::AuthorizationRequired(_) => ("authorization_required", self.fields()),
            RunEvent::AuthorizationBatch(_) => ("authorization_batch", self.fields()),
            RunEvent::Waiting { .. } => ("waiting", self.fields()),
            RunEvent::Authorized { .. } => ("authorized", self.fields()),
            RunEvent::Notice(_) => ("notice", self.fields()),
            RunEvent::Resumed { .. } => ("resumed", self.fields()),
        };
        fields.shift_insert(0, "event".into(), name.into());
        (name, Value::Object(fields))
    }

    fn fields(&self) -> Map<String, Value> {
        match self.data() {
            Some(Value::Object(fields)) => fields,
            _ => Map::new(),
        }
    }

    /// The event for somebody who does not own the run: addresses of servers without paths and queries, which may hold
    /// keys, and, unless `with_links`, nothing to log in with. `None`: as it is.
    pub fn for_strangers(&self, with_links: bool) -> Option<RunEvent> {
        match self {
            RunEvent::AuthorizationRequired(login) => {
                let mut login = (**login).clone();
                login.resource = origin(&login.resource);
                if !with_links || login.kind == LinkKind::Elicitation {
                    login.connect_url = None;
                }
                Some(RunEvent::AuthorizationRequired(Arc::new(login)))
            }
            RunEvent::AuthorizationBatch(batch) => Some(RunEvent::AuthorizationBatch(AuthorizationBatch {
                connect_all_url: batch.connect_all_url.clone().filter(|_| with_links),
                resources: batch.resources.iter().map(|resource| origin(resource)).collect(),
            })),
            RunEvent::Waiting { seconds, resources } => {
                let resources = resources.iter().map(|resource| origin(resource)).collect();
                Some(RunEvent::Waiting { seconds: *seconds, resources })
            }
            RunEvent::Authorized { resource, host } => {
                Some(RunEvent::Authorized { resource: origin(resource), host: host.clone() })
            }
            RunEvent::Error(error) => Some(RunEvent::Error(error.for_strangers(with_links))),
            _ => None,
        }
    }

    /// Whether nothing comes after it.
    pub fn is_last(&self) -> bool {
        matches!(self, RunEvent::Finish { .. } | RunEvent::Error(_))
    }

    /// About how many bytes its texts take in JSON.
    pub fn json_bytes(&self) -> usize {
        match self {
            RunEvent::Delta { delta, logprobs } => {
                let texts = delta.values().map(|value| match value {
                    Value::String(text) => escaped_length(text),
                    other => other.to_string().len(),
                });
                texts.sum::<usize>() + logprobs.as_ref().map_or(0, |logprobs| logprobs.to_string().len())
            }
            // Quotes and line ends are two bytes.
            RunEvent::ToolResult(ended) => 2 * ended.result.weight(),
            other => other.weight(),
        }
    }

    /// About how many bytes it takes to keep.
    pub fn weight(&self) -> usize {
        /// What an event takes besides its texts.
        const FRAME: usize = 64;
        FRAME
            + match self {
                RunEvent::Delta { delta, logprobs } => {
                    let texts = delta.values().map(|value| match value {
                        Value::String(text) => text.len(),
                        other => other.to_string().len(),
                    });
                    texts.sum::<usize>() + logprobs.as_ref().map_or(0, |logprobs| logprobs.to_string().len())
                }
                RunEvent::CallerCall { call, .. } => json!(call).to_string().len(),
                RunEvent::ToolCall(call) => call.arguments.to_string().len(),
                RunEvent::ToolResult(ended) => ended.result.weight(),
                _ => 4 * FRAME,
            }
    }
}

/// Bytes of a text in a JSON string.
fn escaped_length(text: &str) -> usize {
    let length = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 2,
        ..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(length).sum()
}

/// Scheme, host and port of an address.
fn origin(address: &str) -> String {
    url::Url::parse(address).map_or_else(|_| String::new(), |url| url.origin().ascii_serialization())
}
