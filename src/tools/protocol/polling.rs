//! Asking about a task until it is over (extension `io.modelcontextprotocol/tasks`).
//!
//! A question is safe to repeat, so what passes is waited out; the tool is never called again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use super::client::quiet;
use super::deadline::Deadline;
use super::input::{self, Answers, Ending, Request, Response};
use super::interruption::{MOST_PAGES, open};
use super::link::Rejection;
use super::message::{RpcError, code, harmless};
use super::modern::{self, Asked};
use super::peer::Peer;
use super::request::Ask;
use super::task::{self, Report, State, lost};
use super::{Core, Follow};
use crate::tools::{Error, Progress, TaskRef, Tool};

/// Time for one question about a task.
const ANSWER: Duration = Duration::from_secs(20);
/// Time for a message whose answer does not matter.
const COURTESY: Duration = Duration::from_secs(5);
/// The pause between two questions: at least, at most, and when the server names none.
const SHORTEST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(30);
const UNNAMED: Duration = Duration::from_secs(1);
/// Pauses grow to twice their length over so many questions.
const GROWTH: u32 = 20;
/// Things that one task may ask for in its life.
const MOST_ASKED: usize = 200;

/// A task that is waited for. Dropped before the task is over, it tells the server that nobody waits any more, unless
/// somebody else goes on with it.
pub(crate) struct Polling<'a> {
    core: &'a Arc<Core>,
    peer: Peer,
    tool: &'a Tool,
    task: &'a TaskRef,
    follow: Follow<'a>,
    deadline: Deadline,
    pace: Pace,
    /// Why the last questions have not been answered.
    failure: Option<Error>,
    /// What was asked for, what is answered, and whether the server knows: it repeats itself until it has taken note.
    dealt_with: BTreeMap<String, (Response, bool)>,
    pages: u32,
    /// How long a person has for a page, while the task waits for nothing else.
    patience: Option<Deadline>,
    said: Option<String>,
    sayings: f64,
    /// Nothing is to be cancelled.
    settled: bool,
}

/// How often is asked.
#[derive(Debug, Default)]
struct Pace {
    named_ms: Option<u64>,
    /// Questions in a row that found it at work, and that were not answered.
    unchanged: u32,
    unanswered: u32,
}

impl Pace {
    fn pause(&self) -> Duration {
        let named = self.named_ms.map_or(UNNAMED, Duration::from_millis).clamp(SHORTEST, LONGEST);
        let grown = named + named * self.unchanged.min(GROWTH) / GROWTH;
        (grown * 2_u32.pow(self.unanswered.min(8))).min(LONGEST)
    }
}

/// An answer, or none this time.
enum Heard {
    Result(Bytes),
    Nothing(Error),
    /// The server does not want to know: it has no such task, or nothing was asked for.
    Refused(Rejection),
}

impl<'a> Polling<'a> {
    pub(crate) fn new(
        core: &'a Arc<Core>,
        peer: Peer,
        tool: &'a Tool,
        task: &'a TaskRef,
        bound: Duration,
        follow: Follow<'a>,
    ) -> Self {
        Polling {
            core,
            peer,
            tool,
            task,
            follow,
            deadline: task.deadline(bound),
            pace: Pace { named_ms: task.poll_ms, ..Pace::default() },
            failure: None,
            dealt_with: BTreeMap::new(),
            pages: 0,
            patience: None,
            said: None,
            sayings: 0.0,
            settled: false,
        }
    }

    /// The raw result of the call. With `pause`, the first question waits like the others.
    ///
    /// # Errors
    /// What became of the call instead. After [`Error::Unauthorized`], and whatever else another credential may cure,
    /// the task is not over: it can be gone on with, and without such a credential not even be cancelled.
    pub(crate) async fn finish(mut self, pause: bool) -> Result<Bytes, Error> {
        let ended = self.ask_on(pause).await;
        let may_go_on =
            matches!(ended, Err(Error::Unauthorized(_) | Error::Status { .. } | Error::Protocol(_)));
        if !self.task.is_over() && !may_go_on {
            self.give_up();
        }
        self.settled = true;
        ended
    }

