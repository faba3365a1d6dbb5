//! A request body whose top level is known by place, so that it can be forwarded byte for byte.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::clean_json;

/// A chat completion request (or any JSON object): the bytes, and where each top-level value stands in them.
#[derive(Debug, Clone)]
pub struct ChatRequest {
    body: Bytes,
    fields: Vec<Field>,
    is_repaired: bool,
}

#[derive(Debug, Clone)]
struct Field {
    key: String,
    value: Range<usize>,
}

/// The body, or one field of it, is not what it must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidField {
    /// The field, `None` when the whole body is meant.
    pub param: Option<String>,
    /// What is wrong with it.
    pub message: String,
}

impl InvalidField {
    /// An error about the field `param`.
    pub fn new(param: impl Into<String>, message: impl Into<String>) -> Self {
        InvalidField { param: Some(param.into()), message: message.into() }
    }
}

/// No request of anybody has as many; each is looked up by its name.
const MOST_FIELDS: usize = 1000;

struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;
        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::with_capacity(16);
                while let Some(key) = map.next_key::<Key<'de>>()? {
                    if fields.len() == MOST_FIELDS {
                        return Err(serde::de::Error::custom(format_args!("more than {MOST_FIELDS} fields")));
                    }
                    fields.push((key.0, map.next_value()?));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(FieldsVisitor)
    }
}

/// A key, borrowed where it has no escapes. (`Cow` alone would always allocate.)
#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// A field whose name was there before. The usual dozen is compared faster than it is hashed.
fn given_twice(fields: &[Field]) -> Option<&Field> {
    if fields.len() <= 16 {
        let before = |place: usize| &fields[..place];
        let mut places = fields.iter().enumerate();
        return places
            .find(|(place, field)| before(*place).iter().any(|other| other.key == field.key))
            .map(|(_, field)| field);
    }
    let mut seen = HashSet::with_capacity(fields.len());
    fields.iter().find(|field| !seen.insert(field.key.as_str()))
}

