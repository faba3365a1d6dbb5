//! How a run is to be kept.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::record::Visibility;

/// What started a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `POST …/chat/completions`.
    Completion,
    /// `POST /v1/tasks`.
    Task,
    /// The form of a page.
    Page,
}

impl Kind {
    /// All there are.
    pub const ALL: [Kind; 3] = [Kind::Completion, Kind::Task, Kind::Page];

    /// The kind that the store calls so.
    pub fn parse(word: &str) -> Option<Self> {
        Kind::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// The word in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Completion => "completion",
            Kind::Task => "task",
            Kind::Page => "page",
        }
    }
}

/// A request that is to be carried out once.
#[derive(Debug, Clone, Copy)]
pub struct Idempotency {
    /// SHA-256 of the caller's `Idempotency-Key`.
    pub key: [u8; 32],
    /// SHA-256 of what it asks.
    pub body: [u8; 32],
}

/// How a run is kept.
#[derive(Debug, Clone)]
pub struct Keep {
    pub kind: Kind,
    /// For good, and in lists; otherwise for a day.
    pub stored: bool,
    /// OpenAI's `metadata`: at most 16 pairs of short texts.
    pub metadata: Map<String, Value>,
    /// The signed-in person whom the run belongs to: it is in their list.
    pub person: Option<Arc<str>>,
    /// What the caller wants; `None` is decided by the tools that are used.
    pub visibility: Option<Visibility>,
    pub idempotency: Option<Idempotency>,
    /// Where to tell that the run has ended.
    pub webhook_url: Option<String>,
}
