//! The only place, with `upstream::select`, where stored secrets are opened.

use zeroize::Zeroizing;

use super::Error;
use crate::config::Secret;
use crate::crypto::Keyring;
use crate::id::random_bytes;
use crate::store::SealedColumn;

/// Seals and opens what belongs to one project and user.
#[derive(Clone)]
pub(super) struct Vault {
    keyring: Keyring,
}

/// Whose value it is, and in which row.
#[derive(Clone, Copy)]
pub(super) struct Bound<'a> {
    pub row: &'a str,
    pub project: &'a str,
    pub user: &'a str,
}

impl Vault {
    pub(super) fn new(keyring: Keyring) -> Self {
        Vault { keyring }
    }

    pub(super) fn seal(&self, column: &SealedColumn, bound: Bound<'_>, secret: &[u8]) -> Vec<u8> {
        let place = column.place(bound.row, bound.project, bound.user);
        self.keyring.seal(random_bytes(), &place, secret)
    }

    pub(super) fn open(
        &self,
        column: &SealedColumn,
        bound: Bound<'_>,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let place = column.place(bound.row, bound.project, bound.user);
        self.keyring.open(&place, sealed).map_err(|error| {
            tracing::error!(table = column.table, column = column.column, %error, "a stored secret cannot be opened");
            Error::Sealed
        })
    }

    pub(super) fn open_text(
        &self,
        column: &SealedColumn,
        bound: Bound<'_>,
        sealed: &[u8],
    ) -> Result<Secret, Error> {
        let bytes = self.open(column, bound, sealed)?;
        std::str::from_utf8(&bytes).map(Secret::new).map_err(|_| Error::Sealed)
    }
}
