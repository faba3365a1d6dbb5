//! The parts that all runs share.

use std::sync::Arc;

use http::HeaderMap;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::defuse::OwnLinks;
use super::durable::{Runs, Viewer};
use super::memory::HiddenTurns;
use super::options::Options;
use super::render::Output;
use super::repeated_requests::RepeatableRuns;
use super::who::{Who, scope};
use crate::bounds::PrincipalBounds;
use crate::clock::Clock;
use crate::config::{self, Settings};
use crate::connections::Connections;
use crate::egress::{Egress, Refusal};
use crate::memory_budget::MemoryBudget;
use crate::openai::{ChatRequest, InvalidField};
use crate::telemetry::Metrics;
use crate::tools::{Tools, has_gateway_tools};
use crate::upstream::{Providers, Upstream};

/// Starts runs.
pub struct Engine {
    pub(super) parts: Arc<Parts>,
}

/// What runs use. One for the process.
pub(super) struct Parts {
    pub upstream: Upstream,
    pub tools: Tools,
    pub connections: Connections,
    pub egress: Egress,
    pub memory: HiddenTurns,
    pub memory_budget: MemoryBudget,
    pub metrics: Arc<Metrics>,
    pub bounds: PrincipalBounds,
    pub run: config::Run,
    pub mcp: config::Mcp,
    pub links: OwnLinks,
    /// Whether this is one person's machine.
    pub local: bool,
    pub clock: Clock,
    /// The runs that are kept.
    pub runs: Runs,
    /// The runs that are not kept and may be asked for again.
    pub repeatable: RepeatableRuns,
    pub providers: Arc<Providers>,
    /// Becomes true when the process is asked to stop: nobody is waited for any more.
    pub stopping: watch::Sender<bool>,
}

/// What an engine is made of.
pub struct EngineParts {
    pub egress: Egress,
    pub upstream: Upstream,
    pub connections: Connections,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
    pub runs: Runs,
    pub providers: Arc<Providers>,
    pub memory: HiddenTurns,
    pub memory_budget: MemoryBudget,
}

/// A run under way. Dropping it cancels a run that is not kept: nobody else sees it.
pub struct Started {
    pub run_id: String,
    /// Where the result is, of a run that is kept.
    pub result_url: Option<String>,
    /// The model as the caller named it.
    pub model: String,
    /// Unix seconds.
    pub created: i64,
    /// Of a run that another request has begun: seconds since it ended or, where it has not, since it began.
    pub age: Option<u64>,
    /// Whether the caller wants a stream.
    pub streamed: bool,
    pub include_usage: bool,
    pub output: Output,
    pub events: Viewer,
    /// Of a run that is not kept.
    pub task: Option<CancelOnDrop>,
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
    pub fn new(settings: &Settings, parts: EngineParts) -> Self {
        let EngineParts {
            egress,
            upstream,
            connections,
            metrics,
            clock,
            runs,
            providers,
            memory,
            memory_budget,
        } = parts;
        let repeatable = RepeatableRuns::new(clock.clone(), &memory_budget);
        let parts = Parts {
            upstream,
            tools: Tools::new(egress.clone(), &settings.mcp, memory_budget.clone()),
            connections,
            egress,
            memory,
            memory_budget,
            metrics,
            bounds: PrincipalBounds::new(&settings.limits),
            run: settings.run.clone(),
            mcp: settings.mcp.clone(),
            links: OwnLinks::new(&settings.public_url()),
            repeatable,
            local: settings.is_local(),
            clock,
            runs,
            providers,
            stopping: watch::Sender::new(false),
        };
        Engine { parts: Arc::new(parts) }
    }

    /// The runs that are kept.
    pub fn runs(&self) -> &Runs {
        &self.parts.runs
    }

    /// Counts what principals hold.
    pub fn bounds(&self) -> &PrincipalBounds {
        &self.parts.bounds
    }

    /// The client for providers.
    pub fn upstream(&self) -> &Upstream {
        &self.parts.upstream
    }

    /// `text`, which may hold a stranger's words, without login links.
    pub fn without_links(&self, text: &str) -> String {
        self.parts.links.broken_in(text).into_owned()
    }

    /// Whether a request may name this address.
    ///
    /// # Errors
    /// The policy's reason.
    pub fn check_address(&self, uri: &http::Uri) -> Result<(), Refusal> {
        self.parts.egress.check(uri)
    }

    /// Whether the request uses anything of the gateway. If not, its bytes are relayed; most are, without asking `who`.
    ///
    /// # Errors
    /// [`InvalidField`] when the fields that name the user have another shape.
    pub fn is_needed(
        &self,
        request: &ChatRequest,
        headers: &HeaderMap,
        options: &Options,
        who: impl FnOnce() -> Who,
    ) -> Result<bool, InvalidField> {
        if options.given
            || headers.contains_key("x-mcp-authorization")
            || request.raw("tools").is_some_and(has_gateway_tools)
        {
            return Ok(true);
        }
        let memory = &self.parts.memory;
        match request.raw("messages").filter(|_| !memory.is_empty()) {
            Some(messages) => {
                let who = who();
                let user = who.user(request, headers)?;
                Ok(memory.knows_any(&scope(&who, user.as_deref(), options), messages))
            }
            None => Ok(false),
        }
    }

    /// Ends every wait for a login with the links that were shown: the process stops.
    pub fn stop_waiting(&self) {
        self.parts.runs.stop();
        self.parts.stopping.send_replace(true);
    }

    /// Becomes true when the process is asked to stop.
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.parts.stopping.subscribe()
    }

    /// Writes what runs leave behind, as long as the process serves. Never ends.
    pub async fn work(&self) {
        self.parts.memory.work().await;
    }

    /// Writes what is left to be written, and closes sessions with MCP servers.
    pub async fn close(&self) {
        self.parts.memory.close().await;
        self.parts.tools.close().await;
    }
}
