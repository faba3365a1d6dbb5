//! Memory for what is made of a run's events: counted before it is kept, and until the client has it.

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use serde_json::Value;

use super::runs::json_body;
use super::{ApiError, App};
use crate::completion::ReadError;
use crate::completion::event::RunEvent;
use crate::memory_budget::MemoryReservation;
use crate::openai::ErrorKind;

/// Bytes that the events of one page take in memory, at most and roughly.
const PAGE_BYTES: usize = 2 << 20;

/// Memory for a form of one run (JSON, Markdown, a list entry) while it is made: so many copies of the run's texts.
pub(super) struct ReadingMemory {
    memory: MemoryReservation,
    copies: usize,
}

impl ReadingMemory {
    pub(super) fn new(app: &App, copies: usize) -> Self {
        ReadingMemory { memory: app.memory_budget.reserve(), copies }
    }

    /// Takes what an event needs.
    ///
    /// # Errors
    /// 503, with other words where it would never fit.
    pub(super) async fn take(&self, event: &RunEvent) -> Result<(), ApiError> {
        let bytes = self.copies * event.json_bytes();
        if !self.memory.can_ever_hold(bytes + PAGE_BYTES) {
            return Err(too_large());
        }
        Ok(self.memory.grow(bytes).await?)
    }

    /// An answer's body, counted until the client has taken it or left.
    pub(super) fn body(self, bytes: impl AsRef<[u8]> + Send + 'static) -> Body {
        Body::from(self.memory.bind(bytes))
    }

    /// A JSON answer, counted likewise.
    pub(super) fn json(self, value: Value) -> Response {
        // The other half is the value.
        let text = json_text(&value, self.memory.held() / 2);
        drop(value);
        json_body(StatusCode::OK, self.body(text))
    }
}

/// A value as JSON that is expected to take so many bytes: a text that grows takes twice its size for a moment.
pub(super) fn json_text(value: &Value, expected: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(expected + expected / 64 + 1024);
    serde_json::to_writer(&mut text, value).expect("a value is written to memory");
    text
}

fn too_large() -> ApiError {
    let message = "the run is too large to be given in this form within `limits.memory_bytes`; read its events \
                   (`GET /v1/runs/{id}/events`), or its result as Markdown (`GET /{id}.md`)";
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, ErrorKind::Server, Some("memory_exhausted"), message)
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Store(error) => error.into(),
            ReadError::Memory(error) => error.into(),
        }
    }
}
