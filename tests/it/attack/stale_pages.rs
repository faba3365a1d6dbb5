//! Pages that were loaded before something changed: what they send does not undo the change.

use serde_json::json;

use crate::runs::pages::{finished, live, start};
use crate::runs::pages_of_people::{gateway_with, person};
use crate::support::issuer::{Issuer, PUBLIC, sign_in};
use crate::support::{
    Answer, Browser, Client, FakeProvider, FakeTool, Gateway, Protected, calls_stream, text_stream,
};

/// A gateway with sign-in, and a model that reads the tool of a protected server once.
async fn open() -> (Gateway, Issuer, Protected) {
    let provider = FakeProvider::answering(|request| {
        let said = request.json();
        let has_result = said["messages"].as_array().unwrap().iter().any(|message| message["role"] == "tool");
        let tool = said["tools"][0]["function"]["name"].as_str().unwrap_or_default();
        if has_result { text_stream("the secret") } else { calls_stream(&[("call_1", tool, json!({}))]) }
    })
    .await;
    let issuer = Issuer::start(false).await;
    let gateway = gateway_with(&provider, &issuer, |_| {}).await;
    (gateway, issuer, Protected::start(vec![FakeTool::text("t", "the secret")]).await)
}

/// Goes through the login link in a text.
pub(super) async fn log_in(browser: &mut Browser, page: &Answer, mcp: &Protected) {
    let html = page.text();
    let link = html.split(&format!("{PUBLIC}/connect/")).nth(1).unwrap_or_else(|| panic!("a link: {html}"));
    let path = format!("/connect/{}", link.split(['"', '<', ' ', ')']).next().unwrap());
    let consent = browser.visit(&path).await;
    let leaving = browser.submit(&consent, &path, &[("action", "continue")]).await;
    let target = browser.leads_to(&leaving);
    let there = target.strip_prefix(&mcp.peer.url("")).unwrap();
    let back = Client::new(mcp.peer.address).send("GET", there, &[], "").await;
    let back = back.headers()["location"].to_str().unwrap().to_owned();
    let page = browser.visit(back.strip_prefix(PUBLIC).unwrap()).await;
    assert_eq!(page.status, 200, "{}", page.text());
}

#[tokio::test]
async fn a_page_from_before_a_login_does_not_publish_what_the_login_gave() {
    let (gateway, issuer, mcp) = open().await;
    let mut anna = person(&gateway, &issuer, "anna").await;
    let path = start(&mut anna, &[("servers", &mcp.url())]).await;
    live(&anna, &path).await.until(|message| message["waits"] == true).await;
    let old = anna.visit(&path).await;
    assert!(old.text().contains("value=\"unlisted\" checked"));
    log_in(&mut anna, &old, &mcp).await;
    finished(&mut anna, &path).await;
    let mut nobody = Browser::new(&gateway.client);
    for visibility in ["unlisted", "public"] {
        let refused = anna.submit(&old, &format!("{path}/share"), &[("visibility", visibility)]).await;
        let html = refused.text();
        assert_eq!(refused.status, 409, "{html}");
        assert!(
            html.contains("Sharing was not changed.") && html.contains("value=\"private\" checked"),
            "{html}"
        );
        assert_eq!(nobody.visit(&path).await.status, 404, "{visibility}");
    }
    // A form from before this version, or one that was made by hand, says nothing of what it showed.
    let csrf: Vec<_> = crate::support::fields_of(&old.text(), &format!("{path}/delete"));
    let bare = [csrf, vec![("visibility".to_owned(), "public".to_owned())]].concat();
    assert_eq!(anna.post(&format!("{path}/share"), &bare).await.status, 409);
    assert_eq!(nobody.visit(&path).await.status, 404);
    // The page that was refused has the panel as it is now: who has read it may still choose.
    let refused = anna.submit(&old, &format!("{path}/share"), &[("visibility", "unlisted")]).await;
    let shared = anna.submit(&refused, &format!("{path}/share"), &[("visibility", "unlisted")]).await;
    assert_eq!(shared.status, 303, "{}", shared.text());
    assert!(nobody.visit(&path).await.text().contains("the secret"));
}

#[tokio::test]
async fn a_run_published_before_a_login_is_private_once_the_login_is_used() {
    let (gateway, issuer, mcp) = open().await;
    let mut anna = person(&gateway, &issuer, "anna").await;
    let path = start(&mut anna, &[("servers", &mcp.url())]).await;
    live(&anna, &path).await.until(|message| message["waits"] == true).await;
    let page = anna.visit(&path).await;
    let shared = anna.submit(&page, &format!("{path}/share"), &[("visibility", "public")]).await;
    assert_eq!(shared.status, 303, "{}", shared.text());
    let mut nobody = Browser::new(&gateway.client);
    assert_eq!(nobody.visit(&path).await.status, 200);
    log_in(&mut anna, &page, &mcp).await;
    let page = finished(&mut anna, &path).await;
    assert!(page.text().contains("value=\"private\" checked"), "{}", page.text());
    assert_eq!(nobody.visit(&path).await.status, 404);
}

#[tokio::test]
async fn a_choice_made_in_another_tab_is_not_overwritten() {
    let (gateway, issuer, _) = open().await;
    let mut anna = person(&gateway, &issuer, "anna").await;
    let path = start(&mut anna, &[("servers", "")]).await;
    let old = anna.visit(&path).await;
    anna.submit(&old, &format!("{path}/share"), &[("visibility", "private")]).await;
    let refused = anna.submit(&old, &format!("{path}/share"), &[("visibility", "public")]).await;
    assert_eq!(refused.status, 409, "{}", refused.text());
    assert_eq!(Browser::new(&gateway.client).visit(&path).await.status, 404);
}

#[tokio::test]
async fn a_page_of_one_person_is_not_sent_by_the_next_one_in_the_same_browser() {
    let (gateway, issuer, _) = open().await;
    let mut browser = person(&gateway, &issuer, "anna").await;
    let (account, form) = (browser.visit("/account").await, browser.visit("/").await);
    sign_in(&mut browser, &issuer, "bob").await;
    let fields = [("model", "m"), ("message", "Write to my boss"), ("servers", "")];
    let started = browser.submit(&form, "/", &fields).await;
    assert_eq!(started.status, 403, "{}", started.text());
    let ended = browser.submit(&account, "/account/sign-out-everywhere", &[]).await;
    assert_eq!(ended.status, 403, "{}", ended.text());
    assert!(ended.text().contains("reload it first"), "{}", ended.text());
    assert_eq!(browser.visit("/account").await.status, 200, "bob is still signed in");
}
