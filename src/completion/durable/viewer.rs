//! Reading a run: the only viewer of one that is not kept, or one of many.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::{mpsc, watch};

use super::creation::Creation;
use super::event_reader::ReadError;
use super::log::{Log, Settled};
use crate::completion::event::RunEvent;
use crate::completion::shared_run::SharedViewer;
use crate::memory_budget::MemoryReservation;

/// Reads events one after the other.
pub enum Viewer {
    /// Of a run that nobody else sees. Its events come at the viewer's pace.
    Only(mpsc::Receiver<Arc<RunEvent>>),
    /// Of a run that its client may ask for again. The run waits for its viewers.
    Shared(SharedViewer),
    /// Of a run that is kept, each event as soon as it happens. The run does not wait for the viewer.
    Live(LiveViewer),
    /// Of a run that is kept elsewhere.
    Settled(LogViewer),
}

/// What may wait for a request that is answered by a run as it goes, in bytes; who is further behind reads on in the store.
const WAITING_BYTES: usize = 128 << 10;

/// Bytes of rows that are read from the store at once, roughly.
const PAGE_BYTES: usize = 64 << 10;
/// Most rows that are.
const MOST_ROWS: i64 = 64;
/// Bytes that an event takes in memory besides those that [`RunEvent::weight`] counts.
const EVENT_BYTES: usize = 256;

/// A request that is answered by a run as it goes.
pub struct LiveViewer {
    log: Arc<Log>,
    events: mpsc::UnboundedReceiver<Arc<RunEvent>>,
    queue: Arc<LiveQueue>,
    /// The number of the next event.
    next: usize,
    /// Reads on where this viewer was too slow.
    behind: Option<Box<LogViewer>>,
}

/// What waits for a live viewer.
#[derive(Default)]
pub(super) struct LiveQueue {
    bytes: AtomicUsize,
    is_cut: AtomicBool,
}

/// The end that a run writes to.
pub(super) struct LiveSender {
    events: mpsc::UnboundedSender<Arc<RunEvent>>,
    queue: Arc<LiveQueue>,
}

impl LiveSender {
    /// Sends an event; false when the viewer has left, or is to read on in the store.
    pub(super) fn send(&self, event: &Arc<RunEvent>, weight: usize) -> bool {
        if self.queue.bytes.fetch_add(weight, Ordering::Relaxed) > WAITING_BYTES {
            self.queue.is_cut.store(true, Ordering::Release);
            return false;
        }
        self.events.send(Arc::clone(event)).is_ok()
    }
}

/// A place in a run's log. Reads what is in the store alone, so that a number never means two events.
pub struct LogViewer {
    pub(super) log: Arc<Log>,
    next: usize,
    /// Events from `next` on that were read from the store.
    stored: VecDeque<Arc<RunEvent>>,
    /// Counts the events in `stored`.
    memory: MemoryReservation,
    /// Rows of the store that are read next.
    rows: i64,
    settled: watch::Receiver<Settled>,
    /// Whether it may go on when the run becomes private.
    is_own: bool,
}

impl Viewer {
    /// Reads from the event `first`: what is in the store alone.
    pub(super) fn of_settled(log: Arc<Log>, first: usize, is_own: bool) -> LogViewer {
        let (settled, memory) = (log.watch_settled(), log.journal().memory().reserve());
        LogViewer { next: first, stored: VecDeque::new(), memory, rows: 1, settled, is_own, log }
    }

    /// Reads from the beginning, each event as soon as it happens, but the last one when it is in the store.
    pub(in crate::completion) fn live(log: Arc<Log>) -> Self {
        log.live_viewers.fetch_add(1, Ordering::Relaxed);
        let (events, queue) = log.watch_live();
        Viewer::Live(LiveViewer { events, queue, next: 0, behind: None, log })
    }

    /// The next event; `None` after the last one, and when there will be none.
    pub async fn next(&mut self) -> Option<Arc<RunEvent>> {
        match self {
            Viewer::Only(events) => events.recv().await,
            Viewer::Shared(viewer) => viewer.next().await,
            Viewer::Live(viewer) => viewer.next().await,
            Viewer::Settled(viewer) => viewer.next().await.map(|(_, event)| event),
        }
    }

    /// The next event, when it is there already.
    pub fn ready(&mut self) -> Option<Arc<RunEvent>> {
        match self {
            Viewer::Only(events) => events.try_recv().ok(),
            Viewer::Shared(viewer) => viewer.ready(),
            Viewer::Live(viewer) => viewer.ready(),
            Viewer::Settled(viewer) => viewer.ready().map(|(_, event)| event),
        }
    }

    /// Until it is decided whether a run that is to be stored is in the store.
    pub async fn created(&self) -> Creation {
        match self {
            Viewer::Only(_) | Viewer::Shared(_) => Creation::Created,
            Viewer::Live(viewer) => viewer.log.created().await,
            Viewer::Settled(viewer) => viewer.log.created().await,
        }
    }
}

impl LiveViewer {
    async fn next(&mut self) -> Option<Arc<RunEvent>> {
        if self.behind.is_none() {
            if let Some(event) = self.events.recv().await {
                return Some(self.took(event));
            }
            if !self.queue.is_cut.load(Ordering::Acquire) {
                return None;
            }
            self.behind = Some(Box::new(Viewer::of_settled(Arc::clone(&self.log), self.next, true)));
        }
        self.behind.as_mut()?.next().await.map(|(_, event)| event)
    }

