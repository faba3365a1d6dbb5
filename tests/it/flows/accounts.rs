//! A login of another account than before: nothing is changed until the person says so, and what is dropped is revoked.

use serde_json::json;

use super::house::{House, SHOP, almost, asked, server, way_back};
use crate::support::{Page, Person, Protected};

const QUESTION: &str = "Is this the right account?";

/// Anna is connected, and has come back with bob's account instead.
async fn came_back_as_bob(house: &House, mcp: &Protected, anna: &mut Person) -> (String, Page) {
    if house.accounts(&mcp.url()).await.is_empty() {
        mcp.answer_revocations(200);
        mcp.log_in_as("anna");
        anna.log_in(&house.link("", "anna", &mcp.url()).await).await;
    }
    assert_eq!(house.accounts(&mcp.url()).await, ["anna"]);
    mcp.log_in_as("bob");
    let list = house.look("GET", &house.url("/v1/connections?user=anna"), &[]).await.json();
    let path = format!("/v1/connections/{}/reauthorize", list["data"][0]["id"].as_str().expect("one"));
    let started = house.send("", &path, &json!({ "scopes": ["files:write"] })).await.json();
    let link = started["connect_url"].as_str().unwrap_or_else(|| panic!("a link: {started}")).to_owned();
    let back = almost(anna, &link).await;
    let page = anna.open(&back).await;
    assert!(page.text.contains(QUESTION), "{}", page.text);
    assert_eq!(house.accounts(&mcp.url()).await, ["anna"], "nothing is changed before the answer");
    (link, page)
}

/// What a hidden field of a page says.
fn hidden(page: &Page, name: &str) -> String {
    let before = format!("name=\"{name}\" value=\"");
    let value = page.text.split(&before).nth(1).unwrap_or_else(|| panic!("no {name}: {}", page.text));
    value.split('"').next().unwrap().to_owned()
}

/// Waits until both tokens of a login were revoked.
async fn until_revoked(mcp: &Protected, logins: usize) {
    mcp.peer.until_requests_that(2 * logins, |request| request.path == "/revoke").await;
}

#[tokio::test]
async fn another_account_is_stored_only_after_a_yes_in_the_browser_that_came_back() {
    let (house, mcp) = (House::local().await, server().await);
    let mut anna = Person::new();
    let (link, question) = came_back_as_bob(&house, &mcp, &mut anna).await;
    let mut stranger = Person::new();
    let csrf = hidden(&stranger.open(&link).await, "csrf");
    let asked = hidden(&question, "question");
    let answer = format!("csrf={csrf}&question={asked}&action=keep");
    let page = stranger.submit(&format!("{link}/account"), &answer).await;
    assert!(page.status == 400 && page.text.contains("Please start again"), "{}", page.text);
    assert_eq!(house.accounts(&mcp.url()).await, ["anna"]);
    let page = anna.press(&question, "keep").await;
    assert!(page.text.contains("You have authorised"), "{}", page.text);
    assert_eq!(house.accounts(&mcp.url()).await, ["bob"]);
}

#[tokio::test]
async fn after_a_no_the_other_account_is_not_stored_any_more_and_its_tokens_are_revoked() {
    let (house, mcp) = (House::local().await, server().await);
    let mut anna = Person::new();
    let (_, question) = came_back_as_bob(&house, &mcp, &mut anna).await;
    let page = anna.press(&question, "drop").await;
    assert!(page.text.contains("You declined"), "{}", page.text);
    until_revoked(&mcp, 1).await;
    let page = anna.press(&question, "keep").await;
    assert!(!page.text.contains("You have authorised"), "{}", page.text);
    assert_eq!(house.accounts(&mcp.url()).await, ["anna"]);
    let audit = house.audit(&mcp.url()).await;
    assert!(audit.contains(&"flow.other_account".to_owned()) && audit.contains(&"flow.declined".to_owned()));
}

#[tokio::test]
async fn what_nobody_answered_is_revoked_when_its_time_is_up() {
    let (house, mcp) = (House::local().await, server().await);
    let mut anna = Person::new();
    let (_, question) = came_back_as_bob(&house, &mcp, &mut anna).await;
    house.end_flows().await;
    until_revoked(&mcp, 1).await;
    let page = anna.press(&question, "keep").await;
    assert!(page.status == 410 && page.text.contains("expired"), "{}", page.text);
    assert_eq!(house.accounts(&mcp.url()).await, ["anna"]);
}

