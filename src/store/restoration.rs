//! Databases that were restored from a backup, or copied: how they are recognised, and what becomes of the runs that
//! were under way in them. What those did after the backup is not in the database, so nobody may go on with them unasked.

use super::instances::HANDS;
use super::meta::raise_revision;
use super::{Error, LastWrite, RunRow, Store, Transaction, values};

/// A run that was stopped so says why with this word.
pub const INTERRUPTED: &str = "interrupted";

/// What PostgreSQL says of itself.
const IDENTITY: &str = "SELECT CAST(CAST('instances' AS regclass) AS oid)::bigint AS tables,
    (SELECT system_identifier::text FROM pg_control_system()) AS cluster,
    (SELECT timeline_id::bigint FROM pg_control_checkpoint()) AS timeline";
/// The same, where the rest is not for everyone.
const LITTLE_IDENTITY: &str = "SELECT CAST(CAST('instances' AS regclass) AS oid)::bigint AS tables,
    CAST('' AS text) AS cluster, CAST(0 AS bigint) AS timeline";

/// Notes where the tables are now.
const PLACE: &str = "INSERT INTO database_identity (one, identity) VALUES (1, $1)
    ON CONFLICT (one) DO UPDATE SET identity = excluded.identity";

/// A PostgreSQL database, told from those that were restored from it. A dump that is read in has new tables, another
/// server another name; a server that was restored to an earlier moment, or has taken another one's place, has a new
/// timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
struct DatabaseIdentity {
    tables: i64,
    cluster: String,
    timeline: i64,
}

impl DatabaseIdentity {
    fn text(&self) -> String {
        format!("{} {} {}", self.tables, self.timeline, self.cluster)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ' ');
        Some(DatabaseIdentity {
            tables: parts.next()?.parse().ok()?,
            timeline: parts.next()?.parse().ok()?,
            cluster: parts.next()?.to_owned(),
        })
    }

    /// Whether both are one database, as far as both say which one they are.
    fn is_same(&self, before: &DatabaseIdentity) -> bool {
        let says_little = self.cluster.is_empty() || before.cluster.is_empty();
        self.tables == before.tables && (says_little || self == before)
    }

    /// Whether a standby may have taken the place of the server: all else is the same.
    fn is_promotion_of(&self, before: &DatabaseIdentity) -> bool {
        (self.tables, &self.cluster) == (before.tables, &before.cluster)
    }
}