    fn ready(&mut self) -> Option<Arc<RunEvent>> {
        match &mut self.behind {
            Some(behind) => behind.ready().map(|(_, event)| event),
            None => self.events.try_recv().ok().map(|event| self.took(event)),
        }
    }

    fn took(&mut self, event: Arc<RunEvent>) -> Arc<RunEvent> {
        self.next += 1;
        self.queue.bytes.fetch_sub(event.weight(), Ordering::Relaxed);
        event
    }
}

impl Drop for LiveViewer {
    fn drop(&mut self) {
        self.log.live_viewers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Log {
    /// All events so far, and each as it happens; the last one once it may be told. Ends when there will be no more here.
    pub(super) fn watch_live(&self) -> (mpsc::UnboundedReceiver<Arc<RunEvent>>, Arc<LiveQueue>) {
        let (viewer, events) = mpsc::unbounded_channel();
        let queue = Arc::new(LiveQueue::default());
        let viewer = LiveSender { events: viewer, queue: Arc::clone(&queue) };
        {
            let mut state = self.state();
            let all_sent = state.first == 0
                && state
                    .events
                    .iter()
                    .filter(|event| !event.is_last())
                    .all(|event| viewer.send(event, event.weight()));
            if all_sent {
                state.live.push(viewer);
            } else {
                // What is in the store alone is read there.
                queue.is_cut.store(true, Ordering::Release);
            }
        }
        // Whoever ended the others may have done so before this one was among them.
        if self.is_handed_over() || (self.is_over() && self.may_tell_end()) {
            self.end_live();
        }
        (events, queue)
    }

    /// Lets go of those who see each event as it happens, with the last one if it may be told.
    pub(super) fn end_live(&self) {
        let tells = self.may_tell_end();
        let state = &mut *self.state();
        let last = state.events.last().filter(|event| tells && event.is_last());
        for viewer in state.live.drain(..) {
            if let Some(last) = last {
                // It may have left.
                let _ = viewer.events.send(Arc::clone(last));
            }
        }
    }
}

impl LogViewer {
    /// The run's log has its last event, and this viewer has read it.
    pub fn is_at_end(&self) -> bool {
        self.next > 0 && self.log.event(self.next - 1).is_some_and(|event| event.is_last())
    }

    /// The next event with its number; `None` after the last one, and when there will be none here.
    pub async fn next(&mut self) -> Option<(usize, Arc<RunEvent>)> {
        loop {
            // Marked as seen before it is looked at, so that no change is missed.
            let Settled { lost, hopeless, .. } = *self.settled.borrow_and_update();
            if let Some(found) = self.ready() {
                return Some(found);
            }
            if self.log.is_let_go(self.next) && self.may_read() {
                match self.read_page().await {
                    Ok(true) => continue,
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(%error, run.id = &*self.log.id, "events of a run could not be read");
                    }
                }
                // Its reader comes back.
                return None;
            }
            if lost
                || (hopeless && self.log.is_over())
                || self.log.is_handed_over()
                || self.is_at_end()
                || !self.may_read()
            {
                return None;
            }
            self.settled.changed().await.ok()?;
        }
    }

    /// The next event with its number, when it is there already.
    pub fn ready(&mut self) -> Option<(usize, Arc<RunEvent>)> {
        if self.next >= self.settled.borrow().events || !self.may_read() {
            return None;
        }
        let event = match self.stored.front() {
            Some(event) => Arc::clone(event),
            None => self.log.event(self.next)?,
        };
        // Who has read the end finds it in the store.
        if event.is_last() && !self.log.may_tell_end() {
            return None;
        }
        self.stored.pop_front();
        self.next += 1;
        Some((self.next - 1, self.shown(event)))
    }

    /// The number of events that are in the store now.
    pub fn number(&self) -> usize {
        self.settled.borrow().events
    }

    /// The next event, when its number is below `end`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn next_below(&mut self, end: usize) -> Result<Option<Arc<RunEvent>>, ReadError> {
        while self.next < end {
            if let Some((_, event)) = self.ready() {
                return Ok(Some(event));
            }
            if !self.may_read() || !self.log.is_let_go(self.next) || !self.read_page().await? {
                break;
            }
        }
        Ok(None)
    }

    /// Reads from the store what is not in memory any more; false when nothing is to be had.
    async fn read_page(&mut self) -> Result<bool, ReadError> {
        self.memory.settle(0);
        self.memory.renew_patience();
        let (events, bytes) = self.log.read_stored(self.next, self.rows).await?;
        // Rows of a run that is over are large, and those of one under way are small.
        self.rows = if bytes < PAGE_BYTES { (self.rows * 4).min(MOST_ROWS) } else { (self.rows / 4).max(1) };
        self.memory.grow(events.iter().map(|event| event.weight() + EVENT_BYTES).sum()).await?;
        self.stored = events.into();
        Ok(!self.stored.is_empty())
    }

    /// The event as this viewer may see it.
    fn shown(&self, event: Arc<RunEvent>) -> Arc<RunEvent> {
        if self.is_own {
            return event;
        }
        event.for_strangers(!self.log.is_public()).map_or(event, Arc::new)
    }

    fn may_read(&self) -> bool {
        self.is_own || !self.log.is_private()
    }
}
