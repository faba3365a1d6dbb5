//! Hashing and comparing secrets. Pure: no I/O, no clock, nothing of the rest of the crate.

mod api_key;
mod hash;

pub use api_key::{ApiKeyHash, BadHash};
pub use hash::{constant_time_eq, hmac_sha256, sha256, sha256_hex, to_hex};
