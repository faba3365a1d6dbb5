//! Connections and their sealed tokens.

use super::{Error, Row, Store, Transaction, values};

/// One row of `connections`.
#[derive(Debug, Clone)]
pub struct ConnectionRow {
    pub project: String,
    pub id: String,
    pub user: String,
    pub profile: String,
    pub resource: String,
    pub issuer: String,
    pub client_id: String,
    pub scopes: String,
    pub account: Option<String>,
    pub application: Vec<u8>,
    pub endpoints: Vec<u8>,
    /// `active`, `needs_reauth` or `revoked`.
    pub status: String,
    pub reason: Option<String>,
    pub created_at: i64,
    pub changed_at: i64,
    pub last_used_at: i64,
}

/// Its tokens.
#[derive(Debug, Clone)]
pub struct SecretsRow {
    pub generation: i64,
    pub sealed_access: Vec<u8>,
    pub sealed_refresh: Option<Vec<u8>>,
    pub issued_at: i64,
    pub expires_at: Option<i64>,
    pub lease_owner: Option<String>,
    pub lease_until: i64,
    pub attempt_started_at: Option<i64>,
    pub failures: i64,
    pub retry_at: i64,
    /// When the first of these failures was.
    pub failing_since: Option<i64>,
    /// The authorization server's word, when it refused one of them.
    pub refusal: Option<String>,
}

/// That a connection has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedConnection {
    pub project: String,
    pub user: String,
    pub profile: String,
    pub id: String,
    pub changed_at: i64,
}

/// Tokens to be stored.
#[derive(Debug, Clone)]
pub struct NewSecrets {
    pub sealed_access: Vec<u8>,
    pub sealed_refresh: Option<Vec<u8>>,
    pub issued_at: i64,
    pub expires_at: Option<i64>,
}

/// How a renewal failed that left the connection as it was. Times are milliseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub struct RenewalFailure<'a> {
    pub at: i64,
    /// Not tried again before.
    pub retry_at: i64,
    /// Whether the refresh token may have been spent all the same.
    pub in_doubt: bool,
    /// The authorization server's word, when it refused.
    pub refusal: Option<&'a str>,
}

impl ConnectionRow {
    fn read(row: &Row) -> Result<Self, Error> {
        Ok(ConnectionRow {
            project: row.text("project")?,
            id: row.text("id")?,
            user: row.wide_text("user_name")?,
            profile: row.wide_text("profile")?,
            resource: row.text("resource")?,
            issuer: row.text("issuer")?,
            client_id: row.text("client_id")?,
            scopes: row.text("scopes")?,
            account: row.opt_bytes("account")?.and_then(|bytes| String::from_utf8(bytes).ok()),
            application: row.bytes("application")?,
            endpoints: row.bytes("endpoints")?,
            status: row.text("status")?,
            reason: row.opt_text("reason")?,
            created_at: row.int("created_at")?,
            changed_at: row.int("changed_at")?,
            last_used_at: row.int("last_used_at")?,
        })
    }
}

impl SecretsRow {
    fn read(row: &Row) -> Result<Self, Error> {
        Ok(SecretsRow {
            generation: row.int("generation")?,
            sealed_access: row.bytes("sealed_access")?,
            sealed_refresh: row.opt_bytes("sealed_refresh")?,
            issued_at: row.int("issued_at")?,
            expires_at: row.opt_int("expires_at")?,
            lease_owner: row.opt_text("lease_owner")?,
            lease_until: row.int("lease_until")?,
            attempt_started_at: row.opt_int("attempt_started_at")?,
            failures: row.int("failures")?,
            retry_at: row.int("retry_at")?,
            failing_since: row.opt_int("failing_since")?,
            refusal: row.opt_text("refusal")?,
        })
    }
}

