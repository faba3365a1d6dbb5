//! The only SQL. One text for SQLite and PostgreSQL; plain rows in, plain rows out.
//!
//! It never sees a secret in clear: what is secret comes sealed, or as a hash. It knows no clock; times are
//! milliseconds since 1970 that the caller gives.

mod engine;
mod error;
mod migrate;
mod notify;
mod row;
#[cfg(test)]
mod tests;
mod transaction;
mod value;

pub use engine::{Location, Store};
pub use error::Error;
pub use notify::Listener;
pub use row::Row;
pub use transaction::Transaction;
pub use value::Value;
pub(crate) use value::values;
