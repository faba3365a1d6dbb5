//! Peers that break: every failure is said, nothing hangs, nothing goes on for nobody.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::provider::{delta, event, finish, usage};
use crate::support::{
    FakeMcp, FakeProvider, FakeTool, Gate, Gateway, Piece, Reply, Stream, ask, calls, calls_stream, text,
    text_stream, with,
};

/// A stream of a run whose provider answers like this in the first turn.
async fn run_of(turn: Reply) -> Stream {
    let provider = FakeProvider::start(vec![turn]).await;
    let gateway = Gateway::with(&provider).await;
    gateway
        .client
        .stream(&with(ask(&[]), json!({ "toolgate": { "max_turns": 3 } })))
        .await
        .read_to_end()
        .await
}

fn words(content: &str) -> Piece {
    event(&delta(&json!({ "content": content })))
}

#[tokio::test]
async fn a_provider_cut_in_the_middle_ends_the_stream_with_an_error_event() {
    let half = Piece::from("data: {\"choices\":[{\"index\":0,\"del");
    for (what, turn) in [
        ("between chunks", Reply::Stream { pieces: vec![words("Hel")], cut: true }),
        ("in a chunk", Reply::Stream { pieces: vec![words("Hel"), half], cut: true }),
        ("ended without a finish", Reply::stream(vec![words("Hel")])),
        ("done without a finish", Reply::stream(vec![words("Hel"), "data: [DONE]\n\n".into()])),
        ("no JSON", Reply::stream(vec![words("Hel"), "data: {nonsense\n\n".into()])),
        (
            "shorter than its length",
            Reply::Raw(vec![
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 9999\r\n\r\n".into(),
                words("Hel"),
            ]),
        ),
    ] {
        let stream = run_of(turn).await;
        assert_eq!(stream.content(), "Hel", "{what}: what came is not lost");
        let error = stream.error().unwrap_or_else(|| panic!("{what}: an error event"));
        assert_eq!(error["type"], "upstream_error", "{what}");
        assert!(error["message"].as_str().unwrap().starts_with("fake: "), "{what}: {error}");
        assert_eq!(stream.finish_reason(), None, "{what}");
    }
}

#[tokio::test]
async fn an_error_event_inside_a_200_is_handed_on_with_the_provider_s_name() {
    let error = json!({ "error": { "message": "overloaded", "type": "overloaded_error", "code": 529 } });
    let after_words = run_of(Reply::stream(vec![words("Hel"), event(&error)])).await;
    let told = after_words.error().unwrap();
    assert_eq!((&told["message"], &told["code"]), (&json!("fake: overloaded"), &json!(529)));

    let provider = FakeProvider::answering(move |_| Reply::stream(vec![event(&error)])).await;
    let gateway = Gateway::with(&provider).await;
    for streamed in [true, false] {
        let body = with(ask(&[]), json!({ "toolgate": { "max_turns": 3 }, "stream": streamed }));
        let answer = gateway.client.chat(&body).await;
        assert_eq!(answer.status, 502, "nothing was sent yet: the status says it ({streamed})");
        assert_eq!(answer.json()["error"]["message"], "fake: overloaded");
    }
}

#[tokio::test]
async fn a_cut_after_the_end_harms_nobody() {
    let cut_late = Reply::Stream { pieces: vec![words("Hello"), event(&finish("stop"))], cut: true };
    let stream = run_of(cut_late).await;
    assert_eq!((stream.content().as_str(), stream.finish_reason()), ("Hello", Some("stop")));
}

#[tokio::test]
async fn a_provider_that_does_not_close_after_done_is_not_waited_for() {
    let pieces = vec![
        words("Hello"),
        event(&finish("stop")),
        event(&usage()),
        "data: [DONE]\n\n".into(),
        Piece::Wait(Gate::new()),
    ];
    let stream = run_of(Reply::stream(pieces)).await;
    assert_eq!(stream.finish_reason(), Some("stop"));
}

