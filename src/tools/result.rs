//! The result of a tool call, in our own types.
//!
//! Reads what a server sent, bounds it, and says it in the words of a tool message. Never decodes media beyond the
//! bytes that tell their kind, and never builds a tree of JSON that is only passed on.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{media, text};
use crate::clean_json::{self, CleanJson};

pub use super::media::Image;

/// Base64 bytes of media in one result that are kept; what exceeds them is named only.
const MEDIA_BYTES: usize = 12 << 20;
/// Above this, text and structured content are not compared for meaning, only byte by byte.
const COMPARED_BYTES: usize = 1 << 20;
/// Nobody can say what an image costs before the provider has seen it.
const TOKENS_PER_IMAGE: usize = 1000;
const BYTES_PER_TOKEN: usize = 4;

/// What a tool returned. A failed call is a result too: the model reads it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ToolResult {
    pub parts: Vec<Part>,
    /// `structuredContent`, when present: JSON, at most 100 levels deep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub structured: Option<CleanJson>,
    /// The tool, or we, say that the call failed.
    pub is_error: bool,
    /// It had something that no JSON value can hold, and that was replaced.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_repaired: bool,
}

/// One piece of content (MCP 2026-07-28 `ContentBlock`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    Text(String),
    /// `data` is base64, as it came.
    Image {
        mime_type: String,
        #[serde(with = "base64_text")]
        data: Bytes,
    },
    Audio {
        mime_type: String,
        #[serde(with = "base64_text")]
        data: Bytes,
    },
    /// `resource_link`: an address the model may mention.
    Link {
        uri: String,
        name: String,
        mime_type: Option<String>,
        size_bytes: Option<u64>,
    },
    /// An embedded resource with text.
    ResourceText {
        uri: String,
        mime_type: Option<String>,
        text: String,
    },
    /// An embedded resource with base64 data.
    ResourceData {
        uri: String,
        mime_type: Option<String>,
        #[serde(with = "base64_text")]
        data: Bytes,
    },
    /// A kind of content this gateway does not know, or cannot use, named only.
    Unknown {
        kind: String,
        size_bytes: usize,
    },
}

/// Base64 as it came: a text that needs no encoding again.
mod base64_text {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(data: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(std::str::from_utf8(data).unwrap_or_default())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        Ok(String::deserialize(deserializer)?.into())
    }
}

impl Part {
    /// The part in one line, in brackets: kind, name, type and size. `None` for mere text.
    pub fn label(&self) -> Option<String> {
        let inside = match self {
            Part::Text(_) => return None,
            Part::Image { mime_type, data } => format!("image {mime_type}, {}", media::decoded_size(data)),
            Part::Audio { mime_type, data } => format!("audio {mime_type}, {}", media::decoded_size(data)),
            Part::Link { uri, name, mime_type, size_bytes } => {
                let mut inside =
                    if name.is_empty() { format!("link {uri}") } else { format!("link {name}: {uri}") };
                for detail in [mime_type.clone(), size_bytes.map(media::size)].into_iter().flatten() {
                    inside.push_str(", ");
                    inside.push_str(&detail);
                }
                inside
            }
            Part::ResourceText { uri, mime_type, .. } => match mime_type {
                Some(mime_type) => format!("resource {uri}, {mime_type}"),
                None => format!("resource {uri}"),
            },
            Part::ResourceData { uri, mime_type, data } => {
                let mime_type = mime_type.as_deref().unwrap_or(media::UNKNOWN_TYPE);
                format!("resource {uri}, {mime_type}, {}", media::decoded_size(data))
            }
            Part::Unknown { kind, size_bytes } => format!("{kind}, {}", media::size(*size_bytes as u64)),
        };
        Some(format!("[{inside}]"))
    }

    fn text(&self) -> Option<&str> {
        match self {
            Part::Text(text) | Part::ResourceText { text, .. } => Some(text),
            _ => None,
        }
    }

    fn media(&self) -> Option<&Bytes> {
        match self {
            Part::Image { data, .. } | Part::Audio { data, .. } | Part::ResourceData { data, .. } => {
                Some(data)
            }
            _ => None,
        }
    }

    /// Bytes of it that model and reader get to read.
    fn readable_bytes(&self) -> usize {
        self.text().map_or(0, str::len) + self.label().map_or(0, |label| label.len())
    }
}

impl ToolResult {
    /// About how many bytes it takes to keep.
    pub fn weight(&self) -> usize {
        let parts = self.parts.iter().map(|part| part.readable_bytes() + part.media().map_or(0, Bytes::len));
        parts.sum::<usize>() + self.structured.as_ref().map_or(0, |structured| structured.get().len())
    }

    /// A failure in words for model and reader.
    pub fn failure(message: impl Into<String>) -> Self {
        ToolResult { parts: vec![Part::Text(message.into())], is_error: true, ..ToolResult::default() }
    }

