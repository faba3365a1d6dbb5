//! The peers the gateway stands between, each a process of its own: as little work per request as possible, so that
//! what is measured is the gateway.

pub mod mcp;
pub mod protected;
pub mod provider;
pub mod proxy;
pub mod serve;