#[tokio::test]
async fn answers_that_are_no_completion_are_errors() {
    for (status, body) in [
        (200, "<html>Welcome</html>"),
        (200, "{}"),
        (200, "{\"choices\":[]}"),
        (200, "[]"),
        (204, ""),
        (301, ""),
    ] {
        let provider = FakeProvider::answering(move |_| {
            Reply::with_headers(status, &[("content-type", "application/json")], body)
        })
        .await;
        let gateway = Gateway::with(&provider).await;
        let answer = gateway.client.chat(&with(ask(&[]), json!({ "toolgate": { "max_turns": 3 } }))).await;
        assert_eq!(answer.status, 502, "{status} {body}: {}", answer.text());
        assert!(answer.json()["error"]["message"].as_str().unwrap().starts_with("fake"), "{}", answer.text());
    }
}

#[tokio::test]
async fn a_silent_stream_is_given_up() {
    let provider =
        FakeProvider::start(vec![Reply::stream(vec![words("Hel"), Piece::Wait(Gate::new())])]).await;
    let gateway = Gateway::configured(&provider, |settings| settings.upstream.idle_seconds = 1).await;
    let body = with(ask(&[]), json!({ "toolgate": { "max_turns": 3 } }));
    let stream = gateway.client.stream(&body).await.read_to_end().await;
    assert!(stream.error().unwrap()["message"].as_str().unwrap().contains("nothing came for 1 s"));
    provider.peer.until_abandoned(1).await;
}

#[tokio::test]
async fn a_provider_that_fails_in_a_later_turn_ends_the_run_with_its_words() {
    let turns = || {
        let refusal = json!({ "error": { "message": "too long", "code": "context_length_exceeded" } });
        vec![calls_stream(&[("call_1", "s_t", json!({}))]), Reply::Json(400, refusal)]
    };
    let mcp = FakeMcp::start(vec![FakeTool::text("t", "found")]).await;
    let provider = FakeProvider::start(turns()).await;
    let gateway = Gateway::with(&provider).await;
    let stream = gateway.client.stream(&ask(&[mcp.entry("s")])).await.read_to_end().await;
    assert!(stream.content().contains("found"));
    assert_eq!(stream.error().unwrap()["provider_code"], "context_length_exceeded");

    let provider = FakeProvider::start(turns()).await;
    let gateway = Gateway::with(&provider).await;
    let answer = gateway.client.chat(&ask(&[mcp.entry("s")])).await;
    assert_eq!(
        (answer.status, answer.json()["error"]["provider_code"].as_str()),
        (400, Some("context_length_exceeded"))
    );
}

#[tokio::test]
async fn a_storm_of_429_keeps_its_retry_after() {
    let mcp = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let provider = FakeProvider::answering(|_| {
        let body =
            json!({ "error": { "message": "slow down", "type": "tokens", "code": "rate_limit_exceeded" } });
        Reply::with_headers(
            429,
            &[("retry-after", "17"), ("content-type", "application/json")],
            &body.to_string(),
        )
    })
    .await;
    let gateway = Gateway::with(&provider).await;
    for streamed in [true, false] {
        let body = with(ask(&[mcp.entry("s")]), json!({ "stream": streamed }));
        let answer = gateway.client.chat(&body).await;
        assert_eq!((answer.status, answer.header("retry-after")), (429, Some("17")));
        assert_eq!(answer.json()["error"]["code"], "rate_limit_exceeded");
    }
    assert_eq!(provider.peer.requests().len(), 2, "17 s are not waited for");
}

#[tokio::test]
async fn a_client_gone_during_a_tool_call_cancels_the_call() {
    let provider = FakeProvider::answering(|request| match request.json()["stream"] == true {
        true => calls_stream(&[("call_1", "s_t", json!({})), ("call_2", "s_t", json!({}))]),
        false => calls(&[("call_1", "s_t", json!({}))]),
    })
    .await;
    let mcp = FakeMcp::start(vec![FakeTool::raw("t", |_| Reply::Silence)]).await;
    let gateway = Gateway::with(&provider).await;

    let mut stream = gateway.client.stream(&ask(&[mcp.entry("s")])).await;
    stream.until(|chunk| chunk["toolgate"]["event"] == "tool_call").await;
    mcp.until_calls(2).await;
    drop(stream);
    mcp.peer.until_abandoned(2).await;

    let waiting = gateway.client.connect(&ask(&[mcp.entry("s")])).await;
    mcp.until_calls(3).await;
    drop(waiting);
    mcp.peer.until_abandoned(3).await;
    assert_eq!(provider.peer.requests().len(), 2, "and no turn follows");
    let metrics = gateway.client.get("/metrics").await.text();
    let cancelled =
        format!("toolgate_tool_calls_total{{host=\"{}\",outcome=\"cancelled\"}} 3", mcp.peer.host());
    assert!(metrics.contains(&cancelled), "{cancelled} is missing in {metrics}");
    assert!(metrics.contains("toolgate_open_streams 0"), "{metrics}");
}

