//! Requests and notifications that we send, written once into bytes.
//!
//! Pure. What the two eras add to a request differs; what is asked is the same.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::annotation;
use super::input::{Answers, Response};
use crate::tools::Tool;

/// The revision of the modern era that we speak.
pub(crate) const MODERN: &str = "2026-07-28";
/// What we offer to servers of the older revisions.
pub(crate) const LEGACY: &str = "2025-11-25";
/// The revisions that begin with `initialize`, newest first.
pub(crate) const LEGACY_VERSIONS: [&str; 4] = [LEGACY, "2025-06-18", "2025-03-26", "2024-11-05"];

/// What a server is asked.
#[derive(Clone, Copy)]
pub(crate) enum Ask<'a> {
    Discover,
    List {
        cursor: Option<&'a str>,
    },
    Call {
        tool: &'a Tool,
        arguments: &'a Map<String, Value>,
        answers: Option<&'a Answers>,
    },
    /// How a task is. This and the two below are asked of modern servers only.
    Task {
        id: &'a str,
    },
    /// What a task asked for.
    UpdateTask {
        id: &'a str,
        answers: &'a Answers,
    },
    CancelTask {
        id: &'a str,
    },
}

#[derive(Serialize)]
struct Wire<'a, P> {
    jsonrpc: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<P>,
}

#[derive(Serialize)]
struct Params<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments: Option<&'a Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<&'a str>,
    #[serde(rename = "taskId", skip_serializing_if = "Option::is_none")]
    task_id: Option<&'a str>,
    #[serde(flatten)]
    answers: Option<&'a Answers>,
    #[serde(rename = "_meta", skip_serializing_if = "Option::is_none")]
    meta: Option<Meta>,
}

#[derive(Serialize)]
struct Meta {
    #[serde(rename = "io.modelcontextprotocol/protocolVersion", skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    #[serde(rename = "io.modelcontextprotocol/clientCapabilities", skip_serializing_if = "Option::is_none")]
    capabilities: Option<Capabilities>,
    #[serde(rename = "io.modelcontextprotocol/clientInfo", skip_serializing_if = "Option::is_none")]
    info: Option<Info>,
    #[serde(rename = "progressToken", skip_serializing_if = "Option::is_none")]
    progress_token: Option<u64>,
}

/// `{}`.
#[derive(Serialize)]
struct Nothing {}

/// That pages can be shown to a person, which a server asks for instead of its result while nothing stays open; and, of
/// modern servers, that a call may become a task. Nothing else.
#[derive(Serialize)]
struct Capabilities {
    elicitation: Pages,
    #[serde(skip_serializing_if = "Option::is_none")]
    extensions: Option<Extensions>,
}

#[derive(Serialize)]
struct Extensions {
    #[serde(rename = "io.modelcontextprotocol/tasks")]
    tasks: Nothing,
}

#[derive(Serialize)]
struct Pages {
    url: Nothing,
}

const LEGACY_CAPABILITIES: Capabilities =
    Capabilities { elicitation: Pages { url: Nothing {} }, extensions: None };
const CAPABILITIES: Capabilities =
    Capabilities { extensions: Some(Extensions { tasks: Nothing {} }), ..LEGACY_CAPABILITIES };

#[derive(Serialize)]
struct Info {
    name: &'static str,
    version: &'static str,
}

const INFO: Info = Info { name: "toolgate", version: env!("CARGO_PKG_VERSION") };

