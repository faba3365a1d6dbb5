//! Requests that clients send again by themselves: a tool that has been called is not called twice.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use toolgate::clock::Clock;
use toolgate::config::{ApiKey, EgressAllow};
use toolgate::crypto::ApiKeyHash;

use crate::support::provider::{delta, event};
use crate::support::{
    Answer, FakeMcp, FakeProvider, FakeTool, Gate, Gateway, Piece, Reply, ask, calls, calls_stream, text,
    text_stream, whole, with,
};

const COUNT: &str = "x-stainless-retry-count";
const FIRST: [(&str, &str); 1] = [(COUNT, "0")];
const AGAIN: [(&str, &str); 1] = [(COUNT, "1")];
const PATH: &str = "/v1/chat/completions";

fn busy(status: u16) -> Reply {
    let error = json!({ "error": { "message": "busy", "code": "overloaded" } });
    let headers = [("content-type", "application/json"), ("retry-after", "0")];
    Reply::with_headers(status, &headers, &error.to_string())
}

/// A provider that calls `s_t`, then answers as `then` says, every time.
async fn provider(then: impl Fn() -> Reply + Send + Sync + 'static) -> FakeProvider {
    FakeProvider::answering(move |request| {
        let body = request.json();
        let has_result = body["messages"].as_array().unwrap().iter().any(|message| message["role"] == "tool");
        match (has_result, body["stream"] == true) {
            (true, _) => then(),
            (false, true) => calls_stream(&[("call_1", "s_t", json!({}))]),
            (false, false) => calls(&[("call_1", "s_t", json!({}))]),
        }
    })
    .await
}

/// A provider that calls `s_t`, and says the end.
async fn well(streamed: bool) -> FakeProvider {
    provider(move || if streamed { text_stream("the end") } else { text("the end") }).await
}

async fn server() -> FakeMcp {
    FakeMcp::start(vec![FakeTool::text("t", "found")]).await
}

async fn post(gateway: &Gateway, headers: &[(&str, &str)], body: &Value) -> Answer {
    gateway.client.post(PATH, headers, body).await
}

/// Asks on a connection of its own. Dropping it is hanging up.
async fn connect(gateway: &Gateway, header: (&str, &str), body: &Value) -> TcpStream {
    let mut connection = TcpStream::connect(gateway.address).await.unwrap();
    let (body, (name, value)) = (body.to_string(), header);
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n{name}: {value}\r\ncontent-length: {}\r\n\r\n",
        gateway.address,
        body.len()
    );
    connection.write_all((head + &body).as_bytes()).await.unwrap();
    connection
}

#[tokio::test]
async fn a_provider_that_fails_after_a_tool_is_not_to_be_asked_again() {
    let cut = || Reply::Stream { pieces: vec![event(&delta(&json!({ "content": "Hel" })))], cut: true };
    let in_a_200 = || Reply::Json(200, json!({ "error": { "message": "busy", "code": "overloaded" } }));
    type Failure = Box<dyn Fn() -> Reply + Send + Sync>;
    let failures: [(u16, Option<&str>, Failure); 6] = [
        (500, Some("overloaded"), Box::new(|| busy(500))),
        (429, Some("overloaded"), Box::new(|| busy(429))),
        (400, Some("overloaded"), Box::new(|| busy(400))),
        (502, Some("provider_unreachable"), Box::new(|| Reply::Hangup)),
        (502, Some("provider_stream_error"), Box::new(cut)),
        (502, Some("overloaded"), Box::new(in_a_200)),
    ];
    for (status, code, failure) in failures {
        let (provider, mcp) = (provider(failure).await, server().await);
        let gateway = Gateway::with(&provider).await;
        for stored in [false, true] {
            let before = mcp.count("tools/call");
            let body = with(ask(&[mcp.entry("s")]), json!({ "store": stored }));
            let answer = post(&gateway, &FIRST, &body).await;
            assert_eq!(answer.status, status, "{}", answer.text());
            assert_eq!(
                (answer.header("x-should-retry"), answer.header("retry-after")),
                (Some("false"), None)
            );
            let check = |error: &Value| {
                assert_eq!(error["code"], "provider_failed_after_tools", "{error}");
                assert_eq!(error["provider_code"].as_str(), code, "{error}");
                let call = json!({ "id": "call_1", "name": "t", "server_label": "s", "outcome": "ok" });
                assert_eq!(error["tool_calls"], json!([call]));
                assert!(
                    error["message"].as_str().unwrap().contains("Tools were already called: t (ok)."),
                    "{error}"
                );
            };
            check(&answer.json()["error"]);
            let stream = gateway.client.stream_with(&FIRST, &body).await.read_to_end().await;
            check(stream.error().unwrap());
            assert_eq!(mcp.count("tools/call") - before, 2, "once each");
        }
    }
}

