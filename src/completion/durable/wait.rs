//! What one may wait for of a run.

use futures_util::future::AbortHandle;

use super::log::{Log, Settled, Stop};

impl Log {
    /// Until no call is under way whose outcome would be unknown if the process were lost now.
    pub(super) async fn certain(&self) {
        let mut calls = self.calls.subscribe();
        loop {
            calls.borrow_and_update();
            if self.is_certain() || calls.changed().await.is_err() {
                return;
            }
        }
    }

    /// Whether no such call is under way.
    pub(super) fn is_certain(&self) -> bool {
        let state = self.state();
        state.uncertain.is_empty() || state.is_closed || state.ended_at.is_some()
    }

    /// Lets this end what carries the run out when the run is to end before its time.
    pub fn on_stop(&self, ending: AbortHandle) {
        let ending = self.ending.get_or_init(|| ending);
        if self.stop_reason().is_some() {
            ending.abort();
        }
    }

    /// Why the run is to end before its time.
    pub fn stop_reason(&self) -> Option<Stop> {
        *self.stop.borrow()
    }

    /// Until its end is in the store, or it is another process's.
    pub async fn ended(&self) {
        let mut settled = self.settled.subscribe();
        // The sender lives as long as `self`.
        let _ = settled.wait_for(|settled| settled.ended || settled.lost).await;
    }

    /// Until everything of it is in the store, or it is another process's.
    pub async fn settled_or_lost(&self) {
        let (events, steps) = {
            let state = self.state();
            (state.number(), state.steps_written + state.steps.len())
        };
        let mut settled = self.settled.subscribe();
        let is_there =
            |settled: &Settled| settled.created && settled.events >= events && settled.steps >= steps;
        let _ = settled.wait_for(|settled| settled.lost || is_there(settled)).await;
    }
}
