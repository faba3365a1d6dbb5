//! The loop: call the model, execute its tool calls, give it the results, until it is done or a bound is reached.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::conversation::Conversation;
use super::durable::{Known, Pending, Resume, Step, Stop, Used};
use super::engine::Parts;
use super::event::{FinishReason, Notice, RunError, RunEvent, ToolCall, ToolResultEvent};
use super::execute::{self, Calling, Counted, Executed};
use super::json_notice::json_repaired_event;
use super::logins::{Logins, Missing};
use super::memory::AskedMessages;
use super::options::{OnAuth, Options, StopWhen};
use super::pictures;
use super::prepare::fail;
use super::run_budget::{BudgetExceeded, RunBudget, no_memory, weigh_value};
use super::sink::{Gone, Sink};
use super::toolset::{Owner, Toolset};
use super::turn::{Broken, Call, Reader, Turn};
use crate::clean_json;
use crate::egress;
use crate::openai::{ErrorBody, ErrorKind, read_provider_error};
use crate::upstream::{self, Target};

/// Calls of one turn that run at the same time; more wait for a place.
const CALLS_AT_ONCE: usize = 32;
/// How long the viewer may take to make room for the last event.
const LAST_EVENT: Duration = Duration::from_secs(600);

/// Everything one run needs. It owns it all, so that it can be a task of its own.
pub struct Agent {
    pub parts: Arc<Parts>,
    pub target: Target,
    pub path: String,
    pub headers: HeaderMap,
    pub conversation: Conversation,
    pub toolset: Toolset,
    pub options: Options,
    /// Whether the model may call several tools at a time.
    pub parallel: bool,
    pub logins: Logins,
    /// Logins of optional servers that are missing.
    pub missing: Vec<Missing>,
    /// Shown, like `missing`, when the provider has taken the request.
    pub notices: Vec<Notice>,
    pub sink: Sink,
    pub budget: RunBudget,
    /// Where the caller's own messages end.
    pub start: usize,
    /// What the caller asked, under which the run's turns are found again.
    pub asked: AskedMessages,
    /// The messages it begins with, where they are not the caller's; written down first.
    pub begun: Option<String>,
    /// Where it goes on, when another process began it.
    pub resume: Option<Resume>,
}

/// What the calls of one turn came to.
struct Done {
    /// A `stop_when` condition was met.
    stopping: bool,
    /// What a person must do first, each once.
    missing: Vec<Missing>,
}

/// Where a run that was taken over goes on.
enum Progress {
    Turn(u32),
    Finished(FinishReason),
}

/// Ends the loop.
enum End {
    Finished(FinishReason),
    Failed(RunError),
    OverBudget(BudgetExceeded),
    Gone,
}

impl From<BudgetExceeded> for End {
    fn from(why: BudgetExceeded) -> Self {
        End::OverBudget(why)
    }
}

impl From<Gone> for End {
    fn from(_: Gone) -> Self {
        End::Gone
    }
}

impl Agent {
    /// Runs to the end. The last event is `Finish` or `Error`, unless the viewer has left.
    pub async fn run(mut self) {
        let limit = Duration::from_secs(self.parts.run.max_seconds);
        let spent = self.resume.as_ref().map_or(Duration::ZERO, |resume| resume.spent);
        let end = tokio::time::timeout(limit.saturating_sub(spent), self.turns()).await;
        let last = match end {
            Ok(End::Finished(reason)) => RunEvent::Finish { reason },
            Ok(End::Failed(error)) => RunEvent::Error(self.sink.called().explain_provider(error)),
            Ok(End::Gone) => return,
            Ok(End::OverBudget(why)) => {
                if self.sink.send(why.notice()).await.is_err() {
                    return;
                }
                RunEvent::Finish { reason: FinishReason::ByteBudget }
            }
            Err(_) => {
                let message = format!("The run took longer than {} s and was ended.", limit.as_secs());
                if self.sink.send(notice("time_limit", message)).await.is_err() {
                    return;
                }
                RunEvent::Finish { reason: FinishReason::Time }
            }
        };
        // A viewer that left before the last event has nothing to be told.
        let _ = tokio::time::timeout(LAST_EVENT, self.sink.send(last)).await;
    }

