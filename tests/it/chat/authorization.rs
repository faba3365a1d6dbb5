//! Credentials for MCP servers: where they go, and what happens without.

use serde_json::{Value, json};

use crate::support::{
    FakeMcp, FakeProvider, FakeTool, Gateway, Logs, Peer, Reply, ask, calls, calls_stream, text, text_stream,
    with,
};

const SECRET: &str = "canary-8d1f";

#[tokio::test]
async fn a_missing_login_is_one_notice_per_server_in_words_and_as_data() {
    let provider = FakeProvider::start(vec![text("never")]).await;
    let one = FakeMcp::guarded(vec![FakeTool::echo("t")], "Bearer x").await;
    let two = FakeMcp::guarded(vec![FakeTool::echo("t")], "Bearer x").await;
    let open = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let gateway = Gateway::with(&provider).await;
    let body = ask(&[one.entry("one"), open.entry("open"), two.entry("two")]);

    let answer = gateway.client.chat(&body).await;
    assert_eq!(answer.status, 200);
    let json = answer.json();
    assert_eq!(json["choices"][0]["finish_reason"], "stop");
    let required = json["toolgate"]["authorization_required"].as_array().unwrap();
    assert_eq!(required.len(), 2);
    assert_eq!(required[0]["resource"], one.url());
    assert_eq!(required[0]["scopes"], json!(["files:read", "files:write"]));
    assert_eq!((&required[0]["connect_url"], &required[0]["expires_at"]), (&Value::Null, &Value::Null));
    for mcp in [&one, &two] {
        assert!(answer.content().contains(&mcp.peer.host()), "{}", answer.content());
    }
    assert!(answer.content().contains("`authorization`") || answer.content().contains("authorization"));
    assert!(!answer.content().contains(&open.peer.host()));

    let stream = gateway.client.stream(&body).await.read_to_end().await;
    let streamed: Vec<Value> = stream.events("authorization_required").into_iter().cloned().collect();
    assert_eq!(streamed.len(), 2);
    assert_eq!(streamed[1]["host"], two.peer.host());
    assert_eq!(stream.content(), answer.content());
    assert_eq!(provider.peer.requests().len(), 0, "nothing was sent to the model");
}

#[tokio::test]
async fn on_auth_fail_is_a_401_that_names_the_servers() {
    let provider = FakeProvider::start(vec![text("never")]).await;
    let mcp = FakeMcp::guarded(vec![FakeTool::echo("t")], "Bearer x").await;
    let gateway = Gateway::with(&provider).await;
    for streamed in [false, true] {
        let body =
            with(ask(&[mcp.entry("s")]), json!({ "toolgate": { "on_auth": "fail" }, "stream": streamed }));
        let answer = gateway.client.chat(&body).await;
        assert_eq!(answer.status, 401);
        assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer realm=\"toolgate\""));
        let error = &answer.json()["error"];
        assert_eq!(
            (&error["type"], &error["code"]),
            (&json!("auth_required"), &json!("authentication_required"))
        );
        assert_eq!(
            error["providers"],
            json!([{ "url": mcp.url(), "hostname": mcp.peer.host(), "login_url": null, "provider_type": "mcp" }])
        );
    }
    assert_eq!(provider.peer.requests().len(), 0);
}

#[tokio::test]
async fn an_optional_server_without_login_is_left_out_visibly() {
    let provider = FakeProvider::answering(|_| text("ok")).await;
    let mcp = FakeMcp::guarded(vec![FakeTool::echo("t")], "Bearer x").await;
    let gateway = Gateway::with(&provider).await;
    let entry = with(mcp.entry("s"), json!({ "optional": true }));
    for option in ["link", "fail"] {
        let body = with(ask(std::slice::from_ref(&entry)), json!({ "toolgate": { "on_auth": option } }));
        let answer = gateway.client.chat(&body).await;
        assert!(answer.content().contains(&mcp.peer.host()) && answer.content().ends_with("ok"));
        assert_eq!(answer.json()["toolgate"]["authorization_required"][0]["host"], mcp.peer.host());
    }
}