    /// At most `limit_bytes` of text and JSON, and 12 MiB of media. What is missing is said in its place.
    #[must_use]
    pub fn cut(mut self, limit_bytes: usize) -> Self {
        let mut media_bytes = 0;
        for part in &mut self.parts {
            let Some(data) = part.media() else { continue };
            if media_bytes + data.len() <= MEDIA_BYTES {
                media_bytes += data.len();
                continue;
            }
            let size_bytes = data.len() / 4 * 3;
            let kind = match part {
                Part::Image { mime_type, .. } | Part::Audio { mime_type, .. } => mime_type,
                _ => "resource",
            };
            *part = Part::Unknown { kind: format!("{kind} left out for its size"), size_bytes };
        }

        let structured_bytes = self.unrepeated_structured().map_or(0, str::len);
        let total = self.parts.iter().map(Part::readable_bytes).sum::<usize>() + structured_bytes;
        if total <= limit_bytes {
            return self;
        }
        if structured_bytes > 0
            && let Some(structured) = self.structured.take()
        {
            self.parts.push(Part::Text(structured.get().to_owned()));
        }
        // The texts repeat it, and are about to be cut.
        self.structured = None;
        let mut room = limit_bytes.saturating_sub(text::CUT_MARK_BYTES);
        let mut kept = Vec::new();
        for mut part in self.parts {
            let size = part.readable_bytes();
            if size <= room {
                room -= size;
                kept.push(part);
                continue;
            }
            if let Part::Text(text) | Part::ResourceText { text, .. } = &mut part {
                let label = size - text.len();
                text.truncate(text.floor_char_boundary(room.saturating_sub(label)));
                if !text.is_empty() {
                    kept.push(part);
                }
            }
            break;
        }
        let missing = total - kept.iter().map(Part::readable_bytes).sum::<usize>();
        let mark = text::cut_mark(missing, total);
        match kept.last_mut() {
            Some(Part::Text(text) | Part::ResourceText { text, .. }) => text.push_str(&mark),
            _ => kept.push(Part::Text(mark.trim_start().to_owned())),
        }
        self.parts = kept;
        self
    }

    /// Roughly what the result costs a model, in tokens.
    pub fn estimate_tokens(&self) -> usize {
        self.for_model().len().div_ceil(BYTES_PER_TOKEN) + self.images().len() * TOKENS_PER_IMAGE
    }

    /// The text of the tool message: never empty, media and links named in brackets, a failure called one.
    pub fn for_model(&self) -> String {
        let mut pieces: Vec<Cow<'_, str>> = Vec::new();
        if self.is_error {
            pieces.push("The tool call failed:".into());
        }
        let before = pieces.len();
        for part in &self.parts {
            pieces.extend(part.label().map(Cow::Owned));
            pieces.extend(part.text().map(Cow::Borrowed));
        }
        pieces.extend(self.unrepeated_structured().map(Cow::Borrowed));
        if pieces[before..].iter().all(|piece| piece.trim().is_empty()) {
            pieces.push("(the tool returned nothing)".into());
        }
        text::for_model(&pieces.join("\n")).into_owned()
    }

    /// The images that models take: PNG, JPEG, GIF and WebP by their bytes, whatever type the server claims.
    pub fn images(&self) -> Vec<Image<'_>> {
        let images = self.parts.iter().filter_map(|part| match part {
            Part::Image { data, .. } => Some(data),
            Part::ResourceData { mime_type: Some(mime_type), data, .. }
                if mime_type.starts_with("image/") =>
            {
                Some(data)
            }
            _ => None,
        });
        images.filter_map(|data| Image::recognise(data)).collect()
    }

    /// The structured content, unless the texts say the same, as most servers let them.
    pub fn unrepeated_structured(&self) -> Option<&str> {
        let structured = self.structured.as_ref()?.get();
        let texts: Vec<&str> = self.parts.iter().filter_map(Part::text).collect();
        (!repeats(&texts, structured)).then_some(structured)
    }
}

/// Whether `texts` say what `structured` says: the same JSON, or the value or values under its only key `result`.
fn repeats(texts: &[&str], structured: &str) -> bool {
    if texts.iter().any(|text| text.trim() == structured) {
        return true;
    }
    if structured.len() > COMPARED_BYTES
        || texts.iter().map(|text| text.len()).sum::<usize>() > COMPARED_BYTES
    {
        return false;
    }
    let Ok(structured) = clean_json::from_str::<Value>(structured) else { return false };
    let is = |text: &str, value: &Value| match value {
        Value::String(value) => value == text,
        value => clean_json::from_str::<Value>(text).is_ok_and(|text| text == *value),
    };
    if texts.iter().any(|text| is(text, &structured)) {
        return true;
    }
    let Value::Object(members) = &structured else { return false };
    match (members.len(), members.get("result")) {
        (1, Some(Value::Array(values))) if values.len() == texts.len() && !values.is_empty() => {
            texts.iter().zip(values).all(|(text, value)| is(text, value))
        }
        (1, Some(value)) => texts.iter().any(|text| is(text, value)),
        _ => false,
    }
}

#[cfg(test)]
#[path = "result_test.rs"]
mod tests;