impl Store {
    /// The connections of one owner, without revoked ones.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_connections_of(
        &self,
        project: &str,
        user: &str,
        profile: &str,
    ) -> Result<Vec<ConnectionRow>, Error> {
        let rows = self
            .rows(
                "SELECT * FROM connections
                 WHERE project = $1 AND user_name = $2 AND profile = $3 AND status <> 'revoked'
                 ORDER BY created_at, id",
                values![project, user.as_bytes(), profile.as_bytes()],
            )
            .await?;
        rows.iter().map(ConnectionRow::read).collect()
    }

    /// The connections of a project, of one user and profile where given, without revoked ones, newest first: at most
    /// `most`, and only those that come after the one made at this time and with this id.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_connections(
        &self,
        project: &str,
        user: Option<&str>,
        profile: Option<&str>,
        after: Option<(i64, String)>,
        most: i64,
    ) -> Result<Vec<ConnectionRow>, Error> {
        let (made, id) = after.unwrap_or((i64::MAX, String::new()));
        let rows = self
            .rows(
                "SELECT * FROM connections
                 WHERE project = $1 AND status <> 'revoked'
                    AND ($2 = 0 OR user_name = $3) AND ($4 = 0 OR profile = $5)
                    AND (created_at < $6 OR (created_at = $6 AND id > $7))
                 ORDER BY created_at DESC, id LIMIT $8",
                values![
                    project,
                    i64::from(user.is_some()),
                    user.unwrap_or_default().as_bytes(),
                    i64::from(profile.is_some()),
                    profile.unwrap_or_default().as_bytes(),
                    made,
                    id,
                    most,
                ],
            )
            .await?;
        rows.iter().map(ConnectionRow::read).collect()
    }

    /// Every connection that is not revoked: of a project, a user and an issuer where given.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_connections_everywhere(
        &self,
        project: Option<&str>,
        user: Option<&str>,
        issuer: Option<&str>,
    ) -> Result<Vec<ConnectionRow>, Error> {
        let rows = self
            .rows(
                "SELECT * FROM connections WHERE status <> 'revoked'
                    AND ($1 = '' OR project = $1) AND ($2 = 0 OR user_name = $3) AND ($4 = '' OR issuer = $4)
                 ORDER BY project, created_at, id",
                values![
                    project.unwrap_or_default(),
                    i64::from(user.is_some()),
                    user.unwrap_or_default().as_bytes(),
                    issuer.unwrap_or_default(),
                ],
            )
            .await?;
        rows.iter().map(ConnectionRow::read).collect()
    }

    /// One connection.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn find_connection(&self, project: &str, id: &str) -> Result<Option<ConnectionRow>, Error> {
        let row = self
            .row("SELECT * FROM connections WHERE project = $1 AND id = $2", values![project, id])
            .await?;
        row.as_ref().map(ConnectionRow::read).transpose()
    }

    /// One connection of any project, for the operator: ids are never given twice.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn find_connection_by_id(&self, id: &str) -> Result<Option<ConnectionRow>, Error> {
        let row = self.row("SELECT * FROM connections WHERE id = $1", values![id]).await?;
        row.as_ref().map(ConnectionRow::read).transpose()
    }

    /// Its tokens.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn find_secrets(&self, project: &str, connection: &str) -> Result<Option<SecretsRow>, Error> {
        let row = self
            .row(
                "SELECT * FROM connection_secrets WHERE project = $1 AND connection = $2",
                values![project, connection],
            )
            .await?;
        row.as_ref().map(SecretsRow::read).transpose()
    }

    /// Connections that changed at `since` or later: owner (project, user, profile), id, and when.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_changed_connections(&self, since: i64) -> Result<Vec<ChangedConnection>, Error> {
        let rows = self
            .rows(
                "SELECT project, user_name, profile, id, changed_at FROM connections WHERE changed_at >= $1",
                values![since],
            )
            .await?;
        rows.iter()
            .map(|row| {
                Ok(ChangedConnection {
                    project: row.text("project")?,
                    user: row.wide_text("user_name")?,
                    profile: row.wide_text("profile")?,
                    id: row.text("id")?,
                    changed_at: row.int("changed_at")?,
                })
            })
            .collect()
    }

    /// Takes the right to renew the tokens of `generation` for so many milliseconds, and says that an attempt begins.
    /// False when somebody else has it, or the tokens are newer. PostgreSQL measures it by its own clock, since those of
    /// two instances may differ by more than the time of a lease.
    ///
    /// # Errors
    /// See [`Error`]: then the token must not be spent.
    pub async fn take_lease(
        &self,
        connection: &ConnectionRow,
        generation: i64,
        owner: &str,
        now: i64,
        lease: i64,
    ) -> Result<bool, Error> {
        let sql = if self.is_shared() {
            "UPDATE connection_secrets SET lease_owner = $4, attempt_started_at = $5,
                lease_until = CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT) + $6
             WHERE project = $1 AND connection = $2 AND generation = $3 AND (lease_owner IS NULL
                OR lease_until <= CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT))"
        } else {
            "UPDATE connection_secrets SET lease_owner = $4, lease_until = $5 + $6, attempt_started_at = $5
             WHERE project = $1 AND connection = $2 AND generation = $3
                AND (lease_owner IS NULL OR lease_until <= $5)"
        };
        let values = values![&connection.project, &connection.id, generation, owner, now, lease];
        Ok(self.execute(sql, values).await? == 1)
    }

    /// Gives the lease back after an attempt that brought nothing, and says when the next may be. `in_doubt`: the token
    /// may have been spent all the same.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn give_lease_back(
        &self,
        connection: &ConnectionRow,
        generation: i64,
        owner: &str,
        failure: &RenewalFailure<'_>,
    ) -> Result<(), Error> {
        let RenewalFailure { at, retry_at, in_doubt, refusal } = *failure;
        self.execute(
            "UPDATE connection_secrets SET lease_owner = NULL, lease_until = 0,
                attempt_started_at = CASE WHEN $6 = 1 THEN attempt_started_at ELSE NULL END,
                failures = failures + 1, retry_at = $5, failing_since = COALESCE(failing_since, $7),
                refusal = COALESCE($8, refusal)
             WHERE project = $1 AND connection = $2 AND generation = $3 AND lease_owner = $4",
            values![
                &connection.project,
                &connection.id,
                generation,
                owner,
                retry_at,
                i64::from(in_doubt),
                at,
                refusal.map(str::to_owned),
            ],
        )
        .await
        .map(drop)
    }

    /// Connections that nobody has used since `before`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_unused_connections(&self, before: i64) -> Result<Vec<ConnectionRow>, Error> {
        let rows = self
            .rows(
                "SELECT * FROM connections WHERE status <> 'revoked' AND last_used_at < $1
                 ORDER BY last_used_at LIMIT 100",
                values![before],
            )
            .await?;
        rows.iter().map(ConnectionRow::read).collect()
    }
}

