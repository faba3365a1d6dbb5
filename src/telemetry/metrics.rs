//! Counters and histograms, in Prometheus' text form.

/// All metrics of the process. Shared behind an `Arc`.
#[derive(Debug, Default)]
pub struct Metrics {}
