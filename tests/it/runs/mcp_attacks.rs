//! What a kept run's MCP server refuses, and what it tells of what is not there.

use serde_json::{Value, json};
use toolgate::config::{AnyHostMode, EgressAllow, KeyScope, Models, Provider, Secret};

use super::mcp::{MODERN, asking, modern, modern_request, said};
use super::outside::{RIVAL, SHOP, as_key, hosted};
use super::scene::{id_of, stored};
use crate::support::{Answer, FakeMcp, FakeProvider, FakeTool, Gateway, Peer, Reply, ask, text, whole, with};

/// A request as JSON to the run, with these headers.
async fn post(gateway: &Gateway, id: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    gateway.client.post_text(&format!("/{id}/mcp"), headers, body).await
}

async fn stored_as(gateway: &Gateway, key: &str, body: &Value) -> String {
    let headers = as_key(key);
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    id_of(&gateway.client.post("/v1/chat/completions", &headers, body).await)
}

fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

/// What a client can tell of an answer, but for the request's own id.
fn told(answer: &Answer) -> (u16, String, Vec<(String, String)>) {
    let headers =
        answer.headers.iter().filter(|(name, _)| !["x-request-id", "date"].contains(&name.as_str()));
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    (answer.status, answer.text(), headers.collect())
}

#[tokio::test]
async fn who_may_not_read_a_run_is_told_exactly_what_is_told_of_none() {
    let provider = FakeProvider::answering(|_| text("mine alone")).await;
    let gateway = hosted(&provider, |_| {}).await;
    let body = with(stored(ask(&[])), json!({ "toolgate": { "visibility": "private" } }));
    let id = stored_as(&gateway, SHOP, &body).await;
    let none = format!("run_{}", "0".repeat(id.len() - 4));
    let (shop, rival) = (bearer(SHOP), bearer(RIVAL));
    let as_rival = [("authorization", rival.as_str())];
    for (method, params) in [
        ("server/discover", json!({})),
        ("tools/list", json!({})),
        ("tools/call", asking("tell me")),
        ("nothing", json!({})),
    ] {
        let of_private = modern(&gateway, &id, &as_rival, method, params.clone()).await;
        let of_none = modern(&gateway, &none, &as_rival, method, params).await;
        assert_eq!((of_private.status, told(&of_private)), (404, told(&of_none)), "{method}");
        let error = &of_private.json()["error"];
        assert_eq!((&error["code"], &error["data"]["code"]), (&json!(-32600), &json!("run_not_found")));
    }
    let junk = post(&gateway, &id, &as_rival, "junk").await;
    assert_eq!((junk.status, told(&junk)), (404, told(&post(&gateway, &none, &as_rival, "junk").await)));
    assert_eq!(provider.peer.requests().len(), 1);
    let own = modern(&gateway, &id, &[("authorization", &shop)], "tools/call", asking("tell me")).await;
    assert_eq!(said(&own).0, "mine alone");
}

#[tokio::test]
async fn nobody_asks_without_a_key_that_may() {
    let provider = FakeProvider::answering(|_| text("never")).await;
    let gateway = hosted(&provider, |settings| {
        settings.pass_through.enabled = Some(false);
        settings.api_keys[1].scopes = Some(vec![KeyScope::Connections]);
    })
    .await;
    // Everybody may read it.
    let id =
        stored_as(&gateway, SHOP, &with(stored(ask(&[])), json!({ "toolgate": { "visibility": "public" } })))
            .await;
    let rival = bearer(RIVAL);
    for (key, status, challenge) in [
        (None, 401, "Bearer realm=\"toolgate\""),
        (Some("Bearer tgk_canarycanarycanary"), 401, "Bearer realm=\"toolgate\", error=\"invalid_token\""),
        (Some("Bearer sk-canary"), 401, "Bearer realm=\"toolgate\", error=\"invalid_token\""),
        (Some("Basic Y2FuYXJ5"), 401, "Bearer realm=\"toolgate\", error=\"invalid_token\""),
        (Some(rival.as_str()), 403, "Bearer realm=\"toolgate\", error=\"insufficient_scope\""),
    ] {
        let headers: Vec<(&str, &str)> = key.map(|key| ("authorization", key)).into_iter().collect();
        for (method, params) in [("tools/list", json!({})), ("tools/call", asking("go"))] {
            let refused = modern(&gateway, &id, &headers, method, params).await;
            assert_eq!(refused.status, status, "{key:?}: {}", refused.text());
            assert_eq!(refused.header("www-authenticate"), Some(challenge), "{key:?}");
            assert_eq!(refused.json()["error"]["code"], -32600);
            assert!(!refused.text().contains("canary"), "{}", refused.text());
        }
    }
    assert_eq!(provider.peer.requests().len(), 1, "the prompt's own");
}

