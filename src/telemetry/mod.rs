//! What operators see: logs and metrics. Never bodies, tokens or e-mail addresses.

mod logging;
mod metrics;
mod panics;

pub use logging::{BadFilter, init_logging};
pub use metrics::{
    Endpoint, McpHostMetrics, MemoryMetrics, Metrics, OpenStream, Outcome, ProviderMetrics, StoreMetrics,
};
pub use panics::{PanicSite, catch_panic, log_panics, note_panic, supervise};
