//! What is done beside requests: webhooks, revocations, flows whose time is up, connections that nobody uses.

use std::sync::PoisonError;
use std::time::Duration;

use super::Error;
use super::service::{Connections, Inner};

/// How often it is looked whether something is due.
const PAUSE: Duration = Duration::from_millis(500);
/// How many pauses lie between looks for what is not urgent.
const SELDOM: u64 = 60;
/// Connections unused for so long are revoked, in milliseconds: 90 days.
const DORMANT: i64 = 90 * 24 * 3_600_000;
/// Flows that end in one transaction because their time is up.
const EXPIRED_AT_ONCE: i64 = 50;
/// Ended flows and delivered webhooks are kept for so long, in milliseconds: a day.
const KEPT: i64 = 24 * 3_600_000;

impl Connections {
    /// Works until the process ends. Any number of instances may do so at once.
    pub async fn work(&self) {
        let mut round = 0_u64;
        loop {
            if let Err(error) = self.once(round.is_multiple_of(SELDOM)).await {
                tracing::debug!(%error, "work on connections has to wait");
                tokio::time::sleep(PAUSE * 4).await;
            }
            round += 1;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Writes what is only in memory.
    pub async fn close(&self) {
        if let Err(error) = self.0.write_uses().await {
            tracing::warn!(%error, "the last uses of connections were not written down");
        }
    }

    async fn once(&self, thorough: bool) -> Result<(), Error> {
        let inner = &self.0;
        while inner.send_due().await? {}
        inner.revoke_due(None).await?;
        while inner.expire_some().await? {}
        let now = inner.now();
        if thorough {
            inner.write_uses().await?;
            inner.store.forget_flows(now - KEPT).await?;
            inner.store.forget_webhooks(now - KEPT).await?;
            for row in inner.store.list_unused_connections(now - DORMANT).await? {
                self.revoke_row(&row, "unused for 90 days", "gateway").await?;
            }
        }
        Ok(())
    }
}

impl Inner {
    /// Ends flows whose time is up, and says whether there were any.
    async fn expire_some(&self) -> Result<bool, Error> {
        let mut open = self.store.begin().await?;
        let expired = open.expire_flows(self.now(), EXPIRED_AT_ONCE).await?;
        if expired.is_empty() {
            return Ok(false);
        }
        for flow in &expired {
            self.revoke_held(&mut open, flow).await?;
            open.add_audit(&self.flow_entry(flow, "flow.expired", "gateway", None)).await?;
            self.tell_flow(&mut open, flow, "authorization.expired", None).await?;
        }
        open.commit().await?;
        for flow in &expired {
            self.wake(&flow.id).await;
        }
        Ok(true)
    }

    /// Writes when connections were used last, with one entry of the audit log each.
    async fn write_uses(&self) -> Result<(), Error> {
        let uses = std::mem::take(&mut *self.uses.lock().unwrap_or_else(PoisonError::into_inner));
        for ((project, connection), at) in uses {
            self.store.note_use(&project, &connection, at).await?;
            if let Some(row) = self.store.find_connection(&project, &connection).await? {
                let owner = super::Owner {
                    project: row.project.as_str().into(),
                    user: row.user.as_str().into(),
                    profile: row.profile.as_str().into(),
                };
                let mut entry = self.audit(&owner, "connection.used", "caller");
                entry.at = at;
                entry.connection = Some(row.id);
                entry.resource = Some(row.resource);
                self.note(entry).await?;
            }
        }
        Ok(())
    }
}
