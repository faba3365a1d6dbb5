//! Requests written byte by byte, as no well-behaved client would.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::PATIENCE;

/// What came back over a connection before it ended.
#[derive(Debug)]
pub struct RawAnswer(pub String);

impl RawAnswer {
    /// The status of the last answer; interim ones (1xx) do not count.
    pub fn status(&self) -> u16 {
        let head = self.head();
        head.split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .unwrap_or_else(|| panic!("no status: {self:?}"))
    }

    /// The head of the first answer that is none of those.
    pub fn head(&self) -> &str {
        let mut rest = self.0.as_str();
        while rest.starts_with("HTTP/1.1 1") {
            rest = rest.split_once("\r\n\r\n").map_or("", |(_, after)| after);
        }
        rest.split_once("\r\n\r\n").map_or(rest, |(head, _)| head)
    }

    /// Whether it says that the connection ends.
    pub fn says_close(&self) -> bool {
        self.head().to_lowercase().lines().any(|line| line == "connection: close")
    }
}

/// A connection on which this was sent.
pub async fn sent(address: SocketAddr, request: &[u8]) -> TcpStream {
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(request).await.unwrap();
    connection
}

/// Everything that comes until the gateway ends the connection.
pub async fn until_end(mut connection: TcpStream) -> RawAnswer {
    let mut bytes = Vec::new();
    tokio::time::timeout(PATIENCE, connection.read_to_end(&mut bytes))
        .await
        .expect("the gateway ends the connection")
        .expect("the connection is not broken off");
    RawAnswer(String::from_utf8_lossy(&bytes).into_owned())
}

/// The answer to this request, after which the client sends no more.
pub async fn half_closed(address: SocketAddr, request: &[u8]) -> RawAnswer {
    let mut connection = sent(address, request).await;
    connection.shutdown().await.unwrap();
    until_end(connection).await
}

/// A chat completion as bytes, with these further header lines.
pub fn completion(address: SocketAddr, headers: &str, body: &str) -> Vec<u8> {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\n{headers}content-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
