//! Every column that holds sealed values: one list, so that changing the keys misses none.
//!
//! The list also fixes what a value is bound to. Whoever seals a value builds its [`Place`] with [`SealedColumn::place`].

use super::{Error, Row, Store, values};
use crate::crypto::{Place, sealed_prefix};

/// A column of sealed values. Made by `sealed!` alone, so that texts of statements are fixed.
#[derive(Debug)]
pub struct SealedColumn {
    pub table: &'static str,
    pub column: &'static str,
    page: &'static str,
    replace: &'static str,
    count: &'static str,
}

/// One sealed value, and what it is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedValue {
    pub row: String,
    pub project: String,
    pub user: String,
    pub sealed: Vec<u8>,
}

impl SealedColumn {
    /// Where a value of this column belongs.
    pub fn place<'a>(&self, row: &'a str, project: &'a str, user: &'a str) -> Place<'a>
    where
        Self: 'a,
    {
        Place { table: self.table, column: self.column, row, project, user }
    }
}

/// `sealed!(table, column, row, project, user)`: the last three are SQL for what identifies the row within the project,
/// for the project, and for the user.
macro_rules! sealed {
    ($table:literal, $column:literal, $row:literal, $project:literal, $user:literal) => {
        SealedColumn {
            table: $table,
            column: $column,
            page: concat!(
                "SELECT ",
                $row,
                " AS place_row, ",
                $project,
                " AS place_project, ",
                $user,
                " AS place_user, ",
                $column,
                " AS sealed FROM ",
                $table,
                " WHERE ",
                $column,
                " IS NOT NULL AND (",
                $project,
                ", ",
                $row,
                ") > ($1, $2) ORDER BY place_project, place_row LIMIT $3"
            ),
            replace: concat!(
                "UPDATE ",
                $table,
                " SET ",
                $column,
                " = $1 WHERE ",
                $project,
                " = $2 AND ",
                $row,
                " = $3 AND ",
                $column,
                " = $4"
            ),
            count: concat!(
                "SELECT COUNT(*) AS number FROM ",
                $table,
                " WHERE substr(",
                $column,
                ", 1, CAST($2 AS INTEGER)) = $1"
            ),
        }
    };
}

pub static META_VALUE: SealedColumn = sealed!("meta", "sealed_value", "name", "''", "''");
pub static PROJECT_WEBHOOK_SECRET: SealedColumn =
    sealed!("projects", "sealed_webhook_secret", "name", "name", "''");
pub static CONNECTION_ACCESS: SealedColumn = sealed!(
    "connection_secrets",
    "sealed_access",
    "connection",
    "project",
    "(SELECT c.user_name FROM connections c WHERE c.project = connection_secrets.project AND c.id = connection)"
);
pub static CONNECTION_REFRESH: SealedColumn = sealed!(
    "connection_secrets",
    "sealed_refresh",
    "connection",
    "project",
    "(SELECT c.user_name FROM connections c WHERE c.project = connection_secrets.project AND c.id = connection)"
);
pub static FLOW_LINK: SealedColumn = sealed!("flows", "sealed_link", "id", "project", "user_name");
pub static FLOW_CALLBACK_KEY: SealedColumn =
    sealed!("flows", "sealed_callback_key", "id", "project", "user_name");
pub static FLOW_VERIFIER: SealedColumn = sealed!("flows", "sealed_verifier", "id", "project", "user_name");
pub static FLOW_TOKENS: SealedColumn = sealed!("flows", "sealed_tokens", "id", "project", "user_name");
pub static FLOW_BATCH: SealedColumn = sealed!("flows", "sealed_batch", "id", "project", "user_name");
/// The row is the issuer, a space, and the redirect address; neither has spaces.
pub static REGISTRATION_SECRET: SealedColumn = sealed!(
    "registrations",
    "sealed_secret",
    "(issuer || ' ' || redirect_uri || ' ' || client_id)",
    "''",
    "''"
);
pub static OUTBOX_KEY: SealedColumn = sealed!("outbox", "sealed_key", "id", "project", "''");
/// What is told of a login has its link.
pub static OUTBOX_BODY: SealedColumn = sealed!("outbox", "sealed_body", "id", "project", "''");
pub static REVOCATION_REFRESH: SealedColumn =
    sealed!("revocations", "sealed_refresh", "id", "project", "user_name");
pub static REVOCATION_ACCESS: SealedColumn =
    sealed!("revocations", "sealed_access", "id", "project", "user_name");
pub static HIDDEN_TURN_MESSAGES: SealedColumn =
    sealed!("hidden_turns", "sealed_messages", "id", "project", "user_name");

/// All of them.
pub static SEALED_COLUMNS: &[&SealedColumn] = &[
    &META_VALUE,
    &PROJECT_WEBHOOK_SECRET,
    &CONNECTION_ACCESS,
    &CONNECTION_REFRESH,
    &FLOW_LINK,
    &FLOW_CALLBACK_KEY,
    &FLOW_VERIFIER,
    &FLOW_TOKENS,
    &FLOW_BATCH,
    &REGISTRATION_SECRET,
    &OUTBOX_KEY,
    &OUTBOX_BODY,
    &REVOCATION_REFRESH,
    &REVOCATION_ACCESS,
    &HIDDEN_TURN_MESSAGES,
];

