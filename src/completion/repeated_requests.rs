//! Requests that a client sends again because it has not got its answer: they join the run of the first try, so that no
//! tool is called twice. In this process alone: a run that is to outlive it is stored.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::event::RunError;
use super::shared_run::{SharedRun, SharedRunBudget, SharedViewer};
use crate::clock::Clock;
use crate::memory_budget::MemoryBudget;
use crate::openai::{ErrorBody, ErrorKind};

/// How long the end of a run is known after it, in milliseconds: ten minutes.
pub(super) const END_KNOWN: i64 = 600_000;
/// How long the id of a stored run is known under its request, in milliseconds: as long as a run may take, and longer.
const STORED_KNOWN: i64 = 2 * 3_600_000;
/// Runs that have ended and are known; of more, those that ended first are forgotten.
const MOST_ENDED: usize = 4096;
/// What makes two requests the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RepeatKey {
    /// A digest of who asks, and of its `Idempotency-Key` or of all that it asks.
    pub key: [u8; 32],
    /// A digest of all that is asked.
    pub body: [u8; 32],
    /// It may be another try of the same request. Otherwise it is a new request, whatever was asked before.
    pub may_join: bool,
}

/// The runs of this process that can be asked for again. Cheap to clone.
#[derive(Clone)]
pub struct RepeatableRuns(Arc<RepeatableState>);

struct RepeatableState {
    clock: Clock,
    known: Mutex<KnownRuns>,
    budget: Arc<SharedRunBudget>,
}

#[derive(Default)]
struct KnownRuns {
    runs: HashMap<[u8; 32], KnownRun>,
    /// Keys and ids of runs, with the time at which they are forgotten, the next one first.
    shared: VecDeque<Forgotten>,
    stored: VecDeque<Forgotten>,
}

struct Forgotten {
    at: i64,
    key: [u8; 32],
    run_id: String,
}

struct KnownRun {
    body: [u8; 32],
    run: FirstTry,
}

#[derive(Clone)]
enum FirstTry {
    Shared(Arc<SharedRun>),
    Stored(String),
}

impl FirstTry {
    fn id(&self) -> &str {
        match self {
            FirstTry::Shared(run) => &run.run_id,
            FirstTry::Stored(id) => id,
        }
    }
}

/// Ends a run that a task carries out when the task is over, also when it breaks off.
pub struct RunEndGuard {
    pub run: Arc<SharedRun>,
    registry: RepeatableRuns,
}

impl Drop for RunEndGuard {
    fn drop(&mut self) {
        let keeps = self.run.end();
        self.registry.end(&self.run, keeps);
    }
}

/// What an earlier try of a request has come to.
pub enum Repeated {
    /// It has been begun by this run.
    Joined(Arc<SharedRun>, SharedViewer),
    /// It has called tools, and its answer cannot be read any more.
    Lost(RunError),
    /// Its `Idempotency-Key` was used for another request.
    Reused,
}

impl RepeatableRuns {
    /// No runs yet.
    pub fn new(clock: Clock, memory: &MemoryBudget) -> Self {
        let (known, budget) = (Mutex::default(), Arc::new(SharedRunBudget::new(memory)));
        RepeatableRuns(Arc::new(RepeatableState { clock, known, budget }))
    }

    fn known(&self) -> MutexGuard<'_, KnownRuns> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins the run of a request, unless an earlier try has begun it.
    ///
    /// # Errors
    /// [`Repeated`] says what an earlier try has come to.
    pub fn begin(&self, repeat: &RepeatKey, run_id: &str) -> Result<(RunEndGuard, SharedViewer), Repeated> {
        let now = self.0.clock.unix_milliseconds();
        let mut known = self.known();
        known.forget(now);
        if repeat.may_join
            && let Some(KnownRun { body, run: FirstTry::Shared(run) }) = known.runs.get(&repeat.key)
        {
            if *body != repeat.body {
                return Err(Repeated::Reused);
            }
            match run.join() {
                Some(viewer) => return Err(Repeated::Joined(Arc::clone(run), viewer)),
                None if run.is_abandoned() => {}
                None => return Err(Repeated::Lost(lost(run))),
            }
        }
        let budget = Arc::clone(&self.0.budget);
        let (run, viewer) = SharedRun::begin(budget, repeat.key, run_id.to_owned(), now / 1000);
        let guard = RunEndGuard { run: Arc::clone(&run), registry: self.clone() };
        let run = FirstTry::Shared(run);
        let replaced = known.runs.insert(repeat.key, KnownRun { body: repeat.body, run });
        drop(known);
        // Its events are let go outside the lock.
        drop(replaced);
        Ok((guard, viewer))
    }

