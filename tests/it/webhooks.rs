//! Webhooks: what applications are told of their users' logins, and how they know that it is us who tell.

use std::sync::Mutex;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use toolgate::config::{ApiKey, EgressAllow, KeyScope, Settings, SignIn};
use toolgate::crypto::{ApiKeyHash, hmac_sha256};

use crate::support::{
    Answer, FakeProvider, FakeTool, Gateway, Peer, Person, Place, Program, Protected, Recorded, Reply, ask,
    calls, text, whole, with,
};

const SHOP: &str = "tgk_0123456789abcdefghjkmnpq";
const RIVAL: &str = "tgk_1123456789abcdefghjkmnpq";
const CHAT_ONLY: &str = "tgk_2123456789abcdefghjkmnpq";

async fn local() -> Gateway {
    let provider = FakeProvider::answering(|_| text("hello")).await;
    Gateway::with(&provider).await
}

/// A gateway that is not on one person's machine, with two projects; `change` may open addresses.
async fn hosted(change: impl FnOnce(&mut Settings)) -> Gateway {
    let provider = FakeProvider::answering(|_| text("hello")).await;
    Gateway::configured(&provider, |settings| {
        for (project, key, scopes) in [
            ("shop", SHOP, None),
            ("rival", RIVAL, None),
            ("chat", CHAT_ONLY, Some(vec![KeyScope::Completions])),
        ] {
            settings.api_keys.push(ApiKey {
                name: project.into(),
                project: Some(project.into()),
                hash: ApiKeyHash::of(key).to_string(),
                requests_per_minute: None,
                scopes,
            });
        }
        change(settings);
    })
    .await
}

/// An application that answers webhooks with these statuses, one after the other, and then with 204.
async fn application(statuses: &[u16]) -> Peer {
    let statuses = Mutex::new(statuses.to_vec());
    Peer::start(move |_| {
        let mut statuses = statuses.lock().unwrap();
        let status = if statuses.is_empty() { 204 } else { statuses.remove(0) };
        Reply::with_headers(status, &[], "")
    })
    .await
}

async fn get(gateway: &Gateway, key: Option<&str>, path: &str) -> Answer {
    let bearer = format!("Bearer {}", key.unwrap_or_default());
    let headers: Vec<(&str, &str)> = key.iter().map(|_| ("authorization", bearer.as_str())).collect();
    whole(gateway.client.send("GET", path, &headers, "").await).await
}

async fn secret(gateway: &Gateway, key: Option<&str>) -> String {
    let answer = get(gateway, key, "/v1/webhooks/secret").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    answer.json()["secret"].as_str().unwrap().to_owned()
}

/// Asks for a login of `ann` and gives its link.
async fn start(gateway: &Gateway, mcp: &Protected, callback: &str) -> String {
    let wanted = json!({ "user": "ann", "server_url": mcp.url(), "authorization_callback_url": callback });
    let started = gateway.client.post("/v1/connections", &[], &wanted).await;
    assert_eq!(started.status, 201, "{}", started.text());
    started.json()["connect_url"].as_str().unwrap().to_owned()
}

