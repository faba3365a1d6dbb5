//! Whether the store takes writes, as its probe last found, and what may have changed that since.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::Error;
use super::error::outage_reason;
use super::opened_file::OpenedFile;
use crate::telemetry::StoreMetrics;

/// The state that all parts of one process share.
#[derive(Default)]
pub(super) struct StoreHealth {
    outage: watch::Sender<Option<Outage>>,
    /// A statement has failed since the last probe.
    is_suspect: AtomicBool,
    pub(super) suspected: Notify,
    metrics: OnceLock<StoreMetrics>,
    /// The database's file as it was opened; unset for other databases.
    pub(super) file: OnceLock<OpenedFile>,
}

/// A time in which the store takes no writes.
#[derive(Debug, Clone, Copy)]
struct Outage {
    reason: &'static str,
    since: Instant,
}

impl StoreHealth {
    /// Counts and shows from now on what happens here.
    pub fn report_to(&self, metrics: StoreMetrics) {
        metrics.set_healthy(self.outage().is_none());
        // Set once only: a process has one store.
        let _ = self.metrics.set(metrics);
    }

    /// The error as callers see it. One that says something about the database, rather than about a row, makes the
    /// probe look at once.
    pub fn failed(&self, error: sqlx::Error) -> Error {
        let reason = outage_reason(&error);
        let error = Error::from(error);
        if let Error::Unavailable(_) = error {
            tracing::debug!(%error, reason, "a statement failed");
            if let Some(metrics) = self.metrics.get() {
                metrics.failure();
            }
            self.is_suspect.store(true, Ordering::Relaxed);
            self.suspected.notify_one();
        }
        error
    }

    /// Why the store takes no writes, as far as is known.
    pub fn outage(&self) -> Option<&'static str> {
        self.outage.borrow().map(|outage| outage.reason)
    }

    /// Waits until the store takes no writes.
    pub async fn until_outage(&self) {
        // The sender lives as long as `self`.
        let _ = self.outage.subscribe().wait_for(Option::is_some).await;
    }

    /// Whether the next probe is to look closely: something has failed, or it is known that writes fail.
    pub fn take_suspicion(&self) -> bool {
        self.is_suspect.swap(false, Ordering::Relaxed) || self.outage().is_some()
    }

    /// Notes what a probe has found. Each change is logged once.
    pub fn note(&self, found: Result<(), (&'static str, String)>) {
        let before = *self.outage.borrow();
        let now = match found {
            Ok(()) => None,
            Err((reason, error)) => {
                let since = before.map_or_else(Instant::now, |before| before.since);
                if before.is_none() {
                    tracing::error!(
                        store.reason = reason,
                        error,
                        "the store takes no writes: stored runs, logins and renewals of logins are refused until it does"
                    );
                }
                Some(Outage { reason, since })
            }
        };
        if let (Some(before), None) = (before, now) {
            let seconds = before.since.elapsed().as_secs();
            tracing::info!(store.outage_seconds = seconds, "the store takes writes again");
        }
        self.outage.send_replace(now);
        if let Some(metrics) = self.metrics.get() {
            metrics.set_healthy(now.is_none());
        }
    }
}
