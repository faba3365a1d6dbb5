//! `/v1/connections…`: what an application may see and do about its users' logins.

use serde_json::{Value, json};
use toolgate::config::{ApiKey, EgressAllow, KeyScope};
use toolgate::crypto::ApiKeyHash;

use crate::support::authorization_server::{
    AuthorizationServer, RESOURCE_METADATA, SERVER_METADATA, resource_metadata,
};
use crate::support::{
    Answer, Browser, FakeMcp, FakeProvider, FakeTool, Gateway, Peer, Person, Protected, Reply, text, whole,
};

const SHOP: &str = "tgk_0123456789abcdefghjkmnpq";
const RIVAL: &str = "tgk_1123456789abcdefghjkmnpq";
const CHAT_ONLY: &str = "tgk_2123456789abcdefghjkmnpq";
const READER: &str = "tgk_3123456789abcdefghjkmnpq";

/// A gateway of two projects: a shop with three keys, and its rival.
async fn shared(tokens_endpoint: bool) -> Gateway {
    let provider = FakeProvider::answering(|_| text("hello")).await;
    Gateway::configured(&provider, |settings| {
        let loopback = "127.0.0.0/8".parse().unwrap();
        settings.egress.allow.push(EgressAllow { cidr: Some(loopback), ..EgressAllow::default() });
        settings.connections.tokens_endpoint = tokens_endpoint;
        for (name, project, key, scopes) in [
            ("web", "shop", SHOP, None),
            ("rival", "rival", RIVAL, None),
            ("chat", "shop", CHAT_ONLY, Some(vec![KeyScope::Completions])),
            ("reader", "shop", READER, Some(vec![KeyScope::Tokens])),
        ] {
            settings.api_keys.push(ApiKey {
                name: name.into(),
                project: Some(project.into()),
                hash: ApiKeyHash::of(key).to_string(),
                requests_per_minute: None,
                scopes,
            });
        }
    })
    .await
}

