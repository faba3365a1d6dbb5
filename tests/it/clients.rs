//! Who the gateway is to authorization servers, whose tokens are whose, and what becomes of tokens that nobody needs.

use serde_json::{Value, json};
use toolgate::config::OauthClient;

use crate::support::authorization_server::AuthorizationServer;
use crate::support::{
    Answer, FakeProvider, FakeTool, Gateway, Peer, Person, Protected, Reply, ask, calls, escaped, field,
    text, with,
};

/// A model that calls the tool once and then says `done`.
async fn calling() -> FakeProvider {
    FakeProvider::answering(|request| {
        let body = request.json();
        let answered = body["messages"].as_array().unwrap().iter().any(|message| message["role"] == "tool");
        if answered { text("done") } else { calls(&[("call_1", "s_t", json!({}))]) }
    })
    .await
}

async fn server() -> Protected {
    Protected::start(vec![FakeTool::text("t", "x")]).await
}

fn of(user: &str, entry: &Value) -> Value {
    with(ask(std::slice::from_ref(entry)), json!({ "user": user }))
}

fn link(answer: &Answer) -> String {
    let url = &answer.json()["toolgate"]["authorization_required"][0]["connect_url"];
    url.as_str().unwrap_or_else(|| panic!("no link: {}", answer.text())).to_owned()
}

async fn log_in(gateway: &Gateway, user: &str, mcp: &Protected) {
    let answer = gateway.client.chat(&of(user, &mcp.entry("s"))).await;
    let page = Person::new().log_in(&link(&answer)).await;
    assert_eq!(page.status, 200, "{}", page.text);
}

async fn is_done(gateway: &Gateway, user: &str, mcp: &Protected) -> bool {
    gateway.client.chat(&of(user, &mcp.entry("s"))).await.content().ends_with("done")
}

