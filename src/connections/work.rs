//! What is done beside requests: webhooks, revocations, flows whose time is up, connections that nobody uses, what is
//! too old to keep.
//!
//! Each kind has a loop of its own, so that a peer that takes its time holds up nothing but what goes to it.

use std::sync::PoisonError;
use std::time::Duration;

use tokio::task::JoinSet;

use super::Error;
use super::revoke::owner_of_connection;
use super::service::{Connections, Inner};
use crate::store::{ConnectionRow, Old, OutboxRow, RevocationRow};

/// How often it is looked whether something is due.
const PAUSE: Duration = Duration::from_millis(500);
/// How often is looked for what is not urgent.
const SELDOM: Duration = Duration::from_secs(30);
/// Connections unused for so long are revoked, in milliseconds: 90 days.
const DORMANT: i64 = 90 * DAY;
/// Ended flows and settled webhooks are kept for so long, in milliseconds: a day.
const KEPT: i64 = DAY;
/// Ended connections, and void registrations, are kept for so long, in milliseconds: 30 days.
const KEPT_ENDED: i64 = 30 * DAY;
const DAY: i64 = 24 * 3_600_000;
/// Flows that are ended in one transaction.
const MOST_EXPIRED: i64 = 100;
/// Uses that are written in one transaction.
const MOST_USES: usize = 200;
/// Pieces that are forgotten of one kind before others have a turn.
const MOST_PIECES: usize = 100;

/// A connection, by project and id, and when it was used.
type Use = ((String, String), i64);

/// Work that many do at the same time.
pub(super) trait Job: Send + Sized + 'static {
    /// Most at a time in this process.
    const AT_ONCE: usize;

    /// Takes up to `most` that are due.
    fn take(inner: &Inner, most: usize) -> impl Future<Output = Result<Vec<Self>, Error>> + Send;

    /// Does it. What fails is due again later.
    fn run(self, inner: &Inner) -> impl Future<Output = Result<(), Error>> + Send;
}

impl Connections {
    /// Works until the process ends. Any number of instances may do so at once.
    pub async fn work(&self) {
        tokio::join!(
            self.keep_doing::<OutboxRow>(),
            self.keep_doing::<RevocationRow>(),
            self.expire_flows(),
            self.note_uses(),
            self.end_dormant(),
            self.forget_old(),
        );
    }

    /// Writes what is only in memory.
    pub async fn close(&self) {
        if let Err(error) = self.0.write_uses().await {
            tracing::warn!(%error, "the last uses of connections were not written down");
        }
    }

