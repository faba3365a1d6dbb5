//! Runs of people who sign in: theirs are theirs, and nobody can tell what else there is.

use serde_json::json;
use toolgate::config::{ApiKey, EgressAllow, Settings};
use toolgate::crypto::ApiKeyHash;

use super::outside::{SHOP, as_key};
use super::pages::{finished, in_two, live, start};
use crate::support::issuer::{Issuer, PUBLIC, entry, sign_in};
use crate::support::{Answer, Browser, FakeProvider, FakeTool, Gate, Gateway, Protected, text_stream};

async fn gateway(issuer: &Issuer, change: impl FnOnce(&mut Settings)) -> Gateway {
    let provider = FakeProvider::answering(|_| text_stream("the answer")).await;
    gateway_with(&provider, issuer, change).await
}

/// The key of an application.
pub fn shop_key() -> ApiKey {
    ApiKey {
        name: "shop".into(),
        project: Some("shop".into()),
        hash: ApiKeyHash::of(SHOP).to_string(),
        requests_per_minute: None,
        scopes: None,
    }
}

pub async fn gateway_with(
    provider: &FakeProvider,
    issuer: &Issuer,
    change: impl FnOnce(&mut Settings),
) -> Gateway {
    Gateway::configured(provider, |settings| {
        settings.public_url = Some(PUBLIC.into());
        settings.sign_in = vec![entry("company", issuer)];
        settings.sign_in_may_complete = true;
        let loopback = "127.0.0.0/8".parse().unwrap();
        settings.egress.allow.push(EgressAllow { cidr: Some(loopback), ..EgressAllow::default() });
        change(settings);
    })
    .await
}

pub async fn person(gateway: &Gateway, issuer: &Issuer, name: &str) -> Browser {
    let mut browser = Browser::new(&gateway.client);
    sign_in(&mut browser, issuer, name).await;
    browser
}

async fn set(browser: &mut Browser, path: &str, visibility: &str) -> Answer {
    let page = browser.visit(path).await;
    browser.submit(&page, &format!("{path}/share"), &[("visibility", visibility)]).await
}

/// All fields of a form with the browser's own token.
async fn own_form(browser: &mut Browser) -> Vec<(String, String)> {
    let page = browser.visit("/runs").await;
    crate::support::fields_of(&page.text(), "/logout")
}

#[tokio::test]
async fn a_private_run_looks_to_others_as_if_there_were_none() {
    let issuer = Issuer::start(false).await;
    let gateway = gateway(&issuer, |_| {}).await;
    let (mut anna, mut bob) =
        (person(&gateway, &issuer, "anna").await, person(&gateway, &issuer, "bob").await);
    let mut nobody = Browser::new(&gateway.client);
    let path = start(&mut anna, &[("message", "secret question")]).await;
    finished(&mut anna, &path).await;
    set(&mut anna, &path, "private").await;
    assert_eq!(anna.visit(&path).await.status, 200);

    let unknown = format!("/run_{}", "0".repeat(path.len() - 5));
    nobody.visit("/").await;
    for browser in [&mut bob, &mut nobody] {
        for end in ["", "/live"] {
            let (one, other) = (
                browser.visit(&format!("{path}{end}")).await,
                browser.visit(&format!("{unknown}{end}")).await,
            );
            assert_eq!((one.status, other.status), (404, 404), "{end}");
            // Its own address apart, where there is one to come back to.
            assert_eq!(one.text().replace(&path, "X"), other.text().replace(&unknown, "X"), "{end}");
            let names = |answer: &Answer| {
                let mut names: Vec<String> = answer.headers.keys().map(ToString::to_string).collect();
                names.sort();
                names
            };
            assert_eq!(names(&one), names(&other), "{end}");
        }
        for form in ["", ".md", ".json", "?key=prompt"] {
            let answers = [format!("{path}{form}"), format!("{unknown}{form}")].map(|path| path);
            for path in answers {
                assert_eq!(browser.send("GET", &path, &[("accept", "*/*")], "").await.status, 404, "{path}");
            }
        }
    }
    let fields = own_form(&mut bob).await;
    let public = [fields.clone(), vec![("visibility".to_owned(), "public".to_owned())]].concat();
    for action in ["share", "cancel", "delete"] {
        let (one, other) = (
            bob.post(&format!("{path}/{action}"), &public).await,
            bob.post(&format!("{unknown}/{action}"), &public).await,
        );
        assert_eq!((one.status, other.status), (404, 404), "{action}");
        assert_eq!(one.text().replace(&path, "X"), other.text().replace(&unknown, "X"), "{action}");
    }
    assert!(!bob.visit("/runs").await.text().contains("secret question"));
    assert!(!bob.visit(&format!("/?from={}", &path[1..])).await.text().contains("secret question"));
    assert!(anna.visit("/runs").await.text().contains("secret question"));
    assert!(anna.visit(&path).await.text().contains("value=\"private\" checked"));
}

