//! A run that is not kept, and that its client may ask for again: when the client leaves, calls of tools that were begun go to
//! their end, and the run waits for a repetition of the request, which reads it from the beginning.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::called_tools::CalledTools;
use super::event::RunEvent;
use crate::memory_budget::{MemoryBudget, MemoryReservation};

/// Events that the viewer furthest ahead may be behind, so that a slow viewer slows the run down.
const EVENTS_AHEAD: usize = 64;
/// Most bytes of events of one run that can be read again.
const MOST_BYTES: usize = 4 << 20;

/// All such runs together take at most one part in so many of the process's memory.
const PART_TOGETHER: usize = 8;
/// How long a run without a viewer waits for another try of its request before it asks the model or calls a tool again.
const UNWATCHED: Duration = Duration::from_secs(600);
/// Runs without a viewer at a time.
const MOST_DETACHED: usize = 256;

/// The run ends: its last viewer left before it called a tool.
#[derive(Debug)]
pub struct RunAbandoned;

/// The bounds that all shared runs have together, counted as a part of the process's memory.
pub struct SharedRunBudget {
    memory: MemoryReservation,
    most: usize,
    detached: AtomicUsize,
}

impl SharedRunBudget {
    /// Nothing so far.
    pub fn new(budget: &MemoryBudget) -> Self {
        let (memory, most) = (budget.reserve(), budget.limit() / PART_TOGETHER);
        SharedRunBudget { memory, most, detached: AtomicUsize::new(0) }
    }

    /// Whether the events are too many.
    pub fn is_full(&self) -> bool {
        self.memory.held() > self.most
    }

    /// Counts a run that goes on without a viewer, if there is room for one.
    fn detach(&self) -> bool {
        let more = |count: usize| (count < MOST_DETACHED).then_some(count + 1);
        self.detached.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn attach(&self) {
        self.detached.fetch_sub(1, Ordering::Relaxed);
    }

    fn add(&self, bytes: usize) {
        self.memory.grow_anyway(bytes);
    }

    fn remove(&self, bytes: usize) {
        self.memory.shrink(bytes);
    }
}

/// One such run.
pub struct SharedRun {
    /// What it is found by.
    pub key: [u8; 32],
    pub run_id: String,
    /// Unix seconds.
    pub created: i64,
    pub called: CalledTools,
    budget: Arc<SharedRunBudget>,
    state: Mutex<SharedState>,
    /// Changes with the state.
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct SharedState {
    events: VecDeque<Arc<RunEvent>>,
    /// The number of the first of `events`; larger than 0 when the run cannot be read from its beginning any more.
    first: usize,
    bytes: usize,
    /// Too large to be read again: what every viewer has read is dropped.
    is_cut: bool,
    /// The next event of each viewer.
    viewers: BTreeMap<u64, usize>,
    next_viewer: u64,
    has_called: bool,
    /// Its last viewer left before it called a tool: it ends, and nobody may join it.
    is_abandoned: bool,
    /// It goes on without a viewer.
    is_detached: bool,
    /// A viewer has read its last event.
    is_delivered: bool,
    is_over: bool,
    task: Option<AbortHandle>,
}

/// Reads a shared run from its beginning.
pub struct SharedViewer {
    run: Arc<SharedRun>,
    id: u64,
    next: usize,
    changed: watch::Receiver<()>,
}

impl SharedRun {
    /// A run that begins, with its first viewer.
    pub fn begin(
        budget: Arc<SharedRunBudget>,
        key: [u8; 32],
        run_id: String,
        created: i64,
    ) -> (Arc<Self>, SharedViewer) {
        let run = Arc::new(SharedRun {
            key,
            run_id,
            created,
            called: CalledTools::default(),
            budget,
            state: Mutex::default(),
            changed: watch::Sender::default(),
        });
        let viewer = run.viewer(&mut run.state());
        (run, viewer)
    }

    fn state(&self) -> MutexGuard<'_, SharedState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn viewer(self: &Arc<Self>, state: &mut SharedState) -> SharedViewer {
        let id = state.next_viewer;
        state.next_viewer += 1;
        state.viewers.insert(id, 0);
        SharedViewer { run: Arc::clone(self), id, next: 0, changed: self.changed.subscribe() }
    }

