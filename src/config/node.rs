//! The settings as a tree of values that remember where they were written.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use crate::clean_json;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A line of the configuration file, counted from 1.
    File { file: Arc<str>, line: usize },
    /// An environment variable.
    Variable(Arc<str>),
    /// An option on the command line.
    Option(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { file, line } => write!(f, "{file}, line {line}"),
            Origin::Variable(name) => write!(f, "environment variable `{name}`"),
            Origin::Option(name) => write!(f, "option `{name}`"),
        }
    }
}

/// A value and where it stands. `None` only for the root, which stands nowhere in particular.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) origin: Option<Origin>,
    pub(super) value: Value,
}

#[derive(Clone)]
pub(super) enum Value {
    Bool(bool),
    Integer(i64),
    Float(f64),
    String(String),
    /// Text from outside the file: the setting it is for decides what it means.
    Untyped(String),
    List(Vec<Node>),
    /// In the order of the file.
    Table(Vec<(String, Node)>),
}

impl Node {
    pub(super) fn root() -> Self {
        Node { origin: None, value: Value::Table(Vec::new()) }
    }

    pub(super) fn entry(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Table(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, node)| node),
            Value::List(items) => items.get(key.parse::<usize>().ok()?),
            _ => None,
        }
    }

    /// Where `path` is written, or else the nearest thing around it.
    pub(super) fn origin_of(&self, path: &str) -> Option<Origin> {
        let mut node = self;
        for key in path.split('.') {
            let Some(next) = node.entry(key) else { break };
            node = next;
        }
        node.origin.clone()
    }

    /// Puts `value` at `path`, over what is there. A list takes the next free number as a new item.
    ///
    /// # Errors
    /// The number of the first item that is missing before the one that is to be set.
    pub(super) fn set(&mut self, path: &[String], origin: &Origin, value: Value) -> Result<(), usize> {
        let Some((key, rest)) = path.split_first() else {
            *self = Node { origin: Some(origin.clone()), value };
            return Ok(());
        };
        if let Value::Untyped(text) = &self.value
            && let Some(parsed) = parse_value(text, origin)
        {
            self.value = parsed.value;
        }
        let number = key.parse::<usize>().ok();
        let empty = || Node { origin: Some(origin.clone()), value: Value::Table(Vec::new()) };
        if let (Some(number), Value::List(items)) = (number, &mut self.value) {
            if number > items.len() {
                return Err(items.len());
            }
            if number == items.len() {
                items.push(empty());
            }
            return items[number].set(rest, origin, value);
        }
        let is_new = matches!(&self.value, Value::Table(entries) if entries.is_empty());
        if let (Some(number), true) = (number, is_new && self.origin.is_some()) {
            self.value = Value::List(Vec::new());
            return if number > 0 { Err(0) } else { self.set(path, origin, value) };
        }
        if !matches!(self.value, Value::Table(_)) {
            self.value = Value::Table(Vec::new());
        }
        let Value::Table(entries) = &mut self.value else { return Ok(()) };
        let position = entries.iter().position(|(name, _)| name == key).unwrap_or_else(|| {
            entries.push((key.clone(), empty()));
            entries.len() - 1
        });
        entries[position].1.set(rest, origin, value)
    }
}

/// A syntax error, where it is, and in words that do not repeat the text.
#[derive(Debug)]
pub(super) struct Syntax {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) message: String,
}

/// Reads the text of a configuration file.
pub(super) fn parse_file(file: &Path, text: &str) -> Result<Node, Syntax> {
    let lines = Lines { file: Arc::from(file.display().to_string()), text };
    let document = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let before = text.get(..at).unwrap_or_default();
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Syntax { line: lines.line(at), column, message: error.message().replace('\n', ", ") }
    })?;
    Ok(Node { origin: None, value: lines.table(document.into_inner()) })
}

/// Reads one TOML value that stands in an environment variable; JSON tables are understood as well.
pub(super) fn parse_value(text: &str, origin: &Origin) -> Option<Node> {
    let value = match DeValue::parse(text.trim()) {
        Ok(value) => inline(value.into_inner(), origin),
        Err(_) => json(clean_json::exact(text).ok()?, origin),
    };
    Some(Node { origin: Some(origin.clone()), value })
}

struct Lines<'a> {
    file: Arc<str>,
    text: &'a str,
}

impl Lines<'_> {
    fn line(&self, at: usize) -> usize {
        let before = &self.text.as_bytes()[..at.min(self.text.len())];
        memchr::memchr_iter(b'\n', before).count() + 1
    }

    fn node(&self, at: usize, value: DeValue<'_>) -> Node {
        let value = match value {
            DeValue::Table(table) => self.table(table),
            DeValue::Array(items) => Value::List(
                items.into_iter().map(|item| self.node(item.span().start, item.into_inner())).collect(),
            ),
            plain => scalar(&plain),
        };
        Node { origin: Some(Origin::File { file: self.file.clone(), line: self.line(at) }), value }
    }

    fn table(&self, table: DeTable<'_>) -> Value {
        let mut entries: Vec<_> = table.into_iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        Value::Table(
            entries
                .into_iter()
                .map(|(key, value)| {
                    let at = key.span().start;
                    (key.into_inner().into_owned(), self.node(at, value.into_inner()))
                })
                .collect(),
        )
    }
}

fn inline(value: DeValue<'_>, origin: &Origin) -> Value {
    let node = |value| Node { origin: Some(origin.clone()), value };
    match value {
        DeValue::Table(table) => Value::Table(
            table
                .into_iter()
                .map(|(key, value)| (key.into_inner().into_owned(), node(inline(value.into_inner(), origin))))
                .collect(),
        ),
        DeValue::Array(items) => {
            Value::List(items.into_iter().map(|item| node(inline(item.into_inner(), origin))).collect())
        }
        plain => scalar(&plain),
    }
}

fn json(value: serde_json::Value, origin: &Origin) -> Value {
    let node = |value| Node { origin: Some(origin.clone()), value: json(value, origin) };
    match value {
        serde_json::Value::Null => Value::String(String::new()),
        serde_json::Value::Bool(value) => Value::Bool(value),
        serde_json::Value::Number(number) => {
            number.as_i64().map_or_else(|| Value::Float(number.as_f64().unwrap_or(f64::NAN)), Value::Integer)
        }
        serde_json::Value::String(text) => Value::String(text),
        serde_json::Value::Array(items) => Value::List(items.into_iter().map(node).collect()),
        serde_json::Value::Object(entries) => {
            Value::Table(entries.into_iter().map(|(key, value)| (key, node(value))).collect())
        }
    }
}

fn scalar(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.clone().into_owned()),
        DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix())
            .map_or_else(|_| Value::Float(f64::INFINITY), Value::Integer),
        DeValue::Float(digits) => Value::Float(digits.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Datetime(datetime) => Value::String(datetime.to_string()),
        DeValue::Array(_) | DeValue::Table(_) => Value::List(Vec::new()),
    }
}
