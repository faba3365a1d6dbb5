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
    /// Make the data directory, the keyring and the database
    Init(StoreArgs),
    /// Bring the database up to date, without running the gateway
    Migrate(StoreArgs),
    /// The applications that call with keys of their own
    #[command(subcommand_value_name = "COMMAND", disable_help_subcommand = true)]
    Project {
        #[command(subcommand)]
        command: ProjectCommand,
    },
    /// Make, list and revoke API keys for your own applications
    #[command(subcommand_value_name = "COMMAND", disable_help_subcommand = true)]
    Key {
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// The keys that seal what is stored
    #[command(subcommand_value_name = "COMMAND", disable_help_subcommand = true)]
    Keys {
        #[command(subcommand)]
        command: KeysCommand,
    },
    /// Users' logins at the servers they use
    #[command(subcommand_value_name = "COMMAND", disable_help_subcommand = true)]
    Connections {
        #[command(subcommand)]
        command: ConnectionsCommand,
    },
    /// What happened to users' logins, newest first
    Audit(AuditArgs),
    /// Show what a login at an address would be like, and if there can be none, why
    Doctor(DoctorArgs),
    /// Interrupt the unfinished runs of a restored database, so that no action is repeated
    ///
    /// A gateway does this by itself where it can see that its database was restored or copied. Use this command before
    /// starting one where it cannot, such as after restoring a snapshot of a whole machine.
    Restore(RestoreArgs),
    /// Print the version
    Version,
}

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Print the hash of a key for the configuration
    ///
    /// A key that is piped in is hashed. Without input, a new key is made and printed once, before its hash.
    Hash,
    /// Make a key for a project and print it, once
    Create(CreateKeyArgs),
    /// List keys; the keys themselves are not kept
    List {
        /// Only those of this project
        #[arg(long, value_name = "NAME")]
        project: Option<String>,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Revoke a key by its id
    Revoke {
        /// As `toolgate key list` shows it
        id: String,
        #[command(flatten)]
        store: StoreArgs,
    },
}

#[derive(Debug, Args)]
pub(super) struct CreateKeyArgs {
    /// The project it is for
    #[arg(long, value_name = "NAME")]
    pub(super) project: String,
    /// What to call it
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(super) name: String,
    /// What it may be used for; may be repeated [default: completions, connections]
    #[arg(long, value_name = "SCOPE", hide_possible_values = true)]
    pub(super) scope: Vec<ScopeArg>,
    /// How many requests a minute it may send; 0 is no limit
    #[arg(long, value_name = "N")]
    pub(super) requests_per_minute: Option<u32>,
    #[command(flatten)]
    pub(super) store: StoreArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ScopeArg {
    Completions,
    Connections,
    Tokens,
}

#[derive(Debug, Subcommand)]
pub(super) enum ProjectCommand {
    /// Add a project
    Create(ChangeProjectArgs),
    /// List the projects
    List(ListArgs),
    /// Show one project and its keys
    Show {
        name: String,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Change a project; what is not given stays
    Update(UpdateProjectArgs),
    /// Delete a project and its keys, once its users have no connections any more
    Delete {
        name: String,
        #[command(flatten)]
        store: StoreArgs,
    },
}

#[derive(Debug, Args)]
pub(super) struct ChangeProjectArgs {
    /// Letters, digits, `-`, `_` and `.`
    pub(super) name: String,
    /// How its users prove who they are: `gateway` (they sign in here) or `app` (the application vouches for them)
    #[arg(long, value_name = "PROOF", hide_possible_values = true)]
    pub(super) proof: Option<ProofArg>,
    /// Where the application proves who a person is; with `--proof app`
    #[arg(long, value_name = "URL")]
    pub(super) verifier_url: Option<String>,
    /// Where events go; a signing secret is made and printed, once
    #[arg(long, value_name = "URL")]
    pub(super) webhook_url: Option<String>,
    #[command(flatten)]
    pub(super) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(super) struct UpdateProjectArgs {
    #[command(flatten)]
    pub(super) change: ChangeProjectArgs,
    /// Send events nowhere any more
    #[arg(long, conflicts_with_all = ["webhook_url", "new_webhook_secret"])]
    pub(super) no_webhook: bool,
    /// Make a new signing secret and print it, once
    #[arg(long)]
    pub(super) new_webhook_secret: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ProofArg {
    Gateway,
    App,
}

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// List the keys, and how much is sealed with each
    List(ListArgs),
    /// Add a new key, not active yet, and print its id
    Add(StoreArgs),
    /// Seal with this key from now on
    Activate {
        id: String,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Seal everything anew with the active key; the gateway may run meanwhile
    Rotate(StoreArgs),
    /// Remove a key that is not in use any more
    Retire {
        id: String,
        /// Do not wait until every running instance has noticed which key is active
        #[arg(long)]
        now: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ConnectionsCommand {
    /// List connections; tokens are never shown
    List(ListConnectionsArgs),
    /// End connections, here at once and at the provider, and say for each what came of it
    Revoke(RevokeConnectionsArgs),
}

/// Which connections.
#[derive(Debug, Default, Args)]
pub(super) struct WhichArgs {
    /// Only those of this project; `local`, `person` and `pt:…` name what belongs to none
    #[arg(long, value_name = "NAME")]
    pub(super) project: Option<String>,
    /// Only those of this user
    #[arg(long, value_name = "USER")]
    pub(super) user: Option<String>,
    /// Only those of this authorization server
    #[arg(long, value_name = "URL")]
    pub(super) issuer: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct ListConnectionsArgs {
    #[command(flatten)]
    pub(super) which: WhichArgs,
    #[command(flatten)]
    pub(super) list: ListArgs,
}

#[derive(Debug, Args)]
pub(super) struct RevokeConnectionsArgs {
    /// As `toolgate connections list` shows it; instead of the options that mean many
    #[arg(conflicts_with_all = ["project", "user", "issuer"])]
    pub(super) id: Option<String>,
    #[command(flatten)]
    pub(super) which: WhichArgs,
    /// Really end all that the options mean
    #[arg(long)]
    pub(super) yes: bool,
    #[command(flatten)]
    pub(super) list: ListArgs,
}

#[derive(Debug, Args)]
pub(super) struct AuditArgs {
    /// Only what concerns this project; `local`, `person` and `pt:…` name what belongs to none
    #[arg(long, value_name = "NAME")]
    pub(super) project: Option<String>,
    /// How many entries
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(super) limit: u32,
    #[command(flatten)]
    pub(super) list: ListArgs,
}

/// Where the store is, for commands beside the gateway.
#[derive(Debug, Default, Args)]
pub(super) struct StoreArgs {
    /// Configuration file (TOML) [env: TOOLGATE_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<String>,
    /// Directory for data [env: TOOLGATE_DATA] [default: the platform's data directory]
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
}

impl StoreArgs {
    /// As if they were given to `serve`.
    pub(super) fn for_serve(&self) -> ServeArgs {
        ServeArgs { config: self.config.clone(), data: self.data.clone(), ..ServeArgs::default() }
    }
}

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// Continue unfinished runs instead: the database was moved here, and nothing else continues them
    #[arg(long)]
    pub(super) resume: bool,
    #[command(flatten)]
    pub(super) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Address of the MCP server, or of anything else that asks for a login
    #[arg(value_name = "URL")]
    pub(super) url: String,
    /// Print JSON
    #[arg(long = "json")]
    pub(super) list_json: bool,
    #[command(flatten)]
    pub(super) store: StoreArgs,
}

#[derive(Debug, Default, Args)]
pub(super) struct ListArgs {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) store: StoreArgs,
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
