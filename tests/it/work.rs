//! What the gateway does beside requests, when those it talks to do not answer, and when strangers call.

use std::time::Duration;

use serde_json::{Value, json};
use toolgate::store::{AuditRow, Store};

use crate::support::{
    Browser, FakeProvider, FakeTool, Gate, Gateway, Peer, Person, Place, Program, Protected, Recorded, Reply,
    text,
};

/// Long before a peer that does not answer is given up.
const SOON: Duration = Duration::from_secs(6);

async fn gateway(place: &Place) -> Gateway {
    let provider = FakeProvider::answering(|_| text("hello")).await;
    Gateway::configured(&provider, |settings| place.give_to(settings)).await
}

/// Asks for a login and gives what the gateway answers.
async fn start(gateway: &Gateway, user: &str, mcp: &Protected, callback: Option<String>) -> Value {
    let wanted = json!({ "user": user, "server_url": mcp.url(), "authorization_callback_url": callback });
    let started = gateway.client.post("/v1/connections", &[], &wanted).await;
    assert_eq!(started.status, 201, "{}", started.text());
    started.json()
}

async fn log_in(gateway: &Gateway, user: &str, mcp: &Protected) {
    let started = start(gateway, user, mcp, None).await;
    let page = Person::new().log_in(started["connect_url"].as_str().unwrap()).await;
    assert!(page.text.contains("authorised"), "{}", page.text);
}

async fn audit(store: &Store, event: &str) -> Vec<AuditRow> {
    let all = store.list_audit(None, 100_000).await.unwrap();
    all.into_iter().filter(|entry| entry.event == event).collect()
}

