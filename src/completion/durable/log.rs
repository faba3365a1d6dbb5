//! The events of one run, in memory: written by the run, read by any number of viewers at their own pace.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use futures_util::future::AbortHandle;
use tokio::sync::watch;

use super::journal::Journal;
use super::record::{ShownSharing, Status, Visibility};
use super::step::Step;
use super::taken::UNWRITTEN_COPIES;
use super::tally::{count, reason_of, status_after, usage_of};
use super::tell::Told;
use super::viewer::LiveSender;
use crate::clock::Clock;
use crate::completion::called_tools::CalledTools;
use crate::completion::event::RunEvent;
use crate::completion::sink::Gone;
use crate::memory_budget::MemoryReservation;
use crate::store::{RunRow, RunUsage};

/// What the last events that are in the store may take in memory while somebody reads there, in bytes.
const WINDOW_BYTES: usize = 128 << 10;

/// Why a run is to end before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Somebody who may asked for it.
    Cancelled,
    /// Its events are more than is kept: so many bytes.
    TooLarge(usize),
    /// The store has taken nothing for too long.
    Unwritable,
    /// The process stops; another one goes on.
    HandedOver,
}

/// What of a run is in the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settled {
    /// The run itself.
    pub created: bool,
    pub events: usize,
    pub steps: usize,
    /// Its end.
    pub ended: bool,
    /// Another process has it: nothing of this one counts any more.
    pub lost: bool,
    /// The store has taken nothing of it for long. Viewers are not to wait for that; it is still tried.
    pub hopeless: bool,
    /// It could not be brought into the store in time: it was not begun, and never is.
    pub refused: bool,
}

/// One run under way, or followed from another process.
pub struct Log {
    pub project: Arc<str>,
    pub id: Arc<str>,
    /// The principal whose stored runs this one counts among: a group and its member.
    pub(super) holder: (Box<str>, Box<str>),
    state: Mutex<State>,
    /// Woken when calls under way may have become certain.
    pub(super) calls: watch::Sender<()>,
    pub(super) settled: watch::Sender<Settled>,
    pub(super) stop: watch::Sender<Option<Stop>>,
    /// Ends what carries it out.
    pub(super) ending: OnceLock<AbortHandle>,
    /// The tools that it has called, as its sink notes them.
    pub(in crate::completion) called: CalledTools,
    /// Requests that are answered by it as it goes.
    pub(super) live_viewers: AtomicUsize,
    clock: Clock,
    /// Counts the events that are not in the store yet.
    pub(super) memory: MemoryReservation,
    /// The way into the store, and out of it.
    journal: Journal,
    /// Another process carries it out, or it is over: it is only read here.
    is_followed: bool,
}

pub(super) struct State {
    /// The last events: those that are not in the store, and some that are. Never without the last one.
    pub events: Vec<Arc<RunEvent>>,
    /// The number of the first of them; those before it are read from the store.
    pub first: usize,
    /// All events are kept in memory: whoever goes on with the run reads them, or nobody writes them.
    pub keeps_all: bool,
    /// Who is given each event as it happens; the last one once it is in the store.
    pub live: Vec<LiveSender>,
    /// Not in the store yet.
    pub new: Option<Box<RunRow>>,
    pub steps: Vec<Step>,
    /// Steps that were written before those.
    pub steps_written: usize,
    pub place: i64,
    /// Another process began it.
    pub has_history: bool,
    pub status: Status,
    pub reason: Option<String>,
    pub ended_at: Option<i64>,
    pub used_logins: bool,
    /// The run has become private, which is not in the store yet.
    pub is_hiding: bool,
    /// It is kept for good only once it has ended well.
    pub is_on_trial: bool,
    /// The caller chose who may read it.
    pub is_chosen: bool,
    pub visibility: Visibility,
    pub usage: RunUsage,
    pub bytes: usize,
    /// Bytes of events that are not in the store yet.
    pub unwritten_bytes: usize,
    /// Bytes of events that this process has brought into the store.
    pub written_bytes: i64,
    /// Bytes of events in the store that its row does not count yet.
    pub uncounted_bytes: i64,
    /// `status` and the like are not in the store yet.
    pub is_changed: bool,
    pub told: Option<Told>,
    pub is_queued: bool,
    /// Takes nothing any more: another process goes on from what is there.
    pub is_closed: bool,
    /// The write that was to make the run failed at its last step: the run may be in the store all the same.
    pub may_exist: bool,
    /// Places of calls under way that nobody may make again: lost now, their outcome would be unknown.
    pub uncertain: Vec<usize>,
}

