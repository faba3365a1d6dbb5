//! Runs that go: on somebody's word, or because their time is over. With them goes every byte of them.

use super::wipe::Blank;
use super::{Error, Store, Transaction, values};

/// Runs of one piece, so that nobody waits long for the writer.
const PIECE: i64 = 50;

/// All that is kept of a run.
const REST_OF_ONE: [&str; 2] = [
    "DELETE FROM run_events WHERE project = $1 AND run = $2",
    "DELETE FROM run_keys WHERE project = $1 AND run = $2",
];

impl Transaction {
    /// Deletes the runs of a project. Comes behind [`Transaction::hold_all_instances`].
    pub(super) async fn delete_runs_of(&mut self, project: &str) -> Result<u64, Error> {
        self.blank(Blank::Project(project)).await?;
        let deleted = self.execute("DELETE FROM runs WHERE project = $1", values![project]).await?;
        for sql in ["DELETE FROM run_events WHERE project = $1", "DELETE FROM run_keys WHERE project = $1"] {
            self.execute(sql, values![project]).await?;
        }
        Ok(deleted)
    }

    /// Whether there is this run, and it is this owner's.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn has_run(&mut self, project: &str, id: &str, owner: &str) -> Result<bool, Error> {
        let sql = "SELECT id FROM runs WHERE project = $1 AND id = $2 AND owner = $3";
        Ok(self.row(sql, values![project, id, owner]).await?.is_some())
    }

    /// Makes everyone who writes events wait until this transaction has ended.
    pub(super) async fn hold_all_instances(&mut self) -> Result<(), Error> {
        let rows = self.rows("SELECT id FROM instances", values![]).await?;
        let ids = rows.iter().map(|row| row.text("id")).collect::<Result<_, _>>()?;
        self.hold_instances(ids).await
    }
}

impl Store {
    /// Deletes a run with its events and keys; says whether there was one. Who still carries it out can write no more
    /// of it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete_run(&self, project: &str, id: &str) -> Result<bool, Error> {
        loop {
            let mut open = self.begin().await?;
            let sql = "SELECT owner FROM runs WHERE project = $1 AND id = $2";
            let Some(row) = open.row(sql, values![project, id]).await? else { return Ok(false) };
            let owner = row.text("owner")?;
            open.hold_instances(vec![owner.clone()]).await?;
            open.blank(Blank::Run(project, id)).await?;
            // Should it have changed hands meanwhile, the wrong one was held.
            let sql = "DELETE FROM runs WHERE project = $1 AND id = $2 AND owner = $3";
            if open.execute(sql, values![project, id, owner]).await? == 0 {
                continue;
            }
            for sql in REST_OF_ONE {
                open.execute(sql, values![project, id]).await?;
            }
            // Those of a run whose time is over have a time of their own.
            open.delete_hidden_turns(project, id).await?;
            open.commit().await?;
            self.wipe().await;
            return Ok(true);
        }
    }

    /// Deletes a run that its owner has never begun, with its keys; says whether there was one. Once another process has
    /// it, it stays.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn withdraw_run(&self, project: &str, id: &str, owner: &str) -> Result<bool, Error> {
        let mut open = self.begin().await?;
        open.hold_instances(vec![owner.to_owned()]).await?;
        if !open.has_run(project, id, owner).await? {
            return Ok(false);
        }
        open.blank(Blank::Run(project, id)).await?;
        let sql = "DELETE FROM runs WHERE project = $1 AND id = $2 AND owner = $3";
        open.execute(sql, values![project, id, owner]).await?;
        for sql in REST_OF_ONE {
            open.execute(sql, values![project, id]).await?;
        }
        open.commit().await?;
        self.wipe().await;
        Ok(true)
    }

    /// Deletes up to `most` runs whose time is over at `now`, with their events and keys, and the keys whose time is
    /// over; says how many runs.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn expire_runs(&self, now: i64, most: u64) -> Result<u64, Error> {
        let mut gone = 0;
        while gone < most {
            let piece = PIECE.min(i64::try_from(most - gone).unwrap_or(PIECE));
            let deleted = self.expire_piece(now, piece).await?;
            gone += deleted;
            if deleted < piece.unsigned_abs() {
                break;
            }
        }
        let keys = "DELETE FROM run_keys WHERE (project, kind, key_hash) IN (
            SELECT project, kind, key_hash FROM run_keys WHERE expires_at <= $1 LIMIT $2)";
        self.execute(keys, values![now, i64::try_from(most).unwrap_or(i64::MAX)]).await?;
        if gone > 0 || self.is_unwiped() {
            self.wipe().await;
        }
        Ok(gone)
    }

    async fn expire_piece(&self, now: i64, most: i64) -> Result<u64, Error> {
        let sql = "SELECT project, id, owner FROM runs WHERE expires_at IS NOT NULL AND expires_at <= $1 AND ended_at IS NOT NULL
            ORDER BY expires_at, id LIMIT $2";
        let mut open = self.begin().await?;
        let rows = open.rows(sql, values![now, most]).await?;
        let owners = rows.iter().map(|row| row.text("owner")).collect::<Result<_, _>>()?;
        open.hold_instances(owners).await?;
        for row in &rows {
            open.blank(Blank::Run(&row.text("project")?, &row.text("id")?)).await?;
        }
        let mut deleted = 0;
        for row in &rows {
            let (project, id, owner) = (row.text("project")?, row.text("id")?, row.text("owner")?);
            // One that has changed hands meanwhile is for the next time.
            let sql = "DELETE FROM runs WHERE project = $1 AND id = $2 AND owner = $3 AND expires_at <= $4
                AND ended_at IS NOT NULL";
            if open.execute(sql, values![&project, &id, owner, now]).await? == 1 {
                deleted += 1;
                for sql in REST_OF_ONE {
                    open.execute(sql, values![&project, &id]).await?;
                }
            }
        }
        open.commit().await?;
        Ok(deleted)
    }
}
