//! What operators see: logs and metrics. Never bodies, tokens or e-mail addresses.

mod logging;
mod metrics;

pub use logging::{BadFilter, init_logging};
pub use metrics::{Endpoint, McpHostMetrics, MemoryMetrics, Metrics, OpenStream, Outcome, ProviderMetrics};
