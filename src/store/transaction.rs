//! Statements that happen together or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::postgres::PgArguments;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments, Postgres, Sqlite};

use super::error::is_of_database;
use super::health::StoreHealth;
use super::{Error, Row, Value};

/// An open transaction. Dropping it undoes it.
pub struct Transaction {
    inner: Inner,
    health: Arc<StoreHealth>,
}

pub(super) enum Inner {
    /// With the sign that the connection is not to be used again.
    Sqlite(sqlx::Transaction<'static, Sqlite>, Arc<AtomicBool>),
    Postgres(sqlx::Transaction<'static, Postgres>),
}

impl Transaction {
    pub(super) fn new(inner: Inner, health: Arc<StoreHealth>) -> Self {
        Transaction { inner, health }
    }

    pub(super) fn is_sqlite(&self) -> bool {
        matches!(self.inner, Inner::Sqlite(..))
    }

    /// As [`Store::execute`](super::Store::execute).
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn execute(&mut self, sql: &'static str, values: Vec<Value>) -> Result<u64, Error> {
        let done = self.inner.execute(sql, values).await;
        done.map_err(|error| self.failed(error))
    }

    /// The rows of any statement.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn rows(&mut self, sql: &'static str, values: Vec<Value>) -> Result<Vec<Row>, Error> {
        let rows = self.inner.rows(sql, values).await;
        rows.map_err(|error| self.failed(error))
    }

    /// The first row of any statement.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn row(&mut self, sql: &'static str, values: Vec<Value>) -> Result<Option<Row>, Error> {
        Ok(self.rows(sql, values).await?.into_iter().next())
    }

    /// Makes it last.
    ///
    /// # Errors
    /// See [`Error`]; then nothing of it happened, or, when the disk or the connection broke just now, perhaps all of it.
    pub async fn commit(self) -> Result<(), Error> {
        let Transaction { inner, health } = self;
        let done = match inner {
            Inner::Sqlite(open, is_suspect) => {
                let done = open.commit().await;
                is_suspect.fetch_or(done.is_err(), Ordering::Relaxed);
                done
            }
            Inner::Postgres(open) => open.commit().await,
        };
        done.map_err(|error| health.failed(error))
    }

    fn failed(&self, error: sqlx::Error) -> Error {
        if let Inner::Sqlite(_, is_suspect) = &self.inner {
            is_suspect.fetch_or(is_of_database(&error), Ordering::Relaxed);
        }
        self.health.failed(error)
    }
}

impl Inner {
    async fn execute(&mut self, sql: &'static str, values: Vec<Value>) -> Result<u64, sqlx::Error> {
        Ok(match self {
            Inner::Sqlite(open, _) => {
                sqlx::query_with(sql, bind_sqlite(values)?).execute(&mut **open).await?.rows_affected()
            }
            Inner::Postgres(open) => {
                sqlx::query_with(sql, bind_postgres(values)?).execute(&mut **open).await?.rows_affected()
            }
        })
    }

    async fn rows(&mut self, sql: &'static str, values: Vec<Value>) -> Result<Vec<Row>, sqlx::Error> {
        Ok(match self {
            Inner::Sqlite(open, _) => {
                let rows = sqlx::query_with(sql, bind_sqlite(values)?).fetch_all(&mut **open).await?;
                rows.into_iter().map(Row::from).collect()
            }
            Inner::Postgres(open) => {
                let rows = sqlx::query_with(sql, bind_postgres(values)?).fetch_all(&mut **open).await?;
                rows.into_iter().map(Row::from).collect()
            }
        })
    }
}

/// Binds values for one engine; the two have nothing in common but the look.
macro_rules! binder {
    ($name:ident, $arguments:ty) => {
        pub(super) fn $name(values: Vec<Value>) -> Result<$arguments, sqlx::Error> {
            let mut arguments = <$arguments>::default();
            for value in values {
                let added = match value {
                    Value::Text(text) => arguments.add(text),
                    Value::Int(number) => arguments.add(number),
                    Value::Bytes(bytes) => arguments.add(bytes),
                };
                added.map_err(sqlx::Error::Encode)?;
            }
            Ok(arguments)
        }
    };
}
binder!(bind_sqlite, SqliteArguments);
binder!(bind_postgres, PgArguments);
