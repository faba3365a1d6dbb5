//! Forgetting what is over, in small pieces, so that no table grows without bound and nobody waits long for the writer.

use super::{Error, Store, values};

/// Rows of one piece.
const PIECE: u64 = 500;

/// One kind of row that is over. Each statement deletes up to `$2` rows from before `$1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Old {
    /// Entries of the audit log.
    Audit,
    /// Flows that ended, and links for several.
    Flows,
    /// Webhooks that were delivered or given up.
    Webhooks,
    /// Connections that were ended, and what became of their tokens.
    Connections,
    /// Clients at authorization servers that were given up and that nothing needs any more.
    Registrations,
    /// Turns that callers did not see and that nobody may ask for any more.
    HiddenTurns,
}

impl Old {
    fn statements(self) -> &'static [&'static str] {
        match self {
            Old::Audit => &["DELETE FROM audit WHERE (project, id) IN (
                SELECT project, id FROM audit WHERE at < $1 ORDER BY at LIMIT $2)"],
            Old::Flows => &[
                "DELETE FROM flow_batches WHERE (project, id) IN (
                    SELECT project, id FROM flow_batches WHERE expires_at < $1 LIMIT $2)",
                "DELETE FROM flows WHERE (project, id) IN (
                    SELECT project, id FROM flows WHERE expires_at < $1
                        AND state NOT IN ('pending', 'started', 'returned', 'confirming') LIMIT $2)",
            ],
            Old::Webhooks => &["DELETE FROM outbox WHERE (project, id) IN (
                SELECT project, id FROM outbox WHERE created_at < $1 AND state <> 'waiting' LIMIT $2)"],
            Old::Connections => &[
                "DELETE FROM revocations WHERE (project, id) IN (
                    SELECT project, id FROM revocations WHERE changed_at < $1 AND outcome <> 'waiting' LIMIT $2)",
                "DELETE FROM connections WHERE (project, id) IN (
                    SELECT project, id FROM connections WHERE status = 'revoked' AND changed_at < $1 LIMIT $2)",
            ],
            Old::Registrations => &["DELETE FROM registrations WHERE (issuer, redirect_uri, client_id) IN (
                SELECT r.issuer, r.redirect_uri, r.client_id FROM registrations r WHERE r.retired_at < $1
                    AND NOT EXISTS (SELECT 1 FROM connections c WHERE c.issuer = r.issuer
                        AND c.client_id = r.client_id AND c.status <> 'revoked')
                    AND NOT EXISTS (SELECT 1 FROM revocations v WHERE v.issuer = r.issuer
                        AND v.client_id = r.client_id AND v.outcome = 'waiting')
                LIMIT $2)"],
            Old::HiddenTurns => &["DELETE FROM hidden_turns WHERE (project, id) IN (
                SELECT project, id FROM hidden_turns WHERE expires_at < $1 LIMIT $2)"],
        }
    }
}

impl Store {
    /// Forgets a piece of what was over before `before`. True when there may be more.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn forget(&self, old: Old, before: i64) -> Result<bool, Error> {
        let mut more = false;
        for sql in old.statements() {
            more |= self.execute(sql, values![before, PIECE.cast_signed()]).await? >= PIECE;
        }
        Ok(more)
    }
}