impl Store {
    /// The next sealed values of a column behind `after`, in the order of project and row.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_sealed(
        &self,
        column: &SealedColumn,
        after: Option<&SealedValue>,
        most: i64,
    ) -> Result<Vec<SealedValue>, Error> {
        let (project, row) = after.map_or(("", ""), |value| (&value.project, &value.row));
        let rows = self.rows(column.page, values![project, row, most]).await?;
        rows.iter().map(SealedValue::of).collect()
    }

    /// Puts `sealed` in the place of `old`, unless something else stands there by now; says whether it did.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn replace_sealed(
        &self,
        column: &SealedColumn,
        old: &SealedValue,
        sealed: &[u8],
    ) -> Result<bool, Error> {
        let values = values![sealed, &old.project, &old.row, &old.sealed];
        Ok(self.execute(column.replace, values).await? > 0)
    }

    /// How many values of a column are sealed with the key of this name.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn count_sealed_with(&self, column: &SealedColumn, key_id: &str) -> Result<i64, Error> {
        let prefix = sealed_prefix(key_id);
        let length = i64::try_from(prefix.len()).expect("a prefix is short");
        let row = self.row(column.count, values![prefix, length]).await?;
        row.map_or(Ok(0), |row| row.int("number"))
    }
}

impl SealedValue {
    fn of(row: &Row) -> Result<Self, Error> {
        Ok(SealedValue {
            row: row.text("place_row")?,
            project: row.text("place_project")?,
            // Users are kept as bytes; nobody is an empty text.
            user: match row.wide_text("place_user") {
                Ok(user) => user,
                Err(_) => row.text("place_user")?,
            },
            sealed: row.bytes("sealed")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Location;

    /// `table.column` of every column whose name begins with `sealed_`, from the text of a migration.
    fn sealed_columns(text: &str) -> Vec<String> {
        let mut table = "";
        let mut found = Vec::new();
        for line in text.lines().map(str::trim) {
            let word =
                |text: &'static str| line.strip_prefix(text).and_then(|rest| rest.split([' ', '(']).next());
            if let Some(name) = word("CREATE TABLE ") {
                table = name;
            } else if let Some(name) = word("ALTER TABLE ") {
                table = name;
            }
            let column = line.split_once("ADD COLUMN ").map_or(line, |(_, column)| column);
            if let Some(name) = column.split(' ').next().filter(|name| name.starts_with("sealed_")) {
                found.push(format!("{table}.{name}"));
            }
        }
        found
    }

    #[test]
    fn every_sealed_column_of_the_migrations_is_listed() {
        let mut listed: Vec<String> =
            SEALED_COLUMNS.iter().map(|column| format!("{}.{}", column.table, column.column)).collect();
        listed.sort();
        for engine in ["sqlite", "postgres"] {
            let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(engine);
            let mut found: Vec<String> = std::fs::read_dir(folder)
                .unwrap()
                .flat_map(|file| sealed_columns(&std::fs::read_to_string(file.unwrap().path()).unwrap()))
                .collect();
            found.sort();
            assert_eq!(found, listed, "{engine}");
        }
        assert_eq!(
            sealed_columns("CREATE TABLE a (\n  sealed_x BLOB\n);\nALTER TABLE b ADD COLUMN sealed_y BLOB"),
            ["a.sealed_x", "b.sealed_y"]
        );
    }

    #[tokio::test]
    async fn the_statements_of_every_column_are_understood() {
        let store = Store::open(&Location::Memory).await.unwrap();
        store.migrate().await.unwrap();
        for column in SEALED_COLUMNS {
            assert_eq!(store.list_sealed(column, None, 10).await.unwrap(), [], "{column:?}");
            assert_eq!(store.count_sealed_with(column, "key_a").await.unwrap(), 0, "{column:?}");
        }
    }

    #[tokio::test]
    async fn values_are_found_page_by_page_counted_and_exchanged_only_when_unchanged() {
        let store = Store::open(&Location::Memory).await.unwrap();
        store.migrate().await.unwrap();
        let sealed = |key: &str, rest: u8| [sealed_prefix(key), vec![rest; 41]].concat();
        for (name, key) in [("a", "key_a"), ("b", "key_b"), ("c", "key_a")] {
            store.keep_meta(name, &sealed(key, 1)).await.unwrap();
        }
        assert_eq!(store.count_sealed_with(&META_VALUE, "key_a").await.unwrap(), 2);
        let first = store.list_sealed(&META_VALUE, None, 2).await.unwrap();
        let second = store.list_sealed(&META_VALUE, first.last(), 2).await.unwrap();
        let rows: Vec<&str> = first.iter().chain(&second).map(|value| value.row.as_str()).collect();
        assert_eq!(rows, ["a", "b", "c"]);
        assert!(store.replace_sealed(&META_VALUE, &first[0], &sealed("key_b", 2)).await.unwrap());
        assert!(
            !store.replace_sealed(&META_VALUE, &first[0], &sealed("key_b", 3)).await.unwrap(),
            "it has changed"
        );
        assert_eq!(store.find_meta("a").await.unwrap(), Some(sealed("key_b", 2)));
        assert_eq!(store.count_sealed_with(&META_VALUE, "key_a").await.unwrap(), 1);
    }

    #[tokio::test]
    async fn of_two_that_are_kept_at_once_the_first_stays() {
        let store = Store::open(&Location::Memory).await.unwrap();
        store.migrate().await.unwrap();
        assert_eq!(store.keep_meta("a", b"one").await.unwrap(), b"one");
        assert_eq!(store.keep_meta("a", b"two").await.unwrap(), b"one");
    }
}
