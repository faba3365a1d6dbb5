//! The program itself, run as people run it.

use std::process::Stdio;

use super::Place;

/// How to start the program: with these variables and no others.
pub struct Program(Vec<(String, String)>);

/// How it ended, and what it printed.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Program {
    /// With everything kept at `place`.
    pub fn at(place: &Place) -> Program {
        Program(place.variables())
    }

    /// Without a place for files.
    pub fn nowhere() -> Program {
        Program(Vec::new())
    }

    /// With one more variable.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Program {
        self.0.retain(|(given, _)| given != name);
        self.0.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs it to its end.
    pub async fn run(&self, arguments: &[&str]) -> Ended {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_toolgate"));
        command.args(arguments).env_clear().envs(self.0.iter().cloned()).stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("it is waited for");
        let output = output.expect("the program starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ended {
            code: output.status.code().expect("it was not killed"),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }
}
