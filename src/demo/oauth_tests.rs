//! The demo's authorization server through its router: as a client and a person use it, and as attackers try.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use http::{HeaderMap, Request};
use serde_json::{Value, json};
use tower_service::Service;

use crate::clock::Clock;
use crate::config;
use crate::egress::{self, Egress};
use crate::oauth::Pkce;

const HERE: &str = "http://127.0.0.1:8787";
const RESOURCE: &str = "http://127.0.0.1:8787/demo/private/mcp";
const ISSUER: &str = "http://127.0.0.1:8787/demo/oauth";
const BACK: &str = "http://localhost:3000/back";

struct Server {
    router: Router,
    clock: Clock,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// A field of the address that the browser is sent to.
    fn sent_back(&self, name: &str) -> Option<String> {
        field(self.header("location"), name)
    }

    /// A field of the address that the page offers a link to.
    fn offered_back(&self, name: &str) -> Option<String> {
        let link = self.body.split("<a href=\"").nth(1)?.split('"').next()?;
        field(&link.replace("&amp;", "&"), name)
    }

    fn cookie(&self) -> String {
        self.header("set-cookie").split(';').next().unwrap().to_owned()
    }

    /// The id in the form.
    fn page(&self) -> String {
        let at = self.body.find("name=\"page\" value=\"").expect("a form") + 19;
        self.body[at..].split('"').next().unwrap().to_owned()
    }
}

/// A field of a way back.
fn field(address: &str, name: &str) -> Option<String> {
    let url = url::Url::parse(address).ok()?;
    assert!(url.as_str().starts_with(BACK), "{url}");
    url.query_pairs().find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
}

fn query(fields: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

/// `fields` with one of them changed, or left out.
fn changed<'a>(fields: &[(&'a str, &'a str)], name: &str, value: Option<&'a str>) -> Vec<(&'a str, &'a str)> {
    fields
        .iter()
        .filter_map(|(known, old)| match (*known == name, value) {
            (true, None) => None,
            (true, Some(new)) => Some((*known, new)),
            (false, _) => Some((*known, *old)),
        })
        .collect()
}

impl Server {
    fn new() -> Server {
        let clock = Clock::fixed(1_795_225_530_000);
        let egress = Egress::new(&config::Egress::default(), true, egress::system_lookup()).unwrap();
        Server { router: super::router(clock.clone(), egress), clock }
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: String) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", "127.0.0.1:8787");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body)).unwrap();
        let (parts, body) = self.router.clone().call(request).await.unwrap().into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap();
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], String::new()).await
    }

    async fn form(&self, path: &str, fields: &[(&str, &str)], cookie: &str) -> Answer {
        let headers = [("content-type", "application/x-www-form-urlencoded"), ("cookie", cookie)];
        self.send("POST", path, &headers, query(fields)).await
    }

    async fn token(&self, fields: &[(&str, &str)]) -> Answer {
        self.form("/demo/oauth/token", fields, "").await
    }

    async fn register(&self, document: Value) -> Answer {
        let headers = [("content-type", "application/json")];
        self.send("POST", "/demo/oauth/register", &headers, document.to_string()).await
    }

    async fn client(&self) -> String {
        let made = self.register(json!({"client_name": "tester", "redirect_uris": [BACK]})).await.json();
        made["client_id"].as_str().unwrap().to_owned()
    }

    async fn authorize(&self, fields: &[(&str, &str)], cookie: &str) -> Answer {
        let path = format!("/demo/oauth/authorize?{}", query(fields));
        self.send("GET", &path, &[("cookie", cookie)], String::new()).await
    }

    async fn answer(&self, page: &str, name: &str, answer: &str, cookie: &str) -> Answer {
        let fields = [("page", page), ("name", name), ("answer", answer)];
        self.form("/demo/oauth/authorize", &fields, cookie).await
    }

    /// A code for a client, from a person who calls themself `name`.
    async fn code(&self, client: &str, pkce: &Pkce, name: &str) -> String {
        let page = self.authorize(&request(client, &pkce.challenge), "").await;
        assert_eq!(page.status, 200, "{}", page.body);
        let back = self.answer(&page.page(), name, "allow", &page.cookie()).await;
        assert_eq!((back.status, back.sent_back("iss").as_deref()), (303, Some(ISSUER)));
        assert_eq!(back.sent_back("state").as_deref(), Some("st&te"));
        back.sent_back("code").expect("a code")
    }

    /// A client with tokens of `name`.
    async fn login(&self, name: &str) -> (String, Value) {
        let (client, pkce) = (self.client().await, Pkce::new());
        let code = self.code(&client, &pkce, name).await;
        let issued = self.token(&exchange(&client, &code, &pkce)).await;
        assert_eq!(issued.status, 200, "{}", issued.body);
        assert_eq!(issued.header("cache-control"), "no-store");
        (client, issued.json())
    }

    async fn refresh(&self, client: &str, token: &Value) -> Answer {
        let token = token.as_str().unwrap();
        let fields = [
            ("grant_type", "refresh_token"),
            ("client_id", client),
            ("refresh_token", token),
            ("resource", RESOURCE),
        ];
        self.token(&fields).await
    }

    /// What the private server says to this access token.
    async fn whoami(&self, token: &Value, host: &str) -> Answer {
        let authorization = format!("Bearer {}", token.as_str().unwrap());
        let headers =
            [("content-type", "application/json"), ("authorization", authorization.as_str()), ("host", host)];
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "whoami"}});
        self.send("POST", "/demo/private/mcp", &headers, call.to_string()).await
    }

    async fn is_good(&self, token: &Value) -> bool {
        self.whoami(token, "127.0.0.1:8787").await.status == 200
    }
}

