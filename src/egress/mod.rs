//! The only outbound HTTP. Every address is checked when it is dialled and at every redirect.

mod client;
mod error;

pub use client::{Body, Egress, Lookup, Reach, full, system_lookup};
pub use error::{Error, Refusal};
