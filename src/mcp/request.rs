//! What requests must be before their messages are looked at.

use http::{HeaderMap, StatusCode, header};
use serde_json::Value;

use super::era::LEGACY;
use super::message::{INVALID_REQUEST, Refusal};

/// Most messages of a batch.
const MAX_BATCH: usize = 50;

/// Refuses a body that is called something else than JSON.
///
/// # Errors
/// 415.
pub fn check_content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let content_type =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if media_type(content_type).eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let text = "the content type must be application/json";
    Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, INVALID_REQUEST, text))
}

/// Whether the client reads event streams.
pub fn reads_event_streams(headers: &HeaderMap) -> bool {
    accepted(headers).any(|kind| kind.eq_ignore_ascii_case("text/event-stream"))
}

/// 2025-03-26 has batches; every later revision has none.
///
/// # Errors
/// 400 for batches of other revisions, empty ones, and long ones.
pub fn check_batch(headers: &HeaderMap, batch: &[Value]) -> Result<(), Refusal> {
    let version = headers.get("mcp-protocol-version");
    if batch.is_empty() || batch.len() > MAX_BATCH || version.is_some_and(|version| version != LEGACY[2]) {
        let text = format!("batches are part of {} only, with 1 to {MAX_BATCH} messages", LEGACY[2]);
        return Err(Refusal::bad_request(INVALID_REQUEST, text));
    }
    Ok(())
}

/// The kinds that `Accept` names.
fn accepted(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(media_type)
}

fn media_type(value: &str) -> &str {
    value.split(';').next().unwrap_or_default().trim()
}
