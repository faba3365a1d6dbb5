//! Counters and histograms, in OpenMetrics' text form.
//!
//! A name that requests can choose (a provider's or an MCP server's host) becomes a label for the first hundred
//! names only; the rest is counted as `other`, so that nobody can fill memory or the monitoring with names.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::PanicSite;

const PANIC_SITES: [PanicSite; 4] =
    [PanicSite::Request, PanicSite::Answer, PanicSite::Run, PanicSite::Background];

const MOST_NAMES: usize = 100;
/// The longest DNS name with a port.
const LONGEST_NAME_BYTES: usize = 260;
const OTHER: &str = "other";

/// What a request asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// `/v1/chat/completions` and its short form.
    Completions,
    /// Chat completions of a provider named by its host.
    HostCompletions,
    /// Lists of models.
    Models,
    /// Tasks, runs, results, their pages and MCP servers, stored completions.
    Runs,
    /// What is relayed to a provider without being looked at.
    Relay,
    /// Health, metrics and the demo.
    Other,
}

const ENDPOINTS: [(Endpoint, &str); 6] = [
    (Endpoint::Completions, "completions"),
    (Endpoint::HostCompletions, "host_completions"),
    (Endpoint::Models, "models"),
    (Endpoint::Runs, "runs"),
    (Endpoint::Relay, "relay"),
    (Endpoint::Other, OTHER),
];
const STATUS_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// How a tool call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The tool gave a result.
    Ok,
    /// The tool says that it failed.
    ToolError,
    /// The server wants a login.
    Unauthorized,
    /// No answer in time.
    Timeout,
    /// The server could not be reached, or did not speak MCP.
    Failed,
    /// The caller went away first.
    Cancelled,
}