#[tokio::test]
async fn credentials_are_given_in_every_form() {
    let mcp = FakeMcp::guarded(vec![FakeTool::text("t", "ok")], "Bearer canary-8d1f").await;
    let pair = format!("{}={SECRET}", mcp.peer.host());
    let entry = mcp.entry("s");
    for (entry, header) in [
        (with(entry.clone(), json!({ "authorization": SECRET })), None),
        (with(entry.clone(), json!({ "authorization": format!("Bearer {SECRET}") })), None),
        (with(entry.clone(), json!({ "headers": { "Authorization": format!("Bearer {SECRET}") } })), None),
        (entry.clone(), Some(SECRET)),
        (entry.clone(), Some("Bearer canary-8d1f")),
        (entry.clone(), Some(pair.as_str())),
        (with(entry.clone(), json!({ "authorization": SECRET })), Some("another")),
    ] {
        let provider = FakeProvider::start(vec![calls(&[("call_1", "s_t", json!({}))]), text("done")]).await;
        let gateway = Gateway::with(&provider).await;
        let headers: Vec<(&str, &str)> = header.iter().map(|value| ("x-mcp-authorization", *value)).collect();
        let answer =
            gateway.client.post("/v1/chat/completions", &headers, &ask(std::slice::from_ref(&entry))).await;
        assert!(answer.content().ends_with("done"), "{entry} {header:?}: {}", answer.text());
    }
}

#[tokio::test]
async fn a_credential_reaches_its_own_server_and_nobody_else() {
    let logs = Logs::catch();
    let provider = FakeProvider::start(vec![
        calls_stream(&[
            ("call_1", "one_t", json!({})),
            ("call_2", "two_t", json!({})),
            ("call_3", "one_broken", json!({})),
        ]),
        text_stream("done"),
    ])
    .await;
    let broken = FakeTool::raw("broken", |_| Reply::with_headers(500, &[], "boom"));
    let one = FakeMcp::start(vec![FakeTool::echo("t"), broken]).await;
    let two = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let gateway = Gateway::with(&provider).await;
    let entry = with(one.entry("one"), json!({ "headers": { "X-Team": "team-canary" } }));
    let header = format!("{}={SECRET}", one.peer.host());
    let headers = [("x-mcp-authorization", header.as_str())];
    let body = ask(&[entry, two.entry("two")]);
    let stream = gateway.client.stream_with(&headers, &body).await.read_to_end().await;

    assert!(one.peer.requests().iter().all(|request| {
        request.header("authorization") == Some("Bearer canary-8d1f")
            && request.header("x-team") == Some("team-canary")
    }));
    let leaks = |text: &str| text.contains("canary");
    assert!(logs.text().contains("a tool call failed"), "the log is caught: {}", logs.text());
    assert!(!leaks(&logs.text()), "{}", logs.text());
    for request in two.peer.requests().iter().chain(&provider.peer.requests()) {
        assert!(!leaks(&format!("{:?}", request.headers)) && !leaks(&request.text()), "{request:?}");
    }
    assert!(!leaks(&format!("{:?}", stream.chunks)));
    assert!(!leaks(&format!("{:?}", stream.headers)));
    assert!(!leaks(&gateway.client.get("/metrics").await.text()));
}

