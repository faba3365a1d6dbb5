//! Brings file, environment and command line together.

use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use super::de::{Failure, Kind, quoted};
use super::node::{self, Node, Origin, Syntax, Value};
use super::{Environment, Error, Settings, schema, validate};

/// Far more than a configuration needs; keeps a wrong path (a disk, a log) from filling memory.
const LARGEST_FILE_BYTES: u64 = 4 << 20;
const PREFIX: &str = "TOOLGATE__";

/// A setting given outside the file under a name of its own, such as `--listen` or `TOOLGATE_LISTEN`.
#[derive(Debug, Clone)]
pub struct Override {
    /// The setting, such as `log.format`.
    pub path: &'static str,
    /// Its value as text.
    pub text: String,
    /// What it was called where it was given.
    pub origin: Origin,
}

/// Reads the settings: the defaults, over them `file`, over it `TOOLGATE__A__B` variables, over them `overrides`.
///
/// A variable whose name ends in `_FILE` names a file that holds the value.
///
/// # Errors
/// The first thing that cannot be used, see [`Error`].
pub fn load(
    file: Option<&Path>,
    environment: &Environment,
    overrides: &[Override],
) -> Result<Settings, Error> {
    let mut root = match file {
        Some(file) => read(file)?,
        None => Node::root(),
    };
    overlay(&mut root, environment)?;
    for Override { path, text, origin } in overrides {
        let keys: Vec<String> = path.split('.').map(str::to_owned).collect();
        root.set(&keys, origin, Value::Untyped(text.clone()))
            .expect("overrides are of settings outside lists");
    }
    let settings = Settings::deserialize(root.clone()).map_err(explain)?;
    validate::check(&settings).map_err(|problem| Error::Invalid {
        origin: root.origin_of(&problem.path),
        path: problem.path,
        reason: problem.reason,
        hint: problem.hint,
    })?;
    Ok(settings)
}

fn read(file: &Path) -> Result<Node, Error> {
    let text = read_text(file).map_err(|reason| Error::Read { file: file.to_owned(), reason })?;
    node::parse_file(file, &text).map_err(|Syntax { line, column, message }| Error::Syntax {
        file: file.to_owned(),
        line,
        column,
        message,
    })
}

fn read_text(file: &Path) -> Result<String, String> {
    let opened = std::fs::File::open(file).map_err(|error| in_words(&error))?;
    let mut text = String::new();
    let mut bounded = opened.take(LARGEST_FILE_BYTES + 1);
    bounded.read_to_string(&mut text).map_err(|error| in_words(&error))?;
    if text.len() as u64 > LARGEST_FILE_BYTES {
        return Err(format!("it is larger than {LARGEST_FILE_BYTES} bytes"));
    }
    Ok(text)
}

fn in_words(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        std::io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        std::io::ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
        _ => error.to_string(),
    }
}

fn overlay(root: &mut Node, environment: &Environment) -> Result<(), Error> {
    let mut entries: Vec<(Vec<String>, &str, &str)> = environment
        .iter()
        .filter_map(|(name, value)| {
            let path = name.strip_prefix(PREFIX)?.split("__").map(str::to_ascii_lowercase).collect();
            Some((path, name, value))
        })
        .collect();
    // Whole tables before their parts, and list items by number: 2 before 10.
    entries.sort_by_cached_key(|(path, name, _)| {
        let keys: Vec<(usize, String)> =
            path.iter().map(|key| (key.parse().unwrap_or(0), key.clone())).collect();
        (keys, (*name).to_owned())
    });
    for (path, name, value) in entries {
        let origin = Origin::Variable(name.into());
        let (path, value) = value_of(path, value, &origin)?;
        root.set(&path, &origin, Value::Untyped(value)).map_err(|missing| Error::Invalid {
            path: path.join("."),
            reason: format!("leaves a gap: there is no item {missing}"),
            origin: Some(origin.clone()),
            hint: Some("items of a list are numbered from 0 without gaps".to_owned()),
        })?;
    }
    Ok(())
}

/// What a variable sets, and to what: a name with `_FILE` at its end that is not itself a setting names a file.
fn value_of(mut path: Vec<String>, value: &str, origin: &Origin) -> Result<(Vec<String>, String), Error> {
    let shortened = path.last().and_then(|last| last.strip_suffix("_file")).map(str::to_owned);
    if let (Some(shortened), Some(last)) = (shortened, path.len().checked_sub(1))
        && !schema::has(&path)
    {
        let written = std::mem::replace(&mut path[last], shortened);
        if schema::has(&path) {
            let text = read_text(Path::new(value)).map_err(|reason| Error::Invalid {
                path: path.join("."),
                reason: format!("cannot be read from `{value}`: {reason}"),
                origin: Some(origin.clone()),
                hint: None,
            })?;
            return Ok((path, text.trim_end_matches(['\r', '\n']).to_owned()));
        }
        path[last] = written;
    }
    Ok((path, value.to_owned()))
}

fn explain(failure: Failure) -> Error {
    let path = failure.path();
    let origin = failure.origin.clone();
    match failure.kind {
        Kind::UnknownKey { expected } => {
            let keys: Vec<&str> = failure.path.iter().rev().map(String::as_str).collect();
            Error::Unknown { hint: schema::hint(&keys, expected), path, origin }
        }
        Kind::UnknownWord { word, expected } => Error::Invalid {
            path,
            reason: format!("cannot be `{word}`"),
            origin,
            hint: Some(format!("it is one of {}", quoted(expected))),
        },
        Kind::Missing => Error::Invalid { path, reason: "is missing".to_owned(), origin, hint: None },
        Kind::Reason(reason) => {
            let hint = match origin {
                Some(Origin::Variable(_)) if reason.contains("a list") => {
                    Some("write a list as `[\"a\", \"b\"]`")
                }
                _ if path == "listen" => Some("give an address and a port, such as `127.0.0.1:8787`"),
                _ => None,
            };
            Error::Invalid { path, reason, origin, hint: hint.map(str::to_owned) }
        }
    }
}
