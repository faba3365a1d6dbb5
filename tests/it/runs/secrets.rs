//! Credentials are in nothing that is kept of a run, while it goes on and after.

use serde_json::json;
use toolgate::config::Secret;

use super::scene::{json_of, stored};
use super::watcher::{self, Watcher};
use crate::support::{
    FakeMcp, FakeTool, Gate, Gateway, Logs, Peer, Person, Place, Protected, Reply, ask, calls, text, with,
};

/// Stands in every credential.
const CANARY: &str = "-CaNaRy8e2b64";

/// Everything the tables of runs hold, as text.
async fn rows(place: &Place) -> String {
    let store = place.store().await;
    let mut all = String::new();
    for (sql, columns) in [
        (
            "SELECT request, state, metadata, title, search FROM runs",
            &["request", "state", "metadata", "title", "search"][..],
        ),
        ("SELECT events, steps FROM run_events", &["events", "steps"]),
        ("SELECT key_hash, body_hash FROM run_keys", &["key_hash", "body_hash"]),
    ] {
        for row in store.rows(sql, Vec::new()).await.unwrap() {
            for column in columns {
                let bytes = row.opt_bytes(column).unwrap().unwrap_or_default();
                all.push_str(&String::from_utf8_lossy(&bytes));
            }
        }
    }
    store.close().await;
    all
}

fn assert_nowhere(place: &Place, what: &str, text: &str) {
    let at = text.find(CANARY).map(|at| text[at.saturating_sub(200)..].chars().take(300).collect::<String>());
    assert_eq!(at, None, "in {what}");
    for entry in std::fs::read_dir(place.folder()).unwrap().flatten().filter(|entry| entry.path().is_file()) {
        let bytes = std::fs::read(entry.path()).unwrap();
        let is_there = bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes());
        assert!(!is_there, "in {}", entry.path().display());
    }
}

#[tokio::test]
async fn credentials_of_a_run_are_in_no_row_file_event_page_webhook_or_log() {
    let logs = Logs::catch();
    let gate = Gate::new();
    let open = FakeMcp::start(vec![FakeTool::text("t", "a result").behind(&gate)]).await;
    let second = FakeMcp::start(vec![FakeTool::text("t", "a result")]).await;
    let users = Protected::marked(vec![FakeTool::text("t", "a result")], CANARY).await;
    let app = Peer::start(|_| Reply::with_headers(204, &[], "")).await;
    let list = || calls(&[("a", "one_t", json!({})), ("b", "two_t", json!({})), ("c", "s_t", json!({}))]);
    let provider = super::scene::calling(list, || text("done")).await;
    let place = Place::new().await;
    let gateway = Gateway::configured(&provider, |settings| {
        place.give_to(settings);
        settings.providers[0].api_key = Some(Secret::new(format!("provider{CANARY}")));
    })
    .await;
    // Ann is logged in.
    let ann = with(ask(&[users.entry("s")]), json!({ "user": "ann" }));
    let shown = gateway.client.chat(&ann).await.json();
    let link = shown["toolgate"]["authorization_required"][0]["connect_url"].as_str().unwrap().to_owned();
    assert_eq!(Person::new().log_in(&link).await.status, 200);

    let one = with(
        open.entry("one"),
        json!({ "authorization": format!("in-tools{CANARY}"), "headers": { "X-Team": format!("team{CANARY}") } }),
    );
    let body = with(
        ask(&[one, second.entry("two"), users.entry("s")]),
        json!({ "user": "ann", "metadata": { "a": "b" }, "toolgate": { "webhook_url": app.url("/") } }),
    );
    let host = second.peer.host();
    let by_host = format!("{host}=Bearer header{CANARY}");
    let forwarded = format!("Bearer mine{CANARY}");
    let headers = [
        ("x-mcp-authorization", by_host.as_str()),
        ("authorization", forwarded.as_str()),
        ("idempotency-key", "k"),
    ];
    let started = gateway.client.post("/v1/tasks", &headers, &stored(body)).await;
    assert_eq!(started.status, 202, "{}", started.text());
    let id = started.json()["id"].as_str().unwrap().to_owned();
    let so_far = Watcher::open(&gateway.client, &id, None).await.unwrap().until("tool_result").await;
    open.until_calls(1).await;
    let now = rows(&place).await;
    assert!(now.contains("calling") && now.contains("one_t"), "it is in the middle: {now}");
    assert_nowhere(&place, "rows of a run that goes on", &now);
    assert_nowhere(&place, "its events", &format!("{so_far:?}"));
    gate.open();
    let seen = watcher::all(&gateway.client, &id).await;
    assert_eq!(seen.last().unwrap().data["reason"], "stop", "{seen:?}");
    app.until_requests(1).await;
    // All of them were used.
    let used = |peer: &Peer, word: &str| {
        peer.requests().iter().any(|request| request.headers.iter().any(|(_, value)| value.contains(word)))
    };
    assert!(used(&open.peer, "in-tools-CaNaRy") && used(&open.peer, "team-CaNaRy"));
    assert!(used(&second.peer, "header-CaNaRy") && used(&users.peer, "-CaNaRy"));
    assert!(used(&provider.peer, "-CaNaRy"));
    assert_nowhere(&place, "rows", &rows(&place).await);
    assert_nowhere(&place, "events", &format!("{seen:?}"));
    assert_nowhere(&place, "its JSON", &json_of(&gateway.client, &id).await.to_string());
    for path in [
        format!("/{id}.md"),
        format!("/{id}?key=prompt"),
        format!("/{id}?key=context"),
        format!("/v1/runs/{id}"),
        format!("/v1/chat/completions/{id}"),
        format!("/v1/chat/completions/{id}/messages"),
        "/v1/chat/completions".to_owned(),
        "/metrics".to_owned(),
    ] {
        assert_nowhere(&place, &path, &gateway.client.get(&path).await.text());
    }
    let page = crate::support::whole(
        gateway.client.send("GET", &format!("/{id}"), &[("accept", "text/html")], "").await,
    );
    assert_nowhere(&place, "the page", &page.await.text());
    for request in app.requests() {
        assert_nowhere(&place, "the webhook", &format!("{:?} {}", request.headers, request.text()));
    }
    for body in provider.bodies() {
        assert_nowhere(&place, "what the model sees", &body.to_string());
    }
    assert_nowhere(&place, "the log", &logs.text());
}
