//! Logs on stderr.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LogFormat;

/// The text is not a log filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`RUST_LOG` is not a log filter: {0}")]
pub struct BadFilter(String);

/// Sends logs to stderr: short lines, or one JSON object a line. `filter` is the value of `RUST_LOG`; without one,
/// everything from `info` up is logged. Does nothing when logs already go somewhere.
///
/// # Errors
/// When `filter` cannot be understood.
pub fn init_logging(format: LogFormat, filter: Option<&str>) -> Result<(), BadFilter> {
    let filter =
        EnvFilter::try_new(filter.unwrap_or("info")).map_err(|error| BadFilter(error.to_string()))?;
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    // A second call comes from a test or an embedding program whose own choice stands.
    let _ = match format {
        LogFormat::Text => {
            let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
            registry.with(layer.compact().with_ansi(colours)).try_init()
        }
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_understood_is_refused() {
        let error = init_logging(LogFormat::Text, Some("toolgate=loud")).unwrap_err();
        assert!(error.to_string().starts_with("`RUST_LOG` is not a log filter: "), "{error}");
    }
}
