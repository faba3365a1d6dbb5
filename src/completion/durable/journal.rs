//! Brings what is new of all runs into the store: many runs in one transaction, at most ten times a second unless
//! somebody waits for it, and half as often while nobody reads what is in the store.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::creation::Refusal;
use super::log::Log;
use super::taken::Taken;
use crate::clock::Clock;
use crate::connections::Connections;
use crate::id::random_id;
use crate::memory_budget::MemoryBudget;
use crate::store::{DirectoryLock, Error, Store, Transaction};

/// New events are written after so long at the latest while somebody watches.
const PAUSE: Duration = Duration::from_millis(100);
/// And after so long when nobody does.
const LONG_PAUSE: Duration = Duration::from_millis(200);
/// Runs of one transaction.
const MOST_RUNS: usize = 1000;
/// How long a store that takes nothing is tried again before the runs end.
const PATIENCE: Duration = Duration::from_secs(30);
/// Runs in a row that the store refuses before the store is taken to be away.
const MOST_REFUSED: usize = 3;
/// What instances are told by: runs that have something new follow it.
pub(super) const NEWS: &str = "runs ";
/// How long an interrupted run that is not stored can at least be resumed, in milliseconds: a day.
const TO_RESUME: i64 = 24 * 3_600_000;
/// Runs named in one notification; PostgreSQL takes less than 8,000 bytes.
const NAMED: usize = 100;

/// The way into the store. Cheap to clone.
#[derive(Clone)]
pub struct Journal(Arc<Inner>);

struct Inner {
    store: Store,
    connections: Connections,
    clock: Clock,
    /// Most bytes of the events of one run.
    most_bytes: usize,
    /// For what is read from the store.
    memory: MemoryBudget,
    /// This process's name among those that carry out runs. A new one when it was declared dead.
    instance: RwLock<Arc<str>>,
    /// How often it has written: a store that knows of less was brought back to an earlier state.
    writes: AtomicI64,
    /// Beside a database in a file, where that number is kept as well.
    lock: OnceLock<DirectoryLock>,
    /// The runs of this process.
    live: Mutex<HashMap<Arc<str>, Arc<Log>>>,
    queue: mpsc::UnboundedSender<Arc<str>>,
    hurry: Notify,
}

/// The end of the journal that writes. One task of the process has it.
pub struct Writer {
    journal: Journal,
    queued: mpsc::UnboundedReceiver<Arc<str>>,
    /// Runs that could not be written, and since when.
    failing: HashMap<Arc<str>, Instant>,
}

impl Journal {
    pub fn new(
        store: Store,
        connections: Connections,
        clock: Clock,
        most_bytes: usize,
        memory: MemoryBudget,
    ) -> (Self, Writer) {
        let (queue, queued) = mpsc::unbounded_channel();
        let instance = RwLock::new(connections.instance().into());
        let inner = Inner {
            store,
            connections,
            clock,
            most_bytes,
            memory,
            instance,
            writes: AtomicI64::new(0),
            lock: OnceLock::new(),
            live: Mutex::default(),
            queue,
            hurry: Notify::new(),
        };
        let journal = Journal(Arc::new(inner));
        (journal.clone(), Writer { journal, queued, failing: HashMap::new() })
    }

    pub fn clock(&self) -> Clock {
        self.0.clock.clone()
    }

    /// Most bytes of the events of one run.
    pub(super) fn most_bytes(&self) -> usize {
        self.0.most_bytes
    }

    /// Memory for what is read from the store.
    pub(super) fn memory(&self) -> &MemoryBudget {
        &self.0.memory
    }

    pub(super) fn store(&self) -> &Store {
        &self.0.store
    }

