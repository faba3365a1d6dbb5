//! Requests that cannot be, strangers, and who is told of a run's end.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use toolgate::config::{AnyHostMode, ApiKey, Settings};
use toolgate::crypto::{ApiKeyHash, hmac_sha256};

use super::scene::{Scene, content, id_of, json_of, result, stored, task};
use super::watcher;
use crate::support::{
    Answer, FakeMcp, FakeProvider, FakeTool, Gateway, Peer, Person, Protected, Reply, ask, calls, text,
    whole, with,
};

pub const SHOP: &str = "tgk_0123456789abcdefghjkmnpq";
pub const RIVAL: &str = "tgk_1123456789abcdefghjkmnpq";

/// A gateway that is not on one person's machine, with two projects.
pub async fn hosted(provider: &FakeProvider, change: impl FnOnce(&mut Settings)) -> Gateway {
    Gateway::configured(provider, |settings| {
        for (project, key) in [("shop", SHOP), ("rival", RIVAL)] {
            settings.api_keys.push(ApiKey {
                name: project.into(),
                project: Some(project.into()),
                hash: ApiKeyHash::of(key).to_string(),
                requests_per_minute: None,
                scopes: None,
            });
        }
        change(settings);
    })
    .await
}

/// The headers of who has this key.
pub fn as_key(key: &str) -> Vec<(&'static str, String)> {
    vec![("authorization", format!("Bearer {key}"))]
}

async fn ask_as(gateway: &Gateway, key: Option<&str>, method: &str, path: &str, body: &Value) -> Answer {
    let headers = key.map(as_key).unwrap_or_default();
    let mut all = vec![("content-type", "application/json")];
    all.extend(headers.iter().map(|(name, value)| (*name, value.as_str())));
    let body = if body.is_null() { String::new() } else { body.to_string() };
    whole(gateway.client.send(method, path, &all, body).await).await
}

/// What a reader can tell of an answer.
fn told(answer: &Answer) -> (u16, String, Vec<(String, String)>) {
    let names =
        ["content-type", "cache-control", "www-authenticate", "location", "x-robots-tag", "content-length"];
    let headers = names.iter().filter_map(|name| Some(((*name).to_owned(), answer.header(name)?.to_owned())));
    (answer.status, answer.text(), headers.collect())
}

#[tokio::test]
async fn who_may_not_see_a_run_is_told_exactly_what_is_told_of_none() {
    let provider = FakeProvider::answering(|_| text("mine alone")).await;
    let gateway = hosted(&provider, |_| {}).await;
    let body = with(stored(ask(&[])), json!({ "toolgate": { "visibility": "private" } }));
    let id = id_of(&ask_as(&gateway, Some(SHOP), "POST", "/v1/chat/completions", &body).await);
    let none = format!("run_{}", "0".repeat(id.len() - 4));
    let empty = json!({});
    for (method, path, body) in [
        ("GET", "/{id}", &Value::Null),
        ("GET", "/{id}.md", &Value::Null),
        ("GET", "/{id}.json", &Value::Null),
        ("GET", "/{id}?key=prompt", &Value::Null),
        ("GET", "/v1/runs/{id}", &Value::Null),
        ("GET", "/v1/runs/{id}/events", &Value::Null),
        ("POST", "/v1/runs/{id}/cancel", &empty),
        ("POST", "/v1/runs/{id}", &json!({ "visibility": "public" })),
        ("DELETE", "/v1/runs/{id}", &Value::Null),
    ] {
        for key in [None, Some(RIVAL)] {
            let of_private = ask_as(&gateway, key, method, &path.replace("{id}", &id), body).await;
            let of_none = ask_as(&gateway, key, method, &path.replace("{id}", &none), body).await;
            assert_eq!(of_private.status, 404, "{method} {path} {key:?}: {}", of_private.text());
            assert_eq!(told(&of_private), told(&of_none), "{method} {path} {key:?}");
        }
    }
    for path in ["/v1/chat/completions/{id}", "/v1/chat/completions/{id}/messages"] {
        let of_private = ask_as(&gateway, Some(RIVAL), "GET", &path.replace("{id}", &id), &Value::Null).await;
        let of_none = ask_as(&gateway, Some(RIVAL), "GET", &path.replace("{id}", &none), &Value::Null).await;
        assert_eq!((of_private.status, told(&of_private)), (404, told(&of_none)), "{path}");
        assert_eq!(
            ask_as(&gateway, Some(SHOP), "GET", &path.replace("{id}", &id), &Value::Null).await.status,
            200
        );
    }
    let prompt = format!("/{id}/chat/completions");
    let as_prompt = ask_as(&gateway, Some(RIVAL), "POST", &prompt, &ask(&[])).await;
    assert_eq!(as_prompt.status, 404, "nor is it a prompt for them: {}", as_prompt.text());
    let lists = ask_as(&gateway, Some(RIVAL), "GET", "/v1/chat/completions", &Value::Null).await;
    assert_eq!(lists.json()["data"], json!([]));
}