#[tokio::test]
async fn a_client_gone_during_a_turn_cancels_the_provider_s_request() {
    let provider = FakeProvider::start(vec![
        Reply::stream(vec![words("Hel"), Piece::Wait(Gate::new())]),
        Reply::Silence,
    ])
    .await;
    let mcp = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let gateway = Gateway::with(&provider).await;
    let mut stream = gateway.client.stream(&ask(&[mcp.entry("s")])).await;
    stream.until(|chunk| chunk["choices"][0]["delta"]["content"] == "Hel").await;
    drop(stream);
    provider.peer.until_abandoned(1).await;

    let waiting = gateway.client.connect(&ask(&[mcp.entry("s")])).await;
    provider.peer.until_requests(2).await;
    drop(waiting);
    provider.peer.until_abandoned(2).await;
}

#[tokio::test]
async fn a_client_that_closes_its_half_after_its_answer_began_counts_as_gone() {
    let turn = || Reply::stream(vec![words("Hel"), Piece::Wait(Gate::new())]);
    for options in [json!({ "stream": true }), json!({ "stream": true, "toolgate": { "max_turns": 3 } })] {
        let provider = FakeProvider::start(vec![turn()]).await;
        let gateway = Gateway::with(&provider).await;
        let mut connection = gateway.client.connect(&with(ask(&[]), options)).await;
        let mut begun = Vec::new();
        while !String::from_utf8_lossy(&begun).contains("Hel") {
            assert!(connection.read_buf(&mut begun).await.unwrap() > 0);
        }
        connection.shutdown().await.unwrap();
        provider.peer.until_abandoned(1).await;
    }
}

#[tokio::test]
async fn a_client_gone_while_servers_are_asked_cancels_the_asking() {
    let provider = FakeProvider::start(vec![text("never")]).await;
    let silent = crate::support::Peer::start(|_| Reply::Silence).await;
    let gateway = Gateway::with(&provider).await;
    let entry = json!({ "type": "mcp", "server_url": silent.url("/mcp") });
    let waiting = gateway.client.connect(&ask(&[entry])).await;
    silent.until_requests(1).await;
    drop(waiting);
    silent.until_abandoned(1).await;
    assert_eq!(provider.peer.requests().len(), 0);
}

#[tokio::test]
async fn a_server_that_dies_in_the_middle_of_a_call_is_told_to_the_model_and_the_run_goes_on() {
    let half = |request: &crate::support::Recorded| {
        let id = request.json()["id"].clone();
        Reply::Stream {
            pieces: vec![Piece::from(format!("data: {{\"jsonrpc\":\"2.0\",\"id\":{id},").as_str())],
            cut: true,
        }
    };
    let tools = || {
        vec![
            FakeTool::raw("hangup", |_| Reply::Hangup),
            FakeTool::raw("cut", half),
            FakeTool::raw("status", |_| Reply::with_headers(500, &[], "boom")),
            FakeTool::raw("html", |_| Reply::with_headers(200, &[("content-type", "text/html")], "<html>")),
            FakeTool::text("fine", "fine"),
        ]
    };
    let names = ["hangup", "cut", "status", "html", "fine"];
    let ids: Vec<String> = names.iter().map(|name| format!("call_{name}")).collect();
    let functions: Vec<String> = names.iter().map(|name| format!("s_{name}")).collect();
    let list: Vec<(&str, &str, Value)> = ids
        .iter()
        .zip(&functions)
        .map(|(id, function)| (id.as_str(), function.as_str(), json!({})))
        .collect();
    let provider = FakeProvider::start(vec![calls_stream(&list), text_stream("ok")]).await;
    let mcp = FakeMcp::start(tools()).await;
    let gateway = Gateway::with(&provider).await;
    let stream = gateway.client.stream(&ask(&[mcp.entry("s")])).await.read_to_end().await;
    assert!(stream.content().ends_with("ok"));
    assert_eq!(stream.content().matches("**Error** ").count(), 4, "{}", stream.content());
    let told = provider.last_said("tool");
    for (name, told) in names.iter().zip(&told) {
        let told = told.as_str().unwrap();
        assert_eq!(told.contains("failed"), *name != "fine", "{name}: {told}");
        if ["hangup", "cut"].contains(name) {
            assert!(told.contains("Whether the call took effect is unknown"), "{name}: {told}");
        }
    }
    assert_eq!(mcp.count("tools/call"), 5, "a call that may have run is never sent twice");
}

