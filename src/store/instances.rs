//! Who carries runs out. A process that is declared dead writes no more events, whatever it had begun: each of its
//! transactions first touches its own row here, and so waits for the declaration, or is waited for.

use super::meta::raise_revision;
use super::{Error, RunRow, Store, Transaction, values};

/// The revision of runs that change hands. Raising it lets one do so at a time, so that no two wait for each other.
pub(super) const HANDS: &str = "runs_adopted";

const ALIVE_SQLITE: &str = "UPDATE instances SET seen_at = MAX(seen_at, $2), writes = writes + 1
    WHERE id = $1 AND dead = 0 RETURNING writes";
const ALIVE_POSTGRES: &str = "UPDATE instances SET writes = writes + 1, seen_at = GREATEST(seen_at,
        COALESCE($2, CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)))
    WHERE id = $1 AND dead = 0 RETURNING writes";

/// A process whose runs others may have to take over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuietInstance {
    pub id: String,
    /// When it was last seen, in milliseconds since 1970; `None` when nothing is known of it but its runs.
    pub seen_at: Option<i64>,
    pub is_dead: bool,
}

impl Transaction {
    /// Says that this instance lives, unless it was declared dead or is unknown: then nothing may be written. Comes
    /// first in every transaction that writes to runs of this instance. `None` is the database's own time.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn still_alive(&mut self, instance: &str, now: impl Into<Option<i64>>) -> Result<bool, Error> {
        Ok(self.count_write(instance, now).await?.is_some())
    }

    /// As [`Transaction::still_alive`]; gives how often the instance has written now.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn count_write(
        &mut self,
        instance: &str,
        now: impl Into<Option<i64>>,
    ) -> Result<Option<i64>, Error> {
        let sql = if self.is_sqlite() { ALIVE_SQLITE } else { ALIVE_POSTGRES };
        let now: Option<i64> = now.into();
        self.row(sql, values![instance, now]).await?.map(|row| row.int("writes")).transpose()
    }

    /// Makes the writers of these instances wait until this transaction has ended, and waits for them. Comes before
    /// any run is touched, as theirs does; in the order of ids, so that no two wait for each other.
    pub(super) async fn hold_instances(&mut self, mut ids: Vec<String>) -> Result<(), Error> {
        ids.sort_unstable();
        ids.dedup();
        for id in ids {
            let sql = "UPDATE instances SET seen_at = seen_at WHERE id = $1";
            self.execute(sql, values![id]).await?;
        }
        Ok(())
    }
}

impl Store {
    /// The time that leases are measured by: `now`, or nothing where the database has a clock that all instances share.
    pub fn lease_clock(&self, now: i64) -> Option<i64> {
        (!self.is_shared()).then_some(now)
    }

