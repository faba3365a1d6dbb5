//! Clients that authorization servers made for this gateway on request. An issuer may have made several.

use super::{Error, Row, Store, values};

/// One row of `registrations`.
#[derive(Debug, Clone)]
pub struct RegistrationRow {
    pub issuer: String,
    pub redirect_uri: String,
    pub client_id: String,
    pub sealed_secret: Option<Vec<u8>>,
    pub auth_method: String,
    /// Space-separated: those that it was registered for.
    pub scopes: String,
    /// When the secret expires, in milliseconds since 1970.
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
            scopes: row.text("scopes")?,
            expires_at: row.opt_int("expires_at")?,
        })
    }
}

impl Store {
    /// The client for new logins at `issuer` with this redirect address: the newest that is good until `until`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn find_registration(
        &self,
        issuer: &str,
        redirect_uri: &str,
        until: i64,
    ) -> Result<Option<RegistrationRow>, Error> {
        let row = self
            .row(
                "SELECT * FROM registrations WHERE issuer = $1 AND redirect_uri = $2 AND invalid_at IS NULL
                 AND retired_at IS NULL AND (expires_at IS NULL OR expires_at > $3)
                 ORDER BY created_at DESC, client_id LIMIT 1",
                values![issuer, redirect_uri, until],
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
                "SELECT * FROM registrations WHERE issuer = $1 AND client_id = $2 AND invalid_at IS NULL
                 ORDER BY created_at DESC, redirect_uri LIMIT 1",
                values![issuer, client_id],
            )
            .await?;
        row.as_ref().map(RegistrationRow::read).transpose()
    }

    /// Keeps a client. A server that gives the same id again has renewed it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn keep_registration(&self, registration: &RegistrationRow, now: i64) -> Result<(), Error> {
        self.execute(
            "INSERT INTO registrations
                (issuer, redirect_uri, client_id, sealed_secret, auth_method, scopes, created_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
             ON CONFLICT (issuer, redirect_uri, client_id) DO UPDATE SET sealed_secret = excluded.sealed_secret,
                auth_method = excluded.auth_method, scopes = excluded.scopes, created_at = excluded.created_at,
                expires_at = excluded.expires_at, retired_at = NULL, invalid_at = NULL",
            values![
                &registration.issuer,
                &registration.redirect_uri,
                &registration.client_id,
                registration.sealed_secret.clone(),
                &registration.auth_method,
                &registration.scopes,
                now,
                registration.expires_at,
            ],
        )
        .await
        .map(drop)
    }

    /// No new login uses this client, if it was made before `before`. Those who have logged in with it keep it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn retire_registration(
        &self,
        issuer: &str,
        redirect_uri: &str,
        client_id: &str,
        before: i64,
        now: i64,
    ) -> Result<(), Error> {
        self.execute(
            "UPDATE registrations SET retired_at = $5
             WHERE issuer = $1 AND redirect_uri = $2 AND client_id = $3 AND created_at < $4 AND retired_at IS NULL",
            values![issuer, redirect_uri, client_id, before, now],
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
