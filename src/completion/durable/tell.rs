//! Who hears that a run has ended: a signed webhook, in the transaction in which it ends.

use serde_json::json;

use super::log::Log;
use super::record::Status;
use crate::connections::{Connections, RunNews};
use crate::store::{Error, Transaction};

/// What is told of a run, and to whom.
#[derive(Debug, Clone)]
pub struct Told {
    pub user: String,
    pub model: String,
    /// The address that the request named; the project's own is told, too.
    pub url: Option<String>,
    /// Where the result is.
    pub result_url: String,
    pub created_at: i64,
}

impl Told {
    /// Tells of the run's end.
    pub async fn tell(
        &self,
        connections: &Connections,
        open: &mut Transaction,
        log: &Log,
        status: Status,
    ) -> Result<(), Error> {
        let data = json!({
            "id": &*log.id,
            "status": status.as_str(),
            "reason": log.reason(),
            "model": self.model,
            "user": (!self.user.is_empty()).then_some(&self.user),
            "created_at": self.created_at / 1000,
            "url": self.result_url,
            "markdown_url": format!("{}.md", self.result_url),
            "json_url": format!("{}.json", self.result_url),
        });
        let event = match status {
            Status::Completed => "run.completed",
            Status::Cancelled => "run.cancelled",
            Status::Incomplete => "run.incomplete",
            Status::Queued | Status::InProgress | Status::RequiresAction | Status::Failed => "run.failed",
        };
        let news = RunNews { project: &log.project, run: &log.id, event, data, url: self.url.as_deref() };
        connections.tell_run(open, news).await
    }
}
