//! What is kept, for whom and for how long; cancelling and deleting it; and asking for the same twice.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use toolgate::clock::Clock;

use super::outside::{RIVAL, SHOP, as_key, hosted};
use super::scene::{content, id_of, json_of, result, stored, task};
use super::watcher::{self, Watcher, named};
use crate::support::{
    Answer, Cluster, FakeMcp, FakeProvider, FakeTool, Gate, Gateway, Place, Reply, ask, calls, text,
    text_stream, whole, with,
};

async fn cancel(gateway: &Gateway, id: &str) -> Answer {
    gateway.client.post(&format!("/v1/runs/{id}/cancel"), &[], &json!({})).await
}

async fn delete(gateway: &Gateway, path: &str) -> Answer {
    whole(gateway.client.send("DELETE", path, &[], "").await).await
}

/// Rows of all tables of runs.
pub async fn rows(place: &Place) -> i64 {
    let store = place.store().await;
    let sql = "SELECT (SELECT COUNT(*) FROM runs) + (SELECT COUNT(*) FROM run_events)
        + (SELECT COUNT(*) FROM run_keys) AS number";
    let row = store.row(sql, Vec::new()).await.unwrap().unwrap();
    store.close().await;
    row.int("number").unwrap()
}

/// Whether `word` is anywhere in the files of a place. Only where the database is one.
pub fn is_on_disk(place: &Place, word: &str) -> bool {
    let files = std::fs::read_dir(place.folder()).unwrap().flatten().map(|entry| entry.path());
    let has = |bytes: Vec<u8>| bytes.windows(word.len()).any(|window| window == word.as_bytes());
    files.filter(|path| path.is_file()).any(|path| std::fs::read(path).is_ok_and(has))
}

#[tokio::test]
async fn a_day_later_a_task_that_is_not_stored_is_gone_everywhere_and_a_stored_one_is_not() {
    let place = Place::new().await;
    let provider = FakeProvider::answering(|_| text("the canary sings")).await;
    let clock = Clock::fixed(1_800_000_000_000);
    let gateway = Gateway::at(&clock, &provider, |settings| place.give_to(settings)).await;
    let unstored = task(&gateway, &ask(&[])).await;
    let kept = task(&gateway, &stored(ask(&[]))).await;
    assert_eq!(result(&gateway.client, &unstored).await["expires_at"], 1_800_000_000 + 24 * 3600);
    assert_eq!(result(&gateway.client, &kept).await["expires_at"], Value::Null);
    clock.advance(Duration::from_secs(24 * 3600 - 1));
    assert_eq!(gateway.client.get(&format!("/{unstored}.md")).await.status, 200);
    clock.advance(Duration::from_secs(1));
    for path in [
        format!("/{unstored}"),
        format!("/{unstored}.md"),
        format!("/{unstored}.json"),
        format!("/v1/runs/{unstored}"),
        format!("/v1/runs/{unstored}/events"),
    ] {
        assert_eq!(gateway.client.get(&path).await.status, 404, "{path}");
    }
    assert_eq!(content(&json_of(&gateway.client, &kept).await), "the canary sings");
    assert_eq!(delete(&gateway, &format!("/v1/runs/{kept}")).await.status, 200);
    let forgetting = async {
        while rows(&place).await > 0 || (!place.is_shared() && is_on_disk(&place, "canary sings")) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::support::PATIENCE, forgetting).await.expect("not a byte is left");
}

#[tokio::test]
async fn a_deleted_run_is_gone_from_everywhere_and_so_are_its_bytes() {
    let place = Place::new().await;
    let mcp = FakeMcp::start(vec![FakeTool::text("t", "canary of the tool")]).await;
    let provider =
        super::scene::calling(|| calls(&[("a", "s_t", json!({}))]), || text("canary of the model")).await;
    let gateway = Gateway::configured(&provider, |settings| place.give_to(settings)).await;
    let question = json!({ "messages": [{ "role": "user", "content": "canary of the prompt" }],
        "metadata": { "of": "canary" }, "store": true });
    let id = id_of(&gateway.client.chat(&with(ask(&[mcp.entry("s")]), question)).await);
    assert!(rows(&place).await > 0);
    let gone = delete(&gateway, &format!("/v1/chat/completions/{id}")).await;
    assert_eq!(gone.json(), json!({ "object": "chat.completion.deleted", "id": id, "deleted": true }));
    for path in [
        format!("/{id}"),
        format!("/{id}.json"),
        format!("/v1/runs/{id}"),
        format!("/v1/runs/{id}/events"),
        format!("/v1/chat/completions/{id}"),
        format!("/v1/chat/completions/{id}/messages"),
    ] {
        assert_eq!(gateway.client.get(&path).await.status, 404, "{path}");
    }
    assert_eq!(delete(&gateway, &format!("/v1/runs/{id}")).await.status, 404);
    assert_eq!(rows(&place).await, 0);
    assert!(place.is_shared() || !is_on_disk(&place, "canary of"));
    let list = gateway.client.get("/v1/chat/completions").await.json();
    assert_eq!(list["data"], json!([]));
}

