//! Why the gateway does not run.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::{keys, store};

/// What kept the gateway from starting, or ended it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0} is already in use")]
    AddressInUse(SocketAddr),
    #[error("cannot listen on {addr}: {reason}")]
    Listen { addr: SocketAddr, reason: String },
    /// The settings are well-formed but nothing can be built from them.
    #[error("{0}")]
    Settings(String),
    #[error("there is no place for files")]
    NoDataDirectory,
    #[error("cannot write `{}`: {reason}", .path.display())]
    Data { path: PathBuf, reason: String },
    /// Another process serves from this directory.
    #[error("{holder} already uses the data directory `{}`", .path.display())]
    DirectoryInUse { path: PathBuf, holder: store::Holder },
    #[error("{0}")]
    Keys(keys::Error),
    #[error("the store: {0}")]
    Store(store::Error),
}

impl Error {
    /// The failure to listen on `addr`.
    pub fn listen(addr: SocketAddr, error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::AddrInUse => Error::AddressInUse(addr),
            _ => Error::Listen { addr, reason: error.to_string() },
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::AddressInUse(addr) => Some(format!(
                "stop what listens there, or choose another port with `--listen {}:{}`",
                if addr.is_ipv6() { format!("[{}]", addr.ip()) } else { addr.ip().to_string() },
                addr.port().checked_add(1).unwrap_or(8787)
            )),
            Error::Listen { .. } => Some("choose another address with `--listen ADDR`".to_owned()),
            Error::Settings(_) => None,
            Error::NoDataDirectory => Some("give a directory with `--data DIR`".to_owned()),
            Error::Data { .. } => Some(
                "let the gateway's user own the directory and all files in it, or choose another one with `--data DIR`".to_owned(),
            ),
            Error::DirectoryInUse { .. } => Some(
                "stop it first. Another gateway needs a directory of its own (`--data DIR`), or shares a database in PostgreSQL \
                 (`store.url`)"
                    .to_owned(),
            ),
            Error::Keys(error) => error.hint(),
            Error::Store(store::Error::Unavailable(_)) => {
                Some("is there room on its disk, is the database there, and do `store.url` and `data` name it?".to_owned())
            }
            Error::Store(store::Error::Migration(_)) => {
                Some("use the version of toolgate that was used last, or a newer one".to_owned())
            }
            Error::Store(store::Error::Exists | store::Error::Unexpected(_)) => None,
        }
    }
}
