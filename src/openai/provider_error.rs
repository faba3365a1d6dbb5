//! What a provider says when it refuses, out of all the shapes in which providers say it.

use serde_json::{Map, Value};

use crate::clean_json;

/// Longest reason that is handed on, in characters.
const LONGEST_REASON: usize = 1000;
/// Entries of a list of reasons that are read.
const MOST_REASONS: usize = 5;
/// How deep a reason may be wrapped.
const MOST_WRAPPINGS: usize = 6;
/// Fields in which a reason may stand, the most telling first.
const REASON_FIELDS: [&str; 11] = [
    "message",
    "msg",
    "detail",
    "error",
    "errors",
    "error_description",
    "error_message",
    "description",
    "reason",
    "details",
    "title",
];
/// Fields of OpenAI's error object that are kept where a provider has them beside its reason.
const KEPT_FIELDS: [&str; 3] = ["type", "param", "code"];

/// The error object of an answer with an error status: the provider's own where it has one, always with a text as its
/// `message`.
pub fn read_provider_error(status: u16, body: &[u8]) -> Map<String, Value> {
    match clean_json::from_slice::<Value>(body) {
        Ok(answer) => error_object(answer, status),
        Err(_) => with_reason(Map::new(), status, plain_reason(&String::from_utf8_lossy(body))),
    }
}

