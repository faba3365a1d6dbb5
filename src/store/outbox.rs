//! Webhooks that wait to be sent, and revocations that wait to be made: work that outlives a process.

use super::{Error, Row, Store, Transaction, values};

/// Attempts to find a place in a stream. Each that fails means that somebody else has just added to it.
const MOST_TRIES: usize = 100;

/// A webhook to be sent.
#[derive(Debug, Clone)]
pub struct OutboxRow {
    pub project: String,
    pub id: String,
    pub url: String,
    pub sealed_key: Vec<u8>,
    pub sealed_body: Vec<u8>,
    pub attempts: i64,
}

/// Tokens to be revoked at their authorization server.
#[derive(Debug, Clone)]
pub struct RevocationRow {
    pub project: String,
    pub id: String,
    pub connection: String,
    pub user: String,
    pub sealed_refresh: Option<Vec<u8>>,
    pub sealed_access: Option<Vec<u8>>,
    pub issuer: String,
    pub client_id: String,
    pub endpoints: Vec<u8>,
    pub attempts: i64,
    /// `waiting`, `revoked`, `unsupported` or `given_up`.
    pub outcome: String,
}

impl RevocationRow {
    fn read(row: &Row) -> Result<Self, Error> {
        Ok(RevocationRow {
            project: row.text("project")?,
            id: row.text("id")?,
            connection: row.text("connection")?,
            user: row.wide_text("user_name")?,
            sealed_refresh: row.opt_bytes("sealed_refresh")?,
            sealed_access: row.opt_bytes("sealed_access")?,
            issuer: row.text("issuer")?,
            client_id: row.text("client_id")?,
            endpoints: row.bytes("endpoints")?,
            attempts: row.int("attempts")?,
            outcome: row.text("outcome")?,
        })
    }
}

impl Transaction {
    /// Puts a webhook behind those of the same stream that go to the same address.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn add_webhook(&mut self, webhook: &OutboxRow, stream: &str, now: i64) -> Result<(), Error> {
        for _ in 0..MOST_TRIES {
            // Somebody else who takes the same place is waited for here; then the place behind theirs is ours.
            let added = self
                .execute(
                    "INSERT INTO outbox
                        (project, id, stream, place, url, sealed_key, sealed_body, next_at, state, created_at)
                     VALUES ($1, $2, $3, (SELECT COALESCE(MAX(o.place), 0) + 1 FROM outbox o
                        WHERE o.stream = $3 AND o.url = $4), $4, $5, $6, $7, 'waiting', $7)
                     ON CONFLICT (stream, url, place) DO NOTHING",
                    values![
                        &webhook.project,
                        &webhook.id,
                        stream,
                        &webhook.url,
                        &webhook.sealed_key,
                        &webhook.sealed_body,
                        now,
                    ],
                )
                .await?;
            if added == 1 {
                return Ok(());
            }
        }
        Err(Error::Unavailable("too many tell of the same thing at once".to_owned()))
    }

    /// Where the webhooks of a project go, and their sealed key.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn find_webhook(
        &mut self,
        project: &str,
    ) -> Result<Option<(Option<String>, Option<Vec<u8>>)>, Error> {
        let row = self
            .row("SELECT webhook_url, sealed_webhook_secret FROM projects WHERE name = $1", values![project])
            .await?;
        row.map(|row| Ok((row.opt_text("webhook_url")?, row.opt_bytes("sealed_webhook_secret")?))).transpose()
    }

    /// Puts tokens up for revocation. The first attempt is left to whoever ended the connection; only when that one
    /// has not made it `grace` milliseconds later do others.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn add_revocation(
        &mut self,
        revocation: &RevocationRow,
        now: i64,
        grace: i64,
    ) -> Result<(), Error> {
        self.execute(
            "INSERT INTO revocations (project, id, connection, user_name, sealed_refresh, sealed_access, issuer,
                client_id, endpoints, next_at, outcome, created_at, changed_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $12, $11, $10, $10)",
            values![
                &revocation.project,
                &revocation.id,
                &revocation.connection,
                revocation.user.as_bytes(),
                revocation.sealed_refresh.clone(),
                revocation.sealed_access.clone(),
                &revocation.issuer,
                &revocation.client_id,
                &revocation.endpoints,
                now,
                &revocation.outcome,
                now + grace,
            ],
        )
        .await
        .map(drop)
    }

    /// Adds to the audit log.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn add_audit(&mut self, entry: &super::AuditRow) -> Result<(), Error> {
        self.execute(super::audit::ADD, super::audit::add_values(entry)).await.map(drop)
    }
}