#[tokio::test]
async fn before_a_tool_is_called_clients_may_repeat() {
    let provider = FakeProvider::answering(|_| busy(503)).await;
    let mcp = server().await;
    let gateway = Gateway::with(&provider).await;
    for headers in [FIRST, AGAIN] {
        let answer = post(&gateway, &headers, &ask(&[mcp.entry("s")])).await;
        assert_eq!((answer.status, answer.header("x-should-retry")), (503, None));
        assert_eq!(answer.header("retry-after"), Some("0"));
        assert_eq!(answer.json()["error"]["code"], "overloaded");
    }
    assert_eq!(provider.peer.requests().len(), 6, "two tries, each with two of the gateway's own");
}

#[tokio::test]
async fn who_left_in_the_middle_of_a_tool_call_gets_its_end_at_the_next_try() {
    for streamed in [false, true] {
        for stored in [false, true] {
            let gate = Gate::new();
            let mcp = FakeMcp::start(vec![FakeTool::text("t", "found").behind(&gate)]).await;
            let provider = well(streamed || stored).await;
            let gateway = Gateway::with(&provider).await;
            let body = with(ask(&[mcp.entry("s")]), json!({ "stream": streamed, "store": stored }));
            let connection = connect(&gateway, FIRST[0], &body).await;
            mcp.until_calls(1).await;
            drop(connection);
            gate.open();
            for count in ["1", "2"] {
                let answer = post(&gateway, &[(COUNT, count)], &body).await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                assert!(
                    answer.text().contains("found") && answer.text().contains("end"),
                    "{}",
                    answer.text()
                );
            }
            assert_eq!(mcp.count("tools/call"), 1, "streamed: {streamed}, stored: {stored}");
            assert_eq!(provider.peer.requests().len(), 2);
        }
    }
}

#[tokio::test]
async fn a_try_that_comes_while_the_first_is_still_there_joins_it_and_takes_no_place_of_its_own() {
    for stored in [false, true] {
        let gate = Gate::new();
        let mcp = FakeMcp::start(vec![FakeTool::text("t", "found").behind(&gate)]).await;
        let provider = well(stored).await;
        let gateway = Gateway::configured(&provider, |settings| settings.limits.runs_per_principal = 1).await;
        let body = with(ask(&[mcp.entry("s")]), json!({ "store": stored }));
        let first = connect(&gateway, FIRST[0], &body).await;
        mcp.until_calls(1).await;
        let (client, again) = (gateway.client.clone(), body.clone());
        let second = tokio::spawn(async move { client.post(PATH, &AGAIN, &again).await });
        gate.open();
        let second = second.await.unwrap();
        assert!(second.content().ends_with("the end"), "{}", second.text());
        drop(first);
        assert_eq!(mcp.count("tools/call"), 1);
    }
}

#[tokio::test]
async fn only_another_try_of_the_same_request_by_the_same_caller_is_a_repetition() {
    const KEYS: [(&str, &str); 2] =
        [("shop", "tgk_0123456789abcdefghjkmnpq"), ("rival", "tgk_1123456789abcdefghjkmnpq")];
    let (provider, mcp) = (well(false).await, server().await);
    let gateway = Gateway::configured(&provider, |settings| {
        for (project, key) in KEYS {
            settings.api_keys.push(ApiKey {
                name: project.into(),
                project: Some(project.into()),
                hash: ApiKeyHash::of(key).to_string(),
                requests_per_minute: None,
                scopes: None,
            });
        }
        let loopback = "127.0.0.0/8".parse().unwrap();
        settings.egress.allow.push(EgressAllow { cidr: Some(loopback), ..EgressAllow::default() });
    })
    .await;
    let body = ask(&[mcp.entry("s")]);
    let other = with(body.clone(), json!({ "user": "ann" }));
    let bearer = KEYS.map(|(_, key)| format!("Bearer {key}"));
    let ask_as = async |who: usize, more: &[(&str, &str)], body: &Value| {
        let mut headers = vec![("content-type", "application/json"), ("authorization", bearer[who].as_str())];
        headers.extend(more);
        let answer = whole(gateway.client.send("POST", PATH, &headers, body.to_string()).await).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["id"].as_str().unwrap().to_owned()
    };
    let first = ask_as(0, &FIRST, &body).await;
    assert_eq!(ask_as(0, &AGAIN, &body).await, first);
    let mut ids = vec![first];
    for (who, headers, body) in [
        (1, &AGAIN[..], &body),
        (0, &AGAIN, &other),
        (0, &[(COUNT, "1"), ("x-toolgate-user", "bob")], &body),
        (0, &[], &body),
        (0, &FIRST, &body),
    ] {
        let id = ask_as(who, headers, body).await;
        assert!(!ids.contains(&id), "{who} {headers:?} {body}");
        ids.push(id);
    }
    assert_eq!(ask_as(0, &AGAIN, &body).await, ids[5], "the latest request with this body");
    assert_eq!(mcp.count("tools/call"), ids.len());
}