    async fn turns(&mut self) -> End {
        let (mut number, mut used) = (1, Used::default());
        let request = self.conversation.bytes();
        if let Err(why) = self.budget.take(request, 2 * request).await {
            return match why {
                BudgetExceeded::Memory => End::Failed(no_memory()),
                _ => End::OverBudget(why),
            };
        }
        if let Some(messages) = self.begun.take()
            && self.sink.step(|| Step::Begun { messages }).await.is_err()
        {
            return End::Gone;
        }
        if let Some(resume) = self.resume.take() {
            used = resume.used;
            number = match self.go_on(resume, &mut used).await {
                Ok(Progress::Turn(number)) => number,
                Ok(Progress::Finished(reason)) => return End::Finished(reason),
                Err(end) => return end,
            };
        }
        loop {
            if self.is_handed_over() {
                return End::Gone;
            }
            match self.turn(number, &mut used).await {
                Ok(None) => number += 1,
                Ok(Some(reason)) => return End::Finished(reason),
                Err(end) => return end,
            }
        }
    }

    /// Whether another process goes on with the run: this one stops, and nobody's request hangs on it.
    fn is_handed_over(&self) -> bool {
        let log = self.sink.log().filter(|log| *self.parts.stopping.borrow() && !log.has_live_viewers());
        if let Some(log) = log {
            log.end_early(Stop::HandedOver);
        }
        log.is_some()
    }

    /// One provider call and the tool calls it asks for. Gives the reason when it was the last.
    async fn turn(&mut self, number: u32, used: &mut Used) -> Result<Option<FinishReason>, End> {
        self.sink.until_watched().await?;
        self.budget.settle(self.conversation.bytes()).await?;
        let response = self.call_provider(number, used).await?;
        self.parts.metrics.provider(&self.target.provider.name).turn();
        self.sink.send(RunEvent::Accepted).await?;
        let missing = std::mem::take(&mut self.missing);
        self.logins.show(&missing, &self.sink).await?;
        for given in std::mem::take(&mut self.notices) {
            self.sink.send(RunEvent::Notice(given)).await?;
        }
        let mut turn = self.read(number, response, used).await?;
        if turn.is_repaired {
            let whose = format!("The answer of {}", self.target.provider.name);
            self.sink.send(json_repaired_event(&whose)).await?;
        }
        if let Some(usage) = turn.usage.take() {
            let tokens = usage.get("completion_tokens").and_then(Value::as_u64).unwrap_or(0);
            used.completion_tokens = used.completion_tokens.saturating_add(tokens);
            self.sink.send(RunEvent::Usage(usage)).await?;
        }
        // A turn that was cut off has calls that are not whole; they are not made.
        let cut_off = matches!(turn.finish_reason.as_deref(), Some("length" | "content_filter"));
        if turn.calls.is_empty() || cut_off {
            self.remember_answer(self.start, &turn.message);
            return Ok(Some(FinishReason::Model(turn.finish_reason.unwrap_or_else(|| "stop".to_owned()))));
        }
        if self.target.provider.quirks.drop_reasoning {
            turn.message.retain(|key, _| !key.starts_with("reasoning"));
        }
        let before = self.conversation.mark();
        self.conversation.push(&Value::Object(turn.message));
        let (answer, so_far) = (self.conversation.since(before), *used);
        let answered = || Step::Answered {
            turn: number,
            messages: String::from_utf8_lossy(answer).into_owned(),
            used: so_far,
            calls: turn.calls.iter().map(Call::kept).collect(),
        };
        self.sink.step(answered).await?;
        self.act(number, used, turn.calls, Pending::default()).await
    }

    /// Goes on where another process was: with the calls of a turn, or with the turn that was torn.
    async fn go_on(&mut self, resume: Resume, used: &mut Used) -> Result<Progress, End> {
        if resume.is_torn {
            self.sink.send(RunEvent::Resumed { turn: resume.turn }).await?;
        }
        let Some(pending) = resume.pending else { return Ok(Progress::Turn(resume.turn)) };
        let calls = pending.calls.iter().map(|kept| Call::of_kept(kept, &self.toolset)).collect();
        match self.act(resume.turn, used, calls, pending).await? {
            Some(reason) => Ok(Progress::Finished(reason)),
            None => Ok(Progress::Turn(resume.turn + 1)),
        }
    }

