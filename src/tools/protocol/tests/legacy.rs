//! Servers of the revisions with `initialize` and sessions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Map, json};

use super::fake::{Fake, Reply, Reported, Seen, Then, call, call_with, client, event};
use crate::tools::Error;

fn list() -> serde_json::Value {
    json!({"tools": [{"name": "t", "inputSchema": {"type": "object"}}]})
}

/// A strict server of 2025-11-25 whose session is `session`.
fn answer_in(session: &str, seen: &Seen) -> Reply {
    let named = seen.header("mcp-session-id");
    match seen.what().as_str() {
        "initialize" => Reply::json(&seen.result(json!({
            "protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "x", "version": "1"},
        })))
        .with("mcp-session-id", session),
        "DELETE" => Reply::empty(204),
        _ if named.is_empty() => {
            Reply::json(&seen.error(-32000, "Bad Request: session required")).status(400)
        }
        _ if named != session => Reply::json(&seen.error(-32001, "Session not found")).status(404),
        "tools/list" => Reply::json(&seen.result(list())),
        "tools/call" => Reply::json(&seen.result(json!({"content": []}))),
        _ => Reply::empty(202),
    }
}

fn answer(seen: &Seen) -> Reply {
    answer_in("s", seen)
}

const OPENING: [&str; 4] = ["tools/list", "initialize", "notifications/initialized", "tools/list"];

#[tokio::test]
async fn a_session_is_opened_once_used_by_all_calls_and_ended() {
    let fake = Fake::start(answer).await;
    let tools = client(|_| {});
    let server = fake.server_for("Bearer x", "a");
    let list = tools.list(&server).await.unwrap();
    let calls = (0..4).map(|_| call(&tools, &server, &list, "t"));
    assert!(futures_util::future::join_all(calls).await.iter().all(Result::is_ok));
    tools.close().await;
    let asked = fake.asked();
    assert_eq!(asked[..4], OPENING);
    assert_eq!(asked[4..], ["tools/call", "tools/call", "tools/call", "tools/call", "DELETE"]);
    assert_eq!(fake.seen()[1].body["params"]["protocolVersion"], "2025-11-25");
    for seen in &fake.seen()[2..] {
        assert_eq!(seen.header("mcp-session-id"), "s");
        assert_eq!(seen.header("mcp-protocol-version"), "2025-11-25");
        assert_eq!(seen.header("authorization"), "Bearer x");
    }
}