impl<'a> Ask<'a> {
    pub(crate) fn method(&self) -> &'static str {
        match self {
            Ask::Discover => "server/discover",
            Ask::List { .. } => "tools/list",
            Ask::Call { .. } => "tools/call",
            Ask::Task { .. } => "tasks/get",
            Ask::UpdateTask { .. } => "tasks/update",
            Ask::CancelTask { .. } => "tasks/cancel",
        }
    }

    /// The request in the modern era: it says everything about itself.
    pub(crate) fn modern(&self, id: u64) -> Bytes {
        let mut meta = Meta {
            version: Some(MODERN),
            capabilities: Some(CAPABILITIES),
            info: Some(INFO),
            progress_token: None,
        };
        meta.progress_token = self.wants_progress().then_some(id);
        self.write(id, Some(meta))
    }

    /// The request within a session.
    pub(crate) fn legacy(&self, id: u64) -> Bytes {
        let token = Meta { version: None, capabilities: None, info: None, progress_token: Some(id) };
        self.write(id, self.wants_progress().then_some(token))
    }

    /// The headers that repeat parts of a modern request.
    pub(crate) fn mirror(&self, headers: &mut http::HeaderMap) {
        headers.insert("mcp-protocol-version", http::HeaderValue::from_static(MODERN));
        headers.insert("mcp-method", http::HeaderValue::from_static(self.method()));
        match self {
            Ask::Discover | Ask::List { .. } => {}
            Ask::Call { tool, arguments, .. } => {
                headers.insert("mcp-name", annotation::encode(&tool.name));
                annotation::mirror(headers, &tool.header_arguments, arguments);
            }
            // It leads the request to the instance that holds the task.
            Ask::Task { id } | Ask::UpdateTask { id, .. } | Ask::CancelTask { id } => {
                let mut name = annotation::encode(id);
                name.set_sensitive(true);
                headers.insert("mcp-name", name);
            }
        }
    }

    fn wants_progress(&self) -> bool {
        matches!(self, Ask::Call { .. })
    }

    fn write(&self, id: u64, meta: Option<Meta>) -> Bytes {
        let mut params =
            Params { name: None, arguments: None, cursor: None, task_id: None, answers: None, meta };
        match *self {
            Ask::Discover => {}
            Ask::List { cursor } => params.cursor = cursor,
            Ask::Call { tool, arguments, answers } => {
                params.name = Some(&tool.name);
                params.arguments = Some(arguments);
                params.answers = answers;
            }
            Ask::Task { id } | Ask::CancelTask { id } => params.task_id = Some(id),
            Ask::UpdateTask { id, answers } => {
                params.task_id = Some(id);
                params.answers = Some(answers);
            }
        }
        bytes(&Wire { jsonrpc: "2.0", id: Some(id), method: self.method(), params: Some(params) })
    }
}

/// `initialize`, offering `version`.
pub(crate) fn initialize(id: u64, version: &str) -> Bytes {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Initialize<'a> {
        protocol_version: &'a str,
        capabilities: Capabilities,
        client_info: Info,
    }
    let params =
        Initialize { protocol_version: version, capabilities: LEGACY_CAPABILITIES, client_info: INFO };
    bytes(&Wire { jsonrpc: "2.0", id: Some(id), method: "initialize", params: Some(params) })
}

/// `ping`: whether the session is there.
pub(crate) fn ping(id: u64) -> Bytes {
    bytes(&Wire::<()> { jsonrpc: "2.0", id: Some(id), method: "ping", params: None })
}

/// `notifications/initialized`.
pub(crate) fn initialized() -> Bytes {
    bytes(&Wire::<()> { jsonrpc: "2.0", id: None, method: "notifications/initialized", params: None })
}

/// `notifications/cancelled` for the request `id`.
pub(crate) fn cancelled(id: u64) -> Bytes {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Cancelled {
        request_id: u64,
        reason: &'static str,
    }
    let params = Some(Cancelled { request_id: id, reason: "nobody waits for it any more" });
    bytes(&Wire { jsonrpc: "2.0", id: None, method: "notifications/cancelled", params })
}

/// What a request of the server gets.
#[derive(Clone, Copy)]
pub(crate) enum Reply {
    /// `{}`.
    Empty,
    Elicited(Response),
    /// It is not something we do.
    NotFound,
}

/// The answer to a request of the server.
pub(crate) fn answer(id: &RawValue, reply: Reply) -> Bytes {
    #[derive(Serialize)]
    struct Answer<'a> {
        jsonrpc: &'static str,
        id: &'a RawValue,
        #[serde(skip_serializing_if = "Option::is_none")]
        result: Option<Outcome>,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<Failure>,
    }
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Outcome {
        Empty(Nothing),
        Elicited(Response),
    }
    #[derive(Serialize)]
    struct Failure {
        code: i64,
        message: &'static str,
    }
    let refusal = Failure { code: super::message::code::METHOD_NOT_FOUND, message: "Method not found" };
    let (result, error) = match reply {
        Reply::Empty => (Some(Outcome::Empty(Nothing {})), None),
        Reply::Elicited(response) => (Some(Outcome::Elicited(response)), None),
        Reply::NotFound => (None, Some(refusal)),
    };
    bytes(&Answer { jsonrpc: "2.0", id, result, error })
}

