//! Browser sessions of people, and sign-ins that are under way.

use super::accounts::Account;
use super::{Error, Store, values};

/// A browser in which somebody is signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub account: String,
    /// Names the session to its owner; opens nothing.
    pub id: String,
    /// What the browser calls itself.
    pub agent: String,
    pub created_at: i64,
    pub used_at: i64,
}

/// A sign-in between leaving for the provider and coming back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignInRow {
    pub provider: String,
    /// A path of ours.
    pub return_to: String,
}

impl Store {
    /// Adds a session that the secret with this SHA-256 opens.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn create_session(&self, session: &Session, hash: &[u8; 32]) -> Result<(), Error> {
        self.execute(
            "INSERT INTO sessions (account, id, hash, agent, created_at, used_at) VALUES ($1, $2, $3, $4, $5, $6)",
            values![
                &session.account,
                &session.id,
                hash,
                session.agent.as_bytes(),
                session.created_at,
                session.used_at
            ],
        )
        .await?;
        Ok(())
    }

    /// The session of this hash that was used after `used_after`, with its person.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn find_session(
        &self,
        hash: &[u8; 32],
        used_after: i64,
    ) -> Result<Option<(Session, Account)>, Error> {
        let row = self
            .row(
                "SELECT s.id AS session, s.agent AS agent, s.created_at AS began_at, s.used_at AS used_at, \
                 a.id AS id, a.provider AS provider, a.issuer AS issuer, a.subject AS subject, a.label AS label, \
                 a.created_at AS created_at, a.signed_in_at AS signed_in_at, a.email_domain AS email_domain \
                 FROM sessions s JOIN accounts a ON a.id = s.account WHERE s.hash = $1 AND s.used_at > $2",
                values![hash, used_after],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let account = Account::read(&row)?;
        let session = Session {
            account: account.id.clone(),
            id: row.text("session")?,
            agent: row.wide_text("agent")?,
            created_at: row.int("began_at")?,
            used_at: row.int("used_at")?,
        };
        Ok(Some((session, account)))
    }

    /// Notes that a session was used.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn touch_session(&self, account: &str, id: &str, now: i64) -> Result<(), Error> {
        self.execute(
            "UPDATE sessions SET used_at = $3 WHERE account = $1 AND id = $2 AND used_at < $3",
            values![account, id, now],
        )
        .await?;
        Ok(())
    }

    /// A person's sessions that were used after `used_after`, the latest first.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_sessions(&self, account: &str, used_after: i64) -> Result<Vec<Session>, Error> {
        let rows = self
            .rows(
                "SELECT id, agent, created_at, used_at FROM sessions WHERE account = $1 AND used_at > $2 \
                 ORDER BY used_at DESC, id LIMIT 100",
                values![account, used_after],
            )
            .await?;
        rows.iter()
            .map(|row| {
                Ok(Session {
                    account: account.to_owned(),
                    id: row.text("id")?,
                    agent: row.wide_text("agent")?,
                    created_at: row.int("created_at")?,
                    used_at: row.int("used_at")?,
                })
            })
            .collect()
    }

    /// Ends one session of a person. Whether there was one.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete_session(&self, account: &str, id: &str) -> Result<bool, Error> {
        let sql = "DELETE FROM sessions WHERE account = $1 AND id = $2";
        Ok(self.execute(sql, values![account, id]).await? > 0)
    }

    /// Ends every session of a person and says how many there were.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete_sessions(&self, account: &str) -> Result<u64, Error> {
        self.execute("DELETE FROM sessions WHERE account = $1", values![account]).await
    }

    /// Remembers a sign-in under the SHA-256 of its state.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn create_sign_in(
        &self,
        state_hash: &[u8; 32],
        row: &SignInRow,
        expires_at: i64,
    ) -> Result<(), Error> {
        self.execute(
            "INSERT INTO sign_ins (state_hash, provider, return_to, expires_at) VALUES ($1, $2, $3, $4)",
            values![state_hash, &row.provider, &row.return_to, expires_at],
        )
        .await?;
        Ok(())
    }

    /// Takes a sign-in out: it can be finished once. What has expired is gone.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn take_sign_in(&self, state_hash: &[u8; 32], now: i64) -> Result<Option<SignInRow>, Error> {
        let rows = self
            .change(
                "DELETE FROM sign_ins WHERE state_hash = $1 AND expires_at > $2 RETURNING provider, return_to",
                values![state_hash, now],
            )
            .await?;
        rows.first()
            .map(|row| Ok(SignInRow { provider: row.text("provider")?, return_to: row.text("return_to")? }))
            .transpose()
    }

    /// Forgets sign-ins that expired and sessions that were last used before `idle_before`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn sweep_sessions(&self, now: i64, idle_before: i64) -> Result<(), Error> {
        self.execute("DELETE FROM sign_ins WHERE expires_at <= $1", values![now]).await?;
        self.execute("DELETE FROM sessions WHERE used_at <= $1", values![idle_before]).await?;
        Ok(())
    }
}
