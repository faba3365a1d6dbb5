//! Where a run's events go: to one viewer, at the viewer's pace.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use super::event::RunEvent;
use super::memory::Seen;

/// The viewer has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// The writing end. A viewer that reads slowly slows the run down, and so the provider.
///
/// Events are boxed: a channel keeps room for 32 of its items however few there are, and ten thousand waiting
/// requests have one each.
#[derive(Debug, Clone)]
pub struct Sink {
    viewer: mpsc::Sender<Box<RunEvent>>,
    /// What the viewer gets to read, where that matters later.
    seen: Option<Arc<Mutex<Seen>>>,
}

impl Sink {
    /// A sink and the end to read from, with room for `events`.
    pub fn new(events: usize) -> (Self, mpsc::Receiver<Box<RunEvent>>) {
        let (sender, receiver) = mpsc::channel(events);
        (Sink { viewer: sender, seen: None }, receiver)
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

    /// Adds an event, waiting for room.
    ///
    /// # Errors
    /// [`Gone`] when nobody reads any more.
    pub async fn send(&self, event: RunEvent) -> Result<(), Gone> {
        let event = Box::new(event);
        let room = self.viewer.reserve().await.map_err(|_| Gone)?;
        // Held while the event is sent: calls that run at the same time must be seen in the order they are shown.
        let mut seen = self.seen.as_ref().map(|seen| seen.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(seen) = &mut seen {
            seen.note(&event);
        }
        room.send(event);
        Ok(())
    }

    /// Adds an event if there is room: for those that may be missed.
    pub fn offer(&self, event: RunEvent) {
        // A full channel means a reader who is behind already; progress is not worth waiting for.
        let _ = self.viewer.try_send(Box::new(event));
    }
}
