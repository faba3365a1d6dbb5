//! What must not happen twice: the first run that names a key has it, until the key has expired or is given back.

use super::{Error, Store, Transaction, values};

/// Attempts to take a key. Each that fails means that somebody has just given it back.
const MOST_TRIES: usize = 20;

/// A key to be taken.
#[derive(Debug, Clone, Copy)]
pub struct NewKey<'a> {
    /// `idempotency` or `content`.
    pub kind: &'a str,
    /// SHA-256 of the key.
    pub hash: &'a [u8; 32],
    /// SHA-256 of what was asked with it.
    pub body_hash: &'a [u8; 32],
    /// Milliseconds since 1970; from then on it is anybody's.
    pub expires_at: i64,
}

/// Who has a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// Whoever asked, since now.
    New,
    /// This run, which was asked for with a body of this SHA-256.
    Taken { run: String, body_hash: Vec<u8> },
}

impl Store {
    /// The run that has a key now, and the SHA-256 of what was asked with it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn find_key(
        &self,
        project: &str,
        kind: &str,
        hash: &[u8; 32],
        now: i64,
    ) -> Result<Option<(String, Vec<u8>)>, Error> {
        let sql = "SELECT run, body_hash FROM run_keys
            WHERE project = $1 AND kind = $2 AND key_hash = $3 AND expires_at > $4";
        let row = self.row(sql, values![project, kind, hash, now]).await?;
        row.map(|row| Ok((row.text("run")?, row.bytes("body_hash")?))).transpose()
    }
}

impl Transaction {
    /// Takes a key for a run, unless another run has it. Of several that do so at once one gets it, and the others wait
    /// until that one's transaction has ended. Who takes two keys takes `idempotency` first, so that no two wait for
    /// each other.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn claim_key(
        &mut self,
        project: &str,
        key: &NewKey<'_>,
        run: &str,
        now: i64,
    ) -> Result<Claimed, Error> {
        for _ in 0..MOST_TRIES {
            let taken = self
                .execute(
                    "INSERT INTO run_keys (project, kind, key_hash, body_hash, run, expires_at)
                     VALUES ($1, $2, $3, $4, $5, $6)
                     ON CONFLICT (project, kind, key_hash) DO UPDATE SET
                        body_hash = excluded.body_hash, run = excluded.run, expires_at = excluded.expires_at
                     WHERE run_keys.expires_at <= $7",
                    values![project, key.kind, key.hash, key.body_hash, run, key.expires_at, now],
                )
                .await?;
            if taken == 1 {
                return Ok(Claimed::New);
            }
            let row = self
                .row(
                    "SELECT run, body_hash FROM run_keys WHERE project = $1 AND kind = $2 AND key_hash = $3",
                    values![project, key.kind, key.hash],
                )
                .await?;
            if let Some(row) = row {
                return Ok(Claimed::Taken { run: row.text("run")?, body_hash: row.bytes("body_hash")? });
            }
        }
        Err(Error::Unavailable("too many take and give back the same key at once".to_owned()))
    }

    /// Gives back the keys of this kind that a run has.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn release_key(&mut self, project: &str, kind: &str, run: &str) -> Result<(), Error> {
        let sql = "DELETE FROM run_keys WHERE project = $1 AND kind = $2 AND run = $3";
        self.execute(sql, values![project, kind, run]).await.map(drop)
    }
}