fn bytes(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("these types always serialise").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: Bytes) -> String {
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn tool() -> Tool {
        Tool {
            name: "add".into(),
            title: None,
            description: None,
            input_schema: RawValue::from_string("{}".into()).unwrap(),
            read_only: false,
            idempotent: false,
            header_arguments: Vec::new(),
            offered: crate::tools::offered::Offered::default(),
        }
    }

    #[test]
    fn requests_are_written_as_each_era_wants_them() {
        let Value::Object(arguments) = serde_json::json!({"a": 1}) else { unreachable!() };
        let tool = tool();
        let call = Ask::Call { tool: &tool, arguments: &arguments, answers: None };
        assert_eq!(
            text(call.modern(7)),
            format!(
                r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"add","arguments":{{"a":1}},"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{{"elicitation":{{"url":{{}}}},"extensions":{{"io.modelcontextprotocol/tasks":{{}}}}}},"io.modelcontextprotocol/clientInfo":{{"name":"toolgate","version":"{}"}},"progressToken":7}}}}}}"#,
                env!("CARGO_PKG_VERSION")
            )
        );
        assert_eq!(
            text(call.legacy(7)),
            r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"add","arguments":{"a":1},"_meta":{"progressToken":7}}}"#
        );
        assert_eq!(
            text(Ask::List { cursor: Some("c") }.legacy(8)),
            r#"{"jsonrpc":"2.0","id":8,"method":"tools/list","params":{"cursor":"c"}}"#
        );
    }

    #[test]
    fn only_modern_servers_are_told_of_tasks() {
        assert!(!text(initialize(1, LEGACY)).contains("tasks"));
        for modern in [Ask::Discover, Ask::List { cursor: None }, Ask::Task { id: "x" }] {
            assert!(text(modern.modern(1)).contains(r#""extensions":{"io.modelcontextprotocol/tasks":{}}"#));
        }
    }

    #[test]
    fn a_task_is_named_in_body_and_header() {
        let answers =
            Answers { input_responses: [("k".to_owned(), Response::Accept)].into(), request_state: None };
        for (ask, method, more) in [
            (Ask::Task { id: "t 1" }, "tasks/get", ""),
            (Ask::CancelTask { id: "t 1" }, "tasks/cancel", ""),
            (
                Ask::UpdateTask { id: "t 1", answers: &answers },
                "tasks/update",
                r#","inputResponses":{"k":{"action":"accept"}}"#,
            ),
        ] {
            let mut headers = http::HeaderMap::new();
            ask.mirror(&mut headers);
            assert!(headers["mcp-method"] == method && headers["mcp-name"] == "t 1");
            assert!(!format!("{headers:?}").contains("t 1"), "the id may be all that a stranger needs");
            let body = text(ask.modern(1));
            let params = format!(r#""method":"{method}","params":{{"taskId":"t 1"{more},"_meta""#);
            assert!(body.contains(&params) && !body.contains("progressToken"), "{body}");
        }
    }

    #[test]
    fn requests_of_servers_are_answered_or_refused() {
        let id = RawValue::from_string("\"x\"".into()).unwrap();
        assert_eq!(text(answer(&id, Reply::Empty)), r#"{"jsonrpc":"2.0","id":"x","result":{}}"#);
        assert_eq!(
            text(answer(&id, Reply::NotFound)),
            r#"{"jsonrpc":"2.0","id":"x","error":{"code":-32601,"message":"Method not found"}}"#
        );
        assert_eq!(
            text(answer(&id, Reply::Elicited(Response::Decline))),
            r#"{"jsonrpc":"2.0","id":"x","result":{"action":"decline"}}"#
        );
    }

    #[test]
    fn a_modern_call_names_method_tool_and_version_in_headers() {
        let tool = Tool { name: "größe".into(), ..tool() };
        let mut headers = http::HeaderMap::new();
        Ask::Call { tool: &tool, arguments: &Map::new(), answers: None }.mirror(&mut headers);
        assert_eq!(headers["mcp-method"], "tools/call");
        assert_eq!(headers["mcp-name"], "=?base64?Z3LDtsOfZQ==?=");
        assert_eq!(headers["mcp-protocol-version"], MODERN);
    }
}