#[tokio::test]
async fn who_begins_anew_in_another_browser_drops_what_waited_and_it_is_revoked() {
    let (house, mcp) = (House::local().await, server().await);
    let mut anna = Person::new();
    let (link, question) = came_back_as_bob(&house, &mcp, &mut anna).await;
    mcp.log_in_as("anna");
    let mut elsewhere = Person::new();
    let back = almost(&mut elsewhere, &link).await;
    let page = anna.press(&question, "keep").await;
    assert!(!page.text.contains("You have authorised"), "the question is over: {}", page.text);
    until_revoked(&mcp, 1).await;
    let page = elsewhere.open(&back).await;
    assert!(page.text.contains("You have authorised"), "{}", page.text);
    assert_eq!(house.accounts(&mcp.url()).await, ["anna"]);
    assert_eq!(asked(&mcp, "/token"), 3);
}

#[tokio::test]
async fn what_waits_for_an_answer_when_its_project_is_deleted_is_revoked() {
    let (house, mcp) = (House::hosted().await, server().await);
    mcp.answer_revocations(200);
    let bearer = format!("Bearer {SHOP}");
    let bearer = [("authorization", bearer.as_str())];
    let mut anna = Person::new();
    mcp.log_in_as("anna");
    let back = house.confirmed(&mut anna, &house.link(SHOP, "anna", &mcp.url()).await, "anna").await;
    let page = anna.open(&back).await;
    let page = anna.follow(page).await;
    assert!(page.text.contains("You have authorised"), "{}", page.text);
    mcp.log_in_as("bob");
    let list = house.look("GET", &house.url("/v1/connections?user=anna"), &bearer).await.json();
    let path = format!("/v1/connections/{}", list["data"][0]["id"].as_str().expect("one"));
    let wanted = json!({ "scopes": ["files:write"] });
    let started = house.send(SHOP, &format!("{path}/reauthorize"), &wanted).await.json();
    let link = started["connect_url"].as_str().unwrap_or_else(|| panic!("a link: {started}"));
    let back = house.confirmed(&mut anna, link, "anna").await;
    let page = anna.open(&back).await;
    let question = anna.follow(page).await;
    assert!(question.text.contains(QUESTION), "{}", question.text);

    let ended = house.look("DELETE", &house.url(&path), &bearer).await;
    assert_eq!(ended.status, 200, "{}", ended.text());
    until_revoked(&mcp, 1).await;
    let deleted = house.program().run(&["project", "delete", "shop"]).await;
    assert_eq!(deleted.code, 0, "{}", deleted.stderr);
    until_revoked(&mcp, 2).await;
    let page = anna.press(&question, "keep").await;
    assert!(!page.text.contains("You have authorised"), "{}", page.text);
    assert_eq!(house.accounts(&mcp.url()).await, Vec::<String>::new());
}

#[tokio::test]
async fn an_answer_about_an_account_that_was_not_shown_stores_nothing_and_declines_nothing() {
    let (house, mcp) = (House::local().await, server().await);
    let mut anna = Person::new();
    let (link, about_bob) = came_back_as_bob(&house, &mcp, &mut anna).await;
    // Another tab of hers still shows the page before, and goes on there.
    let flow = hidden(&Person::new().open(&link).await, "flow");
    let again = format!("csrf={}&flow={flow}&action=continue", hidden(&about_bob, "csrf"));
    mcp.log_in_as("carol");
    let leaving = anna.submit(&link, &again).await;
    let back = way_back(&mut anna, &leaving).await;
    for answer in ["keep", "drop"] {
        let page = anna.press(&about_bob, answer).await;
        let page = anna.follow(page).await;
        assert!(page.status == 200 && page.text.contains("value=\"continue\""), "{answer}: {}", page.text);
    }
    let about_carol = anna.open(&back).await;
    assert!(about_carol.text.contains(QUESTION), "no answer has ended the login: {}", about_carol.text);
    for answer in ["keep", "drop"] {
        let page = anna.press(&about_bob, answer).await;
        let page = anna.follow(page).await;
        assert!(page.text.contains(QUESTION) && page.text.contains("carol"), "{answer}: {}", page.text);
        assert_eq!(house.accounts(&mcp.url()).await, ["anna"], "{answer}");
    }
    let none = format!("csrf={}&action=keep", hidden(&about_carol, "csrf"));
    let page = anna.submit(&format!("{link}/account"), &none).await;
    assert!(anna.follow(page).await.text.contains(QUESTION), "an answer to nothing");
    assert_eq!(house.accounts(&mcp.url()).await, ["anna"]);
    assert!(!house.audit(&mcp.url()).await.contains(&"flow.declined".to_owned()));
    let page = anna.press(&about_carol, "keep").await;
    assert!(page.text.contains("You have authorised"), "{}", page.text);
    assert_eq!(house.accounts(&mcp.url()).await, ["carol"]);
}
