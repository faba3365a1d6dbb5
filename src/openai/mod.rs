//! The wire of OpenAI's chat completions, as far as the gateway acts on it. Everything else stays raw.
//!
//! Pure: no I/O, no clock, nothing of the rest of the crate.

mod error;
mod provider_error;
mod request;

pub use error::{ErrorBody, ErrorKind};
pub use provider_error::{error_object, read_provider_error};
pub use request::{ChatRequest, InvalidField};
