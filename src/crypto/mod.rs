//! Hashing, comparing and sealing secrets. Pure: no I/O, no clock, nothing of the rest of the crate.

mod api_key;
mod hash;
mod keyring;
mod seal;

pub use api_key::{ApiKeyHash, BadHash};
pub use hash::{constant_time_eq, hmac_sha256, sha256, sha256_hex, to_hex};
pub use keyring::{BadKeyring, KEY_ID_PREFIX, KeySet, KeySetError, Keyring, key_id_of};
pub use seal::{NONCE_BYTES, OpenError, Place, sealed_prefix};
