//! One call of one MCP tool, whatever comes of it: every failure becomes a result that model and reader see.
//!
//! A call is repeated only after the server has refused to run it: with another token, after a login, or after a page
//! that it wanted opened first. A call that has become a task is not repeated at all: the task is asked about.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::durable::Step;
use super::event::CallOutcome;
use super::following::{Following, OpenTask};
use super::held::explain as explain_wait;
use super::logins::{Came, Logins, Missing, Refused, expired};
use super::options::OnAuth;
use super::pages::{Pages, Patience};
use super::run_budget::RunBudget;
use super::sink::{Gone, Sink};
use super::turn::Call;
use crate::clean_json;
use crate::connections::{Access, FlowError};
use crate::rate_limit::RetryAfterSeconds;
use crate::telemetry::{McpHostMetrics, Outcome};
use crate::tools::{Error, PageRequired, Resolved, TaskRef, Tool, ToolResult, text};

/// How often one call may end in a login.
const MOST_LOGINS: u32 = 2;

/// What is said of a task that is not waited for any more.
const BEGUN: &str = "The call has begun; what becomes of it is unknown.";

/// What is said of a call whose arguments are too much right now.
const NO_MEMORY: &str =
    "Not called: the gateway has no memory left for these arguments. Call again with less.";

/// So much of a result is looked at for words that mean something else, in bytes.
const LOOKED_AT: usize = 16 << 10;

/// A call that has ended.
pub struct Executed {
    pub result: ToolResult,
    pub outcome: Outcome,
    pub took: Duration,
    /// What a person must do before the call can be made: the run ends, unless the caller has calls to answer.
    pub missing: Vec<Missing>,
    /// The call may have been carried out.
    pub sent: bool,
}

impl Executed {
    /// What is known of it, for whoever would make it again.
    pub fn call_outcome(&self) -> CallOutcome {
        match self.outcome {
            _ if !self.sent => CallOutcome::NotCalled,
            Outcome::Ok => CallOutcome::Ok,
            Outcome::ToolError => CallOutcome::ToolError,
            // Its server has refused the credential.
            Outcome::Unauthorized => CallOutcome::NotCalled,
            Outcome::Timeout | Outcome::Failed | Outcome::Cancelled => CallOutcome::Unknown,
        }
    }

    /// A call that another process made.
    pub fn known(result: ToolResult, started: Instant) -> Self {
        let outcome = if result.is_error { Outcome::ToolError } else { Outcome::Ok };
        Executed { result, outcome, took: started.elapsed(), missing: Vec::new(), sent: true }
    }

    /// A call that was not made.
    pub fn refused(reason: &str, started: Instant) -> Self {
        let (result, took) = (ToolResult::failure(reason), started.elapsed());
        Executed { result, outcome: Outcome::Failed, took, missing: Vec::new(), sent: false }
    }
}

/// A call that was under way in another process that was lost.
pub fn lost(host: &str, started: Instant) -> Executed {
    Executed { sent: true, ..Executed::refused(&unknown_outcome(host), started) }
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

/// What is told of a call that was under way when its process was lost.
fn unknown_outcome(host: &str) -> String {
    format!(
        "The gateway was restarted during this call. Whether {host} carried it out is unknown; do not repeat it blindly, \
         look first."
    )
}

/// One call and what it needs.
pub struct Calling<'a> {
    pub logins: &'a Logins,
    pub sink: &'a Sink,
    pub server: &'a Resolved,
    pub tool: &'a Tool,
    pub call: &'a Call,
    /// Its place among the calls of its turn that the gateway makes.
    pub place: usize,
    /// The task that the call has become in another process.
    pub task: Option<&'a TaskRef>,
    pub budget: &'a RunBudget,
    /// It may have been carried out.
    pub sent: AtomicBool,
}

/// What kept a call from being made.
pub(super) enum Kept {
    Error(Error),
    /// A person must act first.
    Missing(Vec<Missing>),
    /// The caller's login cannot be looked up.
    Unknown,
    /// No login can be begun before that.
    Busy(RetryAfterSeconds),
    /// It was waited for in vain.
    Waited(Came, Vec<Missing>),
    Gone,
}

impl From<Gone> for Kept {
    fn from(_: Gone) -> Self {
        Kept::Gone
    }
}

