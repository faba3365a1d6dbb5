//! The demo's MCP server: stateless, tools only.
//!
//! It speaks 2026-07-28, and the revisions with `initialize` (2025-03-26 to 2025-11-25) without sessions. It never
//! asks the client for anything and offers nothing but tools.

mod endpoint;
mod message;
mod modern;

pub(super) use endpoint::{open, private};
