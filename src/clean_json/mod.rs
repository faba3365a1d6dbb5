//! The entrance for JSON from outside: what a tree of values cannot hold is replaced here, once, before anything else
//! reads it.
//!
//! Pure: no I/O, no clock, nothing of the rest of the crate.

mod clean;
mod read;

pub use clean::clean;
pub use read::{CleanJson, borrowed, exact, from_slice, from_slice_noting, from_str, records, to_value};