/// Calls the tool. Progress goes to the viewer, at most four times a second.
///
/// # Errors
/// [`Gone`] when the viewer left.
pub async fn call(calling: &Calling<'_>, started: Instant) -> Result<Executed, Gone> {
    let host = calling.server.spec.host();
    let Ok(_reading) = calling.budget.hold_for_reading(calling.call.arguments.as_bytes()).await else {
        return Ok(Executed::refused(NO_MEMORY, started));
    };
    let arguments: Map<String, Value> = match clean_json::exact(&calling.call.arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let reason = format!(
                "Not called: the arguments are not a valid JSON object ({error}). Call again with valid arguments."
            );
            return Ok(Executed::refused(&reason, started));
        }
    };
    let mut missing = Vec::new();
    let task = OpenTask::default();
    if let Some(kept) = calling.task {
        task.set(kept);
    }
    let ended = calling.to_the_end(&arguments, &task).await;
    let begun = if task.is_unsettled() { BEGUN } else { "The call was not made." };
    let (result, outcome) = match ended {
        Ok(raw) => match read_result(calling.budget, &raw).await {
            Ok(result) if result.is_error => (result, Outcome::ToolError),
            Ok(result) => (result, Outcome::Ok),
            Err(error) => {
                (ToolResult::failure(format!("The tool's answer cannot be read: {error}")), Outcome::Failed)
            }
        },
        Err(Kept::Error(error)) => {
            tracing::info!(mcp.host = host, mcp.tool = calling.tool.name, outcome = ?outcome(&error), "a tool call failed");
            let mut words = explain(&error, host);
            // The others say so themselves.
            if task.is_unsettled() && !matches!(error, Error::Timeout { .. } | Error::TaskLost { .. }) {
                words = format!("{words} {BEGUN}");
            }
            (ToolResult::failure(words), outcome(&error))
        }
        Err(Kept::Unknown) => {
            let words = format!("The login for {host} cannot be looked up right now. {begun}");
            (ToolResult::failure(words), Outcome::Failed)
        }
        Err(Kept::Busy(after)) => {
            let words = format!("{host} wants a login, and {}. {begun}", FlowError::Busy(after));
            (ToolResult::failure(words), Outcome::Unauthorized)
        }
        Err(Kept::Missing(logins)) => {
            missing = logins;
            (ToolResult::failure(must_act(host, begun, None)), Outcome::Unauthorized)
        }
        Err(Kept::Waited(came, logins)) => {
            missing = logins;
            let words = explain_wait(came, calling.logins.wait.as_secs()).map(|notice| notice.message);
            (ToolResult::failure(must_act(host, begun, words)), Outcome::Unauthorized)
        }
        Err(Kept::Gone) => return Err(Gone),
    };
    let parts = &calling.logins.parts;
    let result = parts.links.broken_in_result(result).cut(parts.mcp.result_bytes);
    let sent = calling.sent.load(Ordering::Relaxed);
    Ok(Executed { result, outcome, took: started.elapsed(), missing, sent })
}

/// Reads what a server returned. The memory for that is needed until the result was cut.
async fn read_result(budget: &RunBudget, raw: &Bytes) -> Result<ToolResult, Error> {
    let no_memory = |_| Error::Protocol("the gateway has no memory left for so large a result".to_owned());
    let _reading = budget.hold(2 * raw.len()).await.map_err(no_memory)?;
    ToolResult::parse(raw)
}