fn request<'a>(client: &'a str, challenge: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("response_type", "code"),
        ("client_id", client),
        ("redirect_uri", BACK),
        ("code_challenge", challenge),
        ("code_challenge_method", "S256"),
        ("resource", RESOURCE),
        ("scope", "tools offline_access"),
        ("state", "st&te"),
    ]
}

fn exchange<'a>(client: &'a str, code: &'a str, pkce: &'a Pkce) -> Vec<(&'a str, &'a str)> {
    vec![
        ("grant_type", "authorization_code"),
        ("client_id", client),
        ("code", code),
        ("redirect_uri", BACK),
        ("code_verifier", pkce.verifier.expose()),
        ("resource", RESOURCE),
    ]
}

#[tokio::test]
async fn a_client_finds_its_way_from_the_challenge_to_a_login() {
    let server = Server::new();
    let refused = server.send("POST", "/demo/private/mcp", &[], String::new()).await;
    assert_eq!(refused.status, 401);
    let challenge = refused.header("www-authenticate");
    let metadata = challenge.split("resource_metadata=\"").nth(1).unwrap().split('"').next().unwrap();
    assert!(challenge.contains("scope=\"tools\"") && !challenge.contains("error="), "{challenge}");
    let resource = server.get(metadata.strip_prefix(HERE).unwrap()).await.json();
    assert_eq!(
        (&resource["resource"], &resource["authorization_servers"]),
        (&json!(RESOURCE), &json!([ISSUER]))
    );
    // RFC 8414 §3.1: the well-known part stands before the issuer's path.
    let issuer = server.get("/.well-known/oauth-authorization-server/demo/oauth").await.json();
    assert_eq!(issuer["issuer"], ISSUER);
    assert_eq!(issuer["code_challenge_methods_supported"], json!(["S256"]));

    let (client, issued) = server.login("Robin").await;
    assert_eq!((&issued["token_type"], &issued["expires_in"]), (&json!("Bearer"), &json!(600)));
    assert_eq!((&issued["scope"], &issued["username"]), (&json!("tools"), &json!("Robin")));
    let said = server.whoami(&issued["access_token"], "127.0.0.1:8787").await.json();
    assert!(said["result"]["content"][0]["text"].as_str().unwrap().contains("You are Robin"), "{said}");

    server.clock.advance(Duration::from_secs(601));
    let late = server.whoami(&issued["access_token"], "127.0.0.1:8787").await;
    assert_eq!(late.status, 401, "access tokens live ten minutes");
    assert!(late.header("www-authenticate").contains("error=\"invalid_token\""));
    let newer = server.refresh(&client, &issued["refresh_token"]).await.json();
    assert!(server.is_good(&newer["access_token"]).await);
    assert_ne!(newer["refresh_token"], issued["refresh_token"]);
}

