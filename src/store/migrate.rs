//! The tables, brought up to date one numbered step at a time.

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

use super::engine::Engine;
use super::turn;
use super::{Error, Store};

/// Number, name, and the text for SQLite and PostgreSQL.
const STEPS: &[(i64, &str, &str, &str)] = &[
    (
        1,
        "identity",
        include_str!("../../migrations/sqlite/0001_identity.sql"),
        include_str!("../../migrations/postgres/0001_identity.sql"),
    ),
    (
        2,
        "connections",
        include_str!("../../migrations/sqlite/0002_connections.sql"),
        include_str!("../../migrations/postgres/0002_connections.sql"),
    ),
    (
        3,
        "one_flow_per_login",
        include_str!("../../migrations/sqlite/0003_one_flow_per_login.sql"),
        include_str!("../../migrations/postgres/0003_one_flow_per_login.sql"),
    ),
    (
        4,
        "fair_work",
        include_str!("../../migrations/sqlite/0004_fair_work.sql"),
        include_str!("../../migrations/postgres/0004_fair_work.sql"),
    ),
    (
        5,
        "runs",
        include_str!("../../migrations/sqlite/0005_runs.sql"),
        include_str!("../../migrations/postgres/0005_runs.sql"),
    ),
    (
        6,
        "hidden_turns",
        include_str!("../../migrations/sqlite/0006_hidden_turns.sql"),
        include_str!("../../migrations/postgres/0006_hidden_turns.sql"),
    ),
    (
        7,
        "store_probe",
        include_str!("../../migrations/sqlite/0007_store_probe.sql"),
        include_str!("../../migrations/postgres/0007_store_probe.sql"),
    ),
    (
        8,
        "restored",
        include_str!("../../migrations/sqlite/0008_restored.sql"),
        include_str!("../../migrations/postgres/0008_restored.sql"),
    ),
    (
        9,
        "holders",
        include_str!("../../migrations/sqlite/0009_holders.sql"),
        include_str!("../../migrations/postgres/0009_holders.sql"),
    ),
    (
        11,
        "logins",
        include_str!("../../migrations/sqlite/0011_logins.sql"),
        include_str!("../../migrations/postgres/0011_logins.sql"),
    ),
];

impl Store {
    /// Brings the tables up to date and gives the number of the last step. Several processes may do it at once.
    ///
    /// # Errors
    /// [`Error::Migration`].
    pub async fn migrate(&self) -> Result<i64, Error> {
        let is_sqlite = matches!(self.engine, Engine::Sqlite { .. });
        let steps = STEPS.iter().map(|(number, name, sqlite, postgres)| {
            let text = if is_sqlite { *sqlite } else { *postgres };
            Migration::new(*number, (*name).into(), MigrationType::Simple, text.into_sql_str(), false)
        });
        let migrator = Migrator::with_migrations(steps.collect());
        let done = match &self.engine {
            Engine::Sqlite { write, file, .. } => {
                // PostgreSQL has a lock for this.
                let turn = match file {
                    Some(file) => Some(turn::wait_for(file).await?),
                    None => None,
                };
                let done = migrator.run(write).await;
                drop(turn);
                done
            }
            Engine::Postgres(pool) => migrator.run(pool).await,
        };
        done.map_err(|error| Error::Migration(error.to_string()))?;
        Ok(STEPS.last().map_or(0, |(number, ..)| *number))
    }

    /// Whether every step is done.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn is_migrated(&self) -> Result<bool, Error> {
        let row = self
            .row("SELECT CAST(MAX(version) AS BIGINT) AS version FROM _sqlx_migrations", Vec::new())
            .await?;
        let version = row.map(|row| row.opt_int("version")).transpose()?.flatten();
        Ok(version == STEPS.last().map(|(number, ..)| *number))
    }
}