#[tokio::test]
async fn requests_are_counted_and_too_many_are_told_when_to_come_back() {
    let provider = FakeProvider::answering(|_| text("fine")).await;
    let gateway = hosted(&provider, |settings| settings.api_keys[0].requests_per_minute = Some(3)).await;
    let id = stored_as(&gateway, SHOP, &stored(ask(&[]))).await;
    let shop = bearer(SHOP);
    let mut refused = None;
    for _ in 0..4 {
        let answer = modern(&gateway, &id, &[("authorization", &shop)], "tools/call", asking("go")).await;
        if answer.status == 429 {
            refused = Some(answer);
        }
    }
    let refused = refused.expect("one is too many");
    assert!(refused.header("retry-after").unwrap().parse::<u32>().is_ok());
    assert_eq!(refused.json()["error"]["data"]["code"], "rate_limit_exceeded");
}

#[tokio::test]
async fn pages_of_other_sites_are_refused() {
    let provider = FakeProvider::answering(|_| text("fine")).await;
    let gateway =
        hosted(&provider, |settings| settings.public_url = Some("https://tools.example/".into())).await;
    let id = stored_as(&gateway, SHOP, &stored(ask(&[]))).await;
    let shop = bearer(SHOP);
    let with_origin = async |origin: &str| {
        let headers = [("authorization", shop.as_str()), ("origin", origin)];
        modern(&gateway, &id, &headers, "tools/call", asking("go")).await
    };
    for origin in [
        "https://evil.example",
        "null",
        "",
        "http://tools.example",
        "https://tools.example.evil.example",
        "https://tools.example:8443",
        "https://tools.example/",
        "http://127.0.0.1:3000",
    ] {
        let refused = with_origin(origin).await;
        assert_eq!((refused.status, &refused.json()["error"]["code"]), (403, &json!(-32600)), "{origin}");
    }
    assert_eq!(said(&with_origin("https://tools.example").await).0, "fine");
    let both = [
        ("authorization", shop.as_str()),
        ("origin", "https://tools.example"),
        ("origin", "https://evil.example"),
    ];
    assert_eq!(modern(&gateway, &id, &both, "tools/call", asking("go")).await.status, 403);
    let as_page = [("authorization", shop.as_str()), ("sec-fetch-dest", "document")];
    assert_eq!(modern(&gateway, &id, &as_page, "tools/call", asking("go")).await.status, 403);
    let local = Gateway::with(&provider).await;
    let id = id_of(&local.client.chat(&stored(ask(&[]))).await);
    let evil = [("origin", "https://evil.example")];
    assert_eq!(modern(&local, &id, &evil, "tools/call", asking("go")).await.status, 403);
    let rebound = [("host", "evil.example")];
    assert_eq!(modern(&local, &id, &rebound, "tools/call", asking("go")).await.status, 403);
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_nobody_is_asked() {
    let provider = FakeProvider::answering(|_| text("a prompt")).await;
    let gateway = Gateway::with(&provider).await;
    let id = id_of(&gateway.client.chat(&stored(ask(&[]))).await);
    let path = format!("/{id}/mcp");
    for method in ["GET", "DELETE", "PUT", "OPTIONS"] {
        let refused =
            whole(gateway.client.send(method, &path, &[("accept", "text/event-stream")], "").await).await;
        assert_eq!((refused.status, refused.header("allow")), (405, Some("POST")), "{method}");
    }
    let (headers, body) = modern_request("tools/call", asking("go"));
    let sent = async |change: &[(&str, &str)], body: &str| {
        let mut all: Vec<(&str, &str)> = vec![("content-type", "application/json")];
        all.extend(headers.iter().map(|(name, value)| (*name, value.as_str())));
        all.retain(|(name, _)| !change.iter().any(|(changed, _)| changed == name));
        all.extend(change.iter().filter(|(_, value)| !value.is_empty()));
        whole(gateway.client.send("POST", &path, &all, body.to_owned()).await).await
    };
    let good = body.to_string();
    for (change, status, code) in [
        (("content-type", "text/plain"), 415, -32600),
        (("content-type", ""), 415, -32600),
        (("accept", "text/event-stream"), 406, -32600),
        (("mcp-protocol-version", ""), 400, -32020),
        (("mcp-protocol-version", "2025-11-25"), 400, -32020),
        (("mcp-method", "tools/list"), 400, -32020),
        (("mcp-method", ""), 400, -32020),
        (("mcp-name", "tell"), 400, -32020),
        (("mcp-name", ""), 400, -32020),
    ] {
        let refused = sent(&[change], &good).await;
        assert_eq!((refused.status, &refused.json()["error"]["code"]), (status, &json!(code)), "{change:?}");
    }
    let other = good.replace(MODERN, "2031-01-01");
    let other = sent(&[("mcp-protocol-version", "2031-01-01")], &other).await;
    assert_eq!((other.status, &other.json()["error"]["code"]), (400, &json!(-32022)));
    for (junk, status, code) in [
        ("", 400, -32700),
        ("{", 400, -32700),
        (&*"[".repeat(100_000), 400, -32700),
        ("7", 400, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, 400, -32600),
        (&*" ".repeat((2 << 20) + 1), 413, -32600),
    ] {
        let refused = sent(&[], junk).await;
        let shown = &junk[..junk.len().min(40)];
        assert_eq!((refused.status, &refused.json()["error"]["code"]), (status, &json!(code)), "{shown}");
    }
    let unknown = modern(&gateway, &id, &[], "prompts/list", json!({})).await;
    assert_eq!((unknown.status, &unknown.json()["error"]["code"]), (404, &json!(-32601)));
    for params in [
        json!({ "name": "ask", "arguments": {} }),
        json!({ "name": "ask", "arguments": { "message": "x", "tools": [] } }),
        json!({ "name": "tell", "arguments": { "message": "x" } }),
        json!({ "name": "ask", "arguments": { "message": "x" }, "_meta": { "progressToken": "t".repeat(300) } }),
    ] {
        let refused = modern(&gateway, &id, &[], "tools/call", params.clone()).await;
        assert_eq!(refused.json()["error"]["code"], -32602, "{params}");
    }
    assert_eq!(provider.peer.requests().len(), 1, "the prompt's own");
}

#[tokio::test]
async fn a_clients_key_and_headers_go_nowhere_else() {
    let mcp = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let provider =
        super::scene::calling(|| crate::support::calls(&[("c", "s_t", json!({}))]), || text("done")).await;
    let gateway = hosted(&provider, |settings| {
        let house = EgressAllow { host: None, cidr: Some("127.0.0.0/8".parse().unwrap()), ports: Vec::new() };
        settings.egress.allow.push(house);
        settings.pass_through.enabled = Some(true);
    })
    .await;
    let id = stored_as(&gateway, SHOP, &stored(ask(&[mcp.entry("s")]))).await;
    let shop = bearer(SHOP);
    let more = [
        ("authorization", shop.as_str()),
        ("x-canary", "canary"),
        ("mcp-session-id", "canary"),
        ("cookie", "a=canary"),
    ];
    assert_eq!(said(&modern(&gateway, &id, &more, "tools/call", asking("go")).await).0, "done");
    for request in provider.peer.requests().iter().chain(&mcp.peer.requests()) {
        let all = format!("{:?} {}", request.headers, request.text());
        assert!(!all.contains("canary") && !all.contains(SHOP), "{all}");
    }
    let last = provider.peer.requests().pop().unwrap();
    assert_eq!(last.header("content-type"), Some("application/json"));
    assert!(
        !last.headers.iter().any(|(name, _)| name.starts_with("mcp-") || name == "accept"),
        "{:?}",
        last.headers
    );
    // The tools of somebody else's run are not used.
    let list =
        modern(&gateway, &id, &[("authorization", "Bearer sk-mine")], "tools/list", json!({})).await.json();
    let description = list["result"]["tools"][0]["description"].as_str().unwrap().to_owned();
    assert!(!description.contains("tools of that prompt"), "{description}");
}

#[tokio::test]
async fn a_providers_own_key_goes_to_no_provider_that_a_strangers_run_names() {
    let (mine, other) =
        (FakeProvider::answering(|_| text("mine")).await, FakeProvider::answering(|_| text("other")).await);
    let gateway = hosted(&mine, |settings| {
        settings.pass_through.enabled = Some(true);
        settings.any_host.mode = AnyHostMode::Public;
        for (name, provider) in [("mine", &mine), ("other", &other)] {
            settings.providers.push(with_key(name, provider));
        }
    })
    .await;
    let own = [("authorization", "Bearer sk-mine")];
    let prompt = with(stored(ask(&[])), json!({ "model": "other/m" }));
    let other_pass_through = [("authorization", "Bearer sk-other")];
    let strangers = [
        stored_as(&gateway, SHOP, &prompt).await,
        id_of(&gateway.client.post("/v1/chat/completions", &other_pass_through, &prompt).await),
    ];
    let before = other.peer.requests().len();
    for id in &strangers {
        let (words, is_error) = said(&modern(&gateway, id, &own, "tools/call", asking("go")).await);
        assert!(is_error && words.contains(&format!("/{id}/chat/completions")), "{words}");
        assert!(words.contains("name the `model`") && words.contains("API key of this gateway"), "{words}");
        let path = format!("/{id}/chat/completions");
        for nothing in [json!({}), json!({ "model": "" }), json!({ "model": null })] {
            let body = with(json!({ "messages": [{ "role": "user", "content": "go" }] }), nothing);
            let refused = gateway.client.post(&path, &own, &body).await;
            assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("model")));
        }
        // Who says where the key is for, gets there.
        let named = with(ask(&[]), json!({ "model": "mine/m" }));
        assert_eq!(gateway.client.post(&path, &own, &named).await.content(), "mine");
        let last = mine.peer.requests().pop().unwrap();
        assert_eq!(last.header("authorization"), Some("Bearer sk-mine"));
        assert!(last.json().get("tools").is_none());
    }
    assert_eq!(other.peer.requests().len(), before, "nothing of it reached the other");
    // One's own run names where one's own key has been.
    let answer = modern(&gateway, &strangers[1], &other_pass_through, "tools/call", asking("go")).await;
    assert_eq!(said(&answer), ("other".to_owned(), false));
    assert_eq!(other.peer.requests().pop().unwrap().header("authorization"), Some("Bearer sk-other"));
}

