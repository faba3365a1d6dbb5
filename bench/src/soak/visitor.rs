//! Those who ask the gateway: one request each over a connection of its own, read whole, slowly, or not to the end.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// No request of a soak may take longer.
const LIMIT: Duration = Duration::from_secs(120);

/// One event of a stored run: its number, and its whole text.
pub type Event = (u64, String);

/// Sends one request, and gives the answer's head with the body still to be read.
pub async fn send(
    port: u16,
    method: Method,
    path: &str,
    key: &str,
    body: &Value,
) -> Result<Response<Incoming>, String> {
    let asking = async {
        let stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        tokio::task::spawn_local(connection);
        let bytes = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "127.0.0.1")
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {key}"))
            .body(Full::new(bytes))
            .map_err(|error| error.to_string())?;
        sender.send_request(request).await.map_err(|error| error.to_string())
    };
    tokio::time::timeout(LIMIT, asking).await.map_err(|_| "no answer in time".to_owned())?
}

/// The whole body of an answer.
pub async fn text(response: Response<Incoming>) -> Result<String, String> {
    let reading = response.into_body().collect();
    let body = tokio::time::timeout(LIMIT, reading).await.map_err(|_| "no end in time".to_owned())?;
    let bytes = body.map_err(|error| error.to_string())?.to_bytes();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The status and body of a `GET`.
pub async fn get(port: u16, path: &str, key: &str) -> Result<(u16, String), String> {
    let response = send(port, Method::GET, path, key, &Value::Null).await?;
    Ok((response.status().as_u16(), text(response).await?))
}

/// How a visitor reads an answer.
#[derive(Clone, Copy)]
pub enum Reading {
    Whole,
    /// With a rest after every piece.
    Slowly(Duration),
    /// It leaves after so many pieces.
    UntilPiece(usize),
}

/// Reads an answer in this way.
pub async fn read(response: Response<Incoming>, reading: Reading) {
    let mut body = response.into_body();
    let mut pieces = 0;
    while let Ok(Some(Ok(_))) = tokio::time::timeout(LIMIT, body.frame()).await {
        pieces += 1;
        match reading {
            Reading::Whole => {}
            Reading::Slowly(rest) => tokio::time::sleep(rest).await,
            Reading::UntilPiece(last) if pieces >= last => return,
            Reading::UntilPiece(_) => {}
        }
    }
}

/// The events of a stored run behind the number `last`, as far as they came before the stream ended or broke off.
pub async fn events(port: u16, id: &str, key: &str, last: Option<u64>) -> Vec<Event> {
    let query = last.map(|last| format!("?last_event_id={last}")).unwrap_or_default();
    let path = format!("/v1/runs/{id}/events{query}");
    let Ok(response) = send(port, Method::GET, &path, key, &Value::Null).await else { return Vec::new() };
    if response.status() != 200 {
        return Vec::new();
    }
    let (mut body, mut all) = (response.into_body(), Vec::new());
    while let Ok(Some(Ok(frame))) = tokio::time::timeout(LIMIT, body.frame()).await {
        if let Some(data) = frame.data_ref() {
            all.extend_from_slice(data);
        }
    }
    let text = String::from_utf8_lossy(&all).into_owned();
    // What follows the last blank line is not whole.
    let whole = text.rfind("\n\n").map_or("", |end| &text[..end]);
    whole.split("\n\n").filter_map(event).collect()
}

fn event(block: &str) -> Option<Event> {
    let number = block.lines().find_map(|line| line.strip_prefix("id: "))?.parse().ok()?;
    Some((number, block.to_owned()))
}

/// Whether these are all events of a run that has ended: numbers from 0 without gaps, and one end, which is last.
pub fn is_whole(events: &[Event]) -> bool {
    let is_end = |event: &Event| event.1.lines().any(|line| matches!(line, "event: finish" | "event: error"));
    let numbers = events.iter().enumerate().all(|(place, event)| event.0 == place as u64);
    numbers && events.iter().filter(|event| is_end(event)).count() == 1 && events.last().is_some_and(is_end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_a_second_end_and_no_end_are_seen() {
        let one = |number: u64, name: &str| (number, format!("id: {number}\nevent: {name}\ndata: {{}}"));
        assert!(is_whole(&[one(0, "delta"), one(1, "finish")]));
        assert!(!is_whole(&[one(0, "delta"), one(2, "finish")]));
        assert!(!is_whole(&[one(0, "finish"), one(1, "finish")]));
        assert!(!is_whole(&[one(0, "delta")]));
        assert!(!is_whole(&[]));
    }
}