#[tokio::test]
async fn an_idempotency_key_finds_the_run_and_takes_no_other_request() {
    let (provider, mcp) = (well(false).await, server().await);
    let gateway = Gateway::with(&provider).await;
    let body = ask(&[mcp.entry("s")]);
    let key = [("idempotency-key", "one")];
    let first = post(&gateway, &key, &body).await;
    let second = post(&gateway, &key, &body).await;
    assert_eq!(first.json()["id"], second.json()["id"]);
    assert_eq!(first.content(), second.content());
    assert!(second.header("age").is_some() && first.header("age").is_none());
    let other = post(&gateway, &key, &with(body.clone(), json!({ "user": "ann" }))).await;
    assert_eq!((other.status, other.json()["error"]["code"].as_str()), (409, Some("idempotency_key_reused")));
    post(&gateway, &[("idempotency-key", "two")], &body).await;
    assert_eq!(mcp.count("tools/call"), 2);
}

#[tokio::test]
async fn after_ten_minutes_a_repetition_is_a_new_request() {
    let (provider, mcp) = (well(false).await, server().await);
    let clock = Clock::fixed(1_800_000_000_000);
    let gateway = Gateway::at(&clock, &provider, |_| {}).await;
    let body = ask(&[mcp.entry("s")]);
    let first = post(&gateway, &FIRST, &body).await;
    for (seconds, is_same) in [(599, true), (2, false)] {
        clock.advance(Duration::from_secs(seconds));
        let again = post(&gateway, &AGAIN, &body).await;
        assert_eq!(again.json()["id"] == first.json()["id"], is_same, "{}", again.text());
    }
}

#[tokio::test]
async fn who_leaves_before_a_tool_is_called_ends_the_run() {
    let gate = Gate::new();
    let held = gate.clone();
    let provider = FakeProvider::answering(move |request| {
        match request.json()["messages"].as_array().unwrap().last().unwrap()["role"] == "tool" {
            true => text("the end"),
            false => calls(&[("call_1", "s_t", json!({}))]).after(&held),
        }
    })
    .await;
    let mcp = server().await;
    let gateway = Gateway::with(&provider).await;
    let body = ask(&[mcp.entry("s")]);
    let connection = connect(&gateway, FIRST[0], &body).await;
    provider.peer.until_requests(1).await;
    drop(connection);
    provider.peer.until_abandoned(1).await;
    gate.open();
    let answer = post(&gateway, &AGAIN, &body).await;
    assert!(answer.content().ends_with("the end"), "{}", answer.text());
    assert_eq!(mcp.count("tools/call"), 1);
}

#[tokio::test]
async fn an_answer_that_is_too_large_to_be_kept_is_lost_and_its_tools_are_not_called_again() {
    let large = "x".repeat(64 << 10);
    let pieces = move || {
        let mut pieces: Vec<Piece> =
            (0..80).map(|_| event(&delta(&json!({ "content": large, "more": "y" })))).collect();
        pieces.push(event(&crate::support::provider::finish("stop")));
        Reply::stream(pieces)
    };
    let (provider, mcp) = (provider(pieces).await, server().await);
    let gateway = Gateway::with(&provider).await;
    let body = with(ask(&[mcp.entry("s")]), json!({ "stream": true }));
    let first = post(&gateway, &FIRST, &body).await;
    assert!(first.body.len() > 4 << 20);
    let again = post(&gateway, &AGAIN, &body).await;
    assert_eq!((again.status, again.header("x-should-retry")), (409, Some("false")), "{}", again.text());
    let error = again.json()["error"].clone();
    assert_eq!(error["code"], "first_try_lost");
    assert_eq!(error["tool_calls"][0]["outcome"], "ok");
    assert_eq!(mcp.count("tools/call"), 1);
}