#[tokio::test]
async fn a_session_that_makes_room_ends_and_its_user_gets_another() {
    let fake = Fake::start(answer).await;
    let tools = client(|settings| settings.max_sessions = 1);
    let (one, other) = (fake.server_for("Bearer x", "a"), fake.server_for("Bearer x", "b"));
    let list = tools.list(&one).await.unwrap();
    // The cache makes room when it gets around to it, at the latest after some more use.
    let ended = async { fake.wait_for("DELETE").await };
    let using = async {
        loop {
            for server in [&one, &other] {
                call(&tools, server, &list, "t").await.unwrap();
            }
        }
    };
    tokio::select! {
        _ = ended => {}
        () = using => {}
    }
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_sessions() {
    let fake = Fake::start(answer).await;
    let tools = client(|_| {});
    tools.list(&fake.server()).await.unwrap();
    drop(tools);
    assert_eq!(fake.wait_for("DELETE").await.header("mcp-session-id"), "s");
}

#[tokio::test]
async fn users_never_share_a_session() {
    let fake = Fake::start(answer).await;
    let tools = client(|_| {});
    for scope in ["a", "b"] {
        let server = fake.server_for("Bearer same", scope);
        let list = tools.list(&server).await.unwrap();
        call(&tools, &server, &list, "t").await.unwrap();
    }
    assert_eq!(fake.asked().iter().filter(|what| *what == "initialize").count(), 2);
}

#[tokio::test]
async fn a_forgotten_session_is_opened_again_once_and_the_call_made_in_it() {
    let openings = Arc::new(AtomicU32::new(0));
    let fake = Fake::start(move |seen| {
        if seen.what() == "initialize" {
            openings.fetch_add(1, Ordering::SeqCst);
        }
        // The first session is forgotten as soon as a tool is called.
        let second = openings.load(Ordering::SeqCst) > 1;
        let session = if second || seen.what() == "tools/call" { "second" } else { "first" };
        answer_in(session, seen)
    })
    .await;
    let tools = client(|_| {});
    let list = tools.list(&fake.server()).await.unwrap();
    call(&tools, &fake.server(), &list, "t").await.unwrap();
    tools.close().await;
    let again = ["tools/call", "initialize", "notifications/initialized", "tools/call", "DELETE"];
    assert_eq!(fake.asked()[4..], again);
    assert_eq!(fake.seen()[8].header("mcp-session-id"), "second");
}

/// A server whose first session is lost when a tool is called in it: to what comes in it then, `lost` is the answer.
async fn forgetful(lost: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Fake {
    let openings = Arc::new(AtomicU32::new(0));
    let is_lost = Arc::new(AtomicU32::new(0));
    Fake::start(move |seen| {
        if seen.what() == "initialize" {
            openings.fetch_add(1, Ordering::SeqCst);
        }
        let newest = if openings.load(Ordering::SeqCst) > 1 { "second" } else { "first" };
        if seen.what() == "tools/call" {
            is_lost.store(1, Ordering::SeqCst);
        }
        let is_in_first = seen.header("mcp-session-id") == "first" && seen.what() != "DELETE";
        if is_in_first && is_lost.load(Ordering::SeqCst) == 1 { lost(seen) } else { answer_in(newest, seen) }
    })
    .await
}

fn count(fake: &Fake, what: &str) -> usize {
    fake.asked().iter().filter(|asked| *asked == what).count()
}

type Lost = fn(&Seen) -> Reply;

#[tokio::test]
async fn a_lost_session_is_noticed_however_its_server_says_so() {
    let ways: [(&str, Lost); 11] = [
        ("404 page", |_| Reply::text(404, "text/html", "<h1>Not Found</h1>")),
        ("410", |_| Reply::empty(410)),
        ("400 initialized", |seen| {
            Reply::json(&seen.error(-32000, "Bad Request: Server not initialized")).status(400)
        }),
        ("400 no id", |seen| {
            Reply::json(&seen.error(-32000, "Bad Request: No valid session ID provided")).status(400)
        }),
        ("400 empty", |_| Reply::empty(400)),
        ("422", |_| Reply::text(422, "text/plain", "cannot do that now")),
        ("401", |_| Reply::text(401, "application/json", r#"{"error":"session expired"}"#)),
        ("200 -32600", |seen| Reply::json(&seen.error(-32600, "Invalid Request"))),
        ("200 -32001", |seen| Reply::json(&seen.error(-32001, "Unknown session"))),
        ("500 named", |seen| Reply::json(&seen.error(-32603, "session not found")).status(500)),
        ("200 no JSON-RPC", |_| Reply::text(200, "application/json", r#"{"error":"Session not found"}"#)),
    ];
    for (name, lost) in ways {
        let fake = forgetful(lost).await;
        let tools = client(|_| {});
        let list = tools.list(&fake.server()).await.unwrap();
        let called = call(&tools, &fake.server(), &list, "t").await;
        assert!(called.is_ok(), "{name}: {called:?} {:?}", fake.asked());
        assert_eq!((count(&fake, "tools/call"), count(&fake, "initialize")), (2, 2), "{name}");
        let in_second = fake.seen().into_iter().filter(|seen| seen.header("mcp-session-id") == "second");
        assert_eq!(in_second.filter(|seen| seen.what() == "tools/call").count(), 1, "{name}");
    }
}

#[tokio::test]
async fn a_call_that_may_have_run_is_not_made_again_although_its_session_is_lost() {
    let fake = forgetful(|_| Reply::text(500, "text/plain", "Internal Server Error")).await;
    let tools = client(|_| {});
    let list = tools.list(&fake.server()).await.unwrap();
    let called = call(&tools, &fake.server(), &list, "t").await;
    assert!(matches!(called, Err(Error::Status { status: 500 })), "{called:?}");
    assert_eq!(count(&fake, "tools/call"), 1);
    // The next one has a session.
    assert!(call(&tools, &fake.server(), &list, "t").await.is_ok());
    assert_eq!((count(&fake, "tools/call"), count(&fake, "initialize")), (2, 2));
}

#[tokio::test]
async fn a_call_that_is_refused_in_a_good_session_is_believed() {
    let ways: [(&str, Lost); 6] = [
        ("400", |seen| Reply::json(&seen.error(-32000, "wrong arguments")).status(400)),
        ("400 empty", |_| Reply::empty(400)),
        ("422", |_| Reply::empty(422)),
        ("500", |_| Reply::empty(500)),
        ("-32000", |seen| Reply::json(&seen.error(-32000, "Database session expired"))),
        ("-32600", |seen| Reply::json(&seen.error(-32600, "Invalid Request"))),
    ];
    for (name, refusal) in ways {
        let fake = Fake::start(move |seen| match seen.what().as_str() {
            "tools/call" => refusal(seen),
            "ping" => Reply::json(&seen.result(json!({}))),
            _ => answer(seen),
        })
        .await;
        let tools = client(|_| {});
        let list = tools.list(&fake.server()).await.unwrap();
        assert!(call(&tools, &fake.server(), &list, "t").await.is_err(), "{name}");
        assert_eq!((count(&fake, "tools/call"), count(&fake, "initialize")), (1, 1), "{name}");
    }
}

#[tokio::test]
async fn a_refusal_of_the_credential_in_a_session_is_told_as_such() {
    for challenge in ["", "Bearer"] {
        let refusing = Arc::new(AtomicU32::new(0));
        let is_refusing = Arc::clone(&refusing);
        let fake = Fake::start(move |seen| match is_refusing.load(Ordering::SeqCst) {
            1 if seen.what() != "DELETE" => match challenge {
                "" => Reply::empty(401),
                challenge => Reply::empty(401).with("www-authenticate", challenge),
            },
            _ => answer(seen),
        })
        .await;
        let tools = client(|_| {});
        let list = tools.list(&fake.server()).await.unwrap();
        refusing.store(1, Ordering::SeqCst);
        let called = call(&tools, &fake.server(), &list, "t").await;
        assert!(matches!(called, Err(Error::Unauthorized(_))), "{challenge}: {called:?}");
        assert_eq!(count(&fake, "tools/call"), 1, "{challenge}");
    }
}

#[tokio::test]
async fn a_server_that_forgets_every_session_is_not_asked_for_ever() {
    let fake = Fake::start(|seen| match seen.what().as_str() {
        "tools/call" => Reply::empty(404),
        _ => answer(seen),
    })
    .await;
    let tools = client(|_| {});
    let list = tools.list(&fake.server()).await.unwrap();
    assert!(call(&tools, &fake.server(), &list, "t").await.is_err());
    assert_eq!(fake.asked().iter().filter(|what| *what == "tools/call").count(), 2);
}

#[tokio::test]
async fn a_cut_stream_is_taken_up_after_its_last_event_and_the_call_not_made_again() {
    let fake = Fake::start(|seen| match seen.what().as_str() {
        "tools/call" => {
            let id = seen.body["id"].as_u64().unwrap();
            Reply::events(&format!("id: {id}\nretry: 1\ndata:\n\n"), Then::Cut)
        }
        "GET" => {
            let id = seen.header("last-event-id").parse::<u64>().unwrap();
            let response = json!({"jsonrpc": "2.0", "id": id, "result": {"content": ["late"]}});
            Reply::events(&event(&response), Then::Hold)
        }
        _ => answer(seen),
    })
    .await;
    let tools = client(|_| {});
    let list = tools.list(&fake.server()).await.unwrap();
    let result = call(&tools, &fake.server(), &list, "t").await.unwrap();
    assert_eq!(result, r#"{"content":["late"]}"#);
    assert_eq!(fake.asked()[4..], ["tools/call", "GET"]);
    assert_eq!(fake.seen()[5].header("mcp-session-id"), "s");
}

#[tokio::test]
async fn a_stream_that_is_cut_again_and_again_is_given_up() {
    let fake = Fake::start(|seen| match seen.what().as_str() {
        "tools/call" | "GET" => Reply::events("id: 1\nretry: 1\ndata:\n\n", Then::Cut),
        _ => answer(seen),
    })
    .await;
    let tools = client(|_| {});
    let list = tools.list(&fake.server()).await.unwrap();
    let called = call(&tools, &fake.server(), &list, "t").await;
    assert!(matches!(called, Err(Error::Unreachable { maybe_ran: true, .. })), "{called:?}");
    let asked = fake.asked();
    assert_eq!(asked.iter().filter(|what| *what == "tools/call").count(), 1);
    assert!((2..10).contains(&asked.iter().filter(|what| *what == "GET").count()), "{asked:?}");
}

#[tokio::test]
async fn a_call_nobody_waits_for_is_cancelled_at_the_server() {
    let fake = Fake::start(|seen| match seen.what().as_str() {
        "tools/call" => Reply::events("", Then::Hold),
        _ => answer(seen),
    })
    .await;
    let tools = client(|_| {});
    let server = fake.server();
    let list = tools.list(&server).await.unwrap();
    let calling = call(&tools, &server, &list, "t");
    let called = tokio::select! {
        _ = calling => panic!("the server never answers"),
        called = fake.wait_for("tools/call") => called,
    };
    let cancelled = fake.wait_for("notifications/cancelled").await;
    assert_eq!(cancelled.body["params"]["requestId"], called.body["id"]);
    assert_eq!(cancelled.header("mcp-session-id"), "s");
}

#[tokio::test]
async fn pings_are_answered_other_requests_refused_and_batches_read() {
    let fake = Fake::start(|seen| match seen.what().as_str() {
        "tools/call" => {
            let id = &seen.body["id"];
            let batch = json!([
                {"jsonrpc": "2.0", "id": "p", "method": "ping"},
                {"jsonrpc": "2.0", "id": 7, "method": "sampling/createMessage", "params": {}},
                {"jsonrpc": "2.0", "method": "notifications/progress",
                    "params": {"progressToken": id, "progress": 0.5}},
            ]);
            Reply::events(&(event(&batch) + &event(&seen.result(json!({"content": []})))), Then::End)
        }
        _ => answer(seen),
    })
    .await;
    let tools = client(|_| {});
    let (server, reported) = (fake.server(), Reported::default());
    let list = tools.list(&server).await.unwrap();
    let note = |progress| reported.note(&progress);
    call_with(&tools, &server, &list, "t", &Map::new(), &note).await.unwrap();
    assert_eq!(reported.all(), [0.5]);
    let answers: Vec<_> = fake.seen()[5..].iter().map(|seen| seen.body.clone()).collect();
    assert_eq!(answers[0], json!({"jsonrpc": "2.0", "id": "p", "result": {}}));
    assert_eq!((&answers[1]["id"], &answers[1]["error"]["code"]), (&json!(7), &json!(-32601)));
}

#[tokio::test]
async fn a_server_that_became_modern_is_noticed_and_one_that_was_not_is_believed() {
    let renewed = Arc::new(AtomicU32::new(0));
    let fake = {
        let renewed = Arc::clone(&renewed);
        Fake::start(move |seen| match (seen.what().as_str(), renewed.load(Ordering::SeqCst)) {
            (_, 0) => answer(seen),
            _ if !seen.header("mcp-session-id").is_empty() || seen.what() == "initialize" => {
                let mut error = seen.error(-32022, "Unsupported protocol version");
                error["error"]["data"] = json!({"supported": ["2026-07-28"]});
                Reply::json(&error).status(400)
            }
            ("server/discover", _) => Reply::json(&seen.result(json!({"supportedVersions": ["2026-07-28"]}))),
            _ => Reply::json(&seen.result(json!({"resultType": "complete", "content": ["new"]}))),
        })
        .await
    };
    let tools = client(|_| {});
    let list = tools.list(&fake.server()).await.unwrap();
    renewed.store(1, Ordering::SeqCst);
    let result = call(&tools, &fake.server(), &list, "t").await.unwrap();
    assert!(result.contains("new"));
    assert_eq!(fake.asked()[4..], ["tools/call", "server/discover", "tools/call"]);
}

#[tokio::test]
async fn an_error_that_may_come_from_the_tool_does_not_make_it_run_again() {
    // A server that checks little answers as if it were modern; its tool's error must not be taken for a sign
    // that it is not.
    let fake = Fake::start(|seen| match seen.what().as_str() {
        "tools/list" => Reply::json(&seen.result(list())),
        "tools/call" => Reply::json(&seen.error(-32000, "the tool failed")),
        _ => Reply::json(&seen.error(-32601, "Method not found")),
    })
    .await;
    let tools = client(|_| {});
    let list = tools.list(&fake.server()).await.unwrap();
    let called = call(&tools, &fake.server(), &list, "t").await;
    assert!(matches!(called, Err(Error::Rpc { code: -32000, .. })), "{called:?}");
    assert_eq!(fake.asked().iter().filter(|what| *what == "tools/call").count(), 1);
}

#[tokio::test]
async fn what_is_no_mcp_server_says_so() {
    for (status, kind, expect) in [
        (200, "text/html", "the server's answer is not MCP: it is neither JSON nor an event stream"),
        (404, "text/html", "the server answered with HTTP status 404"),
        (503, "text/plain", "the server answered with HTTP status 503"),
        (429, "application/json", "the server answered with HTTP status 429"),
        (200, "application/json", "the server's answer is not MCP: it is not JSON-RPC"),
    ] {
        let fake = Fake::start(move |_| Reply::text(status, kind, "<p>hello")).await;
        let listed = client(|_| {}).list(&fake.server()).await.unwrap_err();
        assert_eq!(listed.to_string(), expect);
    }
}