    /// As [`Store::lease_clock`], in milliseconds since 1970.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn lease_time(&self, now: i64) -> Result<i64, Error> {
        if let Some(now) = self.lease_clock(now) {
            return Ok(now);
        }
        let sql = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT) AS now";
        let row = self.row(sql, values![]).await?;
        row.map_or(Ok(now), |row| row.int("now"))
    }

    /// Adds this instance. Its id is new with every process.
    ///
    /// # Errors
    /// [`Error::Exists`] when there is, or was until lately, one of this id.
    pub async fn register_instance(&self, id: &str, now: i64) -> Result<(), Error> {
        let sql = "INSERT INTO instances (id, seen_at, dead) VALUES ($1, $2, 0)";
        self.execute(sql, values![id, now]).await.map(drop)
    }

    /// Others than `me` that were not seen since `seen_before`; and those that are dead, or unknown, and still have runs
    /// that have not ended.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_dead_candidates(
        &self,
        me: &str,
        seen_before: i64,
    ) -> Result<Vec<QuietInstance>, Error> {
        let rows = self
            .rows(
                "SELECT i.id AS id, i.seen_at AS seen_at, i.dead AS dead FROM instances i
                 WHERE i.id <> $1 AND ((i.dead = 0 AND i.seen_at < $2) OR (i.dead <> 0 AND EXISTS (
                    SELECT 1 FROM runs r WHERE r.owner = i.id AND r.ended_at IS NULL)))
                 UNION ALL
                 SELECT DISTINCT r.owner AS id, CAST(NULL AS BIGINT) AS seen_at, 0 AS dead FROM runs r
                 WHERE r.ended_at IS NULL AND r.owner <> '' AND r.owner <> $1
                    AND NOT EXISTS (SELECT 1 FROM instances i WHERE i.id = r.owner)
                 ORDER BY id",
                values![me, seen_before],
            )
            .await?;
        rows.iter()
            .map(|row| {
                let (id, seen_at) = (row.text("id")?, row.opt_int("seen_at")?);
                Ok(QuietInstance { id, seen_at, is_dead: row.int("dead")? != 0 })
            })
            .collect()
    }

    /// Declares an instance dead, for good, if it was not seen since `seen_before`; without that, if nothing is known of
    /// it. Says whether it is dead now. What it is writing at the moment is waited for, and then it was seen.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn declare_dead(&self, id: &str, seen_before: Option<i64>, now: i64) -> Result<bool, Error> {
        match seen_before {
            Some(before) => {
                let sql =
                    "UPDATE instances SET dead = 1, seen_at = $3 WHERE id = $1 AND dead = 0 AND seen_at < $2";
                self.execute(sql, values![id, before, now]).await?;
            }
            None => {
                let sql = "INSERT INTO instances (id, seen_at, dead) VALUES ($1, $2, 1) ON CONFLICT (id) DO NOTHING";
                self.execute(sql, values![id, now]).await?;
            }
        }
        // Asked of the writer: what was just written counts.
        let mut open = self.begin().await?;
        Ok(open.row("SELECT id FROM instances WHERE id = $1 AND dead <> 0", values![id]).await?.is_some())
    }

    /// Gives up to `most` runs that have not ended to `to`, the oldest first: those of an instance that is dead, or, for
    /// `""`, those that were handed over. Each goes to one taker only. None when `from` is not dead, or `to` is.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn adopt_runs(&self, from: &str, to: &str, most: i64, now: i64) -> Result<Vec<RunRow>, Error> {
        let there_are = "SELECT 1 AS one FROM runs WHERE owner = $1 AND ended_at IS NULL LIMIT 1";
        if to.is_empty() || self.row(there_are, values![from]).await?.is_none() {
            return Ok(Vec::new());
        }
        let mut open = self.begin().await?;
        if !open.still_alive(to, 0).await? {
            return Ok(Vec::new());
        }
        raise_revision(&mut open, HANDS).await?;
        let rows = open
            .rows(
                "UPDATE runs SET owner = $2, takeovers = takeovers + 1,
                    changed_at = CASE WHEN changed_at < $4 THEN $4 ELSE changed_at END
                 WHERE owner = $1 AND ended_at IS NULL
                    AND ($1 = '' OR EXISTS (SELECT 1 FROM instances i WHERE i.id = $1 AND i.dead <> 0))
                    AND (project, id) IN (SELECT r.project, r.id FROM runs r
                        WHERE r.owner = $1 AND r.ended_at IS NULL ORDER BY r.created_at, r.id LIMIT $3)
                 RETURNING *",
                values![from, to, most, now],
            )
            .await?;
        let mut runs = rows.iter().map(RunRow::read).collect::<Result<Vec<_>, _>>()?;
        open.commit().await?;
        runs.sort_by(|one, other| (one.created_at, &one.id).cmp(&(other.created_at, &other.id)));
        Ok(runs)
    }

    /// Hands these runs of an owner over to whoever takes them, where they have not ended; says how many.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn release_runs(&self, owner: &str, only: &[String]) -> Result<u64, Error> {
        let mut open = self.begin().await?;
        open.hold_instances(vec![owner.to_owned()]).await?;
        let mut released = 0;
        for id in only {
            let sql = "UPDATE runs SET owner = '' WHERE id = $1 AND owner = $2 AND ended_at IS NULL";
            released += open.execute(sql, values![id, owner]).await?;
        }
        open.commit().await?;
        Ok(released)
    }

    /// Forgets instances that were declared dead before this time and have no runs left.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn forget_instances(&self, before: i64) -> Result<u64, Error> {
        self.execute(
            "DELETE FROM instances WHERE dead <> 0 AND seen_at < $1
                AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.owner = instances.id AND r.ended_at IS NULL)",
            values![before],
        )
        .await
    }
}