    async fn ask_on(&mut self, mut pause: bool) -> Result<Bytes, Error> {
        loop {
            if pause {
                self.wait().await?;
            }
            pause = true;
            let heard = match self.ask(Ask::Task { id: &self.task.id }).await? {
                Heard::Result(result) => task::read(&result, &self.task.id).inspect_err(|_| self.give_up()),
                Heard::Nothing(failure) => {
                    self.miss(failure);
                    continue;
                }
                Heard::Refused(rejection) => return Err(self.refused(rejection)),
            };
            self.task.count_answer();
            let Report { state, poll_ms, message } = heard?;
            self.pace = Pace { named_ms: poll_ms.or(self.pace.named_ms), unanswered: 0, ..self.pace };
            self.failure = None;
            if !matches!(state, State::Working | State::Waiting(_)) {
                self.task.end();
                return match state {
                    State::Completed(result) => final_result(result),
                    State::Failed(error) => Err(error.into_error()),
                    _ => Err(Error::TaskCancelled { message }),
                };
            }
            self.say(message);
            match state {
                State::Waiting(requests) => self.deal_with(requests).await?,
                _ => self.pace.unchanged += 1,
            }
        }
    }

    /// Waits until it is time to ask, and learns which credential is right then.
    async fn wait(&mut self) -> Result<(), Error> {
        if let Err(late) = self.deadline.within(sleep(self.pace.pause())).await {
            return Err(match self.failure.take() {
                Some(failure) => lost(&format!("it cannot be asked about: {failure}")),
                None => late,
            });
        }
        if let Some(server) = self.follow.server().await {
            self.peer = Peer::new(&server)?;
        }
        Ok(())
    }

    async fn ask(&self, ask: Ask<'_>) -> Result<Heard, Error> {
        match modern::ask(self.core, &self.peer, ask, &mut Deadline::new(ANSWER), &quiet).await {
            Ok(Asked::Result(result)) => Ok(Heard::Result(result)),
            Ok(Asked::Rejected(rejection)) if passes(&rejection) => Ok(Heard::Nothing(rejection.into())),
            Ok(Asked::Rejected(rejection)) => Ok(Heard::Refused(rejection)),
            Err(error @ (Error::Unreachable { .. } | Error::Timeout { .. })) => Ok(Heard::Nothing(error)),
            Err(Error::Refused(refusal)) => Err(lost(&refusal.to_string())),
            Err(error) => Err(error),
        }
    }

    fn miss(&mut self, failure: Error) {
        let (host, tool) = (self.peer.uri.host(), &self.tool.name);
        tracing::debug!(mcp.host = host, mcp.tool = tool, error = %failure, "a task could not be asked about");
        self.pace.unanswered += 1;
        self.failure = Some(failure);
    }

    /// What a refused question means.
    fn refused(&self, rejection: Rejection) -> Error {
        let gone = matches!(rejection.status.as_u16(), 404 | 410);
        match &rejection.rpc {
            // Also a server that has been replaced by one that knows no tasks.
            rpc if gone || rpc.as_ref().is_some_and(denies) => {
                self.task.end();
                lost("the server does not know it any more")
            }
            Some(rpc) => {
                let said = task::without_id(&rpc.message, &self.task.id);
                lost(&format!("asked about it, the server says {said} ({})", rpc.code))
            }
            None => rejection.into(),
        }
    }

    fn say(&mut self, message: Option<String>) {
        if message.is_none() || message == self.said {
            return;
        }
        self.said.clone_from(&message);
        self.sayings += 1.0;
        self.follow.progress(Progress { progress: self.sayings, total: None, message });
    }

