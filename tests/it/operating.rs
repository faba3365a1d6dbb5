//! What operators use: health, metrics, request ids, a clean end.

use serde_json::json;

use crate::support::provider::{delta, event, finish};
use crate::support::{
    FakeMcp, FakeProvider, FakeTool, Gate, Gateway, PATIENCE, Piece, Reply, ask, calls, text, text_stream,
    with,
};

#[tokio::test]
async fn the_gateway_is_alive_and_ready() {
    let provider = FakeProvider::start(Vec::new()).await;
    let gateway = Gateway::with(&provider).await;
    for (path, body) in [("/healthz", "ok\n"), ("/readyz", "ready\n")] {
        let answer = gateway.client.get(path).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, body));
    }
}

#[tokio::test]
async fn a_stop_lets_open_streams_finish_and_takes_no_new_connection() {
    let gate = Gate::new();
    let hello = |text: &str| event(&delta(&json!({ "content": text })));
    let pieces = vec![
        hello("Hel"),
        Piece::Wait(gate.clone()),
        hello("lo"),
        event(&finish("stop")),
        "data: [DONE]\n\n".into(),
    ];
    let provider = FakeProvider::start(vec![Reply::stream(pieces)]).await;
    let mut gateway = Gateway::with(&provider).await;
    let body = with(ask(&[]), json!({ "toolgate": { "max_turns": 1 } }));
    let mut stream = gateway.client.stream(&body).await;
    stream.until(|chunk| chunk["choices"][0]["delta"]["content"] == "Hel").await;
    gateway.begin_stop();
    gateway.until_closed().await;
    gate.open();
    let stream = stream.read_to_end().await;
    assert_eq!((stream.content().as_str(), stream.finish_reason()), ("Hello", Some("stop")));
    tokio::time::timeout(PATIENCE, gateway.stop()).await.expect("it ends once the last stream has");
}

#[tokio::test]
async fn a_stop_waits_no_longer_than_it_is_told_to() {
    let pieces = vec![event(&delta(&json!({ "content": "Hel" }))), Piece::Wait(Gate::new())];
    let provider = FakeProvider::start(vec![Reply::stream(pieces)]).await;
    let gateway = Gateway::configured(&provider, |settings| settings.limits.shutdown_seconds = 1).await;
    let mut stream = gateway.client.stream(&ask(&[])).await;
    stream.next().await.unwrap();
    tokio::time::timeout(PATIENCE, gateway.stop()).await.expect("it ends all the same");
}

#[tokio::test]
async fn request_ids_are_taken_over_where_usable_and_made_up_otherwise() {
    let provider = FakeProvider::answering(|_| text("hi")).await;
    let gateway = Gateway::with(&provider).await;
    for (given, kept) in [("mine-7", true), ("two words", false), (&"x".repeat(129), false)] {
        for body in [ask(&[]), json!({})] {
            let headers = [("x-request-id", given)];
            let answer = gateway.client.post("/v1/chat/completions", &headers, &body).await;
            let id = answer.header("x-request-id").unwrap();
            assert_eq!(id == given, kept, "{given}");
            assert!(kept || id.starts_with("req_"), "{id}");
        }
    }
    let ids: std::collections::HashSet<String> =
        [gateway.client.get("/healthz").await, gateway.client.get("/healthz").await]
            .iter()
            .map(|answer| answer.header("x-request-id").unwrap().to_owned())
            .collect();
    assert_eq!(ids.len(), 2);
}

#[tokio::test]
async fn metrics_count_requests_turns_tool_calls_and_open_streams() {
    let gate = Gate::new();
    let waiting = vec![event(&delta(&json!({ "content": "x" }))), Piece::Wait(gate.clone())];
    let provider = FakeProvider::start(vec![
        calls(&[("call_1", "s_t", json!({}))]),
        text("done"),
        Reply::stream(waiting),
    ])
    .await;
    let mcp = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let gateway = Gateway::with(&provider).await;
    gateway.client.chat(&ask(&[mcp.entry("s")])).await;
    gateway.client.chat(&json!({})).await;
    let mut stream = gateway.client.stream(&ask(&[])).await;
    stream.next().await.unwrap();
    let answer = gateway.client.get("/metrics").await;
    assert!(
        answer.header("content-type").unwrap().starts_with("application/openmetrics-text; version=1.0.0")
    );
    let metrics = answer.text();
    let host = mcp.peer.host();
    for line in [
        "toolgate_requests_total{endpoint=\"completions\",status=\"2xx\"} 2".to_owned(),
        "toolgate_requests_total{endpoint=\"completions\",status=\"4xx\"} 1".to_owned(),
        "toolgate_turns_total{provider=\"fake\"} 2".to_owned(),
        format!("toolgate_tool_calls_total{{host=\"{host}\",outcome=\"ok\"}} 1"),
        format!("toolgate_tool_call_duration_seconds_count{{host=\"{host}\"}} 1"),
        "toolgate_open_streams 1".to_owned(),
        "toolgate_time_to_first_byte_seconds_count{provider=\"fake\"} 3".to_owned(),
    ] {
        assert!(metrics.lines().any(|written| written == line), "{line} is missing in\n{metrics}");
    }
    assert!(metrics.ends_with("# EOF\n"));
}

#[tokio::test]
async fn requests_cannot_fill_the_metrics_with_names() {
    let configured = FakeProvider::answering(|_| text("hi")).await;
    let gateway = Gateway::with(&configured).await;
    for _ in 0..110 {
        let named = FakeProvider::answering(|_| text("hi")).await;
        let path = format!("/{}/v1/chat/completions", named.peer.host());
        assert_eq!(gateway.client.post(&path, &[], &ask(&[])).await.status, 200);
        gateway.client.get(&format!("/nothing/{}", named.peer.host())).await;
    }
    gateway.client.chat(&ask(&[])).await;
    let metrics = gateway.client.get("/metrics").await.text();
    let of = |provider: &str| {
        let line = format!("toolgate_time_to_first_byte_seconds_count{{provider=\"{provider}");
        metrics.lines().filter(|written| written.starts_with(&line)).count()
    };
    assert_eq!((of(""), of("fake\"} 1"), of("other\"}")), (101, 1, 1), "{metrics}");
    let endpoints = metrics.lines().filter(|line| line.starts_with("toolgate_requests_total")).count();
    assert_eq!(endpoints, 30, "six endpoints with five classes of status, whatever was asked for");
}

#[tokio::test]
async fn the_demo_works_out_of_the_box() {
    let provider = FakeProvider::start(Vec::new()).await;
    let gateway = Gateway::with(&provider).await;
    let url = format!("http://{}/demo/mcp", gateway.address);
    let body = json!({
        "model": "demo", "messages": [{ "role": "user", "content": "What is 17 * 23?" }],
        "tools": [{ "type": "mcp", "server_url": url }],
    });
    let stream = gateway.client.stream(&body).await.read_to_end().await;
    assert!(stream.content().contains("391"), "{}", stream.content());
    assert_eq!(stream.events("tool_call").len(), 1);
    assert_eq!(stream.finish_reason(), Some("stop"));
}

#[tokio::test]
async fn a_stream_that_ends_is_not_open_any_more() {
    let provider = FakeProvider::start(vec![text_stream("hello")]).await;
    let gateway = Gateway::with(&provider).await;
    let body = with(ask(&[]), json!({ "toolgate": { "max_turns": 1 } }));
    gateway.client.stream(&body).await.read_to_end().await;
    let metrics = gateway.client.get("/metrics").await.text();
    assert!(metrics.lines().any(|line| line == "toolgate_open_streams 0"), "{metrics}");
}
