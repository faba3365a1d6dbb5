//! Finding out whether the store takes writes, before somebody's run or login does.

use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Instant, sleep_until, timeout};

use super::error::outage_reason;
use super::opened_file::OpenedFile;
use super::{Store, values};
use crate::telemetry::StoreMetrics;

/// The store is tried so often.
const EVERY: Duration = Duration::from_secs(5);
/// And so often while it takes nothing, or when statements fail.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// How long it may take to write one row.
const PATIENCE: Duration = Duration::from_secs(10);
/// The reason of an outage that is none of the database's own.
const FILE_REPLACED: &str = "its file was deleted or replaced";
/// What is written when something has failed: a disk that has room for a few bytes only is full.
const FILLER_BYTES: usize = 64 << 10;

impl Store {
    /// Writes the probe's own row every few seconds, and right after a statement has failed, until the process ends.
    pub async fn keep_probing(&self, metrics: StoreMetrics) {
        self.health.report_to(metrics);
        self.probe_every(EVERY, AT_MOST_EVERY).await;
    }

    pub(super) async fn probe_every(&self, every: Duration, at_most_every: Duration) {
        loop {
            let last = Instant::now();
            let filler_bytes = if self.health.take_suspicion() { FILLER_BYTES } else { 0 };
            let found = match timeout(PATIENCE, self.probe(filler_bytes)).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(failure)) => {
                    // That this one has failed is no reason to try another one.
                    let _ = self.health.suspected.notified().now_or_never();
                    Err(failure)
                }
                Err(_) => Err(("no answer in time", format!("no answer in {} s", PATIENCE.as_secs()))),
            };
            self.health.note(found);
            let pause = if self.outage().is_some() { at_most_every } else { every };
            tokio::select! {
                () = sleep_until(last + pause) => {}
                () = self.health.suspected.notified() => sleep_until(last + at_most_every).await,
            }
        }
    }

    /// Why the store takes no writes, in a few words, as its probe last found; `None` when it takes them. Touches no
    /// database.
    pub fn outage(&self) -> Option<&'static str> {
        self.health.outage()
    }

    /// Waits until the store takes no writes, as its probe finds.
    pub async fn until_outage(&self) {
        self.health.until_outage().await;
    }

    /// Writes the probe's row. Its size changes only where something has failed, so that the database does not grow.
    pub(super) async fn probe(&self, filler_bytes: usize) -> Result<(), (&'static str, String)> {
        if self.health.file.get().is_some_and(OpenedFile::was_replaced) {
            let words = "the database's file was deleted, moved or replaced while the gateway ran: what it writes would be \
                         lost. Put the file back, or stop the gateway and restore a backup";
            return Err((FILE_REPLACED, words.to_owned()));
        }
        let sql = "INSERT INTO store_probes (name, number, filler) VALUES ('gateway', 1, $1)
            ON CONFLICT (name) DO UPDATE SET number = store_probes.number + 1, filler = excluded.filler";
        let done = self.try_execute(sql, values![vec![0_u8; filler_bytes]]).await;
        done.map(drop).map_err(|error| (outage_reason(&error), self.health.failed(error).to_string()))
    }
}
