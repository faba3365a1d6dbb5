//! The open sessions of servers of the older eras: bounded in number, ended when idle, opened once.

use std::sync::{Arc, Once};
use std::time::Duration;

use futures_util::future::join_all;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::sync::OnceCell;

use super::deadline::Deadline;
use super::link::Rejection;
use super::peer::{Key, Peer};
use super::session::Session;
use super::{Core, Era};
use crate::tools::Error;

/// How often idle sessions are looked for.
const SWEEP: Duration = Duration::from_secs(15);

type Slot = Arc<OnceCell<Arc<Session>>>;

/// All open sessions. A session that is no longer kept ends with the last call in it.
pub(crate) struct Sessions {
    kept: Arc<Cache<Key, Slot>>,
    sweeper: Once,
}

impl Sessions {
    pub(crate) fn new(most: u64, idle: Duration) -> Self {
        let kept = Cache::builder()
            .max_capacity(most)
            .time_to_idle(idle)
            .eviction_policy(EvictionPolicy::lru())
            // The cache itself lets go of what it held at a time of its own choosing.
            .eviction_listener(|_, slot: Slot, _| slot.get().into_iter().for_each(|session| session.leave()))
            .build();
        Sessions { kept: Arc::new(kept), sweeper: Once::new() }
    }

    /// The session of `peer`, opened if there is none; `Ok(Err(_))` is the server's refusal to open one.
    ///
    /// # Errors
    /// What kept the server from answering.
    pub(crate) async fn get_or_open(
        &self,
        core: &Arc<Core>,
        peer: &Peer,
        version: &'static str,
        era: Era,
        deadline: &mut Deadline,
    ) -> Result<Result<Arc<Session>, Rejection>, Error> {
        self.sweep();
        let mut slot = self.kept.get_with(peer.session, Slot::default);
        if slot.get().is_some_and(|session| session.is_dead()) {
            self.forget(peer, &slot);
            slot = self.kept.get_with(peer.session, Slot::default);
        }
        let mut refusal = None;
        let opened = slot
            .get_or_try_init(|| async {
                match Session::open(core, peer, version, era, deadline).await {
                    Ok(Ok(session)) => Ok(Arc::new(session)),
                    Ok(Err(rejection)) => {
                        refusal = Some(rejection);
                        Err(None)
                    }
                    Err(error) => Err(Some(error)),
                }
            })
            .await;
        match opened {
            Ok(session) => Ok(Ok(Arc::clone(session))),
            Err(error) => {
                // An empty slot left behind is harmless: it opens the next time.
                match (error, refusal) {
                    (Some(error), _) => Err(error),
                    (None, Some(rejection)) => Ok(Err(rejection)),
                    (None, None) => unreachable!("a refusal is kept before it is reported"),
                }
            }
        }
    }

    /// Ends the session of `peer`, once nobody uses it.
    pub(crate) fn drop_session(&self, peer: &Peer) {
        self.kept.invalidate(&peer.session);
    }

    fn forget(&self, peer: &Peer, dead: &Slot) {
        // Only this very slot: another call may have replaced it already.
        if self.kept.get(&peer.session).is_some_and(|slot| Arc::ptr_eq(&slot, dead)) {
            self.kept.invalidate(&peer.session);
        }
    }

    /// Ends every session.
    pub(crate) async fn close(&self) {
        let open: Vec<_> = self.kept.iter().filter_map(|(_, slot)| slot.get().cloned()).collect();
        self.kept.invalidate_all();
        join_all(open.iter().map(|session| session.end())).await;
    }

    /// Idle sessions leave the cache only when it is used; this uses it.
    fn sweep(&self) {
        self.sweeper.call_once(|| {
            let kept = Arc::downgrade(&self.kept);
            tokio::spawn(async move {
                let mut ticks = tokio::time::interval(SWEEP);
                loop {
                    ticks.tick().await;
                    match kept.upgrade() {
                        Some(kept) => kept.run_pending_tasks(),
                        None => return,
                    }
                }
            });
        });
    }
}

impl Drop for Sessions {
    fn drop(&mut self) {
        for (_, slot) in self.kept.iter() {
            slot.get().into_iter().for_each(|session| session.leave());
        }
    }
}
