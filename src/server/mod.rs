//! Puts the rooms together and listens.

mod error;
mod serve;
mod started;

pub use error::Error;
pub use serve::serve;
pub use started::Started;
