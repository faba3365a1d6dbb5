//! Flows whose person an application proves: what is sent to it, and what comes back.
//!
//! Who was sent there, and who is proven, are kept apart until the same browser comes back: somebody else with the link
//! can neither take over what another browser has begun, nor end it.

use super::{Error, FlowRow, Store, Transaction, values};

impl Store {
    /// The flow that an application was given this reference for.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn find_flow_by_reference(
        &self,
        project: &str,
        reference_hash: &[u8],
    ) -> Result<Option<FlowRow>, Error> {
        let row = self
            .row(
                "SELECT * FROM flows WHERE project = $1 AND reference_hash = $2",
                values![project, reference_hash],
            )
            .await?;
        row.as_ref().map(FlowRow::read).transpose()
    }

    /// The browser goes to the application's verifier with a reference. An earlier one is void. False when the flow has
    /// ended.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn refer_flow(
        &self,
        flow: &FlowRow,
        browser_hash: &[u8],
        reference_hash: &[u8],
        sealed_batch: Option<Vec<u8>>,
        now: i64,
    ) -> Result<bool, Error> {
        let changed = self
            .execute(
                "UPDATE flows SET asked_hash = $3, reference_hash = $4, proof_hash = NULL, sealed_batch = $5,
                    outcome = NULL, changed_at = $6
                 WHERE project = $1 AND id = $2 AND state IN ('pending', 'started', 'confirming')
                    AND expires_at > $6",
                values![&flow.project, &flow.id, browser_hash, reference_hash, sealed_batch, now],
            )
            .await?;
        Ok(changed == 1)
    }
}

impl Transaction {
    /// The application has said who came with a reference, which is used up. With a `proof_hash`, the browser that was
    /// sent there can come back proven. False when it was used before, or the flow has ended.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn answer_reference(
        &mut self,
        flow: &FlowRow,
        reference_hash: &[u8],
        proof_hash: Option<&[u8]>,
        now: i64,
    ) -> Result<bool, Error> {
        let changed = self
            .execute(
                "UPDATE flows SET reference_hash = NULL, proof_hash = $4, changed_at = $5
                 WHERE project = $1 AND id = $2 AND reference_hash = $3
                    AND state IN ('pending', 'started', 'confirming') AND expires_at > $5",
                values![&flow.project, &flow.id, reference_hash, proof_hash.map(<[u8]>::to_vec), now],
            )
            .await?;
        Ok(changed == 1)
    }

    /// The browser that was sent to the application is back with the proof, which is used up: the flow as it is now.
    /// What was begun before is void. `None` when it was another browser, or the flow has changed.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn prove_flow(
        &mut self,
        flow: &FlowRow,
        proof_hash: &[u8],
        browser_hash: &[u8],
        now: i64,
    ) -> Result<Option<FlowRow>, Error> {
        let (from, or_from) = flow.states_like_this();
        let rows = self
            .rows(
                "UPDATE flows SET state = 'pending', proven = 1, browser_hash = asked_hash, asked_hash = NULL,
                    proof_hash = NULL, state_hash = NULL, sealed_verifier = NULL, sealed_tokens = NULL,
                    changed_at = $5
                 WHERE project = $1 AND id = $2 AND proof_hash = $3 AND asked_hash = $4 AND expires_at > $5
                    AND state IN ($6, $7) RETURNING *",
                values![&flow.project, &flow.id, proof_hash, browser_hash, now, from, or_from],
            )
            .await?;
        rows.first().map(FlowRow::read).transpose()
    }

    /// A proof came from a browser that was not sent for it. `use_up` ends the proof. False when that is known already.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn doubt_proof(
        &mut self,
        flow: &FlowRow,
        proof_hash: &[u8],
        use_up: bool,
        now: i64,
    ) -> Result<bool, Error> {
        let sql = if use_up {
            "UPDATE flows SET outcome = 'wrong_browser', proof_hash = NULL, asked_hash = NULL, changed_at = $4
             WHERE project = $1 AND id = $2 AND proof_hash = $3"
        } else {
            "UPDATE flows SET outcome = 'wrong_browser', changed_at = $4
             WHERE project = $1 AND id = $2 AND proof_hash = $3 AND COALESCE(outcome, '') <> 'wrong_browser'"
        };
        let changed = self.execute(sql, values![&flow.project, &flow.id, proof_hash, now]).await?;
        Ok(changed == 1)
    }
}
