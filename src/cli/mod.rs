//! The command line. Results go to stdout, everything else to stderr, both through [`Output`] alone.

mod args;
mod banner;
pub mod demo;
mod entry;
mod key;
mod output;
mod serve;

pub use banner::banner;
pub use entry::{Failure, main};
pub use output::Output;