    /// The task that carries the run out.
    pub fn set_task(&self, task: AbortHandle) {
        let mut state = self.state();
        if state.is_abandoned {
            task.abort();
        }
        state.task = Some(task);
    }

    /// Another viewer; `None` when the run cannot be read from its beginning any more.
    pub fn join(self: &Arc<Self>) -> Option<SharedViewer> {
        let mut state = self.state();
        if state.is_abandoned || state.is_cut {
            return None;
        }
        if std::mem::take(&mut state.is_detached) {
            self.budget.attach();
        }
        Some(self.viewer(&mut state))
    }

    /// The run's rank among those of one request, for another try of it; the lowest is meant. First come runs that nobody
    /// reads and whose end nobody has read, then those that are being read, then those that were read to their end. A
    /// run that nobody may join comes last.
    pub fn rank_for_retry(&self) -> u8 {
        let state = self.state();
        match (state.is_abandoned, state.is_delivered, state.viewers.is_empty()) {
            (true, _, _) => 3,
            (false, false, true) => 0,
            (false, false, false) => 1,
            (false, true, _) => 2,
        }
    }

    /// Whether the run is ending because nobody saw it begin.
    pub fn is_abandoned(&self) -> bool {
        self.state().is_abandoned
    }

    /// Whether the next event is to wait, or the run to end.
    pub fn is_behind(&self) -> bool {
        let state = self.state();
        state.is_abandoned || state.is_behind()
    }

    /// Waits until there is room for an event, while somebody reads.
    ///
    /// # Errors
    /// [`RunAbandoned`] when nobody reads any more, and the run is to end.
    pub async fn room(&self) -> Result<(), RunAbandoned> {
        let mut changed = None;
        loop {
            {
                let state = self.state();
                if state.is_abandoned {
                    return Err(RunAbandoned);
                }
                if !state.is_behind() {
                    return Ok(());
                }
                // Subscribed before the state is let go, so that no change is missed.
                changed.get_or_insert_with(|| self.changed.subscribe()).mark_unchanged();
            }
            if let Some(changed) = &mut changed {
                // The sender lives as long as the run.
                let _ = changed.changed().await;
            }
        }
    }

    /// Waits until somebody reads. Says whether anybody does before it is too late.
    pub async fn until_watched(&self) -> bool {
        let mut changed = self.changed.subscribe();
        let watched = async {
            loop {
                changed.borrow_and_update();
                if !self.state().viewers.is_empty() {
                    return true;
                }
                if changed.changed().await.is_err() {
                    return false;
                }
            }
        };
        tokio::time::timeout(UNWATCHED, watched).await.unwrap_or(false)
    }

    /// Adds an event if there is room.
    pub fn offer(&self, event: RunEvent) {
        let has_room = !self.state().is_behind();
        if has_room {
            self.add(event);
        }
    }

    /// Adds an event.
    pub fn add(&self, event: RunEvent) {
        let weight = event.weight();
        self.called.note(&event);
        {
            let mut state = self.state();
            state.has_called |= matches!(event, RunEvent::ToolCall(_));
            state.bytes += weight;
            state.events.push_back(Arc::new(event));
            self.budget.add(weight);
            state.is_cut |= state.bytes > MOST_BYTES || self.budget.is_full();
            self.drop_read(&mut state);
        }
        self.changed.send_replace(());
    }

    /// Of a run that is too large to be read again, drops what all viewers have read.
    fn drop_read(&self, state: &mut SharedState) {
        if !state.is_cut {
            return;
        }
        let slowest = state.viewers.values().min().copied().unwrap_or(usize::MAX);
        while state.first < slowest {
            let Some(event) = state.events.pop_front() else { break };
            let weight = event.weight();
            (state.first, state.bytes) = (state.first + 1, state.bytes.saturating_sub(weight));
            self.budget.remove(weight);
        }
    }

