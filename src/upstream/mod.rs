//! Model providers: which there are, which one a request means, and how they are called.

mod budget;
mod capability;
mod client;
mod error;
mod headers;
mod models;
mod preset;
mod provider;
mod select;

pub use capability::{takes_audio, takes_images};
pub use client::Upstream;
pub use error::Error;
pub use headers::{forward_request_headers, forward_response_headers};
pub use preset::{PRESETS, Preset};
pub use provider::{KeySource, Provider, Quirks};
pub use select::{KeptTarget, ProviderKey, Providers, SelectError, Target};
