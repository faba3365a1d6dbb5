//! What the tests stand on.

mod gateway;
mod http;
mod mcp;
mod peer;
mod provider;
mod stream;

pub use gateway::Gateway;
pub use http::{Answer, Client};
pub use mcp::{FakeMcp, FakeTool};
pub use peer::{Peer, Piece, Recorded, Reply};
pub use provider::{FakeProvider, call, calls, text, text_stream};
pub use stream::Stream;