#[tokio::test]
async fn nothing_is_named_by_another_machines_name() {
    let server = Server::new();
    for path in [
        "/.well-known/oauth-protected-resource/demo/private/mcp",
        "/.well-known/oauth-authorization-server/demo/oauth",
        "/demo/oauth/authorize",
    ] {
        let answer = server.send("GET", path, &[("host", "evil.example")], String::new()).await;
        assert_eq!(answer.status, 400, "{path}");
        assert!(!answer.body.contains("evil.example"));
    }
}

#[tokio::test]
async fn a_registration_outlives_the_program_and_holds_no_secret() {
    let first = Server::new();
    let asked = json!({"redirect_uris": [BACK], "token_endpoint_auth_method": "client_secret_post"});
    let made = first.register(asked).await;
    assert_eq!((made.status, &made.json()["token_endpoint_auth_method"]), (201, &json!("none")));
    assert!(made.json()["client_secret"].is_null());
    let client = first.client().await;
    Server::new().code(&client, &Pkce::new(), "Robin").await;
}

#[tokio::test]
async fn a_client_that_could_lead_people_astray_is_not_registered() {
    let server = Server::new();
    for (document, code) in [
        (json!({}), "invalid_client_metadata"),
        (json!([]), "invalid_client_metadata"),
        (json!({"redirect_uris": "http://localhost/"}), "invalid_client_metadata"),
        (json!({"redirect_uris": []}), "invalid_redirect_uri"),
        (json!({"redirect_uris": ["http://example.com/"]}), "invalid_redirect_uri"),
        (json!({"redirect_uris": ["http://127.0.0.1.example.com/"]}), "invalid_redirect_uri"),
        (json!({"redirect_uris": ["http://localhost@example.com/"]}), "invalid_redirect_uri"),
        (json!({"redirect_uris": ["https://user:word@example.com/"]}), "invalid_redirect_uri"),
        (json!({"redirect_uris": ["https://example.com/#part"]}), "invalid_redirect_uri"),
        (json!({"redirect_uris": ["javascript:alert(1)"]}), "invalid_redirect_uri"),
        (json!({"redirect_uris": ["data:text/html,x"]}), "invalid_redirect_uri"),
        (json!({"redirect_uris": ["/relative"]}), "invalid_redirect_uri"),
        (json!({"redirect_uris": ["https://example.com/\r\nset-cookie: a=b"]}), "invalid_redirect_uri"),
        (json!({"redirect_uris": vec![BACK; 6]}), "invalid_redirect_uri"),
        (
            json!({"redirect_uris": [format!("https://example.com/{}", "x".repeat(600))]}),
            "invalid_redirect_uri",
        ),
    ] {
        let answer = server.register(document.clone()).await;
        assert_eq!((answer.status, &answer.json()["error"]), (400, &json!(code)), "{document}");
    }
    let huge = server.register(json!({"redirect_uris": [BACK], "x": "x".repeat(20_000)})).await;
    assert_eq!(huge.status, 400);
}

