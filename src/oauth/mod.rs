//! OAuth 2.1 as a client speaks it: challenges, metadata, registration, the authorize URL, PKCE, and the token endpoint.
//!
//! It keeps nothing and decides nothing about people: what is stored, for whom, and when it is refreshed is
//! `connections`'. What servers say about their errors is never kept beyond a short code, and no redirect is followed.

mod authorize;
mod challenge;
mod client;
mod discover;
mod error;
mod exchange;
mod fetch;
mod metadata;
mod pkce;
mod protected_resource;
mod quirks;
mod register;
mod revoke;
mod scope;
mod token;
mod trace;
mod well_known;

pub use authorize::{Authorize, authorize_url};
pub use challenge::Challenge;
pub use client::{Client, ClientDocument};
pub use discover::{Discovered, discover, discover_issuer};
pub use error::{DiscoveryError, RegistrationError, TokenError};
pub use exchange::{TokenEndpoint, exchange_code, refresh};
pub use metadata::ServerMetadata;
pub use pkce::Pkce;
pub use protected_resource::{ProtectedResource, covers};
pub use quirks::{QuirkTable, Quirks, is_host};
pub use register::{NewClient, register};
pub use revoke::{Hint, Revoked, revoke};
pub use scope::{join as join_scopes, split as split_scopes};
pub use token::{Tokens, read as read_token_response};
pub use trace::{Finding, Step, Trace};

pub use crate::config::AuthMethod;
