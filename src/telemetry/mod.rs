//! What operators see: logs and metrics. Never bodies, tokens or e-mail addresses.

mod metrics;

pub use metrics::Metrics;
