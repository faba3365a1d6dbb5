//! The only outbound HTTP. Every address is checked when it is dialled and at every redirect.
//!
//! It knows nothing of models or tools, follows no redirect unless asked to, uses no proxy from the
//! environment, asks for no compression and undoes what comes all the same ([`decoded`]).

mod address;
mod body;
mod client;
mod connect;
mod decode;
mod error;
mod policy;
mod redirect;
mod stream;
mod target;
mod tls;

#[cfg(test)]
mod tests;

pub use body::{Body, full, streaming};
pub use client::{Egress, Reach};
pub use connect::{Lookup, system_lookup};
pub use decode::{DecodedBody, UnknownCoding, decoded};
pub use error::{Error, Refusal};
pub use target::parse_uri;
