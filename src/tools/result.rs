//! The result of a tool call, in our own types.

use bytes::Bytes;
use serde_json::Value;

/// What a tool returned. A failed call is a result too: the model reads it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ToolResult {
    pub parts: Vec<Part>,
    /// `structuredContent`, when present.
    pub structured: Option<Value>,
    /// The tool, or we, say that the call failed.
    pub is_error: bool,
}

/// One piece of content (MCP 2026-07-28 `ContentBlock`).
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    Text(String),
    /// `data` is base64, as it came.
    Image {
        mime_type: String,
        data: Bytes,
    },
    Audio {
        mime_type: String,
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
        data: Bytes,
    },
    /// A kind of content this gateway does not know, named only.
    Unknown {
        kind: String,
        size_bytes: usize,
    },
}

impl ToolResult {
    /// A failure in words for model and reader.
    pub fn failure(message: impl Into<String>) -> Self {
        ToolResult { parts: vec![Part::Text(message.into())], structured: None, is_error: true }
    }
}
