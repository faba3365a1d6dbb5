//! The few things the gateway remembers about itself, and numbers that grow with every change.

use super::{Error, Store, Transaction, values};

/// The revision that grows with every change of projects and API keys.
pub const CALLERS: &str = "callers";

impl Store {
    /// What is remembered under `name`, sealed.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Unavailable`] also where no migration has run yet.
    pub async fn find_meta(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let row = self.row("SELECT sealed_value FROM meta WHERE name = $1", values![name]).await?;
        row.map(|row| row.bytes("sealed_value")).transpose()
    }

    /// Remembers `sealed` under `name` unless something is there, and gives what is there then: of several instances
    /// that do this at once, all get the same.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn keep_meta(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>, Error> {
        let sql = "INSERT INTO meta (name, sealed_value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
        self.execute(sql, values![name, sealed]).await?;
        self.find_meta(name).await?.ok_or_else(|| Error::Unexpected(format!("`{name}` is gone again")))
    }

    /// The number that grows whenever something of this name changes; 0 before the first time.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn find_revision(&self, name: &str) -> Result<i64, Error> {
        let row = self.row("SELECT number FROM revisions WHERE name = $1", values![name]).await?;
        row.map_or(Ok(0), |row| row.int("number"))
    }
}

/// Says, within the transaction that changes it, that something of this name has changed.
pub(super) async fn raise_revision(open: &mut Transaction, name: &str) -> Result<(), Error> {
    let sql = "INSERT INTO revisions (name, number) VALUES ($1, 1) \
               ON CONFLICT (name) DO UPDATE SET number = revisions.number + 1";
    open.execute(sql, values![name]).await.map(|_| ())
}
