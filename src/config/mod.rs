//! Every setting, with its default. Read from a TOML file and the environment, checked before anything starts.

mod secret;
mod settings;

pub use secret::Secret;
pub use settings::*;
