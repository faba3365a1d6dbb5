//! The Model Context Protocol on the wire, as a client: three eras of servers behind one question and answer.
//!
//! It holds no policy of the gateway: it neither picks tools nor words results, and it never opens an address
//! that a server asks a person to open.

mod annotation;
mod client;
mod deadline;
mod event_stream;
mod input;
mod interruption;
mod link;
mod lists;
mod lost_session;
mod message;
mod modern;
mod page;
mod peer;
mod polling;
mod reading;
mod request;
mod session;
mod sessions;
mod task;

#[cfg(test)]
mod tests;

pub(crate) use client::{Client, Core, Era, Follow};
pub(crate) use deadline::Deadline;
pub(crate) use input::Answers;
pub(crate) use peer::Peer;
