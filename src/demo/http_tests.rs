//! The demo through its router, as a client sees it.

use axum::body::{Body, to_bytes};
use http::{HeaderMap, Request, StatusCode};
use serde_json::{Value, json};
use tower_service::Service;

use crate::clock::Clock;
use crate::egress::{self, Egress};
use crate::{config, sse};

const MODERN: &str = "2026-07-28";

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The data of each event.
    fn events(&self) -> Vec<String> {
        assert_eq!(self.headers["content-type"], "text/event-stream");
        let mut decoder = sse::Decoder::new(1 << 20);
        decoder.feed(self.body.as_bytes());
        std::iter::from_fn(|| decoder.next_event().unwrap())
            .map(|event| String::from_utf8(event.data.to_vec()).unwrap())
            .collect()
    }
}

async fn send(method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
    let mut request = Request::builder().method(method).uri(path).header("host", "127.0.0.1:8787");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let egress = Egress::new(&config::Egress::default(), true, egress::system_lookup()).unwrap();
    let mut router: axum::Router = super::router(Clock::system(), egress);
    let response = router.call(request.body(body.into()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, 1 << 24).await.unwrap();
    Answer { status: parts.status, headers: parts.headers, body: String::from_utf8(body.to_vec()).unwrap() }
}

async fn chat(body: Value) -> Answer {
    send("POST", "/demo/v1/chat/completions", &[("content-type", "application/json")], body.to_string()).await
}

/// A modern request with everything it needs.
async fn modern(path: &str, method: &str, mut params: Value, more: &[(&str, &str)]) -> Answer {
    let name = params["name"].as_str().unwrap_or_default().to_owned();
    params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!(MODERN);
    params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
    let body = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}).to_string();
    let mut headers = vec![
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", MODERN),
        ("mcp-method", method),
    ];
    if !name.is_empty() {
        headers.push(("mcp-name", name.as_str()));
    }
    headers.extend(more);
    send("POST", path, &headers, body).await
}

async fn legacy(body: Value) -> Answer {
    send("POST", "/demo/mcp", &[("content-type", "application/json")], body.to_string()).await
}

