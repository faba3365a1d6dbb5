//! Runs of a database that was restored or copied: interrupted when the process starts, and resumed by hand.

use super::record::{Reader, Record, Status};
use super::runs::{Changed, Runs};
use crate::crypto::sha256;
use crate::id::random_id_of;
use crate::store::{Claimed, DirectoryLock, Error, INTERRUPTED, NewKey, RunRow};

/// The kind of key that lets a run be resumed once.
const RESUMED: &str = "resumed";
/// Random characters in the address of a run.
const ID: usize = 32;

impl Runs {
    /// Registers this process, and interrupts all unfinished runs when the database was restored or copied. `lock` says
    /// that nobody else serves from it: what the process before had begun is free at once.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn register(&self, lock: Option<DirectoryLock>) -> Result<(), Error> {
        let inner = &self.0;
        let (store, own, now) = (&inner.store, inner.journal.instance(), inner.now());
        let lease_time = store.lease_time(now).await?;
        let is_restored = match &lock {
            Some(lock) => store.is_behind(lock.last_write()).await?,
            None if store.is_shared() => store.is_elsewhere(lease_time - inner.lease()).await?,
            None => false,
        };
        store.register_instance(&own, lease_time).await?;
        if is_restored {
            inner.journal.interrupt_all(&own).await?;
        }
        if let Some(lock) = lock {
            store.declare_others_dead(&own, now).await?;
            store.release_leases("").await?;
            lock.record(&own, 0);
            inner.journal.hold(lock);
        }
        Ok(())
    }

    /// Resumes a run that was interrupted, as one with a new id. Asked for again it gives the same one: no call is made
    /// twice because somebody clicked twice.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn resume_interrupted(&self, id: &str, reader: &Reader) -> Result<Changed, Error> {
        let row = match self.own(id, reader).await? {
            Ok(row) => row,
            Err(why) => return Ok(why),
        };
        if !is_interrupted(&row) || row.ended_at.is_none() {
            return Ok(Changed::NotInterrupted);
        }
        let (store, now) = (&self.0.store, self.0.now());
        let resumed = random_id_of("run_", ID);
        let hash = sha256(row.id.as_bytes());
        let key = NewKey { kind: RESUMED, hash: &hash, body_hash: &hash, expires_at: i64::MAX };
        let mut open = store.begin().await?;
        let resumed = match open.claim_key(&row.project, &key, &resumed, now).await? {
            Claimed::Taken { run, .. } => run,
            Claimed::New => {
                open.copy_interrupted(&row, &resumed, now).await?;
                open.commit().await?;
                resumed
            }
        };
        self.again(&resumed, reader).await
    }
}

/// Whether the run ended, or is to end, because its database was restored.
pub(in crate::completion) fn is_interrupted(row: &RunRow) -> bool {
    row.reason.as_deref() == Some(INTERRUPTED)
}

impl Record {
    /// Whether its owner may resume it.
    pub fn can_be_resumed(&self) -> bool {
        self.status == Status::Failed && self.reason.as_deref() == Some(INTERRUPTED)
    }
}
