//! Run events as Markdown, for clients that show nothing but `content`.
//!
//! Pure. What a tool or its server says stands inside code fences, and names inside escaped summaries; none of it
//! can end its block, open another, or hide. Tests read the output with a Markdown parser to prove it.

mod block;
mod escape;
mod json;
mod prose;
mod renderer;

pub use block::failed;
pub use block::{authorization_required, batch_item, notice, tool_call, tool_result};
pub use json::pretty as pretty_json;
pub use renderer::{Output, Renderer};
