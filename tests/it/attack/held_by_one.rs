//! One principal that holds as much as it can: open answers, waiting requests, runs. What it may hold ends with 429, and
//! others go on.

use std::time::Duration;

use serde_json::{Value, json};
use toolgate::config::{EgressAllow, Limits, Settings};

use crate::runs::mcp;
use crate::runs::outside::{RIVAL, SHOP, as_key, hosted};
use crate::support::{
    Answer, FakeProvider, FakeTool, Gate, Gateway, PATIENCE, Piece, Place, Protected, Reply, Stream, ask,
    text, whole, with,
};

/// A gateway whose principals may hold two of everything, projects forty.
async fn narrow(provider: &FakeProvider, change: impl FnOnce(&mut Settings)) -> Gateway {
    hosted(provider, |settings| {
        settings.limits = Limits {
            streams_per_principal: 2,
            waiting_per_principal: 2,
            runs_per_principal: 2,
            ..settings.limits.clone()
        };
        settings.pass_through.enabled = Some(true);
        settings.egress.allow.push(EgressAllow {
            host: Some("127.0.0.1".into()),
            cidr: Some("127.0.0.0/8".parse().unwrap()),
            ports: Vec::new(),
        });
        change(settings);
    })
    .await
}

/// A provider that begins its streams and goes on when the gate is open.
async fn holding(gate: &Gate) -> FakeProvider {
    let gate = gate.clone();
    FakeProvider::answering(move |request| {
        let chunk = r#"data: {"choices":[{"index":0,"delta":{"content":"a"}}]}"#.to_owned() + "\n\n";
        let end = r#"data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#.to_owned()
            + "\n\ndata: [DONE]\n\n";
        match request.json()["stream"] == true {
            true => Reply::stream(vec![
                Piece::from(chunk.as_str()),
                Piece::Wait(gate.clone()),
                Piece::from(end.as_str()),
            ]),
            false => text("a").after(&gate),
        }
    })
    .await
}

fn streamed(user: &str, more: Value) -> Value {
    with(with(ask(&[]), json!({ "stream": true, "user": user })), more)
}

