//! The demo's authorization server: OAuth 2.1 for one protected resource, small enough to be read in one go.
//!
//! Applications become known by a document at their own address (CIMD) or by registering (RFC 7591). A person types a
//! name, any name, and allows or denies. Codes are good once and for their verifier only (RFC 7636), access tokens live
//! ten minutes and name the resource they are for (RFC 8707), refresh tokens change whenever they are used, and either
//! can be revoked (RFC 7009). No passwords, no database: it ends with the program. Only digests of what opens
//! something are kept.

mod authorize;
mod client;
mod document;
mod error;
mod fields;
mod memory;
mod metadata;
mod page;
mod register;
mod revoke;
mod shelf;
mod token;

pub(super) use authorize::{answer as answer_login, show as show_login};
pub(super) use memory::Memory;
pub(super) use metadata::{SCOPE, resource as resource_metadata, server as server_metadata};
pub(super) use page::style;
pub(super) use register::register;
pub(super) use revoke::revoke;
pub(super) use token::token;