#[tokio::test]
async fn who_cannot_be_trusted_with_an_answer_gets_none() {
    let server = Server::new();
    let client = server.client().await;
    let pkce = Pkce::new();
    let good = request(&client, &pkce.challenge);
    let mut forged = client.clone();
    forged.truncate(client.len() - 4);
    for (name, value) in [
        ("client_id", None),
        ("client_id", Some("unknown")),
        ("client_id", Some(forged.as_str())),
        ("client_id", Some("http://10.0.0.1/client.json")),
        ("client_id", Some("https://example.com/")),
        ("client_id", Some("https://example.com/a/../b")),
        ("redirect_uri", None),
        ("redirect_uri", Some("http://localhost:3000/back/")),
        ("redirect_uri", Some("http://localhost:3000/back?x=y")),
        ("redirect_uri", Some("http://localhost:3001/back")),
        ("redirect_uri", Some("https://evil.example/back")),
    ] {
        let answer = server.authorize(&changed(&good, name, value), "").await;
        assert_eq!(answer.status, 400, "{name} {value:?}");
        assert!(
            !answer.headers.contains_key("location") && !answer.body.contains("<form"),
            "{name} {value:?}"
        );
        assert!(!answer.body.contains("evil.example"));
    }
    let twice = [good.clone(), vec![("redirect_uri", "https://evil.example/")]].concat();
    assert_eq!(server.authorize(&twice, "").await.status, 400);
}

#[tokio::test]
async fn a_request_that_lacks_a_protection_leads_nowhere_by_itself() {
    let server = Server::new();
    let client = server.client().await;
    let pkce = Pkce::new();
    let good = request(&client, &pkce.challenge);
    for (name, value, error) in [
        ("response_type", None, "invalid_request"),
        ("response_type", Some("token"), "unsupported_response_type"),
        ("code_challenge", None, "invalid_request"),
        ("code_challenge", Some("short"), "invalid_request"),
        ("code_challenge_method", None, "invalid_request"),
        ("code_challenge_method", Some("plain"), "invalid_request"),
        ("resource", None, "invalid_target"),
        ("resource", Some("http://127.0.0.1:8787/demo/mcp"), "invalid_target"),
        ("resource", Some("https://evil.example/mcp"), "invalid_target"),
        ("scope", Some("everything"), "invalid_scope"),
    ] {
        let answer = server.authorize(&changed(&good, name, value), "").await;
        // Whoever registers any address would otherwise have a link to this machine that leads there.
        assert_eq!((answer.status, answer.header("location")), (400, ""), "{name} {value:?}");
        assert!(!answer.headers.contains_key("refresh") && !answer.body.contains("http-equiv"));
        assert!(answer.body.contains("wants you back at <strong>localhost:3000</strong>"), "{}", answer.body);
        assert_eq!(answer.offered_back("error").as_deref(), Some(error), "{name} {value:?}");
        assert_eq!(answer.offered_back("state").as_deref(), Some("st&te"));
        assert_eq!(answer.offered_back("iss").as_deref(), Some(ISSUER));
        assert_eq!(answer.offered_back("code"), None);
    }
}

#[tokio::test]
async fn the_page_shows_strangers_words_as_text_and_loads_and_runs_nothing() {
    let server = Server::new();
    let name = "<script>alert(1)</script>\u{202e}\" onfocus=\"x";
    let made = server.register(json!({"client_name": name, "redirect_uris": [BACK]})).await.json();
    let page =
        server.authorize(&request(made["client_id"].as_str().unwrap(), &Pkce::new().challenge), "").await;
    assert!(page.body.contains("&lt;script&gt;") && page.body.contains("localhost:3000"), "{}", page.body);
    for trace in ["<script", "\u{202e}", "\" onfocus"] {
        assert!(!page.body.contains(trace), "{trace}");
    }
    let policy = page.header("content-security-policy");
    for rule in ["default-src 'none'", "frame-ancestors 'none'", "form-action 'self' http://localhost:3000;"]
    {
        assert!(policy.contains(rule), "{policy}");
    }
    assert_eq!((page.header("referrer-policy"), page.header("cache-control")), ("no-referrer", "no-store"));
    assert!(page.header("set-cookie").ends_with("; HttpOnly; SameSite=Lax"));
}

