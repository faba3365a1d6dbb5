//! MCP from the server's side, as far as it is the same for every server: messages, eras, what requests must say.
//!
//! Pure. Servers here are stateless: they speak 2026-07-28, and the revisions with `initialize` (2025-03-26 to
//! 2025-11-25) without sessions. What a server offers is its own; how servers are spoken to is in `tools`.

mod era;
mod message;
mod request;
mod result;

pub use era::{Era, LEGACY, MODERN, accepted_version, check, supported};
pub use message::{
    INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, Message, PARSE_ERROR, Refusal, read,
    response,
};
pub use request::{check_accept, check_batch, check_content_type, reads_event_streams};
pub use result::{in_era, invalid_params, method_not_found, progress, unknown_tool};
