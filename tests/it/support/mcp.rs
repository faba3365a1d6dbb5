//! A modern MCP server (2026-07-28) whose tools are closures.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Gate, Peer, Recorded, Reply};

type Answer = Arc<dyn Fn(&Recorded) -> Reply + Send + Sync>;

/// A tool: how it is listed, and what it answers.
pub struct FakeTool {
    definition: Value,
    answer: Answer,
}

impl FakeTool {
    /// Gives the value of `result` for its arguments.
    pub fn new(name: &str, answer: impl Fn(&Value) -> Value + Send + Sync + 'static) -> FakeTool {
        FakeTool::raw(name, move |request| {
            rpc_result(request, &answer(&request.json()["params"]["arguments"]))
        })
    }

    /// Always says this.
    pub fn text(name: &str, answer: &str) -> FakeTool {
        let result = text_result(answer);
        FakeTool::new(name, move |_| result.clone())
    }

    /// Says its arguments.
    pub fn echo(name: &str) -> FakeTool {
        FakeTool::new(name, |arguments| text_result(&arguments.to_string()))
    }

    /// Answers the whole request, and those about its tasks.
    pub fn raw(name: &str, answer: impl Fn(&Recorded) -> Reply + Send + Sync + 'static) -> FakeTool {
        let definition = json!({ "name": name, "description": format!("does {name}"), "inputSchema": { "type": "object", "properties": {} } });
        FakeTool { definition, answer: Arc::new(answer) }
    }

    /// Answers only once the gate is open.
    pub fn behind(mut self, gate: &Gate) -> FakeTool {
        let (gate, answer) = (gate.clone(), self.answer);
        self.answer = Arc::new(move |request| answer(request).after(&gate));
        self
    }

    /// Adds a field to its definition.
    pub fn with(mut self, field: &str, value: Value) -> FakeTool {
        self.definition[field] = value;
        self
    }
}

/// The server.
pub struct FakeMcp {
    pub peer: Peer,
}

impl FakeMcp {
    pub async fn start(tools: Vec<FakeTool>) -> FakeMcp {
        FakeMcp::with_scope(tools, "private").await
    }

    /// A server whose list may be kept for everybody (`public`) or for one credential (`private`).
    pub async fn with_scope(tools: Vec<FakeTool>, scope: &'static str) -> FakeMcp {
        FakeMcp { peer: Peer::start(move |request| respond(&tools, scope, request)).await }
    }

    /// A server that answers 401 unless `Authorization` is this.
    pub async fn guarded(tools: Vec<FakeTool>, authorization: &'static str) -> FakeMcp {
        let peer = Peer::start(move |request| {
            if request.header("authorization") != Some(authorization) {
                return Reply::with_headers(
                    401,
                    &[("www-authenticate", r#"Bearer scope="files:read files:write""#)],
                    "",
                );
            }
            respond(&tools, "private", request)
        })
        .await;
        FakeMcp { peer }
    }

    pub fn url(&self) -> String {
        self.peer.url("/mcp")
    }

    /// The tool entry of a request.
    pub fn entry(&self, label: &str) -> Value {
        json!({ "type": "mcp", "server_url": self.url(), "server_label": label })
    }

    /// The methods it was asked, in order.
    pub fn methods(&self) -> Vec<String> {
        let requests = self.peer.requests();
        requests.iter().map(|request| request.json()["method"].as_str().unwrap_or("?").to_owned()).collect()
    }

    /// How often `method` was asked for.
    pub fn count(&self, method: &str) -> usize {
        self.methods().iter().filter(|asked| *asked == method).count()
    }

    /// Waits until `count` tool calls have arrived.
    pub async fn until_calls(&self, count: usize) {
        self.peer.until_requests_that(count, |request| request.json()["method"] == "tools/call").await;
    }
}

/// A result of one text.
pub fn text_result(text: &str) -> Value {
    json!({ "content": [{ "type": "text", "text": text }] })
}

/// The answer to `request` with this `result`.
pub fn rpc_result(request: &Recorded, result: &Value) -> Reply {
    Reply::Json(200, json!({ "jsonrpc": "2.0", "id": request.json()["id"], "result": result }))
}

fn rpc_error(request: &Recorded, status: u16, code: i64, message: &str) -> Reply {
    let error = json!({ "code": code, "message": message });
    Reply::Json(status, json!({ "jsonrpc": "2.0", "id": request.json()["id"], "error": error }))
}

pub(super) fn respond(tools: &[FakeTool], scope: &str, request: &Recorded) -> Reply {
    let message = request.json();
    match message["method"].as_str() {
        Some("server/discover") => rpc_result(
            request,
            &json!({
                "resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": { "tools": {} },
                "serverInfo": { "name": "fake", "version": "1" },
            }),
        ),
        Some("tools/list") => {
            let tools: Vec<&Value> = tools.iter().map(|tool| &tool.definition).collect();
            rpc_result(
                request,
                &json!({ "resultType": "complete", "tools": tools, "ttlMs": 60000, "cacheScope": scope }),
            )
        }
        Some("tools/call") => {
            match tools.iter().find(|tool| tool.definition["name"] == message["params"]["name"]) {
                Some(tool) => (tool.answer)(request),
                None => rpc_error(request, 200, -32602, "no such tool"),
            }
        }
        // A task is the first tool's.
        Some("tasks/get" | "tasks/update" | "tasks/cancel") => (tools[0].answer)(request),
        _ => rpc_error(request, 404, -32601, "no such method"),
    }
}
