//! What can be written on the command line.

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{Environment, Origin, Override};

/// Gives any language model any MCP server.
#[derive(Debug, Parser)]
#[command(
    name = "toolgate",
    bin_name = "toolgate",
    version,
    disable_help_subcommand = true,
    max_term_width = 100
)]
#[command(
    after_help = "Without a command, `serve` is run. Every setting of the configuration file can also be given in the\n\
environment: `limits.body_bytes` is TOOLGATE__LIMITS__BODY_BYTES."
)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Option<Command>,
    #[command(flatten)]
    pub(super) serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the gateway (the default)
    Serve(ServeArgs),
    /// Show what the gateway does, on this machine, without any key
    Demo,
    /// Make API keys for your own applications
    #[command(subcommand_value_name = "COMMAND", disable_help_subcommand = true)]
    Key {
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// Print the version
    Version,
}

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Print the hash of a key for the configuration
    ///
    /// A key that is piped in is hashed. Without input, a new key is made and printed once, before its hash.
    Hash,
}

#[derive(Debug, Default, PartialEq, Eq, Args)]
pub(super) struct ServeArgs {
    /// Configuration file (TOML) [env: TOOLGATE_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<String>,
    /// Address and port to listen on [env: TOOLGATE_LISTEN] [default: 127.0.0.1:8787]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Directory for data [env: TOOLGATE_DATA] [default: the platform's data directory]
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Address under which others reach this gateway [env: TOOLGATE_PUBLIC_URL]
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// How logs are written; RUST_LOG chooses what is logged
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

impl ServeArgs {
    /// Completes options given after a command with those given before it.
    pub(super) fn or(self, before: ServeArgs) -> ServeArgs {
        ServeArgs {
            config: self.config.or(before.config),
            listen: self.listen.or(before.listen),
            data: self.data.or(before.data),
            public_url: self.public_url.or(before.public_url),
            log_format: self.log_format.or(before.log_format),
        }
    }

    /// The configuration file, from the option or the environment.
    pub(super) fn config_file<'a>(&'a self, environment: &'a Environment) -> Option<&'a str> {
        self.config.as_deref().or_else(|| environment.get("TOOLGATE_CONFIG"))
    }

    /// The settings given by options and by the short environment variables; an option wins.
    pub(super) fn overrides(&self, environment: &Environment) -> Vec<Override> {
        let log_format = self.log_format.map(|format| match format {
            LogFormat::Text => "text".to_owned(),
            LogFormat::Json => "json".to_owned(),
        });
        [
            ("listen", "--listen", &self.listen, Some("TOOLGATE_LISTEN")),
            ("data", "--data", &self.data, Some("TOOLGATE_DATA")),
            ("public_url", "--public-url", &self.public_url, Some("TOOLGATE_PUBLIC_URL")),
            ("log.format", "--log-format", &log_format, None),
        ]
        .into_iter()
        .filter_map(|(path, option, given, variable)| {
            if let Some(text) = given {
                return Some(Override { path, text: text.clone(), origin: Origin::Option(option) });
            }
            let variable = variable?;
            let text = environment.get(variable)?.to_owned();
            Some(Override { path, text, origin: Origin::Variable(variable.into()) })
        })
        .collect()
    }
}
