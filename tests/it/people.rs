//! People who are signed in at the gateway: they call as themselves, and what is others' is closed to them.

use serde_json::{Value, json};
use toolgate::config::EgressAllow;

use super::support::issuer::{Issuer, PUBLIC, entry, sign_in};
use super::support::{
    Answer, Browser, Client, FakeProvider, FakeTool, Gateway, Protected, ask, calls, fields_of, text, with,
};

/// Headers of a request that a page of the gateway makes.
const OURS: [(&str, &str); 2] = [("sec-fetch-site", "same-origin"), ("content-type", "application/json")];

fn browser(gateway: &Gateway) -> Browser {
    Browser::new(&gateway.client)
}

/// A gateway whose people may call, with a model that uses the tool of `s` once.
async fn calling_people(issuer: &Issuer) -> Gateway {
    let provider = FakeProvider::answering(|request| {
        let said = request.json()["messages"].as_array().unwrap().len();
        if said == 1 { calls(&[("call_1", "s_t", json!({}))]) } else { text("done") }
    })
    .await;
    Gateway::configured(&provider, |settings| {
        settings.public_url = Some(PUBLIC.into());
        settings.sign_in = vec![entry("company", issuer)];
        settings.sign_in_may_complete = true;
        let loopback = "127.0.0.0/8".parse().unwrap();
        settings.egress.allow.push(EgressAllow { cidr: Some(loopback), ..EgressAllow::default() });
    })
    .await
}

async fn chat(browser: &mut Browser, mcp: &Protected, more: Value) -> Answer {
    let body = with(ask(&[mcp.entry("s")]), more);
    browser.send("POST", "/v1/chat/completions", &OURS, &body.to_string()).await
}

/// Goes through the login link that a request is shown; gives the last page.
async fn connect(browser: &mut Browser, mcp: &Protected) -> Answer {
    let answer = chat(browser, mcp, json!({})).await.json();
    let link = answer["toolgate"]["authorization_required"][0]["connect_url"].as_str();
    let path = link.unwrap_or_else(|| panic!("{answer}")).strip_prefix(PUBLIC).unwrap().to_owned();
    let page = browser.visit(&path).await;
    let leaving = browser.submit(&page, &path, &[("action", "continue")]).await;
    let target = browser.leads_to(&leaving);
    let there = target.strip_prefix(&mcp.peer.url("")).unwrap();
    let back = Client::new(mcp.peer.address).send("GET", there, &[], "").await;
    let back = back.headers()["location"].to_str().unwrap().to_owned();
    browser.visit(back.strip_prefix(PUBLIC).unwrap()).await
}

/// Their only connection, as they list it.
async fn listed(browser: &mut Browser) -> Vec<Value> {
    let list = browser.send("GET", "/v1/connections", &OURS, "").await;
    assert_eq!(list.status, 200, "{}", list.text());
    list.json()["data"].as_array().unwrap().clone()
}

