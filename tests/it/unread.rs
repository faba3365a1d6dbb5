//! Requests that are answered before their body is read: the connection is good for the next one.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::runs::outside::{SHOP, hosted};
use super::support::{FakeProvider, Gateway, PATIENCE, ask, text};

/// A key of this gateway's kind that is none.
const NONE: &str = "tgk_2123456789abcdefghjkmnpq";

/// A request for a completion with this key, its body announced to be `length` bytes long.
fn head(gateway: &Gateway, key: &str, length: usize, more: &str) -> String {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {key}\r\n{more}\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n",
        gateway.address
    )
}

/// The status and the headers of the next answer, whose body is skipped; `None` when the connection has ended.
async fn answer(connection: &mut TcpStream) -> Option<(u16, String)> {
    let reading = async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(connection.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let length = head.split("content-length: ").nth(1)?.split("\r\n").next()?.parse().ok()?;
        connection.read_exact(&mut vec![0; length]).await.ok()?;
        Some((head.split(' ').nth(1)?.parse().ok()?, head))
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("there is an answer, or an end")
}

async fn gateway(provider: &FakeProvider) -> (Gateway, TcpStream) {
    let gateway =
        hosted(provider, |settings| settings.any_host.mode = toolgate::config::AnyHostMode::Off).await;
    let connection = TcpStream::connect(gateway.address).await.unwrap();
    (gateway, connection)
}

#[tokio::test]
async fn a_request_that_is_refused_before_its_body_is_read_leaves_the_connection_to_the_next() {
    let provider = FakeProvider::answering(|_| text("hello")).await;
    let (gateway, mut connection) = gateway(&provider).await;
    let (small, good) = (vec![b' '; 60_000], ask(&[]).to_string());
    for _ in 0..2 {
        connection.write_all(head(&gateway, NONE, small.len(), "").as_bytes()).await.unwrap();
        connection.write_all(&small).await.unwrap();
        assert_eq!(answer(&mut connection).await.expect("an answer").0, 401);
        connection.write_all(head(&gateway, SHOP, good.len(), "").as_bytes()).await.unwrap();
        connection.write_all(good.as_bytes()).await.unwrap();
        assert_eq!(answer(&mut connection).await.expect("an answer to the second, too").0, 200);
    }
}

#[tokio::test]
async fn a_large_body_a_silent_one_and_one_that_waits_to_be_asked_for_are_not_waited_for() {
    let provider = FakeProvider::answering(|_| text("never")).await;
    for (length, more, sent) in [
        // Nothing of it is taken off.
        (1 << 20, "", 0),
        // It stops coming.
        (10_000, "", 5_000),
        // To ask for it would be to promise something.
        (10_000, "expect: 100-continue\r\n", 0),
        // More comes than was said to.
        (64 << 10, "", 64 << 10),
    ] {
        let (gateway, mut connection) = gateway(&provider).await;
        connection.write_all(head(&gateway, NONE, length, more).as_bytes()).await.unwrap();
        connection.write_all(&vec![b' '; sent]).await.unwrap();
        let (status, _) = answer(&mut connection).await.expect("an answer");
        assert_eq!(status, 401, "{length} {more}");
    }
    assert_eq!(provider.peer.requests().len(), 0);
}
