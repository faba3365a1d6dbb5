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
}

impl RegistrationRow {
    fn read(row: &Row) -> Result<Self, Error> {
        Ok(RegistrationRow {
            issuer: row.text("issuer")?,
            redirect_uri: row.text("redirect_uri")?,
            client_id: row.text("client_id")?,
            sealed_secret: row.opt_bytes("sealed_secret")?,
            auth_method: row.text("auth_method")?,
        })
    }
}

impl Store {
    /// The client that `issuer` made for this redirect address, unless it is known to be void.
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
                "SELECT * FROM registrations WHERE issuer = $1 AND redirect_uri = $2 AND invalid_at IS NULL",
                values![issuer, redirect_uri],
            )
            .await?;
        row.as_ref().map(RegistrationRow::read).transpose()
    }

    /// The client with this id that `issuer` made, for whatever redirect address: commands beside the gateway need not
    /// know under which address it is reached.
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

    /// Keeps a client, unless another instance was first; a void one is replaced.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn keep_registration(&self, registration: &RegistrationRow, now: i64) -> Result<(), Error> {
        self.execute(
            "INSERT INTO registrations (issuer, redirect_uri, client_id, sealed_secret, auth_method, created_at)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (issuer, redirect_uri) DO UPDATE SET client_id = excluded.client_id,
                sealed_secret = excluded.sealed_secret, auth_method = excluded.auth_method,
                created_at = excluded.created_at, invalid_at = NULL
             WHERE registrations.invalid_at IS NOT NULL",
            values![
                &registration.issuer,
                &registration.redirect_uri,
                &registration.client_id,
                registration.sealed_secret.clone(),
                &registration.auth_method,
                now,
            ],
        )
        .await
        .map(drop)
    }

    /// The authorization server does not know this client any more.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn void_registration(
        &self,
        issuer: &str,
        redirect_uri: &str,
        client_id: &str,
        now: i64,
    ) -> Result<(), Error> {
        self.execute(
            "UPDATE registrations SET invalid_at = $4
             WHERE issuer = $1 AND redirect_uri = $2 AND client_id = $3 AND invalid_at IS NULL",
            values![issuer, redirect_uri, client_id, now],
        )
        .await
        .map(drop)
    }
}
