//! `toolgate serve`: settings, logs, runtime, and the lines that greet whoever started it.

use std::path::Path;

use super::args::ServeArgs;
use super::{Failure, Output, banner};
use crate::config::{self, Environment, LogFormat};
use crate::{server, telemetry};

/// Runs the gateway until it is told to stop.
pub(super) fn run(args: &ServeArgs, environment: &Environment, output: Output) -> Result<(), Failure> {
    let file = args.config_file(environment).map(Path::new);
    let settings = config::load(file, environment, &args.overrides(environment))?;
    let format = settings.log.format;
    telemetry::init_logging(format, environment.get("RUST_LOG"))
        .map_err(|error| Failure::new(error.to_string()).hint("such as `RUST_LOG=info,toolgate=debug`"))?;
    telemetry::log_panics();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start worker threads: {error}")))?;
    let greet = |started: &server::Started| {
        let text = banner(started);
        match format {
            LogFormat::Text => output.note(&text),
            // Whoever asked for JSON parses every line.
            LogFormat::Json => {
                text.lines().filter(|line| !line.is_empty()).for_each(|line| tracing::info!("{line}"));
            }
        }
    };
    runtime.block_on(server::serve(settings, environment, greet))?;
    Ok(())
}
