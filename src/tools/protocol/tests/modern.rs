//! Servers of the 2026-07-28 revision, and what all eras have in common.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Map, Value, json};

use super::fake::{Fake, Reply, Reported, Seen, Then, call, call_with, client, event, modern_list};
use crate::config::Secret;
use crate::tools::{Challenge, Error, Progress};

fn answer(seen: &Seen) -> Reply {
    match seen.what().as_str() {
        "tools/list" => Reply::json(&seen.result(modern_list())),
        _ => Reply::json(&seen.result(json!({"resultType": "complete", "content": []}))),
    }
}

#[tokio::test]
async fn a_warm_call_is_one_post_whose_headers_repeat_its_body() {
    let fake = Fake::start(answer).await;
    let tools = client(|_| {});
    let mut server = fake.server_for("Bearer secret", "a");
    server.headers = vec![
        ("x-team".parse().unwrap(), Secret::new("7")),
        ("mcp-method".parse().unwrap(), Secret::new("forged")),
    ];
    let list = tools.list(&server).await.unwrap();
    for _ in 0..2 {
        let list = tools.list(&server).await.unwrap();
        call(&tools, &server, &list, "t").await.unwrap();
    }
    assert_eq!(list.tools.len(), 1);
    assert_eq!(fake.asked(), ["tools/list", "tools/call", "tools/call"]);
    let seen = &fake.seen()[1];
    let meta = &seen.body["params"]["_meta"];
    assert_eq!(seen.header("mcp-protocol-version"), meta["io.modelcontextprotocol/protocolVersion"]);
    assert_eq!(seen.header("mcp-method"), "tools/call");
    assert_eq!(seen.header("mcp-name"), "t");
    assert_eq!((seen.header("authorization"), seen.header("x-team")), ("Bearer secret", "7"));
    assert!(seen.headers.get("mcp-session-id").is_none());
}

#[tokio::test]
async fn answers_of_both_forms_leave_the_connection_to_the_next_call() {
    let fake = Fake::start(|seen| match (seen.what().as_str(), seen.body["id"].as_u64()) {
        ("tools/call", Some(id)) if id % 2 == 0 => {
            Reply::events(&event(&seen.result(json!({"content": []}))), Then::End)
        }
        _ => answer(seen),
    })
    .await;
    let tools = client(|_| {});
    let list = tools.list(&fake.server()).await.unwrap();
    for _ in 0..20 {
        call(&tools, &fake.server(), &list, "t").await.unwrap();
    }
    // A call that follows at once may find the last stream not ended yet, and the second connection free.
    assert!(fake.connections() <= 2, "{} connections for 20 calls", fake.connections());
}

#[tokio::test]
async fn lists_are_shared_as_widely_as_the_server_allows_and_no_further() {
    for (extra, expect) in [
        (json!({}), 2),
        (json!({"ttlMs": 60000, "cacheScope": "private"}), 2),
        (json!({"ttlMs": 60000, "cacheScope": "public"}), 1),
        (json!({"ttlMs": 0, "cacheScope": "public"}), 4),
    ] {
        let fake = Fake::start(move |seen| {
            let mut list = modern_list();
            list.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            Reply::json(&seen.result(list))
        })
        .await;
        let tools = client(|_| {});
        for credential in ["Bearer a", "Bearer b"] {
            for _ in 0..2 {
                tools.list(&fake.server_for(credential, "same")).await.unwrap();
            }
        }
        assert_eq!(fake.asked().len(), expect);
    }
}

#[tokio::test]
async fn many_who_want_the_same_list_ask_once() {
    let fake = Fake::start(|seen| {
        let mut list = modern_list();
        list["ttlMs"] = json!(0);
        Reply::json(&seen.result(list))
    })
    .await;
    let tools = client(|_| {});
    let server = fake.server();
    let lists = futures_util::future::join_all((0..10).map(|_| tools.list(&server))).await;
    assert!(lists.iter().all(Result::is_ok));
    assert_eq!(fake.asked().len(), 1);
}

#[tokio::test]
async fn a_call_whose_connection_was_cut_is_not_made_again() {
    let fake = Fake::start(|seen| match seen.what().as_str() {
        "tools/call" => Reply::events("id: 1\ndata:\n\n", Then::Cut),
        _ => answer(seen),
    })
    .await;
    let tools = client(|_| {});
    let list = tools.list(&fake.server()).await.unwrap();
    let called = call(&tools, &fake.server(), &list, "t").await;
    assert!(matches!(called, Err(Error::Unreachable { maybe_ran: true, .. })), "{called:?}");
    assert_eq!(fake.asked(), ["tools/list", "tools/call"]);
}

#[tokio::test]
async fn nothing_ran_where_nobody_listens() {
    let fake = Fake::start(answer).await;
    let tools = client(|_| {});
    let mut server = fake.server();
    // Port 1 is never listened on here.
    server.uri = "http://127.0.0.1:1/mcp".parse().unwrap();
    let listed = tools.list(&server).await;
    assert!(matches!(listed, Err(Error::Unreachable { maybe_ran: false, .. })), "{listed:?}");
}

