//! Peers that fill the gateway's memory: one run by turns that never end, many at once, and viewers that never read.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::support::provider::{delta, event, finish, stream, whole};
use crate::support::{FakeMcp, FakeProvider, FakeTool, Gateway, Reply, ask, calls, calls_stream, with};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

fn bytes(number: usize) -> String {
    "a".repeat(number)
}

/// An answer of so many chunks with this text each.
fn words(chunks: usize, text: &str) -> Reply {
    let mut list: Vec<Value> = (0..chunks).map(|_| delta(&json!({ "content": text }))).collect();
    list.push(finish("stop"));
    stream(&list)
}

/// A provider that answers every turn with what `turn` makes, and the run that it ends: its status, its reason by its
/// notice, and how many turns it took.
async fn filled(turn: impl Fn(bool) -> Reply + Send + Sync + 'static, streamed: bool) -> (Value, usize) {
    let provider = FakeProvider::answering(move |request| turn(request.json()["stream"] == true)).await;
    let mcp = FakeMcp::start(vec![FakeTool::text("t", &bytes(200 * KIB))]).await;
    let gateway = Gateway::configured(&provider, |settings| settings.run.max_bytes = MIB).await;
    let body = with(ask(&[mcp.entry("s")]), json!({ "toolgate": { "max_turns": 100 } }));
    let answer = if streamed {
        let stream = gateway.client.stream(&body).await.read_to_end().await;
        assert_eq!(stream.finish_reason(), Some("length"));
        stream.events("notice")[0].clone()
    } else {
        let answer = gateway.client.chat(&body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["toolgate"]["notices"][0].clone()
    };
    // The end of a run that called tools is kept for a while, in case its client asks again.
    let kept = if mcp.count("tools/call") > 0 { 2 * MIB } else { 0 };
    let left = reserved(&gateway).await;
    assert!(left <= kept, "the rest is given back: {left}");
    (answer, provider.bodies().len())
}

/// What the gateway says it holds.
async fn reserved(gateway: &Gateway) -> usize {
    let metrics = gateway.client.get("/metrics").await.text();
    let line = metrics.lines().find(|line| line.starts_with("toolgate_memory_reserved_bytes "));
    line.expect("it is counted").split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_run_ends_at_its_bytes_over_all_turns() {
    let arguments = || json!({ "x": bytes(200 * KIB) });
    for streamed in [false, true] {
        let (notice, turns) = filled(
            move |streams| {
                let call = [("call_1", "s_t", arguments())];
                if streams { calls_stream(&call) } else { calls(&call) }
            },
            streamed,
        )
        .await;
        assert_eq!(notice["code"], "byte_budget", "{notice}");
        assert!((2..=4).contains(&turns), "200 KiB of arguments and as much of results a turn: {turns}");
    }
}

#[tokio::test]
async fn one_answer_without_end_is_cut_off_as_it_arrives() {
    for field in ["content", "reasoning_content", "something_new"] {
        let (notice, turns) = filled(
            move |streams| {
                if streams {
                    let mut chunks: Vec<Value> =
                        (0..40).map(|_| delta(&json!({ field: bytes(50 * KIB) }))).collect();
                    chunks.push(finish("stop"));
                    stream(&chunks)
                } else {
                    whole(&json!({ "role": "assistant", field: bytes(2 * MIB) }), "stop")
                }
            },
            true,
        )
        .await;
        assert_eq!((notice["code"].as_str(), turns), (Some("byte_budget"), 1), "{field}");
    }
    let (notice, _) = filled(|_| whole(&json!({ "content": bytes(2 * MIB) }), "stop"), false).await;
    assert_eq!(notice["code"], "byte_budget", "an answer in one piece");
    let (notice, _) = filled(|_| stream(&[delta(&json!({ "content": bytes(2 * MIB) }))]), true).await;
    assert_eq!(notice["code"], "byte_budget", "one event");
    let many: Vec<Value> = (0..30)
        .map(|place| json!({ "index": place, "id": format!("c{place}"), "function": { "name": "s_t", "arguments": bytes(50 * KIB) } }))
        .collect();
    let (notice, _) = filled(move |_| stream(&[delta(&json!({ "tool_calls": many }))]), true).await;
    assert_eq!(notice["code"], "byte_budget", "many calls");
}

#[tokio::test]
async fn a_request_may_lower_the_bytes_of_its_run_and_not_raise_them() {
    let provider = FakeProvider::answering(|_| {
        stream(&[delta(&json!({ "content": bytes(100 * KIB) })), finish("stop")])
    })
    .await;
    let gateway = Gateway::with(&provider).await;
    let ask_for = |most: usize| with(ask(&[]), json!({ "toolgate": { "max_bytes": most } }));
    let answer = gateway.client.stream(&ask_for(50 * KIB)).await.read_to_end().await;
    assert_eq!(answer.events("notice")[0]["code"], "byte_budget");
    let refused = gateway.client.chat(&ask_for(64 * MIB + 1)).await;
    assert_eq!(
        (refused.status, refused.json()["error"]["param"].as_str()),
        (400, Some("toolgate.max_bytes"))
    );
}

#[tokio::test]
async fn many_runs_wait_for_one_another_and_all_come_to_their_end() {
    let answer = || stream(&[delta(&json!({ "content": bytes(400 * KIB) })), finish("stop")]);
    let provider = FakeProvider::answering(move |_| answer()).await;
    let gateway = Gateway::configured(&provider, |settings| settings.limits.memory_bytes = 16 * MIB).await;
    let body = with(ask(&[]), json!({ "toolgate": { "output": "text" } }));
    let answers = join_all((0..12).map(|_| gateway.client.chat(&body))).await;
    assert!(answers.iter().all(|answer| answer.content().len() == 400 * KIB));
    assert_eq!(reserved(&gateway).await, 0);
}

#[tokio::test]
async fn an_answer_with_more_frames_than_words_ends_with_everything_so_far() {
    let provider = FakeProvider::answering(|_| {
        let frame = || event(&json!({ "choices": [], "padding": bytes(MIB) }));
        let mut pieces = vec![event(&delta(&json!({ "content": "so far" })))];
        pieces.extend((0..130).map(|_| frame()));
        Reply::stream(pieces)
    })
    .await;
    let gateway = Gateway::with(&provider).await;
    let answer = gateway.client.chat(&with(ask(&[]), json!({ "toolgate": { "output": "text" } }))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.content().starts_with("so far\n"), "{}", answer.text());
    let answer = answer.json();
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["toolgate"]["notices"][0]["code"], "byte_budget");
}

#[tokio::test]
async fn runs_that_wait_for_one_another_give_way_and_none_is_stuck() {
    const CHUNKS: usize = 40;
    let provider = FakeProvider::answering(|_| words(CHUNKS, &bytes(50 * KIB))).await;
    let gateway = Gateway::configured(&provider, |settings| settings.limits.memory_bytes = 16 * MIB).await;
    let body = with(ask(&[]), json!({ "toolgate": { "output": "text" } }));
    // Each fits, and together they would hold eight times what there is.
    let answers = join_all((0..12).map(|_| gateway.client.chat(&body)));
    let answers = timeout(Duration::from_secs(100), answers).await.expect("all come to an end");
    for answer in &answers {
        assert_eq!(answer.status, 200, "{}", answer.text());
        let (all, json) = (answer.content().len() == CHUNKS * 50 * KIB, answer.json());
        let code = json["toolgate"]["notices"][0]["code"].as_str();
        assert_eq!(code, (!all).then_some("memory_exhausted"), "all of it, or the reason why not");
    }
    assert_eq!(reserved(&gateway).await, 0);
}

#[tokio::test]
async fn answers_that_nobody_reads_are_counted_until_their_clients_leave() {
    const CLIENTS: usize = 3;
    let answer = || stream(&[delta(&json!({ "content": bytes(12 * MIB) })), finish("stop")]);
    let provider = FakeProvider::answering(move |_| answer()).await;
    let gateway = Gateway::with(&provider).await;
    let body = with(ask(&[]), json!({ "toolgate": { "output": "text" } }));
    let mut unread = Vec::new();
    for _ in 0..CLIENTS {
        unread.push(gateway.client.connect(&body).await);
    }
    // The answers are whole; what the kernel does not take of them stays with the gateway.
    provider.peer.until_requests(CLIENTS).await;
    let one_copy_of_each = CLIENTS * 12 * MIB..CLIENTS * 12 * MIB + 9 * KIB;
    until(async || one_copy_of_each.contains(&reserved(&gateway).await), "the answers", &gateway).await;
    drop(unread);
    until(async || reserved(&gateway).await == 0, "nothing", &gateway).await;
}

/// Waits for a sum of what the gateway holds.
async fn until(is_so: impl AsyncFn() -> bool, what: &str, gateway: &Gateway) {
    for _ in 0..600 {
        if is_so().await {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("the gateway should hold {what}, and holds {}", reserved(gateway).await);
}

#[tokio::test]
async fn reading_large_runs_holds_a_few_events_at_a_time() {
    const CHUNKS: usize = 50;
    let provider = FakeProvider::answering(|_| {
        // Each takes two bytes in JSON.
        words(CHUNKS, &"\"".repeat(50 * KIB))
    })
    .await;
    let gateway = Gateway::configured(&provider, |settings| settings.limits.memory_bytes = 20 * MIB).await;
    let body = with(ask(&[]), json!({ "store": true, "stream": true, "toolgate": { "output": "text" } }));
    let stored = gateway.client.stream(&body).await.read_to_end().await;
    assert_eq!(stored.content().len(), CHUNKS * 50 * KIB, "it fits while it is carried out");
    let id = stored.headers["x-run-id"].to_str().unwrap().to_owned();
    let mut unread = Vec::new();
    for _ in 0..20 {
        let mut reader = TcpStream::connect(gateway.address).await.unwrap();
        let head = format!("GET /v1/runs/{id}/events HTTP/1.1\r\nhost: {}\r\n\r\n", gateway.address);
        reader.write_all(head.as_bytes()).await.unwrap();
        unread.push(reader);
    }
    sleep(Duration::from_millis(500)).await;
    let held = reserved(&gateway).await;
    assert!(
        held < 8 * MIB,
        "20 readers that do not read hold {held} bytes of a run of {}",
        CHUNKS * 50 * KIB
    );
    drop(unread);
    // All of it as JSON would be four copies, and each of them twice as large as the text.
    let json = gateway.client.get(&format!("/{id}.json")).await;
    assert_eq!((json.status, json.json()["error"]["code"].as_str()), (503, Some("memory_exhausted")));
    assert!(json.text().contains("events"), "it says how to read it: {}", json.text());
    let page = gateway.client.send("GET", &format!("/{id}"), &[("accept", "text/html")], "").await;
    let page = crate::support::whole(page).await;
    assert_eq!(page.status, 503);
    assert!(page.text().contains(&format!("/{id}.md")), "{}", page.text());
    let text = gateway.client.get(&format!("/{id}.md")).await;
    assert_eq!((text.status, text.text().len()), (200, CHUNKS * 50 * KIB));
    let events = gateway.client.get(&format!("/v1/runs/{id}/events")).await.text();
    assert_eq!(events.matches("event: delta").count(), CHUNKS);
    until(async || reserved(&gateway).await == 0, "nothing", &gateway).await;
}

#[tokio::test]
async fn a_run_that_can_never_fit_ends_with_everything_so_far() {
    let chunks: Vec<Value> = (0..8).map(|_| delta(&json!({ "content": bytes(900 * KIB) }))).collect();
    let provider = FakeProvider::answering(move |_| stream(&chunks)).await;
    let gateway = Gateway::configured(&provider, |settings| settings.limits.memory_bytes = 8 * MIB).await;
    let body = with(ask(&[]), json!({ "toolgate": { "output": "text" } }));
    let answer = gateway.client.stream(&body).await.read_to_end().await;
    let notice = &answer.events("notice")[0];
    assert_eq!(notice["code"], "byte_budget", "no waiting would help: {notice}");
    assert!((900 * KIB..4 * MIB).contains(&answer.content().len()), "what came before is there");
    assert_eq!(reserved(&gateway).await, 0);
}

#[tokio::test]
async fn a_kept_run_whose_viewer_never_reads_comes_to_its_end_and_is_whole() {
    const CHUNKS: usize = 400;
    let provider = FakeProvider::answering(|_| words(CHUNKS, &bytes(10 * KIB))).await;
    let gateway = Gateway::with(&provider).await;
    let body = with(ask(&[]), json!({ "store": true, "stream": true })).to_string();
    let mut unread = TcpStream::connect(gateway.address).await.unwrap();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        gateway.address,
        body.len()
    );
    unread.write_all((head + &body).as_bytes()).await.unwrap();
    provider.peer.until_requests(1).await;
    // Another viewer that is slow to begin sees everything, of which most is in the store alone.
    let answer = gateway.client.stream(&with(ask(&[]), json!({ "store": true }))).await.read_to_end().await;
    assert_eq!(answer.content().len(), CHUNKS * 10 * KIB);
    drop(unread);
}