#[tokio::test]
async fn a_run_that_is_deleted_while_it_goes_on_ends_and_is_gone() {
    let place = Place::new().await;
    let provider = FakeProvider::answering(|_| Reply::Silence).await;
    let gateway = Gateway::configured(&provider, |settings| place.give_to(settings)).await;
    let id = task(&gateway, &ask(&[])).await;
    provider.peer.until_requests(1).await;
    let watcher = Watcher::open(&gateway.client, &id, None).await.unwrap();
    assert_eq!(delete(&gateway, &format!("/v1/runs/{id}")).await.status, 200);
    provider.peer.until_abandoned(1).await;
    assert!(watcher.rest().await.last().is_none_or(|last| last.data["reason"] == "cancelled"));
    assert_eq!(gateway.client.get(&format!("/v1/runs/{id}")).await.status, 404);
    assert_eq!(rows(&place).await, 0);
}

#[tokio::test]
async fn a_cancelled_run_stops_what_it_does_says_so_and_stays_so() {
    let gate = Gate::new();
    let mcp = FakeMcp::start(vec![FakeTool::text("t", "x").behind(&gate)]).await;
    let provider = super::scene::calling(|| calls(&[("a", "s_t", json!({}))]), || text("never")).await;
    let gateway = Gateway::with(&provider).await;
    let id = task(&gateway, &ask(&[mcp.entry("s")])).await;
    mcp.until_calls(1).await;
    let answer = cancel(&gateway, &id).await;
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("cancelled")), "{}", answer.text());
    mcp.peer.until_abandoned(1).await;
    let seen = watcher::all(&gateway.client, &id).await;
    assert_eq!(named(&seen, "notice")[0]["code"], "cancelled");
    let again = cancel(&gateway, &id).await;
    assert_eq!((again.status, &again.json()["status"]), (200, &json!("cancelled")), "twice is no harm");
    assert_eq!(watcher::all(&gateway.client, &id).await, seen);
    assert_eq!(provider.peer.requests().len(), 1);
    let done = id_of(&gateway.client.chat(&stored(ask(&[]))).await);
    let late = cancel(&gateway, &done).await;
    assert_eq!(
        (late.status, &late.json()["status"]),
        (200, &json!("completed")),
        "what has ended stays as it is"
    );
    assert_eq!(cancel(&gateway, "run_00000000000000000000000000").await.status, 404);
}

#[tokio::test]
async fn a_stream_that_somebody_cancels_ends_as_every_stream_does() {
    let gate = Gate::new();
    let provider = FakeProvider::answering(move |_| {
        let mut pieces: Vec<crate::support::Piece> = vec![crate::support::provider::event(
            &crate::support::provider::delta(&json!({ "role": "assistant", "content": "so far" })),
        )];
        pieces.push(crate::support::Piece::Wait(gate.clone()));
        Reply::stream(pieces)
    })
    .await;
    let gateway = Gateway::with(&provider).await;
    let mut stream = gateway.client.stream(&stored(ask(&[]))).await;
    let id = stream.headers["x-run-id"].to_str().unwrap().to_owned();
    stream.until(|chunk| chunk["choices"][0]["delta"]["content"] == "so far").await;
    assert_eq!(cancel(&gateway, &id).await.status, 200);
    let stream = stream.read_to_end().await;
    assert_eq!(stream.finish_reason(), Some("stop"));
    assert!(stream.content().contains("cancelled"), "{}", stream.content());
    provider.peer.until_abandoned(1).await;
}

async fn keyed(gateway: &Gateway, key: &str, body: &Value) -> Answer {
    gateway.client.post("/v1/tasks", &[("idempotency-key", key)], body).await
}

