//! The tools that a run has called, for what is said when it fails: sending the request again would call them again.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use super::event::{CallOutcome, RunError, RunEvent};

/// Most calls that the words of an error name; its list has all.
const MOST_NAMED: usize = 5;
/// The longest name of a tool in the words of an error, in characters.
const LONGEST_NAME: usize = 64;

/// The tool calls of one run, in the order in which they were begun. Clones are the same list.
#[derive(Debug, Clone, Default)]
pub struct CalledTools(Arc<Mutex<Vec<CalledTool>>>);

#[derive(Debug)]
struct CalledTool {
    id: String,
    name: String,
    server_label: String,
    outcome: CallOutcome,
    is_over: bool,
}

impl CalledTools {
    /// The calls in these events.
    pub fn of<'e>(events: impl IntoIterator<Item = &'e Arc<RunEvent>>) -> Self {
        let called = CalledTools::default();
        events.into_iter().for_each(|event| called.note(event));
        called
    }

    /// Takes note of an event.
    pub fn note(&self, event: &RunEvent) {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            RunEvent::ToolCall(call) => lock().push(CalledTool {
                id: call.call_id.clone(),
                name: call.tool.clone(),
                server_label: call.server_label.clone(),
                outcome: CallOutcome::Unknown,
                is_over: false,
            }),
            RunEvent::ToolResult(result) => {
                let mut calls = lock();
                let is_it = |call: &&mut CalledTool| !call.is_over && call.id == result.call_id;
                if let Some(call) = calls.iter_mut().find(is_it) {
                    (call.outcome, call.is_over) = (result.outcome, true);
                }
            }
            _ => {}
        }
    }

    /// Whether a tool may have been carried out.
    pub fn may_have_run(&self) -> bool {
        let calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        calls.iter().any(|call| call.outcome != CallOutcome::NotCalled)
    }

    /// `error`, with the calls and the advice not to repeat the request, when a tool may have been carried out. A missing
    /// login stays as it is: it asks for the same request again.
    #[must_use]
    pub fn explain(&self, mut error: RunError) -> RunError {
        if error.is_after_tools() || error.login.is_some() || !self.may_have_run() {
            return error;
        }
        let Value::Object(fields) = &mut error.error else { return error };
        let calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let list: Vec<Value> = calls
            .iter()
            .map(|call| {
                json!({
                    "id": call.id,
                    "name": call.name,
                    "server_label": call.server_label,
                    "outcome": call.outcome,
                })
            })
            .collect();
        let said = fields.get("message").and_then(Value::as_str).unwrap_or("the run failed");
        let message = format!(
            "{}. Tools were already called: {}. Do not send the request again blindly: that would call them again.",
            said.trim_end_matches('.'),
            words(&calls)
        );
        fields.insert("message".to_owned(), message.into());
        fields.insert("tool_calls".to_owned(), list.into());
        error.retry_after = None;
        error
    }

    /// As [`CalledTools::explain`], for a failure of the provider, whose own code becomes `provider_code`.
    #[must_use]
    pub fn explain_provider(&self, error: RunError) -> RunError {
        let mut error = self.explain(error);
        if error.is_after_tools()
            && let Value::Object(fields) = &mut error.error
        {
            let code = fields.insert("code".to_owned(), "provider_failed_after_tools".into());
            if let Some(code) = code.filter(|code| !code.is_null() && code != "provider_failed_after_tools") {
                fields.insert("provider_code".to_owned(), code);
            }
        }
        error
    }
}

fn words(calls: &[CalledTool]) -> String {
    let mut words: Vec<String> = calls
        .iter()
        .take(MOST_NAMED)
        .map(|call| {
            let name: String = call.name.chars().take(LONGEST_NAME).collect();
            format!("{name} ({})", call.outcome.as_words())
        })
        .collect();
    if calls.len() > MOST_NAMED {
        words.push(format!("and {} more", calls.len() - MOST_NAMED));
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::completion::event::{ToolCall, ToolResultEvent};
    use crate::tools::ToolResult;

    fn call(id: &str) -> Arc<RunEvent> {
        Arc::new(RunEvent::ToolCall(ToolCall {
            call_id: id.to_owned(),
            tool: "pay".to_owned(),
            function: "s_pay".to_owned(),
            server_label: "s".to_owned(),
            host: "h".to_owned(),
            arguments: Value::Null,
        }))
    }

    fn result(id: &str, outcome: CallOutcome) -> Arc<RunEvent> {
        Arc::new(RunEvent::ToolResult(ToolResultEvent {
            call_id: id.to_owned(),
            tool: "pay".to_owned(),
            host: "h".to_owned(),
            result: ToolResult::failure("x"),
            milliseconds: 1,
            outcome,
        }))
    }

    fn failed() -> RunError {
        let error = json!({ "message": "p: busy.", "type": "upstream_error", "code": "overloaded" });
        RunError { status: 503, error, retry_after: Some("1".to_owned()), login: None }
    }

    #[test]
    fn a_failure_after_a_call_names_it_and_one_before_stays_as_it_is() {
        let before = CalledTools::of(&[call("a"), result("a", CallOutcome::NotCalled)]);
        let error = before.explain_provider(failed());
        assert_eq!(
            (error.error["code"].as_str(), error.retry_after.as_deref()),
            (Some("overloaded"), Some("1"))
        );
        assert!(!error.is_after_tools());

        // The same id twice, and one call still under way.
        let events = [call("a"), call("a"), result("a", CallOutcome::Ok)];
        let error = CalledTools::of(&events).explain_provider(failed());
        assert!(error.is_after_tools() && error.retry_after.is_none() && error.status == 503);
        assert_eq!(error.error["code"], "provider_failed_after_tools");
        assert_eq!(error.error["provider_code"], "overloaded");
        let call =
            |outcome: &str| json!({ "id": "a", "name": "pay", "server_label": "s", "outcome": outcome });
        assert_eq!(error.error["tool_calls"], json!([call("ok"), call("unknown")]));
        let message = error.error["message"].as_str().unwrap();
        assert!(
            message.starts_with("p: busy. Tools were already called: pay (ok), pay (outcome unknown)."),
            "{message}"
        );
        let again = CalledTools::of(&events).explain_provider(error.clone());
        assert_eq!(again.error, error.error, "once is enough");
    }
}