    /// This process's name in the store.
    pub fn instance(&self) -> Arc<str> {
        Arc::clone(&self.0.instance.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The run is carried out here from now on.
    pub fn add(&self, log: &Arc<Log>) {
        self.live().insert(Arc::clone(&log.id), Arc::clone(log));
    }

    /// It has ended, or is carried out elsewhere.
    pub fn remove(&self, id: &str) {
        self.live().remove(id);
    }

    /// The run's log, when it is carried out here.
    pub fn find(&self, id: &str) -> Option<Arc<Log>> {
        self.live().get(id).cloned()
    }

    /// All runs of this process.
    pub fn all(&self) -> Vec<Arc<Log>> {
        self.live().values().cloned().collect()
    }

    /// Whether somebody may be reading what comes into the store. Who does so on other instances is not known here.
    fn is_watched(&self) -> bool {
        self.0.store.is_shared() || self.live().values().any(|log| log.is_watched())
    }

    fn live(&self) -> std::sync::MutexGuard<'_, HashMap<Arc<str>, Arc<Log>>> {
        self.0.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something of the run is to be written, at once with `hurry`.
    pub(super) fn queue(&self, id: &Arc<str>, is_new: bool, hurry: bool) {
        if is_new {
            // The writer lives as long as the process.
            let _ = self.0.queue.send(Arc::clone(id));
        }
        if hurry {
            self.0.hurry.notify_one();
        }
    }

    /// Keeps the lock until the process ends, and notes there what is written.
    pub(super) fn hold(&self, lock: DirectoryLock) {
        // There is one.
        let _ = self.0.lock.set(lock);
    }

    /// Says that this process lives; false when it was declared dead, or the store was brought back to an earlier state.
    pub(super) async fn say_alive(&self) -> Result<bool, Error> {
        let mut open = self.0.store.begin().await?;
        let Some(writes) = self.count_write(&mut open).await? else { return Ok(false) };
        open.commit().await?;
        self.note_writes(writes);
        Ok(true)
    }

    async fn count_write(&self, open: &mut Transaction) -> Result<Option<i64>, Error> {
        let now = self.0.store.lease_clock(self.0.clock.unix_milliseconds());
        let writes = open.count_write(&self.instance(), now).await?;
        Ok(writes.filter(|writes| *writes > self.0.writes.load(Ordering::Relaxed)))
    }

    /// So much is in the store. Comes before anything is done that may not be done twice.
    fn note_writes(&self, writes: i64) {
        let known = self.0.writes.fetch_max(writes, Ordering::Relaxed);
        if known < writes
            && let Some(lock) = self.0.lock.get()
        {
            lock.record(&self.instance(), writes);
        }
    }

    /// Interrupts all unfinished runs of a database that was restored or copied.
    pub(super) async fn interrupt_all(&self, own: &str) -> Result<(), Error> {
        let now = self.0.clock.unix_milliseconds();
        let runs = self.0.store.interrupt_runs(own, now, now + TO_RESUME).await?;
        tracing::warn!(
            runs,
            "this database was restored from a backup, or copied: its unfinished runs are interrupted, so that nothing \
             they did since is done twice; their owners can resume them"
        );
        Ok(())
    }

    /// Another process has declared this one dead: its runs are lost, and it begins anew under another name.
    pub(super) async fn start_anew(&self) -> Result<(), Error> {
        for log in self.all() {
            log.lose();
            self.remove(&log.id);
        }
        let (store, old) = (&self.0.store, self.instance());
        let name: Arc<str> = random_id("gw_").into();
        store.register_instance(&name, store.lease_time(self.0.clock.unix_milliseconds()).await?).await?;
        if store.is_shared()
            && (store.is_set_back(&old, self.0.writes.load(Ordering::Relaxed)).await?
                || store.is_elsewhere(i64::MAX).await?)
        {
            self.interrupt_all(&name).await?;
        }
        self.0.writes.store(0, Ordering::Relaxed);
        *self.0.instance.write().unwrap_or_else(PoisonError::into_inner) = name;
        Ok(())
    }

    /// The store has more of the run than is known here, as when a write succeeded that was said to have failed: whoever
    /// takes it, goes on from there.
    async fn give_up(&self, log: &Log) {
        tracing::warn!(run.id = &*log.id, "a run is read anew");
        log.close();
        log.lose();
        self.remove(&log.id);
        if let Err(error) = self.0.store.release_runs(&self.instance(), &[log.id.to_string()]).await {
            tracing::warn!(%error, "a run is left until this process is missed");
        }
    }

    async fn write(&self, taken: &mut [(Arc<Log>, Taken)]) -> Result<bool, Error> {
        let now = self.0.clock.unix_milliseconds();
        let instance = self.instance();
        let mut open = self.0.store.begin().await?;
        let Some(writes) = self.count_write(&mut open).await? else { return Ok(false) };
        let mut batches = Vec::with_capacity(taken.len());
        let mut changes = Vec::new();
        for (log, part) in taken.iter() {
            if let Some(row) = &part.row {
                let mut row = (**row).clone();
                row.owner = instance.to_string();
                // The write before this one may have succeeded though it was said to have failed.
                let may_exist = log.state().may_exist;
                if !may_exist || !open.has_run(&row.project, &row.id, &row.owner).await? {
                    open.create_run(&row).await?;
                }
            }
            batches.extend(part.batch.clone());
            changes.extend(part.change.clone());
        }
        let given = batches.len() as u64;
        if open.append_events(&instance, batches).await? < given {
            // One of them was deleted, or is somebody else's: nothing of this was written.
            return Err(Error::Exists);
        }
        open.change_runs(&instance, &changes, now).await?;
        for (log, part) in taken.iter() {
            if part.failed {
                // An error never occupies a content key.
                open.release_key(&log.project, super::runs::CONTENT, &log.id).await?;
            }
            if let Some((told, status)) = &part.told {
                told.tell(&self.0.connections, &mut open, log, *status).await?;
            }
        }
        if let Err(error) = open.commit().await {
            for (log, _) in taken.iter().filter(|(_, part)| part.row.is_some()) {
                log.state().may_exist = true;
            }
            return Err(error);
        }
        self.note_writes(writes);
        Ok(true)
    }

    /// Takes a run back that was refused.
    async fn take_back(&self, log: &Log, refusal: Refusal) {
        if refusal == Refusal::Delete {
            match self.0.store.withdraw_run(&log.project, &log.id, &self.instance()).await {
                Ok(was_there) => {
                    tracing::info!(run.id = &*log.id, was_there, "a run that was refused is taken back");
                }
                Err(error) => {
                    tracing::debug!(%error, run.id = &*log.id, "a run could not be taken back yet");
                    return log.queue(false);
                }
            }
        }
        self.remove(&log.id);
    }
}

impl Writer {
    /// Writes until the process ends.
    pub async fn work(&mut self) {
        // Begun again after a panic: what was in hand then is looked at anew.
        for log in self.journal.all() {
            log.write_anew();
            self.journal.queue(&log.id, true, true);
        }
        let mut last = Instant::now();
        while let Some(first) = self.queued.recv().await {
            let pause = async {
                tokio::time::sleep_until(last + PAUSE).await;
                if !self.journal.is_watched() {
                    tokio::time::sleep_until(last + LONG_PAUSE).await;
                }
            };
            tokio::select! {
                () = pause => {}
                () = self.journal.0.hurry.notified() => {}
            }
            // Who was in a hurry is in the queue by now, and not to be hurried for again.
            let _ = self.journal.0.hurry.notified().now_or_never();
            let mut ids = vec![first];
            while ids.len() < MOST_RUNS
                && let Ok(id) = self.queued.try_recv()
            {
                ids.push(id);
            }
            ids.sort_unstable();
            ids.dedup();
            let logs = ids.iter().filter_map(|id| self.journal.find(id));
            let mut taken = Vec::with_capacity(ids.len());
            for log in logs {
                match log.take_refusal() {
                    Some(refusal) => self.journal.take_back(&log, refusal).await,
                    None => taken.push((Arc::clone(&log), log.take())),
                }
            }
            last = Instant::now();
            match self.journal.write(&mut taken).await {
                Ok(true) => {
                    self.settle(&taken).await;
                }
                Ok(false) => {
                    tracing::warn!("this process was taken for dead; its runs go on elsewhere");
                    if let Err(error) = self.journal.start_anew().await {
                        tracing::error!(%error, "no new name could be registered");
                    }
                }
                // Nobody else's runs are held up by one that cannot be written.
                Err(Error::Exists) => self.write_one_by_one(&mut taken).await,
                Err(error) => {
                    let runs = taken.len();
                    if self.journal.0.store.outage().is_none() {
                        tracing::warn!(%error, runs, "runs could not be written; trying again");
                    }
                    // Where the store takes anything at all, it is one of them that it does not take.
                    if taken.len() > 1 && matches!(self.journal.write(&mut []).await, Ok(true)) {
                        self.write_one_by_one(&mut taken).await;
                    } else {
                        self.try_again(&taken);
                        tokio::time::sleep(Duration::from_millis(250)).await;
                    }
                }
            }
        }
    }

    async fn write_one_by_one(&mut self, taken: &mut [(Arc<Log>, Taken)]) {
        let mut refused = 0;
        for at in 0..taken.len() {
            let one = &mut taken[at..=at];
            match self.journal.write(one).await {
                Ok(true) => {
                    refused = 0;
                    self.settle(one).await;
                }
                Err(Error::Exists) => self.journal.give_up(&one[0].0).await,
                // Seen again, and dealt with, at the next write.
                Ok(false) => one.iter().for_each(|(log, part)| log.unsettle(part)),
                Err(_) => {
                    refused += 1;
                    if refused == MOST_REFUSED {
                        // It is the store, after all: each of the others would wait for it.
                        return self.try_again(&taken[at..]);
                    }
                    self.try_again(one);
                }
            }
        }
    }

    /// They are written again, or end when that has been tried for long.
    fn try_again(&mut self, taken: &[(Arc<Log>, Taken)]) {
        self.failing.retain(|id, _| self.journal.find(id).is_some());
        for (log, part) in taken {
            let since = self.failing.entry(Arc::clone(&log.id)).or_insert_with(Instant::now);
            if since.elapsed() > PATIENCE {
                log.despair();
            }
            log.unsettle(part);
        }
    }

    async fn settle(&mut self, taken: &[(Arc<Log>, Taken)]) {
        for (log, part) in taken {
            log.settle(part);
            self.failing.remove(&log.id);
        }
        let store = &self.journal.0.store;
        if store.is_shared() {
            for named in taken.chunks(NAMED) {
                let ids: Vec<&str> = named.iter().map(|(log, _)| &*log.id).collect();
                store.notify(&format!("{NEWS}{}", ids.join(" "))).await;
            }
        }
    }
}
