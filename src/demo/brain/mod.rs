//! What the demo model thinks with: pure functions from tools and messages to a decision.
//!
//! Not a language model: it compares the words of the prompt with the words of the offered tools. Deterministic, no
//! I/O, no clock. It never calls a tool twice for one user message, so a loop around it always ends.

mod arguments;
mod choose;
mod conversation;
mod decide;
mod extract;
mod words;

pub use conversation::text_of;
pub use decide::{Call, Choice, Decision, Tool, decide};
