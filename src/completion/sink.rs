//! Where a run's events go: to its only viewer, at the viewer's pace, or to the log of a run that is kept.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use super::called_tools::CalledTools;
use super::durable::{Log, Step};
use super::event::RunEvent;
use super::memory::Seen;
use super::shared_run::SharedRun;

/// The viewer has left, or the run is another process's now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// The writing end.
#[derive(Clone)]
pub struct Sink {
    out: Out,
    /// What viewers get to read, where that matters later.
    seen: Option<Arc<Mutex<Seen>>>,
    /// The tools that the run has called.
    called: CalledTools,
}

/// Events to an only viewer are pointers: a channel keeps room for 32 of its items however few there are, and ten thousand
/// waiting requests have one each.
#[derive(Clone)]
enum Out {
    /// A viewer that reads slowly slows the run down, and so the provider.
    Only(mpsc::Sender<Arc<RunEvent>>),
    /// Viewers read at their own pace, and the run does not wait for them; it waits for the store where much is unwritten.
    Log(Arc<Log>),
    /// As an only viewer, as long as there is one.
    Shared(Arc<SharedRun>),
}

impl Sink {
    /// A sink and the end to read from, with room for `events`.
    pub fn new(events: usize) -> (Self, mpsc::Receiver<Arc<RunEvent>>) {
        let (sender, receiver) = mpsc::channel(events);
        (Sink { out: Out::Only(sender), seen: None, called: CalledTools::default() }, receiver)
    }

    /// A sink into the log of a run that is kept.
    pub fn to_log(log: Arc<Log>) -> Self {
        let called = log.called.clone();
        Sink { out: Out::Log(log), seen: None, called }
    }

    /// A sink into a run that its client may ask for again.
    pub fn to_shared(run: Arc<SharedRun>) -> Self {
        let called = run.called.clone();
        Sink { out: Out::Shared(run), seen: None, called }
    }

    /// The tools that the run has called.
    pub fn called(&self) -> &CalledTools {
        &self.called
    }

    /// The same, keeping account of what is shown.
    #[must_use]
    pub fn with(mut self, seen: Option<Seen>) -> Self {
        self.seen = seen.map(|seen| Arc::new(Mutex::new(seen)));
        self
    }

    /// Digests of what the viewer will have read if the run ends now; none where no account is kept.
    pub fn seen(&self) -> Vec<[u8; 32]> {
        let lock = |seen: &Arc<Mutex<Seen>>| seen.lock().unwrap_or_else(PoisonError::into_inner).digests();
        self.seen.as_ref().map(lock).unwrap_or_default()
    }

    /// Takes into account what another process has shown.
    pub fn note_so_far(&self) {
        let Some(log) = self.log() else { return };
        if let Some(seen) = &self.seen {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            for event in log.all_events() {
                seen.note(&event);
            }
        }
        log.let_go_of_stored();
    }

    /// Adds an event, waiting for room.
    ///
    /// # Errors
    /// [`Gone`] when nobody reads any more.
    pub async fn send(&self, event: RunEvent) -> Result<(), Gone> {
        let event = match event {
            RunEvent::Error(error) => RunEvent::Error(self.called.explain(error)),
            other => other,
        };
        let room = match &self.out {
            Out::Only(viewer) => Some(viewer.reserve().await.map_err(|_| Gone)?),
            // The end is told whoever reads.
            Out::Shared(_) if event.is_last() => None,
            // Waiting is boxed, so that a run keeps no room for it.
            Out::Shared(run) => {
                if run.is_behind() {
                    Box::pin(run.room()).await.map_err(|_| Gone)?;
                }
                None
            }
            Out::Log(_) if event.is_last() => None,
            Out::Log(log) => {
                if !log.has_room(event.weight()) {
                    Box::pin(log.room(event.weight())).await?;
                }
                None
            }
        };
        // Held while the event is sent: calls that run at the same time must be seen in the order they are shown.
        let mut seen = self.seen.as_ref().map(|seen| seen.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(seen) = &mut seen {
            seen.note(&event);
        }
        match (room, &self.out) {
            (Some(room), _) => {
                self.called.note(&event);
                room.send(Arc::new(event));
            }
            (None, Out::Log(log)) => {
                self.called.note(&event);
                log.push(event)?;
            }
            // It takes note of the calls itself.
            (None, Out::Shared(run)) => run.add(event),
            (None, Out::Only(_)) => {}
        }
        Ok(())
    }

    /// Waits until somebody reads, where a run is not to go on by itself.
    ///
    /// # Errors
    /// [`Gone`] when nobody came.
    pub async fn until_watched(&self) -> Result<(), Gone> {
        if let Out::Shared(run) = &self.out
            && !Box::pin(run.until_watched()).await
        {
            return Err(Gone);
        }
        Ok(())
    }

    /// Adds an event if there is room: for those that may be missed.
    pub fn offer(&self, event: RunEvent) {
        match &self.out {
            // A full channel means a reader who is behind already; progress is not worth waiting for.
            Out::Only(viewer) => drop(viewer.try_send(Arc::new(event))),
            Out::Log(log) => drop(log.push(event)),
            Out::Shared(run) => run.offer(event),
        }
    }

    /// Writes down what another process needs to go on, where the run is kept.
    ///
    /// # Errors
    /// [`Gone`] when the run is another process's now.
    pub async fn step(&self, step: impl FnOnce() -> Step) -> Result<(), Gone> {
        match self.log() {
            Some(log) => log.step(step(), false).await,
            None => Ok(()),
        }
    }

    /// As [`Sink::step`], and waits until it is in the store.
    ///
    /// # Errors
    /// [`Gone`] when the run is another process's now, or is to end.
    pub async fn step_for_good(&self, step: impl FnOnce() -> Step) -> Result<(), Gone> {
        match self.log() {
            Some(log) => log.step(step(), true).await,
            None => Ok(()),
        }
    }

    /// The log of a run that is kept.
    pub fn log(&self) -> Option<&Arc<Log>> {
        match &self.out {
            Out::Only(_) | Out::Shared(_) => None,
            Out::Log(log) => Some(log),
        }
    }
}
