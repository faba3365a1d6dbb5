//! Bad input gets a 400 that names the field and the reason, or the status that fits better; never a model call.

use serde_json::{Value, json};

use crate::support::{Answer, FakeMcp, FakeProvider, FakeTool, Gateway, Peer, ask, text, with, without};

/// A gateway whose model must not be called.
async fn gateway() -> (Gateway, FakeProvider) {
    let provider = FakeProvider::start(vec![text("never")]).await;
    (Gateway::with(&provider).await, provider)
}

#[track_caller]
fn is_refused(answer: &Answer, status: u16, param: Option<&str>, words: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    let error = &answer.json()["error"];
    assert_eq!(error["param"].as_str(), param, "{error}");
    assert!(error["message"].as_str().unwrap().contains(words), "`{words}` in {error}");
    let keys: Vec<&String> = error.as_object().unwrap().keys().collect();
    assert_eq!(keys[..4], ["message", "type", "param", "code"], "OpenAI's envelope");
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn a_body_that_is_no_json_object() {
    let (gateway, provider) = gateway().await;
    for body in ["", "{", "null", "[]", "\"x\"", "hello", "{\"model\":\"m\",}", "{\"a\":\"\u{1}\"}"] {
        let answer = gateway.client.post_text("/v1/chat/completions", &[], body).await;
        is_refused(&answer, 400, None, "not a JSON object");
    }
    let deep = format!("{{\"model\":\"m\",\"messages\":{}}}", "[".repeat(100_000));
    assert_eq!(gateway.client.post_text("/v1/chat/completions", &[], &deep).await.status, 400);
    let twice = "{\"model\":\"m\",\"model\":\"n\",\"messages\":[]}";
    let answer = gateway.client.post_text("/v1/chat/completions", &[], twice).await;
    is_refused(&answer, 400, Some("model"), "twice");
    let not_utf8 = [b"{\"model\":\"".as_slice(), &[0xff], b"\"}"].concat();
    let response = gateway.client.send("POST", "/v1/chat/completions", &[], not_utf8).await;
    assert_eq!(response.status(), 400);
    assert_eq!(provider.peer.requests().len(), 0);
}

#[tokio::test]
async fn fields_that_are_missing_or_of_the_wrong_type() {
    let (gateway, provider) = gateway().await;
    let plain = ask(&[]);
    let ours = with(ask(&[]), json!({ "toolgate": { "max_turns": 2 } }));
    for (body, param, words) in [
        (without(plain.clone(), "model"), "model", "missing"),
        (with(plain.clone(), json!({ "model": null })), "model", "missing"),
        (with(plain.clone(), json!({ "model": "" })), "model", "missing"),
        (with(plain.clone(), json!({ "model": 7 })), "model", "name of a model"),
        (without(plain.clone(), "messages"), "messages", "missing"),
        (with(plain.clone(), json!({ "messages": null })), "messages", "missing"),
        (with(ours.clone(), json!({ "messages": "hi" })), "messages", "list"),
        (with(ours.clone(), json!({ "messages": [] })), "messages", "at least one"),
        (with(ours.clone(), json!({ "messages": [7] })), "messages[0]", "object"),
        (with(ours.clone(), json!({ "stream": "yes" })), "stream", "true or false"),
        (with(ours.clone(), json!({ "stream_options": 1 })), "stream_options", "object"),
        (
            with(ours.clone(), json!({ "stream_options": { "include_usage": 1 } })),
            "stream_options.include_usage",
            "true or false",
        ),
        (with(ours.clone(), json!({ "max_tokens": -1 })), "max_tokens", "above 0"),
        (with(ours.clone(), json!({ "max_completion_tokens": 0 })), "max_completion_tokens", "above 0"),
        (with(ours.clone(), json!({ "parallel_tool_calls": "no" })), "parallel_tool_calls", "true or false"),
        (with(ours.clone(), json!({ "tools": {} })), "tools", "list"),
        (with(ours.clone(), json!({ "tools": [7] })), "tools[0]", "object"),
        (with(ours.clone(), json!({ "user": 7 })), "user", "text"),
        (with(ours, json!({ "user": "x".repeat(513) })), "user", "512"),
    ] {
        let answer = gateway.client.chat(&body).await;
        is_refused(&answer, 400, Some(param), words);
    }
    assert_eq!(provider.peer.requests().len(), 0);
}

#[tokio::test]
async fn an_unknown_model_names_near_matches() {
    let provider = FakeProvider::start(vec![text("never")]).await;
    let gateway = Gateway::configured(&provider, |settings| {
        settings.providers[0].models =
            Some(toolgate::config::Models::These(vec!["sonnet-large".into(), "haiku".into()]));
    })
    .await;
    for model in ["sonnet-larg", "nobody/sonnet-large"] {
        let answer = gateway.client.chat(&with(ask(&[]), json!({ "model": model }))).await;
        is_refused(&answer, 404, Some("model"), "fake/sonnet-large");
        assert_eq!(answer.json()["error"]["code"], "model_not_found");
        assert!(answer.text().contains(model));
    }
    assert_eq!(provider.peer.requests().len(), 0);
}

#[tokio::test]
async fn options_that_do_not_exist_or_cannot_be() {
    let (gateway, provider) = gateway().await;
    for (option, param, words) in [
        (json!({ "on_outh": "link" }), "toolgate.on_outh", "did you mean `on_auth`"),
        (json!({ "max_turn": 3 }), "toolgate.max_turn", "did you mean `max_turns`"),
        (json!({ "zzz": 3 }), "toolgate.zzz", "known are"),
        (json!({ "on_auth": "panic" }), "toolgate.on_auth", "`link`, `wait` or `fail`"),
        (json!({ "output": "html" }), "toolgate.output", "`markdown`"),
        (json!({ "max_turns": 0 }), "toolgate.max_turns", "1 to 100"),
        (json!({ "max_turns": 101 }), "toolgate.max_turns", "1 to 100"),
        (json!({ "max_turns": "3" }), "toolgate.max_turns", "1 to 100"),
        (json!({ "max_tool_calls": -1 }), "toolgate.max_tool_calls", "number"),
        (json!({ "wait_seconds": 301 }), "toolgate.wait_seconds", "1 to 300"),
        (json!({ "stop_when": [{ "turn": 1 }] }), "toolgate.stop_when", "conditions"),
        (json!({ "stop_when": "never" }), "toolgate.stop_when", "conditions"),
        (json!({ "profile": "" }), "toolgate.profile", "1 to 64"),
        (
            json!({ "authorization_callback_url": "app.example/hook" }),
            "toolgate.authorization_callback_url",
            "https://",
        ),
        (
            json!({ "authorization_callback_url": "https://10.0.0.1/hook" }),
            "toolgate.authorization_callback_url",
            "10.0.0.1",
        ),
    ] {
        let answer = gateway.client.chat(&with(ask(&[]), json!({ "toolgate": option }))).await;
        is_refused(&answer, 400, Some(param), words);
    }
    let answer = gateway.client.chat(&with(ask(&[]), json!({ "toolgate": 7 }))).await;
    is_refused(&answer, 400, Some("toolgate"), "object");
    let headers = [("x-toolgate-on-outh", "link")];
    let answer = gateway.client.post("/v1/chat/completions", &headers, &ask(&[])).await;
    is_refused(&answer, 400, Some("x-toolgate-on-outh"), "did you mean `on_auth`");
    assert_eq!(provider.peer.requests().len(), 0);
}

#[tokio::test]
async fn a_body_over_the_limit() {
    let provider = FakeProvider::start(vec![text("fits")]).await;
    let gateway = Gateway::configured(&provider, |settings| settings.limits.body_bytes = 1000).await;
    let body = |bytes: usize| {
        let empty = with(ask(&[]), json!({ "metadata": "" })).to_string().len();
        with(ask(&[]), json!({ "metadata": "x".repeat(bytes - empty) })).to_string()
    };
    let answer = gateway.client.post_text("/v1/chat/completions", &[], &body(1001)).await;
    is_refused(&answer, 413, None, "1000 bytes");
    assert_eq!(gateway.client.post_text("/v1/chat/completions", &[], &body(1000)).await.status, 200);
    for path in ["/v1/embeddings", "/127.0.0.1:9/v1/chat/completions", "/127.0.0.1:9/v1/files"] {
        assert_eq!(gateway.client.post_text(path, &[], &body(1001)).await.status, 413, "{path}");
    }
}

#[tokio::test]
async fn servers_that_cannot_be() {
    let (gateway, provider) = gateway().await;
    let entry = |fields: Value| with(json!({ "type": "mcp" }), fields);
    let good = "https://mcp.example.com/mcp";
    for (tools, param, words) in [
        (vec![entry(json!({}))], "tools[0].server_url", "missing"),
        (vec![entry(json!({ "server_url": 7 }))], "tools[0].server_url", "must be the address"),
        (vec![entry(json!({ "server_url": "nonsense" }))], "tools[0].server_url", "not an address"),
        (vec![entry(json!({ "server_url": "ftp://mcp.example.com" }))], "tools[0].server_url", "https://"),
        (vec![entry(json!({ "server_url": "file:///etc/passwd" }))], "tools[0].server_url", "https://"),
        (
            vec![entry(json!({ "server_url": "https://u:p@mcp.example.com" }))],
            "tools[0].server_url",
            "user name",
        ),
        (
            vec![entry(json!({ "server_url": "https://10.0.0.1/mcp" }))],
            "tools[0].server_url",
            "private address",
        ),
        (
            vec![entry(json!({ "server_url": "https://169.254.169.254/" }))],
            "tools[0].server_url",
            "not a public address",
        ),
        (
            vec![entry(json!({ "server_url": "https://[fd00::1]/mcp" }))],
            "tools[0].server_url",
            "not a public address",
        ),
        (
            vec![entry(json!({ "server_url": "http://mcp.example.com/mcp" }))],
            "tools[0].server_url",
            "plain http",
        ),
        (
            vec![entry(json!({ "server_url": "https://mcp.example.com:6379/" }))],
            "tools[0].server_url",
            "port 6379",
        ),
        (
            vec![entry(json!({ "server_url": good, "url": "https://other.example.com" }))],
            "tools[0].url",
            "another address",
        ),
        (
            vec![entry(json!({ "server_url": good, "require_approval": "always" }))],
            "tools[0].require_approval",
            "never",
        ),
        (
            vec![entry(json!({ "server_url": good, "require_approval": { "never": {} } }))],
            "tools[0].require_approval",
            "never",
        ),
        (
            vec![json!({ "type": "MCP", "server_url": good, "authorization": "secret" })],
            "tools[0].type",
            "must be `mcp`",
        ),
        (vec![json!({ "type": null, "server_url": good })], "tools[0].type", "must be `mcp`"),
        (
            vec![entry(json!({ "server_url": good, "allowed_tool": ["search"] }))],
            "tools[0].allowed_tool",
            "did you mean `allowed_tools`?",
        ),
        (
            vec![entry(json!({ "server_url": good, "allowed_tools": "all" }))],
            "tools[0].allowed_tools",
            "list of tool names",
        ),
        (
            vec![entry(json!({ "server_url": good, "allowed_tools": { "names": [] } }))],
            "tools[0].allowed_tools",
            "tool_names",
        ),
        (
            vec![entry(json!({ "server_url": good, "headers": { "a b": "c" } }))],
            "tools[0].headers",
            "no header",
        ),
        (
            vec![entry(json!({ "server_url": good, "headers": { "a": 7 } }))],
            "tools[0].headers",
            "no header can carry",
        ),
        (
            vec![entry(json!({ "server_url": good, "authorization": "a\nb" }))],
            "tools[0].authorization",
            "no header can carry",
        ),
        (
            vec![
                entry(json!({ "server_url": good, "server_label": "x" })),
                entry(json!({ "server_url": good, "server_label": "x" })),
            ],
            "tools[1].server_label",
            "`x` is used twice",
        ),
        (vec![json!({ "type": "url_context" })], "tools[0].type", "not available yet"),
    ] {
        let answer = gateway.client.chat(&ask(&tools)).await;
        is_refused(&answer, 400, Some(param), words);
    }
    assert_eq!(provider.peer.requests().len(), 0);
}

#[tokio::test]
async fn too_many_servers() {
    let provider = FakeProvider::start(vec![text("never")]).await;
    let gateway = Gateway::configured(&provider, |settings| settings.mcp.max_servers = 2).await;
    let entry = |n: u32| json!({ "type": "mcp", "server_url": format!("https://mcp{n}.example.com/") });
    let answer = gateway.client.chat(&ask(&[entry(1), entry(2), entry(3)])).await;
    is_refused(&answer, 400, Some("tools"), "at most 2 MCP servers");
}

#[tokio::test]
async fn several_choices_with_tools() {
    let (gateway, provider) = gateway().await;
    let mcp = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let answer = gateway.client.chat(&with(ask(&[mcp.entry("s")]), json!({ "n": 2 }))).await;
    is_refused(&answer, 400, Some("n"), "tool calls cannot be made once for several answers");
    let answer = gateway.client.chat(&with(ask(&[mcp.entry("s")]), json!({ "n": 1 }))).await;
    assert_eq!(answer.status, 200);
    assert_eq!(provider.peer.requests().len(), 1);
}

#[tokio::test]
async fn tool_choices_that_name_nothing() {
    let (gateway, provider) = gateway().await;
    let mcp = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let other = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    for (choice, words) in [
        (json!({ "type": "mcp", "server_label": "s", "name": "gone" }), "no tool `gone`"),
        (json!({ "type": "mcp", "server_label": "gone" }), "no server is labelled `gone`"),
        (json!({ "type": "mcp" }), "needs a `server_label`"),
        (json!({ "type": "function", "function": { "name": "gone" } }), "no tool `gone`"),
        (json!({ "type": "function", "function": { "name": "t" } }), "several servers offer `t`"),
        (json!({ "type": "function" }), "needs `function.name`"),
        (json!("sometimes"), "must be `auto`"),
        (json!(7), "must be `auto`"),
    ] {
        let body = with(ask(&[mcp.entry("s"), other.entry("o")]), json!({ "tool_choice": choice }));
        is_refused(&gateway.client.chat(&body).await, 400, Some("tool_choice"), words);
    }
    assert_eq!(provider.peer.requests().len(), 0);
}

#[tokio::test]
async fn compressed_bodies_and_paths_that_do_not_exist() {
    let (gateway, _provider) = gateway().await;
    let headers = [("content-encoding", "gzip")];
    let answer = gateway.client.post_text("/v1/chat/completions", &headers, "{}").await;
    is_refused(&answer, 400, None, "compressed");
    for path in ["/nothing", "/v1/nothing", "/v2/chat/completions"] {
        let answer = gateway.client.get(path).await;
        assert_eq!(answer.status, 404, "{path}: {}", answer.text());
        assert_eq!(answer.json()["error"]["code"], "not_found");
    }
}

#[tokio::test]
async fn a_web_page_cannot_use_the_gateway_of_its_reader() {
    let (gateway, provider) = gateway().await;
    for header in
        [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site"), ("host", "evil.example:8787")]
    {
        let answer = gateway.client.post("/v1/chat/completions", &[header], &ask(&[])).await;
        is_refused(&answer, 403, None, "this machine");
    }
    assert_eq!(provider.peer.requests().len(), 0);
}

#[tokio::test]
async fn an_error_does_not_repeat_what_it_was_given_as_a_secret() {
    let (gateway, _provider) = gateway().await;
    let peer = Peer::start(|_| crate::support::Reply::Hangup).await;
    let entry = json!({ "type": "mcp", "server_url": peer.url("/mcp"), "authorization": "canary\u{7f}\n", "headers": { "x-key": "canary" } });
    let answer = gateway.client.chat(&ask(&[entry])).await;
    assert_eq!(answer.status, 400);
    assert!(!answer.text().contains("canary"), "{}", answer.text());
    let url = json!({ "type": "mcp", "server_url": "https://user:canary@mcp.example.com/" });
    let answer = gateway.client.chat(&ask(&[url])).await;
    assert!(!answer.text().contains("canary"), "{}", answer.text());
}