#[tokio::test]
async fn progress_is_reported_and_a_changed_list_is_asked_for_again() {
    let fake = Fake::start(|seen| match seen.what().as_str() {
        "tools/call" => {
            let id = &seen.body["id"];
            let progress = |token: &Value, progress: f64| {
                let params = json!({"progressToken": token, "progress": progress});
                event(&json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}))
            };
            let changed = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
            let result = event(&seen.result(json!({"content": []})));
            let all =
                progress(id, 1.0) + &progress(&json!("other"), 9.0) + &event(&changed) + &progress(id, 2.0);
            Reply::events(&(all + &result), Then::Hold)
        }
        _ => answer(seen),
    })
    .await;
    let tools = client(|_| {});
    let (server, reported) = (fake.server(), Reported::default());
    let list = tools.list(&server).await.unwrap();
    let note = |progress| reported.note(&progress);
    call_with(&tools, &server, &list, "t", &Map::new(), &note).await.unwrap();
    assert_eq!(reported.all(), [1.0, 2.0]);
    tools.list(&server).await.unwrap();
    assert_eq!(fake.asked(), ["tools/list", "tools/call", "tools/list"]);
}

#[tokio::test]
async fn a_refusal_of_the_credential_is_told_as_it_is_and_says_nothing_about_the_era() {
    let fake = Fake::start(|seen| match seen.header("authorization") {
        "" => Reply::text(401, "text/plain", "no").with("www-authenticate", "Basic realm=x").with(
            "www-authenticate",
            r#"Bearer error="invalid_token", resource_metadata="https://m.example/""#,
        ),
        _ => answer(seen),
    })
    .await;
    let tools = client(|_| {});
    let refused = tools.list(&fake.server()).await.unwrap_err();
    let Error::Unauthorized(challenge) = refused else { panic!("{refused:?}") };
    assert_eq!(
        challenge,
        Challenge {
            status: 401,
            error: Some("invalid_token".into()),
            scope: None,
            resource_metadata: Some("https://m.example/".into()),
        }
    );
    tools.list(&fake.server_for("Bearer x", "a")).await.unwrap();
    assert_eq!(fake.asked(), ["tools/list", "tools/list"]);
}

#[tokio::test]
async fn answers_beyond_the_limit_are_refused_in_every_form() {
    let long = "x".repeat(5000);
    for form in 0..3 {
        let long = long.clone();
        let fake = Fake::start(move |seen| match (seen.what().as_str(), form) {
            ("tools/list", _) => answer(seen),
            (_, 0) => Reply::json(&seen.result(json!({ "content": long }))),
            (_, 1) => Reply::events(&event(&seen.result(json!({ "content": long }))), Then::Hold),
            _ => Reply::events(&format!("data: {long}"), Then::Hold),
        })
        .await;
        let tools = client(|settings| settings.response_bytes = 4000);
        let list = tools.list(&fake.server()).await.unwrap();
        let called = call(&tools, &fake.server(), &list, "t").await;
        assert!(matches!(called, Err(Error::TooLarge { limit: 4000 })), "{called:?}");
    }
}

#[tokio::test]
async fn a_call_nobody_waits_for_is_cancelled_by_leaving() {
    let fake = Fake::start(|seen| match seen.what().as_str() {
        "tools/call" => Reply::events("", Then::Hold),
        _ => answer(seen),
    })
    .await;
    let tools = client(|_| {});
    let server = fake.server();
    let list = tools.list(&server).await.unwrap();
    let calling = call(&tools, &server, &list, "t");
    tokio::select! {
        _ = calling => panic!("the server never answers"),
        _ = fake.wait_for("tools/call") => {}
    }
    fake.wait_until_left().await;
    assert_eq!(fake.asked(), ["tools/list", "tools/call"]);
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    let fake = Fake::start(|seen| match seen.what().as_str() {
        "tools/call" => Reply::events("", Then::Hold),
        _ => answer(seen),
    })
    .await;
    let tools = client(|settings| settings.call_seconds = 1);
    let list = tools.list(&fake.server()).await.unwrap();
    let called = call(&tools, &fake.server(), &list, "t").await;
    assert!(matches!(called, Err(Error::Timeout { .. })), "{called:?}");
}

#[tokio::test]
async fn a_version_refused_but_named_as_supported_is_offered_once_more() {
    let refusals = Arc::new(AtomicU32::new(0));
    let fake = Fake::start(move |seen| {
        if refusals.fetch_add(1, Ordering::SeqCst) > 0 {
            return answer(seen);
        }
        let mut error = seen.error(-32022, "Unsupported protocol version");
        error["error"]["data"] = json!({"supported": ["2026-07-28"]});
        Reply::json(&error).status(400)
    })
    .await;
    client(|_| {}).list(&fake.server()).await.unwrap();
    assert_eq!(fake.asked(), ["tools/list", "tools/list"]);
}

