//! Asking an address itself, without a credential: whether it wants a login, and where it says that one is.
//!
//! It asks as a run would. Of the answer only the head is read.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, Request, Uri};
use serde_json::{Value, json};

use crate::egress::{Egress, Reach};
use crate::oauth::{Challenge, Finding, Step, Trace};

const PURPOSE: &str = "the resource, without a login";

/// What it said.
pub(super) enum Said {
    /// It wants a login.
    Challenge(Challenge),
    /// It answers without one.
    Nothing,
    /// Neither: this status, such as 404.
    Other(u16),
}

/// Asks the resource, as an MCP client and, where that is no method of it, as a plain reader. `patience` is for the head
/// of each answer.
///
/// # Errors
/// Why there is no answer, or that it is broken.
pub(super) async fn ask(
    egress: &Egress,
    uri: &Uri,
    patience: Duration,
    trace: &mut Trace,
) -> Result<Said, String> {
    let mut method = Method::POST;
    loop {
        let rule = if method == Method::POST { "MCP 2026-07-28 authorization" } else { "RFC 9110 §15.5.2" };
        let step = Step {
            purpose: PURPOSE,
            rule,
            url: uri.to_string(),
            status: None,
            finding: Finding::Absent(String::new()),
            hint: None,
        };
        let answer = match egress
            .send_following(Reach::Requested, request(&method, uri), body(&method), patience, &|_| true)
            .await
        {
            Ok((answer, _)) => answer,
            Err(error) => {
                trace.note(Step { finding: Finding::Bad(error.to_string()), ..step });
                return Err(error.to_string());
            }
        };
        let status = answer.status().as_u16();
        let step = Step { status: Some(status), ..step };
        match status {
            401 | 403 => {
                let challenge = Challenge::read(status, answer.headers());
                trace.note(Step { finding: Finding::Good(words_of(&challenge)), ..step });
                return Ok(Said::Challenge(challenge));
            }
            404 | 405 | 406 | 415 if method == Method::POST => {
                trace.note(Step {
                    finding: Finding::Absent("not an MCP server here, so it is asked for itself".to_owned()),
                    ..step
                });
                method = Method::GET;
            }
            500.. => {
                trace.note(Step { finding: Finding::Bad("it is broken at the moment".to_owned()), ..step });
                return Err(format!("the server answered with HTTP status {status}"));
            }
            _ => {
                trace.note(Step {
                    finding: Finding::Absent("it answers without asking for a login".to_owned()),
                    ..step
                });
                // It may not have liked the question, but did not ask who we are.
                let is_answer = matches!(status, 200..300 | 400 | 405 | 406 | 415 | 422);
                return Ok(if is_answer { Said::Nothing } else { Said::Other(status) });
            }
        }
    }
}

fn words_of(challenge: &Challenge) -> String {
    let says = [
        ("error", &challenge.error),
        ("scope", &challenge.scope),
        ("resource_metadata", &challenge.resource_metadata),
    ];
    let says: Vec<String> = says
        .iter()
        .filter_map(|(name, value)| Some(format!("{name}=\"{}\"", visible(value.as_ref()?))))
        .collect();
    if says.is_empty() {
        "it asks for a login and says nothing else".to_owned()
    } else {
        format!("it asks for a login: {}", says.join(", "))
    }
}

/// The first question of a client of MCP 2026-07-28; it opens no session.
fn body(method: &Method) -> Bytes {
    if method != Method::POST {
        return Bytes::new();
    }
    let question = json!({
        "jsonrpc": "2.0",
        "id": 1,
        "method": "server/discover",
        "params": { "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        } },
    });
    Bytes::from(Value::to_string(&question))
}

fn request(method: &Method, uri: &Uri) -> http::request::Parts {
    let mut request = Request::new(());
    *request.method_mut() = method.clone();
    *request.uri_mut() = uri.clone();
    let headers = request.headers_mut();
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("toolgate/", env!("CARGO_PKG_VERSION"))));
    if method == Method::POST {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        headers.insert("mcp-protocol-version", HeaderValue::from_static("2026-07-28"));
        headers.insert("mcp-method", HeaderValue::from_static("server/discover"));
    } else {
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    }
    request.into_parts().0
}

/// A foreign text, short and without control characters.
fn visible(text: &str) -> String {
    text.chars()
        .take(300)
        .map(|character| if character.is_control() { '\u{fffd}' } else { character })
        .collect()
}