impl ChatRequest {
    /// Reads the top level of `body`; values are checked to be JSON but not looked into.
    ///
    /// # Errors
    /// When the body is not a JSON object or gives a field twice (which provider and gateway could read differently).
    pub fn parse(body: Bytes) -> Result<Self, InvalidField> {
        let parsed: Fields<'_> = clean_json::borrowed(&body).map_err(|error| InvalidField {
            param: None,
            message: format!("the body is not a JSON object: {error}"),
        })?;
        let base = body.as_ptr() as usize;
        let fields: Vec<Field> = parsed
            .0
            .into_iter()
            .map(|(key, raw)| {
                let start = raw.get().as_ptr() as usize - base;
                Field { key: key.into_owned(), value: start..start + raw.get().len() }
            })
            .collect();
        if let Some(twice) = given_twice(&fields) {
            let message = format!("the field `{}` is given twice", twice.key);
            return Err(InvalidField { param: Some(twice.key.clone()), message });
        }
        Ok(ChatRequest { body, fields, is_repaired: false })
    }

    /// The same request in memory of its own: its bytes may be part of a larger buffer, which they keep alive.
    #[must_use]
    pub fn detached(self) -> Self {
        let mut fields = self.fields;
        fields.shrink_to_fit();
        ChatRequest { body: Bytes::copy_from_slice(&self.body), fields, is_repaired: self.is_repaired }
    }

    /// The request without anything that no JSON value can hold.
    ///
    /// # Errors
    /// When two fields have the same name now.
    pub fn cleaned(self) -> Result<Self, InvalidField> {
        let Cow::Owned(body) = clean_json::clean(&String::from_utf8_lossy(&self.body)) else {
            return Ok(self);
        };
        Ok(ChatRequest::parse(body.into())?.marked_repaired(true))
    }

    /// The request, known to have been cleaned.
    #[must_use]
    pub fn marked_repaired(self, is_repaired: bool) -> Self {
        ChatRequest { is_repaired, ..self }
    }

    /// Whether something in it was replaced.
    pub fn is_repaired(&self) -> bool {
        self.is_repaired
    }

    /// The body as it came.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The top-level fields in their order, values as raw JSON text.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|field| (field.key.as_str(), self.text(&field.value)))
    }

    /// The raw JSON text of a field; `null` counts as absent.
    pub fn raw(&self, key: &str) -> Option<&str> {
        let field = self.fields.iter().find(|field| field.key == key)?;
        Some(self.text(&field.value)).filter(|text| *text != "null")
    }

    /// A field as a type of ours.
    ///
    /// # Errors
    /// [`InvalidField`] naming the field when it has another shape. `expected` completes "must be …".
    pub fn get<T: DeserializeOwned>(&self, key: &str, expected: &str) -> Result<Option<T>, InvalidField> {
        self.raw(key)
            .map(|text| clean_json::from_str(text))
            .transpose()
            .map_err(|_| InvalidField::new(key, format!("`{key}` must be {expected}")))
    }

    /// The body with `model` set to `name`: the same bytes when it is that already, else only this value replaced.
    pub fn with_model(&self, name: &str) -> Bytes {
        let Some(field) = self.fields.iter().find(|field| field.key == "model") else {
            return self.body.clone();
        };
        let value = serde_json::Value::from(name).to_string();
        if self.text(&field.value) == value {
            return self.body.clone();
        }
        let mut body = Vec::with_capacity(self.body.len() + value.len());
        body.extend_from_slice(&self.body[..field.value.start]);
        body.extend_from_slice(value.as_bytes());
        body.extend_from_slice(&self.body[field.value.end..]);
        body.into()
    }

    /// The request with every field under the name that `sent_as` gives it, and without those to which it gives none;
    /// `None` when it is that already.
    pub fn with_fields<'f>(&'f self, sent_as: impl Fn(&'f str) -> Option<&'f str>) -> Option<ChatRequest> {
        if self.fields.iter().all(|field| sent_as(&field.key) == Some(&*field.key)) {
            return None;
        }
        let mut body = Vec::with_capacity(self.body.len());
        for (key, value) in self.fields() {
            let Some(name) = sent_as(key) else { continue };
            if name != key && self.fields.iter().any(|field| field.key == name) {
                continue;
            }
            body.push(if body.is_empty() { b'{' } else { b',' });
            body.extend_from_slice(serde_json::Value::from(name).to_string().as_bytes());
            body.push(b':');
            body.extend_from_slice(value.as_bytes());
        }
        body.extend_from_slice(if body.is_empty() { b"{}" } else { b"}" });
        ChatRequest::parse(body.into()).ok()
    }

    fn text(&self, range: &Range<usize>) -> &str {
        std::str::from_utf8(&self.body[range.clone()]).expect("a JSON value was parsed from these bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &'static str) -> Result<ChatRequest, InvalidField> {
        ChatRequest::parse(Bytes::from_static(body.as_bytes()))
    }

    #[test]
    fn only_the_model_is_replaced() {
        let request = parse(r#"{ "x" : 1.50, "model":"a/b" ,"messages":[{"role" :"user"}]}"#).unwrap();
        let expect = r#"{ "x" : 1.50, "model":"b" ,"messages":[{"role" :"user"}]}"#;
        assert_eq!(&request.with_model("b")[..], expect.as_bytes());
        assert_eq!(
            request.with_model("a/b").as_ptr(),
            request.body().as_ptr(),
            "unchanged bytes are not copied"
        );
    }

    #[test]
    fn fields_are_left_out_and_renamed_and_all_else_stays_as_it_was() {
        let request =
            parse(r#"{ "user" : "u", "model":"a" ,"max":1.50,"messages":[ {"role" :"user"} ]}"#).unwrap();
        let sent_as = |field| match field {
            "user" => None,
            "max" => Some("most"),
            other => Some(other),
        };
        let fitting = request.with_fields(sent_as).unwrap();
        assert_eq!(&fitting.body()[..], br#"{"model":"a","most":1.50,"messages":[ {"role" :"user"} ]}"#);
        assert!(fitting.with_fields(Some).is_none(), "nothing to do");
        let both = parse(r#"{"max":1,"most":2}"#).unwrap().with_fields(sent_as).unwrap();
        assert_eq!(&both.body()[..], br#"{"most":2}"#);
    }

    #[test]
    fn bad_bodies_are_named() {
        for (body, param, message) in [
            ("", None, "not a JSON object"),
            ("[]", None, "not a JSON object"),
            (r#"{"a":1"#, None, "not a JSON object"),
            (r#"{"model":"a","mod\u0065l":"b"}"#, Some("model"), "given twice"),
        ] {
            let error = parse(body).unwrap_err();
            assert_eq!(error.param.as_deref(), param, "{body}");
            assert!(error.message.contains(message), "{}", error.message);
        }
        let request = parse(r#"{"stream":"yes","n":null}"#).unwrap();
        let error = request.get::<bool>("stream", "true or false").unwrap_err();
        assert_eq!(error.param.as_deref(), Some("stream"));
        assert_eq!(request.get::<u32>("n", "a number").unwrap(), None);
    }

    #[test]
    fn many_fields_are_refused_and_a_late_repetition_is_found() {
        let fields = |count: usize| (0..count).map(|n| format!("\"f{n}\":1")).collect::<Vec<_>>().join(",");
        let parse = |body: String| ChatRequest::parse(Bytes::from(body));
        assert!(parse(format!("{{{}}}", fields(1000))).is_ok());
        assert!(
            parse(format!("{{{}}}", fields(1001))).unwrap_err().message.contains("more than 1000 fields")
        );
        let error = parse(format!("{{{},\"f3\":2}}", fields(100))).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("f3"));
    }
}