#[tokio::test]
async fn an_answer_counts_once_and_in_the_browser_that_was_asked() {
    let server = Server::new();
    let client = server.client().await;
    let pkce = Pkce::new();
    let asked = request(&client, &pkce.challenge);
    let page = server.authorize(&asked, "").await;
    let other = server.authorize(&asked, "").await;
    for cookie in ["", &other.cookie(), "toolgate-demo-browser=x"] {
        let answer = server.answer(&page.page(), "Robin", "allow", cookie).await;
        assert_eq!((answer.status, answer.header("location")), (400, ""), "another browser: {cookie}");
    }
    let nameless = server.answer(&page.page(), " \u{200b} ", "allow", &page.cookie()).await;
    assert!(
        nameless.status == 400 && nameless.body.contains("Type a name first."),
        "and the page is still open"
    );
    let long = server.answer(&page.page(), &"x".repeat(5000), "allow", &page.cookie()).await;
    assert_eq!(long.status, 303);
    assert_eq!(server.answer(&page.page(), "Robin", "allow", &page.cookie()).await.status, 400, "answered");

    let denied = server.answer(&other.page(), "", "deny", &other.cookie()).await;
    assert_eq!(denied.sent_back("error").as_deref(), Some("access_denied"));

    let old = server.authorize(&asked, &page.cookie()).await;
    assert!(!old.headers.contains_key("set-cookie"), "one browser keeps its cookie");
    server.clock.advance(Duration::from_secs(601));
    assert_eq!(server.answer(&old.page(), "Robin", "allow", &page.cookie()).await.status, 400, "too old");
}

#[tokio::test]
async fn a_code_is_good_for_whoever_asked_for_it_only() {
    let server = Server::new();
    let (client, pkce, foreign) = (server.client().await, Pkce::new(), Pkce::new());
    let other = server.register(json!({"client_name": "other", "redirect_uris": [BACK]})).await.json();
    for (name, value, error) in [
        ("client_id", other["client_id"].as_str().unwrap(), "invalid_grant"),
        ("redirect_uri", "http://localhost:3000/other", "invalid_grant"),
        ("code_verifier", foreign.verifier.expose(), "invalid_grant"),
        ("code_verifier", &pkce.challenge, "invalid_grant"),
        ("code", "demo_code_guessed", "invalid_grant"),
        ("resource", "https://evil.example/", "invalid_target"),
        ("grant_type", "password", "unsupported_grant_type"),
    ] {
        let code = server.code(&client, &pkce, "Robin").await;
        let refused = server.token(&changed(&exchange(&client, &code, &pkce), name, Some(value))).await;
        assert_eq!((refused.status, &refused.json()["error"]), (400, &json!(error)), "{name} {value}");
    }
    for name in ["grant_type", "client_id", "code", "redirect_uri", "code_verifier"] {
        let code = server.code(&client, &pkce, "Robin").await;
        let refused = server.token(&changed(&exchange(&client, &code, &pkce), name, None)).await;
        assert_eq!((refused.status, &refused.json()["error"]), (400, &json!("invalid_request")), "{name}");
    }
    let code = server.code(&client, &pkce, "Robin").await;
    let secret = [exchange(&client, &code, &pkce), vec![("client_secret", "x")]].concat();
    assert_eq!(server.token(&secret).await.status, 401);
    let twice = [exchange(&client, &code, &pkce), vec![("code", "x")]].concat();
    assert_eq!(server.token(&twice).await.json()["error"], "invalid_request");
    server.clock.advance(Duration::from_secs(61));
    assert_eq!(
        server.token(&exchange(&client, &code, &pkce)).await.json()["error"],
        "invalid_grant",
        "too old"
    );
}

#[tokio::test]
async fn a_code_that_somebody_tried_is_spent() {
    let server = Server::new();
    let (client, pkce, foreign) = (server.client().await, Pkce::new(), Pkce::new());
    let code = server.code(&client, &pkce, "Robin").await;
    assert_eq!(server.token(&exchange(&client, &code, &foreign)).await.status, 400);
    assert_eq!(server.token(&exchange(&client, &code, &pkce)).await.status, 400);
}

