//! The audit log. Rows are only ever added, and go when they are old.

use super::{Error, Store, Transaction, Value, values};

/// One entry.
#[derive(Debug, Clone, Default)]
pub struct AuditRow {
    pub project: String,
    pub id: String,
    /// Milliseconds since 1970.
    pub at: i64,
    /// What happened, such as `connection.created`.
    pub event: String,
    pub user: Option<String>,
    pub profile: Option<String>,
    pub connection: Option<String>,
    pub flow: Option<String>,
    pub resource: Option<String>,
    /// Who caused it: a key, an account, the gateway itself.
    pub actor: String,
    pub detail: Option<String>,
}

pub(super) const ADD: &str =
    "INSERT INTO audit (project, id, at, event, user_name, profile, connection, flow, resource, actor, detail)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";

const ADD_ONCE: &str =
    "INSERT INTO audit (project, id, at, event, user_name, profile, connection, flow, resource, actor, detail)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (project, id) DO NOTHING";

pub(super) fn add_values(entry: &AuditRow) -> Vec<Value> {
    values![
        &entry.project,
        &entry.id,
        entry.at,
        &entry.event,
        entry.user.clone().map(String::into_bytes),
        entry.profile.clone().map(String::into_bytes),
        entry.connection.clone(),
        entry.flow.clone(),
        entry.resource.clone(),
        &entry.actor,
        entry.detail.clone(),
    ]
}

impl Transaction {
    /// Adds an entry whose id says what it is about, unless it is there already; says whether it was not.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn add_audit_once(&mut self, entry: &AuditRow) -> Result<bool, Error> {
        Ok(self.execute(ADD_ONCE, add_values(entry)).await? == 1)
    }
}

impl Store {
    /// Adds to the audit log.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn add_audit(&self, entry: &AuditRow) -> Result<(), Error> {
        self.execute(ADD, add_values(entry)).await.map(drop)
    }

    /// The newest entries, of one project where given.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_audit(&self, project: Option<&str>, most: i64) -> Result<Vec<AuditRow>, Error> {
        let rows = self
            .rows(
                "SELECT * FROM audit WHERE ($1 = '' OR project = $1) ORDER BY at DESC, id LIMIT $2",
                values![project.unwrap_or_default(), most],
            )
            .await?;
        let text = |bytes: Option<Vec<u8>>| bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        rows.iter()
            .map(|row| {
                Ok(AuditRow {
                    project: row.text("project")?,
                    id: row.text("id")?,
                    at: row.int("at")?,
                    event: row.text("event")?,
                    user: text(row.opt_bytes("user_name")?),
                    profile: text(row.opt_bytes("profile")?),
                    connection: row.opt_text("connection")?,
                    flow: row.opt_text("flow")?,
                    resource: row.opt_text("resource")?,
                    actor: row.text("actor")?,
                    detail: row.opt_text("detail")?,
                })
            })
            .collect()
    }
}
