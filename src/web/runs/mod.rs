//! The pages of runs: trying one, watching one, one's results.
//!
//! A run's page is one more viewer of its events. What they say comes from models, tools and strangers: it is cleaned
//! and escaped in one place each, `markdown` for prose and the templates for everything else.

mod act;
mod again;
mod block;
mod list;
mod live;
mod page;
#[cfg(test)]
pub(super) mod preview;
mod prompt;
mod samples;
mod show;
mod start;
mod view;

pub(super) use act::{cancel, delete, resume, share};
pub(super) use list::show as list;
pub(super) use live::Live;
pub(super) use page::*;
pub(super) use prompt::Prompt;
pub(super) use samples::{Samples, mcp_settings};
pub(super) use show::live;
pub use show::run_page;
pub(super) use start::{show as start_page, start};
pub(super) use view::{Links, View};
