//! Login links that nobody could complete, or that a stranger asks for in the name of somebody else: not given out.

use serde_json::{Value, json};
use toolgate::config::{EgressAllow, PassThroughLogins, Settings};

use crate::runs::outside::{SHOP, as_key};
use crate::runs::pages_of_people::{person, shop_key};
use crate::support::issuer::{Issuer, PUBLIC, entry};
use crate::support::{
    Browser, FakeProvider, FakeTool, Gateway, Place, Program, Protected, ask, free_address, text_stream,
    whole, with,
};

/// A public gateway whose servers are on this machine.
fn public(settings: &mut Settings) {
    settings.public_url = Some(PUBLIC.into());
    let loopback = "127.0.0.0/8".parse().unwrap();
    settings.egress.allow.push(EgressAllow { cidr: Some(loopback), ..EgressAllow::default() });
}

/// Whoever sends these headers gets the reason instead of a link for `user`, wherever a link could be.
async fn gets_no_link(gateway: &Gateway, headers: &[(&str, &str)], user: &str, reason: &str) {
    let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
    let post = async |path: &str, body: &Value| gateway.client.post(path, headers, body).await;
    for on_auth in ["link", "wait", "fail"] {
        let options = json!({ "user": user, "toolgate": { "on_auth": on_auth, "wait_seconds": 300 } });
        let answer = post("/v1/chat/completions", &with(ask(&[mcp.entry("s")]), options)).await;
        let text = answer.text();
        assert!(!text.contains("/connect/") && text.contains(reason), "{on_auth}: {text}");
        if on_auth == "link" {
            let needed = &answer.json()["toolgate"]["authorization_required"][0];
            assert_eq!(needed["connect_url"], Value::Null, "{text}");
            assert!(needed["reason"].as_str().unwrap().contains(reason), "{text}");
        }
    }
    let stored = with(ask(&[mcp.entry("s")]), json!({ "user": user, "store": true }));
    let id = post("/v1/chat/completions", &stored).await.json()["id"].as_str().unwrap().to_owned();
    for form in [".md", ".json", ""] {
        let text = gateway.client.send("GET", &format!("/{id}{form}"), headers, "").await;
        let text = whole(text).await.text();
        assert!(!text.contains("/connect/"), "{form}: {text}");
    }
    let started = post("/v1/connections", &json!({ "user": user, "server_url": mcp.url() })).await;
    assert_eq!((started.status, &started.json()["error"]["code"]), (404, &json!("login_not_offered")));
    assert!(started.text().contains(reason), "{}", started.text());
    let checked = post("/v1/connections/check", &json!({ "user": user, "urls": [mcp.url()] })).await.json();
    assert_eq!(checked["data"][0]["status"], "unknown", "{checked}");
    assert!(checked["data"][0]["reason"].as_str().unwrap().contains(reason), "{checked}");
    assert!(
        mcp.peer.requests().iter().all(|request| request.path.starts_with("/mcp")),
        "nobody looks up a login that cannot be"
    );
}

#[tokio::test]
async fn a_made_up_key_gets_no_link_in_the_name_of_somebody_who_signs_in_here() {
    let provider = FakeProvider::answering(|_| text_stream("x")).await;
    let issuer = Issuer::start(false).await;
    let stranger = [("authorization", "Bearer sk-made-up-by-a-stranger")];
    for logins in [PassThroughLogins::Off, PassThroughLogins::On] {
        let gateway = Gateway::configured(&provider, |settings| {
            public(settings);
            settings.sign_in = vec![entry("company", &issuer)];
            settings.pass_through.enabled = Some(true);
            settings.pass_through.logins = logins;
        })
        .await;
        let mut anna = person(&gateway, &issuer, "anna").await;
        let account = anna.visit("/account").await.text();
        let id = account.split("acct_").nth(1).unwrap().split('<').next().unwrap();
        for user in [format!("acct_{id}"), "company:anna".to_owned(), "company:nobody-yet".to_owned()] {
            if logins == PassThroughLogins::Off {
                gets_no_link(&gateway, &stranger, &user, "pass_through.logins").await;
                continue;
            }
            let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
            let body = with(ask(&[mcp.entry("s")]), json!({ "user": user }));
            let answer = gateway.client.post("/v1/chat/completions", &stranger, &body).await;
            assert!(answer.text().contains("/connect/"), "the operator allows it: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn where_nobody_can_sign_in_there_are_no_links() {
    let provider = FakeProvider::answering(|_| text_stream("x")).await;
    let gateway = Gateway::without_sign_in(&provider, |settings| {
        public(settings);
        settings.api_keys.push(shop_key());
        settings.pass_through.enabled = Some(true);
    })
    .await;
    let headers = as_key(SHOP);
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    gets_no_link(&gateway, &headers, "ann", "nobody can sign in").await;
    let stranger = [("authorization", "Bearer sk-made-up-by-a-stranger")];
    gets_no_link(&gateway, &stranger, "ann", "nobody can sign in").await;
    assert_eq!(Browser::new(&gateway.client).visit("/").await.status, 200);
}

#[tokio::test]
async fn a_project_whose_users_could_complete_no_login_is_refused_and_one_that_exists_is_named() {
    let place = Place::new().await;
    let program = Program::at(&place);
    let create = |name: &'static str| ["project", "create", name];
    let refused = program.run(&create("shop")).await;
    assert_ne!(refused.code, 0);
    for words in ["nobody can sign in", "`[[sign_in]]`", "--proof app"] {
        assert!(refused.stderr.contains(words), "{words}: {}", refused.stderr);
    }
    let app = ["project", "create", "app", "--proof", "app", "--verifier-url", "https://app.example/v"];
    assert_eq!(program.run(&app).await.code, 0);
    let changed = program.run(&["project", "update", "app", "--proof", "gateway"]).await;
    assert!(changed.code != 0 && changed.stderr.contains("nobody can sign in"), "{}", changed.stderr);
    let shown = program.run(&["project", "show", "app", "--json"]).await.stdout;
    assert!(shown.contains("\"proof\":\"app\""), "nothing was changed: {shown}");
    assert_eq!(program.with_sign_in().run(&create("shop")).await.code, 0);

    // Its sign-in provider is taken out of the configuration later.
    let peer = FakeProvider::answering(|_| text_stream("x")).await;
    let examined = program.run(&["doctor", &peer.peer.url("/mcp")]).await.stderr;
    assert!(
        examined.contains("`shop` gets no login links") && !examined.contains("`app` gets"),
        "{examined}"
    );
    let examined = program.with_sign_in().run(&["doctor", &peer.peer.url("/mcp")]).await.stderr;
    assert!(!examined.contains("no login links"), "{examined}");
    let address = free_address();
    let running = program.serve(&place, address, "public_url = \"https://tools.example.com\"\n").await;
    // It listens before it looks, and answers after.
    assert_eq!(running.client.get("/healthz").await.status, 200);
    let log = place.log_of(address);
    assert!(log.contains("no login links for a project") && log.contains("shop"), "{log}");
    drop(running);
}
