//! `/v1/connections` and `…/check` of addresses that nobody has asked before: what they say decides, not what is guessed.

use serde_json::{Value, json};
use toolgate::config::OauthClient;

use crate::support::authorization_server::{
    AuthorizationServer, RESOURCE_METADATA, SERVER_METADATA, resource_metadata,
};
use crate::support::{
    Answer, FakeMcp, FakeProvider, FakeTool, Gateway, Peer, Person, Place, Protected, Reply, ask, calls,
    text, with,
};

const ROOT_METADATA: &str = "/.well-known/oauth-protected-resource";

async fn local() -> Gateway {
    let provider = FakeProvider::answering(|_| text("hello")).await;
    Gateway::with(&provider).await
}

async fn check(gateway: &Gateway, urls: &[String]) -> Vec<Value> {
    let asked = json!({ "user": "ann", "urls": urls });
    let answer = gateway.client.post("/v1/connections/check", &[], &asked).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["data"].as_array().unwrap().clone()
}

async fn check_one(gateway: &Gateway, peer: &Peer) -> Value {
    check(gateway, &[peer.url("/mcp")]).await.remove(0)
}

async fn start(gateway: &Gateway, url: &str) -> Answer {
    gateway.client.post("/v1/connections", &[], &json!({ "user": "ann", "server_url": url })).await
}

/// A server that answers everybody at `/mcp`.
fn open() -> AuthorizationServer {
    AuthorizationServer::new().without(RESOURCE_METADATA).without(SERVER_METADATA).json(
        "/mcp",
        200,
        json!({ "jsonrpc": "2.0", "id": 1, "result": {} }),
    )
}

#[tokio::test]
async fn a_login_is_found_wherever_the_server_says_that_it_is() {
    let servers = [
        (
            "named in the challenge only",
            AuthorizationServer::new()
                .without(RESOURCE_METADATA)
                .challenge(r#"Bearer resource_metadata="{own}/elsewhere.json", scope="only""#)
                .json("/elsewhere.json", 200, resource_metadata()),
        ),
        (
            "of 2025-03-26, with metadata at the origin",
            AuthorizationServer::new().without(RESOURCE_METADATA).challenge("Bearer"),
        ),
        (
            "of 2025-03-26, with no metadata at all",
            AuthorizationServer::new()
                .without(RESOURCE_METADATA)
                .without(SERVER_METADATA)
                .challenge("Bearer"),
        ),
        (
            "no MCP server, but a resource that answers 401",
            AuthorizationServer::new().on("/mcp", |request| {
                let status = if request.method == "POST" { 405 } else { 401 };
                Reply::with_headers(status, &[("www-authenticate", "Bearer")], "")
            }),
        ),
        (
            "anonymous, with metadata",
            open().json(RESOURCE_METADATA, 200, resource_metadata()).server(json!({})),
        ),
    ];
    let gateway = local().await;
    for (about, server) in servers {
        let peer = server.start().await;
        let found = check_one(&gateway, &peer).await;
        assert_eq!(found["status"], "needs_login", "{about}: {found}");
        let started = start(&gateway, &peer.url("/mcp")).await;
        assert_eq!(started.status, 201, "{about}: {}", started.text());
        assert_eq!(started.json()["connect_url"], found["connect_url"], "{about}");
        if about == "named in the challenge only" {
            assert_eq!(found["scopes"], json!(["only"]));
        }
    }
}

#[tokio::test]
async fn only_who_answers_without_a_login_is_public() {
    let gateway = local().await;
    let mcp = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let picky = open().json("/mcp", 400, json!({ "error": "no session" })).start().await;
    // Some sites answer everything with a page.
    let page = open()
        .text(ROOT_METADATA, 200, "text/html", "<h1>Hello</h1>")
        .text(RESOURCE_METADATA, 200, "text/html", "<h1>Hello</h1>")
        .start()
        .await;
    for url in [mcp.url(), picky.url("/mcp"), page.url("/mcp")] {
        let found = check(&gateway, std::slice::from_ref(&url)).await.remove(0);
        assert_eq!(found, json!({ "url": url, "status": "public" }));
        let refused = start(&gateway, &url).await;
        assert_eq!((refused.status, &refused.json()["error"]["code"]), (404, &json!("login_not_offered")));
    }
}

#[tokio::test]
async fn what_cannot_be_known_is_unknown_and_says_why() {
    let gateway = local().await;
    for (server, status, code, why) in [
        (AuthorizationServer::new().json("/mcp", 503, json!({})), 502, "login_unusable", "HTTP status 503"),
        (AuthorizationServer::new().without("/mcp"), 201, "", ""),
        (
            AuthorizationServer::new().without("/mcp").without(RESOURCE_METADATA),
            502,
            "login_unusable",
            "HTTP status 404",
        ),
        (open().json(RESOURCE_METADATA, 503, json!({})), 502, "login_unusable", "HTTP status 503"),
        (AuthorizationServer::new().json(SERVER_METADATA, 429, json!({})), 502, "login_unusable", "429"),
        (
            AuthorizationServer::new().server(json!({ "issuer": "https://evil.example" })),
            502,
            "login_unusable",
            "https://evil.example",
        ),
        (
            AuthorizationServer::new().server(json!({ "registration_endpoint": null })),
            404,
            "login_not_offered",
            "[[oauth_clients]]",
        ),
        (
            // Wants a key, and knows nothing of OAuth.
            open().challenge("Bearer").without("/register"),
            404,
            "login_not_offered",
            "offers no login by OAuth",
        ),
        (open().challenge("Bearer").json("/register", 503, json!({})), 502, "login_unusable", "503"),
    ] {
        let peer = server.start().await;
        let found = check_one(&gateway, &peer).await;
        let started = start(&gateway, &peer.url("/mcp")).await;
        assert_eq!(started.status, status, "{}", started.text());
        if status == 201 {
            assert_eq!(found["status"], "needs_login", "what is published counts: {found}");
            continue;
        }
        assert_eq!(started.json()["error"]["code"], code, "{}", started.text());
        assert_eq!(found["status"], "unknown", "{why}: {found}");
        assert!(found["reason"].as_str().unwrap().contains(why), "{why}: {found}");
        assert!(started.text().contains(why), "{why}: {}", started.text());
    }
    let nobody = "http://127.0.0.1:9/mcp".to_owned();
    let found = check(&gateway, std::slice::from_ref(&nobody)).await.remove(0);
    assert_eq!(found["status"], "unknown", "{found}");
    assert_eq!(start(&gateway, &nobody).await.status, 502);
}

#[tokio::test]
async fn too_many_open_logins_are_not_called_a_public_server() {
    let mcp = Protected::start(vec![FakeTool::echo("t")]).await;
    let gateway = local().await;
    let mut last = Value::Null;
    for round in 0..9 {
        let urls: Vec<String> =
            (0..64).map(|number| mcp.peer.url(&format!("/mcp/{round}-{number}"))).collect();
        for found in check(&gateway, &urls).await {
            let status = found["status"].as_str().unwrap();
            assert!(status == "needs_login" || (round > 6 && status == "unknown"), "{round}: {found}");
            last = found;
        }
    }
    assert!(last["reason"].as_str().unwrap().contains("too many logins are open"), "{last}");
    let refused = start(&gateway, &mcp.url()).await;
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (429, &json!("too_many_logins")));
}

