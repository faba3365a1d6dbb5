//! Bodies that are parked: sent a byte now and then, by any number of keys that cost nothing.

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::wire::{sent, until_end};
use crate::runs::outside::{SHOP, hosted};
use crate::support::{FakeProvider, Gateway, PATIENCE, ask, text};

const MIB: usize = 1 << 20;

/// The head of a request with a body of this length.
fn head(gateway: &Gateway, path: &str, key: &str, from: Option<&str>, length: usize) -> String {
    let from = from.map(|from| format!("x-forwarded-for: {from}\r\n")).unwrap_or_default();
    format!(
        "POST {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {key}\r\n{from}\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n",
        gateway.address
    )
}

/// A connection on which a part of a body was sent.
async fn parked(gateway: &Gateway, key: &str, from: Option<&str>, part: usize, length: usize) -> TcpStream {
    let head = head(gateway, "/v1/chat/completions", key, from, length);
    let mut connection = sent(gateway.address, head.as_bytes()).await;
    connection.write_all(&vec![b' '; part]).await.unwrap();
    connection
}

/// Waits until this is true of the bytes that runs and bodies hold.
async fn until_held(gateway: &Gateway, is_so: impl Fn(usize) -> bool) {
    let waiting = async {
        loop {
            let metrics = gateway.client.get("/metrics").await.text();
            let line = metrics.lines().find_map(|line| line.strip_prefix("toolgate_memory_reserved_bytes "));
            if is_so(line.expect("the gauge is there").trim().parse().expect("a number")) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the gauge comes to what is waited for");
}

/// A gateway for strangers, too.
async fn open_to_strangers(change: impl FnOnce(&mut toolgate::config::Settings)) -> Gateway {
    let provider = FakeProvider::answering(|_| text("hi")).await;
    hosted(&provider, |settings| {
        settings.pass_through.enabled = Some(true);
        change(settings);
    })
    .await
}

#[tokio::test]
async fn a_body_that_trickles_has_an_end_on_every_endpoint() {
    let gateway = open_to_strangers(|settings| settings.limits.body_seconds = 1).await;
    let paths = [
        "/v1/chat/completions",
        "/v1/embeddings",
        "/v1/tasks",
        "/v1/connections",
        "/v1/connections/check",
        "/api.example.com/v1/chat/completions",
        "/api.example.com/v1/files",
    ];
    let gateway = &gateway;
    let trickle = |path: &'static str| async move {
        let key = if path.starts_with("/v1/") { SHOP } else { "sk-made-up" };
        let mut connection = sent(gateway.address, head(gateway, path, key, None, 100_000).as_bytes()).await;
        connection.write_all(b"{\"model\":").await.unwrap();
        let answer = until_end(connection).await;
        assert_eq!((answer.status(), answer.says_close()), (408, true), "{path}: {answer:?}");
        assert!(answer.0.contains("body_too_slow"), "{path}");
    };
    futures_util::future::join_all(paths.into_iter().map(trickle)).await;
}

#[tokio::test]
async fn parked_bodies_hold_no_more_than_the_budget_and_small_requests_go_on() {
    let gateway = open_to_strangers(|settings| {
        settings.limits.memory_bytes = 8 * MIB;
        settings.limits.body_bytes = 4 * MIB;
    })
    .await;
    let mut held = Vec::new();
    for key in ["sk-1", "sk-2", "sk-3"] {
        held.push(parked(&gateway, key, None, 3 * MIB / 2, 4 * MIB).await);
    }
    until_held(&gateway, |bytes| bytes > 4 * MIB).await;
    // The next one waits for room, and is told to come back later.
    let refused = parked(&gateway, "sk-4", None, 2 * MIB, 4 * MIB).await;
    let question = ask(&[]);
    let (refused, small) = tokio::join!(
        until_end(refused),
        gateway.client.post("/v1/chat/completions", &[("authorization", "Bearer sk-5")], &question)
    );
    assert_eq!(small.status, 200, "{}", small.text());
    assert_eq!(refused.status(), 503, "{refused:?}");
    assert!(refused.head().to_lowercase().contains("\r\nretry-after: "), "{refused:?}");
    assert!(refused.0.contains("memory_exhausted") && refused.says_close());
    drop(held);
    until_held(&gateway, |bytes| bytes == 0).await;
}

#[tokio::test]
async fn a_body_that_never_fits_is_refused_for_good() {
    let gateway = open_to_strangers(|settings| settings.limits.memory_bytes = 8 * MIB).await;
    let answer = until_end(parked(&gateway, SHOP, None, 6 * MIB, 20 * MIB).await).await;
    assert_eq!(answer.status(), 413, "{answer:?}");
    assert!(
        answer.0.contains("limits.memory_bytes") && !answer.0.to_lowercase().contains("retry-after"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn one_address_holds_no_more_than_its_share_however_many_keys_it_makes_up() {
    let gateway = open_to_strangers(|settings| settings.limits.body_bytes_per_address = MIB).await;
    let (one, other) = (Some("198.51.100.7"), Some("198.51.100.8"));
    let first = parked(&gateway, "sk-1", one, 700_000, 4 * MIB).await;
    until_held(&gateway, |bytes| bytes > 600_000).await;
    let refused = until_end(parked(&gateway, "sk-2", one, 700_000, 4 * MIB).await).await;
    assert_eq!(refused.status(), 429, "{refused:?}");
    let error: Value = serde_json::from_str(refused.0.rsplit("\r\n\r\n").next().unwrap()).unwrap();
    assert_eq!(error["error"]["code"], "limit_reached");
    assert_eq!(error["error"]["param"], "body_bytes_per_address");
    // Another address, and a key of the gateway's own, are none of its business.
    for (key, from) in [("sk-3", other), (SHOP, one)] {
        let mut body =
            json!({ "model": "m", "messages": [{ "role": "user", "content": "x".repeat(700_000) }] });
        body["user"] = "u".into();
        let authorization = format!("Bearer {key}");
        let headers = [("authorization", authorization.as_str()), ("x-forwarded-for", from.unwrap())];
        let answer = gateway.client.post("/v1/chat/completions", &headers, &body).await;
        assert_eq!(answer.status, 200, "{key} {}", answer.text());
    }
    drop(first);
    until_held(&gateway, |bytes| bytes == 0).await;
    let again = until_end_of_whole(&gateway, one.unwrap()).await;
    assert_eq!(again, 200, "what was let go is free again");
}

async fn until_end_of_whole(gateway: &Gateway, from: &str) -> u16 {
    let body = json!({ "model": "m", "messages": [{ "role": "user", "content": "x".repeat(700_000) }] });
    let headers = [("authorization", "Bearer sk-9"), ("x-forwarded-for", from)];
    gateway.client.post("/v1/chat/completions", &headers, &body).await.status
}

#[tokio::test]
async fn a_new_key_at_the_same_address_is_no_new_caller() {
    let gateway = open_to_strangers(|settings| settings.rate_limit.requests_per_minute_per_address = 5).await;
    let ask_as = async |key: &str, from: &str| {
        let authorization = format!("Bearer {key}");
        let headers = [("authorization", authorization.as_str()), ("x-forwarded-for", from)];
        gateway.client.post("/v1/chat/completions", &headers, &ask(&[])).await
    };
    for number in 0..5 {
        assert_eq!(ask_as(&format!("sk-{number}"), "198.51.100.7").await.status, 200);
    }
    let refused = ask_as("sk-another", "198.51.100.7").await;
    assert_eq!(refused.status, 429);
    assert!(refused.header("retry-after").is_some());
    // The same for every endpoint; other addresses and the gateway's own keys go on.
    let headers = [("authorization", "Bearer sk-yet-another"), ("x-forwarded-for", "198.51.100.7")];
    let relayed = gateway.client.post("/api.example.com/v1/files", &headers, &json!({})).await;
    assert_eq!(relayed.status, 429);
    assert_eq!(ask_as("sk-another", "198.51.100.8").await.status, 200);
    assert_eq!(ask_as(SHOP, "198.51.100.7").await.status, 200);
}