impl Store {
    /// Takes webhooks that are due: the first of each stream and address, for `lease` milliseconds.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn take_webhooks(&self, owner: &str, now: i64, lease: i64) -> Result<Vec<OutboxRow>, Error> {
        let rows = self
            .change(
                "UPDATE outbox SET lease_owner = $1, lease_until = $2 + $3, attempts = attempts + 1
                 WHERE state = 'waiting' AND next_at <= $2 AND lease_until <= $2 AND NOT EXISTS (
                    SELECT 1 FROM outbox o WHERE o.stream = outbox.stream AND o.url = outbox.url
                        AND o.state = 'waiting' AND o.place < outbox.place)
                 RETURNING project, id, url, sealed_key, sealed_body, attempts",
                values![owner, now, lease],
            )
            .await?;
        rows.iter()
            .map(|row| {
                Ok(OutboxRow {
                    project: row.text("project")?,
                    id: row.text("id")?,
                    url: row.text("url")?,
                    sealed_key: row.bytes("sealed_key")?,
                    sealed_body: row.bytes("sealed_body")?,
                    attempts: row.int("attempts")?,
                })
            })
            .collect()
    }

    /// What became of an attempt to send: `delivered`, `given_up`, or `waiting` until `next_at`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn settle_webhook(
        &self,
        webhook: &OutboxRow,
        owner: &str,
        state: &str,
        status: Option<i64>,
        next_at: i64,
    ) -> Result<(), Error> {
        self.execute(
            "UPDATE outbox SET state = $4, status = $5, next_at = $6, lease_owner = NULL, lease_until = 0
             WHERE project = $1 AND id = $2 AND lease_owner = $3",
            values![&webhook.project, &webhook.id, owner, state, status, next_at],
        )
        .await
        .map(drop)
    }

    /// Takes revocations that are due, or this one `only`, for `lease` milliseconds.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn take_revocations(
        &self,
        owner: &str,
        now: i64,
        lease: i64,
        only: Option<&str>,
    ) -> Result<Vec<RevocationRow>, Error> {
        let rows = self
            .change(
                "UPDATE revocations SET lease_owner = $1, lease_until = $2 + $3, attempts = attempts + 1
                 WHERE outcome = 'waiting' AND lease_until <= $2 AND (($4 = '' AND next_at <= $2) OR id = $4)
                 RETURNING *",
                values![owner, now, lease, only.unwrap_or_default()],
            )
            .await?;
        rows.iter().map(RevocationRow::read).collect()
    }

    /// What became of an attempt to revoke. Tokens are forgotten once it is over.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn settle_revocation(
        &self,
        revocation: &RevocationRow,
        owner: &str,
        outcome: &str,
        next_at: i64,
        now: i64,
    ) -> Result<(), Error> {
        self.execute(
            "UPDATE revocations SET outcome = $4, next_at = $5, changed_at = $6, lease_owner = NULL,
                lease_until = 0,
                sealed_refresh = CASE WHEN $4 = 'waiting' THEN sealed_refresh END,
                sealed_access = CASE WHEN $4 = 'waiting' THEN sealed_access END
             WHERE project = $1 AND id = $2 AND lease_owner = $3",
            values![&revocation.project, &revocation.id, owner, outcome, next_at, now],
        )
        .await
        .map(drop)
    }

    /// What became of the revocations of a connection's tokens, newest first.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn find_revocation(
        &self,
        project: &str,
        connection: &str,
    ) -> Result<Option<RevocationRow>, Error> {
        let row = self
            .row(
                "SELECT * FROM revocations WHERE project = $1 AND connection = $2
                 ORDER BY created_at DESC LIMIT 1",
                values![project, connection],
            )
            .await?;
        row.as_ref().map(RevocationRow::read).transpose()
    }

    /// Forgets webhooks that were settled before `before`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn forget_webhooks(&self, before: i64) -> Result<(), Error> {
        self.execute("DELETE FROM outbox WHERE state <> 'waiting' AND created_at < $1", values![before])
            .await
            .map(drop)
    }
}
