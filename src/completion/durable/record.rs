//! One run as its readers see it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::state::KeptState;
use crate::clean_json;
use crate::completion::options::Options;
use crate::completion::render::Output;
use crate::store::RunRow;
use crate::upstream::KeptTarget;

/// Where a run is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Queued,
    InProgress,
    /// It waits for a person.
    RequiresAction,
    Completed,
    Failed,
    Cancelled,
    /// A bound ended it, or a login that is missing.
    Incomplete,
}

impl Status {
    /// All there are.
    pub const ALL: [Status; 7] = [
        Status::Queued,
        Status::InProgress,
        Status::RequiresAction,
        Status::Completed,
        Status::Failed,
        Status::Cancelled,
        Status::Incomplete,
    ];

    /// The word on the wire and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Queued => "queued",
            Status::InProgress => "in_progress",
            Status::RequiresAction => "requires_action",
            Status::Completed => "completed",
            Status::Failed => "failed",
            Status::Cancelled => "cancelled",
            Status::Incomplete => "incomplete",
        }
    }

    /// Whether nothing comes any more.
    pub fn is_over(self) -> bool {
        !matches!(self, Status::Queued | Status::InProgress | Status::RequiresAction)
    }

    /// The status that the store calls so.
    pub fn parse(word: &str) -> Option<Self> {
        Status::ALL.into_iter().find(|status| status.as_str() == word)
    }
}

/// Who may read a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// The user and the project's keys.
    Private,
    /// Whoever has the address.
    Unlisted,
    /// Everybody; search engines may list it.
    Public,
}

impl Visibility {
    /// The word on the wire and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Visibility::Private => "private",
            Visibility::Unlisted => "unlisted",
            Visibility::Public => "public",
        }
    }

    /// The visibility that is called so.
    pub fn parse(word: &str) -> Option<Self> {
        [Visibility::Private, Visibility::Unlisted, Visibility::Public]
            .into_iter()
            .find(|visibility| visibility.as_str() == word)
    }
}

/// What a page showed of how a run is shared. A choice is taken only while that is still so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShownSharing {
    pub visibility: Visibility,
    pub used_logins: bool,
}

/// Who wants to read. Somebody of whom nothing is known reads what is not private.
#[derive(Debug, Clone, Default)]
pub struct Reader {
    /// The namespace whose runs it may all read: a project's key, or the person at their own machine.
    pub namespace: Option<Arc<str>>,
    /// In that namespace, the only user it is.
    pub only_user: Option<Arc<str>>,
    /// The ids of the person who is signed in.
    pub person: Vec<String>,
}

impl Reader {
    /// Whether the run is its own: it may change, cancel and delete it.
    pub fn owns(&self, row: &RunRow) -> bool {
        let is_in_their_list = !row.person.is_empty() && self.person.contains(&row.person);
        self.is_caller(row) || is_in_their_list
    }

    /// Whether it is who sent the request: not a person whom an application sent it for.
    fn is_caller(&self, row: &RunRow) -> bool {
        self.namespace.as_deref() == Some(&*row.project)
            && self.only_user.as_deref().is_none_or(|own| own == row.user)
    }

    /// Whether it may read the run.
    pub fn may_read(&self, row: &RunRow) -> bool {
        row.visibility != Visibility::Private.as_str() || self.owns(row)
    }
}

/// The provider of a run that was asked at a provider's address.
#[derive(Debug, Clone)]
pub struct NamedProvider {
    pub target: KeptTarget,
    /// The endpoint below the provider's base address, with its query.
    pub path: String,
}

/// A run, without its events.
#[derive(Clone)]
pub struct Record {
    pub id: String,
    pub project: String,
    pub user: String,
    /// `completion`, `task` or `page`.
    pub kind: String,
    /// The model as the caller named it.
    pub model: String,
    /// The beginning of the prompt.
    pub title: String,
    pub status: Status,
    /// Why it ended as it did.
    pub reason: Option<String>,
    pub visibility: Visibility,
    /// Kept for good.
    pub stored: bool,
    pub metadata: Map<String, Value>,
    /// What the caller asked, without credentials.
    pub request: Map<String, Value>,
    /// Tools of a user who is logged in were used.
    pub used_logins: bool,
    /// Milliseconds since 1970, as the next three.
    pub created_at: i64,
    pub changed_at: i64,
    pub ended_at: Option<i64>,
    pub expires_at: Option<i64>,
    pub prompt_tokens: i64,
    pub completion_tokens: i64,
    pub turns: i64,
    pub tool_calls: i64,
    /// How tool activity appears in the run's `content`.
    pub output: Output,
    /// Where it was asked, if not by the name of a model here.
    pub named_provider: Option<NamedProvider>,
    /// What the request said to the gateway, in its body or in headers; `None` where that is not known.
    pub options: Option<Options>,
    /// Whether the reader may change it.
    pub is_own: bool,
    /// Whether the reader sent the request, and may see all of it.
    pub is_callers: bool,
}

impl Record {
    /// Of a listed one neither the request nor its options and provider are known.
    pub(super) fn of(row: &RunRow, reader: &Reader) -> Self {
        let state = clean_json::from_slice::<KeptState>(&row.state).ok();
        Record {
            output: state.as_ref().map(|state| state.options.output).unwrap_or_default(),
            options: state.as_ref().map(|state| state.options.clone()),
            named_provider: state
                .filter(|state| state.target.is_named())
                .map(|state| NamedProvider { target: state.target, path: state.path }),
            id: row.id.clone(),
            project: row.project.clone(),
            user: row.user.clone(),
            kind: row.kind.clone(),
            model: row.model.clone(),
            title: row.title.clone(),
            status: Status::parse(&row.status).unwrap_or(Status::Failed),
            reason: row.reason.clone(),
            visibility: Visibility::parse(&row.visibility).unwrap_or(Visibility::Private),
            stored: row.stored,
            metadata: clean_json::from_slice(&row.metadata).unwrap_or_default(),
            request: clean_json::from_slice(&row.request).unwrap_or_default(),
            used_logins: row.used_logins,
            created_at: row.created_at,
            changed_at: row.changed_at,
            ended_at: row.ended_at,
            expires_at: row.expires_at,
            prompt_tokens: row.usage.prompt_tokens,
            completion_tokens: row.usage.completion_tokens,
            turns: row.usage.turns,
            tool_calls: row.usage.tool_calls,
            is_own: reader.owns(row),
            is_callers: reader.is_caller(row),
        }
    }

    /// What the reader may see of the request: who sent it all, others what was asked of whom.
    pub fn shown_request(&self) -> Map<String, Value> {
        if self.is_callers {
            return self.request.clone();
        }
        let shown = ["model", "messages"].into_iter();
        let shown = shown.filter_map(|key| Some((key.to_owned(), self.request.get(key)?.clone())));
        shown.collect()
    }

    /// The messages of the request.
    pub fn messages(&self) -> &[Value] {
        self.request.get("messages").and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }
}
