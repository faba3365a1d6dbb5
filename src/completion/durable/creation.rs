//! The beginning of a stored run: nothing is carried out before the run is in the store.
//!
//! Who carries the run out decides, once and for all, whether it was made in time. The caller's answer follows that
//! decision: a caller who was told that there is no run must not find that its tools were called all the same.

use std::time::Duration;

use super::log::Log;

/// How long a new run may take to be written before its caller is told that it cannot be.
const TO_CREATE: Duration = Duration::from_secs(8);

/// What became of the wish to make a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Creation {
    /// The run is in the store.
    Created,
    /// The run is not in the store.
    Refused,
    /// The store broke off before it said whether the run is there. The run is taken back when the store answers again.
    Unknown,
}

/// What is left to do for a run that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Nothing of it is in the store.
    Nothing,
    /// It may be in the store, and is to be deleted there.
    Delete,
}

impl Log {
    /// Waits until the run is in the store, and gives up when that takes too long, or at an `outage` of the store. True
    /// when it may be carried out.
    pub async fn create_or_refuse(&self, outage: impl Future<Output = ()>) -> bool {
        let mut settled = self.settled.subscribe();
        tokio::select! {
            biased;
            there = settled.wait_for(|settled| settled.created || settled.lost) => {
                there.is_ok_and(|settled| settled.created)
            }
            () = outage => !self.refuse(),
            () = tokio::time::sleep(TO_CREATE) => !self.refuse(),
        }
    }

    /// Refuses the run, unless it was made meanwhile. Says whether it is refused.
    pub(super) fn refuse(&self) -> bool {
        // The lock of the value makes this and `settle` come one after the other.
        self.settled.send_if_modified(|settled| {
            settled.refused = !settled.created && !settled.lost;
            settled.refused
        });
        self.is_refused()
    }

    /// Whether it was not begun, and never is.
    pub fn is_refused(&self) -> bool {
        self.settled.borrow().refused
    }

    /// Until it is decided whether the run is in the store.
    pub async fn created(&self) -> Creation {
        let mut settled = self.settled.subscribe();
        let decided = settled.wait_for(|settled| settled.created || settled.lost || settled.refused).await;
        // The sender lives as long as `self`.
        let is_created = decided.is_ok_and(|settled| settled.created && !settled.refused);
        match is_created {
            true => Creation::Created,
            false if self.state().may_exist => Creation::Unknown,
            false => Creation::Refused,
        }
    }

    /// What is left to do for it when it was refused.
    pub(super) fn take_refusal(&self) -> Option<Refusal> {
        let settled = *self.settled.borrow();
        if !settled.refused {
            return None;
        }
        let mut state = self.state();
        (state.is_queued, state.new) = (false, None);
        Some(if state.may_exist || settled.created { Refusal::Delete } else { Refusal::Nothing })
    }
}
