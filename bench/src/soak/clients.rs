//! The honest clients of a soak: they store runs that call a tool, read them in every way, and look at each one's end.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::{Value, json};

use super::peers::Ledger;
use super::visitor::{self, Event, Reading};

/// Clients at a time.
const CLIENTS: usize = 6;
/// What a client waits between two requests.
const REST: Duration = Duration::from_millis(150);
/// How long a run that was acknowledged may take to end once the faults are over.
const ENDING: Duration = Duration::from_secs(120);

/// One run whose id the gateway gave.
struct Acknowledged {
    id: String,
    /// What somebody who followed it from the start saw, one connection behind the other.
    followed: Option<Vec<Event>>,
}

/// The runs of a soak.
#[derive(Default)]
pub struct Journal {
    acknowledged: BTreeMap<String, Acknowledged>,
    /// Tokens of requests that were answered with an error and no id.
    refused: Vec<String>,
    /// Requests to which no answer came.
    pub unanswered: usize,
}

/// What became of the runs.
#[derive(Default, Debug)]
pub struct Outcome {
    pub acknowledged: usize,
    pub completed: usize,
    pub refused: usize,
    pub unanswered: usize,
    /// Not there any more, or without an end.
    pub lost: usize,
    /// Their tool was executed more than once.
    pub twice: usize,
    /// Refused, and carried out all the same.
    pub refused_and_done: usize,
    /// Events with gaps, or without one last end.
    pub gaps: usize,
    /// Events that were other ones when they were read again.
    pub changed: usize,
    /// A line for each of the first wrong runs.
    pub examples: Vec<String>,
}

/// What all clients share.
pub struct Clients {
    pub ports: Vec<u16>,
    pub key: String,
    pub mcp: u16,
    pub journal: Rc<RefCell<Journal>>,
    pub is_over: Rc<Cell<bool>>,
}

impl Clients {
    /// Starts all clients; they end soon after `is_over`.
    pub fn start(self: &Rc<Self>) -> Vec<tokio::task::JoinHandle<()>> {
        (0..CLIENTS)
            .map(|client| {
                let all = Rc::clone(self);
                tokio::task::spawn_local(async move {
                    for number in 0.. {
                        if all.is_over.get() {
                            return;
                        }
                        all.visit(client, number).await;
                        tokio::time::sleep(REST).await;
                    }
                })
            })
            .collect()
    }

