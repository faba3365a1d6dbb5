//! Why the keyring cannot be used. No text carries a key.

use std::path::{Path, PathBuf};

use crate::crypto::{BadKeyring, KeySetError};
use crate::store;

/// The outcomes that are told apart.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no keyring at `{}`", .0.display())]
    Missing(PathBuf),
    #[error("a keyring is needed")]
    Nowhere,
    #[error("both `keys.file` and TOOLGATE_KEYRING give a keyring")]
    TwoSources,
    #[error("others can read the keyring `{}`", .0.display())]
    TooOpen(PathBuf),
    #[error("the keyring `{}`: {reason}", .path.display())]
    File { path: PathBuf, reason: String },
    #[error("the keyring in {place}: {problem}")]
    Bad { place: String, problem: BadKeyring },
    #[error("the keyring is in the variable TOOLGATE_KEYRING, which cannot be changed from here")]
    InVariable,
    #[error("the keyring cannot be changed: {0}")]
    Unchanged(#[from] KeySetError),
    /// The database was sealed with other keys.
    #[error("this keyring does not belong to this database: {0}")]
    Foreign(String),
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Error {
    pub(super) fn file(path: &Path, error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::NotFound => Error::Missing(path.to_owned()),
            std::io::ErrorKind::PermissionDenied => {
                Error::File { path: path.to_owned(), reason: "permission denied".to_owned() }
            }
            _ => Error::File { path: path.to_owned(), reason: error.to_string() },
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Error::Missing(_) => {
                "`toolgate init` makes one; after a restore, put the saved one back".to_owned()
            }
            Error::Nowhere => "say where it is with `--data DIR`, `keys.file` or TOOLGATE_KEYRING".to_owned(),
            Error::TwoSources => "keep one of them".to_owned(),
            Error::TooOpen(path) => format!("`chmod 600 {}`", path.display()),
            Error::Bad { .. } => {
                "it has lines `key_ID = \"base64 of 32 bytes\"` and one `active = \"key_ID\"`".to_owned()
            }
            Error::InVariable => {
                "change it where the variable is set, and start the gateway again".to_owned()
            }
            Error::Unchanged(_) => "`toolgate keys list` shows the keys".to_owned(),
            Error::Foreign(_) => {
                "put back the keyring that was in use with this database, or use another database".to_owned()
            }
            Error::File { .. } | Error::Store(_) => return None,
        })
    }
}
