//! Requests that are no proper HTTP, or only just.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::wire::{completion, half_closed, sent, until_end};
use crate::support::provider::{delta, event, finish};
use crate::support::{FakeProvider, Gate, Gateway, PATIENCE, Piece, Reply, ask, text, text_stream, with};

#[tokio::test]
async fn a_request_names_its_host_once_and_well() {
    let gateway = Gateway::with(&FakeProvider::start(Vec::new()).await).await;
    let good = gateway.address.to_string();
    for (status, head) in [
        (200, format!("GET /healthz HTTP/1.1\r\nhost: {good}\r\n\r\n")),
        (200, "GET /healthz HTTP/1.0\r\n\r\n".to_owned()),
        (400, "GET /healthz HTTP/1.1\r\n\r\n".to_owned()),
        (400, "GET /healthz HTTP/1.1\r\nhost:\r\n\r\n".to_owned()),
        (400, format!("GET /healthz HTTP/1.1\r\nhost: {good}\r\nhost: {good}\r\n\r\n")),
        (400, format!("GET /healthz HTTP/1.0\r\nhost: {good}\r\nhost: localhost\r\n\r\n")),
        (400, "GET /healthz HTTP/1.1\r\nhost: a b\r\n\r\n".to_owned()),
        (400, format!("GET /healthz HTTP/1.1\r\nhost: user@{good}\r\n\r\n")),
        (400, "GET /healthz HTTP/1.1\r\nhost: 127.0.0.1:99999\r\n\r\n".to_owned()),
        (400, format!("GET http://{good}/healthz HTTP/1.1\r\n\r\n")),
        // The target in absolute form wins over the header, for better or worse.
        (200, format!("GET http://{good}/healthz HTTP/1.1\r\nhost: evil.example\r\n\r\n")),
        (403, format!("GET http://evil.example/healthz HTTP/1.1\r\nhost: {good}\r\n\r\n")),
        (403, "GET /healthz HTTP/1.1\r\nhost: evil.example\r\n\r\n".to_owned()),
    ] {
        let answer = half_closed(gateway.address, head.as_bytes()).await;
        assert_eq!(answer.status(), status, "{head} {answer:?}");
        assert!(status == 200 || answer.0.contains("{\"error\":{"), "{answer:?}");
    }
}

#[tokio::test]
async fn paths_that_are_no_text_get_the_json_error() {
    let provider = FakeProvider::answering(|_| text("hi")).await;
    let gateway = Gateway::with(&provider).await;
    for path in [
        "/%ff",
        "/v1/models/%ff",
        "/v1/chat/completions/%c3%28",
        "/v1/runs/%ff/events",
        "/%fe/chat/completions",
        "/%ff.example.com/chat/completions",
        "/run_%80/mcp",
        "/connect/%ff",
        "/login/%e0%80",
        "/v1/%ff",
    ] {
        for method in ["GET", "POST"] {
            let head =
                format!("{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: 0\r\n\r\n", gateway.address);
            let answer = half_closed(gateway.address, head.as_bytes()).await;
            assert_eq!(answer.status(), 400, "{method} {path}: {answer:?}");
            let body = answer.0.rsplit("\r\n\r\n").next().unwrap();
            let error: Value = serde_json::from_str(body).unwrap();
            assert_eq!(error["error"]["code"], "bad_path", "{path}");
        }
    }
    // Behind a provider's host the path is the provider's.
    let path = format!("/{}/files/%ff%zz", provider.peer.host());
    assert_eq!(gateway.client.get(&path).await.status, 200);
    assert_eq!(provider.peer.only_request().path, "/files/%ff%zz");
}

/// An answer that begins only when the test says so, so that the client's end comes first.
async fn slow(replies: impl Fn() -> Reply + Send + Sync + 'static) -> (FakeProvider, Gateway, Gate) {
    let gate = Gate::new();
    let opened = gate.clone();
    let provider = FakeProvider::answering(move |_| replies().after(&opened)).await;
    let gateway = Gateway::with(&provider).await;
    (provider, gateway, gate)
}

