//! Where a run stood when its process was lost.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::step::{KeptCall, Step, Used};
use crate::completion::event::RunEvent;
use crate::tools::{TaskRef, ToolResult};

/// From where the loop goes on.
#[derive(Debug, Clone, Default)]
pub struct Resume {
    /// The next turn, or the one whose calls are pending.
    pub turn: u32,
    pub used: Used,
    /// The messages that the first turn began with, where they are not the caller's.
    pub begun: Option<String>,
    /// What was added to them since, separated by commas.
    pub added: String,
    /// Calls of a turn whose results are not all in.
    pub pending: Option<Pending>,
    /// Viewers have seen the beginning of the turn that begins anew.
    pub is_torn: bool,
    /// What logins have said already.
    pub said: HashSet<String>,
    /// Since it was made, in all its processes.
    pub spent: Duration,
}

/// Calls of one turn, and how far they came.
#[derive(Debug, Clone, Default)]
pub struct Pending {
    pub calls: Vec<KeptCall>,
    /// By place among those that the gateway makes.
    pub known: Vec<Known>,
    /// How many of them viewers were shown.
    pub shown: usize,
    /// The ids of those whose results viewers were shown.
    pub results_shown: Vec<String>,
}

/// How far one call came.
#[derive(Debug, Clone, Default)]
pub enum Known {
    /// It was not sent, or was refused.
    #[default]
    NotMade,
    /// It may have been carried out; nobody knows.
    Unknown,
    /// It may have been, and may be once more.
    Repeatable,
    /// The server works on it, and can be asked for it.
    Task {
        task: TaskRef,
        /// Its label in the request.
        server: String,
        /// The request brought the credential that it was begun with.
        brought: bool,
    },
    Ended {
        result: ToolResult,
        missing: bool,
    },
}

impl Resume {
    /// Where the run with these events and steps stood.
    pub fn read(events: &[Arc<RunEvent>], steps: Vec<Step>) -> Self {
        let mut resume = Resume { turn: 1, ..Resume::default() };
        for step in steps {
            resume.step(step);
        }
        let started = |event: &Arc<RunEvent>| matches!(**event, RunEvent::TurnStarted { .. });
        let last_turn = events.iter().rposition(started);
        let turn = &events[last_turn.unwrap_or(events.len())..];
        let number = match turn.first().map(|event| &**event) {
            Some(RunEvent::TurnStarted { turn, .. }) => *turn,
            _ => 0,
        };
        if let Some(pending) = &mut resume.pending {
            pending.shown = turn.iter().filter(|event| matches!(***event, RunEvent::ToolCall(_))).count();
            pending.results_shown = turn
                .iter()
                .filter_map(|event| match &**event {
                    RunEvent::ToolResult(ended) => Some(ended.call_id.clone()),
                    _ => None,
                })
                .collect();
        } else {
            resume.is_torn = number == resume.turn;
        }
        resume.said = events.iter().flat_map(|event| said(event)).collect();
        resume
    }

    /// Whether the model has answered: what it was given first is the caller's own, where nothing else is written down.
    pub fn has_begun(&self) -> bool {
        !self.added.is_empty()
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Begun { messages } => self.begun = Some(messages),
            Step::Answered { turn, messages, used, calls } => {
                self.add(&messages);
                (self.turn, self.used) = (turn, used);
                self.pending = Some(Pending { calls, ..Pending::default() });
            }
            Step::Calling { place, repeatable } => {
                // A call that is asked for again after it was carried out stays what it is.
                self.know(place, if repeatable { Known::Repeatable } else { Known::Unknown });
            }
            Step::NotMade { place } => self.know(place, Known::NotMade),
            Step::Task { place, task, server, brought } => {
                self.know(place, Known::Task { task, server, brought });
            }
            Step::Called { place, result, missing } => self.know(place, Known::Ended { result, missing }),
            Step::Acted { messages, used } => {
                self.add(&messages);
                self.used = used;
                self.turn += 1;
                self.pending = None;
            }
        }
    }

    fn know(&mut self, place: usize, known: Known) {
        let Some(pending) = self.pending.as_mut().filter(|pending| place < pending.calls.len()) else {
            return;
        };
        if pending.known.len() <= place {
            pending.known.resize_with(place + 1, Known::default);
        }
        pending.known[place] = known;
    }

    fn add(&mut self, messages: &str) {
        if messages.is_empty() {
            return;
        }
        if !self.added.is_empty() {
            self.added.push(',');
        }
        self.added.push_str(messages);
    }
}