async fn send(gateway: &Gateway, key: &str, method: &str, path: &str, body: &Value) -> Answer {
    let bearer = format!("Bearer {key}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    whole(gateway.client.send(method, path, &headers, body).await).await
}

async fn local(gateway: &Gateway, method: &str, path: &str, body: &Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    whole(gateway.client.send(method, path, &[("content-type", "application/json")], body).await).await
}

#[tokio::test]
async fn a_connection_is_started_listed_rescoped_and_ended() {
    let mcp = Protected::start(vec![FakeTool::echo("t")]).await;
    let provider = FakeProvider::answering(|_| text("hello")).await;
    let gateway = Gateway::with(&provider).await;
    let wanted = json!({ "user": "ann", "server_url": mcp.url() });
    let started = local(&gateway, "POST", "/v1/connections", &wanted).await;
    assert_eq!(started.status, 201, "{}", started.text());
    assert_eq!(started.json()["status"], "needs_login");
    assert_eq!(started.header("cache-control"), Some("no-store"));
    Person::new().log_in(started.json()["connect_url"].as_str().unwrap()).await;

    let again = local(&gateway, "POST", "/v1/connections", &wanted).await;
    assert_eq!((again.status, &again.json()["status"]), (200, &json!("connected")));
    let list = local(&gateway, "GET", "/v1/connections?user=ann", &Value::Null).await.json();
    let connection = list["data"][0].clone();
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
    assert_eq!((&connection["user"], &connection["scopes"]), (&json!("ann"), &json!(["files:read"])));
    assert!(!list.to_string().contains("access-"), "no token: {list}");
    let none = local(&gateway, "GET", "/v1/connections?user=bob", &Value::Null).await.json();
    assert_eq!(none["data"], json!([]));

    let path = format!("/v1/connections/{}", connection["id"].as_str().unwrap());
    let more = local(&gateway, "POST", &format!("{path}/reauthorize"), &json!({})).await;
    assert_eq!(more.json()["scopes"], json!(["files:read"]), "what it has: {}", more.text());

    let gone = local(&gateway, "DELETE", &path, &Value::Null).await;
    assert_eq!((gone.status, &gone.json()["deleted"]), (200, &json!(true)));
    let checked = json!({ "user": "ann", "urls": [mcp.url()] });
    let checked = local(&gateway, "POST", "/v1/connections/check", &checked).await.json();
    assert_eq!(checked["data"][0]["status"], "needs_login");
}

#[tokio::test]
async fn scopes_are_added_to_a_connection_and_taken_away() {
    let mcp = Protected::start(vec![FakeTool::echo("t")]).await;
    let provider = FakeProvider::answering(|_| text("hello")).await;
    let gateway = Gateway::with(&provider).await;
    let mut person = Person::new();
    let mut path = String::new();
    for (wanted, expected) in [
        (json!({ "user": "ann", "server_url": mcp.url() }), json!(["files:read"])),
        (
            json!({ "user": "ann", "server_url": mcp.url(), "scopes": ["files:write"] }),
            json!(["files:read", "files:write"]),
        ),
        (json!({ "scopes": ["files:write"] }), json!(["files:write"])),
        (json!({ "scopes": ["files:read", "files:list"] }), json!(["files:list", "files:read"])),
    ] {
        let asked = if wanted["user"].is_null() { path.as_str() } else { "/v1/connections" };
        let started = local(&gateway, "POST", asked, &wanted).await;
        assert_eq!(started.status, 201, "{}", started.text());
        let mut scopes: Vec<String> = serde_json::from_value(started.json()["scopes"].clone()).unwrap();
        scopes.sort();
        assert_eq!(json!(scopes), expected);
        person.log_in(started.json()["connect_url"].as_str().unwrap()).await;
        let list = local(&gateway, "GET", "/v1/connections?user=ann", &Value::Null).await.json();
        assert_eq!((&list["data"][0]["scopes"], list["data"].as_array().unwrap().len()), (&expected, 1));
        path = format!("/v1/connections/{}/reauthorize", list["data"][0]["id"].as_str().unwrap());
    }
}

#[tokio::test]
async fn what_a_server_may_do_can_be_taken_away_on_the_page_too_or_it_says_why_not() {
    let mcp = Protected::start(vec![FakeTool::echo("t")]).await;
    let provider = FakeProvider::answering(|_| text("hello")).await;
    let gateway = Gateway::with(&provider).await;
    let wanted = json!({ "user": "local", "server_url": mcp.url(), "scopes": ["files:read", "files:write"] });
    let started = local(&gateway, "POST", "/v1/connections", &wanted).await.json();
    Person::new().log_in(started["connect_url"].as_str().unwrap()).await;
    let list = local(&gateway, "GET", "/v1/connections", &Value::Null).await.json();
    let path = format!("/connections/{}/scopes", list["data"][0]["id"].as_str().unwrap());

    let mut ann = Browser::new(&gateway.client);
    let page = ann.visit("/connections").await;
    let leaving = ann.submit(&page, &path, &[("scopes", "files:read")]).await;
    let link = ann.leads_to(&leaving);
    let link = link.strip_prefix(&format!("http://{}", gateway.address)).unwrap_or(&link).to_owned();
    let asked = ann.visit(&link).await.text();
    assert!(asked.contains("files:read") && !asked.contains("files:write"), "{asked}");
    assert!(asked.contains("This changes what is allowed."), "{asked}");

    // A page from before another login of the same connection: what it sends is not about this one.
    Person::new().log_in(&format!("http://{}{link}", gateway.address)).await;
    for end in ["scopes", "disconnect"] {
        let path = path.replace("scopes", end);
        let refused = ann.submit(&page, &path, &[("scopes", "files:write")]).await;
        assert_eq!(refused.status, 409, "{end}: {}", refused.text());
        assert!(refused.text().contains("Nothing was changed."), "{end}: {}", refused.text());
    }

    mcp.break_down();
    let page = ann.visit("/connections").await;
    let failed = ann.submit(&page, &path, &[("scopes", "files:list")]).await;
    assert_eq!(failed.status, 502);
    let said = failed.text();
    assert!(said.contains(&format!("{} cannot be reached now", mcp.peer.host())), "{said}");
    assert!(said.contains("your connection is as it was") && !said.contains("This link"), "{said}");
}

#[tokio::test]
async fn a_long_list_comes_in_pages() {
    let mcp = Protected::start(vec![FakeTool::echo("t")]).await;
    let provider = FakeProvider::answering(|_| text("hello")).await;
    let gateway = Gateway::with(&provider).await;
    for number in 0..5 {
        let profile = if number == 4 { "work" } else { "home" };
        let url = mcp.peer.url(&format!("/mcp/{number}"));
        let wanted = json!({ "user": "ann", "server_url": url, "profile": profile });
        let started = local(&gateway, "POST", "/v1/connections", &wanted).await.json();
        Person::new().log_in(started["connect_url"].as_str().unwrap()).await;
    }
    let all = local(&gateway, "GET", "/v1/connections", &Value::Null).await.json();
    let ids = |list: &Value| -> Vec<String> {
        list["data"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
    };
    let all = (ids(&all), all["has_more"].clone());
    assert_eq!((all.0.len(), &all.1), (5, &json!(false)));
    let page =
        async |query: &str| local(&gateway, "GET", &format!("/v1/connections?{query}"), &Value::Null).await;
    let (mut seen, mut after) = (Vec::new(), String::new());
    for more in [true, true, false] {
        let list = page(&format!("limit=2{after}")).await.json();
        assert_eq!(list["has_more"], json!(more));
        seen.extend(ids(&list));
        after = format!("&after={}", seen.last().unwrap());
    }
    assert_eq!(seen, all.0, "each once, newest first");
    // One that ended is still a place to go on from, and is not listed.
    local(&gateway, "DELETE", &format!("/v1/connections/{}", seen[1]), &Value::Null).await;
    assert_eq!(ids(&page(&format!("limit=1&after={}", seen[1])).await.json()), seen[2..3]);
    assert_eq!(ids(&page("profile=home&limit=10").await.json()).len(), 3);
    for (query, param) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("after=conn_x", "after"),
        ("page=2", "page"),
    ] {
        let refused = page(query).await;
        assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!(param)), "{query}");
    }
}

