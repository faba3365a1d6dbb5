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
            | sqlx::Error::Encode(_)
            | sqlx::Error::TypeNotFound { .. } => Error::Unexpected(error.to_string()),
            other => Error::Unavailable(other.to_string()),
        }
    }
}

/// Whether an error says something about the database or the way to it, rather than about a row or a statement.
pub(super) fn is_of_database(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => error.kind() == sqlx::error::ErrorKind::Other,
        sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::ColumnIndexOutOfBounds { .. }
        | sqlx::Error::Decode(_)
        | sqlx::Error::Encode(_)
        | sqlx::Error::TypeNotFound { .. } => false,
        _ => true,
    }
}

/// The database's own words for why it cannot be used, in a few of ours: they are shown to strangers, who learn no paths
/// and no addresses from them.
pub(super) fn outage_reason(error: &sqlx::Error) -> &'static str {
    match error {
        sqlx::Error::Database(error) => database_reason(error.code().as_deref().unwrap_or_default()),
        sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::StorageFull => "disk full",
        sqlx::Error::PoolTimedOut => "no connection in time",
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => "it cannot be reached",
        _ => "it fails; see the log",
    }
}

/// SQLite's result codes are numbers, the low byte of which is the kind of the error; PostgreSQL's have five characters.
fn database_reason(code: &str) -> &'static str {
    if code.len() == 5 {
        return match code {
            "53100" => "disk full",
            "53200" => "out of memory",
            "53300" => "too many connections",
            "58030" => "disk error",
            "25006" => "it is read-only",
            _ => match code.get(..2) {
                Some("08" | "57") => "it cannot be reached",
                Some("28") => "it refuses our login",
                Some("XX") => "the database is damaged",
                _ => "it fails; see the log",
            },
        };
    }
    match code.parse::<i32>().map(|code| code & 0xff) {
        Ok(5 | 6) => "another process holds it",
        Ok(7) => "out of memory",
        Ok(8) => "it is read-only",
        Ok(10) => "disk error",
        Ok(11 | 26) => "the database is damaged",
        Ok(13) => "disk full",
        Ok(14) => "the database file cannot be opened",
        _ => "it fails; see the log",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_both_databases_are_said_in_words() {
        for (code, words) in [
            ("13", "disk full"),
            ("53100", "disk full"),
            ("778", "disk error"),
            ("1546", "disk error"),
            ("58030", "disk error"),
            ("14", "the database file cannot be opened"),
            ("57P01", "it cannot be reached"),
            ("25006", "it is read-only"),
            ("1", "it fails; see the log"),
            ("", "it fails; see the log"),
            ("äö1", "it fails; see the log"),
        ] {
            assert_eq!(database_reason(code), words, "{code}");
        }
    }
}
