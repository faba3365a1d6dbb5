//! Says that this process is alive, and takes over the runs of those that are not.
//!
//! A lease is the process's, not the run's: every write of the journal first touches the process's own row, and who
//! declares a process dead changes that row. So a process that stood still and wakes cannot write another event.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::journal::NEWS;
use super::log::{Log, Stop};
use super::record::{ShownSharing, Visibility};
use super::runs::{Inner, Runs};
use crate::store::{Error, Listener, RunRow};

/// What instances are told by: somebody has asked for the end of a run.
pub(super) const CANCEL: &str = "runs_cancel";
/// What instances are told by: somebody changed who may read a run, whose id follows.
pub(super) const CHANGED: &str = "runs_changed ";
/// The owner chose on a page who may read a run.
pub(super) const SHARED: &str = "runs_shared ";
/// What instances are told by: a run was deleted, and nothing of it is to be remembered.
pub(super) const FORGET: &str = "runs_forget ";
/// Runs of this process that are looked for in its memory.
const MOST_LOOKED_AT: i64 = 20_000;
/// Silence after which a process is taken for dead in a store that nobody shares, in milliseconds. It beats every second.
const ALONE: i64 = 3000;
/// Runs that are taken over at once.
const MOST_ADOPTED: i64 = 100;
/// How often is looked for what is too old to keep, in milliseconds.
const SELDOM: i64 = 30_000;
/// Runs that are forgotten in one piece.
const PIECE: u64 = 200;
/// How long what is left of runs may take to be written when the process stops.
const TO_SETTLE: Duration = Duration::from_secs(5);
/// Names of dead processes are kept for so long, in milliseconds: a day.
const NAMES_KEPT: i64 = 24 * 3_600_000;

impl Runs {
    /// Keeps runs alive until the process ends. `resume` goes on with one that was taken over.
    pub async fn keep(&self, resume: impl Fn(RunRow)) {
        let inner = &self.0;
        let beat = Duration::from_secs(inner.settings.lease_seconds.max(1)) / 3;
        let mut swept = inner.now();
        loop {
            if let Err(error) = inner.beat(&resume).await
                // Else it is said already.
                && inner.store.outage().is_none()
            {
                tracing::warn!(%error, "runs of other processes could not be looked after");
            }
            if inner.now() - swept > SELDOM {
                swept = inner.now();
                if let Err(error) = self.forget_old().await {
                    tracing::debug!(%error, "old runs could not be forgotten yet");
                }
                if let Err(error) = inner.look_where().await {
                    tracing::debug!(%error, "the database does not say which one it is");
                }
            }
            tokio::time::sleep(beat.min(Duration::from_secs(1))).await;
        }
    }

