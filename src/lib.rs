//! toolgate gives any language model any MCP server, signed in as the right person.
//!
//! The modules below are listed top layer first; a module may use only what stands below its own layer.
//! `tests/architecture.rs` holds the same table and enforces it. `ARCHITECTURE.md` tells the story.

// 5 · composition
pub mod cli;
pub mod server;
// 4 · edges: the only modules, with `server`, that know axum
pub mod api;
pub mod demo;
pub mod web;
// 3 · the use case
pub mod completion;
// 2 · features
pub mod connections;
pub mod identity;
pub mod tools;
pub mod upstream;
// 1 · foundations
pub mod bounds;
pub mod clean_json;
pub mod clock;
pub mod config;
pub mod crypto;
pub mod egress;
pub mod id;
pub mod keys;
pub mod mcp;
pub mod memory_budget;
pub mod oauth;
pub mod openai;
pub mod rate_limit;
pub mod sse;
pub mod store;
pub mod telemetry;
