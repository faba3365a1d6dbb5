//! MCP servers and their tools: asking for them, naming them for a model, calling them, reading what they say.
//!
//! No authorisation flows here; a credential is given, or the server's challenge is reported.

mod error;
mod media;
pub mod name;
mod parse_result;
mod result;
mod server;
pub mod text;

pub use error::{Challenge, Error};
pub use result::{Image, Part, ToolResult};
pub use server::{Progress, Server, Tool, ToolList, Tools};
