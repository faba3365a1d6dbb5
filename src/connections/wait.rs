//! Waiting for flows, and hearing of what other instances change.
//!
//! A waiting request holds neither a connection of the store nor a lock.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::service::{Connections, Inner};
use super::{FlowState, Owner, PendingFlow, Waited};
use crate::store::Error;

/// How often the store is looked at, since what other instances tell can be lost.
const LOOK: Duration = Duration::from_millis(1500);
/// How far a look goes back behind the one before, in milliseconds: further than clocks of instances differ. Without a
/// look for longer, nothing that is kept is used.
const OVERLAP: i64 = 15_000;
/// Longest look. A database that was lost without a word never answers.
const LONGEST: Duration = Duration::from_secs(10);

/// After so many looks without hearing anybody, it is tried again to listen.
const ROUNDS_UNHEARD: usize = 5;

/// A place among those who wait for a flow; gone when dropped.
struct Place<'a> {
    inner: &'a Inner,
    flow: Arc<str>,
    notify: Arc<Notify>,
}

impl<'a> Place<'a> {
    fn new(inner: &'a Inner, flow: &Arc<str>) -> Self {
        let mut waiting = inner.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let notify = Arc::clone(waiting.entry(Arc::clone(flow)).or_default());
        Place { inner, flow: Arc::clone(flow), notify }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // The map's own, and ours.
        if Arc::strong_count(&self.notify) <= 2 {
            waiting.remove(&self.flow);
        }
    }
}

impl Connections {
    /// Until every flow is granted, one has ended otherwise, or the time is up. Wakes on any instance.
    pub async fn wait(&self, flows: &[PendingFlow], until: Instant) -> Waited {
        // For all at once: whichever ends otherwise ends the waiting.
        let granted = flows.iter().map(async |flow| match self.0.wait_for(&flow.flow).await {
            None => Ok(()),
            Some(state) => Err(state),
        });
        match tokio::time::timeout_at(until, try_join_all(granted)).await {
            Err(_) => Waited::TimedOut,
            Ok(Err(state)) => Waited::Ended(state),
            Ok(Ok(_)) => Waited::Granted,
        }
    }

    /// Hears of changes until the process ends. One per process.
    pub async fn watch(&self) {
        let mut seen = Seen::default();
        loop {
            let mut listener = match self.0.store.listen().await {
                Ok(listener) => Some(listener),
                Err(error) => {
                    tracing::warn!(%error, "changes of other instances are looked for, not heard");
                    None
                }
            };
            let rounds = if listener.is_some() { 1000 } else { ROUNDS_UNHEARD };
            for _ in 0..rounds {
                let heard = async {
                    match &mut listener {
                        Some(listener) => listener.next().await,
                        None => std::future::pending().await,
                    }
                };
                // Jittered, so that instances do not all look at once.
                let pause = LOOK + Duration::from_millis(u64::from(crate::id::random_bytes::<1>()[0]) * 4);
                tokio::select! {
                    _ = heard => {}
                    () = tokio::time::sleep(pause) => {}
                }
                let looked = tokio::time::timeout(LONGEST, self.0.look(&mut seen)).await;
                let silent = || Err(Error::Unavailable("the store does not answer".to_owned()));
                if let Err(error) = looked.unwrap_or_else(|_| silent()) {
                    tracing::debug!(%error, "changes could not be looked for");
                    tokio::time::sleep(LOOK).await;
                    break;
                }
            }
        }
    }
}

/// Changes that were noticed already: when, by id.
#[derive(Default)]
struct Seen {
    connections: HashMap<String, i64>,
    flows: HashMap<String, i64>,
}

impl Inner {
    /// `None` when it was granted, else how it ended.
    async fn wait_for(&self, flow: &Arc<str>) -> Option<FlowState> {
        let place = Place::new(self, flow);
        loop {
            let woken = place.notify.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            match self.state_of(flow).await {
                Ok(Some(ended)) => return ended,
                Ok(None) => woken.await,
                Err(error) => {
                    tracing::debug!(%error, "the state of a login could not be read");
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
    }

    /// `None` while it is open.
    async fn state_of(&self, flow: &str) -> Result<Option<Option<FlowState>>, Error> {
        Ok(match self.store.find_flow_state(flow).await?.as_deref() {
            Some("granted") => Some(None),
            Some("declined") => Some(Some(FlowState::Declined)),
            Some("expired") | None => Some(Some(FlowState::Expired)),
            Some(_) => None,
        })
    }

    /// Whether changes may have been missed: this process stood still, or the store could not be looked at. Until the
    /// next look, what is kept may be over.
    pub(super) fn is_behind(&self) -> bool {
        self.now().abs_diff(self.looked.load(Ordering::SeqCst)) > OVERLAP.unsigned_abs()
    }

    /// Forgets all that is kept, and wakes whoever waits: anything may have changed.
    fn start_anew(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        self.owners.invalidate_all();
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for notify in waiting.values() {
            notify.notify_waiters();
        }
    }

    async fn look(&self, seen: &mut Seen) -> Result<(), Error> {
        let (now, last) = (self.now(), self.looked.load(Ordering::SeqCst));
        let is_behind = self.is_behind();
        // After a gap everything is read anew: there may be more changes than can be looked through.
        let since = if is_behind { now } else { now.min(last) } - OVERLAP;
        let connections = self.store.list_changed_connections(since).await?;
        let flows = self.store.list_ended_flows(since).await?;
        if is_behind {
            self.start_anew();
        }
        for changed in connections {
            let key = format!("{} {}", changed.project, changed.id);
            if seen.connections.insert(key, changed.changed_at) != Some(changed.changed_at) {
                self.forget(&Owner {
                    project: changed.project.into(),
                    user: changed.user.into(),
                    profile: changed.profile.into(),
                });
            }
        }
        for (flow, at) in flows {
            if seen.flows.insert(flow.clone(), at) != Some(at) {
                self.wake_here(&flow);
            }
        }
        let old = since - OVERLAP;
        seen.connections.retain(|_, at| *at > old);
        seen.flows.retain(|_, at| *at > old);
        // Last, so that nothing is used again that was to be forgotten.
        self.looked.store(now, Ordering::SeqCst);
        Ok(())
    }
}