#[tokio::test]
async fn a_credential_for_another_host_is_refused_and_not_sent() {
    let provider = FakeProvider::start(vec![text("never")]).await;
    let mcp = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let other = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let gateway = Gateway::with(&provider).await;
    let single = [mcp.entry("s")];
    let both = [mcp.entry("s"), other.entry("o")];
    for (tools, header) in [
        (&single[..], "mcp.example.com=canary-8d1f"),
        (&single[..], "mcp.example.com:8443=canary-8d1f"),
        (&single[..], "MCP.Example.COM=canary-8d1f"),
        (&single[..], "localhost=canary-8d1f"),
        (&single[..], "127.0.0.1:9=canary-8d1f"),
        (&single[..], "127.0.0.1=canary-8d1f"),
        (&single[..], "[::1]:9=canary-8d1f"),
        (&both[..], "canary-8d1f"),
        (&both[..], "mcp.example.com=canary-8d1f"),
    ] {
        let headers = [("x-mcp-authorization", header)];
        let answer = gateway.client.post("/v1/chat/completions", &headers, &ask(tools)).await;
        assert_eq!(answer.status, 400, "{header}: {}", answer.text());
        assert_eq!(answer.json()["error"]["param"], "x-mcp-authorization");
        assert!(!answer.text().contains("canary"), "{}", answer.text());
    }
    assert_eq!(mcp.peer.requests().len() + other.peer.requests().len(), 0);
}

#[tokio::test]
async fn a_redirect_to_another_origin_loses_the_credential() {
    let other = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let elsewhere = other.url();
    let mcp = Peer::start(move |_| Reply::with_headers(307, &[("location", elsewhere.as_str())], "")).await;
    let provider = FakeProvider::answering(|_| text("ok")).await;
    let gateway = Gateway::with(&provider).await;
    let entry = json!({ "type": "mcp", "server_url": mcp.url("/mcp"), "authorization": SECRET, "headers": { "x-team": "canary" } });
    gateway.client.chat(&ask(&[entry])).await;
    assert!(!other.peer.requests().is_empty());
    for request in other.peer.requests() {
        assert!(!format!("{:?}", request.headers).contains("canary"), "{request:?}");
    }
}

#[tokio::test]
async fn a_refused_credential_is_never_repeated() {
    let logs = Logs::catch();
    let provider = FakeProvider::start(vec![text("never")]).await;
    let mcp = FakeMcp::guarded(vec![FakeTool::echo("t")], "Bearer x").await;
    let broken = Peer::start(|request| {
        let told = format!("bad {}", request.header("authorization").unwrap_or_default());
        Reply::with_headers(500, &[], &told)
    })
    .await;
    let gateway = Gateway::with(&provider).await;
    let entry = with(mcp.entry("s"), json!({ "authorization": SECRET }));
    let refused = gateway.client.chat(&ask(&[entry])).await;
    assert!(refused.content().contains("refuses the credential"), "{}", refused.content());
    let failed = json!({ "type": "mcp", "server_url": broken.url("/mcp"), "authorization": SECRET });
    let failed = gateway.client.chat(&ask(&[failed])).await;
    assert_eq!(failed.status, 424);
    for answer in [refused, failed] {
        assert!(!answer.text().contains("canary"), "{}", answer.text());
    }
    assert!(!logs.text().contains("canary"), "{}", logs.text());
}

#[tokio::test]
async fn without_connections_there_is_nothing_to_wait_for() {
    let provider = FakeProvider::start(vec![text("never")]).await;
    let mcp = FakeMcp::guarded(vec![FakeTool::echo("t")], "Bearer x").await;
    let gateway = Gateway::with(&provider).await;
    let wait = json!({ "toolgate": { "on_auth": "wait", "wait_seconds": 300 } });
    let answer = gateway.client.chat(&with(ask(&[mcp.entry("s")]), wait)).await;
    assert_eq!(answer.json()["toolgate"]["authorization_required"][0]["host"], mcp.peer.host());
}

#[tokio::test]
async fn a_credential_that_expires_in_the_middle_is_told_to_the_model() {
    let provider = FakeProvider::start(vec![calls(&[("call_1", "s_t", json!({}))]), text("sorry")]).await;
    let expired = FakeTool::raw("t", |_| Reply::with_headers(401, &[("www-authenticate", "Bearer")], ""));
    let mcp = FakeMcp::start(vec![expired]).await;
    let gateway = Gateway::with(&provider).await;
    let answer = gateway.client.chat(&ask(&[mcp.entry("s")])).await;
    assert!(answer.content().ends_with("sorry"));
    assert!(provider.last_said("tool")[0].as_str().unwrap().contains("refuses the credential"));
}
