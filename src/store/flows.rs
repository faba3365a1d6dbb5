//! Flows: pending authorisations, and links for several of them.

use super::{Error, Row, Store, Transaction, values};

/// One row of `flows`. What is secret is sealed or hashed.
#[derive(Debug, Clone)]
pub struct FlowRow {
    pub project: String,
    pub id: String,
    pub link_hash: Vec<u8>,
    pub sealed_link: Vec<u8>,
    /// SHA-256 of what makes two wishes for a login the same; `None` when nobody joins this one any more.
    pub join_hash: Option<Vec<u8>>,
    pub user: String,
    pub profile: String,
    pub resource: String,
    pub server_url: String,
    pub server_label: String,
    pub scopes: String,
    pub reason: String,
    pub application: Vec<u8>,
    pub proof: String,
    pub verifier_url: Option<String>,
    pub callback_url: Option<String>,
    pub sealed_callback_key: Option<Vec<u8>>,
    pub run_id: Option<String>,
    pub discovered: Vec<u8>,
    pub state: String,
    pub outcome: Option<String>,
    pub browser_hash: Option<Vec<u8>>,
    pub proven: bool,
    /// The browser that was sent to the application, which is not yet the one that is proven.
    pub asked_hash: Option<Vec<u8>>,
    /// What that browser comes back with when the application has confirmed it.
    pub proof_hash: Option<Vec<u8>>,
    pub sealed_batch: Option<Vec<u8>>,
    pub sealed_verifier: Option<Vec<u8>>,
    pub client: Option<Vec<u8>>,
    pub sealed_tokens: Option<Vec<u8>>,
    pub account: Option<String>,
    pub connection: Option<String>,
    pub created_at: i64,
    pub expires_at: i64,
}

impl FlowRow {
    pub(super) fn read(row: &Row) -> Result<Self, Error> {
        let account = row.opt_bytes("account")?.and_then(|bytes| String::from_utf8(bytes).ok());
        Ok(FlowRow {
            project: row.text("project")?,
            id: row.text("id")?,
            link_hash: row.bytes("link_hash")?,
            sealed_link: row.bytes("sealed_link")?,
            join_hash: row.opt_bytes("join_hash")?,
            user: row.wide_text("user_name")?,
            profile: row.wide_text("profile")?,
            resource: row.text("resource")?,
            server_url: row.text("server_url")?,
            server_label: row.wide_text("server_label")?,
            scopes: row.text("scopes")?,
            reason: row.text("reason")?,
            application: row.bytes("application")?,
            proof: row.text("proof")?,
            verifier_url: row.opt_text("verifier_url")?,
            callback_url: row.opt_text("callback_url")?,
            sealed_callback_key: row.opt_bytes("sealed_callback_key")?,
            run_id: row.opt_text("run_id")?,
            discovered: row.bytes("discovered")?,
            state: row.text("state")?,
            outcome: row.opt_text("outcome")?,
            browser_hash: row.opt_bytes("browser_hash")?,
            proven: row.int("proven")? != 0,
            asked_hash: row.opt_bytes("asked_hash")?,
            proof_hash: row.opt_bytes("proof_hash")?,
            sealed_batch: row.opt_bytes("sealed_batch")?,
            sealed_verifier: row.opt_bytes("sealed_verifier")?,
            client: row.opt_bytes("client")?,
            sealed_tokens: row.opt_bytes("sealed_tokens")?,
            account,
            connection: row.opt_text("connection")?,
            created_at: row.int("created_at")?,
            expires_at: row.int("expires_at")?,
        })
    }
}

impl FlowRow {
    /// The states in which it may be begun as it is in this one: where tokens wait for the person's word, only that.
    pub(super) fn states_like_this(&self) -> (&'static str, &'static str) {
        if self.state == "confirming" { ("confirming", "confirming") } else { ("pending", "started") }
    }
}

/// Attempts to join a flow or to be the one that others join. Each that fails means that another flow has just ended.
const MOST_TRIES: usize = 10;

const FIND_TO_JOIN: &str = "SELECT * FROM flows WHERE join_hash = $1 AND state IN ('pending', 'started')
    AND expires_at > $2";

/// What a browser takes along when it leaves for the authorization server.
pub struct Leaving<'a> {
    pub browser_hash: &'a [u8],
    pub state_hash: &'a [u8],
    pub sealed_verifier: Vec<u8>,
    /// JSON: the client's id and how it proves itself.
    pub client: Vec<u8>,
    pub expires_at: i64,
}

