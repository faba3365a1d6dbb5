//! A modern MCP server (2026-07-28) whose tools are closures.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Peer, Recorded, Reply};

/// A tool: its name and what it answers to its arguments: the value of `result`, or a whole reply.
pub struct FakeTool {
    pub name: String,
    pub definition: Value,
    pub answer: Arc<dyn Fn(&Value) -> Result<Value, Reply> + Send + Sync>,
}

impl FakeTool {
    pub fn new(name: &str, answer: impl Fn(&Value) -> Value + Send + Sync + 'static) -> FakeTool {
        FakeTool::with(name, move |arguments| Ok(answer(arguments)))
    }

    pub fn text(name: &str, answer: &str) -> FakeTool {
        let answer = answer.to_owned();
        FakeTool::new(name, move |_| json!({ "content": [{ "type": "text", "text": answer }] }))
    }

    pub fn with(
        name: &str,
        answer: impl Fn(&Value) -> Result<Value, Reply> + Send + Sync + 'static,
    ) -> FakeTool {
        let definition = json!({ "name": name, "description": format!("does {name}"), "inputSchema": { "type": "object", "properties": {} } });
        FakeTool { name: name.to_owned(), definition, answer: Arc::new(answer) }
    }
}

/// The server.
pub struct FakeMcp {
    pub peer: Peer,
}

impl FakeMcp {
    pub async fn start(tools: Vec<FakeTool>) -> FakeMcp {
        FakeMcp::guarded(tools, None).await
    }

    /// A server that answers 401 unless `Authorization` is this.
    pub async fn guarded(tools: Vec<FakeTool>, authorization: Option<&str>) -> FakeMcp {
        let authorization = authorization.map(str::to_owned);
        let peer = Peer::start(move |request| {
            if authorization.is_some() && request.header("authorization") != authorization.as_deref() {
                let challenge = ("www-authenticate".to_owned(), r#"Bearer scope="files:read""#.to_owned());
                return Reply::Whole(401, vec![challenge], Vec::new());
            }
            respond(&tools, request)
        })
        .await;
        FakeMcp { peer }
    }

    pub fn url(&self) -> String {
        self.peer.url("/mcp")
    }

    /// How often `method` was asked for.
    pub fn count(&self, method: &str) -> usize {
        self.peer.requests().iter().filter(|request| request.json()["method"] == method).count()
    }
}

fn respond(tools: &[FakeTool], request: &Recorded) -> Reply {
    let message = request.json();
    let id = message["id"].clone();
    let result = match message["method"].as_str() {
        Some("server/discover") => Ok(json!({
            "resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": { "tools": {} },
            "serverInfo": { "name": "fake", "version": "1" },
        })),
        Some("tools/list") => Ok(json!({
            "resultType": "complete", "tools": tools.iter().map(|tool| tool.definition.clone()).collect::<Vec<_>>(), "ttlMs": 60000, "cacheScope": "private",
        })),
        Some("tools/call") => match tools.iter().find(|tool| message["params"]["name"] == tool.name) {
            Some(tool) => (tool.answer)(&message["params"]["arguments"]),
            None => Err(Reply::Json(
                200,
                json!({ "jsonrpc": "2.0", "id": id, "error": { "code": -32602, "message": "no such tool" } }),
            )),
        },
        _ => Err(Reply::Json(
            404,
            json!({ "jsonrpc": "2.0", "id": id, "error": { "code": -32601, "message": "no such method" } }),
        )),
    };
    match result {
        Ok(result) => Reply::Json(200, json!({ "jsonrpc": "2.0", "id": id, "result": result })),
        Err(reply) => reply,
    }
}