    /// Makes the calls of a turn. Of those that another process made, `pending` says how far they came.
    async fn act(
        &mut self,
        number: u32,
        used: &mut Used,
        calls: Vec<Call>,
        pending: Pending,
    ) -> Result<Option<FinishReason>, End> {
        let before = self.conversation.mark();
        let (callers, ours): (Vec<Call>, Vec<Call>) =
            calls.into_iter().partition(|call| call.owner == Owner::Caller);
        let allowed = self.options.max_tool_calls.saturating_sub(used.tool_calls) as usize;
        let over = ours.len() > allowed;
        used.tool_calls += u32::try_from(ours.len().min(allowed)).unwrap_or(u32::MAX);
        let Done { stopping, missing } = self.execute(&ours, allowed, callers.is_empty(), &pending).await?;
        let (results, so_far) = (self.conversation.since(before), *used);
        let acted = || Step::Acted { messages: String::from_utf8_lossy(results).into_owned(), used: so_far };
        self.sink.step(acted).await?;
        self.tell_of_missing(&missing).await?;
        if !callers.is_empty() {
            self.remember_calls(self.start, &callers);
            used.caller_calls += u32::try_from(callers.len()).unwrap_or(u32::MAX);
            return Ok(Some(FinishReason::ToolCalls));
        }
        if !missing.is_empty() {
            return Ok(Some(FinishReason::AuthorizationRequired));
        }
        self.bound(number, used, over, stopping).await
    }

    /// Shows what a person must do before the calls can be made, or fails if that is wanted.
    async fn tell_of_missing(&self, missing: &[Missing]) -> Result<(), End> {
        if missing.is_empty() {
            return Ok(());
        }
        if self.options.on_auth == OnAuth::Fail {
            return Err(End::Failed(fail(&self.logins, missing).await));
        }
        self.logins.show(missing, &self.sink).await?;
        Ok(())
    }

    /// Whether a bound ends the run after this turn.
    async fn bound(
        &self,
        number: u32,
        used: &Used,
        over: bool,
        stopping: bool,
    ) -> Result<Option<FinishReason>, End> {
        let wanted = stopping
            || self
                .options
                .stop_when
                .iter()
                .any(|when| matches!(when, StopWhen::Turns(turns) if number >= *turns));
        let (reason, code, message) = if over {
            let most = self.options.max_tool_calls;
            (
                FinishReason::MaxToolCalls,
                "max_tool_calls",
                format!("The run has reached its limit of tool calls: {most}."),
            )
        } else if wanted {
            return Ok(Some(FinishReason::StopWhen));
        } else if number >= self.options.max_turns {
            let most = self.options.max_turns;
            (FinishReason::MaxTurns, "max_turns", format!("The run has reached its limit of turns: {most}."))
        } else if self.conversation.token_budget().is_some_and(|most| used.completion_tokens >= most) {
            (
                FinishReason::TokenBudget,
                "token_budget",
                "The bound on completion tokens over all turns is used up.".to_owned(),
            )
        } else {
            return Ok(None);
        };
        self.sink.send(notice(code, message)).await?;
        Ok(Some(reason))
    }

    async fn call_provider(&mut self, number: u32, used: &Used) -> Result<http::Response<Incoming>, End> {
        loop {
            let body = self.conversation.body(number, used.completion_tokens);
            let sent = self.parts.upstream.post(&self.target, &self.path, self.headers.clone(), body).await;
            let response = sent.map_err(|error| End::Failed(unreachable(&error)))?;
            if response.status().is_success() {
                return Ok(response);
            }
            // Some models refuse pictures; the tool's result is still worth something to them without.
            if response.status() == StatusCode::BAD_REQUEST && self.conversation.drop_pictures() {
                let message = format!(
                    "{} does not take the pictures that a tool returned; they were left out.",
                    self.target.provider.name
                );
                self.sink.send(notice("pictures_left_out", message)).await?;
                continue;
            }
            return Err(End::Failed(refused(&self.target, response).await));
        }
    }

    async fn read(&self, number: u32, response: http::Response<Incoming>, used: &Used) -> Result<Turn, End> {
        let reader = Reader {
            sink: &self.sink,
            provider: &self.target.provider.name,
            owner: &|function| self.toolset.owner(function),
            idle: self.parts.upstream.idle_timeout(),
            number,
            callers_so_far: used.caller_calls,
            budget: &self.budget,
        };
        reader.read(response).await.map_err(|broken| match broken {
            Broken::Gone => End::Gone,
            Broken::OverBudget(why) => End::OverBudget(why),
            Broken::Failed(error) => {
                tracing::warn!(provider = %self.target.provider.name, "the provider failed in the middle of an answer");
                End::Failed(RunError { status: 502, error: error.into_value(), retry_after: None, login: None })
            }
        })
    }