async fn post(gateway: &Gateway, headers: &[(&'static str, String)], path: &str, body: &Value) -> Answer {
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    gateway.client.post(path, &headers, body).await
}

async fn open(gateway: &Gateway, headers: &[(&'static str, String)], body: &Value) -> Stream {
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    gateway.client.stream_with(&headers, body).await
}

fn assert_reached(answer: &Answer, bound: &str) {
    assert_eq!(answer.status, 429, "{}", answer.text());
    let error = &answer.json()["error"];
    assert_eq!((error["code"].as_str(), error["param"].as_str()), (Some("limit_reached"), Some(bound)));
    assert_eq!(error["type"], "rate_limit_error");
    assert!(answer.header("retry-after").is_some());
}

/// Until a place that was given back is there: the server notices a client that left in its own time.
async fn until_free(gateway: &Gateway, headers: &[(&'static str, String)], body: &Value) {
    let mut all = vec![("content-type", "application/json")];
    all.extend(headers.iter().map(|(name, value)| (*name, value.as_str())));
    let wait = async {
        // Only the head: the answer may go on for long.
        while gateway.client.send("POST", "/v1/chat/completions", &all, body.to_string()).await.status()
            == 429
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the place is given back");
}

#[tokio::test]
async fn open_answers_are_bounded_for_each_user_whether_relayed_or_run_and_given_back_when_clients_leave() {
    for options in [json!({}), json!({ "toolgate": { "max_turns": 1 } })] {
        let gate = Gate::new();
        let provider = holding(&gate).await;
        let gateway = narrow(&provider, |settings| settings.limits.runs_per_principal = 0).await;
        let shop = as_key(SHOP);
        let ann = streamed("ann", options.clone());
        let mut held = Vec::new();
        for _ in 0..2 {
            let mut stream = open(&gateway, &shop, &ann).await;
            stream.next().await.expect("it has begun");
            held.push(stream);
        }
        let asked = provider.peer.requests().len();
        assert_reached(&post(&gateway, &shop, "/v1/chat/completions", &ann).await, "streams_per_principal");
        let plain = with(ask(&[]), json!({ "user": "ann", "input": "x" }));
        assert_reached(&post(&gateway, &shop, "/v1/embeddings", &plain).await, "streams_per_principal");
        assert_eq!(provider.peer.requests().len(), asked, "nothing was sent on");
        let mut others = open(&gateway, &shop, &streamed("bob", options.clone())).await;
        others.next().await.expect("another user has places of its own");
        let mut rival = open(&gateway, &as_key(RIVAL), &ann).await;
        rival.next().await.expect("and so has the same user of another project");
        held.pop();
        until_free(&gateway, &shop, &ann).await;
        gate.open();
    }
}

#[tokio::test]
async fn strangers_share_the_places_of_their_address_whatever_keys_they_make_up() {
    let gate = Gate::new();
    let provider = holding(&gate).await;
    let gateway = narrow(&provider, |_| {}).await;
    let from = |place: &str, key: &str| {
        vec![("authorization", format!("Bearer sk-{key}")), ("x-forwarded-for", place.to_owned())]
    };
    let body = with(ask(&[]), json!({ "stream": true }));
    let mut held = Vec::new();
    for key in ["one", "two"] {
        let mut stream = open(&gateway, &from("203.0.113.7", key), &body).await;
        stream.next().await.expect("it has begun");
        held.push(stream);
    }
    let refused = post(&gateway, &from("203.0.113.7", "three"), "/v1/chat/completions", &body).await;
    assert_reached(&refused, "streams_per_principal");
    assert!(refused.text().contains("your network address"), "{}", refused.text());
    let host = format!("/{}/v1/chat/completions", provider.peer.address);
    assert_reached(
        &post(&gateway, &from("203.0.113.7", "four"), &host, &body).await,
        "streams_per_principal",
    );
    let relayed = format!("/{}/v1/anything", provider.peer.address);
    assert_reached(
        &post(&gateway, &from("203.0.113.7", "five"), &relayed, &body).await,
        "streams_per_principal",
    );
    let mut other = open(&gateway, &from("198.51.100.9", "six"), &body).await;
    other.next().await.expect("another address is not held up");
    gate.open();
}

#[tokio::test]
async fn runs_under_way_are_bounded_at_every_edge_and_end_with_their_runs() {
    let gate = Gate::new();
    let provider = holding(&gate).await;
    let gateway = narrow(&provider, |settings| settings.limits.streams_per_principal = 0).await;
    let shop = as_key(SHOP);
    let task = with(ask(&[]), json!({ "user": "ann" }));
    let mut id = String::new();
    for _ in 0..2 {
        let begun = post(&gateway, &shop, "/v1/tasks", &task).await;
        assert_eq!(begun.status, 202);
        id = begun.json()["id"].as_str().unwrap().to_owned();
    }
    provider.peer.until_requests(2).await;
    for (path, body) in [
        ("/v1/tasks", task.clone()),
        ("/v1/chat/completions", with(task.clone(), json!({ "store": true }))),
        ("/v1/chat/completions", with(task.clone(), json!({ "toolgate": { "max_turns": 1 } }))),
        (
            "/v1/chat/completions",
            with(task.clone(), json!({ "stream": true, "toolgate": { "max_turns": 1 } })),
        ),
    ] {
        assert_reached(&post(&gateway, &shop, path, &body).await, "runs_per_principal");
    }
    let (key, ann) = (shop[0].1.clone(), "ann");
    let who = [("authorization", key.as_str()), ("x-toolgate-user", ann)];
    let called = mcp::said(&mcp::modern(&gateway, &id, &who, "tools/call", mcp::asking("and then?")).await);
    assert!(called.1 && called.0.contains("too many runs"), "a run as an MCP server: {called:?}");
    assert_eq!(provider.peer.requests().len(), 2, "no model was asked");
    gate.open();
    until_free(&gateway, &shop, &with(task, json!({ "toolgate": { "max_turns": 1 } }))).await;
}

#[tokio::test]
async fn requests_that_wait_for_a_login_are_bounded_and_a_task_says_so_in_its_end() {
    let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
    let provider = FakeProvider::answering(|_| text("never")).await;
    let gateway = narrow(&provider, |settings| {
        settings.limits.runs_per_principal = 0;
        settings.limits.streams_per_principal = 0;
    })
    .await;
    let shop = as_key(SHOP);
    let waiting =
        json!({ "user": "ann", "stream": true, "toolgate": { "on_auth": "wait", "wait_seconds": 300 } });
    let body = with(ask(&[mcp.entry("s")]), waiting);
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = open(&gateway, &shop, &body).await;
        stream.until(|chunk| chunk["toolgate"]["event"] == "waiting").await;
        held.push(stream);
    }
    assert_reached(&post(&gateway, &shop, "/v1/chat/completions", &body).await, "waiting_per_principal");
    let whole_answer = with(body.clone(), json!({ "stream": false }));
    assert_reached(
        &post(&gateway, &shop, "/v1/chat/completions", &whole_answer).await,
        "waiting_per_principal",
    );
    let task = with(ask(&[mcp.entry("s")]), json!({ "user": "ann" }));
    let started = post(&gateway, &shop, "/v1/tasks", &task).await;
    assert_eq!(started.status, 202, "{}", started.text());
    let id = started.json()["id"].as_str().unwrap().to_owned();
    // The events end with the run.
    assert_eq!(gateway.client.get(&format!("/v1/runs/{id}/events")).await.status, 200);
    let ended = gateway.client.get(&format!("/v1/runs/{id}")).await.json();
    assert_eq!(ended["status"], "failed", "{ended}");
    assert_eq!(ended["error"]["param"], "waiting_per_principal", "{ended}");
    let bob = with(body.clone(), json!({ "user": "bob" }));
    open(&gateway, &shop, &bob).await.until(|chunk| chunk["toolgate"]["event"] == "waiting").await;
    held.pop();
    until_free(&gateway, &shop, &body).await;
}

#[tokio::test]
async fn readers_of_one_run_hold_places_too() {
    let gate = Gate::new();
    let provider = holding(&gate).await;
    let gateway = narrow(&provider, |settings| settings.limits.runs_per_principal = 0).await;
    let started = post(&gateway, &as_key(SHOP), "/v1/tasks", &with(ask(&[]), json!({ "user": "ann" }))).await;
    let id = started.json()["id"].as_str().unwrap().to_owned();
    let place = [("x-forwarded-for", "203.0.113.7")];
    let reading = async |path: &str, headers: &[(&str, &str)]| {
        gateway.client.send("GET", path, headers, String::new()).await
    };
    let events = format!("/v1/runs/{id}/events");
    let held = [reading(&events, &place).await, reading(&format!("/{id}/live"), &place).await];
    assert!(held.iter().all(|answer| answer.status() == 200));
    assert_reached(&whole(reading(&events, &place).await).await, "streams_per_principal");
    let result = [("x-forwarded-for", "203.0.113.7"), ("accept", "text/event-stream")];
    assert_reached(&whole(reading(&format!("/{id}"), &result).await).await, "streams_per_principal");
    let page = whole(reading(&format!("/{id}/live"), &place).await).await;
    assert_eq!(page.status, 429);
    assert!(page.text().contains("too many open answers"), "{}", page.text());
    assert_eq!(reading(&events, &[("x-forwarded-for", "198.51.100.9")]).await.status(), 200);
    gate.open();
}

#[tokio::test]
async fn a_relayed_stream_that_falls_silent_ends_with_an_error_event_where_the_operator_wants_it() {
    let gate = Gate::new();
    let provider = holding(&gate).await;
    let gateway = narrow(&provider, |settings| settings.upstream.relay_idle_seconds = 1).await;
    let shop = as_key(SHOP);
    let answer = tokio::time::timeout(
        Duration::from_secs(10),
        post(&gateway, &shop, "/v1/chat/completions", &streamed("ann", json!({}))),
    )
    .await
    .expect("the silence ends");
    assert_eq!(answer.status, 200);
    let last = answer.text().trim_end().rsplit("data: ").next().unwrap().to_owned();
    let last: Value = serde_json::from_str(&last).unwrap_or_else(|_| panic!("{}", answer.text()));
    assert_eq!(last["error"]["code"], "provider_stream_error", "{last}");
    assert!(!answer.text().contains("[DONE]"));
    provider.peer.until_abandoned(1).await;
}

/// Headers of the shop with an `Idempotency-Key`.
fn repeating(key: &str) -> Vec<(&'static str, String)> {
    [as_key(SHOP), vec![("idempotency-key", key.to_owned())]].concat()
}

#[tokio::test]
async fn stored_runs_are_bounded_over_all_instances_and_room_is_there_again_when_one_is_deleted() {
    let provider = FakeProvider::answering(|_| text("a")).await;
    let place = Place::new().await;
    let two_runs = async || {
        narrow(&provider, |settings| {
            settings.limits.stored_runs_per_principal = 2;
            settings.limits.runs_per_principal = 0;
            settings.limits.streams_per_principal = 0;
            place.give_to(settings);
        })
        .await
    };
    let mut gateways = vec![two_runs().await];
    if place.is_shared() {
        gateways.push(two_runs().await);
    }
    let (first, last) = (&gateways[0], gateways.last().unwrap());
    let shop = as_key(SHOP);
    let ann = with(ask(&[]), json!({ "user": "ann", "store": true }));
    let kept = post(first, &shop, "/v1/chat/completions", &ann).await;
    assert_eq!(kept.status, 200, "{}", kept.text());
    let task = post(first, &repeating("once"), "/v1/tasks", &ann).await;
    assert_eq!(task.status, 202, "{}", task.text());
    let asked = provider.peer.requests().len();
    for (path, body) in [
        ("/v1/chat/completions", ann.clone()),
        ("/v1/chat/completions", with(ann.clone(), json!({ "stream": true }))),
        ("/v1/tasks", ann.clone()),
        ("/v1/tasks", with(ask(&[]), json!({ "user": "ann" }))),
        (
            "/v1/chat/completions",
            with(ask(&[]), json!({ "user": "ann", "toolgate": { "cache_seconds": 9 } })),
        ),
    ] {
        let refused = post(last, &shop, path, &body).await;
        assert_eq!(
            (refused.status, &refused.json()["error"]["code"]),
            (429, &json!("limit_reached")),
            "{path}"
        );
        assert_eq!(refused.json()["error"]["param"], "stored_runs_per_principal");
        assert!(refused.text().contains("delete some"), "{}", refused.text());
        assert!(refused.header("retry-after").is_none(), "time alone does not help");
        assert_eq!(refused.header("x-should-retry"), Some("false"));
    }
    let again = post(first, &repeating("once"), "/v1/tasks", &ann).await;
    assert_eq!((again.status, &again.json()["id"]), (202, &task.json()["id"]), "who repeats needs no room");
    let without = with(ask(&[]), json!({ "user": "ann" }));
    assert_eq!(post(last, &shop, "/v1/chat/completions", &without).await.status, 200, "nothing is stored");
    assert!(provider.peer.requests().len() <= asked + 2, "no refused run was carried out");
    for other in [with(ann.clone(), json!({ "user": "bob" })), with(ask(&[]), json!({ "store": true }))] {
        assert_eq!(post(last, &shop, "/v1/chat/completions", &other).await.status, 200);
    }
    let id = kept.json()["id"].as_str().unwrap().to_owned();
    let key = as_key(SHOP);
    let headers = [(key[0].0, key[0].1.as_str())];
    let deleted = whole(first.client.send("DELETE", &format!("/v1/runs/{id}"), &headers, "").await).await;
    assert_eq!(deleted.status, 200, "{}", deleted.text());
    let there = post(first, &shop, "/v1/chat/completions", &ann).await;
    assert_eq!(there.status, 200, "there is room at once where it was deleted: {}", there.text());
}

#[tokio::test]
async fn a_burst_gets_no_further_than_the_bound_and_bytes_are_bounded_too() {
    let provider = FakeProvider::answering(|request| {
        let length = if request.json()["max_tokens"] == 7 { 30_000 } else { 2000 };
        text(&"a".repeat(length))
    })
    .await;
    let gateway = narrow(&provider, |settings| {
        settings.limits.runs_per_principal = 0;
        settings.limits.streams_per_principal = 0;
        settings.limits.stored_runs_per_principal = 5;
        settings.limits.stored_bytes_per_principal = 20_000;
    })
    .await;
    let shop = as_key(SHOP);
    let ann = with(ask(&[]), json!({ "user": "ann", "store": true }));
    let burst = (0..30).map(|_| post(&gateway, &shop, "/v1/chat/completions", &ann));
    let answers = futures_util::future::join_all(burst).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 5);
    assert!(answers.iter().all(|answer| [200, 429].contains(&answer.status)));
    let large = json!({ "user": "bob", "messages": [{ "role": "user", "content": "x".repeat(15_000) }] });
    let large = with(ann, large);
    assert_eq!(post(&gateway, &shop, "/v1/chat/completions", &large).await.status, 200);
    let refused = post(&gateway, &shop, "/v1/chat/completions", &large).await;
    assert_eq!(refused.json()["error"]["param"], "stored_bytes_per_principal", "{}", refused.text());
    // What a run was answered counts as soon as it has ended.
    let long = with(ask(&[]), json!({ "user": "cleo", "store": true, "max_tokens": 7 }));
    assert_eq!(post(&gateway, &shop, "/v1/chat/completions", &long).await.status, 200);
    let refused = post(&gateway, &shop, "/v1/chat/completions", &long).await;
    assert_eq!(refused.json()["error"]["param"], "stored_bytes_per_principal", "{}", refused.text());
}

#[tokio::test]
async fn the_row_of_a_run_counts_every_byte_of_its_events_however_often_it_was_written() {
    let gate = Gate::new();
    let provider = holding(&gate).await;
    let place = Place::new().await;
    let gateway = narrow(&provider, |settings| place.give_to(settings)).await;
    let store = place.store().await;
    let number =
        async |sql: &'static str| store.row(sql, Vec::new()).await.unwrap().unwrap().int("number").unwrap();
    let started = post(&gateway, &as_key(SHOP), "/v1/tasks", &with(ask(&[]), json!({ "user": "ann" }))).await;
    let id = started.json()["id"].as_str().unwrap().to_owned();
    let written = async {
        while number("SELECT COUNT(*) AS number FROM run_events WHERE number > 0").await == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, written).await.expect("the first words are written");
    gate.open();
    assert_eq!(gateway.client.get(&format!("/v1/runs/{id}/events")).await.status, 200);
    let wrong = "SELECT bytes - length(metadata) - length(request) - length(state)
        - (SELECT SUM(length(events)) FROM run_events) AS number FROM runs";
    let wrong: &'static str =
        format!("SELECT CAST(number AS BIGINT) AS number FROM ({wrong}) AS difference").leak();
    // Two sequences that are put together lose the brackets between them.
    assert!((0..=64).contains(&number(wrong).await), "{}", number(wrong).await);
    store.close().await;
}

#[tokio::test]
async fn what_strangers_store_is_counted_by_their_address_and_takes_nothing_from_others() {
    let provider = FakeProvider::answering(|_| text("a")).await;
    let gateway = narrow(&provider, |settings| {
        settings.limits.stored_runs_per_principal = 2;
        settings.limits.runs_per_principal = 0;
        settings.limits.streams_per_principal = 0;
    })
    .await;
    let from = |place: &str, key: usize| {
        vec![("authorization", format!("Bearer sk-{key}")), ("x-forwarded-for", place.to_owned())]
    };
    let body = with(ask(&[]), json!({ "store": true }));
    for key in 0..2 {
        let kept = post(&gateway, &from("203.0.113.7", key), "/v1/chat/completions", &body).await;
        assert_eq!(kept.status, 200, "{}", kept.text());
    }
    let refused = post(&gateway, &from("203.0.113.7", 3), "/v1/chat/completions", &body).await;
    assert_eq!(
        (refused.status, &refused.json()["error"]["param"]),
        (429, &json!("stored_runs_per_principal"))
    );
    assert_eq!(post(&gateway, &from("203.0.113.8", 4), "/v1/chat/completions", &body).await.status, 200);
    assert_eq!(post(&gateway, &as_key(SHOP), "/v1/chat/completions", &body).await.status, 200);
}
