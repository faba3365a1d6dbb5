//! The built-in demo: a small model, MCP servers, and an authorization server, so that the first request and the first
//! login work with no key and no network.
//!
//! All are reached over HTTP like any other provider and server; nothing else in the program knows them. They are
//! mounted only in local mode, keep nothing but who logged in, and that in memory only, and call nobody but the address
//! that a client gives as its id.

mod address;
mod brain;
mod chat;
mod mcp;
mod oauth;
mod router;
mod tools;

pub use router::{DEMO_TOKEN, router};

#[cfg(test)]
mod http_tests;
#[cfg(test)]
mod oauth_tests;