#[tokio::test]
async fn who_has_the_address_of_an_unlisted_run_reads_it_and_changes_nothing() {
    let issuer = Issuer::start(false).await;
    let gateway = gateway(&issuer, |_| {}).await;
    let (mut anna, mut bob) =
        (person(&gateway, &issuer, "anna").await, person(&gateway, &issuer, "bob").await);
    let path = start(&mut anna, &[]).await;
    finished(&mut anna, &path).await;
    let mut nobody = Browser::new(&gateway.client);
    let page = nobody.visit(&path).await;
    let html = page.text();
    assert!(page.status == 200 && html.contains("the answer") && html.contains("noindex"), "{html}");
    assert!(!html.contains("<form"), "no form: {html}");
    assert!(nobody.cookies.is_empty(), "readers stay unknown");
    let fields = own_form(&mut bob).await;
    for action in ["share", "cancel", "delete"] {
        let fields = [fields.clone(), vec![("visibility".to_owned(), "private".to_owned())]].concat();
        let answer = bob.post(&format!("{path}/{action}"), &fields).await;
        assert_eq!(answer.status, 403, "{action}");
        assert!(answer.text().contains("not yours"));
    }
    assert_eq!(nobody.visit(&path).await.status, 200);
    assert!(!bob.visit("/runs").await.text().contains(&path));
}

#[tokio::test]
async fn somebody_who_reads_is_shut_out_when_the_run_becomes_private() {
    let issuer = Issuer::start(false).await;
    let gate = Gate::new();
    let provider = FakeProvider::start(vec![in_two("so far", "secret", &gate)]).await;
    let gateway = gateway_with(&provider, &issuer, |_| {}).await;
    let mut anna = person(&gateway, &issuer, "anna").await;
    let path = start(&mut anna, &[]).await;
    let mut nobody = Browser::new(&gateway.client);
    assert_eq!(nobody.visit(&path).await.status, 200);
    let (mut own, mut foreign) = (live(&anna, &path).await, live(&nobody, &path).await);
    for stream in [&mut own, &mut foreign] {
        stream.until(|message| message["elements"].to_string().contains("so far")).await;
    }
    set(&mut anna, &path, "private").await;
    gate.open();
    own.until(|message| message["ended"] == true).await;
    while let Some(message) = foreign.next().await {
        assert!(!message.to_string().contains("secret"), "{message}");
    }
    assert_eq!(nobody.visit(&path).await.status, 404);
    let there = nobody.visit(&path).await.text();
    assert!(there.contains(&format!("/login?return_to={path}")), "who is its owner can sign in: {there}");
}

#[tokio::test]
async fn nobody_starts_runs_at_the_operators_expense_unless_allowed() {
    let issuer = Issuer::start(false).await;
    let gateway = gateway(&issuer, |settings| settings.sign_in_may_complete = false).await;
    let mut nobody = Browser::new(&gateway.client);
    let page = nobody.visit("/").await;
    assert!(page.text().contains("Sign in to run") && page.text().contains("$TOOLGATE_KEY"));
    assert!(!page.text().contains("demo"), "nothing of local mode: {}", page.text());
    assert!(!page.text().contains("fake/m"), "nor what is configured for those who may ask it");
    let fields = [("model", "m"), ("message", "x"), ("servers", "")];
    let answer = nobody.submit(&page, "/", &fields).await;
    assert_eq!(answer.header("location"), Some("/login?return_to=/"));
    let mut anna = person(&gateway, &issuer, "anna").await;
    let page = anna.visit("/").await;
    let answer = anna.submit(&page, "/", &fields).await;
    assert_eq!(answer.status, 403);
    assert!(answer.text().contains("has not allowed people to start runs"));
    assert!(anna.visit("/runs").await.text().contains("Nothing here yet"));
    assert_eq!(nobody.visit("/runs").await.header("location"), Some("/login?return_to=/runs"));
}

