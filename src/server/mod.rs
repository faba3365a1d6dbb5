//! The running gateway: its parts put together, its routes, its listener, its end.

mod address_connections;
mod connection;
mod error;
mod front;
mod host;
mod lent;
mod listen;
mod open;
mod result;
mod router;
mod serve;
mod started;

pub use error::Error;
pub use open::{DATABASE_FILE, Opened, WithoutKeys, lock, open};
pub use serve::{World, serve, serve_until, useless_links};
pub use started::Started;
