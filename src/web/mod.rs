//! The pages: connecting a server, signing in, one's account and connections, results of runs.
//! Plain HTML that works without scripts.
//!
//! It holds no policy of its own: what a link may do is decided by `connections`, who somebody is by `identity`.
//! Nothing that a stranger wrote is shown without being cleaned and escaped, and no page shows a secret.

mod account;
mod assets;
mod callback;
mod connect;
mod connect_page;
mod connections;
mod connections_page;
mod form;
mod frame;
mod hosts;
mod limits;
mod login;
mod markdown;
mod message;
#[cfg(test)]
mod preview_test;
mod return_to;
mod router;
mod runs;
mod site;
mod words;

pub use router::router;
pub use runs::run_page;
pub use site::{Parts, Site};
