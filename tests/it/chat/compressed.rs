//! Answers that come compressed though nobody asked for it.

use std::io::Write;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::json;

use crate::support::{
    FakeMcp, FakeProvider, FakeTool, Gateway, Reply, ask, calls, rpc_result, text, text_result, text_stream,
    with,
};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The same answer, compressed; a stream comes as one piece.
fn compressed(reply: Reply, coding: &str) -> Reply {
    let (kind, bytes) = match reply {
        Reply::Json(_, value) => ("application/json", value.to_string().into_bytes()),
        Reply::Stream { pieces, .. } => {
            let bytes = pieces.into_iter().map(|piece| match piece {
                crate::support::Piece::Bytes(bytes) => bytes,
                crate::support::Piece::Wait(_) => panic!("only bytes"),
            });
            ("text/event-stream", bytes.collect::<Vec<_>>().concat())
        }
        _ => panic!("only answers and streams"),
    };
    let bytes = match coding {
        "gzip" => gzip(&bytes),
        "deflate" => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(&bytes).unwrap();
            encoder.finish().unwrap()
        }
        _ => bytes,
    };
    let headers = [("content-type", kind), ("content-encoding", coding)];
    Reply::Whole(200, headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(), bytes)
}

#[tokio::test]
async fn a_run_reads_its_provider_s_compressed_answers() {
    for coding in ["gzip", "deflate"] {
        let provider = FakeProvider::start(vec![
            compressed(calls(&[("call_1", "s_t", json!({}))]), coding),
            compressed(text_stream("it is done"), coding),
        ])
        .await;
        let mcp = FakeMcp::start(vec![FakeTool::echo("t")]).await;
        let gateway = Gateway::with(&provider).await;
        let stream = gateway.client.stream(&ask(&[mcp.entry("s")])).await.read_to_end().await;
        assert!(stream.content().ends_with("it is done"), "{coding}: {}", stream.content());
    }
}

#[tokio::test]
async fn what_nobody_can_read_is_named() {
    let provider = FakeProvider::answering(|_| compressed(text("hi"), "br")).await;
    let gateway = Gateway::with(&provider).await;
    let answer = gateway.client.chat(&with(ask(&[]), json!({ "toolgate": { "max_turns": 2 } }))).await;
    let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
    assert_eq!(answer.status, 502);
    assert!(message.starts_with("fake: ") && message.contains("`content-encoding: br`"), "{message}");
    // The same of an error.
    let provider =
        FakeProvider::answering(|_| Reply::with_headers(400, &[("content-encoding", "zstd")], "no text"))
            .await;
    let gateway = Gateway::with(&provider).await;
    let answer = gateway.client.chat(&with(ask(&[]), json!({ "toolgate": { "max_turns": 2 } }))).await;
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("content-encoding: zstd"), "{}", answer.text());
}

#[tokio::test]
async fn a_bomb_ends_the_run_and_not_the_gateway() {
    // 128 MiB of nothing, in 128 KiB.
    let bomb = gzip(&vec![b' '; 128 << 20]);
    let headers = vec![
        ("content-type".to_owned(), "application/json".to_owned()),
        ("content-encoding".to_owned(), "gzip".to_owned()),
    ];
    let provider = FakeProvider::answering(move |_| Reply::Whole(200, headers.clone(), bomb.clone())).await;
    let gateway = Gateway::with(&provider).await;
    let answer = gateway.client.chat(&with(ask(&[]), json!({ "toolgate": { "max_turns": 2 } }))).await;
    let shown = answer.json();
    assert_eq!(shown["toolgate"]["notices"][0]["code"], "byte_budget", "{shown}");
    assert!(answer.text().len() < 2000, "nothing of the bomb is shown");
}

#[tokio::test]
async fn a_server_s_compressed_answers_are_read_too() {
    let tool =
        FakeTool::raw("t", |request| compressed(rpc_result(request, &text_result("unpacked")), "gzip"));
    let other = FakeTool::raw("u", |request| compressed(rpc_result(request, &text_result("packed")), "br"));
    let mcp = FakeMcp::start(vec![tool, other]).await;
    let provider = FakeProvider::start(vec![
        calls(&[("call_1", "s_t", json!({})), ("call_2", "s_u", json!({}))]),
        text("done"),
    ])
    .await;
    let gateway = Gateway::with(&provider).await;
    assert_eq!(gateway.client.chat(&ask(&[mcp.entry("s")])).await.status, 200);
    let results = provider.last_said("tool");
    assert!(results[0].to_string().contains("unpacked"), "{results:?}");
    assert!(results[1].to_string().contains("content-encoding: br"), "{results:?}");
}

#[tokio::test]
async fn a_relayed_answer_stays_as_it_came() {
    let provider = FakeProvider::answering(|_| compressed(text("hi"), "gzip")).await;
    let gateway = Gateway::with(&provider).await;
    let answer = gateway.client.chat(&ask(&[])).await;
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    assert_eq!(answer.body[..2], [0x1f, 0x8b]);
}
