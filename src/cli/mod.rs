//! The command line. Results go to stdout, everything else to stderr, both through [`Output`] alone.

mod args;
mod audit;
mod banner;
mod connections;
pub mod demo;
mod demo_person;
mod doctor;
mod entry;
mod house;
mod init;
mod key;
mod key_hash;
mod keys;
mod migrate;
mod moment;
mod output;
mod project;
mod restore;
mod serve;

pub use banner::banner;
pub use entry::{Failure, main};
pub use output::Output;
