//! Talking to one MCP server.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, Uri};
use serde_json::Value;
use serde_json::value::RawValue;

use super::offered::Offered;
use super::protocol::{Client, Peer};
use super::{Error, Follower, PageRequired, TaskRef};
use crate::config::{self, Secret};
use crate::egress::Egress;
use crate::memory_budget::MemoryBudget;

/// An MCP server as one request names it, with what it may be told.
#[derive(Debug, Clone)]
pub struct Server {
    pub uri: Uri,
    /// The value of `Authorization`, scheme included.
    pub authorization: Option<Secret>,
    /// The id of the connection that `authorization` comes from, if it does. Its tokens change; what is kept for it
    /// is kept under this name, over all of them, and for nobody else.
    pub connection: Option<Arc<str>>,
    /// What the connection is for: `authorization` follows no redirect to an address that this does not cover. Without
    /// it the whole origin of `uri` is covered.
    pub resource: Option<Arc<str>>,
    /// Further headers of the request's tool entry; values are secrets.
    pub headers: Vec<(HeaderName, Secret)>,
    /// The caller's namespace and user. Sessions of different scopes are never shared.
    pub scope: Arc<str>,
}

/// The tools of a server.
#[derive(Debug, Default)]
pub struct ToolList {
    pub tools: Vec<Tool>,
    /// Tools left out because their definition is invalid, with the reason.
    pub dropped: Vec<(String, String)>,
    /// The list had something that no JSON value can hold, and that was replaced.
    pub is_repaired: bool,
}

/// One tool as its server describes it.
#[derive(Debug, Clone)]
pub struct Tool {
    pub name: String,
    pub title: Option<String>,
    pub description: Option<String>,
    pub input_schema: Box<RawValue>,
    /// `annotations.readOnlyHint`.
    pub read_only: bool,
    /// `annotations.idempotentHint`.
    pub idempotent: bool,
    /// `x-mcp-header` annotations: argument path and header name.
    pub header_arguments: Vec<(Vec<String>, HeaderName)>,
    pub(super) offered: Offered,
}

/// A progress notification.
#[derive(Debug, Clone)]
pub struct Progress {
    pub progress: f64,
    pub total: Option<f64>,
    pub message: Option<String>,
}

/// The MCP client: one for the process, all servers and users. Cheap to clone.
#[derive(Clone)]
pub struct Tools {
    client: Arc<Client>,
}

impl Tools {
    /// A client that sends through `egress`, within `settings`. What it reads is counted in `memory`.
    pub fn new(egress: Egress, settings: &config::Mcp, memory: MemoryBudget) -> Self {
        Tools { client: Arc::new(Client::new(egress, settings, memory)) }
    }

    /// The server's tools, from the cache where its scope and age allow.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list(&self, server: &Server) -> Result<Arc<ToolList>, Error> {
        self.client.list(Peer::new(server)?).await
    }

    /// Calls `tool` and gives the raw JSON of its `CallToolResult`. Never sends a call twice unless the server
    /// proved that it did not run it, or asked for it. Dropping the future cancels the call at the server. What happens
    /// meanwhile goes to `follow`. A call that the server turns into a task is followed to its end.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn call(
        &self,
        server: &Server,
        tool: &Tool,
        arguments: &serde_json::Map<String, Value>,
        follow: &dyn Follower,
    ) -> Result<Bytes, Error> {
        self.client.call(&Peer::new(server)?, tool, arguments, None, follow).await
    }

    /// Repeats a call that ended in [`Error::PageRequired`], now that the person has been shown the pages.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn call_again(
        &self,
        server: &Server,
        tool: &Tool,
        arguments: &serde_json::Map<String, Value>,
        required: &PageRequired,
        follow: &dyn Follower,
    ) -> Result<Bytes, Error> {
        let answers = required.resume.as_ref().map(|resume| &*resume.0);
        self.client.call(&Peer::new(server)?, tool, arguments, answers, follow).await
    }

    /// Goes on with a call that has become `task`, after a restart or with another credential, to the same end as
    /// [`Tools::call`]. The tool is not called again.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn resume_task(
        &self,
        server: &Server,
        tool: &Tool,
        task: &TaskRef,
        follow: &dyn Follower,
    ) -> Result<Bytes, Error> {
        self.client.resume(Peer::new(server)?, tool, task, follow).await
    }

    /// Tells the server that nobody waits for the task any more, for at most five seconds. Whether it stops is its own
    /// decision.
    pub async fn cancel_task(&self, server: &Server, task: &TaskRef) {
        if let Ok(peer) = Peer::new(server) {
            self.client.cancel(&peer, task).await;
        }
    }

    /// Forgets what is kept for this server and credential: they are not what they were.
    pub fn forget(&self, server: &Server) {
        if let Ok(peer) = Peer::new(server) {
            self.client.forget(&peer);
        }
    }

    /// Closes every session (HTTP DELETE), for at most two seconds.
    pub async fn close(&self) {
        self.client.close().await;
    }
}
