//! The only SQL. One text for SQLite and PostgreSQL; plain rows in, plain rows out.
//!
//! It never sees a secret in clear: what is secret comes sealed, or as a hash. It knows no clock; times are
//! milliseconds since 1970 that the caller gives.

mod accounts;
mod api_keys;
mod audit;
mod connections;
mod directory_lock;
mod engine;
mod error;
mod flow_proofs;
mod flows;
mod health;
mod hidden_turns;
mod instances;
mod meta;
mod migrate;
mod notify;
mod opened_file;
mod outbox;
mod probe;
mod projects;
mod prune;
mod registrations;
mod restoration;
mod row;
mod run_ends;
mod run_events;
mod run_keys;
mod run_lists;
mod runs;
mod sealed;
mod sessions;
#[cfg(test)]
mod tests;
mod transaction;
mod turn;
mod value;
mod wipe;

pub use accounts::{Account, AccountOrigin};
pub use api_keys::ApiKey;
pub use audit::AuditRow;
pub use connections::{ChangedConnection, ConnectionRow, NewSecrets, RenewalFailure, SecretsRow};
pub use directory_lock::{DirectoryLock, Holder, LOCK_FILE, LastWrite, LockError};
pub use engine::{Location, Store};
pub use error::Error;
pub use flows::{FlowRow, Leaving};
pub use hidden_turns::{HiddenTurnsRow, MOST_FOUND};
pub use instances::QuietInstance;
pub use meta::CALLERS;
pub use notify::Listener;
pub use outbox::{OutboxRow, RevocationRow, Take};
pub use projects::{DeletedProject, Project, ProjectProof};
pub use prune::Old;
pub use registrations::RegistrationRow;
pub use restoration::INTERRUPTED;
pub use row::Row;
pub use run_events::RunBatch;
pub use run_keys::{Claimed, NewKey};
pub use run_lists::RunFilter;
pub use runs::{Holding, RunChange, RunRow, RunState, RunUsage};
pub use sealed::*;
pub use sessions::{Session, SignInRow};
pub use transaction::Transaction;
pub use value::Value;
pub(crate) use value::values;
