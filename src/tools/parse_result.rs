//! Reading a `CallToolResult` (MCP 2026-07-28 "Tools", and the older revisions, whose form is contained in it).
//!
//! Every piece is read on its own: one that is not understood is named, and the others are kept.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Error, Part, ToolResult, media, text};
use crate::clean_json::{self, CleanJson};

/// Pieces of content that are read; the number of further ones is said.
const MAX_PARTS: usize = 1000;
const URI_CHARACTERS: usize = 2048;
const NAME_CHARACTERS: usize = 256;
const KIND_CHARACTERS: usize = 64;

impl ToolResult {
    /// Reads the JSON of a `CallToolResult`. Bytes that are not UTF-8, and what no JSON value can hold, are replaced.
    ///
    /// # Errors
    /// [`Error::Protocol`] when it is not an object of that form.
    pub fn parse(raw: &[u8]) -> Result<Self, Error> {
        let raw = String::from_utf8_lossy(raw);
        let text = clean_json::clean(&raw);
        let is_repaired = matches!(raw, Cow::Owned(_)) || matches!(text, Cow::Owned(_));
        let result: CallToolResult<'_> = clean_json::borrowed(text.as_bytes()).map_err(|error| {
            let what = if error.is_syntax() || error.is_eof() { "not JSON" } else { "not a tool result" };
            Error::Protocol(format!("what it returned for a tool call is {what}"))
        })?;
        let content = result.content.unwrap_or_default();
        let mut parts: Vec<Part> = content.pieces.into_iter().map(part).collect();
        if content.further > 0 {
            parts.push(Part::Text(format!("… [cut: {} more parts not shown]", content.further)));
        }
        let structured = result.structured.and_then(|json| CleanJson::read(json.get()).ok());
        Ok(ToolResult { parts, structured, is_error: result.is_error.unwrap_or(false), is_repaired })
    }
}

#[derive(Deserialize)]
struct CallToolResult<'a> {
    #[serde(borrow)]
    content: Option<Content<'a>>,
    #[serde(borrow, rename = "structuredContent")]
    structured: Option<&'a RawValue>,
    #[serde(rename = "isError")]
    is_error: Option<bool>,
}

#[derive(Default)]
struct Content<'a> {
    pieces: Vec<&'a RawValue>,
    further: usize,
}

impl<'de: 'a, 'a> Deserialize<'de> for Content<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pieces;
        impl<'de> Visitor<'de> for Pieces {
            type Value = Content<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of content")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut content = Content::default();
                while content.pieces.len() < MAX_PARTS {
                    let Some(piece) = seq.next_element()? else { return Ok(content) };
                    content.pieces.push(piece);
                }
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    content.further += 1;
                }
                Ok(content)
            }
        }
        deserializer.deserialize_seq(Pieces)
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Piece<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    text: Option<Text<'a>>,
    #[serde(borrow)]
    data: Option<Text<'a>>,
    #[serde(borrow, rename = "mimeType")]
    mime_type: Option<Text<'a>>,
    #[serde(borrow)]
    uri: Option<Text<'a>>,
    #[serde(borrow)]
    name: Option<Text<'a>>,
    size: Option<f64>,
    #[serde(borrow)]
    resource: Option<Resource<'a>>,
}

#[derive(Deserialize)]
struct Resource<'a> {
    #[serde(borrow)]
    uri: Option<Text<'a>>,
    #[serde(borrow, rename = "mimeType")]
    mime_type: Option<Text<'a>>,
    #[serde(borrow)]
    text: Option<Text<'a>>,
    #[serde(borrow)]
    blob: Option<Text<'a>>,
}

/// A JSON string, borrowed where it has no escapes. A lone surrogate, which serde_json refuses in a `str` but some
/// servers send, becomes U+FFFD.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Characters;
        impl<'de> Visitor<'de> for Characters {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
                Ok(Text(String::from_utf8_lossy(bytes)))
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(String::from_utf8_lossy(bytes).into_owned())))
            }
        }
        deserializer.deserialize_bytes(Characters)
    }
}

impl Text<'_> {
    fn line(&self, limit: usize) -> String {
        text::one_line(&self.0, limit)
    }
}

fn part(raw: &RawValue) -> Part {
    let unknown = |kind: String| Part::Unknown { kind, size_bytes: raw.get().len() };
    let Ok(piece) = clean_json::borrowed::<Piece<'_>>(raw.get().as_bytes()) else {
        return unknown("content that is not MCP".to_owned());
    };
    let kind = piece.kind.as_ref().map_or_else(String::new, |kind| kind.line(KIND_CHARACTERS));
    let mime_type = |given: &Option<Text<'_>>| given.as_ref().and_then(|given| media::mime_type(&given.0));
    let base64 = |data: &Text<'_>| {
        media::is_base64(data.0.as_bytes()).then(|| Bytes::copy_from_slice(data.0.as_bytes()))
    };
    match (kind.as_str(), &piece) {
        ("text", Piece { text: Some(text), .. }) => Part::Text(text.0.to_string()),
        ("image" | "audio", Piece { data: Some(data), .. }) => {
            let Some(data) = base64(data) else { return unknown(format!("{kind} that is not base64")) };
            let mime_type = mime_type(&piece.mime_type).unwrap_or_else(|| media::UNKNOWN_TYPE.to_owned());
            if kind == "image" { Part::Image { mime_type, data } } else { Part::Audio { mime_type, data } }
        }
        ("resource_link", Piece { uri: Some(uri), .. }) => Part::Link {
            uri: uri.line(URI_CHARACTERS),
            name: piece.name.as_ref().map_or_else(String::new, |name| name.line(NAME_CHARACTERS)),
            mime_type: mime_type(&piece.mime_type),
            // Whole and positive, or saturated.
            size_bytes: piece.size.map(|size| size as u64),
        },
        ("resource", Piece { resource: Some(resource), .. }) => {
            let uri = resource.uri.as_ref().map_or_else(String::new, |uri| uri.line(URI_CHARACTERS));
            let mime_type = mime_type(&resource.mime_type);
            match (&resource.text, &resource.blob) {
                (Some(text), _) => Part::ResourceText { uri, mime_type, text: text.0.to_string() },
                (None, Some(blob)) => match base64(blob) {
                    Some(data) => Part::ResourceData { uri, mime_type, data },
                    None => unknown(format!("resource {uri} that is not base64")),
                },
                (None, None) => unknown(format!("resource {uri} without content")),
            }
        }
        ("", _) => unknown("content without a type".to_owned()),
        _ => unknown(kind),
    }
}
