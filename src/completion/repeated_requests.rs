//! Requests that a client sends again because it has not got its answer: they join the run of the first try, so that no
//! tool is called twice. In this process alone: a run that is to outlive it is stored.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

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
/// Runs of the same request that are known; of more, the oldest is forgotten.
const MOST_ALIKE: usize = 16;

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
    /// The runs of each request, the oldest first: several clients may ask the same.
    runs: HashMap<[u8; 32], Vec<KnownRun>>,
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
    Stored(StoredTry),
}

impl FirstTry {
    fn id(&self) -> &str {
        match self {
            FirstTry::Shared(run) => &run.run_id,
            FirstTry::Stored(stored) => &stored.run_id,
        }
    }
}

/// A stored run that an earlier try of a request begins, or has begun.
#[derive(Clone)]
pub struct StoredTry {
    pub run_id: String,
    /// Set once the run is among those of this process; closed before that when it never will be.
    has_begun: watch::Receiver<bool>,
}

impl StoredTry {
    /// Waits until the run has begun; false when it never does.
    pub async fn has_begun(mut self) -> bool {
        self.has_begun.wait_for(|has_begun| *has_begun).await.is_ok()
    }
}

/// The right to begin the stored run of a request: later tries wait for it. Dropped before the run has begun, it is
/// forgotten.
pub struct StoredTryGuard {
    registry: RepeatableRuns,
    key: [u8; 32],
    run_id: String,
    has_begun: watch::Sender<bool>,
}

impl StoredTryGuard {
    /// The run has begun: later tries join it.
    pub fn begun(self) {
        self.has_begun.send_replace(true);
    }
}

impl Drop for StoredTryGuard {
    fn drop(&mut self) {
        if !*self.has_begun.borrow() {
            self.registry.forget_stored(&self.key, &self.run_id);
        }
    }
}

/// The outcome of an earlier try of a request that is to be stored.
pub enum RepeatedStored {
    /// The earlier try begins this run, or has begun it.
    Earlier(StoredTry),
    /// Its `Idempotency-Key` was used for another request.
    Reused,
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
            && let Some((body, run)) = known.first_shared(&repeat.key)
        {
            if body != repeat.body {
                return Err(Repeated::Reused);
            }
            match run.join() {
                Some(viewer) => return Err(Repeated::Joined(run, viewer)),
                None if run.is_abandoned() => {}
                None => return Err(Repeated::Lost(lost(&run))),
            }
        }
        let budget = Arc::clone(&self.0.budget);
        let (run, viewer) = SharedRun::begin(budget, repeat.key, run_id.to_owned(), now / 1000);
        let guard = RunEndGuard { run: Arc::clone(&run), registry: self.clone() };
        let forgotten = known.add(repeat, FirstTry::Shared(run));
        drop(known);
        // Its events are let go outside the lock.
        drop(forgotten);
        Ok((guard, viewer))
    }

    /// Takes the right to begin the stored run of a request, unless an earlier try has it.
    ///
    /// # Errors
    /// [`RepeatedStored`] says what an earlier try has come to.
    pub fn begin_stored(&self, repeat: &RepeatKey, run_id: &str) -> Result<StoredTryGuard, RepeatedStored> {
        let now = self.0.clock.unix_milliseconds();
        let mut known = self.known();
        known.forget(now);
        if repeat.may_join
            && let Some((body, stored)) = known.last_stored(&repeat.key)
        {
            let is_same = body == repeat.body;
            return Err(if is_same { RepeatedStored::Earlier(stored) } else { RepeatedStored::Reused });
        }
        let (has_begun, watching) = watch::channel(false);
        let stored = StoredTry { run_id: run_id.to_owned(), has_begun: watching };
        let forgotten = known.add(repeat, FirstTry::Stored(stored));
        let end = Forgotten { at: now + STORED_KNOWN, key: repeat.key, run_id: run_id.to_owned() };
        known.stored.push_back(end);
        while known.stored.len() > MOST_ENDED
            && let Some(old) = known.stored.pop_front()
        {
            known.remove(&old);
        }
        drop(known);
        drop(forgotten);
        Ok(StoredTryGuard { registry: self.clone(), key: repeat.key, run_id: run_id.to_owned(), has_begun })
    }

    /// Forgets a stored run, so that the next try of its request begins another one.
    pub fn forget_stored(&self, key: &[u8; 32], run_id: &str) {
        let forgotten = Forgotten { at: 0, key: *key, run_id: run_id.to_owned() };
        let mut known = self.known();
        known.remove(&forgotten);
        known.stored.retain(|other| other.run_id != run_id);
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

    /// Adds a run of a request; gives the one that is forgotten for it.
    fn add(&mut self, repeat: &RepeatKey, run: FirstTry) -> Option<KnownRun> {
        let alike = self.runs.entry(repeat.key).or_default();
        alike.push(KnownRun { body: repeat.body, run });
        (alike.len() > MOST_ALIKE).then(|| alike.remove(0))
    }

    /// The run that another try of a request is meant for: one whose client has left without its end, rather than one that
    /// has a client, or whose client has read it; of several, the last one.
    fn first_shared(&self, key: &[u8; 32]) -> Option<([u8; 32], Arc<SharedRun>)> {
        let shared = self.runs.get(key)?.iter().rev().filter_map(|known| match &known.run {
            FirstTry::Shared(run) => Some((known.body, run)),
            FirstTry::Stored(_) => None,
        });
        shared.min_by_key(|(_, run)| run.rank_for_retry()).map(|(body, run)| (body, Arc::clone(run)))
    }

    /// The last stored run of a request.
    fn last_stored(&self, key: &[u8; 32]) -> Option<([u8; 32], StoredTry)> {
        self.runs.get(key)?.iter().rev().find_map(|known| match &known.run {
            FirstTry::Stored(stored) => Some((known.body, stored.clone())),
            FirstTry::Shared(_) => None,
        })
    }

    /// Forgets a run.
    fn remove(&mut self, old: &Forgotten) {
        let Some(alike) = self.runs.get_mut(&old.key) else { return };
        alike.retain(|known| known.run.id() != old.run_id);
        if alike.is_empty() {
            self.runs.remove(&old.key);
        }
    }

    fn find_shared(&self, old: &Forgotten) -> Option<Arc<SharedRun>> {
        self.runs.get(&old.key)?.iter().find_map(|known| match &known.run {
            FirstTry::Shared(run) if run.run_id == old.run_id => Some(Arc::clone(run)),
            FirstTry::Shared(_) | FirstTry::Stored(_) => None,
        })
    }
}

fn lost(run: &SharedRun) -> RunError {
    let message = "this request was sent before, and its answer is no longer here";
    let error = ErrorBody::new(ErrorKind::InvalidRequest, Some("first_try_lost"), message).into_value();
    run.called.explain(RunError { status: 409, error, retry_after: None, login: None })
}
