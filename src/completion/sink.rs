//! Where a run's events go: to its only viewer, at the viewer's pace, or to the log of a run that is kept.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::durable::{Log, Step};
use super::event::RunEvent;

/// The viewer has left, or the run is another process's now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// The writing end.
///
/// Events to an only viewer are boxed: a channel keeps room for 32 of its items however few there are, and ten thousand
/// waiting requests have one each.
#[derive(Clone)]
pub enum Sink {
    /// A viewer that reads slowly slows the run down, and so the provider.
    Only(mpsc::Sender<Box<RunEvent>>),
    /// Viewers read at their own pace, and the run does not wait for them.
    Log(Arc<Log>),
}

impl Sink {
    /// A sink and the end to read from, with room for `events`.
    pub fn new(events: usize) -> (Self, mpsc::Receiver<Box<RunEvent>>) {
        let (sender, receiver) = mpsc::channel(events);
        (Sink::Only(sender), receiver)
    }

    /// Adds an event, waiting for room.
    ///
    /// # Errors
    /// [`Gone`] when nobody reads any more.
    pub async fn send(&self, event: RunEvent) -> Result<(), Gone> {
        match self {
            Sink::Only(sender) => sender.send(Box::new(event)).await.map_err(|_| Gone),
            Sink::Log(log) => log.push(event),
        }
    }

    /// Adds an event if there is room: for those that may be missed.
    pub fn offer(&self, event: RunEvent) {
        match self {
            // A full channel means a reader who is behind already; progress is not worth waiting for.
            Sink::Only(sender) => drop(sender.try_send(Box::new(event))),
            Sink::Log(log) => drop(log.push(event)),
        }
    }

    /// Writes down what another process needs to go on, where the run is kept.
    ///
    /// # Errors
    /// [`Gone`] when the run is another process's now.
    pub async fn step(&self, step: impl FnOnce() -> Step) -> Result<(), Gone> {
        match self {
            Sink::Only(_) => Ok(()),
            Sink::Log(log) => log.step(step(), false).await,
        }
    }

    /// As [`Sink::step`], and waits until it is in the store.
    ///
    /// # Errors
    /// [`Gone`] when the run is another process's now, or is to end.
    pub async fn step_for_good(&self, step: impl FnOnce() -> Step) -> Result<(), Gone> {
        match self {
            Sink::Only(_) => Ok(()),
            Sink::Log(log) => log.step(step(), true).await,
        }
    }

    /// The log of a run that is kept.
    pub fn log(&self) -> Option<&Arc<Log>> {
        match self {
            Sink::Only(_) => None,
            Sink::Log(log) => Some(log),
        }
    }
}