    /// Executes the calls and adds their results for the model. Those beyond `allowed` are refused.
    async fn execute(
        &mut self,
        calls: &[Call],
        allowed: usize,
        with_pictures: bool,
        pending: &Pending,
    ) -> Result<Done, End> {
        let (mut stopping, mut missing) = (false, Vec::<Missing>::new());
        self.sink.until_watched().await?;
        for (place, call) in calls.iter().enumerate() {
            let (mut event, tool) = self.describe(call);
            stopping |=
                self.options.stop_when.iter().any(
                    |when| matches!(when, StopWhen::Tool(name) if *name == tool || *name == call.function),
                );
            if place >= pending.shown {
                let _reading = self.budget.hold_for_reading(call.arguments.as_bytes()).await?;
                event.arguments = clean_json::exact(&call.arguments)
                    .unwrap_or_else(|_| Value::String(call.arguments.clone()));
                // Viewers may hold it until the next turn.
                self.budget.take(0, weigh_value(&event.arguments).1).await?;
                self.sink.send(RunEvent::ToolCall(event)).await?;
            }
        }
        let results = if self.parallel {
            self.at_once(calls, allowed, pending).await?
        } else {
            self.in_turn(calls, allowed, pending).await?
        };
        let mut shown = Vec::new();
        for (call, mut executed) in calls.iter().zip(results) {
            for one in executed.missing.drain(..) {
                let same = |other: &Missing| {
                    (&other.shown.resource, &other.shown.connect_url)
                        == (&one.shown.resource, &one.shown.connect_url)
                };
                if !missing.iter().any(same) {
                    missing.push(one);
                }
            }
            self.conversation.push(
                &json!({ "role": "tool", "tool_call_id": call.id, "content": executed.result.for_model() }),
            );
            shown.push((call.function.clone(), executed));
        }
        // Pictures stand in a message of the user, which must not come between calls and the caller's results.
        if with_pictures && let Some(message) = pictures::message(&self.target, &shown) {
            self.conversation.push_pictures(&message);
        }
        Ok(Done { stopping, missing })
    }

    async fn at_once(&self, calls: &[Call], allowed: usize, pending: &Pending) -> Result<Vec<Executed>, End> {
        let calling: Vec<_> = calls
            .iter()
            .enumerate()
            .map(
                |(place, call)| async move { (place, self.one(place, call, place < allowed, pending).await) },
            )
            .collect();
        let mut running = stream::iter(calling).buffer_unordered(CALLS_AT_ONCE);
        let mut results: Vec<Option<Executed>> = calls.iter().map(|_| None).collect();
        while let Some((place, executed)) = running.next().await {
            let executed = executed?;
            self.report(place, &calls[place], &executed, pending).await?;
            results[place] = Some(executed);
        }
        Ok(results.into_iter().flatten().collect())
    }

    async fn in_turn(&self, calls: &[Call], allowed: usize, pending: &Pending) -> Result<Vec<Executed>, End> {
        let mut results = Vec::with_capacity(calls.len());
        for (place, call) in calls.iter().enumerate() {
            let executed = self.one(place, call, place < allowed, pending).await?;
            self.report(place, call, &executed, pending).await?;
            results.push(executed);
        }
        Ok(results)
    }

    async fn one(
        &self,
        place: usize,
        call: &Call,
        allowed: bool,
        pending: &Pending,
    ) -> Result<Executed, End> {
        let started = Instant::now();
        match pending.known.get(place) {
            Some(Known::Ended { result, missing: false }) => {
                return Ok(Executed::known(result.clone(), started));
            }
            Some(Known::Unknown) => {
                let (described, _) = self.describe(call);
                return Ok(execute::lost(&described.host, started));
            }
            // A login is asked for again.
            Some(
                Known::Ended { missing: true, .. } | Known::NotMade | Known::Repeatable | Known::Task { .. },
            )
            | None => {}
        }
        let found = self.toolset.find(call.owner);
        let mut counted =
            found.map(|(server, _)| Counted::new(self.parts.metrics.mcp_host(server.spec.host()), started));
        let executed = match found {
            _ if !allowed => Executed::refused("Not called: the limit of tool calls is reached.", started),
            None => execute::unknown(&call.function, started),
            Some((server, tool)) => {
                let (logins, sink) = (&self.logins, &self.sink);
                let task = match pending.known.get(place) {
                    Some(Known::Task { task, .. }) => Some(task),
                    _ => None,
                };
                // Boxed, because a call that waits for a login should not keep room for all that a call may do.
                let calling = Calling {
                    logins,
                    sink,
                    server,
                    tool,
                    call,
                    place,
                    task,
                    budget: &self.budget,
                    sent: AtomicBool::new(task.is_some()),
                };
                let made = Box::pin(execute::call(&calling, started));
                made.await?
            }
        };
        if let Some(counted) = &mut counted {
            counted.ended(executed.outcome);
        }
        // As it is, as the model is given it, and as viewers are shown it.
        let weight = executed.result.weight();
        self.budget.take(weight, 3 * weight).await?;
        self.budget.show(weight);
        Ok(executed)
    }

