//! A user's stored authorisations at protected resources: logins, tokens, their renewal and their end.
//!
//! Everything about a user is looked up by project, user and profile. Tokens are opened in `vault` alone; they are
//! attached to requests by `tools`, never seen by the model, and never written in clear.

mod access;
mod back;
mod clients;
pub mod doctor;
mod error;
mod flow;
mod link;
mod list;
mod offer;
mod pages;
mod probe;
mod projects;
mod proof;
pub mod quirks;
mod refresh;
mod revoke;
mod service;
mod take_in;
mod types;
mod vault;
mod wait;
mod webhooks;
mod work;

pub use error::{Error, FlowError, NotBegun, PageError};
pub use pages::*;
pub use service::{Connections, Parts};
pub use types::*;
pub use webhooks::RunNews;
