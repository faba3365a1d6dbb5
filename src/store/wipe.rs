//! Taking what was deleted off the disk.
//!
//! SQLite overwrites deleted rows in its pages (`secure_delete`), but old pages stay in the write-ahead log until that
//! is taken into the database and cut. PostgreSQL's own vacuum does what it does there.

use std::sync::atomic::Ordering;

use super::Store;
use super::engine::Engine;

/// How long the log waits for readers, and the writer for the log.
const BRIEFLY: &str = "PRAGMA busy_timeout = 500";
/// As long as every other statement: see `engine`.
const AS_EVER: &str = "PRAGMA busy_timeout = 10000";

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
            sqlx::query(BRIEFLY).execute(&mut *connection).await?;
            let cut = sqlx::query_scalar::<_, i64>("PRAGMA wal_checkpoint(TRUNCATE)")
                .fetch_one(&mut *connection)
                .await;
            sqlx::query(AS_EVER).execute(&mut *connection).await?;
            if cut? == 0 {
                unwiped.store(false, Ordering::Relaxed);
            }
            Ok::<(), sqlx::Error>(())
        });
        if let Ok(Err(error)) = done.await {
            tracing::debug!(%error, "the write-ahead log could not be cut; it will be later");
        }
    }
}
