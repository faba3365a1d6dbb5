//! Why the settings cannot be used: one line that names the setting and where it stands, and a hint.

use std::fmt;
use std::path::PathBuf;

use super::node::Origin;

/// What is wrong with the configuration. No variant carries a value that could be secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the configuration `{}`: {reason}", .file.display())]
    Read { file: PathBuf, reason: String },
    /// The file is not TOML.
    #[error("{}, line {line}, column {column}: {message}", .file.display())]
    Syntax { file: PathBuf, line: usize, column: usize, message: String },
    /// There is no such setting.
    #[error("unknown setting `{path}`{}", Place(.origin))]
    Unknown { path: String, origin: Option<Origin>, hint: String },
    /// The setting exists, its value is impossible.
    #[error("`{path}` {reason}{}", Place(.origin))]
    Invalid { path: String, reason: String, origin: Option<Origin>, hint: Option<String> },
}

impl Error {
    /// What to do about it, without the word "hint".
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Read { .. } => Some("give a readable TOML file with `--config FILE`".to_owned()),
            Error::Syntax { .. } => {
                Some("the file must be TOML; `config.example.toml` shows every setting".to_owned())
            }
            Error::Unknown { hint, .. } => Some(hint.clone()),
            Error::Invalid { hint, .. } => hint.clone(),
        }
    }
}

/// Where, in brackets, or nothing.
struct Place<'a>(&'a Option<Origin>);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(origin) => write!(f, " ({origin})"),
            None => Ok(()),
        }
    }
}
