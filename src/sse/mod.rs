//! Server-sent events: an incremental parser and an encoder (WHATWG HTML, "Server-sent events").
//!
//! Pure: no I/O, no clock. Never panics on any input, and any split of the bytes gives the same events.

mod decode;
mod encode;

pub use decode::{Decoder, Event, TooLong};
pub use encode::{comment, data, done, event};