    /// Hears of runs of other processes, and of wishes to cancel, until the process ends.
    pub async fn watch(&self) {
        loop {
            match self.0.store.listen().await {
                Ok(mut listener) => self.0.hear(&mut listener).await,
                Err(error) => tracing::debug!(%error, "news of runs are looked for, not heard"),
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Forgets runs whose time is over.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn forget_old(&self) -> Result<(), Error> {
        let inner = &self.0;
        while inner.store.expire_runs(inner.now(), PIECE).await? >= PIECE {}
        inner.store.forget_instances(inner.now() - NAMES_KEPT).await?;
        Ok(())
    }

    /// Takes over nothing from now on: the process is about to stop.
    pub fn stop(&self) {
        self.0.is_stopping.store(true, Ordering::Relaxed);
    }

    /// Leaves the runs of this process to others: it stops. Calls of tools that nobody may repeat have so long to end.
    pub async fn hand_over(&self, grace: Duration) {
        self.stop();
        let (at_once, later): (Vec<_>, Vec<_>) =
            self.0.journal.all().into_iter().partition(|log| log.is_certain());
        self.leave(&at_once).await;
        if !later.is_empty() {
            tracing::info!(runs = later.len(), "stopping: calls of tools may end");
        }
        let ending = async {
            for log in &later {
                log.certain().await;
            }
        };
        if tokio::time::timeout(grace, ending).await.is_err() {
            tracing::warn!("tools were still at work when the time for stopping was over");
        }
        let rest = self.0.journal.all();
        self.leave(&rest).await;
        // Some may have been left by themselves just before, and are being written still.
        let leaving = async {
            for log in rest.iter().filter(|log| !log.is_refused()) {
                log.ended().await;
            }
        };
        let _ = tokio::time::timeout(TO_SETTLE, leaving).await;
        // Nobody needs to miss it before they take what is left.
        let (name, now) = (self.0.journal.instance(), self.0.now());
        if let Err(error) = self.0.store.declare_dead(&name, Some(i64::MAX), now).await {
            tracing::debug!(%error, "others have to miss this process");
        }
    }

    /// Leaves these runs to whoever takes them.
    pub(in crate::completion) async fn leave(&self, logs: &[Arc<Log>]) {
        let inner = &self.0;
        // What was refused is nobody's.
        let logs = logs.iter().filter(|log| !log.is_lost() && !log.is_refused() && log.close());
        let logs: Vec<&Arc<Log>> = logs.collect();
        if logs.is_empty() {
            return;
        }
        let settled = async {
            for log in &logs {
                log.settled_or_lost().await;
            }
        };
        let _ = tokio::time::timeout(TO_SETTLE, settled).await;
        let ids: Vec<String> = logs.iter().map(|log| log.id.to_string()).collect();
        if let Err(error) = inner.store.release_runs(&inner.journal.instance(), &ids).await {
            tracing::warn!(%error, "runs could not be handed over; others take them when this process is missed");
        }
        for log in logs {
            log.lose();
            inner.journal.remove(&log.id);
        }
    }
}

impl Inner {
    pub(super) fn now(&self) -> i64 {
        self.clock.unix_milliseconds()
    }

    /// Silence after which a process is taken for dead, in milliseconds.
    pub(super) fn lease(&self) -> i64 {
        i64::try_from(self.settings.lease_seconds.saturating_mul(1000)).unwrap_or(i64::MAX / 2)
    }

    /// Notices a database that was put in the place of this one while the process runs.
    async fn look_where(&self) -> Result<(), Error> {
        if self.store.is_shared()
            && self.store.is_elsewhere(self.store.lease_time(self.now()).await? - self.lease()).await?
        {
            self.journal.start_anew().await?;
        }
        Ok(())
    }

    async fn beat(&self, resume: &impl Fn(RunRow)) -> Result<(), Error> {
        let (now, own) = (self.now(), self.journal.instance());
        let is_alive = self.journal.say_alive().await?;
        let is_stopping = self.is_stopping.load(Ordering::Relaxed);
        if !is_alive {
            return if is_stopping { Ok(()) } else { self.journal.start_anew().await };
        }
        for (_, id) in self.store.list_cancel_requested(&own).await? {
            if let Some(log) = self.journal.find(&id) {
                log.end_early(Stop::Cancelled);
            }
        }
        if is_stopping {
            return Ok(());
        }
        let lease = self.lease();
        // Where nobody else should be, nobody is waited for long: only as long as a process that lives is never silent.
        let lease = if self.store.is_shared() { lease } else { lease.min(ALONE) };
        // Not by this machine's clock, which may be ahead of the others'.
        let now = self.store.lease_time(now).await?;
        let seen_before = now - lease;
        for other in self.store.list_dead_candidates(&own, seen_before).await? {
            let seen_before = other.seen_at.map(|_| seen_before);
            if other.is_dead || self.store.declare_dead(&other.id, seen_before, now).await? {
                if !other.is_dead {
                    self.store.release_leases(&other.id).await?;
                }
                self.adopt(&other.id, &own, resume).await?;
            }
        }
        self.release_lost(&own).await?;
        // Those that were handed over.
        self.adopt("", &own, resume).await
    }

    /// Lets go of runs that are this process's in the store, and not in its memory: their beginning broke off, or they could
    /// not be read. Each is taken up anew.
    async fn release_lost(&self, own: &str) -> Result<(), Error> {
        let (now, lease) =
            (self.now(), i64::try_from(self.settings.lease_seconds).unwrap_or(i64::MAX / 1000) * 1000);
        if now - self.looked_at.load(Ordering::Relaxed) < lease {
            return Ok(());
        }
        self.looked_at.store(now, Ordering::Relaxed);
        let ids = self.store.list_under_way(own, MOST_LOOKED_AT).await?;
        let taking_up = self.taking_up.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let is_absent = |id: &String| !taking_up.contains(id) && self.journal.find(id).is_none();
        let absent: HashSet<String> = ids.into_iter().filter(is_absent).collect();
        let before = {
            let mut absent_before = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *absent_before, absent.clone())
        };
        // Twice: it may have begun, or ended, between the two looks.
        let lost: Vec<String> = absent.intersection(&before).cloned().collect();
        if !lost.is_empty() {
            tracing::warn!(runs = lost.len(), "runs that nobody carried out are taken up anew");
            self.store.release_runs(own, &lost).await?;
        }
        Ok(())
    }

    async fn adopt(&self, from: &str, to: &str, resume: &impl Fn(RunRow)) -> Result<(), Error> {
        loop {
            let rows = self.store.adopt_runs(from, to, MOST_ADOPTED, self.now()).await?;
            let is_all = rows.len() < usize::try_from(MOST_ADOPTED).unwrap_or(usize::MAX);
            for row in rows {
                self.taking_up.lock().unwrap_or_else(PoisonError::into_inner).insert(row.id.clone());
                resume(row);
            }
            if is_all {
                return Ok(());
            }
        }
    }

    /// Somebody changed who may read a run, perhaps at another instance.
    async fn see_change(&self, id: &str) {
        let Some(log) = self.journal.find(id) else { return };
        if let Ok(Some(row)) = self.store.find_run(id).await {
            log.set_visibility(Visibility::parse(&row.visibility).unwrap_or(Visibility::Private));
        }
    }

    /// As [`Inner::see_change`], of a choice that covers only what the page showed.
    async fn see_sharing(&self, id: &str) {
        let Some(log) = self.journal.find(id) else { return };
        if let Ok(Some(row)) = self.store.find_run(id).await {
            let visibility = Visibility::parse(&row.visibility).unwrap_or(Visibility::Private);
            log.share(ShownSharing { visibility, used_logins: row.used_logins }, visibility);
        }
    }

    async fn hear(&self, listener: &mut Listener) {
        loop {
            match listener.next().await.as_deref() {
                Some(CANCEL) => {
                    if let Ok(wanted) = self.store.list_cancel_requested(&self.journal.instance()).await {
                        for log in wanted.iter().filter_map(|(_, id)| self.journal.find(id)) {
                            log.end_early(Stop::Cancelled);
                        }
                    }
                }
                Some(topic) if topic.starts_with(FORGET) => {
                    // In the store, too: this instance may just have been writing them.
                    if let Some((project, id)) = topic[FORGET.len()..].rsplit_once(' ')
                        && let Err(error) = self.memory.forget_run(project, id).await
                    {
                        tracing::debug!(%error, "hidden turns of a deleted run stay until they expire");
                    }
                }
                Some(topic) if topic.starts_with(CHANGED) => {
                    self.see_change(topic.strip_prefix(CHANGED).unwrap_or_default()).await;
                }
                Some(topic) if topic.starts_with(SHARED) => {
                    self.see_sharing(topic.strip_prefix(SHARED).unwrap_or_default()).await;
                }
                Some(topic) => {
                    for id in topic.strip_prefix(NEWS).unwrap_or_default().split_ascii_whitespace() {
                        // Nobody may be following.
                        let _ = self.news.send(id.to_owned());
                    }
                }
                None => {
                    let _ = self.news.send(String::new());
                    return;
                }
            }
        }
    }
}
