//! What a run does, in order. The stream, the JSON answer, and later pages and stores, are viewers of this.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::tools::ToolResult;

/// One record of a run.
#[derive(Debug, Clone)]
pub enum RunEvent {
    /// The provider has taken the request of a turn: from now on there is an answer, whatever becomes of it.
    Accepted,
    /// The answer of a turn begins; the first is 1. `head` has what the provider says of itself: `model`,
    /// `system_fingerprint`, `service_tier`.
    TurnStarted { turn: u32, head: Map<String, Value> },
    /// Part of the assistant's message: `content`, `refusal`, reasoning fields, whatever the provider sends
    /// except tool calls, exactly as it sends it. `logprobs` belongs to the choice.
    Delta { delta: Map<String, Value>, logprobs: Option<Value> },
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
    /// The tokens of one turn, as the provider counts them.
    Usage(Map<String, Value>),
    /// The end: exactly one, and nothing after it.
    Finish { reason: FinishReason },
    /// The end by failure: nothing after it.
    Error(RunError),
}

/// An MCP tool call, as shown.
#[derive(Debug, Clone, Serialize)]
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
#[derive(Debug, Clone)]
pub struct ToolResultEvent {
    pub call_id: String,
    pub tool: String,
    pub host: String,
    pub result: ToolResult,
    pub milliseconds: u64,
}

/// One missing login.
#[derive(Debug, Clone, Serialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkKind {
    /// The gateway: a login that it keeps as a connection.
    Connection,
    /// The MCP server: a page of its own choosing, which the gateway shows and never opens.
    Elicitation,
}

/// One link for several logins.
#[derive(Debug, Clone, Serialize)]
pub struct AuthorizationBatch {
    pub connect_all_url: String,
    /// The servers it leads through.
    pub resources: Vec<String>,
}

/// A remark of the gateway.
#[derive(Debug, Clone, Serialize)]
pub struct Notice {
    /// A stable word, such as `server_unreachable`.
    pub code: String,
    pub message: String,
}

/// Why a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// The run's wall clock.
    Time,
    /// A login is missing; the model was not asked, or not again.
    AuthorizationRequired,
}

impl FinishReason {
    /// OpenAI's word for it.
    pub fn as_openai(&self) -> &str {
        match self {
            FinishReason::Model(reason) => reason,
            FinishReason::ToolCalls => "tool_calls",
            FinishReason::StopWhen | FinishReason::AuthorizationRequired => "stop",
            FinishReason::MaxTurns
            | FinishReason::MaxToolCalls
            | FinishReason::TokenBudget
            | FinishReason::Time => "length",
        }
    }
}

/// A failure that ends the run, in OpenAI's terms.
#[derive(Debug, Clone)]
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
#[derive(Debug, Clone, Default)]
pub struct LoginHeaders {
    /// `X-Login-URL`.
    pub login_url: Option<String>,
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
                    "structured": ended.result.structured,
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
}