#[tokio::test]
async fn people_list_their_own_runs_from_our_pages_alone() {
    let issuer = Issuer::start(false).await;
    let gateway = gateway(&issuer, |_| {}).await;
    let (mut anna, mut bob) =
        (person(&gateway, &issuer, "anna").await, person(&gateway, &issuer, "bob").await);
    let path = start(&mut anna, &[]).await;
    finished(&mut anna, &path).await;
    let ours = [("sec-fetch-site", "same-origin")];
    let list = anna.send("GET", "/v1/runs", &ours, "").await;
    assert_eq!((list.status, &list.json()["data"][0]["id"]), (200, &path[1..].into()), "{}", list.text());
    for query in ["", "?user=anna", "?kind=page", "?order=asc"] {
        let list = bob.send("GET", &format!("/v1/runs{query}"), &ours, "").await;
        assert_eq!((list.status, list.json()["data"].as_array().map(Vec::len)), (200, Some(0)), "{query}");
    }
    let after = bob.send("GET", &format!("/v1/runs?after={}", &path[1..]), &ours, "").await;
    assert_eq!(after.status, 400, "{}", after.text());
    for site in ["cross-site", "same-site", "none"] {
        assert_eq!(anna.send("GET", "/v1/runs", &[("sec-fetch-site", site)], "").await.status, 401, "{site}");
    }
}

#[tokio::test]
async fn the_link_through_all_logins_is_absent_for_all_the_world() {
    let issuer = Issuer::start(false).await;
    let one = Protected::start(vec![FakeTool::text("t", "x")]).await;
    let other = Protected::start(vec![FakeTool::text("t", "x")]).await;
    let gateway = gateway(&issuer, |_| {}).await;
    let mut anna = person(&gateway, &issuer, "anna").await;
    let path = start(&mut anna, &[("servers", &format!("{} {}", one.url(), other.url()))]).await;
    live(&anna, &path).await.until(|message| message["waits"] == true).await;
    set(&mut anna, &path, "public").await;
    let json = format!("{path}.json");
    let mut nobody = Browser::new(&gateway.client);
    let own = [("sec-fetch-site", "same-origin")];
    let waiting = anna.send("GET", &json, &own, "").await.json();
    assert!(waiting["connect_all_url"].as_str().is_some_and(|url| url.contains("/connect/")), "{waiting}");
    let seen = nobody.visit(&json).await.json();
    assert_eq!((&seen["status"], &seen["connect_all_url"]), (&waiting["status"], &serde_json::Value::Null));
    let page = anna.visit(&path).await;
    anna.submit(&page, &format!("{path}/cancel"), &[]).await;
    finished(&mut anna, &path).await;
    let of = |whole: serde_json::Value| whole["completion"]["toolgate"]["connect_all_url"].clone();
    assert!(of(anna.send("GET", &json, &own, "").await.json()).as_str().is_some());
    assert_eq!(of(nobody.visit(&json).await.json()), serde_json::Value::Null);
    assert!(!nobody.visit(&json).await.text().contains("/connect/"));
}

#[tokio::test]
async fn login_links_are_not_for_all_the_world() {
    let issuer = Issuer::start(false).await;
    let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
    let gateway = gateway(&issuer, |_| {}).await;
    let mut anna = person(&gateway, &issuer, "anna").await;
    let path = start(&mut anna, &[("servers", &mcp.url())]).await;
    live(&anna, &path).await.until(|message| message["waits"] == true).await;
    let mut nobody = Browser::new(&gateway.client);
    for (visibility, is_shown) in [("unlisted", true), ("public", false)] {
        set(&mut anna, &path, visibility).await;
        assert!(anna.visit(&path).await.text().contains("/connect/"), "{visibility}");
        let page = nobody.visit(&path).await.text();
        assert!(page.contains("Waiting for you to log in") || page.contains("A login is needed"), "{page}");
        assert_eq!(page.contains("/connect/"), is_shown, "{visibility}: {page}");
        let message = live(&nobody, &path).await.next().await.unwrap().to_string();
        assert_eq!(message.contains("/connect/"), is_shown, "{visibility}: {message}");
    }
}

