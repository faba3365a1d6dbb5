//! Runs that outlive their viewers, and their process.
//!
//! A run writes its events to a `log`; viewers read there, from any place and at their own pace. The `journal` brings
//! what is new into the store, many runs at a time. `keeper` says that this process is alive, and takes over the runs
//! of those that are not; `resume` goes on with one of them, `restoration` keeps it from those of a restored database.
//! `runs` is what the edges see, `record` one run as they see it, `follow` and `event_reader` how it is read, `wait` what
//! one may wait for, `creation` how one begins.

mod creation;
mod event_reader;
mod follow;
mod holdings;
mod journal;
mod keeper;
mod kept;
mod log;
mod record;
mod restoration;
mod resume;
mod runs;
mod state;
mod step;
mod taken;
mod tally;
mod tell;
mod viewer;
mod wait;

pub use creation::Creation;
pub use event_reader::{EventReader, ReadError};
pub use kept::{Idempotency, Keep, Kind};
pub(super) use log::{Log, Stop};
pub use record::{NamedProvider, Reader, Record, ShownSharing, Status, Visibility};
pub(super) use restoration::is_interrupted;
pub(super) use resume::{Known, Pending, Resume};
pub(super) use runs::ClaimFailure;
pub use runs::{Changed, Runs, Work, is_id as is_run_id};
pub use state::text_of;
pub(super) use state::{KeptApplication, KeptState, has_credentials, kept_request, title};
pub(super) use step::{KeptCall, Step, Used};
pub(super) use tell::Told;
pub use viewer::{LogViewer, Viewer};
