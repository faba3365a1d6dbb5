//! Schemas and descriptions of tools, made fit for providers.
//!
//! Pure. A schema that providers take passes through byte for byte. Another is repaired where it is broken and kept
//! elsewhere; nothing is ever fetched, and what is too deep or too large becomes permissive and says so. A repaired
//! schema may allow more than the server does, never less: the server judges the arguments anyway.

mod bound;
mod node;
mod reference;
mod repair;
mod simple;
mod top;

pub use repair::{description, repair};