/// A configured provider with a key of the operator's.
fn with_key(name: &str, provider: &FakeProvider) -> Provider {
    Provider {
        name: name.into(),
        base_url: Some(provider.peer.url("/v1")),
        api_key: Some(Secret::new("k")),
        models: Some(Models::These(vec!["m".into()])),
        ..Provider::default()
    }
}

#[tokio::test]
async fn no_key_but_the_one_that_asked_a_run_at_a_providers_address_goes_there_with_its_prompt() {
    let configured = FakeProvider::answering(|_| text("configured")).await;
    let named = FakeProvider::answering(|_| text("named")).await;
    let gateway =
        Gateway::configured(&configured, |settings| settings.any_host.mode = AnyHostMode::Public).await;
    let path = format!("/{}/openai/v1/chat/completions?api-version=2", named.peer.host());
    let own = [("authorization", "Bearer sk-mine")];
    let body = with(stored(ask(&[])), json!({ "model": "maker/theirs" }));
    let id = id_of(&gateway.client.post(&path, &own, &body).await);
    let chat = format!("/{id}/chat/completions");
    let without = json!({ "messages": [{ "role": "user", "content": "and then?" }] });
    for body in [without.clone(), with(without.clone(), json!({ "model": "maker/theirs" }))] {
        assert_eq!(gateway.client.post(&chat, &own, &body).await.content(), "named");
    }
    assert_eq!(said(&modern(&gateway, &id, &own, "tools/call", asking("and then?")).await).0, "named");
    let requests = named.peer.requests();
    assert_eq!(requests.len(), 4);
    for request in &requests {
        assert_eq!(request.path, "/openai/v1/chat/completions?api-version=2");
        assert_eq!(request.header("authorization"), Some("Bearer sk-mine"));
        assert_eq!(request.json()["model"], "maker/theirs");
    }
    assert_eq!(requests[3].json()["messages"][0], json!({ "role": "system", "content": "question" }));
    assert_eq!(gateway.client.post(&chat, &[], &without).await.content(), "named");
    assert_eq!(named.peer.requests()[4].header("authorization"), None, "nor the operator's");
    // Who names another model asks for that one.
    let other = with(without, json!({ "model": "m" }));
    assert_eq!(gateway.client.post(&chat, &[], &other).await.content(), "configured");
    assert_eq!(named.peer.requests().len(), 5);
}

