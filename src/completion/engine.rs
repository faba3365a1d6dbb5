//! The parts that all runs share.

use std::sync::Arc;

use http::HeaderMap;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::event::RunEvent;
use super::memory::HiddenTurns;
use super::options::Options;
use super::prepare::scope;
use super::render::Output;
use crate::clock::Clock;
use crate::config::{self, Settings};
use crate::egress::{Egress, Refusal};
use crate::openai::{ChatRequest, InvalidField};
use crate::telemetry::Metrics;
use crate::tools::{Tools, has_gateway_tools};
use crate::upstream::Upstream;

/// Starts runs.
pub struct Engine {
    pub(super) upstream: Upstream,
    pub(super) tools: Tools,
    pub(super) egress: Egress,
    pub(super) memory: HiddenTurns,
    pub(super) metrics: Arc<Metrics>,
    pub(super) run: Arc<config::Run>,
    pub(super) mcp: Arc<config::Mcp>,
    pub(super) clock: Clock,
}

/// A run under way. Dropping it cancels the run: nobody else sees it.
pub struct Started {
    pub run_id: String,
    /// The model as the caller named it.
    pub model: String,
    /// Unix seconds.
    pub created: i64,
    /// Whether the caller wants a stream.
    pub streamed: bool,
    pub include_usage: bool,
    pub output: Output,
    pub events: mpsc::Receiver<RunEvent>,
    pub task: CancelOnDrop,
}

/// Ends a task when dropped.
pub struct CancelOnDrop(pub(super) AbortHandle);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Engine {
    /// An engine on the given parts.
    pub fn new(
        settings: &Settings,
        egress: Egress,
        upstream: Upstream,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Self {
        Engine {
            upstream,
            tools: Tools::new(egress.clone(), &settings.mcp),
            egress,
            memory: HiddenTurns::new(&settings.run),
            metrics,
            run: Arc::new(settings.run.clone()),
            mcp: Arc::new(settings.mcp.clone()),
            clock,
        }
    }

    /// The client for providers.
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// Whether a request may name this address.
    ///
    /// # Errors
    /// The policy's reason.
    pub fn check_address(&self, uri: &http::Uri) -> Result<(), Refusal> {
        self.egress.check(uri)
    }

    /// Whether the request uses anything of the gateway. If not, its bytes are relayed.
    ///
    /// # Errors
    /// [`InvalidField`] when the fields that name the user have another shape.
    pub fn is_needed(
        &self,
        request: &ChatRequest,
        headers: &HeaderMap,
        options: &Options,
        namespace: &str,
    ) -> Result<bool, InvalidField> {
        if options.given
            || headers.contains_key("x-mcp-authorization")
            || request.raw("tools").is_some_and(has_gateway_tools)
        {
            return Ok(true);
        }
        match request.raw("messages").filter(|_| !self.memory.is_empty()) {
            Some(messages) => {
                Ok(self.memory.knows_any(&scope(request, headers, namespace, options)?, messages))
            }
            None => Ok(false),
        }
    }

    /// Closes sessions with MCP servers.
    pub async fn close(&self) {
        self.tools.close().await;
    }
}