/// Waits until the audit log has `count` entries of this kind.
async fn until_audited(store: &Store, event: &str, count: usize) -> Vec<AuditRow> {
    let looking = async {
        loop {
            let found = audit(store, event).await;
            if found.len() >= count {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, looking).await.unwrap_or_else(|_| panic!("{count} entries of {event}"))
}

fn is_revocation(request: &Recorded) -> bool {
    request.path == "/revoke"
}

#[tokio::test]
async fn a_receiver_that_never_answers_holds_up_nobody_but_itself() {
    let mcp = Protected::start(vec![FakeTool::echo("t")]).await;
    let tarpit = Peer::start(|_| Reply::Silence).await;
    let app = Peer::start(|_| Reply::with_headers(204, &[], "")).await;
    let place = Place::new().await;
    let gateway = gateway(&place).await;
    for number in 0..80 {
        start(&gateway, &format!("evil-{number}"), &mcp, Some(tarpit.url("/hook"))).await;
    }
    tarpit.until_requests(8).await;

    let going_on = async {
        let flow = start(&gateway, "ann", &mcp, Some(app.url("/hook"))).await;
        assert!(flow["connect_url"].is_string(), "{flow}");
        app.until_requests(1).await;
        let store = place.store().await;
        let ended = "UPDATE flows SET expires_at = 1 WHERE callback_url = $1";
        let changed = store.execute(ended, vec![app.url("/hook").into()]).await.unwrap();
        assert_eq!(changed, 1);
        app.until_requests(2).await;
    };
    tokio::time::timeout(SOON, going_on).await.expect("others go on");
    let events: Vec<Value> = app.requests().iter().map(|request| request.json()["type"].clone()).collect();
    assert_eq!(events, ["authorization.requested", "authorization.expired"]);
    assert_eq!(tarpit.requests().len(), 8, "it has its places and no more");
}

#[tokio::test]
async fn an_authorization_server_that_never_answers_holds_up_no_revocation_but_its_own() {
    let never = Gate::new();
    let evil = Protected::start(vec![FakeTool::echo("t")]).await;
    evil.answer_revocations_after(&never);
    let good = Protected::start(vec![FakeTool::echo("t")]).await;
    good.answer_revocations(200);
    let place = Place::new().await;
    let first = gateway(&place).await;
    for number in 0..8 {
        log_in(&first, &format!("evil-{number}"), &evil).await;
    }
    log_in(&first, "ann", &good).await;
    first.stop().await;
    // Nobody has used them for long; ann's is the last in every order.
    let store = place.store().await;
    store.execute("UPDATE connections SET last_used_at = 1", Vec::new()).await.unwrap();
    let last = "UPDATE connections SET last_used_at = 2 WHERE resource = $1";
    store.execute(last, vec![good.url().into()]).await.unwrap();

    let _second = gateway(&place).await;
    let going_on = good.peer.until_requests_that(2, is_revocation);
    tokio::time::timeout(SOON, going_on).await.expect("others are revoked");
    assert_eq!(until_audited(&store, "connection.revoked", 9).await.len(), 9, "here all have ended");
    let told = until_audited(&store, "token.revocation", 1).await;
    assert_eq!(told.len(), 1, "{told:?}");
    let told = &told[0];
    assert_eq!((told.user.as_deref(), told.detail.as_deref()), (Some("ann"), Some("revoked")));
    assert_eq!(told.resource.as_deref(), Some(good.url().as_str()));
    evil.peer.until_requests_that(1, is_revocation).await;
    let asked = evil.peer.requests().iter().filter(|request| is_revocation(request)).count();
    assert!(asked <= 4, "it has its places and no more: {asked}");
}

#[tokio::test]
async fn the_audit_log_says_whose_tokens_were_revoked() {
    let mcp = Protected::start(vec![FakeTool::echo("t")]).await;
    mcp.answer_revocations(200);
    let place = Place::new().await;
    let gateway = gateway(&place).await;
    let wanted = json!({ "user": "ann", "profile": "work", "server_url": mcp.url() });
    let started = gateway.client.post("/v1/connections", &[], &wanted).await.json();
    Person::new().log_in(started["connect_url"].as_str().unwrap()).await;
    let listed = gateway.client.get("/v1/connections").await.json();
    let path = format!("/v1/connections/{}", listed["data"][0]["id"].as_str().unwrap());
    let ended = gateway.client.send("DELETE", &path, &[], "").await;
    assert_eq!(ended.status(), 200);
    let entries = until_audited(&place.store().await, "token.revocation", 1).await;
    let entry = &entries[0];
    assert_eq!((entry.user.as_deref(), entry.profile.as_deref()), (Some("ann"), Some("work")));
    assert_eq!(entry.resource.as_deref(), Some(mcp.url().as_str()));
}

#[tokio::test]
async fn strangers_cannot_fill_the_audit_log() {
    let place = Place::new().await;
    let gateway = gateway(&place).await;
    for number in 0..1000 {
        let answer = gateway.client.get(&format!("/oauth/callback?code=x&state=forged-{number}")).await;
        assert_eq!(answer.status, 404, "{}", answer.text());
    }
    for _ in 0..20 {
        gateway.client.get("/oauth/callback?code=x").await;
    }
    let store = place.store().await;
    // A few for each minute that the test took.
    let unknown = audit(&store, "flow.unknown_state").await;
    assert!((1..=20).contains(&unknown.len()), "{unknown:?}");
    let malformed = audit(&store, "flow.malformed_callback").await;
    assert!((1..=20).contains(&malformed.len()), "{malformed:?}");
    let metrics = gateway.client.get("/metrics").await.text();
    assert!(metrics.contains("toolgate_refused_callbacks_total 1020"), "{metrics}");
}

#[tokio::test]
async fn a_way_back_in_a_foreign_browser_is_written_down_but_does_not_fill_the_audit_log() {
    let mcp = Protected::start(vec![FakeTool::echo("t")]).await;
    let place = Place::new().await;
    let gateway = gateway(&place).await;
    let started = start(&gateway, "ann", &mcp, None).await;
    let path = started["connect_url"].as_str().unwrap().split_once("/connect/").unwrap().1.to_owned();
    let path = format!("/connect/{path}");
    let mut ann = Browser::new(&gateway.client);
    let page = ann.visit(&path).await;
    let leaving = ann.submit(&page, &path, &[("action", "continue")]).await;
    let target = ann.leads_to(&leaving);
    let state = url::Url::parse(&target)
        .unwrap()
        .query_pairs()
        .find(|(name, _)| name == "state")
        .unwrap()
        .1
        .into_owned();
    for _ in 0..50 {
        let mut other = Browser::new(&gateway.client);
        let answer = other.visit(&format!("/oauth/callback?code=x&state={state}")).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
    }
    let entries = audit(&place.store().await, "flow.wrong_browser").await;
    assert_eq!(entries.len(), 1, "{entries:?}");
}

#[tokio::test]
async fn a_connection_s_use_is_written_down_once_a_day() {
    let mcp = Protected::start(vec![FakeTool::echo("t")]).await;
    let place = Place::new().await;
    let first = gateway(&place).await;
    log_in(&first, "ann", &mcp).await;
    let check = json!({ "user": "ann", "urls": [mcp.url()] });
    let store = place.store().await;
    let mut running = Some(first);
    for _ in 0..3 {
        let gateway = match running.take() {
            Some(running) => running,
            None => gateway(&place).await,
        };
        let used = json!({
            "model": "m", "messages": [{ "role": "user", "content": "hi" }], "user": "ann",
            "tools": [mcp.entry("s")],
        });
        assert_eq!(gateway.client.chat(&used).await.status, 200);
        let checked = gateway.client.post("/v1/connections/check", &[], &check).await.json();
        assert_eq!(checked["data"][0]["status"], "connected", "{checked}");
        // What is only in memory is written at the end.
        gateway.stop().await;
    }
    let entries = audit(&store, "connection.used").await;
    // Two when midnight was in between.
    assert!((1..=2).contains(&entries.len()), "{entries:?}");
    assert_eq!(entries[0].resource.as_deref(), Some(mcp.url().as_str()));
}

#[tokio::test]
async fn entries_of_the_audit_log_go_when_they_are_old_and_not_before() {
    let place = Place::new().await;
    gateway(&place).await.stop().await;
    let store = place.store().await;
    let now = toolgate::clock::Clock::system().unix_milliseconds();
    for (id, days) in [("aud_old", 31), ("aud_new", 29)] {
        let entry = AuditRow {
            id: id.to_owned(),
            at: now - days * 24 * 3_600_000,
            event: "flow.created".to_owned(),
            actor: "caller".to_owned(),
            ..AuditRow::default()
        };
        store.add_audit(&entry).await.unwrap();
    }
    let provider = FakeProvider::answering(|_| text("hello")).await;
    let _gateway = Gateway::configured(&provider, |settings| {
        place.give_to(settings);
        settings.connections.audit_days = 30;
    })
    .await;
    let forgotten = async {
        loop {
            let left: Vec<String> =
                audit(&store, "flow.created").await.into_iter().map(|entry| entry.id).collect();
            if left == ["aud_new"] {
                return;
            }
            assert!(left.contains(&"aud_new".to_owned()), "{left:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, forgotten).await.expect("the old one goes");
}

#[tokio::test]
async fn a_login_that_is_under_way_leaves_nothing_to_the_next_project_of_that_name() {
    let asked = Gate::new();
    let mcp = Protected::start(vec![FakeTool::echo("t")]).await;
    mcp.answer_codes_after(&asked);
    let place = Place::new().await;
    let program = Program::at(&place);
    let create =
        ["project", "create", "shop", "--proof", "app", "--verifier-url", "http://127.0.0.1:9/verify"];
    assert_eq!(program.run(&create).await.code, 0);
    let key = program.run(&["key", "create", "--project", "shop"]).await.stdout.trim_end().to_owned();
    let gateway = gateway(&place).await;
    let bearer = format!("Bearer {key}");
    let wanted = json!({ "user": "ann", "server_url": mcp.url() });
    let started = gateway.client.post("/v1/connections", &[("authorization", &bearer)], &wanted).await.json();
    let mut person = Person::new();
    let leaving = person.log_in(started["connect_url"].as_str().unwrap()).await;
    let reference = leaving.text.split("flow_ref=").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let said = json!({ "flow_ref": reference, "user": "ann" });
    let back = gateway.client.post("/v1/flows/confirm", &[("authorization", &bearer)], &said).await.json();
    let finishing = tokio::spawn(async move { person.log_in(back["redirect_url"].as_str().unwrap()).await });
    mcp.peer.until_requests_that(1, |request| request.path == "/token").await;

    let deleted = program.run(&["project", "delete", "shop"]).await;
    assert_eq!(deleted.code, 0, "{}", deleted.stderr);
    assert_eq!(program.run(&create).await.code, 0);
    asked.open();
    let page = finishing.await.unwrap();
    assert!(!page.text.contains("You have authorised"), "{}", page.text);
    let store = place.store().await;
    let left = store.list_connections_everywhere(Some("project:shop"), None, None).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn nobody_begins_a_login_in_a_project_that_is_gone() {
    let mcp = Protected::start(vec![FakeTool::echo("t")]).await;
    let place = Place::new().await;
    let program = Program::at(&place);
    assert_eq!(program.with_sign_in().run(&["project", "create", "shop"]).await.code, 0);
    let key = program.run(&["key", "create", "--project", "shop"]).await.stdout.trim_end().to_owned();
    let gateway = gateway(&place).await;
    let bearer = format!("Bearer {key}");
    let check = json!({ "user": "ann", "urls": [mcp.url()] });
    let known = gateway.client.post("/v1/connections/check", &[("authorization", &bearer)], &check).await;
    assert_eq!(known.status, 200, "{}", known.text());
    // Deleted behind the back of the gateway, which still knows the key.
    let store = place.store().await;
    for sql in ["DELETE FROM api_keys", "DELETE FROM flows", "DELETE FROM projects"] {
        store.execute(sql, Vec::new()).await.unwrap();
    }
    let wanted = json!({ "user": "ann", "server_url": mcp.url() });
    let refused = gateway.client.post("/v1/connections", &[("authorization", &bearer)], &wanted).await;
    assert!(refused.text().contains("the project does not exist any more"), "{}", refused.text());
    let flows = store.row("SELECT COUNT(*) AS number FROM flows", Vec::new()).await.unwrap().unwrap();
    assert_eq!(flows.int("number").unwrap(), 0);
}

async fn count(store: &Store, sql: &'static str) -> i64 {
    store.row(sql, Vec::new()).await.unwrap().unwrap().int("number").unwrap()
}

#[tokio::test]
async fn what_is_over_is_forgotten_and_what_is_in_use_is_not() {
    let mcp = Protected::start(vec![FakeTool::echo("t")]).await;
    mcp.answer_revocations(200);
    let app = Peer::start(|_| Reply::with_headers(204, &[], "")).await;
    let place = Place::new().await;
    let first = gateway(&place).await;
    let declined = start(&first, "carol", &mcp, Some(app.url("/hook"))).await;
    Person::new().decline(declined["connect_url"].as_str().unwrap()).await;
    app.until_requests(2).await;
    log_in(&first, "ann", &mcp).await;
    log_in(&first, "bob", &mcp).await;
    let listed = first.client.get("/v1/connections?user=ann").await.json();
    let path = format!("/v1/connections/{}", listed["data"][0]["id"].as_str().unwrap());
    assert_eq!(first.client.send("DELETE", &path, &[], "").await.status(), 200);
    let pending = start(&first, "dora", &mcp, None).await;
    first.stop().await;

    let store = place.store().await;
    for sql in [
        "UPDATE flows SET expires_at = 1 WHERE state <> 'pending'",
        "UPDATE outbox SET created_at = 1, state = 'delivered'",
        "UPDATE connections SET changed_at = 1",
        "UPDATE revocations SET changed_at = 1",
        "UPDATE registrations SET retired_at = 1",
        "INSERT INTO registrations (issuer, redirect_uri, client_id, auth_method, scope, created_at, retired_at)
         VALUES ('https://old.example', 'https://gateway.example/oauth/callback', 'c', 'none', '', 1, 1)",
        "INSERT INTO accounts (id, provider, issuer, subject, label, created_at, signed_in_at)
         SELECT 'acct_1', 'p', 'i', 's', hash, 1, 1 FROM (SELECT link_hash AS hash FROM flows LIMIT 1) AS one",
        "INSERT INTO sessions (account, id, hash, agent, created_at, used_at)
         SELECT 'acct_1', 'sess_1', hash, hash, 1, 1 FROM (SELECT link_hash AS hash FROM flows LIMIT 1) AS one",
        "INSERT INTO sign_ins (state_hash, provider, return_to, expires_at)
         SELECT hash, 'p', '/', 1 FROM (SELECT link_hash AS hash FROM flows LIMIT 1) AS one",
    ] {
        assert!(store.execute(sql, Vec::new()).await.unwrap() > 0, "{sql}");
    }
    let _second = gateway(&place).await;
    let forgotten = async {
        for (sql, left) in [
            // Dora's, which can still be finished.
            ("SELECT COUNT(*) AS number FROM flows", 1),
            ("SELECT COUNT(*) AS number FROM outbox", 0),
            // Bob's, and the client that it was made with.
            ("SELECT COUNT(*) AS number FROM connections", 1),
            ("SELECT COUNT(*) AS number FROM registrations", 1),
            ("SELECT COUNT(*) AS number FROM revocations", 0),
            ("SELECT COUNT(*) AS number FROM sign_ins", 0),
            ("SELECT COUNT(*) AS number FROM sessions", 0),
        ] {
            while count(&store, sql).await > left {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert_eq!(count(&store, sql).await, left, "{sql}");
        }
    };
    tokio::time::timeout(SOON, forgotten).await.expect("what is over is forgotten");
    assert_eq!(count(&store, "SELECT COUNT(*) AS number FROM connection_secrets").await, 1);
    assert!(pending["connect_url"].is_string());
}
