//! Reading a run: the only viewer of one that is not kept, or one of many.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{mpsc, watch};

use super::creation::Creation;
use super::log::{Log, Settled};
use crate::completion::event::RunEvent;
use crate::completion::shared_run::SharedViewer;

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

/// A request that is answered by a run as it goes.
pub struct LiveViewer {
    log: Arc<Log>,
    events: mpsc::UnboundedReceiver<Arc<RunEvent>>,
}

/// A place in a run's log. Reads what is in the store alone, so that a number never means two events.
pub struct LogViewer {
    pub(super) log: Arc<Log>,
    next: usize,
    settled: watch::Receiver<Settled>,
    /// Whether it may go on when the run becomes private.
    is_own: bool,
}

impl Viewer {
    /// Reads from the event `first`: what is in the store alone.
    pub(super) fn of_settled(log: Arc<Log>, first: usize, is_own: bool) -> LogViewer {
        let settled = log.watch_settled();
        LogViewer { next: first, settled, is_own, log }
    }

    /// Reads from the beginning, each event as soon as it happens, but the last one when it is in the store.
    pub(in crate::completion) fn live(log: Arc<Log>) -> Self {
        log.live_viewers.fetch_add(1, Ordering::Relaxed);
        Viewer::Live(LiveViewer { events: log.watch_live(), log })
    }

    /// The next event; `None` after the last one, and when there will be none.
    pub async fn next(&mut self) -> Option<Arc<RunEvent>> {
        match self {
            Viewer::Only(events) => events.recv().await,
            Viewer::Shared(viewer) => viewer.next().await,
            Viewer::Live(viewer) => viewer.events.recv().await,
            Viewer::Settled(viewer) => viewer.next().await.map(|(_, event)| event),
        }
    }

    /// The next event, when it is there already.
    pub fn ready(&mut self) -> Option<Arc<RunEvent>> {
        match self {
            Viewer::Only(events) => events.try_recv().ok(),
            Viewer::Shared(viewer) => viewer.ready(),
            Viewer::Live(viewer) => viewer.events.try_recv().ok(),
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

impl Drop for LiveViewer {
    fn drop(&mut self) {
        self.log.live_viewers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Log {
    /// All events so far, and each as it happens; the last one once it may be told. Ends when there will be no more here.
    pub(super) fn watch_live(&self) -> mpsc::UnboundedReceiver<Arc<RunEvent>> {
        let (viewer, events) = mpsc::unbounded_channel();
        {
            let mut state = self.state();
            for event in state.events.iter().filter(|event| !event.is_last()) {
                // The other end is in this function.
                let _ = viewer.send(Arc::clone(event));
            }
            state.live.push(viewer);
        }
        // Whoever ended the others may have done so before this one was among them.
        if self.is_handed_over() || (self.is_over() && self.may_tell_end()) {
            self.end_live();
        }
        events
    }

    /// Lets go of those who see each event as it happens, with the last one if it may be told.
    pub(super) fn end_live(&self) {
        let tells = self.may_tell_end();
        let state = &mut *self.state();
        let last = state.events.last().filter(|event| tells && event.is_last());
        for viewer in state.live.drain(..) {
            if let Some(last) = last {
                // It may have left.
                let _ = viewer.send(Arc::clone(last));
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
        let event = self.log.event(self.next)?;
        // Who has read the end finds it in the store.
        if event.is_last() && !self.log.may_tell_end() {
            return None;
        }
        self.next += 1;
        Some((self.next - 1, self.shown(event)))
    }

    /// All events up to what is there now, without moving on.
    pub fn so_far(&self) -> Vec<Arc<RunEvent>> {
        if !self.may_read() {
            return Vec::new();
        }
        let events = self.log.events(0, self.settled.borrow().events, usize::MAX);
        events.into_iter().map(|event| self.shown(event)).collect()
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