const OUTCOMES: [(Outcome, &str); 6] = [
    (Outcome::Ok, "ok"),
    (Outcome::ToolError, "tool_error"),
    (Outcome::Unauthorized, "unauthorized"),
    (Outcome::Timeout, "timeout"),
    (Outcome::Failed, "failed"),
    (Outcome::Cancelled, "cancelled"),
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    endpoint: &'static str,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndpointLabel {
    endpoint: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProviderLabel {
    provider: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HostLabel {
    host: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    host: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SiteLabel {
    site: &'static str,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

fn histograms<L: Clone + std::hash::Hash + Eq>() -> Histograms<L> {
    Family::new_with_constructor(|| {
        // Seconds: from a cached answer on this machine to a model that thinks for minutes.
        Histogram::new([
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0,
        ])
    })
}

/// What is counted for one provider. Cheap to clone; counting takes no lookup.
#[derive(Debug, Clone)]
pub struct ProviderMetrics {
    turns: Counter,
    retries: Counter,
    first_byte: Histogram,
}

impl ProviderMetrics {
    /// The provider was asked for one turn.
    pub fn turn(&self) {
        self.turns.inc();
    }

    /// The provider was asked again before its first byte.
    pub fn retry(&self) {
        self.retries.inc();
    }

    /// The first byte of its answer arrived after `elapsed`.
    pub fn first_byte(&self, elapsed: Duration) {
        self.first_byte.observe(elapsed.as_secs_f64());
    }
}

/// What is counted for one MCP server's host. Cheap to clone; counting takes no lookup.
#[derive(Debug, Clone)]
pub struct McpHostMetrics {
    calls: [Counter; OUTCOMES.len()],
    duration: Histogram,
}

impl McpHostMetrics {
    /// A tool call ended after `elapsed`.
    pub fn tool_call(&self, outcome: Outcome, elapsed: Duration) {
        self.calls[outcome as usize].inc();
        self.duration.observe(elapsed.as_secs_f64());
    }
}

/// What is counted of the store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StoreMetrics {
    healthy: Gauge,
    failures: Counter,
}

impl StoreMetrics {
    /// The store takes writes, or does not.
    pub fn set_healthy(&self, is_healthy: bool) {
        self.healthy.set(i64::from(is_healthy));
    }

    /// A statement failed because of the database, rather than of a row.
    pub fn failure(&self) {
        self.failures.inc();
    }
}

/// Counts as an open stream until it is dropped.
#[derive(Debug)]
pub struct OpenStream(Gauge);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What is counted of the memory that runs and request bodies hold. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct MemoryMetrics {
    reserved: Gauge,
    refusals: Counter,
}

impl MemoryMetrics {
    /// So many bytes were reserved.
    pub fn reserved(&self, bytes: usize) {
        self.reserved.inc_by(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// So many bytes were given back.
    pub fn released(&self, bytes: usize) {
        self.reserved.dec_by(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Somebody was refused memory.
    pub fn refused(&self) {
        self.refusals.inc();
    }
}

/// Handles by name, so that a known name costs a shared lock and no allocation.
#[derive(Debug)]
struct Names<M>(RwLock<HashMap<Box<str>, M>>);

impl<M: Clone> Names<M> {
    fn new() -> Self {
        Names(RwLock::new(HashMap::new()))
    }

    fn get(&self, name: &str, make: impl Fn(&str) -> M) -> M {
        {
            let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(handle) = known.get(name) {
                return handle.clone();
            }
            if (known.len() >= MOST_NAMES || name.len() > LONGEST_NAME_BYTES)
                && let Some(handle) = known.get(OTHER)
            {
                return handle.clone();
            }
        }
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let full = known.len() >= MOST_NAMES || name.len() > LONGEST_NAME_BYTES;
        let name = if full { OTHER } else { name };
        known.entry(name.into()).or_insert_with(|| make(name)).clone()
    }
}

/// All metrics of the process. Shared behind an `Arc`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: [[Counter; STATUS_CLASSES.len()]; ENDPOINTS.len()],
    request_duration: [Histogram; ENDPOINTS.len()],
    open_streams: Gauge,
    refused_callbacks: Counter,
    memory: MemoryMetrics,
    panics: [Counter; PANIC_SITES.len()],
    store: StoreMetrics,
    provider_turns: Family<ProviderLabel, Counter>,
    provider_retries: Family<ProviderLabel, Counter>,
    provider_first_byte: Histograms<ProviderLabel>,
    tool_calls: Family<CallLabels, Counter>,
    tool_call_duration: Histograms<HostLabel>,
    providers: Names<ProviderMetrics>,
    mcp_hosts: Names<McpHostMetrics>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("toolgate");
        let requests = Family::<RequestLabels, Counter>::default();
        registry.register("requests", "Requests answered", requests.clone());
        let request_duration = histograms::<EndpointLabel>();
        let help =
            "Time from a request to the head of its answer, which is the whole of it unless it is streamed";
        registry.register_with_unit("request_duration", help, Unit::Seconds, request_duration.clone());
        let open_streams = Gauge::default();
        registry.register("open_streams", "Streams that are open now", open_streams.clone());
        let refused_callbacks = Counter::default();
        let help = "Browsers that came back from an authorization server with a state that nobody was given";
        registry.register("refused_callbacks", help, refused_callbacks.clone());
        let memory = MemoryMetrics::default();
        let help = "Bytes that runs, request bodies and unread answers hold now";
        registry.register_with_unit("memory_reserved", help, Unit::Bytes, memory.reserved.clone());
        let help = "Requests and runs that were refused memory";
        registry.register("memory_refusals", help, memory.refusals.clone());
        let panics = Family::<SiteLabel, Counter>::default();
        registry.register("panics", "Panics that were caught: defects of the gateway", panics.clone());
        let store = StoreMetrics { healthy: Gauge::default(), failures: Counter::default() };
        registry.register("store_healthy", "1 while the store takes writes, else 0", store.healthy.clone());
        let help = "Statements that failed because of the database or the way to it";
        registry.register("store_failures", help, store.failures.clone());
        let provider_turns = Family::default();
        registry.register("turns", "Calls of a model provider", provider_turns.clone());
        let provider_retries = Family::default();
        registry.register("upstream_retries", "Calls of a provider made again", provider_retries.clone());
        let provider_first_byte = histograms();
        let help = "Time from calling a provider to the first byte of its answer";
        registry.register_with_unit("time_to_first_byte", help, Unit::Seconds, provider_first_byte.clone());
        let tool_calls = Family::default();
        registry.register("tool_calls", "Tool calls at MCP servers", tool_calls.clone());
        let tool_call_duration = histograms();
        let help = "Time from a tool call to its result";
        registry.register_with_unit("tool_call_duration", help, Unit::Seconds, tool_call_duration.clone());
        Metrics {
            requests: ENDPOINTS.map(|(_, endpoint)| {
                STATUS_CLASSES.map(|status| requests.get_or_create_owned(&RequestLabels { endpoint, status }))
            }),
            request_duration: ENDPOINTS
                .map(|(_, endpoint)| request_duration.get_or_create_owned(&EndpointLabel { endpoint })),
            registry,
            open_streams,
            refused_callbacks,
            memory,
            panics: PANIC_SITES.map(|site| panics.get_or_create_owned(&SiteLabel { site: site.as_str() })),
            store,
            provider_turns,
            provider_retries,
            provider_first_byte,
            tool_calls,
            tool_call_duration,
            providers: Names::new(),
            mcp_hosts: Names::new(),
        }
    }
}

impl Metrics {
    /// The content type of [`Metrics::encode`].
    pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// A request was answered with `status`, wholly, after `elapsed`.
    pub fn request(&self, endpoint: Endpoint, status: u16, elapsed: Duration) {
        let class = usize::from(status / 100).clamp(1, STATUS_CLASSES.len()) - 1;
        self.requests[endpoint as usize][class].inc();
        self.request_duration[endpoint as usize].observe(elapsed.as_secs_f64());
    }

    /// A stream to a client is open until the value is dropped.
    pub fn open_stream(&self) -> OpenStream {
        self.open_streams.inc();
        OpenStream(self.open_streams.clone())
    }

    /// A panic was caught.
    pub fn panic(&self, site: PanicSite) {
        self.panics[site as usize].inc();
    }

    /// A browser came back to us with what nobody was given.
    pub fn refused_callback(&self) {
        self.refused_callbacks.inc();
    }

    /// The handles of the memory that runs and request bodies hold.
    pub fn memory(&self) -> MemoryMetrics {
        self.memory.clone()
    }

    /// The handles of the store.
    pub fn store(&self) -> StoreMetrics {
        self.store.clone()
    }

    /// The handles of a provider: its name, or the host that a request named.
    pub fn provider(&self, name: &str) -> ProviderMetrics {
        self.providers.get(name, |name| {
            let label = ProviderLabel { provider: name.to_owned() };
            ProviderMetrics {
                turns: self.provider_turns.get_or_create_owned(&label),
                retries: self.provider_retries.get_or_create_owned(&label),
                first_byte: self.provider_first_byte.get_or_create_owned(&label),
            }
        })
    }

    /// A provider is tried again.
    pub fn retry(&self, provider: &str) {
        self.provider(provider).retry();
    }

    /// The handles of an MCP server's host.
    pub fn mcp_host(&self, host: &str) -> McpHostMetrics {
        self.mcp_hosts.get(host, |host| McpHostMetrics {
            calls: OUTCOMES.map(|(_, outcome)| {
                self.tool_calls.get_or_create_owned(&CallLabels { host: host.to_owned(), outcome })
            }),
            duration: self.tool_call_duration.get_or_create_owned(&HostLabel { host: host.to_owned() }),
        })
    }

    /// Everything counted so far, as OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut out = String::new();
        text::encode(&mut out, &self.registry).expect("writing to a string does not fail");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(metrics: &Metrics, line: &str) -> bool {
        metrics.encode().lines().any(|written| written == line)
    }

    #[test]
    fn the_tables_are_in_the_order_of_their_enums() {
        assert!(ENDPOINTS.iter().enumerate().all(|(at, (endpoint, _))| *endpoint as usize == at));
        assert!(PANIC_SITES.iter().enumerate().all(|(at, site)| *site as usize == at));
        assert!(OUTCOMES.iter().enumerate().all(|(at, (outcome, _))| *outcome as usize == at));
    }

    #[test]
    fn what_happens_is_counted_under_its_name() {
        let metrics = Metrics::default();
        metrics.request(Endpoint::Completions, 200, Duration::from_millis(3));
        metrics.request(Endpoint::Completions, 429, Duration::from_millis(3));
        metrics.provider("openai").turn();
        metrics.retry("openai");
        metrics.provider("openai").first_byte(Duration::from_secs(3));
        metrics.mcp_host("mcp.example.com").tool_call(Outcome::Timeout, Duration::from_secs(1));
        for line in [
            r#"toolgate_requests_total{endpoint="completions",status="2xx"} 1"#,
            r#"toolgate_requests_total{endpoint="completions",status="4xx"} 1"#,
            r#"toolgate_request_duration_seconds_bucket{le="0.0025",endpoint="completions"} 0"#,
            r#"toolgate_request_duration_seconds_bucket{le="0.005",endpoint="completions"} 2"#,
            r#"toolgate_turns_total{provider="openai"} 1"#,
            r#"toolgate_upstream_retries_total{provider="openai"} 1"#,
            r#"toolgate_time_to_first_byte_seconds_sum{provider="openai"} 3.0"#,
            r#"toolgate_tool_calls_total{host="mcp.example.com",outcome="timeout"} 1"#,
            r#"toolgate_tool_call_duration_seconds_count{host="mcp.example.com"} 1"#,
        ] {
            assert!(has(&metrics, line), "{line} is missing in\n{}", metrics.encode());
        }
    }

    #[test]
    fn a_stream_is_open_until_it_is_dropped() {
        let metrics = Metrics::default();
        let (one, two) = (metrics.open_stream(), metrics.open_stream());
        assert!(has(&metrics, "toolgate_open_streams 2"));
        drop((one, two));
        assert!(has(&metrics, "toolgate_open_streams 0"));
    }

    #[test]
    fn names_beyond_the_first_hundred_are_counted_together() {
        let metrics = Metrics::default();
        for number in 0..150 {
            metrics.provider(&format!("host{number}.example.com")).turn();
        }
        metrics.provider(&"long".repeat(100)).turn();
        metrics.provider("host3.example.com").turn();
        assert!(has(&metrics, r#"toolgate_turns_total{provider="host3.example.com"} 2"#));
        assert!(has(&metrics, r#"toolgate_turns_total{provider="other"} 51"#));
        let lines = metrics.encode().lines().filter(|line| line.starts_with("toolgate_turns_total")).count();
        assert_eq!(lines, 101);
    }

    #[test]
    fn a_name_cannot_break_out_of_its_label() {
        let metrics = Metrics::default();
        metrics.provider("a\"} 1\nfake 1").turn();
        assert!(has(&metrics, r#"toolgate_turns_total{provider="a\"} 1\nfake 1"} 1"#));
    }
}
