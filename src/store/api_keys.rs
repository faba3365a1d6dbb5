//! API keys of projects. Only their hashes are here.

use super::{Error, Row, Store, values};

/// A key of an application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// The project's name.
    pub project: String,
    pub id: String,
    /// What people call it.
    pub name: String,
    /// SHA-256 of the key.
    pub hash: Vec<u8>,
    /// The key's last characters.
    pub ending: String,
    /// Words separated by spaces.
    pub scopes: String,
    pub requests_per_minute: Option<i64>,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970.
    pub revoked_at: Option<i64>,
}

impl ApiKey {
    fn of(row: &Row) -> Result<Self, Error> {
        Ok(ApiKey {
            project: row.text("project")?,
            id: row.text("id")?,
            name: row.text("name")?,
            hash: row.bytes("hash")?,
            ending: row.text("ending")?,
            scopes: row.text("scopes")?,
            requests_per_minute: row.opt_int("requests_per_minute")?,
            created_at: row.int("created_at")?,
            revoked_at: row.opt_int("revoked_at")?,
        })
    }
}

impl Store {
    /// Stores a new key of a project that exists.
    ///
    /// # Errors
    /// [`Error::Exists`] when the same key or id is there.
    pub async fn create_api_key(&self, key: &ApiKey) -> Result<(), Error> {
        let mut open = self.begin().await?;
        let sql = "INSERT INTO api_keys (project, id, name, hash, ending, scopes, requests_per_minute, created_at) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let ApiKey { project, id, name, hash, ending, scopes, requests_per_minute, created_at, .. } = key;
        let values = values![project, id, name, hash, ending, scopes, *requests_per_minute, *created_at];
        open.execute(sql, values).await?;
        self.finish(open).await
    }

    /// The keys of a project, or of all, by project and age; revoked ones too.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_api_keys(&self, project: Option<&str>) -> Result<Vec<ApiKey>, Error> {
        let sql =
            "SELECT * FROM api_keys WHERE project = COALESCE($1, project) ORDER BY project, created_at, id";
        self.rows(sql, values![project]).await?.iter().map(ApiKey::of).collect()
    }

    /// The keys that let somebody in.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_api_keys_in_use(&self) -> Result<Vec<ApiKey>, Error> {
        let sql = "SELECT * FROM api_keys WHERE revoked_at IS NULL ORDER BY project, created_at, id";
        self.rows(sql, values![]).await?.iter().map(ApiKey::of).collect()
    }

    /// Revokes a key at `now`; says whether there was one in use with this id.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn revoke_api_key(&self, id: &str, now: i64) -> Result<bool, Error> {
        let mut open = self.begin().await?;
        let sql = "UPDATE api_keys SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL";
        let revoked = open.execute(sql, values![id, now]).await?;
        self.finish(open).await?;
        Ok(revoked > 0)
    }
}