#[tokio::test]
async fn who_has_the_address_reads_a_task_and_changes_nothing_of_it() {
    let provider = FakeProvider::answering(|_| text("for whoever has the address")).await;
    let gateway = hosted(&provider, |_| {}).await;
    let started = ask_as(&gateway, Some(SHOP), "POST", "/v1/tasks", &ask(&[])).await;
    assert_eq!(started.status, 202, "{}", started.text());
    let task = started.json();
    let id = task["id"].as_str().unwrap().to_owned();
    for field in ["markdown_url", "json_url", "events_url", "url", "cancel_url"] {
        assert!(task[field].as_str().unwrap().contains(&id), "{field}: {task}");
    }
    assert!(task["readable"].as_str().unwrap().contains("whoever has its address"));
    // Reading needs no key.
    let whole = result(&gateway.client, &id).await;
    assert_eq!(content(&whole), "for whoever has the address");
    let empty = json!({});
    for (method, path, body) in [
        ("POST", format!("/v1/runs/{id}/cancel"), &empty),
        ("POST", format!("/v1/runs/{id}"), &json!({ "visibility": "public" })),
        ("DELETE", format!("/v1/runs/{id}"), &Value::Null),
    ] {
        for key in [None, Some(RIVAL)] {
            let refused = ask_as(&gateway, key, method, &path, body).await;
            assert_eq!(refused.status, 403, "{method} {path} {key:?}: {}", refused.text());
            assert_eq!(refused.json()["error"]["code"], "not_yours");
        }
    }
    let hidden = json!({ "visibility": "private" });
    let path = format!("/v1/runs/{id}");
    assert_eq!(ask_as(&gateway, Some(SHOP), "POST", &path, &hidden).await.json()["visibility"], "private");
    assert_eq!(gateway.client.get(&format!("/{id}.md")).await.status, 404);
}

#[tokio::test]
async fn a_run_that_used_a_login_is_its_owners_alone_unless_they_chose_otherwise() {
    let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
    let provider = super::scene::calling(|| calls(&[("a", "s_t", json!({}))]), || text("done")).await;
    let gateway = Gateway::with(&provider).await;
    let ann = with(stored(ask(&[mcp.entry("s")])), json!({ "user": "ann" }));
    let link = gateway.client.chat(&ann).await.json()["toolgate"]["authorization_required"][0]["connect_url"]
        .clone();
    assert_eq!(Person::new().log_in(link.as_str().unwrap()).await.status, 200);
    let id = id_of(&gateway.client.chat(&ann).await);
    let whole = result(&gateway.client, &id).await;
    assert_eq!((&whole["visibility"], &whole["used_logins"]), (&json!("private"), &json!(true)));
    let chosen = with(ann, json!({ "toolgate": { "visibility": "unlisted" } }));
    let id = id_of(&gateway.client.chat(&chosen).await);
    let whole = result(&gateway.client, &id).await;
    assert_eq!((&whole["visibility"], &whole["used_logins"]), (&json!("unlisted"), &json!(true)));
    let plain = id_of(&gateway.client.chat(&stored(ask(&[]))).await);
    assert_eq!(result(&gateway.client, &plain).await["visibility"], "unlisted");
}

