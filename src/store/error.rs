//! Why the store could not do what it was asked for.

/// The outcomes that callers treat differently. Messages name no values of rows.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A row with the same key is there already.
    #[error("it is there already")]
    Exists,
    /// The database cannot be reached or used now; the same request may work later.
    #[error("the database cannot be used: {0}")]
    Unavailable(String),
    /// A row does not have the shape the code expects: another version wrote it, or it is damaged.
    #[error("the database holds something unexpected: {0}")]
    Unexpected(String),
    /// The database was made by a newer version, or its migrations were changed.
    #[error("the database cannot be brought up to date: {0}")]
    Migration(String),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        if error.as_database_error().is_some_and(|error| error.is_unique_violation()) {
            return Error::Exists;
        }
        match error {
            sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::ColumnIndexOutOfBounds { .. }
            | sqlx::Error::Decode(_)
            | sqlx::Error::TypeNotFound { .. } => Error::Unexpected(error.to_string()),
            other => Error::Unavailable(other.to_string()),
        }
    }
}
