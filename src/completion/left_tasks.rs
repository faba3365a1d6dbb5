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
    tasks: Vec<(Spec, TaskRef)>,
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
    /// the request is not kept.
    pub async fn cancel(self, parts: &Parts) {
        let left = self.tasks.iter().filter(|(_, task)| !task.is_over());
        let telling = stream::iter(left)
            .for_each_concurrent(AT_ONCE, |(spec, task)| self.cancel_one(parts, spec, task));
        if tokio::time::timeout(TO_TELL, telling).await.is_err() {
            tracing::debug!("not every server could be told that nobody waits for its task");
        }
    }

    async fn cancel_one(&self, parts: &Parts, spec: &Spec, task: &TaskRef) {
        let access = match &self.owner {
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
        parts.tools.cancel_task(&server, task).await;
    }
}

fn find(row: &RunRow, resume: &Resume) -> Vec<(Spec, TaskRef)> {
    let known = resume.pending.iter().flat_map(|pending| &pending.known);
    let mut tasks = known.filter_map(|known| match known {
        Known::Task { task, server } => Some((server, task)),
        _ => None,
    });
    let Some(first) = tasks.next() else { return Vec::new() };
    let servers = ChatRequest::parse(row.request.clone().into()).ok().and_then(|request| {
        // It was taken when it came, whatever the bounds are now.
        let entries = request.raw("tools").unwrap_or("[]");
        tools::read_entries(entries, &HeaderMap::new(), usize::MAX).ok()
    });
    let servers = servers.unwrap_or_default();
    let with_server = |(label, task): (&String, &TaskRef)| {
        let spec = servers.iter().find(|spec| spec.label == *label)?;
        Some((spec.clone(), task.clone()))
    };
    std::iter::once(first).chain(tasks).filter_map(with_server).collect()
}