#[tokio::test]
async fn one_idempotency_key_is_one_task_and_another_request_with_it_is_refused() {
    let provider = FakeProvider::answering(|_| text("hello")).await;
    let gateway = Gateway::with(&provider).await;
    let body = ask(&[]);
    let first = keyed(&gateway, "key", &body).await;
    assert_eq!(first.status, 202, "{}", first.text());
    let id = first.json()["id"].as_str().unwrap().to_owned();
    result(&gateway.client, &id).await;
    let again = keyed(&gateway, "key", &body).await;
    assert_eq!((again.status, again.json()["id"].as_str().unwrap()), (202, id.as_str()));
    let other = keyed(&gateway, "key", &with(ask(&[]), json!({ "temperature": 1 }))).await;
    assert_eq!((other.status, &other.json()["error"]["code"]), (409, &json!("idempotency_key_reused")));
    assert_eq!(provider.peer.requests().len(), 1);
    assert_ne!(keyed(&gateway, "other", &body).await.json()["id"], *id);
    for wrong in ["", " ", &"k".repeat(256)] {
        let answer = keyed(&gateway, wrong, &body).await;
        assert_eq!(
            (answer.status, &answer.json()["error"]["param"]),
            (400, &json!("Idempotency-Key")),
            "{wrong}"
        );
    }
    let twice = [("idempotency-key", "a"), ("idempotency-key", "b")];
    assert_eq!(gateway.client.post("/v1/tasks", &twice, &body).await.status, 400);
}

