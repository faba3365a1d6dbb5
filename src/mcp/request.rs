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

/// Refuses a client that reads no JSON: most answers are JSON. One that does not say what it reads, reads anything
/// (RFC 9110 §12.5.1).
///
/// # Errors
/// 406.
pub fn check_accept(headers: &HeaderMap) -> Result<(), Refusal> {
    let reads_json = |kind: &str| {
        ["application/json", "application/*", "*/*"].iter().any(|known| kind.eq_ignore_ascii_case(known))
    };
    if !headers.contains_key(header::ACCEPT) || accepted(headers).any(reads_json) {
        return Ok(());
    }
    let text = "`Accept` must name application/json, and text/event-stream for progress";
    Err(Refusal::new(StatusCode::NOT_ACCEPTABLE, INVALID_REQUEST, text))
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

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::json;

    use super::*;

    fn headers(name: &'static str, values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn clients_say_what_they_read() {
        for (values, reads_json, reads_streams) in [
            (&[][..], true, false),
            (&["application/json, text/event-stream"], true, true),
            (&["text/event-stream;q=0.5", "Application/JSON; charset=utf-8"], true, true),
            (&["*/*"], true, false),
            (&["application/*"], true, false),
            (&["text/event-stream"], false, true),
            (&["text/html"], false, false),
            (&[""], false, false),
        ] {
            let headers = headers("accept", values);
            assert_eq!(check_accept(&headers).is_ok(), reads_json, "{values:?}");
            assert_eq!(reads_event_streams(&headers), reads_streams, "{values:?}");
        }
    }

    #[test]
    fn only_json_comes_in() {
        for (value, is_json) in [
            ("application/json", true),
            ("Application/JSON ; charset=utf-8", true),
            ("text/plain", false),
            ("application/jsonp", false),
            ("application/x-www-form-urlencoded", false),
        ] {
            assert_eq!(check_content_type(&headers("content-type", &[value])).is_ok(), is_json, "{value}");
        }
        assert!(check_content_type(&HeaderMap::new()).is_err());
    }

    #[test]
    fn one_revision_has_batches() {
        let version = |value| headers("mcp-protocol-version", &[value]);
        let (one, many) = (vec![json!({})], vec![json!({}); MAX_BATCH + 1]);
        assert!(
            check_batch(&HeaderMap::new(), &one).is_ok() && check_batch(&version("2025-03-26"), &one).is_ok()
        );
        for revision in ["2025-06-18", "2025-11-25", "2026-07-28"] {
            assert!(check_batch(&version(revision), &one).is_err(), "{revision}");
        }
        assert!(
            check_batch(&HeaderMap::new(), &many).is_err() && check_batch(&HeaderMap::new(), &[]).is_err()
        );
    }
}
