//! The keyring's life: where it is kept, whether it belongs to the database, and how its keys are exchanged.
//!
//! Never decides what is sealed, and opens nothing but what the gateway remembers about itself and what it re-seals.

mod error;
mod rotate;
mod source;
mod unlock;
mod watch;

pub use error::Error;
pub use rotate::{Rotated, Use, count_uses, rotate};
pub use source::{KEYRING_FILE, Source};
pub use unlock::{Pepper, check_before_migrating, is_sealed, unlock};
pub use watch::watch;
