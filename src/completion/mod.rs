//! One chat completion: the loop of turns and tool calls, and how it is shown.
//!
//! `prepare` turns a request into a run, `agent` is the loop, `turn` reads one answer of a provider, `execute` makes
//! one tool call; `chunk` and `answer` are the two viewers. `relay` is the path for requests that need none of this.

mod agent;
mod answer;
mod called_tools;
mod chunk;
mod conversation;
mod defuse;
mod durable;
mod engine;
pub mod event;
mod execute;
mod following;
mod gather;
mod growing_text;
mod held;
mod json_notice;
mod left_tasks;
mod logins;
mod memory;
mod options;
mod pages;
mod pictures;
mod prepare;
pub mod relay;
pub mod render;
mod repeated_requests;
mod run_budget;
mod shared_run;
mod sink;
mod start_kept;
mod toolset;
mod turn;
mod unsettled;
mod usage;
mod who;

pub use agent::unreachable;
pub use answer::Answer;
pub use called_tools::CalledTools;
pub use chunk::Chunks;
pub use durable::{
    Changed, EventReader, Idempotency, Keep, Kind, LogViewer, NamedProvider, ReadError, Reader, Record, Runs,
    ShownSharing, Status, Viewer, Visibility, Work, is_run_id, text_of,
};
pub use engine::{CancelOnDrop, Engine, EngineParts, Started};
pub use gather::limit_reached;
pub use growing_text::append_text;
pub use memory::HiddenTurns;
pub use options::{OnAuth, Options, StopWhen};
pub use prepare::{Error, Incoming};
pub use repeated_requests::RepeatKey;
pub use start_kept::unwritable;
pub use who::{OtherUser, Users, Who, named_user};
