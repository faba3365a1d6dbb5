//! Clients that authorization servers made for this gateway on request.

use super::{Error, Row, Store, values};

/// One row of `registrations`.
#[derive(Debug, Clone)]
pub struct RegistrationRow {
    pub issuer: String,
    pub redirect_uri: String,
    pub client_id: String,
    pub sealed_secret: Option<Vec<u8>>,
    pub auth_method: String,
    /// What it named when it was registered, separated by spaces.
    pub scope: String,
    /// When its secret ends, in Unix milliseconds.
    pub expires_at: Option<i64>,
}

impl RegistrationRow {
    fn read(row: &Row) -> Result<Self, Error> {
        Ok(RegistrationRow {
            issuer: row.text("issuer")?,
            redirect_uri: row.text("redirect_uri")?,
            client_id: row.text("client_id")?,
            sealed_secret: row.opt_bytes("sealed_secret")?,
            auth_method: row.text("auth_method")?,
            scope: row.text("scope")?,
            expires_at: row.opt_int("expires_at")?,
        })
    }
}

impl Store {
    /// The client that `issuer` made for this redirect address, for new logins.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn find_registration(
        &self,
        issuer: &str,
        redirect_uri: &str,
    ) -> Result<Option<RegistrationRow>, Error> {
        let row = self
            .row(
                "SELECT * FROM registrations WHERE issuer = $1 AND redirect_uri = $2 AND retired_at IS NULL",
                values![issuer, redirect_uri],
            )
            .await?;
        row.as_ref().map(RegistrationRow::read).transpose()
    }

    /// The client with this id that `issuer` made, for whatever redirect address, unless the issuer does not know it any
    /// more. Commands beside the gateway need not know under which address it is reached.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn find_registration_of(
        &self,
        issuer: &str,
        client_id: &str,
    ) -> Result<Option<RegistrationRow>, Error> {
        let row = self
            .row(
                "SELECT * FROM registrations WHERE issuer = $1 AND client_id = $2 AND invalid_at IS NULL",
                values![issuer, client_id],
            )
            .await?;
        row.as_ref().map(RegistrationRow::read).transpose()
    }

    /// How many clients `issuer` has made since then.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn count_registrations(&self, issuer: &str, since: i64) -> Result<i64, Error> {
        let row = self
            .row(
                "SELECT COUNT(*) AS number FROM registrations WHERE issuer = $1 AND created_at >= $2",
                values![issuer, since],
            )
            .await?;
        row.map_or(Ok(0), |row| row.int("number"))
    }

    /// Keeps a client, unless another instance was first. A server that gives the same one again makes it good again.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn keep_registration(&self, registration: &RegistrationRow, now: i64) -> Result<(), Error> {
        let kept = self.execute(
            "INSERT INTO registrations (issuer, redirect_uri, client_id, sealed_secret, auth_method, scope,
                expires_at, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
             ON CONFLICT (issuer, redirect_uri, client_id) DO UPDATE SET sealed_secret = excluded.sealed_secret,
                auth_method = excluded.auth_method, scope = excluded.scope, expires_at = excluded.expires_at,
                created_at = excluded.created_at, retired_at = NULL, invalid_at = NULL",
            values![
                &registration.issuer,
                &registration.redirect_uri,
                &registration.client_id,
                registration.sealed_secret.clone(),
                &registration.auth_method,
                &registration.scope,
                registration.expires_at,
                now,
            ],
        );
        match kept.await {
            Ok(_) | Err(Error::Exists) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// New logins get another client. Connections that were made with this one go on with it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn retire_registration(&self, issuer: &str, client_id: &str, now: i64) -> Result<(), Error> {
        self.execute(
            "UPDATE registrations SET retired_at = $3
             WHERE issuer = $1 AND client_id = $2 AND retired_at IS NULL",
            values![issuer, client_id, now],
        )
        .await
        .map(drop)
    }

    /// The authorization server itself does not know this client any more.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn void_registration(&self, issuer: &str, client_id: &str, now: i64) -> Result<(), Error> {
        self.execute(
            "UPDATE registrations SET invalid_at = $3, retired_at = COALESCE(retired_at, $3)
             WHERE issuer = $1 AND client_id = $2 AND invalid_at IS NULL",
            values![issuer, client_id, now],
        )
        .await
        .map(drop)
    }
}
