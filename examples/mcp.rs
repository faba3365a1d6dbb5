//! Talks to an MCP server with the gateway's own client, without a gateway and without a model.
//!
//! ```text
//! cargo run --example mcp -- list http://127.0.0.1:3001/mcp
//! cargo run --example mcp -- call http://127.0.0.1:3001/mcp echo '{"message":"hello"}'
//! cargo run --example mcp -- drive http://127.0.0.1:3001/mcp
//! ```
//!
//! `drive` lists the tools and calls each of them, with the calls that `MCP_CONFORMANCE_CONTEXT` names or with
//! arguments made up from the schemas: what the conformance suite's client scenarios need.
//! `MCP_AUTHORIZATION` is sent as `Authorization` when set.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]
#![expect(clippy::disallowed_methods, reason = "an example has no configuration but its environment")]

use std::time::Instant;

use serde_json::{Map, Value, json};
use toolgate::config::{self, Secret};
use toolgate::egress::{Egress, system_lookup};
use toolgate::memory_budget::MemoryBudget;
use toolgate::tools::{Progress, Server, Tool, ToolList, Tools};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [command, url, rest @ ..] = arguments.as_slice() else {
        return Err("usage: mcp list|call|drive URL [TOOL JSON]".into());
    };
    let tools = Tools::new(
        Egress::new(&config::Egress::default(), true, system_lookup())?,
        &config::Mcp::default(),
        MemoryBudget::unlimited(),
    );
    let server = Server {
        connection: None,
        resource: None,
        uri: url.parse()?,
        authorization: std::env::var("MCP_AUTHORIZATION").ok().map(Secret::new),
        headers: Vec::new(),
        scope: "example".into(),
    };
    let started = Instant::now();
    let list = tools.list(&server).await?;
    println!("{} tools in {:?}", list.tools.len(), started.elapsed());
    for (name, reason) in &list.dropped {
        println!("left out: {name}: {reason}");
    }
    match (*command, rest) {
        ("list", _) => {
            for tool in &list.tools {
                println!("{} {}", tool.name, tool.input_schema.get().split_whitespace().collect::<String>());
            }
        }
        ("call", [name, json]) => {
            let tool = list.tools.iter().find(|tool| tool.name == *name).ok_or("no such tool")?;
            call(&tools, &server, tool, &serde_json::from_str(json)?).await;
        }
        ("drive", _) => {
            for (tool, arguments) in calls(&list) {
                call(&tools, &server, tool, &arguments).await;
            }
        }
        _ => return Err("usage: mcp list|call|drive URL [TOOL JSON]".into()),
    }
    tools.close().await;
    Ok(())
}

async fn call(tools: &Tools, server: &Server, tool: &Tool, arguments: &Map<String, Value>) {
    let started = Instant::now();
    let result = tools.call(server, tool, arguments, &|progress: Progress| println!("… {progress:?}")).await;
    let took = started.elapsed();
    match result {
        Ok(result) => println!("{} in {took:?}: {}", tool.name, String::from_utf8_lossy(&result)),
        Err(error) => println!("{} failed in {took:?}: {error}", tool.name),
    }
}

/// The calls the suite names, else one of every tool.
fn calls(list: &ToolList) -> Vec<(&Tool, Map<String, Value>)> {
    let context = std::env::var("MCP_CONFORMANCE_CONTEXT").ok();
    let context: Value = context.and_then(|context| serde_json::from_str(&context).ok()).unwrap_or_default();
    if let Some(named) = context["toolCalls"].as_array() {
        let named = named.iter().filter_map(|call| {
            let tool = list.tools.iter().find(|tool| call["name"] == tool.name.as_str())?;
            Some((tool, call["arguments"].as_object().cloned().unwrap_or_default()))
        });
        return named.collect();
    }
    list.tools.iter().map(|tool| (tool, made_up(list, tool))).collect()
}

/// A value of the right type for every required argument.
fn made_up(list: &ToolList, tool: &Tool) -> Map<String, Value> {
    let schema: Value = serde_json::from_str(tool.input_schema.get()).unwrap_or_default();
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let first = list.tools.first().and_then(|tool| serde_json::from_str(tool.input_schema.get()).ok());
    let value = |name: &str| match schema["properties"][name]["type"].as_str() {
        Some("number" | "integer") => json!(3),
        Some("boolean") => json!(true),
        Some("array") => json!([]),
        // The suite's echo tool wants to see the first tool's schema again.
        Some("object") if name == "schema" => first.clone().unwrap_or_default(),
        Some("object") => json!({}),
        _ => json!("hello"),
    };
    required.iter().filter_map(Value::as_str).map(|name| (name.to_owned(), value(name))).collect()
}