    /// One request, read in a way that its number decides.
    async fn visit(self: &Rc<Self>, client: usize, number: usize) {
        let token = format!("t{client}-{number}");
        let port = self.ports[(client + number) % self.ports.len()];
        let body = self.request(&token, number);
        let Ok(response) = visitor::send(port, Method::POST, "/v1/chat/completions", &self.key, &body).await
        else {
            self.journal.borrow_mut().unanswered += 1;
            return;
        };
        let id = response.headers().get("x-run-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
        let Some(id) = id else {
            if !response.status().is_success() {
                self.journal.borrow_mut().refused.push(token);
            }
            return;
        };
        let run = Acknowledged { id: id.clone(), followed: None };
        self.journal.borrow_mut().acknowledged.insert(token.clone(), run);
        if number.is_multiple_of(4) {
            let all = Rc::clone(self);
            tokio::task::spawn_local(async move { all.follow(token, id, number).await });
        }
        let reading = match number % 5 {
            0 => Reading::UntilPiece(2),
            1 => Reading::Slowly(Duration::from_millis(200)),
            _ => Reading::Whole,
        };
        visitor::read(response, reading).await;
    }

    fn request(&self, token: &str, number: usize) -> Value {
        let (chunks, delay) = [(5, 0), (40, 50), (200, 5)][number % 3];
        json!({
            "model": "mock/mock-model", "stream": true, "store": true,
            "messages": [{ "role": "user", "content": format!("soak {token} {chunks} {delay}") }],
            "tools": [{
                "type": "mcp", "server_label": "soak", "server_url": format!("http://127.0.0.1:{}/mcp/1", self.mcp),
            }],
        })
    }

    /// Follows a run to its end, through every connection that breaks.
    async fn follow(&self, token: String, id: String, number: usize) {
        let (mut seen, mut at) = (Vec::<Event>::new(), number);
        let deadline = Instant::now() + ENDING;
        while Instant::now() < deadline {
            let last = seen.last().map(|event| event.0);
            seen.extend(visitor::events(self.ports[at % self.ports.len()], &id, &self.key, last).await);
            if visitor::is_whole(&seen) {
                break;
            }
            at += 1;
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        if let Some(run) = self.journal.borrow_mut().acknowledged.get_mut(&token) {
            run.followed = Some(seen);
        }
    }

    /// How long a request takes to be answered well again, at most `limit`.
    ///
    /// # Errors
    /// What was answered instead.
    pub async fn recovery(&self, name: &str, limit: Duration) -> Result<Duration, String> {
        let started = Instant::now();
        for attempt in 0.. {
            let body = self.request(&format!("probe-{name}-{}-{attempt}", started.elapsed().as_nanos()), 0);
            let mut problem = String::new();
            for port in &self.ports {
                let sent = visitor::send(*port, Method::POST, "/v1/chat/completions", &self.key, &body).await;
                let text = match sent {
                    Ok(response) => visitor::text(response).await,
                    Err(problem) => Err(problem),
                };
                match text {
                    Ok(text) if text.contains("\"finish_reason\":\"stop\"") => {}
                    Ok(text) | Err(text) => problem = text,
                }
            }
            if problem.is_empty() {
                return Ok(started.elapsed());
            }
            if started.elapsed() > limit {
                let shown: String = problem.chars().take(300).collect();
                return Err(format!("{name}: no good answer after {} s: {shown}", limit.as_secs()));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Err("unreachable: attempts do not end".to_owned())
    }

    /// Looks at every run that was acknowledged or refused.
    pub async fn outcome(&self, ledger: &RefCell<Ledger>) -> Outcome {
        let mut outcome = Outcome { unanswered: self.journal.borrow().unanswered, ..Outcome::default() };
        let deadline = Instant::now() + ENDING;
        let runs: Vec<(String, String)> = {
            let journal = self.journal.borrow();
            journal.acknowledged.iter().map(|(token, run)| (token.clone(), run.id.clone())).collect()
        };
        outcome.acknowledged = runs.len();
        for (token, id) in &runs {
            self.check(token, id, deadline, &mut outcome).await;
        }
        let ledger = ledger.borrow();
        outcome.twice = ledger.executed.values().filter(|count| **count > 1).count();
        for (token, _) in ledger.executed.iter().filter(|(_, count)| **count > 1) {
            outcome.example(format!("executed twice: {token}"));
        }
        let journal = self.journal.borrow();
        outcome.refused = journal.refused.len();
        for token in journal.refused.iter().filter(|token| ledger.executed.contains_key(*token)) {
            outcome.refused_and_done += 1;
            outcome.example(format!("refused and carried out: {token}"));
        }
        outcome
    }

    async fn check(&self, token: &str, id: &str, deadline: Instant, outcome: &mut Outcome) {
        let port = self.ports[0];
        let status = loop {
            let answer = visitor::get(port, &format!("/v1/runs/{id}"), &self.key).await;
            if let Ok((200, text)) = &answer
                && let Ok(run) = serde_json::from_str::<Value>(text)
                && !run["ended_at"].is_null()
            {
                break Some(run["status"].as_str().unwrap_or_default().to_owned());
            }
            if Instant::now() > deadline {
                let shown: String = format!("{answer:?}").chars().take(160).collect();
                outcome.example(format!("lost: {token} {id}: {shown}"));
                break None;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        };
        match status.as_deref() {
            None => {
                outcome.lost += 1;
                return;
            }
            Some("completed") => outcome.completed += 1,
            Some(_) => {}
        }
        let events = visitor::events(port, id, &self.key, None).await;
        if !visitor::is_whole(&events) {
            outcome.gaps += 1;
            outcome.example(format!("events with gaps: {token} {id}"));
        }
        let followed =
            self.journal.borrow_mut().acknowledged.get_mut(token).and_then(|run| run.followed.take());
        if followed.is_some_and(|followed| followed != events[..followed.len().min(events.len())]) {
            outcome.changed += 1;
            outcome.example(format!("followed other events than are kept: {token} {id}"));
        }
    }
}

impl Outcome {
    /// Names a wrong run, as long as there are few.
    fn example(&mut self, text: String) {
        if self.examples.len() < 20 {
            self.examples.push(text);
        }
    }
}
