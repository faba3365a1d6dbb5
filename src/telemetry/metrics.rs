//! Counters and histograms, in Prometheus' text form.

/// All metrics of the process. Shared behind an `Arc`.
#[derive(Debug, Default)]
pub struct Metrics {}

impl Metrics {
    /// A provider is tried again.
    pub fn retry(&self, _provider: &str) {}
}