    async fn report(
        &self,
        place: usize,
        call: &Call,
        executed: &Executed,
        pending: &Pending,
    ) -> Result<(), End> {
        let ended = || {
            let (result, missing) = (executed.result.clone(), !executed.missing.is_empty() && !executed.sent);
            Step::Called { place, result, missing }
        };
        self.sink.step(ended).await?;
        if pending.results_shown.contains(&call.id) {
            return Ok(());
        }
        let (described, _) = self.describe(call);
        let milliseconds = u64::try_from(executed.took.as_millis()).unwrap_or(u64::MAX);
        let event = ToolResultEvent {
            call_id: call.id.clone(),
            tool: described.tool,
            host: described.host,
            result: executed.result.clone(),
            milliseconds,
            outcome: executed.call_outcome(),
        };
        let repaired = executed.result.is_repaired.then(|| format!("The result of `{}`", event.tool));
        self.sink.send(RunEvent::ToolResult(event)).await?;
        if let Some(whose) = repaired {
            self.sink.send(json_repaired_event(&whose)).await?;
        }
        Ok(())
    }

    fn describe(&self, call: &Call) -> (ToolCall, String) {
        let found = self.toolset.find(call.owner);
        let tool = found.map_or(call.function.as_str(), |(_, tool)| tool.name.as_str()).to_owned();
        let event = ToolCall {
            call_id: call.id.clone(),
            tool: self.parts.links.broken_in(&tool).into_owned(),
            function: call.function.clone(),
            server_label: found.map(|(server, _)| server.spec.label.clone()).unwrap_or_default(),
            host: found.map_or_else(|| "unknown".to_owned(), |(server, _)| server.spec.host().to_owned()),
            // Filled in where the call is shown.
            arguments: Value::Null,
        };
        (event, tool)
    }
}

fn notice(code: &str, message: String) -> RunEvent {
    RunEvent::Notice(Notice { code: code.to_owned(), message })
}

/// A provider that gave no answer at all.
pub fn unreachable(error: &upstream::Error) -> RunError {
    let (status, code) = match error {
        upstream::Error::Refused { .. } => (403, "host_not_allowed"),
        upstream::Error::Unreachable { .. } => (502, "provider_unreachable"),
        upstream::Error::Timeout { .. } => (504, "provider_timeout"),
    };
    let kind = if status == 403 { ErrorKind::Permission } else { ErrorKind::Upstream };
    RunError {
        status,
        error: ErrorBody::new(kind, Some(code), error.to_string()).into_value(),
        retry_after: None,
        login: None,
    }
}

/// A provider that answered with an error: its status, its words, its name and the model.
async fn refused(target: &Target, response: http::Response<Incoming>) -> RunError {
    let status = response.status().as_u16();
    let retry_after = response
        .headers()
        .get(http::header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    let body = match egress::decoded(response) {
        Ok(response) => {
            let body = Limited::new(response.into_body(), 1 << 20).collect().await;
            body.map(|body| body.to_bytes()).unwrap_or_default()
        }
        Err(reason) => reason.to_string().into(),
    };
    let who = if target.model.is_empty() {
        target.provider.name.to_string()
    } else {
        format!("{} (model `{}`)", target.provider.name, target.model)
    };
    let error = read_provider_error(status, &body);
    let status = if (400..600).contains(&status) { status } else { 502 };
    RunError { status, error: ErrorBody::from_provider(error, &who).into_value(), retry_after, login: None }
}
