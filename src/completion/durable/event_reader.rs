//! Reading what has happened in a run so far, a few events at a time.

use std::sync::Arc;

use super::viewer::LogViewer;
use crate::completion::event::RunEvent;
use crate::memory_budget::MemoryExhausted;
use crate::store;

/// Why the events of a run cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// There is no memory for them now.
    #[error(transparent)]
    Memory(#[from] MemoryExhausted),
}

/// The events of a run that there were when this was made, one after the other.
pub struct EventReader {
    viewer: LogViewer,
    end: usize,
}

impl EventReader {
    pub(super) fn of(viewer: LogViewer) -> Self {
        EventReader { end: viewer.number(), viewer }
    }

    /// The next event; `None` after the last one.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn next(&mut self) -> Result<Option<Arc<RunEvent>>, ReadError> {
        self.viewer.next_below(self.end).await
    }
}
