//! Webhooks that wait to be sent, and revocations that wait to be made: work that outlives a process.

use super::{Error, Row, Store, Transaction, Value, values};

/// Attempts to find a place in a stream. Each that fails means that somebody else has just added to it.
const MOST_TRIES: usize = 100;

/// A webhook to be sent.
#[derive(Debug, Clone)]
pub struct OutboxRow {
    pub project: String,
    pub id: String,
    pub url: String,
    /// Host and port of `url`: what shares places.
    pub host: String,
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
    pub profile: String,
    pub resource: Option<String>,
    pub sealed_refresh: Option<Vec<u8>>,
    pub sealed_access: Option<Vec<u8>>,
    pub issuer: String,
    pub client_id: String,
    pub endpoints: Vec<u8>,
    /// Host and port of the revocation endpoint: what shares places.
    pub host: String,
    pub attempts: i64,
    /// `waiting`, `revoked`, `unsupported` or `given_up`.
    pub outcome: String,
}

/// How much work is taken, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Take<'a> {
    /// Who takes it.
    pub owner: &'a str,
    pub now: i64,
    /// Milliseconds until others may take it.
    pub lease: i64,
    pub most: usize,
    /// Most for one host at a time, those included that are taken already.
    pub per_host: i64,
}

impl Take<'_> {
    fn values(&self) -> Vec<Value> {
        let most = i64::try_from(self.most).unwrap_or(i64::MAX);
        values![self.owner, self.now, self.lease, self.per_host, most]
    }
}

impl RevocationRow {
    fn read(row: &Row) -> Result<Self, Error> {
        Ok(RevocationRow {
            project: row.text("project")?,
            id: row.text("id")?,
            connection: row.text("connection")?,
            user: row.wide_text("user_name")?,
            profile: row
                .opt_bytes("profile")?
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .unwrap_or_default(),
            resource: row.opt_text("resource")?,
            sealed_refresh: row.opt_bytes("sealed_refresh")?,
            sealed_access: row.opt_bytes("sealed_access")?,
            issuer: row.text("issuer")?,
            client_id: row.text("client_id")?,
            endpoints: row.bytes("endpoints")?,
            host: row.text("host")?,
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
                        (project, id, stream, place, url, sealed_key, sealed_body, next_at, state, created_at,
                        host)
                     VALUES ($1, $2, $3, (SELECT COALESCE(MAX(o.place), 0) + 1 FROM outbox o
                        WHERE o.stream = $3 AND o.url = $4), $4, $5, $6, $7, 'waiting', $7,
                        $8)
                     ON CONFLICT (stream, url, place) DO NOTHING",
                    values![
                        &webhook.project,
                        &webhook.id,
                        stream,
                        &webhook.url,
                        &webhook.sealed_key,
                        &webhook.sealed_body,
                        now,
                        &webhook.host,
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
                client_id, endpoints, next_at, outcome, created_at, changed_at, host,
                profile, resource)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $12, $11, $10, $10, $13,
                $14, $15)",
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
                &revocation.host,
                revocation.profile.as_bytes(),
                revocation.resource.clone(),
            ],
        )
        .await
        .map(drop)
    }

    /// What became of an attempt to revoke; false when somebody else has it by now. Tokens are forgotten once it is over.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn settle_revocation(
        &mut self,
        revocation: &RevocationRow,
        owner: &str,
        outcome: &str,
        next_at: i64,
        now: i64,
    ) -> Result<bool, Error> {
        let changed = self
            .execute(
                "UPDATE revocations SET outcome = $4, next_at = $5, changed_at = $6, lease_owner = NULL,
                    lease_until = 0,
                    sealed_refresh = CASE WHEN $4 = 'waiting' THEN sealed_refresh END,
                    sealed_access = CASE WHEN $4 = 'waiting' THEN sealed_access END
                 WHERE project = $1 AND id = $2 AND lease_owner = $3",
                values![&revocation.project, &revocation.id, owner, outcome, next_at, now],
            )
            .await?;
        Ok(changed == 1)
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
    /// Takes up to `most` webhooks that are due, the first of each stream and address, for `lease` milliseconds. Of each
    /// host no more than `per_host` are taken at any time, by whichever instance, and those that were tried least come
    /// first: a receiver that does not answer holds up nobody but itself.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn take_webhooks(&self, take: &Take<'_>) -> Result<Vec<OutboxRow>, Error> {
        let rows = self
            .change(
                "UPDATE outbox SET lease_owner = $1, lease_until = $2 + $3, attempts = attempts + 1
                 WHERE state = 'waiting' AND lease_until <= $2 AND (project, id) IN (
                    SELECT due.project, due.id FROM (
                        SELECT o.project, o.id, o.lease_until, o.attempts, o.next_at, ROW_NUMBER() OVER (
                            PARTITION BY o.host ORDER BY CASE WHEN o.lease_until > $2 THEN 0 ELSE 1 END,
                                o.attempts, o.next_at, o.place) AS turn
                        FROM outbox o
                        WHERE o.state = 'waiting' AND (o.lease_until > $2 OR (o.next_at <= $2 AND NOT EXISTS (
                            SELECT 1 FROM outbox e WHERE e.stream = o.stream AND e.url = o.url
                                AND e.state = 'waiting' AND e.place < o.place)))
                    ) AS due
                    WHERE due.lease_until <= $2 AND due.turn <= $4
                    ORDER BY due.attempts, due.turn, due.next_at LIMIT $5)
                 RETURNING project, id, url, host, sealed_key, sealed_body, attempts",
                take.values(),
            )
            .await?;
        rows.iter()
            .map(|row| {
                Ok(OutboxRow {
                    project: row.text("project")?,
                    id: row.text("id")?,
                    url: row.text("url")?,
                    host: row.text("host")?,
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

    /// Takes revocations that are due, shared out as webhooks are.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn take_revocations(&self, take: &Take<'_>) -> Result<Vec<RevocationRow>, Error> {
        let rows = self
            .change(
                "UPDATE revocations SET lease_owner = $1, lease_until = $2 + $3, attempts = attempts + 1
                 WHERE outcome = 'waiting' AND lease_until <= $2 AND (project, id) IN (
                    SELECT due.project, due.id FROM (
                        SELECT r.project, r.id, r.lease_until, r.attempts, r.next_at, ROW_NUMBER() OVER (
                            PARTITION BY r.host ORDER BY CASE WHEN r.lease_until > $2 THEN 0 ELSE 1 END,
                                r.attempts, r.next_at, r.id) AS turn
                        FROM revocations r
                        WHERE r.outcome = 'waiting' AND (r.lease_until > $2 OR r.next_at <= $2)
                    ) AS due
                    WHERE due.lease_until <= $2 AND due.turn <= $4
                    ORDER BY due.attempts, due.turn, due.next_at LIMIT $5)
                 RETURNING *",
                take.values(),
            )
            .await?;
        rows.iter().map(RevocationRow::read).collect()
    }

    /// Takes this revocation, due or not, unless somebody has it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn take_revocation(
        &self,
        project: &str,
        id: &str,
        owner: &str,
        now: i64,
        lease: i64,
    ) -> Result<Option<RevocationRow>, Error> {
        let rows = self
            .change(
                "UPDATE revocations SET lease_owner = $3, lease_until = $4 + $5, attempts = attempts + 1
                 WHERE project = $1 AND id = $2 AND outcome = 'waiting' AND lease_until <= $4
                 RETURNING *",
                values![project, id, owner, now, lease],
            )
            .await?;
        rows.first().map(RevocationRow::read).transpose()
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
}
