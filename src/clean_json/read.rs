//! The only readers of JSON in the crate. What they give was cleaned, or holds no tree of values.

use std::borrow::Cow;

use serde::de::{DeserializeOwned, Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Error, Value};

use super::clean::{clean, clean_to};

/// Reads bytes from outside; what is no UTF-8 becomes U+FFFD.
///
/// # Errors
/// When they are not JSON, or not of that form.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    from_str(&String::from_utf8_lossy(bytes))
}

/// Reads text from outside.
///
/// # Errors
/// When it is not JSON, or not of that form.
pub fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    serde_json::from_str(&clean(text))
}

/// Reads bytes from outside, and says whether anything in it had to be replaced.
///
/// # Errors
/// When it is not JSON, or not of that form.
pub fn from_slice_noting<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, bool), Error> {
    let text = String::from_utf8_lossy(bytes);
    let cleaned = clean(&text);
    let is_changed = matches!(text, Cow::Owned(_)) || matches!(cleaned, Cow::Owned(_));
    Ok((serde_json::from_str(&cleaned)?, is_changed))
}

/// Reads text from outside that is acted on: nothing may be replaced in it.
///
/// # Errors
/// When it is not JSON, not of that form, or has something that would have to be replaced.
pub fn exact<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    match clean(text) {
        Cow::Borrowed(text) => serde_json::from_str(text),
        Cow::Owned(_) => {
            Err(Error::custom("it has a character, number or depth that JSON values cannot hold"))
        }
    }
}

/// Reads a type that borrows from the text and holds no [`Value`]: parts that it keeps as raw text are not clean.
///
/// # Errors
/// When it is not JSON, or not of that form.
pub fn borrowed<'t, T: Deserialize<'t>>(bytes: &'t [u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes)
}

/// Levels that records of ours have: those of what came from outside, and their own around them.
const RECORD_DEPTH: usize = 120;

/// Reads all lists of records of ours that stand one after the other. What was written before its JSON was cleaned is
/// cleaned now.
///
/// # Errors
/// When one is not JSON, or not of that form.
pub fn records<T: DeserializeOwned>(bytes: &[u8]) -> Result<Vec<T>, Error> {
    let text = String::from_utf8_lossy(bytes);
    let text = clean_to(&text, RECORD_DEPTH);
    let mut all = Vec::new();
    for records in serde_json::Deserializer::from_str(&text).into_iter::<Vec<T>>() {
        all.extend(records?);
    }
    Ok(all)
}

/// A value of ours as a tree. Where that fails, its text: nothing that a stranger sent can make this panic.
pub fn to_value<T: Serialize>(value: &T) -> Value {
    let text = serde_json::to_string(value).unwrap_or_default();
    from_str(&text).unwrap_or(Value::String(text))
}

/// JSON text from outside in which nothing is left that a tree of values cannot hold.
#[derive(Debug, Clone)]
pub struct CleanJson(Box<RawValue>);

impl CleanJson {
    /// Cleans `text`.
    ///
    /// # Errors
    /// When it is not JSON.
    pub fn read(text: &str) -> Result<Self, Error> {
        let text = clean(text);
        RawValue::from_string(text.into_owned()).map(CleanJson)
    }

    /// The text.
    pub fn get(&self) -> &str {
        self.0.get()
    }

    /// The tree.
    pub fn to_value(&self) -> Value {
        from_str(self.get()).unwrap_or_else(|_| Value::String(self.get().to_owned()))
    }
}

impl From<&Value> for CleanJson {
    fn from(value: &Value) -> Self {
        CleanJson::read(&value.to_string()).unwrap_or_else(|_| CleanJson(RawValue::NULL.to_owned()))
    }
}

impl Serialize for CleanJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for CleanJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        CleanJson::read(raw.get()).map_err(D::Error::custom)
    }
}
