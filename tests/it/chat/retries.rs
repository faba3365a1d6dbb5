//! Trying a provider again: only before the first byte, only where nothing can have happened twice.

use serde_json::json;

use crate::support::{FakeProvider, Gateway, Peer, Reply, ask, provider::event, text, with};

fn status(status: u16, retry_after: &str) -> Reply {
    let headers = [("content-type", "application/json"), ("retry-after", retry_after)];
    Reply::with_headers(status, &headers, &json!({ "error": { "message": "busy" } }).to_string())
}

#[tokio::test]
async fn overload_and_failures_of_the_server_are_tried_again() {
    for failure in [429, 500, 502, 503, 529] {
        let provider = FakeProvider::start(vec![status(failure, "0"), text("at last")]).await;
        let gateway = Gateway::with(&provider).await;
        assert_eq!(gateway.client.chat(&ask(&[])).await.content(), "at last", "{failure}");
        let requests = provider.peer.requests();
        assert_eq!(requests.len(), 2);
        assert_eq!(requests[0].body, requests[1].body);
    }
}

#[tokio::test]
async fn the_loop_tries_again_like_a_plain_completion() {
    let provider = FakeProvider::start(vec![status(503, "0"), text("at last")]).await;
    let gateway = Gateway::with(&provider).await;
    let body = with(ask(&[]), json!({ "toolgate": {} , "max_tokens": 5 }));
    let body = with(body, json!({ "toolgate": { "max_turns": 2 } }));
    assert_eq!(gateway.client.chat(&body).await.content(), "at last");
}

#[tokio::test]
async fn mistakes_of_the_request_are_not_tried_again() {
    for failure in [400, 401, 403, 404, 409, 422, 501] {
        let provider = FakeProvider::start(vec![status(failure, "0"), text("never")]).await;
        let gateway = Gateway::with(&provider).await;
        assert_eq!(gateway.client.chat(&ask(&[])).await.status, failure);
        assert_eq!(provider.peer.requests().len(), 1, "{failure}");
    }
}

#[tokio::test]
async fn a_request_that_may_have_run_is_not_sent_again() {
    let provider = FakeProvider::start(vec![Reply::Hangup, text("never")]).await;
    let gateway = Gateway::with(&provider).await;
    let answer = gateway.client.chat(&ask(&[])).await;
    assert_eq!(answer.status, 502);
    assert_eq!(answer.json()["error"]["code"], "provider_unreachable");
    assert_eq!(provider.peer.requests().len(), 1);
}

#[tokio::test]
async fn nothing_is_tried_again_after_the_first_byte() {
    let begun = || Reply::Stream { pieces: vec![event(&json!({ "choices": [] }))], cut: true };
    let provider = FakeProvider::start(vec![begun(), text("never"), begun()]).await;
    let gateway = Gateway::with(&provider).await;
    let mut stream = gateway.client.stream(&ask(&[])).await;
    while stream.next().await.is_some() {}
    assert!(!stream.done, "the cut reaches the client as a cut");
    assert_eq!(provider.peer.requests().len(), 1);
}

#[tokio::test]
async fn the_last_answer_of_a_storm_is_given_and_the_budget_ends_it() {
    let provider = FakeProvider::answering(|_| status(429, "0")).await;
    let gateway =
        Gateway::configured(&provider, |settings| settings.upstream.retry_budget_percent = 10).await;
    let answer = gateway.client.chat(&ask(&[])).await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("0")));
    assert_eq!(provider.peer.requests().len(), 3, "two retries");

    for _ in 0..99 {
        assert_eq!(gateway.client.chat(&ask(&[])).await.status, 429);
    }
    let retries = provider.peer.requests().len() - 100;
    assert!((10..=20).contains(&retries), "ten in hand and one for every ten requests: {retries}");
}

#[tokio::test]
async fn retries_can_be_turned_off() {
    let provider = FakeProvider::answering(|_| status(503, "0")).await;
    let gateway = Gateway::configured(&provider, |settings| settings.upstream.max_retries = 0).await;
    assert_eq!(gateway.client.chat(&ask(&[])).await.status, 503);
    assert_eq!(provider.peer.requests().len(), 1);
}

#[tokio::test]
async fn a_provider_that_is_down_is_named_after_all_tries() {
    let provider = FakeProvider::start(Vec::new()).await;
    let gateway = Gateway::configured(&provider, |settings| {
        settings.providers[0].base_url = Some(format!("http://127.0.0.1:{}/v1", closed_port()));
        settings.upstream.max_retries = 1;
    })
    .await;
    for body in [ask(&[]), with(ask(&[]), json!({ "toolgate": { "max_turns": 1 } }))] {
        let answer = gateway.client.chat(&body).await;
        assert_eq!(answer.status, 502);
        let error = &answer.json()["error"];
        assert_eq!(
            (&error["code"], &error["type"]),
            (&json!("provider_unreachable"), &json!("upstream_error"))
        );
        assert!(error["message"].as_str().unwrap().starts_with("fake could not be reached"), "{error}");
    }
    let metrics = gateway.client.get("/metrics").await.text();
    assert!(metrics.contains("toolgate_upstream_retries_total{provider=\"fake\"} 2"), "{metrics}");
}

/// A port where nobody listens.
fn closed_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn a_provider_that_never_begins_to_answer_is_given_up() {
    let provider = Peer::start(|_| Reply::Silence).await;
    let provider = FakeProvider { peer: provider };
    let gateway = Gateway::configured(&provider, |settings| settings.upstream.first_byte_seconds = 1).await;
    let answer = gateway.client.chat(&ask(&[])).await;
    assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (504, Some("provider_timeout")));
    assert_eq!(provider.peer.requests().len(), 1, "it may still be at work");
    provider.peer.until_abandoned(1).await;
}