/// A body that is stored, with the tool `s_t`.
fn to_be_stored(mcp: &FakeMcp, question: &str) -> Value {
    let messages = json!([{ "role": "user", "content": question }]);
    with(ask(&[mcp.entry("s")]), json!({ "store": true, "messages": messages }))
}

#[tokio::test]
async fn two_tries_of_a_stored_request_at_a_time_are_one_run() {
    let (provider, mcp) = (well(false).await, server().await);
    let gateway = Gateway::with(&provider).await;
    for path in [PATH, "/v1/tasks"] {
        for kind in ["count", "key"] {
            let before = mcp.count("tools/call");
            for number in 0..5 {
                let mut body = to_be_stored(&mcp, &format!("{kind} {number} at {path}"));
                if path == "/v1/tasks" {
                    body.as_object_mut().unwrap().remove("store");
                }
                let key = format!("{path}{number}");
                let headers = match kind {
                    "key" => [(COUNT, "0"), ("idempotency-key", key.as_str())],
                    _ => [(COUNT, "1"), ("accept", "application/json")],
                };
                // The second one comes before the run of the first is in the store.
                let (first, again) = tokio::join!(
                    gateway.client.post(path, &headers, &body),
                    gateway.client.post(path, &headers, &body)
                );
                assert!(first.status < 300 && again.status < 300, "{} {}", first.text(), again.text());
                assert_eq!(first.json()["id"], again.json()["id"], "{kind} at {path}");
                if path == "/v1/tasks" {
                    let id = first.json()["id"].as_str().unwrap().to_owned();
                    assert_eq!(gateway.client.get(&format!("/v1/runs/{id}/events")).await.status, 200);
                }
            }
            assert_eq!(mcp.count("tools/call") - before, 5, "{kind} at {path}");
        }
    }
}

#[tokio::test]
async fn an_idempotency_key_of_a_stored_completion_is_not_taken_for_another_request() {
    let (provider, mcp) = (well(false).await, server().await);
    let gateway = Gateway::with(&provider).await;
    let key = [("idempotency-key", "one")];
    let one = post(&gateway, &key, &to_be_stored(&mcp, "one")).await;
    assert_eq!(one.status, 200, "{}", one.text());
    let two = post(&gateway, &key, &to_be_stored(&mcp, "two")).await;
    assert_eq!(
        (two.status, &two.json()["error"]["code"]),
        (409, &json!("idempotency_key_reused")),
        "{}",
        two.text()
    );
    let again = post(&gateway, &key, &to_be_stored(&mcp, "one")).await;
    assert_eq!((&again.json()["id"], mcp.count("tools/call")), (&one.json()["id"], 1));
}

#[tokio::test]
async fn the_same_request_of_another_client_does_not_take_a_retry_from_its_run() {
    let gate = Gate::new();
    let tool = FakeTool::text("t", "found").behind(&gate);
    let mcp = FakeMcp::start(vec![tool]).await;
    let calls_once = std::sync::atomic::AtomicUsize::new(0);
    let provider = FakeProvider::answering(move |request| {
        let body = request.json();
        let has_result = body["messages"].as_array().unwrap().iter().any(|message| message["role"] == "tool");
        // The other client's run calls nothing.
        let is_first = calls_once.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
        if is_first && !has_result { calls(&[("call_1", "s_t", json!({}))]) } else { text("the end") }
    })
    .await;
    let gateway = Gateway::with(&provider).await;
    let body = ask(&[mcp.entry("s")]);
    let client = connect(&gateway, FIRST[0], &body).await;
    mcp.until_calls(1).await;
    drop(client);
    let other = post(&gateway, &FIRST, &body).await;
    assert_eq!((other.status, other.content().as_str()), (200, "the end"));
    let retry = tokio::spawn({
        let (client, body) = (gateway.client.clone(), body.clone());
        async move { client.post(PATH, &AGAIN, &body).await }
    });
    gate.open();
    let retry = retry.await.unwrap();
    assert_eq!(retry.status, 200, "{}", retry.text());
    assert_ne!(retry.json()["id"], other.json()["id"], "it is the first one's run");
    assert_eq!(retry.json()["toolgate"]["tool_calls"].as_array().unwrap().len(), 1);
    assert_eq!(mcp.count("tools/call"), 1, "called once");
}
