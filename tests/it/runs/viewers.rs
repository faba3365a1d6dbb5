//! Many watch one run, fast and slow, again and again, and from another process.

use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::scene::{json_of, stored, task};
use super::watcher::{self, Watcher, named, text_of};
use crate::support::provider::{delta, event, finish, usage};
use crate::support::{FakeProvider, Gate, Gateway, PATIENCE, Piece, Place, Reply, ask, text_stream};

/// A model that says numbers, each when its gate opens.
pub async fn slowly(gates: &[Gate]) -> FakeProvider {
    let gates = gates.to_vec();
    FakeProvider::answering(move |_| {
        let mut pieces = vec![event(&delta(&json!({ "role": "assistant", "content": "" })))];
        for (number, gate) in gates.iter().enumerate() {
            pieces.push(Piece::Wait(gate.clone()));
            pieces.push(event(&delta(&json!({ "content": format!("{number} ") }))));
        }
        pieces.extend([event(&finish("stop")), event(&usage()), "data: [DONE]\n\n".into()]);
        Reply::stream(pieces)
    })
    .await
}

fn numbers(count: usize) -> String {
    (0..count).map(|number| format!("{number} ")).collect()
}

#[tokio::test]
async fn a_thousand_watch_one_run_and_all_see_the_same() {
    let gates: Vec<Gate> = (0..3).map(|_| Gate::new()).collect();
    let provider = slowly(&gates).await;
    let gateway = Gateway::with(&provider).await;
    let id = task(&gateway, &ask(&[])).await;
    let mut watching = Vec::new();
    for place in 0..1000 {
        let watcher = Watcher::open(&gateway.client, &id, None).await.unwrap();
        watching.push(tokio::spawn(watcher.rest()));
        if place == 500 {
            gates[0].open();
        }
    }
    gates[1].open();
    gates[2].open();
    let mut first = None;
    for watcher in watching {
        let seen = watcher.await.unwrap();
        assert_eq!(first.get_or_insert_with(|| seen.clone()), &seen);
    }
    let seen = first.unwrap();
    watcher::check(&seen);
    assert_eq!(text_of(&seen), numbers(3));
    assert_eq!(provider.peer.requests().len(), 1);
}

#[tokio::test]
async fn who_reads_slowly_slows_nobody_and_misses_nothing() {
    const LARGE: usize = 400;
    let word = "x".repeat(20_000);
    let words: String = (0..LARGE).map(|_| format!("{word} ")).collect();
    let said = words.clone();
    let provider = FakeProvider::answering(move |_| text_stream(&said)).await;
    let gateway = Gateway::with(&provider).await;
    let id = task(&gateway, &ask(&[])).await;
    // It asks, and does not read. Its buffers hold a part of what is said.
    let mut slow = TcpStream::connect(gateway.address).await.unwrap();
    let request = format!(
        "GET /v1/runs/{id}/events HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
        gateway.address
    );
    slow.write_all(request.as_bytes()).await.unwrap();
    let fast = watcher::all(&gateway.client, &id).await;
    assert_eq!(text_of(&fast).len(), words.len());
    assert_eq!(json_of(&gateway.client, &id).await["status"], "completed");
    let mut late = Vec::new();
    slow.read_to_end(&mut late).await.unwrap();
    let late = String::from_utf8(late).unwrap();
    assert_eq!(late.matches(&word).count(), LARGE);
    assert!(late.contains("\nevent: finish\n"));
}

#[tokio::test]
async fn who_comes_back_fifty_times_sees_every_event_once() {
    let gates: Vec<Gate> = (0..60).map(|_| Gate::new()).collect();
    let provider = slowly(&gates).await;
    let gateway = Gateway::with(&provider).await;
    let id = task(&gateway, &ask(&[])).await;
    let (mut seen, mut opened, mut random) = (Vec::new(), 0, 20_261_121_u64);
    for _ in 0..50 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let more = usize::try_from(random >> 62).unwrap() + 1;
        let last = seen.last().map(|event: &watcher::Seen| event.number);
        let mut watcher = Watcher::open(&gateway.client, &id, last).await.expect("there is more");
        for gate in gates.iter().skip(opened).take(more) {
            gate.open();
        }
        opened = (opened + more).min(gates.len());
        // Each gate that was opened is one event at least.
        for _ in 0..usize::try_from(random >> 61 & 1).unwrap() {
            if seen.len() < opened {
                seen.push(watcher.next().await.expect("the run goes on"));
            }
        }
    }
    gates.iter().for_each(Gate::open);
    let last = seen.last().map(|event: &watcher::Seen| event.number);
    seen.extend(Watcher::open(&gateway.client, &id, last).await.unwrap().rest().await);
    watcher::check(&seen);
    assert_eq!(text_of(&seen), numbers(60));
    assert_eq!(watcher::all(&gateway.client, &id).await, seen);
}

#[tokio::test]
async fn numbers_that_no_event_has_begin_from_the_start_and_after_the_end_there_is_nothing() {
    let provider = FakeProvider::answering(|_| text_stream("one two three")).await;
    let gateway = Gateway::with(&provider).await;
    let id = task(&gateway, &ask(&[])).await;
    let seen = watcher::all(&gateway.client, &id).await;
    let path = format!("/v1/runs/{id}/events");
    for last in ["99999", "18446744073709551615", "99999999999999999999999999", "-1", "x", "", "1e3"] {
        let again = Watcher::with(&gateway.client, &path, &[("last-event-id", last)]).await;
        assert_eq!(again.expect("all of it").rest().await, seen, "{last}");
    }
    let end = seen.len() - 1;
    assert!(Watcher::open(&gateway.client, &id, Some(end)).await.is_none(), "an event source stops asking");
    let query = format!("{path}?last_event_id={}", end - 1);
    let behind = Watcher::with(&gateway.client, &query, &[]).await.unwrap().rest().await;
    assert_eq!(behind, seen[end..]);
    let as_result =
        Watcher::with(&gateway.client, &format!("/{id}"), &[("accept", "text/event-stream")]).await;
    assert_eq!(as_result.unwrap().rest().await, seen);
}