#[tokio::test]
async fn one_idempotency_key_at_once_from_everywhere_is_one_task() {
    let provider = FakeProvider::answering(|_| text("hello")).await;
    let gateway = Gateway::with(&provider).await;
    let asked: Vec<_> = (0..20)
        .map(|_| {
            let client = gateway.client.clone();
            tokio::spawn(
                async move { client.post("/v1/tasks", &[("idempotency-key", "k")], &ask(&[])).await },
            )
        })
        .collect();
    let mut ids = std::collections::HashSet::new();
    for one in asked {
        let answer = one.await.unwrap();
        assert_eq!(answer.status, 202, "{}", answer.text());
        ids.insert(answer.json()["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids.len(), 1);
    result(&gateway.client, ids.iter().next().unwrap()).await;
    assert_eq!(provider.peer.requests().len(), 1);
}

#[tokio::test]
async fn an_idempotency_key_is_its_projects() {
    let provider = FakeProvider::answering(|_| text("hello")).await;
    let gateway = hosted(&provider, |_| {}).await;
    let mut ids = Vec::new();
    for key in [SHOP, RIVAL] {
        let headers = as_key(key);
        let mut headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        headers.push(("idempotency-key", "k"));
        let answer = gateway.client.post("/v1/tasks", &headers, &ask(&[])).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        ids.push(answer.json()["id"].clone());
    }
    assert_ne!(ids[0], ids[1]);
}

fn cached(body: Value) -> Value {
    with(body, json!({ "toolgate": { "cache_seconds": 60 } }))
}

#[tokio::test]
async fn a_hundred_who_ask_the_same_at_once_cost_one_call_of_the_provider() {
    let gate = Gate::new();
    let opened = gate.clone();
    let provider = FakeProvider::answering(move |_| text_stream("the same").after(&opened)).await;
    let gateway = Gateway::with(&provider).await;
    let asked: Vec<_> = (0..100)
        .map(|_| {
            let client = gateway.client.clone();
            tokio::spawn(async move {
                let body = with(cached(ask(&[])), json!({ "stream": true }));
                client.chat(&body).await.text()
            })
        })
        .collect();
    provider.peer.until_requests(1).await;
    gate.open();
    for one in asked {
        let text = one.await.unwrap();
        assert!(
            text.contains("the ") && text.contains("same") && text.ends_with("data: [DONE]\n\n"),
            "{text}"
        );
    }
    assert_eq!(provider.peer.requests().len(), 1);
    // Somebody else, or another question, is not answered with it.
    let other = with(cached(ask(&[])), json!({ "stream": true, "user": "ann" }));
    gateway.client.chat(&other).await;
    assert_eq!(provider.peer.requests().len(), 2);
}

#[tokio::test]
async fn an_error_is_never_kept_for_the_next_who_asks() {
    let asked = AtomicUsize::new(0);
    let provider = FakeProvider::answering(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        // Every even request fails.
        number if number % 2 == 0 => Reply::with_headers(400, &[], r#"{"error":{"message":"not now"}}"#),
        _ => text("works"),
    })
    .await;
    let gateway = Gateway::with(&provider).await;
    for body in [cached(ask(&[])), stored(ask(&[])), stored(with(cached(ask(&[])), json!({ "user": "ann" })))]
    {
        let failed = gateway.client.chat(&body).await;
        assert_eq!((failed.status, failed.text().contains("not now")), (400, true), "{}", failed.text());
        let result = failed.header("x-result-url").expect("it is kept, and says where").to_owned();
        let kept = gateway.client.get(&format!("{}.json", &result[result.rfind('/').unwrap()..])).await;
        assert_eq!((kept.status, kept.json()["status"].as_str()), (200, Some("failed")), "{}", kept.text());
        let works = gateway.client.chat(&body).await;
        assert_eq!((works.status, works.content()), (200, "works".to_owned()), "{}", works.text());
    }
    let again = gateway.client.chat(&cached(ask(&[]))).await;
    assert_eq!(again.content(), "works", "that is kept");
    assert_eq!(provider.peer.requests().len(), 6);
}

#[tokio::test]
async fn what_is_cached_is_asked_for_anew_when_its_time_is_over() {
    let asked = AtomicUsize::new(0);
    let provider = FakeProvider::answering(move |_| {
        text(["first", "second", "third"][asked.fetch_add(1, Ordering::SeqCst)])
    })
    .await;
    let clock = Clock::fixed(1_800_000_000_000);
    let gateway = Gateway::at(&clock, &provider, |_| {}).await;
    for (seconds, expect, age) in
        [(0, "first", None), (59, "first", Some("59")), (1, "second", None), (30, "second", Some("30"))]
    {
        clock.advance(Duration::from_secs(seconds));
        let answer = gateway.client.chat(&cached(ask(&[]))).await;
        assert_eq!((answer.content().as_str(), answer.header("age")), (expect, age), "{seconds}");
    }
    let streamed = with(cached(ask(&[])), json!({ "stream": true }));
    assert_eq!(gateway.client.chat(&with(streamed, json!({ "user": "ann" }))).await.header("age"), None);
}

#[tokio::test]
async fn a_hundred_who_ask_the_same_at_two_processes_cost_one_call_of_the_provider() {
    let place = Place::new().await;
    if !place.is_shared() {
        return;
    }
    let gate = Gate::new();
    let opened = gate.clone();
    let provider = FakeProvider::answering(move |_| text("the same").after(&opened)).await;
    let here = Gateway::configured(&provider, |settings| place.give_to(settings)).await;
    let there = Gateway::configured(&provider, |settings| place.give_to(settings)).await;
    let asked: Vec<_> = (0..100)
        .map(|number| {
            let client = if number % 2 == 0 { here.client.clone() } else { there.client.clone() };
            tokio::spawn(async move { client.chat(&cached(ask(&[]))).await })
        })
        .collect();
    provider.peer.until_requests(1).await;
    gate.open();
    for one in asked {
        let answer = one.await.unwrap();
        assert_eq!((answer.status, answer.content()), (200, "the same".to_owned()), "{}", answer.text());
    }
    assert_eq!(provider.peer.requests().len(), 1);
}

#[tokio::test]
async fn a_run_outlives_a_database_that_is_away_for_a_while_and_no_new_one_begins_meanwhile() {
    if !Place::new().await.is_shared() {
        return;
    }
    let cluster = Cluster::start_new();
    let place = Place::at(cluster.url());
    let gates: Vec<Gate> = (0..3).map(|_| Gate::new()).collect();
    let provider = super::viewers::slowly(&gates).await;
    let gateway = Gateway::configured(&provider, |settings| place.give_to(settings)).await;
    let id = task(&gateway, &ask(&[])).await;
    let mut watcher = Watcher::open(&gateway.client, &id, None).await.unwrap();
    gates[0].open();
    let mut seen = watcher.until_that(|seen| seen.data["delta"]["content"] == "0 ").await;
    cluster.stop();
    gates[1].open();
    let (client, (one, other)) = (&gateway.client, (ask(&[]), stored(ask(&[]))));
    let (one, other) =
        tokio::join!(client.post("/v1/tasks", &[], &one), client.post("/v1/chat/completions", &[], &other));
    for refused in [one, other] {
        assert_eq!((refused.status, &refused.json()["error"]["code"]), (503, &json!("store_unavailable")));
        assert!(refused.header("retry-after").is_some());
    }
    cluster.start();
    gates[2].open();
    seen.extend(watcher.rest().await);
    watcher::check(&seen);
    assert_eq!(watcher::text_of(&seen), "0 1 2 ");
    assert_eq!(content(&result(&gateway.client, &id).await), "0 1 2 ");
    let list = gateway.client.get("/v1/chat/completions").await.json();
    assert_eq!(list["data"], json!([]), "what was refused is in no list");
}
