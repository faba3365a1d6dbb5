//! The demo MCP server's tools: few, real, read-only, and without any way out of the process.

mod calculate;
mod catalog;
mod dice;
mod draw;
mod notes;
mod world_time;

pub(super) use catalog::{Output, Visitor, call, list};