#[tokio::test]
async fn who_may_read_a_run_stays_so_when_another_process_goes_on_and_uses_the_login() {
    let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
    let provider = super::scene::calling(|| calls(&[("a", "s_t", json!({}))]), || text("done")).await;
    let mut scene = Scene::new(provider).await;
    let waiting = with(stored(ask(&[mcp.entry("s")])), json!({ "user": "ann" }));
    let mut asked = Vec::new();
    for (options, expect) in [
        (json!({ "on_auth": "wait", "visibility": "unlisted" }), "unlisted"),
        (json!({ "on_auth": "wait" }), "private"),
    ] {
        let mut stream =
            scene.first.client.stream(&with(waiting.clone(), json!({ "toolgate": options }))).await;
        let shown = stream.until(|chunk| chunk["toolgate"]["event"] == "authorization_required").await;
        let id = stream.headers["x-run-id"].to_str().unwrap().to_owned();
        asked.push((id, shown["toolgate"]["connect_url"].as_str().unwrap().to_owned(), expect, stream));
    }
    for (id, _, _, _) in &asked {
        // So far in the store, nobody goes back behind it.
        scene.watch(id).await.until("waiting").await;
        assert_eq!(json_of(&scene.first.client, id).await["visibility"], "unlisted", "no login was used yet");
    }
    let client = scene.crash().await;
    assert_eq!(Person::new().log_in(&asked[0].1).await.status, 200);
    for (id, _, expect, _) in &asked {
        let whole = result(&client, id).await;
        assert_eq!(
            (&whole["status"], content(&whole).ends_with("done")),
            (&json!("completed"), true),
            "{whole}"
        );
        assert_eq!((&whole["visibility"], &whole["used_logins"]), (&json!(expect), &json!(true)));
    }
    assert_eq!(scene.number("SELECT COUNT(*) AS number FROM runs WHERE takeovers = 1").await, 2);
}

#[tokio::test]
async fn a_task_that_cannot_be_is_refused_before_it_is_one_and_nothing_is_kept() {
    let provider = FakeProvider::answering(|_| text("never")).await;
    let place = crate::support::Place::new().await;
    let gateway = Gateway::configured(&provider, |settings| place.give_to(settings)).await;
    let many: serde_json::Map<String, Value> = (0..17).map(|key| (key.to_string(), json!("v"))).collect();
    for (fields, param) in [
        (json!({ "store": "yes" }), "store"),
        (json!({ "store": 1 }), "store"),
        (json!({ "metadata": [] }), "metadata"),
        (json!({ "metadata": { "a": 1 } }), "metadata"),
        (json!({ "metadata": many }), "metadata"),
        (json!({ "metadata": { "k".repeat(65): "v" } }), "metadata"),
        (json!({ "metadata": { "k": "v".repeat(513) } }), "metadata"),
        (json!({ "n": 2 }), "n"),
        (json!({ "messages": 3 }), "messages"),
        (json!({ "toolgate": { "visibility": "secret" } }), "toolgate.visibility"),
        (json!({ "toolgate": { "webhook_url": "no address" } }), "toolgate.webhook_url"),
        (json!({ "tools": [{ "type": "mcp", "server_url": 3 }] }), "tools[0].server_url"),
    ] {
        for path in ["/v1/tasks", "/v1/chat/completions"] {
            let is_completion = path != "/v1/tasks" && fields.get("store").is_none();
            let more = if is_completion { json!({ "store": true }) } else { json!({}) };
            let answer = gateway.client.post(path, &[], &with(with(ask(&[]), fields.clone()), more)).await;
            assert_eq!(answer.status, 400, "{path} {fields}: {}", answer.text());
            assert_eq!(answer.json()["error"]["param"], param, "{path} {fields}");
        }
    }
    for body in ["", "[]", "{", "nothing", r#"{"model":"m"}"#, r#"{"messages":[]}"#] {
        assert_eq!(gateway.client.post_text("/v1/tasks", &[], body).await.status, 400, "{body}");
    }
    let store = place.store().await;
    let row = store.row("SELECT COUNT(*) AS number FROM runs", Vec::new()).await.unwrap().unwrap();
    store.close().await;
    assert_eq!((row.int("number").unwrap(), provider.peer.requests().len()), (0, 0));
    // The bounds themselves are allowed.
    let most: serde_json::Map<String, Value> =
        (0..16).map(|key| (format!("{key:0>64}"), json!("é".repeat(512)))).collect();
    let id = task(&gateway, &with(ask(&[]), json!({ "metadata": most }))).await;
    assert_eq!(result(&gateway.client, &id).await["metadata"], json!(most));
    let alone = with(ask(&[]), json!({ "toolgate": { "visibility": "public" } }));
    let refused = gateway.client.chat(&alone).await;
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("toolgate.visibility")));
}

