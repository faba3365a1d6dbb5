//! Opening a database and asking it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::Connection;
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use tokio::sync::broadcast;

use super::error::is_of_database;
use super::health::StoreHealth;
use super::opened_file::OpenedFile;
use super::transaction::{Inner, bind_postgres, bind_sqlite};
use super::turn;
use super::{Error, Row, Transaction, Value};

/// Connections that read at the same time in SQLite.
const READERS: u32 = 4;
/// Connections to PostgreSQL of one process.
const POSTGRES_CONNECTIONS: u32 = 10;
/// How long a statement waits for a connection or for the writer of another process.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it waits for one of PostgreSQL's: when that is away, a request must hear of it before its client gives up.
const POSTGRES_PATIENCE: Duration = Duration::from_secs(5);
/// Else the log would begin with remarks that tables are there already; and a process that stands still in the middle of
/// a transaction would keep its rows, and with them the right to its runs, from everyone else.
const ON_CONNECT: &str = "SET client_min_messages = warning; SET idle_in_transaction_session_timeout = 15000";
/// Topics that a slow listener may be behind; it is told when it missed some.
const TOPICS_AHEAD: usize = 1024;

/// Where a database is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// In a file, which is made when absent.
    File(PathBuf),
    /// In memory, gone with the process.
    Memory,
    /// In PostgreSQL, by its address. It holds a password: never shown.
    Postgres(crate::config::Secret),
}

/// A database. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pub(super) engine: Engine,
    pub(super) topics: broadcast::Sender<String>,
    /// Something was deleted that may still be in SQLite's write-ahead log.
    pub(super) unwiped: Arc<AtomicBool>,
    pub(super) health: Arc<StoreHealth>,
}

/// One SQL text runs on both.
#[derive(Clone)]
pub(super) enum Engine {
    /// One connection writes, so that no write ever fails because of another one of this process.
    Sqlite {
        read: SqlitePool,
        write: SqlitePool,
        /// Where it is, unless in memory.
        file: Option<PathBuf>,
        /// Something failed on the connection that writes: it is closed rather than used again.
        is_suspect: Arc<AtomicBool>,
    },
    Postgres(PgPool),
}

/// What a statement gives on a connection of a pool. One on which something fails that is not about a row is closed
/// rather than used again; the only one of a database in memory holds the database.
macro_rules! on_sqlite {
    ($pool:expr, $file:expr, $connection:ident => $statement:expr) => {{
        let mut held = $pool.acquire().await?;
        let $connection = &mut *held;
        let done = $statement.await;
        if $file.is_some() && done.as_ref().is_err_and(is_of_database) {
            held.close_on_drop();
        }
        done?
    }};
}

