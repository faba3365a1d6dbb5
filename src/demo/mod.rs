//! The built-in demo: a small model and an MCP server, so that the first request works with no key and no network.
//!
//! Both are reached over HTTP like any other provider and server; nothing else in the program knows them. They are
//! mounted only in local mode, hold no state, keep nothing, and call nobody.

mod brain;
mod chat;
mod mcp;
mod router;
mod tools;

pub use router::{DEMO_TOKEN, router};

#[cfg(test)]
mod http_tests;