#[tokio::test]
async fn a_call_whose_headers_do_not_fit_any_more_is_made_again_with_the_new_ones() {
    let fake = Fake::start(|seen| match (seen.what().as_str(), seen.header("mcp-param-new")) {
        ("tools/list", _) => {
            // The annotation appears after the first call was refused; the header tells which list was read.
            let annotated =
                json!({"type": "object", "properties": {"a": {"type": "string", "x-mcp-header": "New"}}});
            let plain = json!({"type": "object"});
            let schema = if seen.body["id"].as_u64() > Some(2) { annotated } else { plain };
            Reply::json(&seen.result(json!({
                "resultType": "complete", "tools": [{"name": "t", "inputSchema": schema}],
            })))
        }
        (_, "") => Reply::json(&seen.error(-32020, "Header mismatch")).status(400),
        _ => answer(seen),
    })
    .await;
    let tools = client(|_| {});
    let list = tools.list(&fake.server()).await.unwrap();
    let Value::Object(arguments) = json!({"a": "x"}) else { unreachable!() };
    call_with(&tools, &fake.server(), &list, "t", &arguments, &|_: Progress| {}).await.unwrap();
    assert_eq!(fake.asked(), ["tools/list", "tools/call", "tools/list", "tools/call"]);
}

#[tokio::test]
async fn a_server_that_wants_a_form_filled_in_is_told_that_nobody_does() {
    let fake = Fake::start(|seen| match (seen.what().as_str(), &seen.body["params"]["inputResponses"]) {
        ("tools/call", Value::Null) => Reply::json(&seen.result(json!({
            "resultType": "input_required", "requestState": "s",
            "inputRequests": {"k": {"method": "elicitation/create", "params": {"message": "Sure?"}}},
        }))),
        ("tools/call", answers) => Reply::json(&seen.result(json!({
            "content": [], "answers": answers, "state": seen.body["params"]["requestState"],
        }))),
        _ => answer(seen),
    })
    .await;
    let tools = client(|_| {});
    let list = tools.list(&fake.server()).await.unwrap();
    let result = call(&tools, &fake.server(), &list, "t").await.unwrap();
    assert!(result.contains(r#""answers":{"k":{"action":"cancel"}},"state":"s""#), "{result}");
    assert_ne!(fake.seen()[1].body["id"], fake.seen()[2].body["id"]);
}

#[tokio::test]
async fn pages_are_followed_and_a_circle_of_them_is_an_error() {
    let fake = Fake::start(|seen| {
        let cursor = seen.body["params"]["cursor"].as_str().unwrap_or("0").parse::<u32>().unwrap();
        let mut list = json!({"resultType": "complete",
            "tools": [{"name": format!("t{cursor}"), "inputSchema": {"type": "object"}}]});
        if seen.path == "/circle" {
            list["nextCursor"] = json!("0");
        } else if cursor < 2 {
            list["nextCursor"] = json!((cursor + 1).to_string());
        }
        Reply::json(&seen.result(list))
    })
    .await;
    let tools = client(|_| {});
    let mut server = fake.server();
    assert_eq!(tools.list(&server).await.unwrap().tools.len(), 3);
    server.uri = format!("http://127.0.0.1:{}/circle", fake.port).parse().unwrap();
    assert!(matches!(tools.list(&server).await, Err(Error::Protocol(_))));
}

#[tokio::test]
async fn a_redirect_to_another_origin_does_not_take_the_credential_along() {
    let target = Fake::start(answer).await;
    let to = format!("http://127.0.0.1:{}/mcp", target.port);
    let fake = Fake::start(move |_| Reply::empty(307).with("location", &to)).await;
    client(|_| {}).list(&fake.server_for("Bearer secret", "a")).await.unwrap();
    assert_eq!(fake.seen()[0].header("authorization"), "Bearer secret");
    assert!(target.seen()[0].headers.get("authorization").is_none());
    assert_eq!(target.seen()[0].header("mcp-method"), "tools/list");
}

#[tokio::test]
async fn an_error_of_a_tool_is_told_with_a_harmless_text_and_not_called_again() {
    let fake = Fake::start(|seen| match seen.what().as_str() {
        "tools/call" => Reply::json(&seen.error(-32602, "no such\u{1b}[31m tool")).status(400),
        _ => answer(seen),
    })
    .await;
    let tools = client(|_| {});
    let list = tools.list(&fake.server()).await.unwrap();
    let called = call(&tools, &fake.server(), &list, "t").await.unwrap_err();
    let Error::Rpc { code: -32602, message } = called else { panic!("{called:?}") };
    assert_eq!(message, "no such[31m tool");
    assert_eq!(fake.asked(), ["tools/list", "tools/call"]);
}
