//! Servers of the 2024-11-05 revision: a stream to listen on, an address to post to.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use serde_json::{Map, json};
use tokio::sync::mpsc;
use url::Url;

use super::fake::{Fake, Reply, Reported, Seen, Then, call, call_with, client, event};
use crate::tools::{Error, Follower, Opening, Progress};

/// The sending end of the stream that was opened last.
type Stream = Arc<Mutex<Option<mpsc::UnboundedSender<String>>>>;

fn open(stream: &Stream, endpoint: &str) -> Reply {
    let (sender, events) = mpsc::unbounded_channel();
    *stream.lock().unwrap() = Some(sender);
    Reply::events(&format!("event: endpoint\ndata: {endpoint}\n\n"), Then::Live(events))
}

fn answer(stream: &Stream, seen: &Seen) -> Reply {
    let say = |text: String| {
        if let Some(sender) = stream.lock().unwrap().as_ref() {
            sender.send(text).unwrap();
        }
        Reply::text(202, "text/plain", "Accepted")
    };
    match (seen.verb.as_str(), seen.path.as_str(), seen.what().as_str()) {
        ("GET", "/mcp", _) => open(stream, "/post?id=1"),
        ("POST", "/mcp", _) => Reply::empty(405),
        (_, "/post?id=1", "initialize") => say(event(&seen.result(json!({"protocolVersion": "2024-11-05"})))),
        (_, "/post?id=1", "tools/list") => {
            let list = json!({"tools": [{"name": "t", "inputSchema": {"type": "object"}}]});
            say(event(&seen.result(list)))
        }
        (_, "/post?id=1", "tools/call") => {
            let params = json!({"progressToken": seen.body["id"], "progress": 1});
            say(event(&json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}))
                + &event(&json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}))
                + &event(&seen.result(json!({"content": []}))))
        }
        _ => Reply::text(202, "text/plain", "Accepted"),
    }
}

#[tokio::test]
async fn calls_share_one_stream_and_get_their_answers_on_it() {
    let stream = Stream::default();
    let fake = Fake::start(move |seen| answer(&stream, seen)).await;
    let tools = client(|_| {});
    let (server, reported) = (fake.server_for("Bearer x", "a"), Reported::default());
    let list = tools.list(&server).await.unwrap();
    let note = |progress| reported.note(&progress);
    let nothing = Map::new();
    let calls = (0..3).map(|_| call_with(&tools, &server, &list, "t", &nothing, &note));
    let results = futures_util::future::join_all(calls).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(reported.all(), [1.0, 1.0, 1.0]);
    assert_eq!(fake.asked().iter().filter(|what| *what == "GET").count(), 1);
    let answered = fake.seen().iter().any(|seen| seen.body["result"] == json!({}) && seen.body["id"] == 1);
    assert!(answered, "the ping is answered");
    assert!(fake.seen().iter().all(|seen| seen.header("authorization") == "Bearer x"));
}

/// Opens every page, and gives a person a minute.
struct Opens(Mutex<Vec<String>>);

impl Follower for Opens {
    fn progress(&self, _: Progress) {}

    fn page<'a>(&'a self, page: &'a Url) -> BoxFuture<'a, Opening> {
        self.0.lock().unwrap().push(page.to_string());
        ready(Opening::Shown(Duration::from_secs(60))).boxed()
    }
}

/// A server whose tool answers once a page was accepted as often as `calls` says, and what it is sent at each call.
async fn wanting_a_page(calls: usize) -> Fake {
    let (stream, waiting) = (Stream::default(), Arc::new(Mutex::new(Vec::new())));
    Fake::start(move |seen| {
        let say = |text: String| stream.lock().unwrap().as_ref().unwrap().send(text).unwrap();
        let mut waiting = waiting.lock().unwrap();
        match seen.what().as_str() {
            "tools/call" => {
                waiting.push(seen.result(json!({"content": []})));
                if waiting.len() == calls {
                    let page = json!({"mode": "url", "url": "https://a.example/x", "message": "m"});
                    let asked =
                        json!({"jsonrpc": "2.0", "id": 9, "method": "elicitation/create", "params": page});
                    say(event(&asked));
                }
                Reply::empty(202)
            }
            _ if seen.body["id"] == 9 => {
                waiting.drain(..).for_each(|result| say(event(&result)));
                Reply::empty(202)
            }
            _ => answer(&stream, seen),
        }
    })
    .await
}

#[tokio::test]
async fn a_page_is_for_the_only_call_and_never_for_one_of_several() {
    for (calls, action, opened) in [(1, "accept", 1), (2, "cancel", 0)] {
        let fake = wanting_a_page(calls).await;
        let tools = client(|_| {});
        let (server, opens) = (fake.server(), Opens(Mutex::default()));
        let list = tools.list(&server).await.unwrap();
        let nothing = Map::new();
        let asked = (0..calls).map(|_| call_with(&tools, &server, &list, "t", &nothing, &opens));
        let results = futures_util::future::join_all(asked).await;
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        assert_eq!(*opens.0.lock().unwrap(), vec!["https://a.example/x"; opened]);
        let seen = fake.seen();
        let answer = seen.iter().find(|seen| seen.body["id"] == 9 && seen.body["method"].is_null());
        assert_eq!(answer.unwrap().body["result"], json!({"action": action}));
    }
}

#[tokio::test]
async fn an_endpoint_at_another_origin_is_refused() {
    let other = Fake::start(|_| Reply::empty(202)).await;
    let endpoint = format!("http://127.0.0.1:{}/post", other.port);
    let stream = Stream::default();
    let fake = Fake::start(move |seen| match seen.verb.as_str() {
        "GET" => open(&stream, &endpoint),
        _ => Reply::empty(405),
    })
    .await;
    let listed = client(|_| {}).list(&fake.server()).await;
    assert!(matches!(&listed, Err(Error::Protocol(text)) if text.contains("another origin")), "{listed:?}");
    assert!(other.asked().is_empty());
}

#[tokio::test]
async fn a_stream_that_ends_fails_its_calls_and_is_opened_again_for_the_next() {
    let stream = Stream::default();
    let fake = {
        let stream = Arc::clone(&stream);
        Fake::start(move |seen| answer(&stream, seen)).await
    };
    let tools = client(|_| {});
    let server = fake.server();
    let list = tools.list(&server).await.unwrap();
    *stream.lock().unwrap() = None;
    // The end of the stream may be noticed before the call is posted or after it; the call is not made twice.
    let first = call(&tools, &server, &list, "t").await;
    assert!(matches!(&first, Ok(_) | Err(Error::Unreachable { maybe_ran: true, .. })), "{first:?}");
    call(&tools, &server, &list, "t").await.unwrap();
    assert_eq!(fake.asked().iter().filter(|what| *what == "tools/call").count(), 2);
    assert_eq!(fake.asked().iter().filter(|what| *what == "GET").count(), 2);
}