#[tokio::test]
async fn a_run_of_a_providers_address_takes_nobody_elses_key_there() {
    let provider = FakeProvider::answering(|_| text("of the house")).await;
    let gateway = hosted(&provider, |settings| {
        settings.pass_through.enabled = Some(true);
        settings.any_host.mode = AnyHostMode::Public;
        let house = EgressAllow { host: None, cidr: Some("127.0.0.0/8".parse().unwrap()), ports: Vec::new() };
        settings.egress.allow.push(house);
        (settings.egress.connect_seconds, settings.upstream.max_retries) = (1, 0);
    })
    .await;
    let evil = Peer::start(|_| Reply::Silence).await;
    let path = format!("/{}/v1/chat/completions", evil.host());
    let theirs = [("authorization", "Bearer sk-evil")];
    // Nothing there speaks TLS, and the run is kept all the same.
    let failed = gateway.client.post(&path, &theirs, &stored(ask(&[]))).await;
    let id = failed.header("x-run-id").unwrap_or_else(|| panic!("{}", failed.text())).to_owned();
    let chat = format!("/{id}/chat/completions");
    let body = json!({ "messages": [{ "role": "user", "content": "go" }] });
    let again = gateway.client.post(&chat, &theirs, &body).await;
    assert_eq!(again.status, failed.status, "who asked it is sent there: {}", again.text());
    let shop = bearer(SHOP);
    for key in ["Bearer sk-mine", shop.as_str()] {
        let headers = [("authorization", key)];
        let refused = gateway.client.post(&chat, &headers, &body).await;
        assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("model")));
        let (words, is_error) = said(&modern(&gateway, &id, &headers, "tools/call", asking("go")).await);
        assert!(is_error && words.contains(&chat) && !words.contains(&evil.host()), "{words}");
    }
    let named = gateway.client.post(&chat, &[("authorization", &shop)], &ask(&[])).await;
    assert_eq!(
        named.content(),
        "of the house",
        "the run's own model's name means one of the house to others"
    );
    let page =
        whole(gateway.client.send("GET", &format!("/{id}"), &[("accept", "text/html")], "").await).await;
    assert!(page.status == 200 && !page.text().contains("Use as API"), "{}", page.text());
}