/// The error object of a value that stands where an answer or a chunk should, or in its `error`.
pub fn error_object(answer: Value, status: u16) -> Map<String, Value> {
    let reason = reason_of(&answer, MOST_WRAPPINGS);
    let mut fields = match answer {
        // Google wraps its object in a list.
        Value::Array(list) => match list.into_iter().next() {
            Some(Value::Object(fields)) => fields,
            _ => Map::new(),
        },
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    let own = match fields.remove("error") {
        Some(Value::Object(error)) => Some(error),
        _ => None,
    };
    match own {
        Some(error) if error.get("message").is_some_and(is_text) => error,
        Some(error) => with_reason(error, status, reason),
        None => {
            fields.retain(|key, _| KEPT_FIELDS.contains(&key.as_str()));
            with_reason(fields, status, reason)
        }
    }
}

fn is_text(message: &Value) -> bool {
    // Some gateways put the JSON of the provider behind them here.
    message.as_str().is_some_and(|text| !text.trim().is_empty() && !text.trim_start().starts_with(['{', '[']))
}

fn with_reason(mut error: Map<String, Value>, status: u16, reason: Option<String>) -> Map<String, Value> {
    let reason = reason.unwrap_or_else(|| "it gave no reason".to_owned());
    let message = if status == 200 { reason } else { format!("status {status}: {reason}") };
    error.insert("message".to_owned(), Value::String(message));
    error
}

/// The reason in words, wherever in `value` it stands.
fn reason_of(value: &Value, wrappings: usize) -> Option<String> {
    let inner = |value: &Value| reason_of(value, wrappings.checked_sub(1)?);
    match value {
        Value::String(text) => {
            let wrapped = text.trim_start().starts_with(['{', '[']);
            let parsed = wrapped.then(|| clean_json::from_str::<Value>(text).ok()).flatten();
            parsed.and_then(|parsed| inner(&parsed)).or_else(|| plain_reason(text))
        }
        Value::Array(list) => {
            let reasons: Vec<String> = list.iter().take(MOST_REASONS).filter_map(inner).collect();
            (!reasons.is_empty()).then(|| bounded(&reasons.join("; ")))
        }
        Value::Object(fields) => {
            let reason = REASON_FIELDS.iter().find_map(|key| inner(fields.get(*key)?))?;
            // FastAPI and Pydantic name the field beside what is wrong with it.
            match fields.get("loc").and_then(Value::as_array).filter(|place| !place.is_empty()) {
                Some(place) => {
                    let place = place.iter().take(10).map(|part| match part {
                        Value::String(name) => name.clone(),
                        other => other.to_string(),
                    });
                    Some(bounded(&format!("{}: {reason}", place.collect::<Vec<_>>().join("."))))
                }
                None => Some(reason),
            }
        }
        _ => None,
    }
}

/// The reason in a text that is no JSON: of an HTML page, its title.
fn plain_reason(text: &str) -> Option<String> {
    let text = text.trim();
    if !text.starts_with('<') {
        return (!text.is_empty()).then(|| bounded(text));
    }
    let lower = text.to_ascii_lowercase();
    let title = lower.find("<title").and_then(|start| {
        let start = start + lower.get(start..)?.find('>')? + 1;
        let end = start + lower.get(start..)?.find("</")?;
        text.get(start..end)
    });
    let title = title.map(bounded).filter(|title| !title.is_empty());
    Some(
        title.map_or_else(|| "it sent a web page".to_owned(), |title| format!("it sent a web page: {title}")),
    )
}

/// On one line and of bounded length.
fn bounded(text: &str) -> String {
    let mut out = String::new();
    for (count, word) in text.split_whitespace().enumerate() {
        if count > 0 {
            out.push(' ');
        }
        out.extend(word.chars().filter(|c| !c.is_control()));
        if out.len() > LONGEST_REASON {
            out.truncate(out.floor_char_boundary(LONGEST_REASON));
            out.push('…');
            break;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn message(body: &str) -> String {
        read_provider_error(422, body.as_bytes())["message"].as_str().unwrap().to_owned()
    }

    #[test]
    fn the_reason_is_found_in_every_shape() {
        for (body, expect) in [
            // OpenAI, Anthropic, Google's list, and a text.
            (r#"{"error":{"message":"bad model","type":"t"}}"#, "bad model"),
            (r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#, "Overloaded"),
            (
                r#"[{"error":{"code":400,"message":"Unknown name \"x\"","status":"INVALID_ARGUMENT"}}]"#,
                "Unknown name \"x\"",
            ),
            (r#"{"error":"model not found"}"#, "status 422: model not found"),
            // Mistral, thrice.
            (
                r#"{"object":"error","message":{"detail":[{"type":"extra_forbidden","loc":["body","user"],"msg":"Extra inputs are not permitted","input":"ann"}]},"type":"invalid_request_error","param":null,"code":null}"#,
                "status 422: body.user: Extra inputs are not permitted",
            ),
            (
                r#"{"object":"error","message":"{\"detail\":[{\"loc\":[\"body\",\"n\"],\"msg\":\"Extra\"}]}","code":"1000"}"#,
                "status 422: body.n: Extra",
            ),
            (
                r#"{"detail":[{"loc":["body","messages",0],"msg":"Field required"},{"msg":"b"}]}"#,
                "status 422: body.messages.0: Field required; b",
            ),
            // FastAPI, Cerebras, Cloudflare, RFC 9457, and what hides its reason.
            (r#"{"detail":"Not authenticated"}"#, "status 422: Not authenticated"),
            (
                r#"{"message":"store: property 'store' is unsupported","type":"invalid_request_error","code":"wrong_api_format"}"#,
                "status 422: store: property 'store' is unsupported",
            ),
            (r#"{"success":false,"errors":[{"code":7003,"message":"No route"}]}"#, "status 422: No route"),
            (r#"{"type":"about:blank","title":"Too large"}"#, "status 422: Too large"),
            (
                r#"{"error":{"code":"BadRequest","detail":"tools are not supported"}}"#,
                "status 422: tools are not supported",
            ),
            (r#"{"error":{"message":"","code":7}}"#, "status 422: it gave no reason"),
            // No JSON at all.
            (
                "<html>\n<head><TITLE>502 Bad\n Gateway</TITLE></head></html>",
                "status 422: it sent a web page: 502 Bad Gateway",
            ),
            ("<!doctype html><p>x", "status 422: it sent a web page"),
            ("upstream connect error\r\n", "status 422: upstream connect error"),
            ("", "status 422: it gave no reason"),
            ("null", "status 422: it gave no reason"),
            ("[]", "status 422: it gave no reason"),
        ] {
            assert_eq!(message(body), expect, "{body}");
        }
    }

    #[test]
    fn what_else_the_provider_says_is_kept() {
        let error =
            read_provider_error(400, br#"{"error":{"message":"m","failed_generation":"x"},"more":1}"#);
        assert_eq!(Value::Object(error), json!({ "message": "m", "failed_generation": "x" }));
        let error = read_provider_error(422, br#"{"message":"m","type":"t","code":"c","id":"secret"}"#);
        assert_eq!(Value::Object(error), json!({ "message": "status 422: m", "type": "t", "code": "c" }));
    }

    proptest! {
        #[test]
        fn whatever_is_answered_has_a_reason_of_bounded_length(body: Vec<u8>, depth in 0_usize..200) {
            let nested = format!("{}\"x\"{}", "{\"error\":[".repeat(depth), "]}".repeat(depth));
            for body in [body, nested.into_bytes(), "long ".repeat(1000).into_bytes()] {
                let error = read_provider_error(500, &body);
                let message = error["message"].as_str().unwrap();
                prop_assert!(!message.is_empty() && message.len() < 1100, "{message}");
            }
        }
    }
}