    /// Answers what the task asks for: a page is shown, a form is cancelled, and nothing else can be given.
    async fn deal_with(&mut self, requests: BTreeMap<String, Request>) -> Result<(), Error> {
        let mut answers = Answers { input_responses: BTreeMap::new(), request_state: None };
        let mut then = Ok(());
        for (key, Request { method, params }) in requests {
            if let Some((response, is_known)) = self.dealt_with.get(&key) {
                if !is_known {
                    answers.input_responses.insert(key, *response);
                }
                continue;
            }
            if self.dealt_with.len() >= MOST_ASKED {
                return Err(Error::InputRequired("it asks again and again".into()));
            }
            let asked = params.unwrap_or_default();
            let response = match &*method {
                "elicitation/create" if asked.is_page() && self.pages < MOST_PAGES => {
                    self.pages += 1;
                    let (response, outcome) = open(&asked, self.follow).await;
                    match outcome {
                        Ok(Some(patience)) => {
                            self.deadline.allow(patience);
                            self.patience = Some(Deadline::new(patience));
                        }
                        Ok(None) => {}
                        Err(error) => then = Err(error),
                    }
                    response
                }
                "elicitation/create" if asked.is_page() || asked.is_form() => Response::Cancel,
                _ => return Err(Error::InputRequired(harmless(&method))),
            };
            self.dealt_with.insert(key.clone(), (response, false));
            answers.input_responses.insert(key, response);
        }
        if answers.input_responses.is_empty() {
            self.pace.unchanged += 1;
            return match self.patience.as_ref().filter(|patience| patience.left().is_zero()) {
                Some(patience) => Err(patience.error()),
                None => Ok(()),
            };
        }
        self.pace.unchanged = 0;
        match self.ask(Ask::UpdateTask { id: &self.task.id, answers: &answers }).await? {
            // Asked for again with the next answer, and then sent again.
            Heard::Nothing(failure) => {
                self.miss(failure);
                return then;
            }
            // Whether it came too late or was not wanted, the task itself tells.
            Heard::Refused(Rejection { rpc: Some(rpc), .. }) if denies(&rpc) => {}
            Heard::Refused(rejection) => return Err(self.refused(rejection)),
            Heard::Result(_) => {}
        }
        for key in answers.input_responses.into_keys() {
            self.dealt_with.entry(key).and_modify(|(_, is_known)| *is_known = true);
        }
        then
    }

    /// The task is of no more use here.
    fn give_up(&self) {
        self.task.give_up();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (core, peer, id) = (Arc::clone(self.core), self.peer.clone(), self.task.id.clone());
            runtime.spawn(async move { cancel(&core, &peer, &id).await });
        }
    }
}

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        if !self.settled && !self.follow.keeps_task() {
            self.give_up();
        }
    }
}

/// Says that nobody waits for the task `id` any more.
pub(crate) async fn cancel(core: &Core, peer: &Peer, id: &str) {
    let mut deadline = Deadline::new(COURTESY);
    let error = match modern::ask(core, peer, Ask::CancelTask { id }, &mut deadline, &quiet).await {
        Ok(Asked::Result(_)) => return,
        Ok(Asked::Rejected(rejection)) => rejection.into(),
        Err(error) => error,
    };
    tracing::debug!(mcp.host = peer.uri.host(), %error, "a task could not be cancelled");
}

/// Whether the same question may be answered later.
fn passes(rejection: &Rejection) -> bool {
    let busy = matches!(rejection.status.as_u16(), 408 | 425 | 429 | 500..=599);
    rejection.rpc.as_ref().map_or(busy, |rpc| !denies(rpc) && (busy || rpc.code == code::INTERNAL))
}

/// Whether the server says that there is no such task, or no tasks.
fn denies(rpc: &RpcError) -> bool {
    matches!(rpc.code, code::INVALID_PARAMS | code::METHOD_NOT_FOUND)
}

/// A task's result is the call's, and not once more a promise of one.
fn final_result(result: Bytes) -> Result<Bytes, Error> {
    match input::read(&result).map_err(|error| lost(&error.to_string()))? {
        Ending::Complete => Ok(result),
        Ending::Again(_) | Ending::Task(_) => Err(lost("its result is none")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_the_servers_within_bounds_and_grow_a_little() {
        let pause =
            |named_ms, unchanged, unanswered| Pace { named_ms, unchanged, unanswered }.pause().as_millis();
        assert_eq!(pause(None, 0, 0), 1000);
        assert_eq!(pause(Some(0), 0, 0), 200);
        assert_eq!(pause(Some(u64::MAX), u32::MAX, u32::MAX), 30_000);
        assert_eq!(pause(Some(5000), 0, 0), 5000);
        assert_eq!(pause(Some(5000), 1, 0), 5250);
        assert_eq!(pause(Some(5000), 1000, 0), 10_000);
        assert_eq!(
            [0, 1, 2, 3, 100].map(|missed| pause(Some(1000), 0, missed)),
            [1000, 2000, 4000, 8000, 30_000]
        );
    }
}