#[tokio::test]
async fn a_client_that_closes_its_half_gets_its_answer() {
    let stream = || {
        let hello = |text: &str| event(&delta(&json!({ "content": text })));
        Reply::stream(vec![hello("hel"), hello("lo"), event(&finish("stop")), "data: [DONE]\n\n".into()])
    };
    let large = "long ".repeat(1 << 20);
    let tools = json!({ "toolgate": { "max_turns": 2 } });
    let whole = large.clone();
    for (body, (provider, gateway, gate), expected) in [
        (ask(&[]), slow(move || text(&whole)).await, large.as_str()),
        (with(ask(&[]), tools.clone()), slow(|| text("hello")).await, "hello"),
        (with(ask(&[]), json!({ "stream": true })), slow(stream).await, "[DONE]"),
        (with(with(ask(&[]), tools), json!({ "stream": true })), slow(stream).await, "[DONE]"),
    ] {
        let request = completion(gateway.address, "", &body.to_string());
        let mut connection = sent(gateway.address, &request).await;
        connection.shutdown().await.unwrap();
        provider.peer.until_requests(1).await;
        // The gateway has seen the end, and asks whether anybody is there.
        let mut interim = [0; 25];
        tokio::time::timeout(PATIENCE, connection.read_exact(&mut interim)).await.unwrap().unwrap();
        assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
        gate.open();
        let answer = until_end(connection).await;
        assert_eq!(answer.status(), 200, "{body}");
        assert!(answer.0.contains(expected), "{body}: {:.300}", answer.0);
    }
}

#[tokio::test]
async fn a_client_that_closes_its_half_with_its_request_gets_its_answer_every_time() {
    let provider = FakeProvider::answering(|request| {
        if request.json()["stream"] == true { text_stream("all of it") } else { text("all of it") }
    })
    .await;
    let gateway = Gateway::with(&provider).await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", gateway.address).into_bytes();
    let post = |body: Value| completion(gateway.address, "", &body.to_string());
    let run = json!({ "toolgate": { "max_turns": 1 } });
    let requests = [
        (get("/healthz"), "200 OK"),
        (get("/v1/models"), "\"object\":\"list\""),
        (post(ask(&[])), "all of it"),
        (post(with(ask(&[]), run.clone())), "all of it"),
        (post(with(ask(&[]), with(run.clone(), json!({ "stream": true })))), "[DONE]"),
        (post(with(ask(&[]), json!({ "store": true, "stream": true }))), "[DONE]"),
    ];
    for (request, wanted) in &requests {
        let answers = (0..20).map(|_| half_closed(gateway.address, request));
        for answer in futures_util::future::join_all(answers).await {
            assert!(answer.0.contains(wanted), "{} {answer:?}", String::from_utf8_lossy(request));
        }
    }
    // The end of a request that is not whole is the end of the connection.
    let torn = half_closed(gateway.address, b"GET /healthz HTTP/1.1\r\nho").await;
    assert!(!torn.0.contains("200 OK"), "{torn:?}");
}

#[tokio::test]
async fn a_client_that_is_gone_is_told_from_one_that_waits() {
    for tools in [json!({}), json!({ "toolgate": { "max_turns": 2 } })] {
        let (provider, gateway, _never) = slow(|| text("never")).await;
        let body = with(ask(&[]), tools).to_string();
        let connection = sent(gateway.address, &completion(gateway.address, "", &body)).await;
        provider.peer.until_requests(1).await;
        drop(connection);
        provider.peer.until_abandoned(1).await;
    }
}

