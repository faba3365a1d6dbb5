//! The requests that are measured, and the loop a client would write without a gateway.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};

use crate::load::{Connection, Shot};
use crate::peers::mcp;

pub const PATH: &str = "/v1/chat/completions";

/// What a request asks of the mock provider, and how large it is.
#[derive(Clone)]
pub struct Ask {
    pub model: &'static str,
    pub stream: bool,
    pub message_bytes: usize,
    /// The mock provider's `x_bench`.
    pub wish: Value,
    /// The `tools` field, if any.
    pub tools: Option<Value>,
}

impl Ask {
    /// A question of about one kilobyte, answered at once.
    pub fn plain(model: &'static str) -> Self {
        Ask { model, stream: false, message_bytes: 1000, wish: json!({"bytes": 400}), tools: None }
    }

    pub fn body(&self, messages: &[Value]) -> Bytes {
        let mut body = json!({
            "model": self.model, "messages": messages, "stream": self.stream, "x_bench": self.wish,
        });
        if let Some(tools) = &self.tools {
            body["tools"] = tools.clone();
        }
        // A gateway bounds its loops by default; measuring fifty turns takes asking.
        if self.tools.is_some() && self.tools.as_ref().is_some_and(|tools| tools[0]["type"] == "mcp") {
            body["toolgate"] = json!({"max_turns": 100});
        }
        Bytes::from(body.to_string())
    }

    /// The messages before any turn.
    pub fn messages(&self) -> Vec<Value> {
        vec![
            json!({"role": "system", "content": "You answer briefly."}),
            json!({"role": "user", "content": "m".repeat(self.message_bytes)}),
        ]
    }

    pub fn shot(&self) -> Shot {
        Shot {
            path: PATH.to_owned(),
            body: self.body(&self.messages()),
            expect: "\"finish_reason\":\"stop\"",
        }
    }
}

/// `tools` that name `servers` MCP servers with `each` tools.
pub fn mcp_tools(port: u16, servers: usize, each: usize) -> Value {
    let servers = (0..servers).map(|server| {
        json!({
            "type": "mcp", "server_url": format!("http://127.0.0.1:{port}/mcp/{server}/{each}"),
            "server_label": format!("bench{server}"), "require_approval": "never",
        })
    });
    Value::Array(servers.collect())
}

/// The same tools as the functions a client would offer by itself.
pub fn function_tools(servers: usize, each: usize) -> Value {
    let mut functions = Vec::new();
    for server in 0..servers {
        for tool in mcp::tools(each) {
            let name = format!("bench{server}_{}", tool["name"].as_str().unwrap_or_default());
            functions.push(json!({"type": "function", "function": {
                "name": name, "description": tool["description"], "parameters": tool["inputSchema"],
            }}));
        }
    }
    Value::Array(functions)
}

/// A client's own loop: provider and MCP server called directly over kept-alive connections, nothing parsed.
pub struct DirectLoop {
    provider: Connection,
    mcp: Connection,
}

impl DirectLoop {
    pub async fn open(provider: u16, mcp: u16) -> Result<Self, String> {
        Ok(DirectLoop { provider: Connection::open(provider).await?, mcp: Connection::open(mcp).await? })
    }

    /// One conversation of `turns` turns with one call each, and a last turn; the time spent waiting for answers.
    pub async fn run(&mut self, ask: &Ask, turns: usize) -> Result<Duration, String> {
        let mut messages = ask.messages();
        let mut spent = Duration::ZERO;
        for turn in 0..=turns {
            let body = ask.body(&messages);
            spent += self.timed(PATH, body, "finish_reason").await?;
            if turn < turns {
                let call = json!({
                    "jsonrpc": "2.0", "id": turn, "method": "tools/call", "params": {
                        "name": "tool_0", "arguments": {"text": "n0"},
                        "_meta": {
                            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                            "io.modelcontextprotocol/clientCapabilities": {},
                        },
                    },
                });
                spent += self.timed("/mcp/0/1", Bytes::from(call.to_string()), "\"content\"").await?;
                messages.push(json!({"role": "assistant", "content": null, "tool_calls": [{
                    "id": "call_0", "type": "function",
                    "function": {"name": "bench0_tool_0", "arguments": "{\"text\":\"n0\",\"delay_ms\":0}"},
                }]}));
                messages.push(json!({"role": "tool", "tool_call_id": "call_0", "content": "n0"}));
            }
        }
        Ok(spent)
    }

    async fn timed(&mut self, path: &str, body: Bytes, expect: &'static str) -> Result<Duration, String> {
        let connection = if path == PATH { &mut self.provider } else { &mut self.mcp };
        let shot = Shot { path: path.to_owned(), body, expect };
        let started = Instant::now();
        connection.fire(&shot).await?;
        Ok(started.elapsed())
    }
}

/// How often the MCP server was asked.
pub struct Asked {
    pub calls: u64,
    /// Everything but tool calls.
    pub discovery: u64,
}

/// The MCP server's counts so far.
pub async fn asked(mcp: u16) -> Result<Asked, String> {
    let answer = Connection::open(mcp).await?.send(Method::GET, "/counts", Bytes::new()).await?;
    let counts: BTreeMap<String, u64> =
        serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
    let calls = counts.get("tools/call").copied().unwrap_or(0);
    Ok(Asked { calls, discovery: counts.values().sum::<u64>() - calls })
}