#[tokio::test]
async fn a_completion_of_any_provider_is_stored_and_store_is_not_sent_on() {
    let provider = FakeProvider::answering(|_| text("from somewhere")).await;
    let gateway =
        Gateway::configured(&provider, |settings| settings.any_host.mode = AnyHostMode::Public).await;
    let path = format!("/{}/v1/chat/completions", provider.peer.host());
    let fields = json!({ "metadata": { "a": "b" } });
    let answer = gateway.client.post(&path, &[], &with(stored(ask(&[])), fields)).await;
    let id = id_of(&answer);
    assert_eq!(answer.header("x-run-id"), Some(id.as_str()));
    let body = provider.last_body();
    assert!(body.get("store").is_none() && body.get("metadata").is_none(), "{body}");
    let found = gateway.client.get(&format!("/v1/chat/completions/{id}")).await;
    assert_eq!((found.content(), &found.json()["metadata"]["a"]), ("from somewhere".to_owned(), &json!("b")));
    let relayed = gateway.client.post(&path, &[], &with(ask(&[]), json!({ "store": false }))).await;
    assert_eq!((relayed.status, relayed.header("x-run-id")), (200, None), "without it nothing is kept");
}

#[tokio::test]
async fn the_end_of_a_task_is_told_once_and_signed() {
    let mcp = FakeMcp::start(vec![FakeTool::text("t", "x")]).await;
    let provider = FakeProvider::answering(|request| match request.text().contains("fail") {
        true => Reply::with_headers(400, &[], r#"{"error":{"message":"no"}}"#),
        false => text("done"),
    })
    .await;
    let app = Peer::start(|_| Reply::with_headers(204, &[], "")).await;
    let gateway = Gateway::with(&provider).await;
    let told = json!({ "toolgate": { "webhook_url": app.url("/ended") }, "user": "ann" });
    let done = task(&gateway, &with(ask(&[mcp.entry("s")]), told.clone())).await;
    app.until_requests(1).await;
    let failing = json!({ "messages": [{ "role": "user", "content": "fail" }] });
    let failed = task(&gateway, &with(with(ask(&[]), told), failing)).await;
    app.until_requests(2).await;
    let secret =
        gateway.client.get("/v1/webhooks/secret").await.json()["secret"].as_str().unwrap().to_owned();
    let key: [u8; 32] = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap().try_into().unwrap();
    let requests = app.requests();
    for (request, (id, kind, status)) in
        requests.iter().zip([(&done, "run.completed", "completed"), (&failed, "run.failed", "failed")])
    {
        let (name, at) =
            (request.header("webhook-id").unwrap(), request.header("webhook-timestamp").unwrap());
        let signed = [format!("{name}.{at}.").as_bytes(), &request.body].concat();
        let expected = format!("v1,{}", STANDARD.encode(hmac_sha256(&key, &signed)));
        assert_eq!(request.header("webhook-signature"), Some(expected.as_str()));
        let event = request.json();
        assert_eq!(event["type"], kind);
        let data = &event["data"];
        assert_eq!(
            (&data["id"], &data["status"], &data["user"]),
            (&json!(id), &json!(status), &json!("ann"))
        );
        assert!(data["json_url"].as_str().unwrap().ends_with(&format!("/{id}.json")));
        // Who is told finds what was told.
        let stands = gateway.client.get(&format!("/v1/runs/{id}")).await.json();
        assert_eq!(stands["status"], status);
    }
    watcher::all(&gateway.client, &failed).await;
    assert_eq!(app.requests().len(), 2);
}

#[tokio::test]
async fn a_webhook_goes_to_no_address_inside_the_house() {
    let provider = FakeProvider::answering(|_| text("done")).await;
    let app = Peer::start(|_| Reply::with_headers(204, &[], "")).await;
    let gateway = hosted(&provider, |_| {}).await;
    for url in [app.url("/"), "http://169.254.169.254/latest".to_owned(), "file:///etc/passwd".to_owned()] {
        let body = with(ask(&[]), json!({ "toolgate": { "webhook_url": url } }));
        let refused = ask_as(&gateway, Some(SHOP), "POST", "/v1/tasks", &body).await;
        assert_eq!(refused.status, 400, "{url}: {}", refused.text());
        assert_eq!(refused.json()["error"]["param"], "toolgate.webhook_url");
    }
    assert_eq!(app.requests().len(), 0);
}
