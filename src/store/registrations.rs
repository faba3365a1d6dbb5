//! Clients that authorization servers made for us on request (RFC 7591), and documents of ours that they refused.

use super::{Error, Row, Store, values};

/// Most registrations of one issuer that are looked at.
const MOST: i64 = 100;

/// One client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    pub id: String,
    /// The authorization server as resources name it.
    pub issuer: String,
    pub redirect_uri: String,
    pub client_id: String,
    /// Sealed at [`REGISTRATION_SECRET`](super::REGISTRATION_SECRET) of this row.
    pub sealed_secret: Option<Vec<u8>>,
    /// As RFC 7591 §2 writes it.
    pub auth_method: String,
    /// The scopes it was registered with, separated by spaces.
    pub scopes: String,
    pub created_at: i64,
    /// When the server forgets its secret.
    pub expires_at: Option<i64>,
    /// When the server said that it does not know it.
    pub invalid_at: Option<i64>,
}

impl Registration {
    fn read(row: &Row) -> Result<Self, Error> {
        Ok(Registration {
            id: row.text("id")?,
            issuer: row.text("issuer")?,
            redirect_uri: row.text("redirect_uri")?,
            client_id: row.text("client_id")?,
            sealed_secret: row.opt_bytes("sealed_secret")?,
            auth_method: row.text("auth_method")?,
            scopes: row.text("scopes")?,
            created_at: row.int("created_at")?,
            expires_at: row.opt_int("expires_at")?,
            invalid_at: row.opt_int("invalid_at")?,
        })
    }
}

impl Store {
    /// Keeps a client.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn create_registration(&self, new: &Registration) -> Result<(), Error> {
        let sql = "INSERT INTO registrations (id, issuer, redirect_uri, client_id, sealed_secret, auth_method, scopes, \
                   created_at, expires_at, invalid_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
        let values = values![
            &new.id,
            &new.issuer,
            &new.redirect_uri,
            &new.client_id,
            new.sealed_secret.clone(),
            &new.auth_method,
            &new.scopes,
            new.created_at,
            new.expires_at,
            new.invalid_at
        ];
        self.execute(sql, values).await.map(|_| ())
    }

    /// All clients at `issuer` for this redirect address, the oldest first.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_registrations(
        &self,
        issuer: &str,
        redirect_uri: &str,
    ) -> Result<Vec<Registration>, Error> {
        let sql = "SELECT * FROM (SELECT id, issuer, redirect_uri, client_id, sealed_secret, auth_method, scopes, \
                   created_at, expires_at, invalid_at FROM registrations WHERE issuer = $1 AND redirect_uri = $2 \
                   ORDER BY created_at DESC, id DESC LIMIT $3) AS newest ORDER BY created_at, id";
        let rows = self.rows(sql, values![issuer, redirect_uri, MOST]).await?;
        rows.iter().map(Registration::read).collect()
    }

    /// Notes that `issuer` does not know this client any more. Says whether that is news.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn mark_registration_invalid(
        &self,
        issuer: &str,
        client_id: &str,
        now: i64,
    ) -> Result<bool, Error> {
        let sql = "UPDATE registrations SET invalid_at = $1 \
                   WHERE issuer = $2 AND client_id = $3 AND invalid_at IS NULL";
        Ok(self.execute(sql, values![now, issuer, client_id]).await? > 0)
    }
}