/// What an event has said of logins, in the words of `Logins`: the same is not said again.
fn said(event: &RunEvent) -> Option<String> {
    match event {
        RunEvent::AuthorizationRequired(login) => {
            Some(format!("shown {}", login.connect_url.as_ref().unwrap_or(&login.resource)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    fn call(id: &str) -> KeptCall {
        KeptCall {
            id: id.into(),
            caller_id: None,
            function: "f".into(),
            arguments: "{}".into(),
            raw: Map::new(),
        }
    }

    fn started(turn: u32) -> Arc<RunEvent> {
        Arc::new(RunEvent::TurnStarted { turn, head: Map::new() })
    }

    fn answered(turn: u32, calls: &[&str]) -> Step {
        let used = Used { completion_tokens: u64::from(turn) * 10, ..Used::default() };
        let calls = calls.iter().map(|id| call(id)).collect();
        Step::Answered { turn, messages: format!("{{\"a\":{turn}}}"), used, calls }
    }

    #[test]
    fn a_run_that_was_lost_in_a_turn_begins_it_anew() {
        let resume = Resume::read(&[started(1)], Vec::new());
        assert!(resume.turn == 1 && resume.is_torn && resume.pending.is_none());
        assert!(!Resume::read(&[], Vec::new()).is_torn, "nothing was shown");
        let acted = Step::Acted { messages: "{\"t\":1}".into(), used: Used::default() };
        let resume = Resume::read(&[started(1), started(2)], vec![answered(1, &["x"]), acted.clone()]);
        assert_eq!((resume.turn, resume.is_torn, resume.added.as_str()), (2, true, r#"{"a":1},{"t":1}"#));
        assert!(!Resume::read(&[started(1)], vec![answered(1, &["x"]), acted]).is_torn);
    }

    #[test]
    fn of_every_call_is_known_how_far_it_came() {
        let ended = Step::Called { place: 2, result: ToolResult::failure("no"), missing: true };
        let steps = vec![
            answered(1, &["a", "b", "c", "d", "e"]),
            Step::Calling { place: 0, repeatable: false },
            Step::Calling { place: 1, repeatable: true },
            Step::Calling { place: 2, repeatable: false },
            ended,
            Step::Calling { place: 3, repeatable: false },
            Step::NotMade { place: 3 },
            Step::Calling { place: 99, repeatable: false },
        ];
        let pending = Resume::read(&[started(1)], steps).pending.unwrap();
        assert!(matches!(
            pending.known.as_slice(),
            [Known::Unknown, Known::Repeatable, Known::Ended { missing: true, .. }, Known::NotMade]
        ));
        assert_eq!(pending.calls.len(), 5);
    }

    #[test]
    fn steps_and_events_are_read_as_they_were_written() {
        let step = answered(3, &["a"]);
        let text = serde_json::to_string(&vec![step]).unwrap();
        let back: Vec<Step> = serde_json::from_str(&text).unwrap();
        assert!(matches!(&back[0], Step::Answered { turn: 3, .. }));
        let result = crate::completion::event::ToolResultEvent {
            call_id: "c".into(),
            tool: "t".into(),
            host: "h".into(),
            result: ToolResult {
                structured: Some((&json!({ "a": 1.0 })).into()),
                ..ToolResult::failure("no")
            },
            milliseconds: 3,
            outcome: crate::completion::event::CallOutcome::ToolError,
        };
        let text = serde_json::to_string(&RunEvent::ToolResult(result)).unwrap();
        let RunEvent::ToolResult(back) = serde_json::from_str(&text).unwrap() else { panic!("{text}") };
        assert_eq!(back.result.structured.unwrap().get(), r#"{"a":1.0}"#);
        assert!(back.result.is_error);
    }
}