impl Store {
    /// Opens the database; [`Store::migrate`] brings it up to date.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn open(location: &Location) -> Result<Self, Error> {
        let engine = match location {
            Location::File(path) => {
                // A rotated token must not be lost with the power: the writer waits for the disk.
                let options = SqliteConnectOptions::new()
                    .filename(path)
                    .journal_mode(SqliteJournalMode::Wal)
                    .synchronous(SqliteSynchronous::Full)
                    .busy_timeout(PATIENCE)
                    // What is deleted must not stay readable on the disk.
                    .pragma("secure_delete", "ON")
                    .foreign_keys(true);
                let pool =
                    |most: u32| SqlitePoolOptions::new().max_connections(most).acquire_timeout(PATIENCE);
                let is_suspect = Arc::<AtomicBool>::default();
                let suspicion = Arc::clone(&is_suspect);
                let writer = pool(1).after_release(move |connection, _| {
                    let suspicion = Arc::clone(&suspicion);
                    Box::pin(async move {
                        // A rollback may still be queued.
                        connection.ping().await?;
                        // SQLite ends a transaction by itself when the disk is full, and sqlx does not hear of it: for
                        // this connection every later transaction would be one inside another.
                        Ok(!suspicion.swap(false, Ordering::Relaxed) && !connection.is_in_transaction())
                    })
                });
                let turn = turn::wait_for(path).await?;
                let write = writer.connect_with(options.clone().create_if_missing(true)).await?;
                // A file that is gone is not made anew, empty, when a connection is opened again.
                write.set_connect_options(options.clone());
                drop(turn);
                Engine::Sqlite {
                    read: pool(READERS).connect_lazy_with(options),
                    write,
                    file: Some(path.clone()),
                    is_suspect,
                }
            }
            Location::Memory => {
                let options = SqliteConnectOptions::new().in_memory(true).foreign_keys(true);
                // The database lives as long as its only connection.
                let only = SqlitePoolOptions::new()
                    .max_connections(1)
                    .idle_timeout(None)
                    .max_lifetime(None)
                    .connect_with(options)
                    .await?;
                Engine::Sqlite { read: only.clone(), write: only, file: None, is_suspect: Arc::default() }
            }
            Location::Postgres(url) => {
                let pool = PgPoolOptions::new()
                    .max_connections(POSTGRES_CONNECTIONS)
                    .acquire_timeout(POSTGRES_PATIENCE)
                    .after_connect(|connection, _| {
                        Box::pin(
                            async move { sqlx::raw_sql(ON_CONNECT).execute(connection).await.map(|_| ()) },
                        )
                    })
                    .connect(url.expose())
                    .await?;
                Engine::Postgres(pool)
            }
        };
        let health = Arc::<StoreHealth>::default();
        if let Location::File(path) = location {
            // It is set here alone.
            let _ = health.file.set(OpenedFile::at(path));
        }
        Ok(Store { engine, topics: broadcast::Sender::new(TOPICS_AHEAD), unwiped: Arc::default(), health })
    }

    /// Whether several processes may share this database over a network.
    pub fn is_shared(&self) -> bool {
        matches!(self.engine, Engine::Postgres(_))
    }

    /// Runs one statement that changes rows, and says how many.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn execute(&self, sql: &'static str, values: Vec<Value>) -> Result<u64, Error> {
        self.try_execute(sql, values).await.map_err(|error| self.health.failed(error))
    }

    pub(super) async fn try_execute(
        &self,
        sql: &'static str,
        values: Vec<Value>,
    ) -> Result<u64, sqlx::Error> {
        Ok(match &self.engine {
            Engine::Sqlite { write, file, .. } => {
                let query = sqlx::query_with(sql, bind_sqlite(values)?);
                on_sqlite!(write, file, connection => query.execute(connection)).rows_affected()
            }
            Engine::Postgres(pool) => {
                sqlx::query_with(sql, bind_postgres(values)?).execute(pool).await?.rows_affected()
            }
        })
    }

    /// The rows of one statement that only reads.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn rows(&self, sql: &'static str, values: Vec<Value>) -> Result<Vec<Row>, Error> {
        let pool = match &self.engine {
            Engine::Sqlite { read, .. } => Some(read),
            Engine::Postgres(_) => None,
        };
        self.try_rows(pool, sql, values).await.map_err(|error| self.health.failed(error))
    }

    /// The first row of one statement that only reads.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn row(&self, sql: &'static str, values: Vec<Value>) -> Result<Option<Row>, Error> {
        Ok(self.rows(sql, values).await?.into_iter().next())
    }

    /// The rows of one statement that changes and returns them (`… RETURNING …`).
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn change(&self, sql: &'static str, values: Vec<Value>) -> Result<Vec<Row>, Error> {
        let pool = match &self.engine {
            Engine::Sqlite { write, .. } => Some(write),
            Engine::Postgres(_) => None,
        };
        self.try_rows(pool, sql, values).await.map_err(|error| self.health.failed(error))
    }

    /// The rows of a statement; in SQLite on a connection of this pool.
    async fn try_rows(
        &self,
        sqlite: Option<&SqlitePool>,
        sql: &'static str,
        values: Vec<Value>,
    ) -> Result<Vec<Row>, sqlx::Error> {
        Ok(match (&self.engine, sqlite) {
            (Engine::Sqlite { file, read, .. }, pool) => {
                let pool = pool.unwrap_or(read);
                let query = sqlx::query_with(sql, bind_sqlite(values)?);
                let rows = on_sqlite!(pool, file, connection => query.fetch_all(connection));
                rows.into_iter().map(Row::from).collect()
            }
            (Engine::Postgres(pool), _) => {
                let rows = sqlx::query_with(sql, bind_postgres(values)?).fetch_all(pool).await?;
                rows.into_iter().map(Row::from).collect()
            }
        })
    }

    /// Begins a transaction that writes; it is undone unless it is committed.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn begin(&self) -> Result<Transaction, Error> {
        let begun = match &self.engine {
            // The lock is taken at once, so that a write in the middle cannot fail because somebody else has it.
            Engine::Sqlite { write, is_suspect, .. } => {
                let open = write.begin_with("BEGIN IMMEDIATE").await;
                is_suspect.fetch_or(open.is_err(), Ordering::Relaxed);
                open.map(|open| Inner::Sqlite(open, Arc::clone(is_suspect)))
            }
            Engine::Postgres(pool) => pool.begin().await.map(Inner::Postgres),
        };
        let inner = begun.map_err(|error| self.health.failed(error))?;
        Ok(Transaction::new(inner, Arc::clone(&self.health)))
    }

    /// Closes every connection, once what runs has ended.
    pub async fn close(&self) {
        match &self.engine {
            Engine::Sqlite { read, write, .. } => {
                read.close().await;
                write.close().await;
            }
            Engine::Postgres(pool) => pool.close().await,
        }
    }
}
