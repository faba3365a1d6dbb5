//! Statements that happen together or not at all.

use sqlx::postgres::PgArguments;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments, Postgres, Sqlite};

use super::{Error, Row, Value};

/// An open transaction. Dropping it undoes it.
pub struct Transaction(Inner);

pub(super) enum Inner {
    Sqlite(sqlx::Transaction<'static, Sqlite>),
    Postgres(sqlx::Transaction<'static, Postgres>),
}

impl Transaction {
    pub(super) fn new(inner: Inner) -> Self {
        Transaction(inner)
    }

    pub(super) fn is_sqlite(&self) -> bool {
        matches!(self.0, Inner::Sqlite(_))
    }

    /// As [`Store::execute`](super::Store::execute).
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn execute(&mut self, sql: &'static str, values: Vec<Value>) -> Result<u64, Error> {
        Ok(match &mut self.0 {
            Inner::Sqlite(open) => {
                sqlx::query_with(sql, bind_sqlite(values)?).execute(&mut **open).await?.rows_affected()
            }
            Inner::Postgres(open) => {
                sqlx::query_with(sql, bind_postgres(values)?).execute(&mut **open).await?.rows_affected()
            }
        })
    }

    /// The rows of any statement.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn rows(&mut self, sql: &'static str, values: Vec<Value>) -> Result<Vec<Row>, Error> {
        Ok(match &mut self.0 {
            Inner::Sqlite(open) => {
                let rows = sqlx::query_with(sql, bind_sqlite(values)?).fetch_all(&mut **open).await?;
                rows.into_iter().map(Row::from).collect()
            }
            Inner::Postgres(open) => {
                let rows = sqlx::query_with(sql, bind_postgres(values)?).fetch_all(&mut **open).await?;
                rows.into_iter().map(Row::from).collect()
            }
        })
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
    /// See [`Error`]; then nothing of it happened, or, when the connection broke just now, perhaps all of it.
    pub async fn commit(self) -> Result<(), Error> {
        match self.0 {
            Inner::Sqlite(open) => open.commit().await?,
            Inner::Postgres(open) => open.commit().await?,
        }
        Ok(())
    }
}

/// Binds values for one engine; the two have nothing in common but the look.
macro_rules! binder {
    ($name:ident, $arguments:ty) => {
        pub(super) fn $name(values: Vec<Value>) -> Result<$arguments, Error> {
            let mut arguments = <$arguments>::default();
            for value in values {
                let added = match value {
                    Value::Text(text) => arguments.add(text),
                    Value::Int(number) => arguments.add(number),
                    Value::Bytes(bytes) => arguments.add(bytes),
                };
                added.map_err(|error| Error::Unexpected(error.to_string()))?;
            }
            Ok(arguments)
        }
    };
}
binder!(bind_sqlite, SqliteArguments);
binder!(bind_postgres, PgArguments);
