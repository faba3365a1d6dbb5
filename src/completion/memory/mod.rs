//! Turns that the caller never saw, or saw only as text, kept until it brings back what it saw of them.

mod earlier_messages;
mod key;
mod recall;
mod remember;
mod seen;
mod shelf;
#[cfg(test)]
mod tests;
mod turns;

pub use remember::AskedMessages;
pub use seen::Seen;
pub use turns::HiddenTurns;