#[tokio::test]
async fn check_says_for_every_address_what_it_needs() {
    let mcp = Protected::start(vec![FakeTool::echo("t")]).await;
    let other = Protected::start(vec![FakeTool::echo("t")]).await;
    let open = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let provider = FakeProvider::answering(|_| text("hello")).await;
    let gateway = Gateway::with(&provider).await;
    let asked = json!({ "user": "ann", "urls": [mcp.url(), open.url(), other.url()] });
    let checked = local(&gateway, "POST", "/v1/connections/check", &asked).await.json();
    Person::new().log_in(checked["data"][0]["connect_url"].as_str().unwrap()).await;
    let checked = local(&gateway, "POST", "/v1/connections/check", &asked).await.json();
    let states: Vec<&str> =
        checked["data"].as_array().unwrap().iter().filter_map(|one| one["status"].as_str()).collect();
    assert_eq!(states, ["connected", "public", "needs_login"]);
}

#[tokio::test]
async fn keys_do_what_they_are_for() {
    let mcp = Protected::start(vec![FakeTool::echo("t")]).await;
    let gateway = shared(true).await;
    let wanted = json!({ "user": "ann", "server_url": mcp.url() });
    let refused = send(&gateway, CHAT_ONLY, "POST", "/v1/connections", &wanted).await;
    assert_eq!(refused.status, 403, "{}", refused.text());
    let started = send(&gateway, SHOP, "POST", "/v1/connections", &wanted).await;
    assert_eq!(started.status, 201, "{}", started.text());
    let nameless = send(&gateway, SHOP, "POST", "/v1/connections", &json!({ "server_url": mcp.url() })).await;
    assert_eq!((nameless.status, &nameless.json()["error"]["code"]), (400, &json!("user_required")));
    let tokens = json!({ "user": "ann", "urls": [mcp.url()] });
    assert_eq!(send(&gateway, SHOP, "POST", "/v1/connections/tokens", &tokens).await.status, 403);
    let answer = send(&gateway, READER, "POST", "/v1/connections/tokens", &tokens).await;
    assert_eq!((answer.status, &answer.json()["data"][0]["status"]), (200, &json!("needs_login")));
    let unknown = json!({ "flow_ref": "nothing", "user": "ann" });
    assert_eq!(send(&gateway, SHOP, "POST", "/v1/flows/confirm", &unknown).await.status, 404);
}

#[tokio::test]
async fn tokens_are_off_unless_the_operator_says_so() {
    let gateway = shared(false).await;
    let asked = json!({ "user": "ann", "urls": ["https://mcp.example.com/mcp"] });
    for key in [SHOP, READER] {
        assert_eq!(send(&gateway, key, "POST", "/v1/connections/tokens", &asked).await.status, 404);
    }
}