    /// The stored run that an earlier try has begun.
    pub fn find_stored(&self, repeat: &RepeatKey) -> Option<String> {
        let mut known = self.known();
        known.forget(self.0.clock.unix_milliseconds());
        match known.runs.get(&repeat.key)? {
            KnownRun { body, run: FirstTry::Stored(id) } if repeat.may_join && *body == repeat.body => {
                Some(id.clone())
            }
            _ => None,
        }
    }

    /// Takes note of the stored run of a request.
    pub fn note_stored(&self, repeat: &RepeatKey, run_id: &str) {
        let at = self.0.clock.unix_milliseconds() + STORED_KNOWN;
        let mut known = self.known();
        let run = FirstTry::Stored(run_id.to_owned());
        let replaced = known.runs.insert(repeat.key, KnownRun { body: repeat.body, run });
        known.stored.push_back(Forgotten { at, key: repeat.key, run_id: run_id.to_owned() });
        while known.stored.len() > MOST_ENDED
            && let Some(old) = known.stored.pop_front()
        {
            known.remove(&old);
        }
        drop(known);
        drop(replaced);
    }

    /// A run has ended; `keeps`: it has called tools, so that its end is to be known.
    fn end(&self, run: &SharedRun, keeps: bool) {
        let now = self.0.clock.unix_milliseconds();
        let mut known = self.known();
        known.forget(now);
        let end = Forgotten { at: now + END_KNOWN, key: run.key, run_id: run.run_id.clone() };
        if !keeps {
            known.remove(&end);
            return;
        }
        known.shared.push_back(end);
        while known.shared.len() > MOST_ENDED
            && let Some(old) = known.shared.pop_front()
        {
            known.remove(&old);
        }
        if self.0.budget.is_full() {
            // The calls of those that ended first stay known, and their events make room.
            let ended: Vec<Arc<SharedRun>> =
                known.shared.iter().filter_map(|old| known.find_shared(old)).collect();
            drop(known);
            for old in ended {
                if !self.0.budget.is_full() {
                    break;
                }
                old.forget_events();
            }
        }
    }
}

impl KnownRuns {
    fn forget(&mut self, now: i64) {
        while let Some(old) = self.shared.pop_front_if(|old| old.at <= now) {
            self.remove(&old);
        }
        while let Some(old) = self.stored.pop_front_if(|old| old.at <= now) {
            self.remove(&old);
        }
    }

    /// Forgets a run, unless a later one has its key.
    fn remove(&mut self, old: &Forgotten) {
        if self.runs.get(&old.key).is_some_and(|known| known.run.id() == old.run_id) {
            self.runs.remove(&old.key);
        }
    }

    fn find_shared(&self, old: &Forgotten) -> Option<Arc<SharedRun>> {
        match &self.runs.get(&old.key)?.run {
            FirstTry::Shared(run) if run.run_id == old.run_id => Some(Arc::clone(run)),
            FirstTry::Shared(_) | FirstTry::Stored(_) => None,
        }
    }
}

fn lost(run: &SharedRun) -> RunError {
    let message = "this request was sent before, and its answer is no longer here";
    let error = ErrorBody::new(ErrorKind::InvalidRequest, Some("first_try_lost"), message).into_value();
    run.called.explain(RunError { status: 409, error, retry_after: None, login: None })
}