fn weather() -> Value {
    json!([{"type": "function", "function": {
        "name": "get_weather",
        "description": "Get the weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    }}])
}

fn question(text: &str) -> Value {
    json!([{"role": "user", "content": text}])
}

#[tokio::test]
async fn a_completion_in_one_piece_has_openais_form() {
    let answer = chat(json!({"model": "demo", "messages": question("Hello")})).await.json();
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    let content = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(content.contains("“Hello”") && content.contains("not a language model"), "{content}");
    let usage = &answer["usage"];
    assert_eq!(
        usage["total_tokens"].as_u64(),
        Some(usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap())
    );

    let answer =
        chat(json!({"model": "demo", "messages": question("Weather in Paris?"), "tools": weather()}))
            .await
            .json();
    assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls");
    let call = &answer["choices"][0]["message"]["tool_calls"][0];
    assert_eq!(call["function"], json!({"name": "get_weather", "arguments": "{\"city\":\"Paris\"}"}));
}

#[tokio::test]
async fn a_stream_adds_up_to_the_same_completion() {
    for (prompt, tools) in [("Hello there", json!([])), ("Weather in San Francisco?", weather())] {
        let mut request = json!({"model": "demo", "messages": question(prompt), "tools": tools});
        let whole = chat(request.clone()).await.json();
        request["stream"] = json!(true);
        request["stream_options"] = json!({"include_usage": true});
        let mut events = chat(request).await.events();
        assert_eq!(events.pop().unwrap(), "[DONE]");
        let chunks: Vec<Value> = events.iter().map(|event| serde_json::from_str(event).unwrap()).collect();
        let (mut content, mut arguments, mut roles, mut finishes) =
            (String::new(), String::new(), 0, Vec::new());
        for chunk in &chunks[..chunks.len() - 1] {
            assert_eq!((&chunk["id"], &chunk["usage"]), (&chunks[0]["id"], &Value::Null));
            let choice = &chunk["choices"][0];
            content += choice["delta"]["content"].as_str().unwrap_or_default();
            arguments +=
                choice["delta"]["tool_calls"][0]["function"]["arguments"].as_str().unwrap_or_default();
            roles += usize::from(choice["delta"]["role"] == "assistant");
            finishes.extend(choice["finish_reason"].as_str());
        }
        let message = &whole["choices"][0]["message"];
        assert_eq!(content, message["content"].as_str().unwrap_or_default());
        assert_eq!(arguments, message["tool_calls"][0]["function"]["arguments"].as_str().unwrap_or_default());
        assert_eq!((roles, finishes), (1, vec![whole["choices"][0]["finish_reason"].as_str().unwrap()]));
        let last = chunks.last().unwrap();
        assert_eq!((&last["choices"], &last["usage"]), (&json!([]), &whole["usage"]));
    }
}

#[tokio::test]
async fn a_token_limit_ends_the_completion_with_length() {
    let answer = chat(json!({"model": "demo", "messages": question("Hello"), "max_tokens": 3})).await.json();
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["usage"]["completion_tokens"], 3);
}

#[tokio::test]
async fn bad_requests_get_openais_error_envelope() {
    let messages = question("Hello");
    for (body, status, param) in [
        (json!([]), 400, Value::Null),
        (json!({"messages": messages}), 400, json!("model")),
        (json!({"model": "gpt-9", "messages": messages}), 404, json!("model")),
        (json!({"model": "demo"}), 400, json!("messages")),
        (json!({"model": "demo", "messages": []}), 400, json!("messages")),
        (json!({"model": "demo", "messages": messages, "n": 2}), 400, json!("n")),
        (json!({"model": "demo", "messages": messages, "tools": [{"type": "mcp"}]}), 400, json!("tools")),
        (json!({"model": "demo", "messages": messages, "tool_choice": "maybe"}), 400, json!("tool_choice")),
        (
            json!({"model": "demo", "messages": messages, "tool_choice": {"type": "function", "function": {"name": "x"}}}),
            400,
            json!("tool_choice"),
        ),
    ] {
        let answer = chat(body.clone()).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["error"]["param"]), (status, &param), "{body}");
        assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
    }
    assert_eq!(send("POST", "/demo/v1/chat/completions", &[], "{").await.status, 400);
    assert_eq!(send("GET", "/demo/v1/models", &[], "").await.json()["data"][0]["id"], "demo");
}

#[tokio::test]
async fn a_modern_client_discovers_lists_and_calls() {
    let discovered = modern("/demo/mcp", "server/discover", json!({}), &[]).await.json();
    let result = &discovered["result"];
    assert_eq!(result["supportedVersions"][0], MODERN);
    assert_eq!((&result["resultType"], &result["capabilities"]), (&json!("complete"), &json!({"tools": {}})));
    assert_eq!(result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "toolgate-demo");

    let listed = modern("/demo/mcp", "tools/list", json!({}), &[]).await.json();
    assert_eq!(
        (&listed["result"]["cacheScope"], listed["result"]["ttlMs"].as_u64()),
        (&json!("public"), Some(3_600_000))
    );
    assert_eq!(listed["result"]["tools"][0]["name"], "roll_dice");

    let called = modern(
        "/demo/mcp",
        "tools/call",
        json!({"name": "calculate", "arguments": {"expression": "6*7"}}),
        &[],
    )
    .await;
    assert_eq!(called.headers["content-type"], "application/json");
    assert_eq!(called.json()["result"]["content"][0]["text"], "6*7 = 42");
    assert_eq!(called.json()["id"], 7);
}

#[tokio::test]
async fn a_modern_client_is_told_what_it_asks_wrongly() {
    for (method, params, status, code) in [
        ("initialize", json!({}), 404, -32601),
        ("ping", json!({}), 404, -32601),
        ("prompts/list", json!({}), 404, -32601),
        ("tools/list", json!({"cursor": "2"}), 200, -32602),
        ("tools/call", json!({}), 200, -32602),
        ("tools/call", json!({"name": "nothing"}), 200, -32602),
        ("tools/call", json!({"name": "draw", "arguments": []}), 200, -32602),
        ("tools/call", json!({"name": "whoami"}), 200, -32602),
    ] {
        let answer = modern("/demo/mcp", method, params.clone(), &[]).await;
        assert_eq!(
            (answer.status.as_u16(), answer.json()["error"]["code"].as_i64()),
            (status, Some(code)),
            "{method} {params}"
        );
        assert_eq!(answer.json()["id"], 7);
    }
    let json_type = ("content-type", "application/json");
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).to_string();
    let answer =
        send("POST", "/demo/mcp", &[json_type, ("mcp-protocol-version", "2099-01-01")], body.clone()).await;
    assert_eq!((answer.status.as_u16(), answer.json()["error"]["code"].as_i64()), (400, Some(-32022)));
    assert_eq!(answer.json()["error"]["data"]["requested"], "2099-01-01");
    let answer = send("POST", "/demo/mcp", &[json_type, ("mcp-protocol-version", MODERN)], body).await;
    assert_eq!((answer.status.as_u16(), answer.json()["error"]["code"].as_i64()), (400, Some(-32020)));
}