    async fn keep_doing<J: Job>(&self) {
        let mut running = JoinSet::new();
        loop {
            let free = J::AT_ONCE.saturating_sub(running.len());
            if free > 0 {
                match J::take(&self.0, free).await {
                    Ok(jobs) => {
                        for job in jobs {
                            let connections = self.clone();
                            running.spawn(async move {
                                if let Err(error) = job.run(&connections.0).await {
                                    waits(&error);
                                }
                            });
                        }
                    }
                    Err(error) => waits(&error),
                }
            }
            let pause = tokio::time::sleep(PAUSE);
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    Some(ended) = running.join_next() => {
                        if let Err(error) = ended {
                            tracing::error!(%error, "work on connections broke off");
                        }
                        // What waited behind it may be due now.
                        if running.len() <= J::AT_ONCE / 2 {
                            break;
                        }
                    }
                    () = &mut pause => break,
                }
            }
        }
    }

    async fn expire_flows(&self) {
        loop {
            match self.0.expire_some().await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => waits(&error),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn note_uses(&self) {
        loop {
            if let Err(error) = self.0.write_uses().await {
                waits(&error);
            }
            tokio::time::sleep(SELDOM).await;
        }
    }

    async fn end_dormant(&self) {
        loop {
            match self.0.store.list_unused_connections(self.0.now() - DORMANT).await {
                Ok(rows) => {
                    for row in rows {
                        if let Err(error) = self.0.end_unused(&row).await {
                            waits(&error);
                        }
                    }
                }
                Err(error) => waits(&error.into()),
            }
            tokio::time::sleep(SELDOM).await;
        }
    }

    async fn forget_old(&self) {
        loop {
            if let Err(error) = self.0.forget_some().await {
                waits(&error);
            }
            tokio::time::sleep(SELDOM).await;
        }
    }
}

fn waits(error: &Error) {
    tracing::debug!(%error, "work on connections has to wait");
}

impl Inner {
    /// Ends flows whose time is up, and says so. True when there may be more.
    async fn expire_some(&self) -> Result<bool, Error> {
        let mut open = self.store.begin().await?;
        let flows = open.expire_flows(self.now(), MOST_EXPIRED).await?;
        for flow in &flows {
            self.revoke_held(&mut open, flow).await?;
            open.add_audit(&self.flow_entry(flow, "flow.expired", "gateway", None)).await?;
            self.tell_flow(&mut open, flow, "authorization.expired", None).await?;
        }
        open.commit().await?;
        for flow in &flows {
            self.wake(&flow.id).await;
        }
        Ok(i64::try_from(flows.len()).is_ok_and(|number| number >= MOST_EXPIRED))
    }

    /// The authorization server is told when the revocation has its turn.
    async fn end_unused(&self, row: &ConnectionRow) -> Result<(), Error> {
        let mut open = self.store.begin().await?;
        if self.end_in(&mut open, row, "unused for 90 days", "gateway", 0).await?.is_some() {
            open.commit().await?;
            self.changed(&owner_of_connection(row)).await;
        }
        Ok(())
    }

    /// Writes when connections were used last, with one entry of the audit log a day for each. Many at a time: every
    /// transaction waits for the disk.
    async fn write_uses(&self) -> Result<(), Error> {
        let uses = std::mem::take(&mut *self.uses.lock().unwrap_or_else(PoisonError::into_inner));
        let mut uses: Vec<Use> = uses.into_iter().collect();
        // Everywhere in the same order, so that no two instances wait for each other.
        uses.sort_unstable();
        let mut failed = None;
        for some in uses.chunks(MOST_USES) {
            let written = match failed {
                None => self.write_some_uses(some).await,
                Some(_) => Err(Error::Store),
            };
            if let Err(error) = written {
                // They are written with the next ones.
                let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
                for (place, at) in some {
                    let newest = uses.entry(place.clone()).or_insert(*at);
                    *newest = (*at).max(*newest);
                }
                failed = failed.or(Some(error));
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn write_some_uses(&self, uses: &[Use]) -> Result<(), Error> {
        let mut entries = Vec::with_capacity(uses.len());
        // Before the transaction, which keeps others from writing.
        for ((project, connection), at) in uses {
            let Some(row) = self.store.find_connection(project, connection).await? else { continue };
            let mut entry = self.audit(&owner_of_connection(&row), "connection.used", "caller");
            entry.id = about(&["connection.used", connection, &at.div_euclid(DAY).to_string()]);
            entry.at = *at;
            entry.connection = Some(row.id);
            entry.resource = Some(row.resource);
            entries.push(entry);
        }
        let mut open = self.store.begin().await?;
        for ((project, connection), at) in uses {
            open.note_use(project, connection, *at).await?;
        }
        for entry in &entries {
            open.add_audit_once(entry).await?;
        }
        Ok(open.commit().await?)
    }

    async fn forget_some(&self) -> Result<(), Error> {
        let now = self.now();
        for (old, age) in [
            (Old::Flows, KEPT),
            (Old::Webhooks, KEPT),
            (Old::Connections, KEPT_ENDED),
            (Old::Registrations, KEPT_ENDED),
            (Old::Audit, self.audit_age),
            (Old::HiddenTurns, 0),
        ] {
            for _ in 0..MOST_PIECES {
                if !self.store.forget(old, now - age).await? {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// The id of an entry of the audit log that is to be there once for what `parts` say.
pub(super) fn about(parts: &[&str]) -> String {
    let mut hex = crate::crypto::to_hex(&crate::crypto::sha256(parts.join("\n").as_bytes()));
    hex.truncate(40);
    format!("aud_{hex}")
}