async fn ids(gateway: &Gateway, user: &str) -> Vec<String> {
    let list = gateway.client.get(&format!("/v1/connections?user={user}")).await.json();
    let data = list["data"].as_array().unwrap();
    data.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn what_a_browser_says_about_a_client_ends_nobodys_login() {
    let (mcp, provider) = (server().await, calling().await);
    let gateway = Gateway::with(&provider).await;
    log_in(&gateway, "ann", &mcp).await;
    for (number, error) in ["invalid_client", "unauthorized_client", "invalid_scope"].iter().enumerate() {
        let user = format!("mallory{number}");
        let mut mallory = Person::new();
        let answer = gateway.client.chat(&of(&user, &mcp.entry("s"))).await;
        let away = mallory.leave(&link(&answer)).await;
        let (state, issuer) = (field(&away, "state"), escaped(&mcp.peer.url("")));
        let forged = format!("/oauth/callback?error={error}&state={state}&iss={issuer}");
        let page = mallory.open(&format!("http://{}{forged}", gateway.address)).await;
        assert!(page.status >= 400, "{}", page.text);
    }
    mcp.expire();
    assert!(is_done(&gateway, "ann", &mcp).await, "ann's token is renewed with the client it was made with");
    let before = mcp.registrations().len();
    log_in(&gateway, "bob", &mcp).await;
    assert_eq!(
        mcp.registrations().len(),
        before + 1,
        "a new login gets a client that nothing was said about"
    );
    assert!(is_done(&gateway, "bob", &mcp).await);
}

#[tokio::test]
async fn no_browser_makes_the_gateway_register_for_ever() {
    let (mcp, provider) = (server().await, calling().await);
    let gateway = Gateway::with(&provider).await;
    for number in 0..14 {
        let answer = gateway.client.chat(&of(&format!("mallory{number}"), &mcp.entry("s"))).await;
        let mut mallory = Person::new();
        let away = mallory.leave(&link(&answer)).await;
        let (state, issuer) = (field(&away, "state"), escaped(&mcp.peer.url("")));
        let forged = format!("/oauth/callback?error=invalid_client&state={state}&iss={issuer}");
        mallory.open(&format!("http://{}{forged}", gateway.address)).await;
    }
    assert_eq!(mcp.registrations().len(), 10);
    log_in(&gateway, "ann", &mcp).await;
    assert!(is_done(&gateway, "ann", &mcp).await);
}

#[tokio::test]
async fn an_operators_client_is_for_the_resources_named_with_it_and_asks_for_no_more() {
    let honest = AuthorizationServer::new()
        .server(json!({ "registration_endpoint": null }))
        .challenge(
            r#"Bearer resource_metadata="{own}/.well-known/oauth-protected-resource/mcp", scope="read delete""#,
        )
        .start()
        .await;
    let issuer = honest.url("");
    let evil = Peer::start({
        let issuer = issuer.clone();
        move |request| {
            let own = format!("http://{}", request.header("host").unwrap_or_default());
            if request.path.starts_with("/.well-known/oauth-protected-resource") {
                return Reply::Json(
                    200,
                    json!({ "resource": format!("{own}/mcp"), "authorization_servers": [issuer] }),
                );
            }
            let challenge = format!(
                r#"Bearer resource_metadata="{own}/.well-known/oauth-protected-resource/mcp", scope="delete""#
            );
            Reply::with_headers(401, &[("www-authenticate", &challenge)], "")
        }
    })
    .await;
    let provider = calling().await;
    let gateway = Gateway::configured(&provider, |settings| {
        settings.oauth_clients.push(OauthClient {
            issuer: issuer.clone(),
            client_id: "of-the-operator".into(),
            resources: vec![honest.host()],
            scopes: vec!["read".into(), "write".into()],
            ..OauthClient::default()
        });
    })
    .await;
    let entry = |peer: &Peer| json!({ "type": "mcp", "server_url": peer.url("/mcp"), "server_label": "s" });
    let answer = gateway.client.chat(&of("ann", &entry(&evil))).await;
    let required = answer.json()["toolgate"]["authorization_required"][0].clone();
    assert_eq!(required["connect_url"], Value::Null, "{}", answer.text());
    let reason = required["reason"].as_str().unwrap();
    assert!(reason.contains(&format!("is not for {}", evil.host())), "{reason}");

    let answer = gateway.client.chat(&of("ann", &entry(&honest))).await;
    let required = &answer.json()["toolgate"]["authorization_required"][0];
    assert_eq!(
        required["scopes"],
        json!(["read"]),
        "what is wanted now, and no more than the operator allows"
    );
    let away = Person::new().leave(&link(&answer)).await;
    assert_eq!((field(&away, "client_id"), field(&away, "scope")), ("of-the-operator".into(), "read".into()));
}

#[tokio::test]
async fn a_permission_that_the_client_did_not_name_makes_a_new_client() {
    let (mcp, provider) = (server().await, calling().await);
    let gateway = Gateway::with(&provider).await;
    log_in(&gateway, "ann", &mcp).await;
    log_in(&gateway, "bob", &mcp).await;
    assert_eq!(mcp.registrations().len(), 1);
    mcp.want("t", "files:write");
    log_in(&gateway, "ann", &mcp).await;
    let registered = mcp.registrations();
    assert_eq!(registered.len(), 2);
    let named = registered[1]["scope"].as_str().unwrap();
    assert!(named.contains("files:read") && named.contains("files:write"), "{named}");
    assert!(is_done(&gateway, "ann", &mcp).await);
    mcp.expire();
    let answer = gateway.client.chat(&of("bob", &mcp.entry("s"))).await;
    assert!(
        link(&answer).contains("/connect/"),
        "bob's login of before was renewed, and lacks the permission"
    );
    assert_eq!(mcp.refreshes(), 1, "{:?}", mcp.renewals());
}

#[tokio::test]
async fn another_account_is_another_connection_and_the_tokens_of_the_one_before_end() {
    let (mcp, provider) = (server().await, calling().await);
    mcp.answer_revocations(200);
    let gateway = Gateway::with(&provider).await;
    mcp.log_in_as("one@example.com");
    log_in(&gateway, "ann", &mcp).await;
    assert!(is_done(&gateway, "ann", &mcp).await);
    let before = ids(&gateway, "ann").await;

    mcp.end_grants();
    mcp.log_in_as("two@example.com");
    let again = link(&gateway.client.chat(&of("ann", &mcp.entry("s"))).await);
    let mut ann = Person::new();
    let asked = ann.log_in(&again).await;
    assert!(
        asked.text.contains("one@example.com") && asked.text.contains("two@example.com"),
        "{}",
        asked.text
    );
    assert_eq!(ids(&gateway, "ann").await, before, "nothing is stored before she says so");
    let page = ann.press(&asked, "keep").await;
    assert!(page.status == 200 && page.text.contains("You have authorised"), "{}", page.text);

    let after = ids(&gateway, "ann").await;
    assert!(after.len() == 1 && after != before, "{before:?} {after:?}");
    assert!(is_done(&gateway, "ann", &mcp).await);
    mcp.peer.until_requests_that(2, |request| request.path == "/revoke").await;
    assert_eq!(mcp.revoked(), ["refresh-3", "access-2"], "the first login's");
}

#[tokio::test]
async fn tokens_of_an_account_that_is_not_wanted_are_revoked() {
    let (mcp, provider) = (server().await, calling().await);
    mcp.answer_revocations(200);
    let gateway = Gateway::with(&provider).await;
    mcp.log_in_as("one@example.com");
    log_in(&gateway, "ann", &mcp).await;
    let before = ids(&gateway, "ann").await;
    mcp.want("t", "files:write");
    mcp.log_in_as("two@example.com");
    let more = link(&gateway.client.chat(&of("ann", &mcp.entry("s"))).await);
    let mut ann = Person::new();
    let asked = ann.log_in(&more).await;
    let page = ann.press(&asked, "drop").await;
    assert!(page.status < 400, "{}", page.text);
    mcp.peer.until_requests_that(2, |request| request.path == "/revoke").await;
    assert_eq!(mcp.revoked(), ["refresh-6", "access-5"], "those that were never stored");
    assert_eq!(ids(&gateway, "ann").await, before);
}

#[tokio::test]
async fn a_server_that_forbids_its_list_leaves_connection_and_tokens_as_they_were() {
    let (mcp, provider) = (server().await, calling().await);
    let gateway = Gateway::with(&provider).await;
    log_in(&gateway, "ann", &mcp).await;
    mcp.disguise(403, r#"{"error":"your plan does not allow this"}"#);
    mcp.expire();
    for _ in 0..3 {
        let answer = gateway.client.chat(&of("ann", &mcp.entry("s"))).await;
        assert_eq!(answer.status, 424, "{}", answer.text());
        assert!(answer.text().contains("forbids it"), "{}", answer.text());
    }
    assert_eq!(mcp.refreshes(), 0, "nothing was spent");
    let list = gateway.client.get("/v1/connections?user=ann").await.json();
    assert_eq!(list["data"][0]["status"], "active", "{list}");
}

#[tokio::test]
async fn a_client_that_is_refused_for_a_moment_costs_only_logins_that_were_made_with_a_registration() {
    let (mcp, provider) = (server().await, calling().await);
    let issuer = mcp.peer.url("");
    let gateway = Gateway::configured(&provider, |settings| {
        settings.oauth_clients.push(OauthClient {
            issuer,
            client_id: "of-the-operator".into(),
            resources: vec![mcp.peer.host()],
            ..OauthClient::default()
        });
    })
    .await;
    log_in(&gateway, "ann", &mcp).await;
    mcp.at_renewal(|_| Reply::Json(401, json!({ "error": "invalid_client" })));
    mcp.expire();
    let refused = gateway.client.chat(&of("ann", &mcp.entry("s"))).await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    let list = gateway.client.get("/v1/connections?user=ann").await.json();
    assert_eq!(list["data"][0]["status"], "active", "{list}");
}
