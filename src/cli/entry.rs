//! From the command line to the command, and from its end to the exit code.

use std::process::ExitCode;

use clap::Parser;
use clap::error::{Error as ArgsError, ErrorKind};

use super::args::{Cli, Command, KeyCommand, ServeArgs};
use super::{
    Output, audit, connections, demo, doctor, init, key, key_hash, keys, migrate, project, restore, serve,
};
use crate::config::{self, Environment};
use crate::{server, store};

/// Why a command failed, in words for the terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// One line that says what happened.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure that needs no hint.
    pub fn new(message: impl Into<String>) -> Self {
        Failure { message: message.into(), hint: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<config::Error> for Failure {
    fn from(error: config::Error) -> Self {
        Failure { message: error.to_string(), hint: error.hint() }
    }
}

impl From<server::Error> for Failure {
    fn from(error: server::Error) -> Self {
        Failure { message: error.to_string(), hint: error.hint() }
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        server::Error::from(error).into()
    }
}

impl From<crate::keys::Error> for Failure {
    fn from(error: crate::keys::Error) -> Self {
        server::Error::from(error).into()
    }
}

/// Runs the program: 0 when the command did what it is for, 1 when what it looked for is not there, 2 when it could not.
pub fn main() -> ExitCode {
    let output = Output;
    let environment = Environment::of_process();
    let result = match Cli::try_parse() {
        Ok(cli) => run(cli, &environment, output),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                output.text(&error.to_string());
                Ok(ExitCode::SUCCESS)
            }
            _ => Err(wrong_arguments(&error)),
        },
    };
    match result {
        Ok(code) => code,
        Err(Failure { message, hint }) => {
            output.error(&message, hint.as_deref());
            ExitCode::from(2)
        }
    }
}

fn run(cli: Cli, environment: &Environment, output: Output) -> Result<ExitCode, Failure> {
    let Cli { command, serve: before } = cli;
    let command = match command {
        None => return serve::run(&before, environment, output).map(|()| ExitCode::SUCCESS),
        Some(Command::Serve(after)) => {
            return serve::run(&after.or(before), environment, output).map(|()| ExitCode::SUCCESS);
        }
        Some(command) => command,
    };
    if before != ServeArgs::default() {
        return Err(Failure::new("these options belong to `toolgate serve`")
            .hint("leave them out, or write the command's own options after it"));
    }
    let done = match command {
        Command::Doctor(args) => return doctor::run(&args, environment, output),
        Command::Demo => demo::run(environment, output),
        Command::Init(store) => init::run(&store, environment, output),
        Command::Migrate(store) => migrate::run(&store, environment, output),
        Command::Project { command } => project::run(command, environment, output),
        Command::Key { command: KeyCommand::Hash } => key_hash::run(output),
        Command::Key { command: KeyCommand::Create(args) } => key::create(&args, environment, output),
        Command::Key { command: KeyCommand::List { project, list } } => {
            key::list(project.as_deref(), &list, environment, output)
        }
        Command::Key { command: KeyCommand::Revoke { id, store } } => {
            key::revoke(&id, &store, environment, output)
        }
        Command::Keys { command } => keys::run(command, environment, output),
        Command::Connections { command } => connections::run(command, environment, output),
        Command::Audit(args) => audit::run(&args, environment, output),
        Command::Restore(args) => restore::run(&args, environment, output),
        Command::Version => {
            output.line(concat!("toolgate ", env!("CARGO_PKG_VERSION")));
            Ok(())
        }
        Command::Serve(_) => unreachable!("handled above"),
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// The argument parser's report in our form: its first line, and its tip as the hint.
fn wrong_arguments(error: &ArgsError) -> Failure {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Failure::new("a command is missing").hint("`--help` after what you wrote shows the commands");
    }
    let report = error.to_string().replace('\'', "`");
    let message = report.lines().next().unwrap_or_default();
    let message = message.strip_prefix("error: ").unwrap_or(message).trim_end_matches(':').to_owned();
    let tip = report.lines().find_map(|line| {
        let line = line.trim();
        line.strip_prefix("tip: ").map(str::to_owned).or_else(|| {
            let values = line.strip_prefix("[possible values: ")?.strip_suffix(']')?;
            Some(format!("it is one of {values}"))
        })
    });
    Failure::new(message).hint(tip.unwrap_or_else(|| "`toolgate --help` shows every option".to_owned()))
}