/// The events, each checked as a receiver does by Standard Webhooks.
fn verified(requests: &[Recorded], secret: &str) -> Vec<Value> {
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let key: [u8; 32] = key.try_into().unwrap();
    let one = |request: &Recorded| {
        let header = |name: &str| request.header(name).unwrap_or_else(|| panic!("{name} is missing"));
        let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
        let age =
            toolgate::clock::Clock::system().unix_milliseconds() / 1000 - timestamp.parse::<i64>().unwrap();
        assert!((0..60).contains(&age), "{age}");
        let signed = [format!("{id}.{timestamp}.").as_bytes(), &request.body].concat();
        let expected = format!("v1,{}", STANDARD.encode(hmac_sha256(&key, &signed)));
        assert_eq!(header("webhook-signature"), expected);
        assert_eq!((request.method.as_str(), header("content-type")), ("POST", "application/json"));
        request.json()
    };
    requests.iter().map(one).collect()
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn an_application_is_told_of_a_login_from_its_link_to_its_end() {
    let mcp = Protected::start(vec![FakeTool::echo("t")]).await;
    let app = application(&[]).await;
    let gateway = local().await;
    let link = start(&gateway, &mcp, &app.url("/hook")).await;
    app.until_requests(1).await;
    Person::new().log_in(&link).await;
    app.until_requests(2).await;

    let requests = app.requests();
    let events = verified(&requests, &secret(&gateway, None).await);
    assert_eq!(kinds(&events), ["authorization.requested", "authorization.completed"]);
    assert_ne!(requests[0].header("webhook-id"), requests[1].header("webhook-id"));
    let asked = &events[0]["data"];
    assert_eq!((&asked["url"], &asked["user"]), (&json!(link), &json!("ann")));
    assert_eq!((&asked["resource"], &asked["scopes"]), (&json!(mcp.url()), &json!(["files:read"])));
    assert!(asked["expires_at"].as_i64().unwrap() > 1_700_000_000);
    assert!(asked["message"].as_str().unwrap().contains(&mcp.peer.host()), "{asked}");
    let done = &events[1]["data"];
    assert_eq!((&done["flow"], &done["url"]), (&asked["flow"], &Value::Null));
    for event in &events {
        for token in ["access-", "refresh-", "code-"] {
            assert!(!event.to_string().contains(token), "{event}");
        }
    }
}

#[tokio::test]
async fn a_completion_names_where_to_tell_of_its_logins_and_no_is_told_too() {
    let mcp = Protected::start(vec![FakeTool::echo("t")]).await;
    let app = application(&[]).await;
    let gateway = local().await;
    let options = json!({ "user": "ann", "toolgate": { "authorization_callback_url": app.url("/hook") } });
    let answer = gateway.client.chat(&with(ask(&[mcp.entry("s")]), options)).await;
    let link = answer.json()["toolgate"]["authorization_required"][0]["connect_url"].clone();
    Person::new().decline(link.as_str().unwrap()).await;
    app.until_requests(2).await;
    let events = verified(&app.requests(), &secret(&gateway, None).await);
    assert_eq!(kinds(&events), ["authorization.requested", "authorization.denied"]);
    assert_eq!(events[0]["data"]["url"], link);
    assert!(events[0]["data"]["run_id"].is_string(), "{}", events[0]);
}

#[tokio::test]
async fn what_was_not_taken_is_sent_again_and_nothing_overtakes_it() {
    let mcp = Protected::start(vec![FakeTool::echo("t")]).await;
    let app = application(&[500, 503]).await;
    let gateway = local().await;
    let link = start(&gateway, &mcp, &app.url("/hook")).await;
    app.until_requests(1).await;
    Person::new().log_in(&link).await;
    app.until_requests(4).await;
    let requests = app.requests();
    let events = verified(&requests, &secret(&gateway, None).await);
    let requested = "authorization.requested";
    assert_eq!(kinds(&events), [requested, requested, requested, "authorization.completed"]);
    let ids: Vec<_> = requests.iter().map(|request| request.header("webhook-id")).collect();
    assert!(ids[0] == ids[1] && ids[1] == ids[2] && ids[2] != ids[3], "{ids:?}");
    assert!(requests[0].body == requests[1].body && requests[1].body == requests[2].body);
}

#[tokio::test]
async fn gone_is_not_asked_again() {
    let mcp = Protected::start(vec![FakeTool::echo("t")]).await;
    let app = application(&[410]).await;
    let gateway = local().await;
    let link = start(&gateway, &mcp, &app.url("/hook")).await;
    app.until_requests(1).await;
    Person::new().log_in(&link).await;
    // The second event waits behind the first, and so shows that the first is over.
    app.until_requests(2).await;
    let events = verified(&app.requests(), &secret(&gateway, None).await);
    assert_eq!(kinds(&events), ["authorization.requested", "authorization.completed"]);
}

#[tokio::test]
async fn private_addresses_are_refused_before_anything_happens() {
    let mcp = Protected::start(vec![FakeTool::echo("t")]).await;
    let app = application(&[]).await;
    let gateway = hosted(|settings| {
        // The server may be reached, the application may not.
        settings.egress.allow.push(EgressAllow {
            cidr: Some("127.0.0.1/32".parse().unwrap()),
            ports: vec![mcp.peer.address.port()],
            ..EgressAllow::default()
        });
    })
    .await;
    let bearer = format!("Bearer {SHOP}");
    for url in [app.url("/hook"), "https://10.0.0.1/hook".into(), "http://169.254.169.254/".into()] {
        let options = json!({ "user": "ann", "toolgate": { "authorization_callback_url": url } });
        let body = with(ask(&[mcp.entry("s")]), options);
        let refused = gateway.client.post("/v1/chat/completions", &[("authorization", &bearer)], &body).await;
        assert_eq!(refused.status, 400, "{url}: {}", refused.text());
        assert_eq!(refused.json()["error"]["param"], "toolgate.authorization_callback_url", "{url}");
        let body = json!({ "user": "ann", "server_url": mcp.url(), "authorization_callback_url": url });
        let refused = gateway.client.post("/v1/connections", &[("authorization", &bearer)], &body).await;
        assert_eq!(refused.status, 400, "{url}: {}", refused.text());
        assert_eq!(refused.json()["error"]["param"], "authorization_callback_url", "{url}");
    }
    assert_eq!(app.requests().len(), 0);
}

#[tokio::test]
async fn every_application_has_a_key_of_its_own_and_sees_no_other() {
    let gateway = hosted(|settings| settings.pass_through.enabled = Some(true)).await;
    let (shop, rival) = (secret(&gateway, Some(SHOP)).await, secret(&gateway, Some(RIVAL)).await);
    assert_ne!(shop, rival);
    assert_eq!(secret(&gateway, Some(SHOP)).await, shop, "it stays");
    let (one, other) = (secret(&gateway, Some("sk-1")).await, secret(&gateway, Some("sk-2")).await);
    assert!(one != other && one != shop, "whoever calls with a provider's key has one, too");
    assert_eq!(get(&gateway, Some(CHAT_ONLY), "/v1/webhooks/secret").await.status, 403);
    assert_eq!(get(&gateway, Some("tgk_x"), "/v1/webhooks/secret").await.status, 401);
    let posted = gateway.client.post("/v1/webhooks/secret", &[], &json!({})).await;
    assert_eq!(posted.status, 405);
}

#[tokio::test]
async fn an_address_that_is_named_twice_is_told_once() {
    let mcp = Protected::start(vec![FakeTool::echo("t")]).await;
    let app = application(&[]).await;
    let place = Place::new().await;
    let program = Program::at(&place);
    let made =
        program.with_sign_in().run(&["project", "create", "shop", "--webhook-url", &app.url("/hook")]).await;
    assert_eq!(made.code, 0, "{}", made.stderr);
    let key = program.run(&["key", "create", "--project", "shop"]).await.stdout.trim_end().to_owned();
    let provider = FakeProvider::answering(|_| text("hello")).await;
    let gateway = Gateway::configured(&provider, |settings| {
        place.give_to(settings);
        let (name, client_id) = ("google".to_owned(), "client".to_owned());
        settings.sign_in.push(SignIn { name, client_id, ..SignIn::default() });
    })
    .await;
    let bearer = format!("Bearer {key}");
    for user in ["ann", "bob"] {
        let wanted = json!({
            "user": user, "server_url": mcp.url(), "authorization_callback_url": app.url("/hook"),
        });
        let started = gateway.client.post("/v1/connections", &[("authorization", &bearer)], &wanted).await;
        assert_eq!(started.status, 201, "{}", started.text());
        // Ann's events are out before bob's are made.
        app.until_requests_that(1, |request| request.json()["data"]["user"] == user).await;
    }
    let events = verified(&app.requests(), made.stdout.trim_end());
    let users: Vec<&Value> = events.iter().map(|event| &event["data"]["user"]).collect();
    assert_eq!(users, ["ann", "bob"]);
}

#[tokio::test]
async fn a_project_is_told_by_its_own_secret_which_is_not_shown_again() {
    let mcp = Protected::start(vec![FakeTool::echo("t")]).await;
    let (own, named) = (application(&[]).await, application(&[]).await);
    let place = Place::new().await;
    let program = Program::at(&place);
    let made =
        program.with_sign_in().run(&["project", "create", "shop", "--webhook-url", &own.url("/hook")]).await;
    assert_eq!(made.code, 0, "{}", made.stderr);
    let secret = made.stdout.trim_end();
    let key = program.run(&["key", "create", "--project", "shop"]).await.stdout.trim_end().to_owned();
    let provider = FakeProvider::answering(|_| text("hello")).await;
    let gateway = Gateway::configured(&provider, |settings| {
        place.give_to(settings);
        let (name, client_id) = ("google".to_owned(), "client".to_owned());
        settings.sign_in.push(SignIn { name, client_id, ..SignIn::default() });
    })
    .await;

    let shown = get(&gateway, Some(&key), "/v1/webhooks/secret").await;
    assert_eq!((shown.status, &shown.json()["error"]["code"]), (409, &json!("secret_shown_once")));
    assert!(!shown.text().contains("whsec_"), "{}", shown.text());
    let wanted = json!({
        "user": "ann", "server_url": mcp.url(), "authorization_callback_url": named.url("/other"),
    });
    let bearer = format!("Bearer {key}");
    let started = gateway.client.post("/v1/connections", &[("authorization", &bearer)], &wanted).await;
    assert_eq!(started.status, 201, "{}", started.text());
    for app in [&own, &named] {
        app.until_requests(1).await;
        let events = verified(&app.requests(), secret);
        assert_eq!(kinds(&events), ["authorization.requested"]);
        assert_eq!(events[0]["data"]["url"], started.json()["connect_url"]);
    }
}

/// A project with a webhook at `app`, whose users are proven by the application; its secret and key, and the gateway.
async fn shop(place: &Place, app: &Peer) -> (String, String, Gateway) {
    let program = Program::at(place);
    let hook = app.url("/hook");
    let made = program
        .run(&[
            "project",
            "create",
            "shop",
            "--webhook-url",
            &hook,
            "--proof",
            "app",
            "--verifier-url",
            "http://127.0.0.1:9/verify",
        ])
        .await;
    assert_eq!(made.code, 0, "{}", made.stderr);
    let key = program.run(&["key", "create", "--project", "shop"]).await.stdout.trim_end().to_owned();
    let provider = FakeProvider::answering(|request| {
        let body = request.json();
        let messages = body["messages"].as_array().unwrap();
        let answered = messages.iter().any(|message| message["role"] == "tool");
        if answered { text("done") } else { calls(&[("call_1", "s_t", json!({}))]) }
    })
    .await;
    let gateway = Gateway::configured(&provider, |settings| {
        place.give_to(settings);
        let (name, client_id) = ("google".to_owned(), "client".to_owned());
        settings.sign_in.push(SignIn { name, client_id, ..SignIn::default() });
    })
    .await;
    (made.stdout.trim_end().to_owned(), format!("Bearer {key}"), gateway)
}

/// Asks the application, whose link led the person to its verifier, to say that it is `user`.
async fn say(gateway: &Gateway, bearer: &str, leaving: &str, user: &str) -> Answer {
    let reference = leaving.split("flow_ref=").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let said = json!({ "flow_ref": reference, "user": user });
    gateway.client.post("/v1/flows/confirm", &[("authorization", bearer)], &said).await
}

async fn link_of(gateway: &Gateway, bearer: &str, mcp: &Protected, callback: Option<&str>) -> String {
    let wanted = json!({ "user": "ann", "server_url": mcp.url(), "authorization_callback_url": callback });
    let started = gateway.client.post("/v1/connections", &[("authorization", bearer)], &wanted).await;
    assert_eq!(started.status, 201, "{}", started.text());
    started.json()["connect_url"].as_str().unwrap().to_owned()
}

async fn connect(gateway: &Gateway, bearer: &str, mcp: &Protected) {
    let link = link_of(gateway, bearer, mcp, None).await;
    let mut person = Person::new();
    let leaving = person.log_in(&link).await.text;
    let back = say(gateway, bearer, &leaving, "ann").await.json();
    let page = person.log_in(back["redirect_url"].as_str().unwrap()).await;
    assert!(page.text.contains("You have authorised"), "{}", page.text);
}

#[tokio::test]
async fn a_login_that_nobody_finishes_in_time_is_told() {
    let mcp = Protected::start(vec![FakeTool::echo("t")]).await;
    let app = application(&[]).await;
    let place = Place::new().await;
    let (secret, bearer, gateway) = shop(&place, &app).await;
    link_of(&gateway, &bearer, &mcp, None).await;
    app.until_requests(1).await;
    place.store().await.execute("UPDATE flows SET expires_at = 5000", Vec::new()).await.unwrap();
    app.until_requests(2).await;
    let events = verified(&app.requests(), &secret);
    assert_eq!(kinds(&events), ["authorization.requested", "authorization.expired"]);
    assert_eq!(events[1]["data"]["flow"], events[0]["data"]["flow"]);
    assert_eq!((&events[1]["data"]["user"], &events[1]["data"]["url"]), (&json!("ann"), &Value::Null));
}

#[tokio::test]
async fn a_wrong_person_is_told_once_however_often_they_come() {
    let mcp = Protected::start(vec![FakeTool::echo("t")]).await;
    let app = application(&[]).await;
    let place = Place::new().await;
    let (secret, bearer, gateway) = shop(&place, &app).await;
    let link = link_of(&gateway, &bearer, &mcp, None).await;
    for user in ["bob", "bob", "bob", "carol", "bob"] {
        let leaving = Person::new().log_in(&link).await.text;
        let refused = say(&gateway, &bearer, &leaving, user).await;
        assert_eq!((refused.status, &refused.json()["error"]["code"]), (409, &json!("user_mismatch")));
        let again = say(&gateway, &bearer, &leaving, "ann").await;
        assert_eq!(again.status, 404, "the reference is used up: {}", again.text());
    }
    // The flow is still the right person's, and its end comes behind everything else in its stream.
    let mut person = Person::new();
    let leaving = person.log_in(&link).await.text;
    let back = say(&gateway, &bearer, &leaving, "ann").await.json();
    person.log_in(back["redirect_url"].as_str().unwrap()).await;
    let is_completed = |request: &Recorded| request.json()["type"] == "authorization.completed";
    app.until_requests_that(1, is_completed).await;
    let events = verified(&app.requests(), &secret);
    let mismatch = "authorization.user_mismatch";
    assert_eq!(kinds(&events), ["authorization.requested", mismatch, mismatch, "authorization.completed"]);
    assert_eq!(events[1]["data"]["user"], "ann", "who came instead is not told");
    let entries = place.store().await.list_audit(None, 1000).await.unwrap();
    assert_eq!(entries.iter().filter(|entry| entry.event == "flow.user_mismatch").count(), 2, "{entries:?}");
}

#[tokio::test]
async fn a_project_is_told_when_a_connection_needs_another_login_and_when_it_ends() {
    let mcp = Protected::start(vec![FakeTool::echo("t")]).await;
    mcp.answer_revocations(200);
    let app = application(&[]).await;
    let place = Place::new().await;
    let (secret, bearer, gateway) = shop(&place, &app).await;
    connect(&gateway, &bearer, &mcp).await;
    mcp.end_grants();
    let headers = [("authorization", bearer.as_str())];
    let asked = with(ask(&[mcp.entry("s")]), json!({ "user": "ann" }));
    let answer = gateway.client.post("/v1/chat/completions", &headers, &asked).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let needs = |request: &Recorded| request.json()["type"] == "connection.needs_reauth";
    app.until_requests_that(1, needs).await;

    let bearer_header = [("authorization", bearer.as_str())];
    let listed = whole(gateway.client.send("GET", "/v1/connections", &bearer_header, "").await).await.json();
    let connection = &listed["data"][0]["id"];
    let path = format!("/v1/connections/{}", connection.as_str().unwrap());
    assert_eq!(whole(gateway.client.send("DELETE", &path, &bearer_header, "").await).await.status, 200);
    let revoked = |request: &Recorded| request.json()["type"] == "connection.revoked";
    app.until_requests_that(1, revoked).await;
    let events = verified(&app.requests(), &secret);
    let of_connection: Vec<&Value> =
        events.iter().filter(|event| event["type"].as_str().unwrap().starts_with("connection.")).collect();
    assert_eq!(of_connection.len(), 2, "{events:?}");
    for (event, kind) in of_connection.iter().zip(["connection.needs_reauth", "connection.revoked"]) {
        let data = &event["data"];
        assert_eq!((&event["type"], &data["connection"]), (&json!(kind), connection));
        assert_eq!((&data["user"], &data["resource"]), (&json!("ann"), &json!(mcp.url())));
        assert!(data["reason"].is_string(), "{event}");
    }
}

#[tokio::test]
async fn every_login_that_another_one_made_needless_is_told_too() {
    let mcp = Protected::start(vec![FakeTool::echo("t")]).await;
    let (app, named) = (application(&[]).await, application(&[]).await);
    let place = Place::new().await;
    let (secret, bearer, gateway) = shop(&place, &app).await;
    // The same login, but told elsewhere, too: a flow of its own.
    link_of(&gateway, &bearer, &mcp, Some(&named.url("/other"))).await;
    connect(&gateway, &bearer, &mcp).await;
    named.until_requests(2).await;
    let events = verified(&named.requests(), &secret);
    assert_eq!(kinds(&events), ["authorization.requested", "authorization.completed"]);
    app.until_requests(4).await;
    let mut kinds_of_all: Vec<Value> =
        app.requests().iter().map(|request| request.json()["type"].clone()).collect();
    kinds_of_all.sort_by_key(Value::to_string);
    let (completed, requested) = ("authorization.completed", "authorization.requested");
    assert_eq!(kinds_of_all, [completed, completed, requested, requested]);
}
