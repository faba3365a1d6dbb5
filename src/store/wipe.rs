//! Taking what was deleted off the disk.
//!
//! SQLite overwrites deleted rows in its pages (`secure_delete`), with two gaps. Old pages stay in the write-ahead log
//! until that is taken into the database and cut. And when a deletion makes it put a page in order, copies of rows that
//! are still there can stay in unused space of that page; so rows that go together are blanked before the first of them
//! goes. A copy that was left earlier, when others went, is gone for sure only with `VACUUM`. PostgreSQL's own vacuum
//! does what it does there.

use std::sync::atomic::Ordering;

use super::engine::Engine;
use super::{Error, Store, Transaction, values};

/// How long the log waits for readers, and the writer for the log.
const BRIEFLY: &str = "PRAGMA busy_timeout = 500";
/// As long as every other statement: see `engine`.
const AS_EVER: &str = "PRAGMA busy_timeout = 10000";

/// Which rows are blanked. What takes up the same room is overwritten where it stands.
#[derive(Debug, Clone, Copy)]
pub(super) enum Blank<'a> {
    /// The run and its events.
    Run(&'a str, &'a str),
    /// Events of a run from one place up to, and without, another.
    Events(&'a str, &'a str, i64, i64),
    /// All runs of a project.
    Project(&'a str),
}

macro_rules! blank_events {
    ($which:literal) => {
        concat!(
            "UPDATE run_events SET events = zeroblob(length(events)),
                steps = CASE WHEN steps IS NULL THEN NULL ELSE zeroblob(length(steps)) END WHERE ",
            $which
        )
    };
}

macro_rules! blank_runs {
    ($which:literal) => {
        concat!(
            "UPDATE runs SET user_name = zeroblob(length(user_name)), profile = zeroblob(length(profile)),
                model = zeroblob(length(model)), title = zeroblob(length(title)),
                search = zeroblob(length(search)), metadata = zeroblob(length(metadata)),
                request = zeroblob(length(request)), state = zeroblob(length(state)) WHERE ",
            $which
        )
    };
}

impl Transaction {
    /// Blanks rows that are about to be deleted, in SQLite: the only statements that are for one engine, because the
    /// need for them is.
    pub(super) async fn blank(&mut self, which: Blank<'_>) -> Result<(), Error> {
        if !self.is_sqlite() {
            return Ok(());
        }
        match which {
            Blank::Run(project, run) => {
                let sql = blank_runs!("project = $1 AND id = $2");
                self.execute(sql, values![project, run]).await?;
                let sql = blank_events!("project = $1 AND run = $2");
                self.execute(sql, values![project, run]).await?;
            }
            Blank::Events(project, run, from, until) => {
                let sql = blank_events!("project = $1 AND run = $2 AND place >= $3 AND place < $4");
                self.execute(sql, values![project, run, from, until]).await?;
            }
            Blank::Project(project) => {
                self.execute(blank_runs!("project = $1"), values![project]).await?;
                self.execute(blank_events!("project = $1"), values![project]).await?;
            }
        }
        Ok(())
    }
}

impl Store {
    /// Whether something that was deleted may still be in the write-ahead log.
    pub(super) fn is_unwiped(&self) -> bool {
        self.unwiped.load(Ordering::Relaxed)
    }

    /// Cuts the write-ahead log. When a reader is in the way it is for the next time.
    pub(super) async fn wipe(&self) {
        let Engine::Sqlite { write, file: Some(_), .. } = &self.engine else { return };
        self.unwiped.store(true, Ordering::Relaxed);
        let (write, unwiped) = (write.clone(), self.unwiped.clone());
        // In a task of its own: whoever waits for it may be stopped, the connection must get its patience back.
        let done = tokio::spawn(async move {
            let mut connection = write.acquire().await?;
            let cutting = async {
                sqlx::query(BRIEFLY).execute(&mut *connection).await?;
                let cut = sqlx::query_scalar::<_, i64>("PRAGMA wal_checkpoint(TRUNCATE)")
                    .fetch_one(&mut *connection)
                    .await?;
                sqlx::query(AS_EVER).execute(&mut *connection).await?;
                Ok::<_, sqlx::Error>(cut)
            };
            match cutting.await {
                Ok(0) => unwiped.store(false, Ordering::Relaxed),
                Ok(_) => {}
                Err(error) => {
                    // Neither its patience nor its state is known.
                    connection.close_on_drop();
                    return Err(error);
                }
            }
            Ok(())
        });
        if let Ok(Err(error)) = done.await {
            tracing::debug!(%error, "the write-ahead log could not be cut; it will be later");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Location, RunRow};

    #[tokio::test]
    async fn a_log_that_a_reader_needs_is_cut_the_next_time() {
        let directory = std::env::temp_dir().join(crate::id::random_id("toolgate-store-"));
        std::fs::create_dir(&directory).unwrap();
        let store = Store::open(&Location::File(directory.join("toolgate.db"))).await.unwrap();
        store.migrate().await.unwrap();
        let mut open = store.begin().await.unwrap();
        for id in ["a", "b"] {
            let run = RunRow { id: id.to_owned(), request: b"canary-77aa".to_vec(), ..RunRow::default() };
            open.create_run(&run).await.unwrap();
        }
        open.commit().await.unwrap();
        let is_there = || {
            let files = std::fs::read_dir(&directory).unwrap().flatten();
            let mut bytes = files.map(|file| std::fs::read(file.path()).unwrap());
            bytes.any(|bytes| bytes.windows(11).any(|found| found == b"canary-77aa"))
        };
        let Engine::Sqlite { read, .. } = &store.engine else { unreachable!("it is in a file") };
        let mut reader = read.begin().await.unwrap();
        sqlx::query("SELECT id FROM runs").fetch_all(&mut *reader).await.unwrap();
        for id in ["a", "b"] {
            assert!(store.delete_run("", id).await.unwrap());
        }
        assert!(store.is_unwiped() && is_there());
        reader.rollback().await.unwrap();
        assert_eq!(store.expire_runs(1, 1).await.unwrap(), 0);
        assert!(!store.is_unwiped() && !is_there());
        let patience = sqlx::query_scalar::<_, i64>("PRAGMA busy_timeout");
        let Engine::Sqlite { write, .. } = &store.engine else { unreachable!("it is in a file") };
        assert_eq!(patience.fetch_one(write).await.unwrap(), 10_000, "the writer is as patient as ever");
        store.close().await;
        std::fs::remove_dir_all(directory).unwrap();
    }
}
