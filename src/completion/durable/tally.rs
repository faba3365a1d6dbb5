//! What events mean for their run: how it stands, why it ended, what it used.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::record::Status;
use crate::completion::event::{FinishReason, RunEvent};
use crate::store::RunUsage;

/// How a run stands after an event; `None`: as before.
pub(super) fn status_after(event: &RunEvent, before: Status) -> Option<Status> {
    match event {
        RunEvent::Accepted
        | RunEvent::TurnStarted { .. }
        | RunEvent::ToolCall(_)
        | RunEvent::Resumed { .. } => Some(Status::InProgress),
        RunEvent::Waiting { .. } => Some(Status::RequiresAction),
        RunEvent::Authorized { .. } if before == Status::RequiresAction => Some(Status::InProgress),
        RunEvent::Finish { reason } => Some(status_of(reason)),
        RunEvent::Error(_) => Some(Status::Failed),
        _ => None,
    }
}

/// Why a run ended, when this is its end.
pub(super) fn reason_of(event: &RunEvent) -> Option<String> {
    match event {
        RunEvent::Finish { reason } => Some(short(reason.as_str())),
        RunEvent::Error(error) => {
            let code = error.error.get("code").and_then(Value::as_str);
            let kind = error.error.get("type").and_then(Value::as_str);
            Some(short(code.or(kind).unwrap_or("error")))
        }
        _ => None,
    }
}

fn status_of(reason: &FinishReason) -> Status {
    match reason {
        FinishReason::Model(reason) if matches!(reason.as_str(), "length" | "content_filter") => {
            Status::Incomplete
        }
        FinishReason::Model(_) | FinishReason::ToolCalls | FinishReason::StopWhen => Status::Completed,
        FinishReason::MaxTurns
        | FinishReason::MaxToolCalls
        | FinishReason::TokenBudget
        | FinishReason::ByteBudget
        | FinishReason::Time
        | FinishReason::AuthorizationRequired => Status::Incomplete,
        FinishReason::Cancelled => Status::Cancelled,
    }
}

/// What a run of these events has used.
pub(super) fn usage_of(events: &[Arc<RunEvent>]) -> RunUsage {
    let mut usage = RunUsage::default();
    for event in events {
        count(&mut usage, event);
    }
    usage
}

/// Adds what an event has used.
pub(super) fn count(used: &mut RunUsage, event: &RunEvent) {
    match event {
        RunEvent::TurnStarted { turn, .. } => used.turns = i64::from(*turn),
        RunEvent::ToolCall(_) => used.tool_calls += 1,
        RunEvent::Usage(usage) => {
            used.prompt_tokens = used.prompt_tokens.saturating_add(tokens(usage, "prompt_tokens"));
            used.completion_tokens =
                used.completion_tokens.saturating_add(tokens(usage, "completion_tokens"));
        }
        _ => {}
    }
}

fn tokens(usage: &Map<String, Value>, name: &str) -> i64 {
    usage.get(name).and_then(Value::as_i64).unwrap_or(0).max(0)
}

/// A provider's own word may be anything.
fn short(word: &str) -> String {
    word.chars().filter(|c| !c.is_control()).take(100).collect()
}