#[tokio::test]
async fn a_slow_reader_slows_the_provider_down_and_loses_nothing() {
    const PIECES: usize = 4096;
    let filling = "x".repeat(16 << 10);
    for plain in [true, false] {
        let mut pieces: Vec<Piece> = (0..PIECES).map(|_| words(&filling)).collect();
        pieces.extend([event(&finish("stop")), "data: [DONE]\n\n".into()]);
        let provider = FakeProvider::start(vec![Reply::stream(pieces)]).await;
        // This is about pace, not about what a run may hold.
        let gateway = Gateway::configured(&provider, |settings| {
            (settings.run.max_bytes, settings.limits.memory_bytes) = (256 << 20, 1 << 30);
        });
        let gateway = gateway.await;
        let options = if plain { json!({}) } else { json!({ "toolgate": { "max_turns": 2 } }) };
        let mut stream = gateway.client.stream(&with(ask(&[]), options)).await;
        provider.peer.until_stalled().await;
        let sent = provider.peer.bytes_sent();
        assert!(sent < PIECES * filling.len() * 3 / 4, "{sent} bytes were taken for a reader who reads none");
        let mut length = 0;
        while let Some(chunk) = stream.next().await {
            length += chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default().len();
            stream.chunks.clear();
        }
        assert!(stream.done);
        assert_eq!(length, PIECES * filling.len(), "plain: {plain}");
    }
}

#[tokio::test]
async fn an_endless_line_of_a_provider_is_not_gathered_for_ever() {
    let part = "x".repeat(1 << 20);
    let mut pieces = vec![Piece::from("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"")];
    pieces.extend((0..70).map(|_| Piece::from(part.as_str())));
    pieces.push(Piece::Wait(Gate::new()));
    let provider = FakeProvider::start(vec![Reply::stream(pieces)]).await;
    let gateway = Gateway::with(&provider).await;
    let answer = gateway.client.chat(&with(ask(&[]), json!({ "toolgate": { "max_turns": 2 } }))).await;
    assert_eq!(
        (answer.status, answer.json()["toolgate"]["notices"][0]["code"].as_str()),
        (200, Some("byte_budget"))
    );
    provider.peer.until_abandoned(1).await;
}

#[tokio::test]
async fn peers_that_close_every_connection_after_an_answer_are_no_trouble() {
    let closing = |body: &Value| {
        let body = body.to_string();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
        Reply::Raw(vec![format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_str().into()])
    };
    let answer = json!({ "choices": [{ "index": 0, "message": { "role": "assistant", "content": "hi" }, "finish_reason": "stop" }] });
    let provider = FakeProvider::answering(move |_| closing(&answer)).await;
    let gateway = Gateway::with(&provider).await;
    for options in [json!({}), json!({ "toolgate": { "max_turns": 2 } })] {
        for _ in 0..20 {
            let answer = gateway.client.chat(&with(ask(&[]), options.clone())).await;
            assert_eq!(answer.content(), "hi", "{}", answer.text());
        }
    }
}

#[tokio::test]
async fn an_answer_with_more_calls_than_anybody_makes_is_refused() {
    let list: Vec<_> =
        (0..1001).map(|n| json!({ "id": format!("c{n}"), "type": "function", "function": { "name": "t", "arguments": "{}" } })).collect();
    let message = json!({ "role": "assistant", "content": null, "tool_calls": list });
    let body = json!({ "choices": [{ "index": 0, "message": message, "finish_reason": "tool_calls" }] });
    let provider = FakeProvider::answering(move |_| Reply::Json(200, body.clone())).await;
    let gateway = Gateway::with(&provider).await;
    let answer = gateway.client.chat(&with(ask(&[]), json!({ "toolgate": { "max_turns": 2 } }))).await;
    assert_eq!(answer.status, 502, "{}", answer.text());
    assert!(answer.text().contains("more than 1000 function calls"), "{}", answer.text());
}
