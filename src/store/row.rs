//! What comes out of a statement.

use sqlx::Row as _;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;

use super::Error;

/// One row of a result.
pub struct Row(Inner);

enum Inner {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl From<SqliteRow> for Row {
    fn from(row: SqliteRow) -> Self {
        Row(Inner::Sqlite(row))
    }
}

impl From<PgRow> for Row {
    fn from(row: PgRow) -> Self {
        Row(Inner::Postgres(row))
    }
}

/// A reader of one type, for both engines.
macro_rules! reader {
    ($(#[$about:meta])* $name:ident, $kind:ty) => {
        $(#[$about])*
        ///
        /// # Errors
        /// [`Error::Unexpected`] when there is no such column or it holds another type.
        pub fn $name(&self, column: &str) -> Result<$kind, Error> {
            Ok(match &self.0 {
                Inner::Sqlite(row) => row.try_get(column)?,
                Inner::Postgres(row) => row.try_get(column)?,
            })
        }
    };
}

impl Row {
    reader!(
        /// A text.
        text, String
    );
    reader!(
        /// A text that may be absent.
        opt_text, Option<String>
    );
    reader!(
        /// A whole number.
        int, i64
    );
    reader!(
        /// A whole number that may be absent.
        opt_int, Option<i64>
    );
    reader!(
        /// Bytes.
        bytes, Vec<u8>
    );
    reader!(
        /// Bytes that may be absent.
        opt_bytes, Option<Vec<u8>>
    );

    /// Text that is kept as bytes, because PostgreSQL's texts cannot hold every character.
    ///
    /// # Errors
    /// [`Error::Unexpected`] when it is no UTF-8.
    pub fn wide_text(&self, column: &str) -> Result<String, Error> {
        String::from_utf8(self.bytes(column)?)
            .map_err(|_| Error::Unexpected(format!("`{column}` is no text")))
    }
}
