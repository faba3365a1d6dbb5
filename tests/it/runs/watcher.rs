//! Reading a run's events as an event source does.

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

use crate::support::{Client, PATIENCE};

/// One event of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    pub number: usize,
    pub name: String,
    pub data: Value,
}

/// A stream of events under way.
pub struct Watcher {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Watcher {
    /// Follows the run from its start, or behind the event of this number. `None` when there is nothing more.
    pub async fn open(client: &Client, id: &str, last: Option<usize>) -> Option<Watcher> {
        let last = last.map(|last| last.to_string());
        let headers: Vec<(&str, &str)> = last.iter().map(|last| ("last-event-id", last.as_str())).collect();
        Watcher::with(client, &format!("/v1/runs/{id}/events"), &headers).await
    }

    /// Asks with these headers.
    pub async fn with(client: &Client, path: &str, headers: &[(&str, &str)]) -> Option<Watcher> {
        let response = client.send("GET", path, headers, "").await;
        if response.status() == 204 {
            return None;
        }
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
        Some(Watcher { body: response.into_body(), buffer: Vec::new() })
    }

    /// The next event; `None` when the stream has ended, or broke off.
    pub async fn next(&mut self) -> Option<Seen> {
        tokio::time::timeout(PATIENCE, self.read()).await.expect("something happens")
    }

    async fn read(&mut self) -> Option<Seen> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
                if let Some(seen) = parse(&String::from_utf8(block).unwrap()) {
                    return Some(seen);
                }
                continue;
            }
            self.buffer.extend_from_slice(self.body.frame().await?.ok()?.data_ref()?);
        }
    }

    /// Reads until an event has this name.
    pub async fn until(&mut self, name: &str) -> Vec<Seen> {
        self.until_that(|seen| seen.name == name).await
    }

    /// Reads until `found` says yes, and gives all up to there.
    pub async fn until_that(&mut self, found: impl Fn(&Seen) -> bool) -> Vec<Seen> {
        let mut all = Vec::new();
        while let Some(seen) = self.next().await {
            let is_it = found(&seen);
            all.push(seen);
            if is_it {
                return all;
            }
        }
        panic!("the stream ended before: {all:#?}");
    }

    /// Everything that is left.
    pub async fn rest(mut self) -> Vec<Seen> {
        let mut all = Vec::new();
        while let Some(seen) = self.next().await {
            all.push(seen);
        }
        all
    }
}

fn parse(block: &str) -> Option<Seen> {
    let field = |name: &str| {
        let values = block.lines().filter_map(move |line| line.strip_prefix(name)?.strip_prefix(": "));
        values.map(str::to_owned).next()
    };
    let number = field("id")?.parse().unwrap();
    let data = serde_json::from_str(&field("data").unwrap()).unwrap();
    Some(Seen { number, name: field("event").unwrap(), data })
}

/// Follows the run, wherever it has come to, to its end.
pub async fn all(client: &Client, id: &str) -> Vec<Seen> {
    let seen = Watcher::open(client, id, None).await.expect("there are events").rest().await;
    check(&seen);
    seen
}

/// Numbers from 0 without gaps, one end, and it is last.
pub fn check(seen: &[Seen]) {
    for (place, event) in seen.iter().enumerate() {
        assert_eq!(event.number, place, "{seen:#?}");
    }
    let is_end = |event: &Seen| matches!(event.name.as_str(), "finish" | "error");
    assert_eq!(seen.iter().filter(|event| is_end(event)).count(), 1, "{seen:#?}");
    assert!(seen.last().is_some_and(is_end), "{seen:#?}");
}

/// The text of all deltas.
pub fn text_of(seen: &[Seen]) -> String {
    seen.iter().filter_map(|event| event.data["delta"]["content"].as_str()).collect()
}

/// The events of this name.
pub fn named<'s>(seen: &'s [Seen], name: &str) -> Vec<&'s Value> {
    seen.iter().filter(|event| event.name == name).map(|event| &event.data).collect()
}