#[tokio::test]
async fn nobody_asks_for_more_than_the_operators_client_may() {
    let peer = AuthorizationServer::new().start().await;
    let provider = FakeProvider::answering(|_| text("hello")).await;
    let gateway = Gateway::configured(&provider, |settings| {
        settings.oauth_clients.push(OauthClient {
            issuer: peer.url(""),
            client_id: "mine".into(),
            resources: vec![peer.host()],
            scopes: vec!["read".into(), "write".into()],
            ..OauthClient::default()
        });
    })
    .await;
    let start = async |scopes: Value| {
        let wanted = json!({ "user": "ann", "server_url": peer.url("/mcp"), "scopes": scopes });
        gateway.client.post("/v1/connections", &[], &wanted).await
    };
    let within = start(json!(["write"])).await;
    assert_eq!((within.status, &within.json()["scopes"]), (201, &json!(["write"])));
    let beyond = start(json!(["read", "admin"])).await;
    assert_eq!((beyond.status, &beyond.json()["error"]["code"]), (404, &json!("login_not_offered")));
    assert!(beyond.text().contains("`admin`"), "{}", beyond.text());
}

#[tokio::test]
async fn looking_is_no_use() {
    let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
    let provider = FakeProvider::answering(|request| {
        let said = request.json()["messages"].as_array().unwrap().len();
        if said == 1 { calls(&[("call_1", "s_t", json!({}))]) } else { text("done") }
    })
    .await;
    let place = Place::new().await;
    let again = async || Gateway::configured(&provider, |settings| place.give_to(settings)).await;
    let gateway = again().await;
    let link = start(&gateway, &mcp.url()).await.json()["connect_url"].as_str().unwrap().to_owned();
    assert_eq!(Person::new().log_in(&link).await.status, 200);
    gateway.stop().await;
    let last_used = async || {
        let store = place.store().await;
        let rows = store.rows("SELECT last_used_at FROM connections", Vec::new()).await.unwrap();
        store.close().await;
        rows[0].int("last_used_at").unwrap()
    };
    let store = place.store().await;
    let earlier = "UPDATE connections SET last_used_at = last_used_at - 86400000";
    assert_eq!(store.execute(earlier, Vec::new()).await.unwrap(), 1);
    store.close().await;
    let before = last_used().await;

    let gateway = again().await;
    assert_eq!(check(&gateway, &[mcp.url()]).await[0]["status"], "connected");
    assert_eq!(start(&gateway, &mcp.url()).await.json()["status"], "connected");
    // Stopping writes down what was used.
    gateway.stop().await;
    assert_eq!(last_used().await, before);

    let gateway = again().await;
    let answer = gateway.client.chat(&with(ask(&[mcp.entry("s")]), json!({ "user": "ann" }))).await;
    assert!(answer.content().ends_with("done"), "{}", answer.text());
    gateway.stop().await;
    assert!(last_used().await > before);
}
