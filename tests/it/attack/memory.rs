//! Peers that fill the gateway's memory: one run by turns that never end, many at once, and viewers that never read.

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::provider::{delta, finish, stream, whole};
use crate::support::{FakeMcp, FakeProvider, FakeTool, Gateway, Reply, ask, calls, calls_stream, with};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

fn bytes(number: usize) -> String {
    "a".repeat(number)
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
    assert_eq!(reserved(&gateway).await, 0, "everything is given back");
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
async fn a_run_that_can_never_fit_ends_with_everything_so_far() {
    let chunks: Vec<Value> = (0..8).map(|_| delta(&json!({ "content": bytes(900 * KIB) }))).collect();
    let provider = FakeProvider::answering(move |_| stream(&chunks)).await;
    let gateway = Gateway::configured(&provider, |settings| settings.limits.memory_bytes = 8 * MIB).await;
    let body = with(ask(&[]), json!({ "toolgate": { "output": "text" } }));
    let answer = gateway.client.stream(&body).await.read_to_end().await;
    assert_eq!(answer.events("notice")[0]["code"], "memory_exhausted");
    assert!((900 * KIB..4 * MIB).contains(&answer.content().len()), "what came before is there");
    assert_eq!(reserved(&gateway).await, 0);
}

#[tokio::test]
async fn a_kept_run_whose_viewer_never_reads_comes_to_its_end_and_is_whole() {
    const CHUNKS: usize = 400;
    let provider = FakeProvider::answering(|_| {
        let mut chunks: Vec<Value> =
            (0..CHUNKS).map(|_| delta(&json!({ "content": bytes(10 * KIB) }))).collect();
        chunks.push(finish("stop"));
        stream(&chunks)
    })
    .await;
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
