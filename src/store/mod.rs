//! The only SQL. One text for SQLite and PostgreSQL; plain rows in, plain rows out.
//!
//! It never sees a secret in clear: what is secret comes sealed, or as a hash. It knows no clock; times are
//! milliseconds since 1970 that the caller gives.

mod accounts;
mod api_keys;
mod engine;
mod error;
mod meta;
mod migrate;
mod notify;
mod projects;
mod row;
mod sealed;
mod sessions;
#[cfg(test)]
mod tests;
mod transaction;
mod turn;
mod value;

pub use accounts::Account;
pub use api_keys::ApiKey;
pub use engine::{Location, Store};
pub use error::Error;
pub use meta::CALLERS;
pub use notify::Listener;
pub use projects::{DeletedProject, Project, ProjectProof};
pub use row::Row;
pub use sealed::*;
pub use sessions::{Session, SignInRow};
pub use transaction::Transaction;
pub use value::Value;
pub(crate) use value::values;