#[tokio::test]
async fn a_strangers_words_are_no_markup_among_the_tools() {
    let provider = FakeProvider::answering(|_| text("fine")).await;
    let gateway = Gateway::with(&provider).await;
    let evil = "</tool>\u{1b}[2J\u{202e}\u{e0041} <img src=x onerror=alert(1)> [log in](https://evil.example)\n\n`rm` \"x\" “y”";
    let body = json!({ "model": format!("fake/{evil}{}", "long ".repeat(500)), "store": true, "messages": [{ "role": "user", "content": format!("{evil}{}", "long ".repeat(500)) }] });
    let id = id_of(&gateway.client.chat(&body).await);
    let found = modern(&gateway, &id, &[], "server/discover", json!({})).await.json()["result"].clone();
    let tool = modern(&gateway, &id, &[], "tools/list", json!({})).await.json()["result"]["tools"][0].clone();
    let title = tool["title"].as_str().unwrap();
    assert!(
        title.starts_with("‹/tool›(2J ‹img src=x onerror=alert(1)› (log in)(https://evil.example) 'rm'"),
        "{title}"
    );
    assert!(title.chars().count() <= 90);
    let description = tool["description"].as_str().unwrap();
    let model = "`fake/‹/tool› ‹img src=x onerror=alert(1)› (log in)(https://evil.example)";
    assert!(description.starts_with(&format!("Asks the model {model}")), "{description}");
    assert_eq!(description.matches('`').count(), 4, "none but the gateway's own: {description}");
    for text in [description, title, found["instructions"].as_str().unwrap()] {
        assert!(!text.chars().any(|c| "<>[]\n\u{1b}\u{202e}\u{e0041}".contains(c)), "{text:?}");
        assert!(text.len() < 1000, "{text}");
    }
}

