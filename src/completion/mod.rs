//! One chat completion: the loop of turns and tool calls, and how it is shown.

pub mod event;
pub mod render;