impl Store {
    /// The flow that a wish for the same login joins, when it lasts until `after` at least.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn find_flow_to_join(&self, join_hash: &[u8], after: i64) -> Result<Option<FlowRow>, Error> {
        let row = self.row(FIND_TO_JOIN, values![join_hash, after]).await?;
        row.as_ref().map(FlowRow::read).transpose()
    }

    /// Whether an owner has a flow for a server, by the address as it is written, that can be joined and lasts until
    /// `after` at least.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn has_flow_to_join(
        &self,
        project: &str,
        user: &str,
        profile: &str,
        server_url: &str,
        after: i64,
    ) -> Result<bool, Error> {
        let row = self
            .row(
                "SELECT id FROM flows WHERE project = $1 AND user_name = $2 AND profile = $3 AND server_url = $4
                    AND state IN ('pending', 'started') AND join_hash IS NOT NULL AND expires_at > $5 LIMIT 1",
                values![project, user.as_bytes(), profile.as_bytes(), server_url, after],
            )
            .await?;
        Ok(row.is_some())
    }

    /// How many flows of a project are pending.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn count_pending_flows(&self, project: &str, user: &str, now: i64) -> Result<i64, Error> {
        let row = self
            .row(
                "SELECT COUNT(*) AS number FROM flows
                 WHERE project = $1 AND user_name = $2 AND state IN ('pending', 'started') AND expires_at > $3",
                values![project, user.as_bytes(), now],
            )
            .await?;
        row.map_or(Ok(0), |row| row.int("number"))
    }

    /// The flow behind a link.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn find_flow_by_link(&self, link_hash: &[u8]) -> Result<Option<FlowRow>, Error> {
        let row = self.row("SELECT * FROM flows WHERE link_hash = $1", values![link_hash]).await?;
        row.as_ref().map(FlowRow::read).transpose()
    }

    /// The flow with this OAuth state.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn find_flow_by_state(&self, state_hash: &[u8]) -> Result<Option<FlowRow>, Error> {
        let row = self.row("SELECT * FROM flows WHERE state_hash = $1", values![state_hash]).await?;
        row.as_ref().map(FlowRow::read).transpose()
    }

    /// One flow.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn find_flow(&self, project: &str, id: &str) -> Result<Option<FlowRow>, Error> {
        let row =
            self.row("SELECT * FROM flows WHERE project = $1 AND id = $2", values![project, id]).await?;
        row.as_ref().map(FlowRow::read).transpose()
    }

    /// Uses up an OAuth state, once: the flow as it was, or `None` when somebody else was first.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn consume_state(&self, state_hash: &[u8], now: i64) -> Result<Option<FlowRow>, Error> {
        let rows = self
            .change(
                "UPDATE flows SET state_hash = NULL, state = 'returned', changed_at = $2
                 WHERE state_hash = $1 AND state = 'started' AND expires_at > $2 RETURNING *",
                values![state_hash, now],
            )
            .await?;
        rows.first().map(FlowRow::read).transpose()
    }

    /// How far a flow is.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn find_flow_state(&self, id: &str) -> Result<Option<String>, Error> {
        let row = self.row("SELECT state FROM flows WHERE id = $1", values![id]).await?;
        row.map(|row| row.text("state")).transpose()
    }

    /// Ids of the flows that ended at `since` or later, and when.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_ended_flows(&self, since: i64) -> Result<Vec<(String, i64)>, Error> {
        let rows = self
            .rows(
                "SELECT id, changed_at FROM flows WHERE changed_at >= $1
                    AND state IN ('granted', 'declined', 'expired')",
                values![since],
            )
            .await?;
        rows.iter().map(|row| Ok((row.text("id")?, row.int("changed_at")?))).collect()
    }

    /// Adds one link for several flows.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn create_batch(
        &self,
        project: &str,
        id: &str,
        link_hash: &[u8],
        flows: &[&str],
        expires_at: i64,
    ) -> Result<(), Error> {
        self.execute(
            "INSERT INTO flow_batches (project, id, link_hash, flows, expires_at) VALUES ($1, $2, $3, $4, $5)",
            values![project, id, link_hash, flows.join(" "), expires_at],
        )
        .await
        .map(drop)
    }

    /// The flows behind a link for several, in their order.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn find_batch(&self, link_hash: &[u8]) -> Result<Option<Vec<FlowRow>>, Error> {
        let batch = self
            .row("SELECT project, flows FROM flow_batches WHERE link_hash = $1", values![link_hash])
            .await?;
        let Some(batch) = batch else { return Ok(None) };
        let (project, ids) = (batch.text("project")?, batch.text("flows")?);
        let mut flows = Vec::new();
        for id in ids.split(' ') {
            flows.extend(self.find_flow(&project, id).await?);
        }
        Ok(Some(flows))
    }
}

