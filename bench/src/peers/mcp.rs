//! A mock MCP server of revision 2026-07-28, with JSON answers. `/mcp/N` has N tools; each echoes its `text` after
//! `delay_ms`. It counts what it is asked, so that discovery in a warm turn is seen: `GET /counts`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::serve::{self, Body};

type Counts = Rc<RefCell<BTreeMap<String, u64>>>;

pub fn serve(port: u16) -> Result<(), String> {
    let counts = Counts::default();
    serve::forever(port, move |request| respond(request, counts.clone()))
}

async fn respond(request: Request<Incoming>, counts: Counts) -> Result<Response<Body>, hyper::Error> {
    let (head, body) = request.into_parts();
    if head.method == Method::GET && head.uri.path() == "/counts" {
        return Ok(json_answer(&json!(*counts.borrow())));
    }
    let body = body.collect().await?.to_bytes();
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    let method = message["method"].as_str().unwrap_or_default();
    *counts.borrow_mut().entry(method.to_owned()).or_default() += 1;
    Ok(answer(head.uri.path(), &body).await)
}

/// What the server at `path` says to the message `body`.
pub async fn answer(path: &str, body: &[u8]) -> Response<Body> {
    let message: Value = serde_json::from_slice(body).unwrap_or_default();
    let method = message["method"].as_str().unwrap_or_default();
    let result = match method {
        "server/discover" => json!({
            "resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}},
            "serverInfo": {"name": "bench", "version": "1"}, "ttlMs": 3_600_000, "cacheScope": "public",
        }),
        "tools/list" => {
            let count = path.rsplit('/').next().and_then(|count| count.parse().ok()).unwrap_or(1);
            json!({
                "resultType": "complete", "tools": tools(count), "ttlMs": 3_600_000, "cacheScope": "public",
            })
        }
        "tools/call" => {
            let arguments = &message["params"]["arguments"];
            let delay = arguments["delay_ms"].as_u64().unwrap_or(0);
            if delay > 0 {
                tokio::time::sleep(Duration::from_millis(delay)).await;
            }
            json!({
                "resultType": "complete",
                "content": [{"type": "text", "text": arguments["text"]}], "isError": false,
            })
        }
        _ => {
            let error = json!({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "Method not found"}});
            let mut response = json_answer(&error);
            *response.status_mut() = StatusCode::NOT_FOUND;
            return response;
        }
    };
    json_answer(&json!({"jsonrpc": "2.0", "id": message["id"], "result": result}))
}

fn json_answer(value: &Value) -> Response<Body> {
    serve::answer("application/json", serve::full(value.to_string()))
}

/// Tools as real servers have them: a paragraph of description and a schema with a few properties.
pub fn tools(count: usize) -> Vec<Value> {
    let description =
        "Finds documents in the workspace that match a query and gives their titles and addresses. ";
    (0..count)
        .map(|index| {
            json!({
                "name": format!("tool_{index}"),
                "description": description.repeat(2),
                "inputSchema": {"type": "object", "required": ["text"], "properties": {
                    "text": {"type": "string", "description": "What to look for."},
                    "delay_ms": {"type": "integer", "minimum": 0, "description": "How long to think."},
                    "limit": {"type": "integer", "minimum": 1, "maximum": 100},
                }},
                "annotations": {"readOnlyHint": true},
            })
        })
        .collect()
}