impl Transaction {
    /// Notes when a connection was used last.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn note_use(&mut self, project: &str, connection: &str, at: i64) -> Result<(), Error> {
        self.execute(
            "UPDATE connections SET last_used_at = $3
             WHERE project = $1 AND id = $2 AND last_used_at < $3",
            values![project, connection, at],
        )
        .await
        .map(drop)
    }

    /// The connection of this owner to this resource that is in use.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn find_connection_to(
        &mut self,
        project: &str,
        user: &str,
        profile: &str,
        resource: &str,
    ) -> Result<Option<ConnectionRow>, Error> {
        let row = self
            .row(
                "SELECT * FROM connections WHERE project = $1 AND user_name = $2 AND profile = $3
                    AND resource = $4 AND status <> 'revoked'",
                values![project, user.as_bytes(), profile.as_bytes(), resource],
            )
            .await?;
        row.as_ref().map(ConnectionRow::read).transpose()
    }

    /// Adds a connection with its first tokens.
    ///
    /// # Errors
    /// [`Error::Exists`] when the owner has one to the same resource.
    pub async fn create_connection(
        &mut self,
        connection: &ConnectionRow,
        secrets: &NewSecrets,
    ) -> Result<(), Error> {
        self.execute(
            "INSERT INTO connections (project, id, user_name, profile, resource, issuer, client_id, scopes,
                account, application, endpoints, status, created_at, changed_at, last_used_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 'active', $12, $12, $12)",
            values![
                &connection.project,
                &connection.id,
                connection.user.as_bytes(),
                connection.profile.as_bytes(),
                &connection.resource,
                &connection.issuer,
                &connection.client_id,
                &connection.scopes,
                connection.account.clone().map(String::into_bytes),
                &connection.application,
                &connection.endpoints,
                connection.changed_at,
            ],
        )
        .await?;
        self.execute(
            "INSERT INTO connection_secrets (project, connection, generation, sealed_access, sealed_refresh,
                issued_at, expires_at) VALUES ($1, $2, 1, $3, $4, $5, $6)",
            values![
                &connection.project,
                &connection.id,
                &secrets.sealed_access,
                secrets.sealed_refresh.clone(),
                secrets.issued_at,
                secrets.expires_at,
            ],
        )
        .await
        .map(drop)
    }

    /// Puts what a new login gave into an existing connection, which was `account`'s. False when it has ended, or is
    /// another account's, by now; then the transaction must be dropped.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn renew_connection(
        &mut self,
        connection: &ConnectionRow,
        secrets: &NewSecrets,
        account: Option<&str>,
    ) -> Result<bool, Error> {
        // The secrets come first wherever both change, so that no two transactions wait for each other.
        // A login is newer than any renewal under way: its lease is void.
        let changed = self
            .execute(
                "UPDATE connection_secrets SET generation = generation + 1, sealed_access = $3,
                    sealed_refresh = $4, issued_at = $5, expires_at = $6, lease_owner = NULL, lease_until = 0,
                    attempt_started_at = NULL, failures = 0, retry_at = 0, failing_since = NULL, refusal = NULL
                 WHERE project = $1 AND connection = $2",
                values![
                    &connection.project,
                    &connection.id,
                    &secrets.sealed_access,
                    secrets.sealed_refresh.clone(),
                    secrets.issued_at,
                    secrets.expires_at,
                ],
            )
            .await?;
        if changed == 0 {
            return Ok(false);
        }
        let changed = self
            .execute(
                "UPDATE connections SET issuer = $3, client_id = $4, scopes = $5, account = $6, application = $7,
                    endpoints = $8, status = 'active', reason = NULL, changed_at = $9, last_used_at = $9
                 WHERE project = $1 AND id = $2 AND status <> 'revoked'
                    AND (account = $10 OR (account IS NULL AND $11 = 1))",
                values![
                    &connection.project,
                    &connection.id,
                    &connection.issuer,
                    &connection.client_id,
                    &connection.scopes,
                    connection.account.clone().map(String::into_bytes),
                    &connection.application,
                    &connection.endpoints,
                    connection.changed_at,
                    account.unwrap_or_default().as_bytes(),
                    i64::from(account.is_none()),
                ],
            )
            .await?;
        Ok(changed == 1)
    }

    /// Stores renewed tokens, if those of `generation` are still the newest. Without `owner` also when another one
    /// has taken the lease meanwhile: a rotation that happened is never thrown away.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn rotate_secrets(
        &mut self,
        connection: &ConnectionRow,
        generation: i64,
        owner: Option<&str>,
        secrets: &NewSecrets,
        scopes: &str,
        now: i64,
    ) -> Result<bool, Error> {
        let changed = self
            .execute(
                "UPDATE connection_secrets SET generation = generation + 1, sealed_access = $5,
                    sealed_refresh = $6, issued_at = $7, expires_at = $8, lease_owner = NULL, lease_until = 0,
                    attempt_started_at = NULL, failures = 0, retry_at = 0, failing_since = NULL, refusal = NULL
                 WHERE project = $1 AND connection = $2 AND generation = $3 AND ($4 = '' OR lease_owner = $4)",
                values![
                    &connection.project,
                    &connection.id,
                    generation,
                    owner.unwrap_or_default(),
                    &secrets.sealed_access,
                    secrets.sealed_refresh.clone(),
                    secrets.issued_at,
                    secrets.expires_at,
                ],
            )
            .await?;
        if changed == 1 {
            self.execute(
                "UPDATE connections SET scopes = $3, status = 'active', reason = NULL, changed_at = $4
                 WHERE project = $1 AND id = $2 AND status <> 'revoked'",
                values![&connection.project, &connection.id, scopes, now],
            )
            .await?;
        }
        Ok(changed == 1)
    }

    /// Says that only a new login helps, if the tokens of `generation` are still the newest and, where `owner` is
    /// given, the lease is still theirs.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn need_login(
        &mut self,
        connection: &ConnectionRow,
        generation: i64,
        owner: Option<&str>,
        reason: &str,
        now: i64,
    ) -> Result<bool, Error> {
        // Nobody who read before that it was in use gets the lease any more. New tokens give it back.
        let changed = self
            .execute(
                "UPDATE connection_secrets
                 SET lease_owner = 'ended', lease_until = 9223372036854775807, attempt_started_at = NULL
                 WHERE project = $1 AND connection = $2 AND generation = $3 AND ($4 = '' OR lease_owner = $4)",
                values![&connection.project, &connection.id, generation, owner.unwrap_or_default()],
            )
            .await?;
        if changed == 0 {
            return Ok(false);
        }
        let changed = self
            .execute(
                "UPDATE connections SET status = 'needs_reauth', reason = $3, changed_at = $4
                 WHERE project = $1 AND id = $2 AND status = 'active'",
                values![&connection.project, &connection.id, reason, now],
            )
            .await?;
        Ok(changed == 1)
    }

    /// Ends a connection and takes its tokens out. `None` when it had ended before; then the transaction must be
    /// dropped.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn end_connection(
        &mut self,
        connection: &ConnectionRow,
        reason: &str,
        now: i64,
    ) -> Result<Option<Option<SecretsRow>>, Error> {
        let secrets = self
            .row(
                "DELETE FROM connection_secrets WHERE project = $1 AND connection = $2 RETURNING *",
                values![&connection.project, &connection.id],
            )
            .await?;
        let changed = self
            .execute(
                "UPDATE connections SET status = 'revoked', reason = $3, changed_at = $4
                 WHERE project = $1 AND id = $2 AND status <> 'revoked'",
                values![&connection.project, &connection.id, reason, now],
            )
            .await?;
        if changed == 0 {
            return Ok(None);
        }
        Ok(Some(secrets.as_ref().map(SecretsRow::read).transpose()?))
    }
}
