//! JSON-RPC messages that servers send.
//!
//! Pure. A result stays the bytes it came as: large results are passed on without being taken apart.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::input::Asked;
use crate::clean_json;
use crate::tools::{Error, Progress};

/// Longest text of a server that is repeated in an error, in characters.
const LONGEST_TEXT: usize = 1000;

/// One message.
#[derive(Debug)]
pub(crate) enum Message {
    /// An answer; `id` is `None` when the server could not read the request's.
    Response {
        id: Option<u64>,
        outcome: Result<Bytes, RpcError>,
    },
    /// The server wants something from us. `id` is JSON, to be given back as it is.
    Request {
        id: Box<RawValue>,
        method: String,
        /// What an elicitation asks for, as far as it can be read.
        asked: Option<Box<Asked>>,
    },
    Progress {
        token: Option<u64>,
        progress: Progress,
    },
    ToolsChanged,
    /// The first event of a 2024-11-05 stream: where to post.
    Endpoint(String),
    /// Anything else.
    Other,
}

/// A JSON-RPC error object. `data` is JSON.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct RpcError {
    pub(crate) code: i64,
    #[serde(default)]
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) data: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// The messages in `bytes`: one, or the several of a batch (MCP 2025-03-26).
///
/// # Errors
/// [`Error::Protocol`] when it is not JSON-RPC.
pub(crate) fn parse(bytes: &Bytes) -> Result<Vec<Message>, Error> {
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        let batch: Vec<&RawValue> = clean_json::borrowed(bytes).map_err(|_| not_json())?;
        batch.into_iter().map(|one| parse_one(bytes, one.get().as_bytes())).collect()
    } else {
        Ok(vec![parse_one(bytes, bytes)?])
    }
}

/// What is said of an answer that is no JSON-RPC and speaks of a session.
pub(super) const UNKNOWN_SESSION: &str = "it says something about its session, and not as JSON-RPC";

fn no_message(part: &[u8]) -> Error {
    if speaks_of_session(part) { Error::Protocol(UNKNOWN_SESSION.into()) } else { not_json() }
}

/// Whether a text has the word in it.
pub(super) fn speaks_of_session(text: &[u8]) -> bool {
    memchr::memmem::find(&text.to_ascii_lowercase(), b"session").is_some()
}

fn not_json() -> Error {
    Error::Protocol("it is not JSON-RPC".into())
}

fn parse_one(whole: &Bytes, part: &[u8]) -> Result<Message, Error> {
    let wire: Wire<'_> = clean_json::borrowed(part).map_err(|_| no_message(part))?;
    let id = wire.id.and_then(|id| id.get().trim_matches('"').parse().ok());
    Ok(match wire {
        Wire { method: Some(method), id: Some(id), params, .. } => {
            let asked = params.filter(|_| method == "elicitation/create");
            let asked = asked.and_then(|params| clean_json::from_str(params.get()).ok());
            Message::Request { id: id.to_owned(), method: method.into_owned(), asked }
        }
        Wire { method: Some(method), params, .. } => notification(&method, params),
        Wire { error: Some(error), .. } => Message::Response {
            id,
            outcome: Err(clean_json::from_str(error.get()).map_err(|_| no_message(part))?),
        },
        Wire { result: Some(result), .. } => {
            Message::Response { id, outcome: Ok(whole.slice_ref(result.get().as_bytes())) }
        }
        _ => return Err(no_message(part)),
    })
}

fn notification(method: &str, params: Option<&RawValue>) -> Message {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Params<'a> {
        #[serde(borrow)]
        progress_token: &'a RawValue,
        progress: f64,
        #[serde(default)]
        total: Option<f64>,
        #[serde(default)]
        message: Option<String>,
    }
    match method {
        "notifications/tools/list_changed" => Message::ToolsChanged,
        "notifications/progress" => {
            match params.and_then(|params| clean_json::borrowed::<Params<'_>>(params.get().as_bytes()).ok()) {
                Some(params) => Message::Progress {
                    token: params.progress_token.get().trim_matches('"').parse().ok(),
                    progress: Progress {
                        progress: params.progress,
                        total: params.total,
                        message: params.message.map(|message| harmless(&message)),
                    },
                },
                None => Message::Other,
            }
        }
        _ => Message::Other,
    }
}

/// A server's text, fit to be repeated: bounded, and on one line.
pub(crate) fn harmless(text: &str) -> String {
    let mut characters = text.chars().map(|character| match character {
        '\n' | '\r' | '\t' => ' ',
        other => other,
    });
    let mut kept: String = characters.by_ref().filter(|c| !c.is_control()).take(LONGEST_TEXT).collect();
    if characters.any(|c| !c.is_control()) {
        kept.push('…');
    }
    kept
}

