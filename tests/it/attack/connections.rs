//! Connections that are held and not used.

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::wire::{sent, until_end};
use crate::support::{FakeProvider, Gate, Gateway, PATIENCE, Piece, Reply, ask, text, with};

#[tokio::test]
async fn who_never_ends_a_request_head_is_let_go() {
    let provider = FakeProvider::answering(|_| text("hi")).await;
    let gateway = Gateway::configured(&provider, |settings| settings.limits.header_seconds = 1).await;
    let idle_after = format!("GET /healthz HTTP/1.1\r\nhost: {}\r\n\r\n", gateway.address);
    for begun in ["", "GET /healthz HTTP/1.1\r\nhos", &idle_after] {
        until_end(sent(gateway.address, begun.as_bytes()).await).await;
    }
}

#[tokio::test]
async fn who_does_not_read_an_answer_is_let_go() {
    let endless = || {
        let piece = |_| Piece::Bytes(format!("data: {}\n\n", "x".repeat(1 << 20)).into_bytes());
        Reply::stream((0..64).map(piece).chain([Piece::Wait(Gate::new())]).collect())
    };
    let provider = FakeProvider::answering(move |_| endless()).await;
    let gateway = Gateway::configured(&provider, |settings| settings.limits.write_seconds = 1).await;
    let _connection = gateway.client.connect(&with(ask(&[]), serde_json::json!({ "stream": true }))).await;
    provider.peer.until_abandoned(1).await;
}

#[tokio::test]
async fn many_requests_at_once_on_one_connection_are_answered_one_after_the_other() {
    let provider = FakeProvider::start(Vec::new()).await;
    let gateway = Gateway::with(&provider).await;
    let one = format!("GET /healthz HTTP/1.1\r\nhost: {}\r\n\r\n", gateway.address);
    let mut connection: TcpStream = sent(gateway.address, one.repeat(500).as_bytes()).await;
    let mut bytes = Vec::new();
    let reading = async {
        while bytes.windows(4).filter(|window| window == b"ok\n\0" || window.ends_with(b"ok\n")).count() < 500
        {
            let mut part = [0; 65536];
            let read = connection.read(&mut part).await.unwrap();
            assert!(read > 0, "the gateway goes on");
            bytes.extend_from_slice(&part[..read]);
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("all are answered");
}