#[tokio::test]
async fn a_code_used_twice_ends_what_it_was_exchanged_for() {
    let server = Server::new();
    let (client, pkce) = (server.client().await, Pkce::new());
    let code = server.code(&client, &pkce, "Robin").await;
    let issued = server.token(&exchange(&client, &code, &pkce)).await.json();
    assert!(server.is_good(&issued["access_token"]).await);
    let again = server.token(&exchange(&client, &code, &pkce)).await;
    assert_eq!((again.status, &again.json()["error"]), (400, &json!("invalid_grant")));
    assert!(!server.is_good(&issued["access_token"]).await);
    assert_eq!(server.refresh(&client, &issued["refresh_token"]).await.status, 400);
}

#[tokio::test]
async fn a_refresh_token_used_twice_ends_the_login() {
    let server = Server::new();
    let (client, issued) = server.login("Robin").await;
    let (_, bystander) = server.login("Kim").await;
    let newer = server.refresh(&client, &issued["refresh_token"]).await.json();
    let other = server.register(json!({"client_name": "other", "redirect_uris": [BACK]})).await.json();
    let stolen = server.refresh(other["client_id"].as_str().unwrap(), &newer["refresh_token"]).await;
    assert_eq!(stolen.json()["error"], "invalid_grant", "another client");
    assert!(server.is_good(&newer["access_token"]).await, "which ends nothing");
    assert_eq!(server.refresh(&client, &issued["refresh_token"]).await.status, 400, "used before");
    assert!(!server.is_good(&newer["access_token"]).await);
    assert_eq!(server.refresh(&client, &newer["refresh_token"]).await.status, 400);
    assert!(server.is_good(&bystander["access_token"]).await, "other logins stay");
}

#[tokio::test]
async fn an_access_token_opens_its_own_resource_only() {
    let server = Server::new();
    let (_, issued) = server.login("Robin").await;
    assert_eq!(server.whoami(&issued["access_token"], "127.0.0.1:8787").await.status, 200);
    assert_eq!(
        server.whoami(&issued["access_token"], "localhost:8787").await.status,
        401,
        "another resource"
    );
    assert_eq!(server.whoami(&issued["refresh_token"], "127.0.0.1:8787").await.status, 401, "another kind");
}

#[tokio::test]
async fn revoking_either_token_ends_the_login_for_its_own_client_only() {
    let server = Server::new();
    for kind in ["access_token", "refresh_token"] {
        let (client, issued) = server.login("Robin").await;
        let token = issued[kind].as_str().unwrap();
        let revoke = async |client: &str, token: &str| {
            server.form("/demo/oauth/revoke", &[("client_id", client), ("token", token)], "").await.status
        };
        assert_eq!(revoke("another", token).await, 400);
        assert!(server.is_good(&issued["access_token"]).await);
        assert_eq!(revoke(&client, token).await, 200);
        assert!(!server.is_good(&issued["access_token"]).await, "{kind}");
        assert_eq!(server.refresh(&client, &issued["refresh_token"]).await.status, 400, "{kind}");
        assert_eq!(revoke(&client, token).await, 200, "once more is as good (RFC 7009 §2.2)");
        assert_eq!(revoke(&client, "unknown").await, 200);
    }
}

#[tokio::test]
async fn what_is_remembered_has_a_bound() {
    let server = Server::new();
    let client = server.client().await;
    let pkce = Pkce::new();
    let asked = request(&client, &pkce.challenge);
    let first = server.authorize(&asked, "").await;
    for _ in 0..200 {
        server.authorize(&asked, &first.cookie()).await;
    }
    let answer = server.answer(&first.page(), "Robin", "allow", &first.cookie()).await;
    assert_eq!(answer.status, 400, "the oldest page made place");
}