#[tokio::test]
async fn a_login_that_a_run_failed_for_is_offered_where_people_look_and_not_to_all_the_world() {
    let issuer = Issuer::start(false).await;
    let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
    let gateway = Gateway::with(&FakeProvider::answering(|_| text_stream("never")).await).await;
    let body = json!({ "model": "m", "user": "ann", "messages": [{ "role": "user", "content": "x" }],
        "tools": [mcp.entry("s")], "toolgate": { "on_auth": "fail" } });
    let task = gateway.client.post("/v1/tasks", &[], &body).await.json()["id"].clone();
    let path = format!("/{}", task.as_str().unwrap());
    super::watcher::all(&gateway.client, &path[1..]).await;
    let mut owner = Browser::new(&gateway.client);
    let page = owner.visit(&path).await.text();
    assert!(page.contains("A login is needed") && page.contains(">Log in</a>"), "{page}");
    assert!(
        page.contains("href=\"http")
            && page.contains("/connect/")
            && page.contains("Log in, then run it again.")
    );
    let markdown = gateway.client.get(&format!("{path}.md")).await.text();
    assert!(markdown.starts_with("> **Error** "), "{markdown}");
    assert!(markdown.contains("**Authorization required**") && markdown.contains("/connect/"), "{markdown}");
    drop(gateway);

    // The same for those who are not its owner.
    let gateway = self::gateway(&issuer, |settings| settings.api_keys.push(shop_key())).await;
    let headers = as_key(SHOP);
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut nobody = Browser::new(&gateway.client);
    for (visibility, is_shown) in [("unlisted", true), ("public", false)] {
        let mut body = body.clone();
        body["toolgate"]["visibility"] = visibility.into();
        let task = gateway.client.post("/v1/tasks", &headers, &body).await.json()["id"].clone();
        let path = format!("/{}", task.as_str().unwrap());
        super::watcher::all(&gateway.client, &path[1..]).await;
        for form in ["", ".md", ".json"] {
            let text = nobody.visit(&format!("{path}{form}")).await.text();
            assert!(text.contains(&mcp.peer.host()), "{visibility}{form}: {text}");
            assert_eq!(text.contains("/connect/"), is_shown, "{visibility}{form}: {text}");
            assert!(!text.contains(&mcp.url()), "the address is its owner's: {text}");
        }
    }
}

#[tokio::test]
async fn strangers_are_not_promised_a_link_that_they_do_not_get() {
    let issuer = Issuer::start(false).await;
    let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
    let gateway = gateway(&issuer, |_| {}).await;
    let mut anna = person(&gateway, &issuer, "anna").await;
    let path = start(&mut anna, &[("servers", &mcp.url())]).await;
    live(&anna, &path).await.until(|message| message["waits"] == true).await;
    let markdown = format!("{path}.md");
    let mut nobody = Browser::new(&gateway.client);
    assert!(nobody.visit(&markdown).await.text().contains("Log in with the link below"));
    set(&mut anna, &path, "public").await;
    let text = nobody.visit(&markdown).await.text();
    assert!(text.starts_with("> **Waiting for a login.**") && !text.contains("link below"), "{text}");
    let own = anna.send("GET", &markdown, &[("sec-fetch-site", "same-origin")], "").await.text();
    assert!(own.contains("Log in with the link below") && own.contains("/connect/"), "{own}");
}

#[tokio::test]
async fn where_nobody_can_sign_in_nobody_is_sent_there() {
    let provider = FakeProvider::answering(|_| text_stream("never")).await;
    let gateway = Gateway::without_sign_in(&provider, |settings| settings.api_keys.push(shop_key())).await;
    let mut nobody = Browser::new(&gateway.client);
    let page = nobody.visit("/").await;
    let html = page.text();
    assert!(!html.contains("Sign in to run") && html.contains("Nobody can sign in here"), "{html}");
    assert!(html.contains("$TOOLGATE_KEY"), "what helps instead: {html}");
    let sent = nobody.submit(&page, "/", &[("model", "m"), ("message", "x"), ("servers", "")]).await;
    assert_eq!(sent.status, 403, "{}", sent.text());
    assert!(sent.text().contains("with a key of your application"));
}
