//! MCP servers and their tools: asking for them, naming them for a model, calling them, reading what they say.
//!
//! No authorisation flows here; a credential is given, or the server's challenge is reported.

mod error;
mod follow;
mod media;
pub mod name;
mod offered;
mod parse_result;
mod protocol;
mod resolve;
mod result;
pub mod schema;
mod server;
mod spec;
mod task;
pub mod text;

pub use crate::oauth::Challenge;
pub use error::{Error, PageRequired};
pub use follow::{Follower, Opening};
pub use media::is_base64;
pub use resolve::{Outcome, Resolved, resolve};
pub use result::{Image, Part, ToolResult};
pub use server::{Progress, Server, Tool, ToolList, Tools};
pub use spec::{
    Spec, address as read_address, has_gateway_tools, others as other_entries, read as read_entries,
};
pub use task::TaskRef;
