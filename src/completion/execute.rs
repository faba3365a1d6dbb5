//! One call of one MCP tool, whatever comes of it: every failure becomes a result that model and reader see.

use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::Instant;

use super::event::RunEvent;
use super::sink::Sink;
use super::turn::Call;
use crate::config;
use crate::telemetry::{McpHostMetrics, Outcome};
use crate::tools::{Error, Progress, Resolved, Tool, ToolResult, Tools};

/// A call that has ended.
pub struct Executed {
    pub result: ToolResult,
    pub outcome: Outcome,
    pub took: Duration,
}

impl Executed {
    /// A call that was not made.
    pub fn refused(reason: &str, started: Instant) -> Self {
        Executed { result: ToolResult::failure(reason), outcome: Outcome::Failed, took: started.elapsed() }
    }
}

/// Counts a call once, however it ends: a run whose viewer leaves is dropped in the middle of its calls.
pub struct Counted {
    host: McpHostMetrics,
    outcome: Outcome,
    started: Instant,
}

impl Counted {
    /// A call that is cancelled unless it is said to have ended.
    pub fn new(host: McpHostMetrics, started: Instant) -> Self {
        Counted { host, outcome: Outcome::Cancelled, started }
    }

    /// The call ended like this.
    pub fn ended(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.host.tool_call(self.outcome, self.started.elapsed());
    }
}

/// A call of a function that nobody offers.
pub fn unknown(function: &str, started: Instant) -> Executed {
    let shown: String = function.chars().take(100).collect();
    Executed::refused(&format!("There is no tool `{shown}`. Use one of the tools that are offered."), started)
}

/// Calls `tool`. Progress goes to `sink`, at most four times a second.
pub async fn call(
    tools: &Tools,
    sink: &Sink,
    settings: &config::Mcp,
    server: &Resolved,
    tool: &Tool,
    call: &Call,
    started: Instant,
) -> Executed {
    let arguments: Map<String, Value> = match serde_json::from_str(&call.arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let reason = format!(
                "Not called: the arguments are not a valid JSON object ({error}). Call again with valid arguments."
            );
            return Executed::refused(&reason, started);
        }
    };
    let last = Mutex::new(None::<Instant>);
    let report = |progress: Progress| {
        let now = Instant::now();
        let mut last = last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if last.is_none_or(|last| now - last >= Duration::from_millis(250)) {
            *last = Some(now);
            let Progress { progress, total, message } = progress;
            sink.offer(RunEvent::ToolProgress { call_id: call.id.clone(), progress, total, message });
        }
    };
    let (result, outcome) = match tools.call(&server.server, tool, &arguments, &report).await {
        Ok(raw) => match ToolResult::parse(&raw) {
            Ok(result) if result.is_error => (result, Outcome::ToolError),
            Ok(result) => (result, Outcome::Ok),
            Err(error) => {
                (ToolResult::failure(format!("The tool's answer cannot be read: {error}")), Outcome::Failed)
            }
        },
        Err(error) => {
            tracing::info!(mcp.host = server.spec.host(), mcp.tool = tool.name, outcome = ?outcome(&error), "a tool call failed");
            (ToolResult::failure(explain(&error, server.spec.host())), outcome(&error))
        }
    };
    Executed { result: result.cut(settings.result_bytes), outcome, took: started.elapsed() }
}

fn outcome(error: &Error) -> Outcome {
    match error {
        Error::Unauthorized(_) => Outcome::Unauthorized,
        Error::Timeout { .. } => Outcome::Timeout,
        Error::Refused(_)
        | Error::Unreachable { .. }
        | Error::Status { .. }
        | Error::Rpc { .. }
        | Error::Protocol(_)
        | Error::TooLarge { .. }
        | Error::PageRequired(_)
        | Error::InputRequired(_) => Outcome::Failed,
    }
}

/// What the model and the reader are told.
fn explain(error: &Error, host: &str) -> String {
    match error {
        Error::Unauthorized(_) => {
            format!("{host} refuses the credential it was given; the user must authorize again.")
        }
        Error::Unreachable { reason, maybe_ran: true } => {
            format!(
                "{host} broke off ({reason}). Whether the call took effect is unknown; do not repeat it blindly."
            )
        }
        Error::Unreachable { reason, maybe_ran: false } => {
            format!("{host} could not be reached ({reason}). The call was not made.")
        }
        Error::Timeout { after } => {
            format!(
                "{host} did not answer within {} s. Whether the call took effect is unknown.",
                after.as_secs()
            )
        }
        Error::TooLarge { limit } => {
            format!("The answer of {host} is larger than {limit} bytes and was dropped.")
        }
        Error::Refused(refusal) => format!("The call was not made: {refusal}."),
        Error::Rpc { code, message } => format!("{message} ({code})"),
        Error::Status { .. } | Error::Protocol(_) | Error::PageRequired(_) | Error::InputRequired(_) => {
            format!("{host}: {error}.")
        }
    }
}