#[tokio::test]
async fn who_is_signed_in_is_their_own_user_and_nobody_else() {
    let issuer = Issuer::start(false).await;
    let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
    let gateway = calling_people(&issuer).await;
    let (mut anna, mut bob) = (browser(&gateway), browser(&gateway));
    sign_in(&mut anna, &issuer, "anna").await;
    sign_in(&mut bob, &issuer, "bob").await;
    let page = connect(&mut anna, &mcp).await;
    assert!(page.text().contains("You have authorised"), "{}", page.text());
    let annas = listed(&mut anna).await.remove(0);
    let user = annas["user"].as_str().unwrap().to_owned();
    for own in [json!({}), json!({ "user": user })] {
        assert!(chat(&mut anna, &mcp, own).await.content().ends_with("done"));
    }
    assert_eq!(mcp.callers().len(), 2);

    assert_eq!(listed(&mut bob).await, Vec::<Value>::new());
    let path = format!("/v1/connections/{}", annas["id"].as_str().unwrap());
    for (method, path, body) in [
        ("DELETE", path.clone(), String::new()),
        ("POST", format!("{path}/reauthorize"), json!({}).to_string()),
    ] {
        assert_eq!(bob.send(method, &path, &OURS, &body).await.status, 404, "{method}");
    }
    let name_anna = json!({ "user": user, "server_url": mcp.url() });
    let look = json!({ "user": user, "urls": [mcp.url()] });
    let list = format!("/v1/connections?user={user}");
    for (method, path, body) in [
        ("GET", list.as_str(), String::new()),
        ("POST", "/v1/connections", name_anna.to_string()),
        ("POST", "/v1/connections/check", look.to_string()),
    ] {
        let refused = bob.send(method, path, &OURS, &body).await;
        assert_eq!(
            (refused.status, &refused.json()["error"]["code"]),
            (403, &json!("user_mismatch")),
            "{path}"
        );
    }
    for named in
        [json!({ "user": user }), json!({ "safety_identifier": user }), json!({ "user": "company:anna" })]
    {
        let refused = chat(&mut bob, &mcp, named).await;
        assert_eq!((refused.status, &refused.json()["error"]["code"]), (403, &json!("user_mismatch")));
        assert_eq!(refused.json()["error"]["param"], "user");
    }
    let header = [OURS[0], OURS[1], ("x-toolgate-user", user.as_str())];
    let body = ask(&[mcp.entry("s")]).to_string();
    assert_eq!(bob.send("POST", "/v1/chat/completions", &header, &body).await.status, 403);
    assert_eq!(mcp.callers().len(), 2, "bob has called nothing");
    assert_eq!(listed(&mut anna).await[0]["id"], annas["id"]);
}

#[tokio::test]
async fn another_person_changes_nothing_with_my_connections_id_and_project() {
    let issuer = Issuer::start(false).await;
    let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
    mcp.answer_revocations(200);
    let gateway = calling_people(&issuer).await;
    let (mut anna, mut bob) = (browser(&gateway), browser(&gateway));
    sign_in(&mut anna, &issuer, "anna").await;
    sign_in(&mut bob, &issuer, "bob").await;
    connect(&mut anna, &mcp).await;
    let before = listed(&mut anna).await;
    let path = format!("/connections/{}", before[0]["id"].as_str().unwrap());
    let disconnect = format!("{path}/disconnect");
    let annas = fields_of(&anna.visit("/connections").await.text(), &disconnect);
    assert!(annas.iter().any(|(name, value)| name == "project" && !value.is_empty()), "{annas:?}");
    let bobs = fields_of(&bob.visit("/account").await.text(), "/account/sign-out-everywhere");
    // Everything of hers, sent from a page of his.
    let mut forged: Vec<(String, String)> = annas.into_iter().filter(|(name, _)| name != "csrf").collect();
    forged.extend(bobs);
    forged.push(("scopes".to_owned(), "files:write".to_owned()));
    let answer = bob.post(&disconnect, &forged).await;
    assert!(answer.text().contains("This connection is not there any more."), "{}", answer.text());
    let answer = bob.post(&format!("{path}/scopes"), &forged).await;
    assert_eq!(answer.status, 404, "{}", answer.text());
    assert!(answer.header("refresh").is_none() && answer.header("location").is_none());
    assert_eq!(listed(&mut anna).await, before);
    assert_eq!(mcp.revoked(), Vec::<String>::new());
    assert!(chat(&mut anna, &mcp, json!({})).await.content().ends_with("done"));

    let page = anna.visit("/connections").await;
    let done = anna.submit(&page, &disconnect, &[]).await;
    assert!(done.text().contains("Disconnected"), "{}", done.text());
    assert_eq!(mcp.revoked().len(), 2, "refresh and access token");
    assert_eq!(listed(&mut anna).await, Vec::<Value>::new());
}