impl Transaction {
    /// Lets a flow that went wrong begin anew.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn reopen_flow(&mut self, flow: &FlowRow, outcome: &str, now: i64) -> Result<(), Error> {
        self.execute(
            "UPDATE flows SET state = 'pending', outcome = $3, sealed_verifier = NULL, sealed_tokens = NULL,
                state_hash = NULL, browser_hash = NULL, proven = 0, proof_hash = NULL, changed_at = $4
             WHERE project = $1 AND id = $2 AND state IN ('returned', 'confirming')",
            values![&flow.project, &flow.id, outcome, now],
        )
        .await
        .map(drop)
    }

    /// Adds `flow`, unless there is one already that a wish for the same login joins and that lasts until `after` at
    /// least: then gives that. Of those who do this at the same time, one adds its flow and all others get that one.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn add_or_join_flow(&mut self, flow: &FlowRow, after: i64) -> Result<Option<FlowRow>, Error> {
        let join_hash = flow.join_hash.as_deref().unwrap_or_default();
        for _ in 0..MOST_TRIES {
            // What has ended, or ends soon, makes room.
            self.execute(
                "UPDATE flows SET join_hash = NULL WHERE join_hash = $1
                    AND (expires_at <= $2 OR state NOT IN ('pending', 'started'))",
                values![join_hash, after],
            )
            .await?;
            // Another one that is being added is waited for here.
            if self.insert_flow(flow).await? {
                return Ok(None);
            }
            let row = self.row(FIND_TO_JOIN, values![join_hash, after]).await?;
            if let Some(row) = row {
                return Ok(Some(FlowRow::read(&row)?));
            }
        }
        Err(Error::Unavailable("logins of one kind end faster than they can be joined".to_owned()))
    }

    async fn insert_flow(&mut self, flow: &FlowRow) -> Result<bool, Error> {
        let added = self
            .execute(
                "INSERT INTO flows (project, id, link_hash, sealed_link, user_name, profile, resource, server_url,
                    server_label, scopes, reason, application, proof, verifier_url, callback_url,
                    sealed_callback_key, run_id, discovered, state, created_at, expires_at, changed_at, join_hash)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, 'pending',
                    $19, $20, $19, $21)
                 ON CONFLICT (join_hash) DO NOTHING",
                values![
                    &flow.project,
                    &flow.id,
                    &flow.link_hash,
                    &flow.sealed_link,
                    flow.user.as_bytes(),
                    flow.profile.as_bytes(),
                    &flow.resource,
                    &flow.server_url,
                    flow.server_label.as_bytes(),
                    &flow.scopes,
                    &flow.reason,
                    &flow.application,
                    &flow.proof,
                    flow.verifier_url.clone(),
                    flow.callback_url.clone(),
                    flow.sealed_callback_key.clone(),
                    flow.run_id.clone(),
                    &flow.discovered,
                    flow.created_at,
                    flow.expires_at,
                    flow.join_hash.clone(),
                ],
            )
            .await?;
        Ok(added == 1)
    }

    /// Ends some of the flows whose time is up, and gives them: `most` at once, so that who does something to one of
    /// them meanwhile waits shortly only. Tokens that waited for the person's word are still in it: see
    /// [`Transaction::clear_held_tokens`].
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn expire_flows(&mut self, now: i64, most: i64) -> Result<Vec<FlowRow>, Error> {
        let rows = self
            .rows(
                "UPDATE flows SET state = 'expired', changed_at = $1, sealed_verifier = NULL,
                    state_hash = NULL, reference_hash = NULL,
                    proof_hash = NULL, sealed_batch = NULL
                 WHERE expires_at <= $1 AND state IN ('pending', 'started', 'returned', 'confirming')
                    AND id IN (SELECT f.id FROM flows f WHERE f.expires_at <= $1
                        AND f.state IN ('pending', 'started', 'returned', 'confirming')
                        ORDER BY f.expires_at, f.id LIMIT $2)
                 RETURNING *",
                values![now, most],
            )
            .await?;
        rows.iter().map(FlowRow::read).collect()
    }

    /// Whether the tokens that wait in a flow are still those of `flow`. They stay so until `self` ends.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn still_holds(&mut self, flow: &FlowRow) -> Result<bool, Error> {
        let Some(sealed) = flow.sealed_tokens.as_deref() else { return Ok(false) };
        // Written, so that nobody else writes the row meanwhile.
        let held = self
            .execute(
                "UPDATE flows SET changed_at = changed_at
                 WHERE project = $1 AND id = $2 AND state = 'confirming' AND sealed_tokens = $3",
                values![&flow.project, &flow.id, sealed],
            )
            .await?;
        Ok(held == 1)
    }

    /// Forgets the tokens that waited in a flow.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn clear_held_tokens(&mut self, flow: &FlowRow) -> Result<(), Error> {
        self.execute(
            "UPDATE flows SET sealed_tokens = NULL WHERE project = $1 AND id = $2",
            values![&flow.project, &flow.id],
        )
        .await
        .map(drop)
    }

    /// Ends every other open flow of the same owner and resource that a login has made needless, and gives them.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn grant_likewise(
        &mut self,
        flow: &FlowRow,
        connection: &str,
        now: i64,
    ) -> Result<Vec<FlowRow>, Error> {
        let rows = self
            .rows(
                "UPDATE flows SET state = 'granted', connection = $6, changed_at = $7, sealed_verifier = NULL,
                    sealed_tokens = NULL, state_hash = NULL, reference_hash = NULL,
                    proof_hash = NULL, sealed_batch = NULL
                 WHERE project = $1 AND user_name = $2 AND profile = $3 AND resource = $4 AND scopes = $5
                    AND state IN ('pending', 'started') RETURNING *",
                values![
                    &flow.project,
                    flow.user.as_bytes(),
                    flow.profile.as_bytes(),
                    &flow.resource,
                    &flow.scopes,
                    connection,
                    now,
                ],
            )
            .await?;
        rows.iter().map(FlowRow::read).collect()
    }

    /// The browser leaves for the authorization server. An earlier departure of the same flow is void. False when the
    /// flow has ended, or waits for the person's word meanwhile.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn send_flow(&mut self, flow: &FlowRow, leaving: Leaving<'_>, now: i64) -> Result<bool, Error> {
        let (from, or_from) = flow.states_like_this();
        let changed = self
            .execute(
                "UPDATE flows SET state = 'started', browser_hash = $3, state_hash = $4, sealed_verifier = $5,
                    client = $6, expires_at = $7, changed_at = $8, sealed_tokens = NULL
                 WHERE project = $1 AND id = $2 AND state IN ($9, $10) AND expires_at > $8",
                values![
                    &flow.project,
                    &flow.id,
                    leaving.browser_hash,
                    leaving.state_hash,
                    leaving.sealed_verifier,
                    leaving.client,
                    leaving.expires_at,
                    now,
                    from,
                    or_from,
                ],
            )
            .await?;
        Ok(changed == 1)
    }

    /// Ends a flow that is in `from`. False when it was not.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn end_flow(
        &mut self,
        flow: &FlowRow,
        from: &str,
        to: &str,
        outcome: Option<&str>,
        connection: Option<&str>,
        now: i64,
    ) -> Result<bool, Error> {
        let changed = self
            .execute(
                "UPDATE flows SET state = $4, outcome = $5, connection = $6, changed_at = $7, sealed_verifier = NULL,
                    sealed_tokens = NULL, state_hash = NULL, reference_hash = NULL,
                    proof_hash = NULL, sealed_batch = NULL
                 WHERE project = $1 AND id = $2 AND state = $3",
                values![&flow.project, &flow.id, from, to, outcome, connection, now],
            )
            .await?;
        Ok(changed == 1)
    }

    /// Keeps the tokens of a flow until the person confirms the other account.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn hold_flow(
        &mut self,
        flow: &FlowRow,
        sealed_tokens: Vec<u8>,
        account: &str,
        now: i64,
    ) -> Result<bool, Error> {
        let changed = self
            .execute(
                "UPDATE flows SET state = 'confirming', sealed_tokens = $3, account = $4, changed_at = $5
                 WHERE project = $1 AND id = $2 AND state = 'returned'",
                values![&flow.project, &flow.id, sealed_tokens, account.as_bytes(), now],
            )
            .await?;
        Ok(changed == 1)
    }
}