#[tokio::test]
async fn a_stored_stream_is_there_for_others_before_its_first_word() {
    let gates = [Gate::new(), Gate::new()];
    let provider = slowly(&gates).await;
    let gateway = Gateway::with(&provider).await;
    gates[0].open();
    let mut stream = gateway.client.stream(&stored(ask(&[]))).await;
    let id = stream.headers["x-run-id"].to_str().unwrap().to_owned();
    assert!(stream.headers["x-result-url"].to_str().unwrap().ends_with(&format!("/{id}")));
    let first = stream.next().await.unwrap();
    assert_eq!(first["id"], *id, "the completion's id is the run's");
    let mut watcher = Watcher::open(&gateway.client, &id, None).await.unwrap();
    let before = watcher.until_that(|seen| seen.data["delta"]["content"] == "0 ").await;
    // Whose stream it is leaves; the run goes on.
    drop(stream);
    gates[1].open();
    let all: Vec<_> = before.into_iter().chain(watcher.rest().await).collect();
    watcher::check(&all);
    assert_eq!(text_of(&all), "0 1 ");
    let completion = gateway.client.get(&format!("/v1/chat/completions/{id}")).await;
    assert_eq!(completion.content(), "0 1 ");
}

#[tokio::test]
async fn who_has_an_answer_finds_it_in_the_store_at_once() {
    let provider = FakeProvider::answering(|_| text_stream("hello")).await;
    let gateway = Gateway::with(&provider).await;
    for _ in 0..5 {
        let answer = gateway.client.chat(&stored(ask(&[]))).await;
        let id = answer.json()["id"].as_str().unwrap().to_owned();
        let found = gateway.client.get(&format!("/v1/chat/completions/{id}")).await;
        assert_eq!((found.status, found.content()), (200, "hello".to_owned()));
        let stream = gateway.client.stream(&stored(ask(&[]))).await.read_to_end().await;
        let id = stream.headers["x-run-id"].to_str().unwrap().to_owned();
        let found = gateway.client.get(&format!("/v1/chat/completions/{id}")).await;
        assert_eq!((found.status, found.content()), (200, "hello".to_owned()));
    }
}

#[tokio::test]
async fn a_run_of_one_process_is_watched_at_another_and_numbers_mean_the_same() {
    let place = Place::new().await;
    if !place.is_shared() {
        return;
    }
    let gates: Vec<Gate> = (0..20).map(|_| Gate::new()).collect();
    let provider = slowly(&gates).await;
    let here = Gateway::configured(&provider, |settings| place.give_to(settings)).await;
    let there = Gateway::configured(&provider, |settings| place.give_to(settings)).await;
    let id = task(&here, &ask(&[])).await;
    let far = Watcher::open(&there.client, &id, None).await.unwrap();
    let far = tokio::spawn(far.rest());
    let mut seen: Vec<watcher::Seen> = Vec::new();
    for (turn, gate) in gates.iter().enumerate() {
        // What was seen here must be known there, however new it is.
        gate.open();
        let client = if turn % 2 == 0 { &here.client } else { &there.client };
        let last = seen.last().map(|event| event.number);
        let mut watcher = Watcher::open(client, &id, last).await.unwrap();
        let word = Value::from(format!("{turn} "));
        seen.extend(watcher.until_that(|seen| seen.data["delta"]["content"] == word).await);
    }
    let last = seen.last().map(|event| event.number);
    seen.extend(Watcher::open(&there.client, &id, last).await.unwrap().rest().await);
    watcher::check(&seen);
    assert_eq!(far.await.unwrap(), seen);
    assert_eq!(text_of(&seen), numbers(20));
    assert_eq!(named(&seen, "resumed").len(), 0);
    let cancelled = task(&here, &ask(&[])).await;
    let answer = there.client.post(&format!("/v1/runs/{cancelled}/cancel"), &[], &json!({})).await;
    assert_eq!(answer.status, 200);
    watcher::all(&there.client, &cancelled).await;
}

#[tokio::test]
async fn who_follows_a_run_that_is_silent_is_told_that_it_lives() {
    let provider = FakeProvider::answering(|_| Reply::Silence).await;
    let gateway = Gateway::configured(&provider, |settings| settings.run.keep_alive_seconds = 1).await;
    let id = task(&gateway, &ask(&[])).await;
    for (path, headers) in [
        (format!("/v1/runs/{id}/events"), &[][..]),
        (format!("/{id}"), &[("accept", "text/event-stream")][..]),
    ] {
        let response = gateway.client.send("GET", &path, headers, "").await;
        assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8", "{path}");
        let mut body = response.into_body();
        let mut seen = String::new();
        let two = async {
            while seen.matches(": keep-alive\n\n").count() < 2 {
                let frame = body.frame().await.expect("it goes on").unwrap();
                seen.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
            }
        };
        tokio::time::timeout(PATIENCE, two).await.expect("it is said again and again");
        assert_eq!(seen.replace(": keep-alive\n\n", ""), "", "no event, and no number that one could have");
    }
}