impl Store {
    /// Whether this SQLite database is another one, or an older one, than the one that `last_write` speaks of.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn is_behind(&self, last_write: Option<&LastWrite>) -> Result<bool, Error> {
        let Some(last_write) = last_write else {
            // A database of a version that had no such file has counted nothing.
            let counted = "SELECT 1 AS one FROM instances WHERE writes > 0 LIMIT 1";
            return Ok(self.row(counted, values![]).await?.is_some());
        };
        let sql = "SELECT writes FROM instances WHERE id = $1";
        let row = self.row(sql, values![&last_write.instance]).await?;
        let writes = row.map(|row| row.int("writes")).transpose()?;
        Ok(last_write.is_copy || writes.is_none_or(|writes| writes < last_write.writes))
    }

    /// Whether these tables are in another PostgreSQL database than when they were last used, or in one that was brought
    /// back to an earlier state. Where a standby has taken over and an instance goes on with it, that instance was there
    /// all the time. Notes where they are when that was not known.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn is_elsewhere(&self, seen_since: i64) -> Result<bool, Error> {
        let present = self.identity().await?;
        let sql = "INSERT INTO database_identity (one, identity) VALUES (1, $1) ON CONFLICT (one) DO NOTHING";
        self.execute(sql, values![present.text()]).await?;
        let known = self.row("SELECT identity FROM database_identity WHERE one = 1", values![]).await?;
        let known = known.map(|row| row.text("identity")).transpose()?.unwrap_or_default();
        let Some(known) = DatabaseIdentity::parse(&known) else {
            return Err(Error::Unexpected("the database's name for itself cannot be read".to_owned()));
        };
        if present.is_same(&known) {
            return Ok(false);
        }
        let is_promotion = present.is_promotion_of(&known);
        if !is_promotion || !self.is_served(seen_since).await? {
            return Ok(true);
        }
        self.execute(PLACE, values![present.text()]).await?;
        Ok(false)
    }

    /// Whether the database knows of fewer writes of a living instance than that instance has made.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn is_set_back(&self, instance: &str, writes: i64) -> Result<bool, Error> {
        let sql = "SELECT 1 AS one FROM instances WHERE id = $1 AND dead = 0 AND writes < $2";
        Ok(self.row(sql, values![instance, writes]).await?.is_some())
    }

    /// Whether an instance that is not dead was seen since then.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn is_served(&self, seen_since: i64) -> Result<bool, Error> {
        let sql = "SELECT 1 AS one FROM instances WHERE dead = 0 AND seen_at >= $1 LIMIT 1";
        Ok(self.row(sql, values![seen_since]).await?.is_some())
    }

    async fn identity(&self) -> Result<DatabaseIdentity, Error> {
        let row = match self.row(IDENTITY, values![]).await {
            Ok(row) => row,
            Err(error) => {
                tracing::debug!(%error, "the database does not say which server it is in");
                self.row(LITTLE_IDENTITY, values![]).await?
            }
        };
        let row = row.ok_or_else(|| Error::Unexpected("the database has no name".to_owned()))?;
        Ok(DatabaseIdentity {
            tables: row.int("tables")?,
            cluster: row.text("cluster")?,
            timeline: row.int("timeline")?,
        })
    }

    /// Takes this database, restored or not, for the one that was used last, and its runs for ones to go on with: also those
    /// that were to be interrupted, and have not ended yet.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn accept_as_original(&self) -> Result<(), Error> {
        let sql = "UPDATE runs SET reason = NULL WHERE ended_at IS NULL AND reason = 'interrupted'";
        self.execute(sql, values![]).await?;
        if !self.is_shared() {
            return Ok(());
        }
        let present = self.identity().await?;
        self.execute(PLACE, values![present.text()]).await.map(drop)
    }

    /// Interrupts all runs that have not ended, and says how many. All instances but `me` are dead from now on: what they
    /// have in memory belongs to another state of the database. Whoever takes such a run ends it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn interrupt_runs(&self, me: &str, now: i64, keep_until: i64) -> Result<u64, Error> {
        let present = if self.is_shared() { Some(self.identity().await?) } else { None };
        let mut open = self.begin().await?;
        raise_revision(&mut open, HANDS).await?;
        let sql = "UPDATE instances SET dead = 1, seen_at = $2 WHERE id <> $1 AND dead = 0";
        open.execute(sql, values![me, now]).await?;
        let interrupted = open
            .execute(
                "UPDATE runs SET reason = 'interrupted', owner = '',
                    expires_at = CASE WHEN expires_at < $2 THEN $2 ELSE expires_at END,
                    changed_at = CASE WHEN changed_at < $1 THEN $1 ELSE changed_at END
                 WHERE ended_at IS NULL",
                values![now, keep_until],
            )
            .await?;
        if let Some(present) = present {
            open.execute(PLACE, values![present.text()]).await?;
        }
        open.commit().await?;
        Ok(interrupted)
    }

    /// Declares all instances dead but `me`: nobody else serves from this database.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn declare_others_dead(&self, me: &str, now: i64) -> Result<(), Error> {
        let sql = "UPDATE instances SET dead = 1, seen_at = $2 WHERE id <> $1 AND dead = 0";
        self.execute(sql, values![me, now]).await.map(drop)
    }

    /// Lets go of renewals, webhooks and revocations that an instance had begun when it was lost; with `""`, that any had.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn release_leases(&self, instance: &str) -> Result<(), Error> {
        // `ended` is nobody's lease: it keeps a connection from ever being renewed again.
        for sql in [
            "UPDATE connection_secrets SET lease_owner = NULL, lease_until = 0
             WHERE lease_owner IS NOT NULL AND lease_owner <> 'ended' AND ($1 = '' OR lease_owner = $1)",
            "UPDATE outbox SET lease_owner = NULL, lease_until = 0
             WHERE lease_owner IS NOT NULL AND ($1 = '' OR lease_owner = $1)",
            "UPDATE revocations SET lease_owner = NULL, lease_until = 0
             WHERE lease_owner IS NOT NULL AND ($1 = '' OR lease_owner = $1)",
        ] {
            self.execute(sql, values![instance]).await?;
        }
        Ok(())
    }
}

impl Transaction {
    /// Copies an interrupted run to one with a new id, which nobody carries out yet, and all of its journal but its end.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn copy_interrupted(&mut self, run: &RunRow, id: &str, now: i64) -> Result<(), Error> {
        let expires_at = run.expires_at.map(|at| now + (at - run.created_at).max(0));
        let copy = RunRow {
            id: id.to_owned(),
            status: "queued".to_owned(),
            reason: None,
            owner: String::new(),
            takeovers: 0,
            cancel_requested: false,
            created_at: now,
            changed_at: now,
            ended_at: None,
            expires_at,
            ..run.clone()
        };
        self.create_run(&copy).await?;
        let copied = "INSERT INTO run_events (project, run, place, first, number, events, steps)
            SELECT e.project, $3, e.place, e.first, e.number, e.events, e.steps FROM run_events e
            WHERE e.project = $1 AND e.run = $2 AND e.place < (SELECT MAX(l.place) FROM run_events l
                WHERE l.project = $1 AND l.run = $2)";
        self.execute(copied, values![&run.project, &run.id, id]).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_server_other_tables_and_a_new_timeline_are_told_apart() {
        let identity = |text: &str| DatabaseIdentity::parse(text).unwrap();
        let original = identity("16400 1 7400000000000000001");
        assert_eq!(identity(&original.text()), original);
        for (text, is_same, is_promotion) in [
            ("16400 1 7400000000000000001", true, true),
            ("16400 2 7400000000000000001", false, true),
            ("16500 1 7400000000000000001", false, false),
            ("16400 1 7400000000000000002", false, false),
            // The role may not ask which server it is.
            ("16400 0 ", true, false),
            ("16500 0 ", false, false),
        ] {
            let present = identity(text);
            let found = (present.is_same(&original), present.is_promotion_of(&original));
            assert_eq!(found, (is_same, is_promotion), "{text}");
        }
        assert_eq!(DatabaseIdentity::parse("x"), None);
    }
}
