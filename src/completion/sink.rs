//! Where a run's events go: to one viewer, at the viewer's pace.

use tokio::sync::mpsc;

use super::event::RunEvent;

/// The viewer has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// The writing end. A viewer that reads slowly slows the run down, and so the provider.
///
/// Events are boxed: a channel keeps room for 32 of its items however few there are, and ten thousand waiting
/// requests have one each.
#[derive(Debug, Clone)]
pub struct Sink(mpsc::Sender<Box<RunEvent>>);

impl Sink {
    /// A sink and the end to read from, with room for `events`.
    pub fn new(events: usize) -> (Self, mpsc::Receiver<Box<RunEvent>>) {
        let (sender, receiver) = mpsc::channel(events);
        (Sink(sender), receiver)
    }

    /// Adds an event, waiting for room.
    ///
    /// # Errors
    /// [`Gone`] when nobody reads any more.
    pub async fn send(&self, event: RunEvent) -> Result<(), Gone> {
        self.0.send(Box::new(event)).await.map_err(|_| Gone)
    }

    /// Adds an event if there is room: for those that may be missed.
    pub fn offer(&self, event: RunEvent) {
        // A full channel means a reader who is behind already; progress is not worth waiting for.
        let _ = self.0.try_send(Box::new(event));
    }
}
