//! The pages of runs: trying one, watching one, one's results.
//!
//! A run's page is one more viewer of its events. What they say comes from models, tools and strangers: it is cleaned
//! and escaped in one place each, `markdown` for prose and the templates for everything else.

mod block;
mod page;
#[cfg(test)]
pub(super) mod preview;
mod prompt;
mod samples;
mod view;

pub(super) use page::*;
pub(super) use prompt::Prompt;
pub(super) use samples::Samples;
pub(super) use view::{Links, View};