#[tokio::test]
async fn bad_requests_are_named() {
    let provider = FakeProvider::answering(|_| text("hello")).await;
    let gateway = Gateway::with(&provider).await;
    for (path, body, param) in [
        ("/v1/connections", json!({ "user": "a" }), "server_url"),
        ("/v1/connections", json!({ "user": "a", "server_url": "ftp://x" }), "server_url"),
        ("/v1/connections", json!({ "user": "a", "server_url": "https://10.0.0.1/" }), "server_url"),
        ("/v1/connections", json!({ "user": "a", "server_url": "https://x.example", "scope": "s" }), "scope"),
        ("/v1/connections", json!({ "user": 1, "server_url": "https://x.example" }), "user"),
        ("/v1/connections", json!({ "server_url": "https://x.example", "scopes": ["a b"] }), "scopes"),
        (
            "/v1/connections",
            json!({ "server_url": "https://x.example", "authorization_callback_url": "https://10.0.0.1" }),
            "authorization_callback_url",
        ),
        ("/v1/connections/check", json!({ "user": "a" }), "urls"),
        ("/v1/connections/check", json!({ "user": "a", "urls": ["https://a.example", "x"] }), "urls[1]"),
        (
            "/v1/connections/check",
            json!({ "user": "a", "urls": ["https://a.example"], "profile": "" }),
            "profile",
        ),
        ("/v1/flows/confirm", json!({ "user": "a" }), "flow_ref"),
        ("/v1/flows/confirm", json!({ "flow_ref": "a", "user": "" }), "user"),
    ] {
        let refused = local(&gateway, "POST", path, &body).await;
        assert_eq!(refused.status, 400, "{body}: {}", refused.text());
        assert_eq!(refused.json()["error"]["param"], param, "{body}");
    }
    let wrong = local(&gateway, "GET", "/v1/connections?usr=ann", &Value::Null).await;
    assert_eq!(wrong.status, 400);
}

/// Checks one address for ann.
async fn check(gateway: &Gateway, url: &str) -> Value {
    let asked = json!({ "user": "ann", "urls": [url] });
    local(gateway, "POST", "/v1/connections/check", &asked).await.json()["data"][0].clone()
}

#[tokio::test]
async fn whatever_answers_401_with_a_challenge_can_be_connected() {
    let provider = FakeProvider::answering(|_| text("hello")).await;
    let gateway = Gateway::with(&provider).await;
    // No MCP server: it takes GET alone, and its metadata are where only its challenge says.
    let files = AuthorizationServer::new()
        .on("/mcp", |request| {
            if request.method == "POST" {
                return Reply::Json(405, json!({}));
            }
            let own = format!("http://{}", request.header("host").unwrap_or_default());
            let challenge = format!(r#"Bearer resource_metadata="{own}/about.json", scope="read""#);
            Reply::with_headers(401, &[("www-authenticate", &challenge)], "")
        })
        .without(RESOURCE_METADATA)
        .json("/about.json", 200, resource_metadata())
        .start()
        .await;
    let checked = check(&gateway, &files.url("/mcp")).await;
    assert_eq!((&checked["status"], &checked["scopes"]), (&json!("needs_login"), &json!(["read"])));
    let wanted = json!({ "user": "ann", "server_url": files.url("/mcp"), "scopes": ["write"] });
    let started = local(&gateway, "POST", "/v1/connections", &wanted).await;
    assert_eq!(started.status, 201, "{}", started.text());
    assert_eq!(started.json()["scopes"], json!(["write"]), "what is asked for by name");
}

#[tokio::test]
async fn a_server_without_metadata_that_wants_a_login_is_not_called_public() {
    let provider = FakeProvider::answering(|_| text("hello")).await;
    let gateway = Gateway::with(&provider).await;
    let without_metadata =
        || AuthorizationServer::new().challenge("Bearer").without(RESOURCE_METADATA).without(SERVER_METADATA);
    let older = without_metadata().start().await;
    let checked = check(&gateway, &older.url("/mcp")).await;
    assert_eq!(checked["status"], "needs_login", "{checked}");
    let keyed = without_metadata().without("/register").start().await;
    let checked = check(&gateway, &keyed.url("/mcp")).await;
    assert_eq!(checked["status"], "unknown", "{checked}");
    assert!(checked["reason"].as_str().unwrap().contains("offers no login"), "{checked}");
    let gone = Peer::start(|_| Reply::Hangup).await;
    let checked = check(&gateway, &gone.url("/mcp")).await;
    assert_eq!(checked["status"], "unknown", "{checked}");
}
