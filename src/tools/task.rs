//! A tool call that goes on at its server as a task (MCP extension `io.modelcontextprotocol/tasks`).

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::protocol::Deadline;

/// A task. Kept as JSON it can be gone on with after a restart; copies in one process know of each other's questions.
///
/// The id may be all that a stranger needs to read the result: it is kept as a credential is, and shown to nobody.
#[derive(Clone, Serialize, Deserialize)]
pub struct TaskRef {
    pub(super) id: String,
    /// How often the server wants to be asked, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) poll_ms: Option<u64>,
    #[serde(skip)]
    life: Arc<Life>,
}

/// What this process knows of a task.
#[derive(Default)]
struct Life {
    deadline: OnceLock<Deadline>,
    answered: AtomicU64,
    over: AtomicBool,
    given_up: AtomicBool,
}

impl TaskRef {
    pub(super) fn new(id: String, poll_ms: Option<u64>) -> Self {
        TaskRef { id, poll_ms, life: Arc::default() }
    }

    /// Whether there is nothing more to be had from it: it has ended, was given up, or the server forgot it.
    pub fn is_over(&self) -> bool {
        self.life.over.load(Ordering::SeqCst)
    }

    /// How many questions about it the server has answered, and thus how often it has taken the credential.
    pub fn answered(&self) -> u64 {
        self.life.answered.load(Ordering::SeqCst)
    }

    /// Whether it was given up before the server said how it ends: its outcome is unknown.
    pub fn was_given_up(&self) -> bool {
        self.life.given_up.load(Ordering::SeqCst)
    }

    pub(super) fn end(&self) {
        self.life.over.store(true, Ordering::SeqCst);
    }

    pub(super) fn give_up(&self) {
        self.life.given_up.store(true, Ordering::SeqCst);
        self.end();
    }

    pub(super) fn count_answer(&self) {
        self.life.answered.fetch_add(1, Ordering::SeqCst);
    }

    /// Until when it is waited for: `bound` from when this was first asked in this process.
    pub(super) fn deadline(&self, bound: Duration) -> Deadline {
        self.life.deadline.get_or_init(|| Deadline::new(bound)).clone()
    }
}

impl fmt::Debug for TaskRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskRef").field("poll_ms", &self.poll_ms).finish_non_exhaustive()
    }
}