impl Calling<'_> {
    async fn to_the_end(&self, arguments: &Map<String, Value>, task: &OpenTask) -> Result<Bytes, Kept> {
        let (logins, spec) = (self.logins, &self.server.spec);
        let (mut renewals, mut asked, mut answered) = (0, 0, 0);
        let mut renewed: Option<Access> = None;
        let mut pages: Option<Pages> = None;
        let patience = Patience::default();
        loop {
            let access = match renewed.take() {
                Some(access) => Some(access),
                // Looked up for every call: a run may outlive a token, and a connection may be ended meanwhile.
                None => logins.find_access(spec).await.map_err(|error| self.unknown(&error))?,
            };
            let after = pages.as_ref().map(Pages::required);
            let answer = self.once(access.as_ref(), arguments, after, &patience, task).await?;
            let so_far = task.get().map_or(0, |task| task.answered());
            if so_far > answered {
                // A task took the token for a while: another one may be due, also more than once.
                (renewals, answered) = (0, so_far);
            }
            let seen = answer.as_ref().map(|raw| &raw[..raw.len().min(LOOKED_AT)]);
            let challenge = match answer {
                Err(Error::Unauthorized(challenge)) => challenge,
                _ if logins.is_expiry(spec, access.as_ref(), &seen).await => expired(),
                Err(Error::PageRequired(required)) => {
                    // It has taken the token, and time goes by: another one may be due, also more than once.
                    renewals = 0;
                    self.not_made_unless(task).await?;
                    pages = Some(self.open_pages(pages.take(), *required, &patience).await?);
                    continue;
                }
                Ok(raw) => {
                    if let Some(pages) = &pages {
                        self.show_dealt_with(pages, &raw).await?;
                    }
                    return Ok(raw);
                }
                Err(error) => return Err(Kept::Error(error)),
            };
            // Forbidden for another reason than missing permissions: no login changes that.
            if spec.authorization.is_some() || challenge.is_forbidden() {
                return Err(Kept::Error(Error::Unauthorized(challenge)));
            }
            let missing = match logins.refused(spec, access.as_ref(), &challenge, renewals).await {
                Refused::Renewed(access) => {
                    renewals += 1;
                    renewed = Some(access);
                    continue;
                }
                Refused::Missing(missing) => missing,
                Refused::Nobody => return Err(Kept::Error(Error::Unauthorized(challenge))),
                Refused::Busy(after) => return Err(Kept::Busy(after)),
                Refused::Unknown(error) => return Err(self.unknown(&error)),
            };
            // Without a link there is nothing that anybody could do now; the model may know another way.
            if missing.flow.is_none() {
                return Err(Kept::Error(Error::Unauthorized(challenge)));
            }
            asked += 1;
            if logins.on_auth != OnAuth::Wait || asked > MOST_LOGINS {
                return Err(Kept::Missing(vec![missing]));
            }
            // A task goes on all the same: it must not be called anew by whoever goes on with the run.
            if task.get().is_none() {
                self.not_made().await?;
            }
            match logins.wait_for(std::slice::from_ref(&missing), self.sink).await? {
                Came::All => renewals = 0,
                came => return Err(Kept::Waited(came, vec![missing])),
            }
        }
    }

    /// Asks the server to run the tool, once, or about the task that the call has become. Pages that it wants opened
    /// meanwhile are shown, and waited for when the request waits.
    pub(super) async fn once(
        &self,
        access: Option<&Access>,
        arguments: &Map<String, Value>,
        after: Option<&PageRequired>,
        patience: &Patience,
        task: &OpenTask,
    ) -> Result<Result<Bytes, Error>, Kept> {
        // Nobody may make it twice who cannot know what became of it.
        let (place, repeatable) = (self.place, self.tool.read_only || self.tool.idempotent);
        let calling = || Step::Calling { place, repeatable };
        if task.get().is_some() {
            // It was made; only its end is asked for.
        } else if repeatable {
            self.sink.step(calling).await?;
        } else {
            self.sink.step_for_good(calling).await?;
        }
        self.sent.store(true, Ordering::Relaxed);
        let follow = Following::new(self, patience, task);
        let parts = &self.logins.parts;
        let server = self.logins.server(&self.server.spec, access);
        let asking = async {
            if let Some(task) = task.get() {
                return parts.tools.resume_task(&server, self.tool, &task, &follow).await;
            }
            match after {
                None => parts.tools.call(&server, self.tool, arguments, &follow).await,
                Some(required) => {
                    parts.tools.call_again(&server, self.tool, arguments, required, &follow).await
                }
            }
        };
        let answer = tokio::select! {
            answer = asking => answer,
            () = follow.stopping() => {
                self.logins.hand_over(self.sink)?;
                return Err(Kept::Waited(Came::Stopping, follow.shown()));
            }
        };
        let shown = follow.shown();
        match &answer {
            Err(Error::Timeout { .. }) if !shown.is_empty() => {
                return Err(Kept::Waited(Came::TimedOut, shown));
            }
            Ok(_) => {
                for page in &shown {
                    self.logins.show_authorized(page, self.sink).await?;
                }
            }
            Err(_) => {}
        }
        Ok(answer)
    }

    /// As [`Calling::not_made`], for a call that is no task: a task that wants something goes on.
    async fn not_made_unless(&self, task: &OpenTask) -> Result<(), Gone> {
        if task.get().is_some() { Ok(()) } else { self.not_made().await }
    }

    /// The server has refused to carry it out.
    pub(super) async fn not_made(&self) -> Result<(), Gone> {
        self.sent.store(false, Ordering::Relaxed);
        let place = self.place;
        self.sink.step(|| Step::NotMade { place }).await
    }

    fn unknown(&self, error: &crate::connections::Error) -> Kept {
        tracing::error!(mcp.host = self.server.spec.host(), %error, "a connection could not be looked up");
        Kept::Unknown
    }
}

fn must_act(host: &str, begun: &str, why: Option<String>) -> String {
    let why = why.unwrap_or_else(|| "The user has been shown a link.".to_owned());
    format!("{host} wants the user to act first. {begun} {}", text::one_line(&why, 300))
}

fn outcome(error: &Error) -> Outcome {
    match error {
        Error::Unauthorized(_) | Error::PageRequired(_) => Outcome::Unauthorized,
        Error::Timeout { .. } => Outcome::Timeout,
        Error::Refused(_)
        | Error::Unreachable { .. }
        | Error::Status { .. }
        | Error::Rpc { .. }
        | Error::Protocol(_)
        | Error::TooLarge { .. }
        | Error::TaskLost { .. }
        | Error::TaskCancelled { .. }
        | Error::InputRequired(_) => Outcome::Failed,
    }
}

/// What the model and the reader are told.
fn explain(error: &Error, host: &str) -> String {
    match error {
        Error::Unauthorized(challenge) if challenge.status == StatusCode::FORBIDDEN.as_u16() => {
            format!("{host} does not allow this call with the credential it was given.")
        }
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
        Error::TaskLost { reason } => {
            format!(
                "The call went on as a task of {host}, and its outcome is unknown: {reason}. Do not repeat it blindly."
            )
        }
        Error::Status { .. }
        | Error::Protocol(_)
        | Error::PageRequired(_)
        | Error::TaskCancelled { .. }
        | Error::InputRequired(_) => {
            format!("{host}: {error}.")
        }
    }
}
