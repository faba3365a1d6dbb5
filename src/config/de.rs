//! Turns the tree of values into typed settings, and says which setting failed, by its whole path.
//!
//! Values never get into messages: a secret in the wrong place must not end up in a log.

use std::fmt::{self, Display};

use serde::de::value::StringDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, Expected, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::node::{Node, Origin, Value, parse_value};

/// What is wrong, and with which setting.
#[derive(Debug)]
pub(super) struct Failure {
    /// The keys from the root down to the setting; innermost first while it travels up.
    pub(super) path: Vec<String>,
    pub(super) origin: Option<Origin>,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// The last key of the path is none of these.
    UnknownKey { expected: &'static [&'static str] },
    /// The text is none of these words.
    UnknownWord { word: String, expected: &'static [&'static str] },
    /// A setting that must be there is not.
    Missing,
    /// The value does not fit; completes "`path` …".
    Reason(String),
}

impl Failure {
    fn of(kind: Kind) -> Self {
        Failure { path: Vec::new(), origin: None, kind }
    }

    /// Notes that the failure is inside `key`, which stands at `origin`.
    fn within(mut self, key: String, origin: &Option<Origin>) -> Self {
        self.path.push(key);
        self.origin = self.origin.or_else(|| origin.clone());
        self
    }

    /// The path in writing.
    pub(super) fn path(&self) -> String {
        self.path.iter().rev().map(String::as_str).collect::<Vec<_>>().join(".")
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

impl std::error::Error for Failure {}

impl de::Error for Failure {
    fn custom<T: Display>(message: T) -> Self {
        Failure::of(Kind::Reason(format!("cannot be used: {message}")))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Failure::of(Kind::Reason(format!("must be {}, not {}", in_words(expected), kind_of(&found))))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Failure::of(Kind::Reason(format!("must be {}", in_words(expected))))
    }

    fn unknown_field(_: &str, expected: &'static [&'static str]) -> Self {
        Failure::of(Kind::UnknownKey { expected })
    }

    fn unknown_variant(word: &str, expected: &'static [&'static str]) -> Self {
        Failure::of(Kind::UnknownWord { word: word.chars().take(40).collect(), expected })
    }

    fn missing_field(field: &'static str) -> Self {
        Failure { path: vec![field.to_owned()], origin: None, kind: Kind::Missing }
    }
}

fn in_words(expected: &dyn Expected) -> String {
    let expected = expected.to_string();
    match expected.as_str() {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, zero or more".to_owned(),
        "i64" => "a whole number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a string" => "a text".to_owned(),
        "socket address" => "an address and a port".to_owned(),
        "a map" => "a table".to_owned(),
        other => match other.split_once(' ') {
            Some(("struct", _)) => "a table".to_owned(),
            Some(("enum", _)) => "a word".to_owned(),
            _ => expected,
        },
    }
}

fn kind_of(found: &Unexpected<'_>) -> &'static str {
    match found {
        Unexpected::Bool(_) => "true or false",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
        Unexpected::Str(_) | Unexpected::Char(_) => "a text",
        Unexpected::Seq => "a list",
        Unexpected::Map => "a table",
        _ => "something else",
    }
}

impl Node {
    /// Text from outside read as TOML, for a setting that is not a text. Left alone when it is not TOML.
    fn typed(mut self) -> Node {
        if let Value::Untyped(text) = &self.value {
            let parsed = self.origin.as_ref().and_then(|origin| parse_value(text, origin));
            self.value = match parsed {
                Some(parsed) => parsed.value,
                None => Value::String(text.clone()),
            };
        }
        self
    }

    fn first_leaf(&self, path: &mut Vec<String>) {
        if let Value::Table(entries) = &self.value
            && let Some((key, node)) = entries.first()
        {
            path.push(key.clone());
            node.first_leaf(path);
        }
    }
}

impl<'de> Deserializer<'de> for Node {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.typed().value {
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Integer(value) => match u64::try_from(value) {
                Ok(value) => visitor.visit_u64(value),
                Err(_) => visitor.visit_i64(value),
            },
            Value::Float(value) => visitor.visit_f64(value),
            Value::String(text) | Value::Untyped(text) => visitor.visit_string(text),
            Value::List(items) => visitor.visit_seq(Items { items: items.into_iter(), next: 0 }),
            Value::Table(entries) => visitor.visit_map(Entries { entries: entries.into_iter(), value: None }),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.value {
            Value::Untyped(text) => visitor.visit_string(text),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        match self.value {
            Value::String(text) | Value::Untyped(text) => {
                let word: StringDeserializer<Failure> = text.into_deserializer();
                word.deserialize_enum(name, variants, visitor)
            }
            _ => Err(Failure::of(Kind::Reason(format!("must be one of {}", quoted(variants))))),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

/// `a`, `b` or `c` in backticks.
pub(super) fn quoted(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

struct Items {
    items: std::vec::IntoIter<Node>,
    next: usize,
}

impl<'de> de::SeqAccess<'de> for Items {
    type Error = Failure;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Failure> {
        let Some(node) = self.items.next() else { return Ok(None) };
        let origin = node.origin.clone();
        let key = self.next.to_string();
        self.next += 1;
        seed.deserialize(node).map(Some).map_err(|failure| failure.within(key, &origin))
    }
}

struct Entries {
    entries: std::vec::IntoIter<(String, Node)>,
    value: Option<(String, Node)>,
}

impl<'de> de::MapAccess<'de> for Entries {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Failure> {
        let Some((key, node)) = self.entries.next() else { return Ok(None) };
        let word: StringDeserializer<Failure> = key.clone().into_deserializer();
        let read = seed.deserialize(word).map_err(|mut failure| {
            // `[limts] body_bytes = 1` is named down to the key that was meant.
            let mut path = vec![key.clone()];
            node.first_leaf(&mut path);
            failure.path.extend(path.into_iter().rev());
            failure.origin = node.origin.clone();
            failure
        })?;
        self.value = Some((key, node));
        Ok(Some(read))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Failure> {
        let (key, node) = self.value.take().expect("serde asks for a value after its key");
        let origin = node.origin.clone();
        seed.deserialize(node).map_err(|failure| failure.within(key, &origin))
    }
}
