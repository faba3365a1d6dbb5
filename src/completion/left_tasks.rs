//! Tasks at servers that nobody asks about any more. A run that was taken over may end before it has made its calls again,
//! and whoever polled them is lost: their servers are told, as far as that is possible.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use http::HeaderMap;

use super::durable::{Known, Resume};
use super::engine::Parts;
use super::who::scope_of;
use crate::connections::Owner;
use crate::openai::ChatRequest;
use crate::store::RunRow;
use crate::tools::{self, Server, Spec, TaskRef};

/// Servers that are told at the same time.
const AT_ONCE: usize = 16;
/// How long telling all of them may take.
const TO_TELL: Duration = Duration::from_secs(15);

/// The tasks that a run had when it was taken over.
pub(super) struct LeftTasks {
    owner: Option<Owner>,
    scope: Arc<str>,
    tasks: Vec<LeftTask>,
}

struct LeftTask {
    server: Spec,
    task: TaskRef,
    /// With a login of the user, if with anything.
    may_log_in: bool,
}

impl LeftTasks {
    /// What `resume` knows of tasks of the run.
    pub fn of(row: &RunRow, resume: &Resume) -> Self {
        let named = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let (user, profile) = (named(&row.user), named(&row.profile));
        LeftTasks {
            scope: scope_of(&row.project, user.as_deref(), profile.as_deref()),
            owner: user.map(|user| Owner {
                project: row.project.as_str().into(),
                user: user.into(),
                profile: row.profile.as_str().into(),
            }),
            tasks: find(row, resume),
        }
    }

    /// Tells the servers of those that are not over. Of credentials only the user's own logins are there: what came with
    /// the request is not kept, and no login takes its place.
    pub async fn cancel(self, parts: &Parts) {
        let left = self.tasks.iter().filter(|left| !left.task.is_over());
        let telling = stream::iter(left).for_each_concurrent(AT_ONCE, |left| self.cancel_one(parts, left));
        if tokio::time::timeout(TO_TELL, telling).await.is_err() {
            tracing::debug!("not every server could be told that nobody waits for its task");
        }
    }

    async fn cancel_one(&self, parts: &Parts, left: &LeftTask) {
        let spec = &left.server;
        let access = match self.owner.as_ref().filter(|_| left.may_log_in) {
            Some(owner) => parts.connections.find_access(owner, &spec.uri).await.unwrap_or_else(|error| {
                tracing::debug!(mcp.host = spec.host(), %error, "a task is cancelled without its login");
                None
            }),
            None => None,
        };
        let server = Server {
            uri: spec.uri.clone(),
            authorization: access.as_ref().map(|access| access.authorization.clone()),
            connection: access.as_ref().map(|access| Arc::clone(&access.connection)),
            resource: access.map(|access| access.resource),
            headers: Vec::new(),
            scope: Arc::clone(&self.scope),
        };
        parts.tools.cancel_task(&server, &left.task).await;
    }
}

fn find(row: &RunRow, resume: &Resume) -> Vec<LeftTask> {
    let known = resume.pending.iter().flat_map(|pending| &pending.known);
    let tasks = known.filter_map(|known| match known {
        Known::Task { task, server, brought } => Some((server, task, !brought)),
        _ => None,
    });
    let mut tasks = tasks.peekable();
    if tasks.peek().is_none() {
        return Vec::new();
    }
    let servers = ChatRequest::parse(row.request.clone().into()).ok().and_then(|request| {
        // It was taken when it came, whatever the bounds are now.
        let entries = request.raw("tools").unwrap_or("[]");
        tools::read_entries(entries, &HeaderMap::new(), usize::MAX).ok()
    });
    let servers = servers.unwrap_or_default();
    let with_server = |(label, task, may_log_in): (&String, &TaskRef, bool)| {
        let server = servers.iter().find(|spec| spec.label == *label)?.clone();
        Some(LeftTask { server, task: task.clone(), may_log_in })
    };
    tasks.filter_map(with_server).collect()
}