impl Log {
    /// The log of a run that begins. `told` are those who hear of its end.
    pub fn begin(
        row: RunRow,
        is_created: bool,
        is_chosen: bool,
        told: Option<Told>,
        journal: Journal,
    ) -> Arc<Self> {
        let visibility = Visibility::parse(&row.visibility).unwrap_or(Visibility::Private);
        let log = Log::new(&row, Vec::new(), visibility, journal, false);
        {
            let mut state = log.state();
            state.is_chosen = is_chosen;
            state.told = told;
            state.new = (!is_created).then(|| Box::new(row));
        }
        log.settled.send_modify(|settled| settled.created = is_created);
        Arc::new(log)
    }

    /// The log of a run that another process had, with its events so far. Its next batch takes `place`.
    pub fn taken_over(
        row: &RunRow,
        events: Vec<Arc<RunEvent>>,
        place: i64,
        is_chosen: bool,
        told: Option<Told>,
        journal: Journal,
    ) -> Arc<Self> {
        // What was decided then stays.
        let visibility = Visibility::parse(&row.visibility).unwrap_or(Visibility::Private);
        let number = events.len();
        let log = Log::new(row, events, visibility, journal, false);
        {
            let mut state = log.state();
            state.place = place;
            state.has_history = true;
            state.is_chosen = is_chosen;
            state.told = told;
            // The row knows only what was used when its status last changed.
            state.usage = usage_of(&state.events);
            let asked = row.metadata.len() + row.request.len() + row.state.len();
            let all = i64::try_from(asked + state.bytes).unwrap_or(i64::MAX);
            state.uncounted_bytes = (all - row.bytes).max(0);
            state.keeps_all = true;
        }
        log.settled.send_modify(|settled| {
            settled.created = true;
            settled.events = number;
        });
        Arc::new(log)
    }

    /// The log of a run that is only read here, with `first` events so far that are read from the store.
    pub fn followed(row: &RunRow, first: usize, journal: Journal) -> Arc<Self> {
        let log = Log::new(row, Vec::new(), Visibility::Private, journal, true);
        log.state().first = first;
        log.settled.send_modify(|settled| (settled.created, settled.events) = (true, first));
        Arc::new(log)
    }

    /// The log of a run that is read here to go on with it: all its events are kept in memory.
    pub fn read_whole(row: &RunRow, journal: Journal) -> Arc<Self> {
        let log = Log::followed(row, 0, journal);
        log.state().keeps_all = true;
        log
    }