    /// Forgets the events, so that only the calls are known.
    pub fn forget_events(&self) {
        let mut state = self.state();
        state.is_cut = true;
        self.drop_read(&mut state);
    }

    /// The run is over. Says whether it may have called tools, so that a repetition must find it.
    pub fn end(&self) -> bool {
        let keeps = {
            let mut state = self.state();
            state.is_over = true;
            if std::mem::take(&mut state.is_detached) {
                self.budget.attach();
            }
            if state.viewers.is_empty() {
                self.compact(&mut state);
            }
            self.called.may_have_run() && !state.is_abandoned
        };
        self.changed.send_replace(());
        keeps
    }

    /// Joins the model's words, which come in many small pieces.
    fn compact(&self, state: &mut SharedState) {
        let mut events: VecDeque<Arc<RunEvent>> = VecDeque::new();
        let mut words = String::new();
        for event in std::mem::take(&mut state.events) {
            match words_of(&event) {
                Some(more) => words.push_str(more),
                None => {
                    events.extend(words_event(&mut words));
                    events.push_back(event);
                }
            }
        }
        events.extend(words_event(&mut words));
        events.shrink_to_fit();
        let bytes = events.iter().map(|event| event.weight()).sum();
        self.budget.remove(state.bytes);
        self.budget.add(bytes);
        (state.events, state.bytes) = (events, bytes);
    }

    fn leave(&self, viewer: u64) {
        let mut state = self.state();
        state.viewers.remove(&viewer);
        self.drop_read(&mut state);
        if state.viewers.is_empty() {
            if state.is_over {
                if !state.is_cut {
                    self.compact(&mut state);
                }
            } else if state.has_called && self.budget.detach() {
                state.is_detached = true;
                tracing::info!(
                    run.id = self.run_id,
                    "the client left after a tool was called; the call goes on, and the run waits for the next try"
                );
            } else {
                // Where too many go on already, what it called stays known.
                state.is_abandoned = !state.has_called;
                if let Some(task) = &state.task {
                    task.abort();
                }
            }
        }
        drop(state);
        self.changed.send_replace(());
    }
}

impl Drop for SharedRun {
    fn drop(&mut self) {
        let bytes = self.state().bytes;
        self.budget.remove(bytes);
    }
}

impl SharedState {
    fn is_behind(&self) -> bool {
        let furthest = self.viewers.values().max();
        furthest.is_some_and(|next| (self.first + self.events.len()).saturating_sub(*next) >= EVENTS_AHEAD)
    }
}

impl SharedViewer {
    /// The next event; `None` after the last one, and when there will be none.
    pub async fn next(&mut self) -> Option<Arc<RunEvent>> {
        loop {
            // Marked as seen before it is looked at, so that no change is missed.
            self.changed.borrow_and_update();
            if let Some(event) = self.ready() {
                return Some(event);
            }
            if self.run.state().is_over {
                return self.ready();
            }
            self.changed.changed().await.ok()?;
        }
    }

    /// The next event, when it is there already.
    pub fn ready(&mut self) -> Option<Arc<RunEvent>> {
        let event = {
            let mut state = self.run.state();
            let event = state.events.get(self.next.checked_sub(state.first)?).cloned()?;
            self.next += 1;
            state.is_delivered |= event.is_last();
            state.viewers.insert(self.id, self.next);
            self.run.drop_read(&mut state);
            event
        };
        self.run.changed.send_replace(());
        Some(event)
    }
}

impl Drop for SharedViewer {
    fn drop(&mut self) {
        self.run.leave(self.id);
    }
}

/// The words of an event that brings nothing else.
fn words_of(event: &RunEvent) -> Option<&str> {
    match event {
        RunEvent::Delta { delta, logprobs: None } if delta.len() == 1 => {
            delta.get("content").and_then(Value::as_str)
        }
        _ => None,
    }
}

fn words_event(words: &mut String) -> Option<Arc<RunEvent>> {
    let words = std::mem::take(words);
    let delta = || [("content".to_owned(), Value::from(words.as_str()))].into_iter().collect();
    (!words.is_empty()).then(|| Arc::new(RunEvent::Delta { delta: delta(), logprobs: None }))
}