#[tokio::test]
async fn an_answer_after_which_the_connection_ends_says_so() {
    let provider = FakeProvider::answering(|_| text("hi")).await;
    let gateway = Gateway::configured(&provider, |settings| settings.limits.body_bytes = 1 << 20).await;
    let head = |path: &str, more: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n{more}\r\n",
            gateway.address
        )
    };
    for (status, request) in [
        // Announced, and too large.
        (413, head("/v1/chat/completions", "content-length: 99000000\r\n")),
        // Never asked for.
        (404, head("/nothing", "content-length: 99000000\r\n")),
        (413, head("/v1/chat/completions", "content-length: 99000000\r\nexpect: 100-continue\r\n")),
        (404, head("/nothing", "content-length: 5\r\nexpect: 100-continue\r\n")),
        (200, format!("GET /healthz HTTP/1.0\r\nhost: {}\r\n\r\n", gateway.address)),
        (200, format!("GET /healthz HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", gateway.address)),
    ] {
        let answer = until_end(sent(gateway.address, request.as_bytes()).await).await;
        assert_eq!(answer.status(), status, "{request}");
        assert!(answer.says_close() || request.contains("HTTP/1.0"), "{request} {answer:?}");
    }
    let good = completion(gateway.address, "", &ask(&[]).to_string());
    let answer = half_closed(gateway.address, &good).await;
    assert!(answer.status() == 200 && !answer.says_close(), "{answer:?}");
}

#[tokio::test]
async fn who_is_refused_in_the_middle_of_a_large_body_still_reads_why() {
    let provider = FakeProvider::answering(|_| text("hi")).await;
    let gateway = Gateway::configured(&provider, |settings| settings.limits.body_bytes = 1 << 20).await;
    for announced in [true, false] {
        let size = 8 << 20;
        let length = if announced {
            format!("content-length: {size}\r\n\r\n")
        } else {
            format!("transfer-encoding: chunked\r\n\r\n{size:x}\r\n")
        };
        let head = format!("POST /v1/chat/completions HTTP/1.1\r\nhost: {}\r\n{length}", gateway.address);
        let mut connection = sent(gateway.address, head.as_bytes()).await;
        // A client that reads only when it has sent everything.
        connection.write_all(&vec![b' '; size]).await.unwrap();
        let answer = until_end(connection).await;
        assert_eq!((answer.status(), answer.says_close()), (413, true), "{announced}");
        assert!(answer.0.contains("body_too_large"));
    }
}

#[tokio::test]
async fn a_relayed_stream_of_several_choices_goes_on_behind_the_end_of_the_first() {
    let gate = Gate::new();
    let opened = gate.clone();
    let provider = FakeProvider::answering(move |_| {
        let other =
            json!({ "choices": [{ "index": 1, "delta": { "content": "late" }, "finish_reason": "stop" }] });
        Reply::stream(vec![
            event(&finish("stop")),
            Piece::Wait(opened.clone()),
            event(&other),
            "data: [DONE]\n\n".into(),
        ])
    })
    .await;
    let gateway = Gateway::with(&provider).await;
    let mut stream = gateway.client.stream(&with(ask(&[]), json!({ "n": 2 }))).await;
    stream.next().await.expect("the end of the first");
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    gate.open();
    while stream.next().await.is_some() {}
    assert!(
        stream.done && stream.chunks.iter().any(|chunk| chunk["choices"][0]["delta"]["content"] == "late")
    );
}

#[tokio::test]
async fn a_provider_that_neither_ends_its_stream_nor_says_done_is_not_waited_for() {
    let pieces = || {
        let hello = event(&delta(&json!({ "content": "hello" })));
        Reply::stream(vec![hello, event(&finish("stop")), Piece::Wait(Gate::new())])
    };
    let provider = FakeProvider::answering(move |_| pieces()).await;
    let gateway = Gateway::with(&provider).await;
    let body = with(ask(&[]), json!({ "toolgate": { "max_turns": 2 } }));
    let relayed = ask(&[]);
    let (streamed, relayed, whole) = tokio::join!(
        async { gateway.client.stream(&body).await.read_to_end().await },
        async {
            let mut stream = gateway.client.stream(&relayed).await;
            while stream.next().await.is_some() {}
            stream
        },
        gateway.client.chat(&body)
    );
    assert!(relayed.done, "the words are the provider's, and the end is ours");
    assert_eq!(relayed.chunks.len(), 2);
    assert_eq!((streamed.content().as_str(), streamed.finish_reason()), ("hello", Some("stop")));
    assert_eq!((whole.status, whole.content().as_str()), (200, "hello"));
}
