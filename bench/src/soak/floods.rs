//! The hostile visitors of a soak. All stay on loopback, are bounded in number, and end by themselves.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures_util::future::join_all;
use hyper::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::visitor::{self, Reading};

/// Made-up keys, each with a body of its own.
const KEYS: usize = 60;
/// What each body says it will be, and how much of it comes before it trickles, in bytes.
const BODY_BYTES: usize = 31 << 20;
const SENT_BYTES: usize = 30 << 20;
/// Requests to a provider that never ends its arguments.
const ENDLESS: usize = 12;
/// Streams that nobody reads.
const UNREAD: usize = 100;

/// One kind of flood, against the gateway at `port`, for about so long.
#[derive(Clone, Copy, Debug)]
pub enum Flood {
    /// Bodies of strangers that almost come, and then a byte at a time.
    ParkedBodies,
    /// A provider that answers with a hundred megabytes of arguments.
    EndlessArguments,
    /// Streams that are opened and not read.
    UnreadStreams,
    /// The head of a request and no more.
    HalfHeads,
}

/// All kinds, in the order in which they come.
pub const FLOODS: [Flood; 4] =
    [Flood::ParkedBodies, Flood::EndlessArguments, Flood::UnreadStreams, Flood::HalfHeads];

/// Floods one gateway.
pub async fn flood(kind: Flood, port: u16, key: &str, mcp: u16, time: Duration) {
    // The flood ends with the time; what it holds is dropped.
    let _ = tokio::time::timeout(time, async {
        match kind {
            Flood::ParkedBodies => drop(join_all((0..KEYS).map(|number| park_body(port, number))).await),
            Flood::EndlessArguments => {
                drop(
                    join_all((0..ENDLESS).map(|_| ask_for("endless 1 0", port, key, mcp, Reading::Whole)))
                        .await,
                );
            }
            Flood::UnreadStreams => {
                let never = Reading::Slowly(Duration::from_secs(3600));
                drop(join_all((0..UNREAD).map(|_| ask_for("unread 5000 0", port, key, mcp, never))).await);
            }
            Flood::HalfHeads => drop(join_all((0..UNREAD).map(|_| half_a_head(port))).await),
        }
    })
    .await;
}

async fn park_body(port: u16, number: usize) {
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway.example\r\nContent-Type: application/json\r\n\
         Authorization: Bearer sk-made-up-{number}\r\nContent-Length: {BODY_BYTES}\r\n\r\n"
    );
    let Ok(mut stream) = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await else {
        return;
    };
    let piece = vec![b' '; 64 << 10];
    if stream.write_all(head.as_bytes()).await.is_err() {
        return;
    }
    for _ in 0..SENT_BYTES / piece.len() {
        if stream.write_all(&piece).await.is_err() {
            return;
        }
    }
    while stream.write_all(b" ").await.is_ok() {
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
}

async fn half_a_head(port: u16) {
    let Ok(mut stream) = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await else {
        return;
    };
    for byte in b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway.example\r\nX-Slow: ".iter().cycle() {
        if stream.write_all(&[*byte]).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn ask_for(what: &str, port: u16, key: &str, mcp: u16, reading: Reading) {
    let body: Value = json!({
        "model": "mock/mock-model", "stream": true,
        "messages": [{ "role": "user", "content": format!("soak {what}") }],
        "tools": [{ "type": "mcp", "server_label": "soak", "server_url": format!("http://127.0.0.1:{mcp}/mcp/1") }],
    });
    if let Ok(response) = visitor::send(port, Method::POST, "/v1/chat/completions", key, &body).await {
        visitor::read(response, reading).await;
    }
}