/// Codes with a meaning of their own.
pub(crate) mod code {
    pub(crate) const METHOD_NOT_FOUND: i64 = -32601;
    pub(crate) const INVALID_REQUEST: i64 = -32600;
    pub(crate) const INVALID_PARAMS: i64 = -32602;
    pub(crate) const INTERNAL: i64 = -32603;
    /// Used by servers of the older revisions for "session required", "not initialized" and the like.
    pub(crate) const SERVER: std::ops::RangeInclusive<i64> = -32002..=-32000;
    pub(crate) const HEADER_MISMATCH: i64 = -32020;
    pub(crate) const MISSING_CAPABILITY: i64 = -32021;
    pub(crate) const UNSUPPORTED_VERSION: i64 = -32022;
    pub(crate) const URL_ELICITATION: i64 = -32042;
}

impl RpcError {
    /// `data.supported` of an unsupported protocol version.
    pub(crate) fn supported_versions(&self) -> Vec<String> {
        #[derive(Deserialize)]
        struct Data {
            supported: Vec<String>,
        }
        self.data
            .as_deref()
            .and_then(|data| clean_json::from_str::<Data>(data.get()).ok())
            .map(|data| data.supported)
            .unwrap_or_default()
    }

    /// What callers are told of it.
    pub(crate) fn into_error(self) -> Error {
        match self.code {
            code::URL_ELICITATION => {
                #[derive(Deserialize)]
                struct Data {
                    #[serde(default)]
                    elicitations: Vec<Asked>,
                }
                let asked = self.data.as_deref().and_then(|d| clean_json::from_str::<Data>(d.get()).ok());
                super::input::pages(&asked.map(|data| data.elicitations).unwrap_or_default(), None)
            }
            code::MISSING_CAPABILITY => Error::InputRequired(harmless(&self.message)),
            code => Error::Rpc { code, message: harmless(&self.message) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(text: &str) -> Message {
        parse(&Bytes::copy_from_slice(text.as_bytes())).unwrap().remove(0)
    }

    #[test]
    fn a_result_is_a_slice_of_the_answer() {
        let bytes = Bytes::from_static(br#" {"id": "7","jsonrpc":"2.0","result": {"a": [1, 2.50]}} "#);
        let Message::Response { id: Some(7), outcome: Ok(result) } = parse(&bytes).unwrap().remove(0) else {
            panic!("a response with the id 7")
        };
        assert_eq!(&result[..], br#"{"a": [1, 2.50]}"#);
        assert!(bytes.as_ptr_range().contains(&result.as_ptr()));
    }

    #[test]
    fn batches_errors_requests_and_notifications_are_told_apart() {
        let batch = Bytes::from_static(
            br#"[{"method":"ping","id":"x"},{"method":"notifications/tools/list_changed"},
                {"id":null,"error":{"code":-32700,"message":"no"}},{"method":"notifications/message","params":{}}]"#,
        );
        let batch = parse(&batch).unwrap();
        assert!(
            matches!(&batch[0], Message::Request { id, method, .. } if id.get() == "\"x\"" && method == "ping")
        );
        assert!(matches!(batch[1], Message::ToolsChanged));
        assert!(matches!(&batch[2], Message::Response { id: None, outcome: Err(e) } if e.code == -32700));
        assert!(matches!(batch[3], Message::Other));
    }

    #[test]
    fn progress_is_read_with_tokens_of_both_kinds() {
        for token in ["7", "\"7\""] {
            let text = format!(
                r#"{{"method":"notifications/progress","params":{{"progressToken":{token},"progress":0.5,"total":1,"message":"a\u001bb\nc"}}}}"#
            );
            let Message::Progress { token, progress } = one(&text) else { panic!("progress") };
            assert_eq!((token, progress.total), (Some(7), Some(1.0)));
            assert_eq!(progress.message.as_deref(), Some("ab c"));
        }
        assert!(matches!(one(r#"{"method":"notifications/progress","params":{}}"#), Message::Other));
    }

    #[test]
    fn repeated_texts_are_bounded() {
        assert_eq!(harmless(&"x".repeat(1000)).chars().count(), 1000);
        assert_eq!(harmless(&"x".repeat(2000)).chars().count(), 1001);
    }

    #[test]
    fn a_url_elicitation_error_names_host_and_address() {
        let error: RpcError = serde_json::from_str(
            r#"{"code":-32042,"message":"m","data":{"elicitations":[{"mode":"url","url":"https://a.example/x","message":"Sign in"}]}}"#,
        )
        .unwrap();
        let Error::PageRequired(required) = error.into_error() else { panic!("pages to open") };
        assert_eq!(required.pages[0].as_str(), "https://a.example/x");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(text in "[\\[\\]{}\",:a-z0-9 -]{0,60}") {
            let _ = parse(&Bytes::from(text));
        }
    }
}
