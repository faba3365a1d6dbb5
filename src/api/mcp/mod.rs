//! `POST /{id}/mcp`: what a kept run was asked, as an MCP server with one tool. Stateless, for every revision with
//! streamable HTTP. A call of the tool is a chat completion behind that prompt, with one message of the user.

mod call;
mod endpoint;
mod outcome;
mod progress;
mod refused;
mod tool;

pub use endpoint::serve;