#[tokio::test]
async fn a_client_of_an_older_revision_is_served_without_a_session() {
    for (asked, given) in
        [("2025-06-18", "2025-06-18"), ("2025-03-26", "2025-03-26"), ("2024-11-05", "2025-11-25")]
    {
        let answer = legacy(json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": asked, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}})).await;
        assert_eq!(answer.json()["result"]["protocolVersion"], given);
        assert!(!answer.headers.contains_key("mcp-session-id"));
    }
    assert_eq!(legacy(json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await.status, 202);
    assert_eq!(
        legacy(json!({"jsonrpc": "2.0", "id": 2, "method": "ping"})).await.json()["result"],
        json!({})
    );
    let unknown = legacy(json!({"jsonrpc": "2.0", "id": 3, "method": "prompts/list"})).await;
    assert_eq!((unknown.status.as_u16(), unknown.json()["error"]["code"].as_i64()), (200, Some(-32601)));
    let batch = legacy(json!([
        {"jsonrpc": "2.0", "id": 1, "method": "ping"},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "fail", "arguments": {}}},
    ]))
    .await
    .json();
    assert_eq!(batch.as_array().unwrap().len(), 2);
    assert_eq!(batch[1]["result"]["isError"], true);
}

#[tokio::test]
async fn what_is_no_mcp_request_is_refused_before_it_is_read() {
    let json_type = ("content-type", "application/json");
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string();
    for (method, headers, body, status) in [
        ("GET", &[][..], "", 405),
        ("DELETE", &[], "", 405),
        ("POST", &[("content-type", "text/plain")], ping.as_str(), 415),
        ("POST", &[json_type, ("origin", "https://evil.example")], &ping, 403),
        ("POST", &[json_type, ("origin", "null")], &ping, 403),
        ("POST", &[json_type, ("origin", "http://127.0.0.1.evil.example")], &ping, 403),
        ("POST", &[json_type, ("origin", "http://localhost@evil.example")], &ping, 403),
        ("POST", &[json_type, ("origin", "http://localhost:3000")], &ping, 200),
        ("POST", &[json_type, ("origin", "http://[::1]:3000")], &ping, 200),
        ("POST", &[("content-type", "Application/JSON; charset=utf-8")], &ping, 200),
        ("POST", &[json_type], "{", 400),
        ("POST", &[json_type], "[]", 400),
    ] {
        let answer = send(method, "/demo/mcp", headers, body.to_owned()).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {headers:?} {body}");
    }
    assert_eq!(send("POST", "/demo/mcp", &[json_type], " ".repeat((1 << 20) + 1)).await.status, 413);
}

#[tokio::test]
async fn the_private_server_wants_the_demo_token() {
    let authorization = |value| [("authorization", value)];
    for headers in [
        &[][..],
        &authorization("Bearer wrong"),
        &authorization("Basic demo-token"),
        &authorization("demo-token"),
    ] {
        let answer = modern("/demo/private/mcp", "tools/list", json!({}), headers).await;
        assert_eq!(answer.status, 401, "{headers:?}");
        let challenge = answer.headers["www-authenticate"].to_str().unwrap();
        assert!(
            challenge.starts_with("Bearer ")
                && challenge.contains("resource_metadata=\"http://127.0.0.1:8787/.well-known/"),
            "{challenge}"
        );
    }
    let token = &authorization("bearer demo-token");
    let listed = modern("/demo/private/mcp", "tools/list", json!({}), token).await.json();
    assert_eq!(listed["result"]["cacheScope"], "private");
    let called = modern("/demo/private/mcp", "tools/call", json!({"name": "whoami"}), token).await.json();
    assert!(called["result"]["content"][0]["text"].as_str().unwrap().contains("nobody's"));
    let metadata =
        send("GET", "/.well-known/oauth-protected-resource/demo/private/mcp", &[], "").await.json();
    assert_eq!(metadata["resource"], "http://127.0.0.1:8787/demo/private/mcp");
}

#[tokio::test]
async fn a_slow_tool_tells_its_progress() {
    let params = json!({"name": "slow", "arguments": {"seconds": 1}, "_meta": {"progressToken": "p"}});
    let answer = modern("/demo/mcp", "tools/call", params, &[]).await;
    assert_eq!(answer.headers["x-accel-buffering"], "no");
    let events: Vec<Value> =
        answer.events().iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    let (result, notifications) = events.split_last().unwrap();
    assert_eq!(result["result"]["content"][0]["text"], "Done after 1 second.");
    let told: Vec<_> = notifications.iter().map(|one| one["params"]["progress"].as_u64().unwrap()).collect();
    assert_eq!(told, [0, 1, 2]);
    assert!(
        notifications.iter().all(|one| one["params"]["progressToken"] == "p" && one["params"]["total"] == 2)
    );
}