#[tokio::test]
async fn a_run_that_is_deleted_is_no_server_any_more() {
    let provider = FakeProvider::answering(|_| text("fine")).await;
    let gateway = Gateway::with(&provider).await;
    let id = id_of(&gateway.client.chat(&stored(ask(&[]))).await);
    assert_eq!(said(&modern(&gateway, &id, &[], "tools/call", asking("go")).await).0, "fine");
    let deleted = whole(gateway.client.send("DELETE", &format!("/v1/runs/{id}"), &[], "").await).await;
    assert_eq!(deleted.status, 200);
    for (method, params) in
        [("server/discover", json!({})), ("tools/list", json!({})), ("tools/call", asking("go"))]
    {
        assert_eq!(modern(&gateway, &id, &[], method, params).await.status, 404, "{method}");
    }
    assert_eq!(provider.peer.requests().len(), 2);
}

#[tokio::test]
async fn what_a_providers_host_has_at_mcp_is_still_the_hosts() {
    let provider = FakeProvider::answering(|_| Reply::with_headers(200, &[], "the host's own")).await;
    let gateway =
        Gateway::configured(&provider, |settings| settings.any_host.mode = AnyHostMode::Public).await;
    let path = format!("/{}/mcp", provider.peer.host());
    for method in ["GET", "POST", "DELETE"] {
        let answer = whole(gateway.client.send(method, &path, &[], "").await).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "the host's own"), "{method}");
    }
    assert!(provider.peer.requests().iter().all(|request| request.path == "/mcp"));
    assert_eq!(gateway.client.post("/nothing/mcp", &[], &json!({})).await.status, 404);
}

#[tokio::test]
async fn an_address_that_only_runs_have_is_no_providers_host() {
    let provider = FakeProvider::answering(|_| text("a prompt")).await;
    let gateway =
        Gateway::configured(&provider, |settings| settings.any_host.mode = AnyHostMode::Public).await;
    let id = id_of(&gateway.client.chat(&stored(ask(&[]))).await);
    let none = format!("run_{}", "0".repeat(id.len() - 4));
    for path in [
        format!("/{id}.md/"),
        format!("/{id}.md/mcp"),
        format!("/{id}.md/chat/completions"),
        format!("/{id}.json/v1/models"),
        format!("/{id}:443/v1/models"),
        format!("/{id}/v1/models"),
        "/run_.example/v1/models".to_owned(),
        "/run_x/mcp".to_owned(),
    ] {
        for method in ["GET", "POST"] {
            let answer = whole(gateway.client.send(method, &path, &[], "").await).await;
            let code = answer.json()["error"]["code"].clone();
            assert_eq!((answer.status, code), (404, json!("run_not_found")), "{method} {path}");
        }
    }
    for id in [&id, &none] {
        for (method, path, allow, words) in [
            ("DELETE", format!("/{id}"), "GET, HEAD", format!("/v1/runs/{id}")),
            ("PUT", format!("/{id}"), "GET, HEAD", format!("/v1/runs/{id}")),
            ("POST", format!("/{id}"), "GET, HEAD", format!("/v1/runs/{id}")),
            ("DELETE", format!("/{id}.md"), "GET, HEAD", format!("/v1/runs/{id}")),
            ("GET", format!("/{id}/chat/completions"), "POST", "POST".to_owned()),
        ] {
            let answer = whole(gateway.client.send(method, &path, &[], "").await).await;
            assert_eq!((answer.status, answer.header("allow")), (405, Some(allow)), "{method} {path}");
            let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
            assert!(message.contains(&words), "{method} {path}: {message}");
        }
    }
    assert_eq!(gateway.client.get(&format!("/v1/runs/{id}")).await.status, 200, "it is still there");
}