    fn new(
        row: &RunRow,
        events: Vec<Arc<RunEvent>>,
        visibility: Visibility,
        journal: Journal,
        is_followed: bool,
    ) -> Self {
        let bytes = events.iter().map(|event| event.weight()).sum();
        let called = CalledTools::of(&events);
        let state = State {
            events,
            first: 0,
            keeps_all: false,
            live: Vec::new(),
            new: None,
            steps: Vec::new(),
            steps_written: 0,
            place: 0,
            has_history: false,
            status: Status::parse(&row.status).unwrap_or(Status::Queued),
            reason: None,
            ended_at: row.ended_at,
            used_logins: row.used_logins,
            is_hiding: false,
            is_on_trial: row.stored && row.expires_at.is_some(),
            is_chosen: true,
            visibility,
            usage: row.usage,
            bytes,
            unwritten_bytes: 0,
            written_bytes: 0,
            uncounted_bytes: 0,
            is_changed: false,
            told: None,
            is_queued: false,
            is_closed: false,
            may_exist: false,
            uncertain: Vec::new(),
        };
        Log {
            project: row.project.as_str().into(),
            id: row.id.as_str().into(),
            holder: (row.holder_group.as_str().into(), row.holder_member.as_str().into()),
            state: Mutex::new(state),
            calls: watch::Sender::default(),
            settled: watch::Sender::default(),
            stop: watch::Sender::new(None),
            ending: OnceLock::new(),
            called,
            live_viewers: AtomicUsize::new(0),
            clock: journal.clock(),
            memory: journal.memory().reserve(),
            journal,
            is_followed,
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings the run itself into the store.
    pub fn open(&self) {
        self.queue(true);
    }

    /// Adds an event. What happens after the last one is left out.
    ///
    /// # Errors
    /// [`Gone`] when the run is another process's now.
    pub fn push(&self, event: impl Into<Arc<RunEvent>>) -> Result<(), Gone> {
        let event = event.into();
        let (is_last, weight) = (event.is_last(), event.weight());
        let most = self.journal.most_bytes();
        let (is_too_large, is_new) = {
            let mut state = self.state();
            if state.ended_at.is_some() || state.is_closed {
                return Err(Gone);
            }
            state.note(&event, weight, &self.clock);
            state.unwritten_bytes += weight;
            if !is_last {
                state.live.retain(|viewer| viewer.send(&event, weight));
            }
            state.events.push(event);
            let is_new = !std::mem::replace(&mut state.is_queued, true);
            (state.bytes > most, is_new)
        };
        if !self.is_followed {
            self.memory.grow_anyway(UNWRITTEN_COPIES * weight);
        }
        if is_last {
            self.calls.send_replace(());
            if self.may_tell_end() {
                self.end_live();
                self.settled.send_modify(|_| {});
            }
        }
        if is_too_large && !is_last {
            self.end_early(Stop::TooLarge(most));
        }
        if !self.is_followed {
            self.journal.queue(&self.id, is_new, is_last);
        }
        Ok(())
    }

    /// Adds events of another process, which are in the store, from the number `first` on. Those that are known, because
    /// two have looked at the same time, are left out.
    pub fn follow(&self, first: usize, events: Vec<RunEvent>) {
        let number = {
            let mut state = self.state();
            let known = state.number().saturating_sub(first);
            state.events.extend(events.into_iter().skip(known).map(Arc::new));
            state.number()
        };
        self.settled.send_modify(|settled| settled.events = settled.events.max(number));
        self.trim();
    }

    /// Writes down what is needed to go on. With `wait`, returns when it is in the store.
    ///
    /// # Errors
    /// [`Gone`] when the run is another process's now, or is to end.
    pub async fn step(&self, step: Step, wait: bool) -> Result<(), Gone> {
        if self.is_lost() {
            return Err(Gone);
        }
        let number = {
            let mut state = self.state();
            if state.is_closed {
                return Err(Gone);
            }
            state.follow_calls(&step);
            state.steps.push(step);
            state.steps_written + state.steps.len()
        };
        self.calls.send_replace(());
        self.queue(wait);
        if !wait {
            return Ok(());
        }
        let mut settled = self.settled.subscribe();
        let there = settled.wait_for(|settled| settled.lost || settled.steps >= number).await;
        match there {
            Ok(settled) if !settled.lost => Ok(()),
            _ => Err(Gone),
        }
    }

    /// A user's login is about to be used: from now on the run is theirs alone, unless the caller chose otherwise.
    pub fn use_login(&self) {
        {
            let mut state = self.state();
            if state.used_logins {
                return;
            }
            state.used_logins = true;
            if !state.is_chosen {
                state.visibility = Visibility::Private;
                state.is_hiding = true;
            }
            state.is_changed = true;
        }
        self.queue(true);
    }

    /// Whether who does not own the run may read on.
    pub fn is_private(&self) -> bool {
        self.state().visibility == Visibility::Private
    }

    /// Whether everybody may read it.
    pub fn is_public(&self) -> bool {
        self.state().visibility == Visibility::Public
    }

    /// How it is shared now, which the store may hear of a moment later.
    pub fn sharing(&self) -> ShownSharing {
        let state = self.state();
        ShownSharing { visibility: state.visibility, used_logins: state.used_logins }
    }

    /// The owner chose on a page who may read it, having been shown whether logins were used. Not taken when one was
    /// used since; and a choice made before the first one does not cover what logins give later.
    pub fn share(&self, shown: ShownSharing, visibility: Visibility) -> bool {
        let mut state = self.state();
        if state.used_logins != shown.used_logins {
            return false;
        }
        state.visibility = visibility;
        drop(state);
        // Viewers look whether they still may.
        self.settled.send_modify(|_| {});
        true
    }

    /// Somebody changed who may read it.
    pub fn set_visibility(&self, visibility: Visibility) {
        let mut state = self.state();
        (state.visibility, state.is_chosen, state.is_hiding) = (visibility, true, false);
        drop(state);
        // Viewers look whether they still may.
        self.settled.send_modify(|_| {});
    }

    /// Asks the run to end.
    pub fn end_early(&self, why: Stop) {
        self.stop.send_if_modified(|stop| {
            let is_first = stop.is_none();
            if is_first {
                *stop = Some(why);
            }
            is_first
        });
        if let Some(ending) = self.ending.get() {
            ending.abort();
        }
        // Viewers of a run that goes on elsewhere look there.
        if self.is_handed_over() || (self.is_over() && self.may_tell_end()) {
            self.end_live();
        }
        self.calls.send_replace(());
        self.settled.send_modify(|_| {});
    }

    /// The store has taken nothing of it for too long: it ends, and its viewers are told without waiting for the store.
    pub(super) fn despair(&self) {
        self.end_early(Stop::Unwritable);
        self.settled.send_if_modified(|settled| !std::mem::replace(&mut settled.hopeless, true));
        if self.is_over() {
            self.end_live();
        }
    }

    /// Takes nothing any more, so that another process can go on from what is there; true the first time.
    pub(super) fn close(&self) -> bool {
        let was_closed = std::mem::replace(&mut self.state().is_closed, true);
        self.end_early(Stop::HandedOver);
        !was_closed
    }

    /// Whether another process has it.
    pub(super) fn is_lost(&self) -> bool {
        self.settled.borrow().lost
    }

    /// Whether it is only read here.
    pub(super) fn is_followed(&self) -> bool {
        self.is_followed
    }

    /// Whether its end may be told: it is in the store, or never will be.
    pub(super) fn may_tell_end(&self) -> bool {
        let settled = *self.settled.borrow();
        settled.ended || settled.lost || settled.hopeless || self.is_followed()
    }

    /// Whether a request is answered by it as it goes: who re-attaches is none.
    pub fn has_live_viewers(&self) -> bool {
        self.live_viewers.load(Ordering::Relaxed) > 0
    }

    /// Whether another process goes on.
    pub fn is_handed_over(&self) -> bool {
        *self.stop.borrow() == Some(Stop::HandedOver)
    }

    /// Whether its last event is in the store: nobody else goes on with it.
    pub fn has_ended(&self) -> bool {
        let settled = *self.settled.borrow();
        settled.ended && !settled.lost
    }

    /// Why it ended as it did.
    pub(super) fn reason(&self) -> Option<String> {
        self.state().reason.clone()
    }

    /// Whether its last event is there.
    pub fn is_over(&self) -> bool {
        self.state().ended_at.is_some()
    }

    /// The event of this number, when it is in memory.
    pub fn event(&self, number: usize) -> Option<Arc<RunEvent>> {
        let state = self.state();
        number.checked_sub(state.first).and_then(|at| state.events.get(at)).cloned()
    }

    /// Whether the event of this number is in the store alone.
    pub(super) fn is_let_go(&self, number: usize) -> bool {
        number < self.state().first
    }

    /// All events of a log that keeps them in memory: what is read to go on with it, and what has just been taken over.
    pub fn all_events(&self) -> Vec<Arc<RunEvent>> {
        self.state().events.clone()
    }

    /// Events that are in the store are let go from now on.
    pub fn let_go_of_stored(&self) {
        self.state().keeps_all = false;
    }

    /// Lets go of events that are in the store, but for the last few where somebody reads what comes into it.
    pub(super) fn trim(&self) {
        let (stored, window) =
            (self.settled.borrow().events, if self.is_watched() { WINDOW_BYTES } else { 0 });
        let mut state = self.state();
        if state.keeps_all {
            return;
        }
        let stored = stored.min(state.number().saturating_sub(1)).saturating_sub(state.first);
        let mut kept = 0;
        let needed = state.events[..stored].iter().rev().take_while(|event| {
            kept += event.weight();
            kept <= window
        });
        let gone = stored - needed.count();
        state.events.drain(..gone);
        state.first += gone;
        if state.events.capacity() > 4 * state.events.len().max(16) {
            state.events.shrink_to_fit();
        }
    }

    pub(super) fn journal(&self) -> &Journal {
        &self.journal
    }

    pub(super) fn watch_settled(&self) -> watch::Receiver<Settled> {
        self.settled.subscribe()
    }

    /// Whether somebody waits for what comes into the store.
    pub(super) fn is_watched(&self) -> bool {
        self.settled.receiver_count() > 0
    }

    pub(super) fn queue(&self, hurry: bool) {
        if self.is_followed {
            return;
        }
        let is_new = !std::mem::replace(&mut self.state().is_queued, true);
        self.journal.queue(&self.id, is_new, hurry);
    }

    /// Another process has the run.
    pub fn lose(&self) {
        self.state().is_closed = true;
        self.settled.send_modify(|settled| settled.lost = true);
        self.end_live();
        self.end_early(Stop::HandedOver);
    }
}

impl State {
    /// How many events there are, in memory or not.
    pub fn number(&self) -> usize {
        self.first + self.events.len()
    }

    fn follow_calls(&mut self, step: &Step) {
        match step {
            Step::Calling { place, repeatable: false } => self.uncertain.push(*place),
            Step::NotMade { place } | Step::Task { place, .. } | Step::Called { place, .. } => {
                self.uncertain.retain(|known| known != place);
            }
            Step::Answered { .. } | Step::Acted { .. } => self.uncertain.clear(),
            Step::Begun { .. } | Step::Calling { .. } => {}
        }
    }

    /// What an event means for the run.
    fn note(&mut self, event: &RunEvent, weight: usize, clock: &Clock) {
        self.bytes += weight;
        count(&mut self.usage, event);
        let status = status_after(event, self.status);
        if let Some(reason) = reason_of(event) {
            self.reason = Some(reason);
        }
        if event.is_last() {
            self.ended_at = Some(clock.unix_milliseconds());
        }
        if let Some(status) = status.filter(|status| *status != self.status) {
            self.status = status;
            self.is_changed = true;
        }
        self.is_changed |= event.is_last();
    }
}
