//! What people agree to is what they were shown; and saying no takes the same proof as saying yes.

use serde_json::json;

use super::house::{DESK, House, SHOP, asked, server};
use crate::support::authorization_server::AuthorizationServer;
use crate::support::{Person, ask, with};

#[tokio::test]
async fn a_form_of_a_server_that_is_over_does_nothing_to_the_next() {
    for action in ["continue", "decline"] {
        let (house, one, two) = (House::local().await, server().await, server().await);
        let (links, all) = house.links("", "anna", &[&one, &two]).await;
        let mut anna = Person::new();
        let shown = anna.open(&format!("{all}?next")).await;
        assert!(shown.text.contains(&format!("Connect {}?", one.peer.host())), "{}", shown.text);
        // Meanwhile that one ends.
        Person::new().decline(&links[0]).await;

        let page = anna.press(&shown, action).await;
        assert_eq!(page.target(), None, "{}", page.text);
        assert!(page.text.contains(&format!("Connect {}?", two.peer.host())), "{}", page.text);
        assert!(page.text.contains("look at it anew"), "{}", page.text);
        assert_eq!(asked(&two, "/register") + asked(&two, "/authorize"), 0);
        house.nothing_stored(&two.url(), &[]).await;
        // What is shown now is agreed to.
        let page = anna.press(&page, "continue").await;
        assert!(anna.follow(page).await.text.contains("You have authorised"));
        assert_eq!(house.accounts(&two.url()).await.len(), 1);
        house.nothing_stored(&one.url(), &["flow.declined"]).await;
    }
}

#[tokio::test]
async fn a_form_that_does_not_say_what_its_page_showed_does_nothing() {
    let (house, mcp, other) = (House::local().await, server().await, server().await);
    let link = house.link("", "anna", &mcp.url()).await;
    let foreign = house.link("", "anna", &other.url()).await;
    let mut anna = Person::new();
    let (page, of_other) = (anna.open(&link).await, anna.open(&foreign).await);
    let hidden = |text: &str, name: &str| {
        let rest = text.split(&format!("name=\"{name}\" value=\"")).nth(1).unwrap();
        rest.split('"').next().unwrap().to_owned()
    };
    let csrf = hidden(&page.text, "csrf");
    for flow in [String::new(), "&flow=".into(), format!("&flow={}", hidden(&of_other.text, "flow"))] {
        for action in ["continue", "decline"] {
            let page = anna.submit(&link, &format!("csrf={csrf}&action={action}{flow}")).await;
            assert!(page.target().is_none() && page.text.contains("Connect "), "{action} {flow}");
        }
    }
    house.nothing_stored(&mcp.url(), &[]).await;
    house.nothing_stored(&other.url(), &[]).await;
}

#[tokio::test]
async fn only_who_may_connect_may_decline() {
    let (house, mcp) = (House::hosted().await, server().await);
    let link = house.link(DESK, "anna:anna", &mcp.url()).await;
    let mut stranger = Person::new();
    let page = stranger.decline(&link).await;
    assert!(page.status == 200 && page.text.contains("the link stays for its owner"), "{}", page.text);
    house.nothing_stored(&mcp.url(), &[]).await;

    // Signed in as somebody else, with the form that the page had before.
    let shown = stranger.open(&link).await;
    house.sign_in(&mut stranger, "bob").await;
    let page = stranger.press(&shown, "decline").await;
    assert!(page.status == 403 && page.text.contains("reload it first"), "{}", page.text);
    house.nothing_stored(&mcp.url(), &[]).await;
    let page = stranger.open(&link).await;
    assert!(page.text.contains("not for you"), "{}", page.text);
    house.nothing_stored(&mcp.url(), &["flow.user_mismatch"]).await;

    let mut anna = Person::new();
    house.sign_in(&mut anna, "anna").await;
    let page = anna.decline(&link).await;
    assert!(page.text.contains("You declined"), "{}", page.text);
    house.nothing_stored(&mcp.url(), &["flow.declined", "flow.user_mismatch"]).await;
}

#[tokio::test]
async fn a_forwarded_link_connects_nothing_for_who_is_not_its_user() {
    let (house, mcp) = (House::hosted().await, server().await);
    let link = house.link(DESK, "bob:bob", &mcp.url()).await;
    let mut victim = Person::new();
    let shown = victim.open(&link).await;
    house.sign_in(&mut victim, "anna").await;
    let page = victim.open(&link).await;
    assert!(page.status == 403 && page.text.contains("not for you"), "{}", page.text);
    let flow = shown.text.split("name=\"flow\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let csrf = shown.text.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let page = victim.submit(&link, &format!("csrf={csrf}&flow={flow}&action=continue")).await;
    assert!(page.status == 403 && !page.leaves(), "{}", page.text);
    assert_eq!(asked(&mcp, "/authorize") + asked(&mcp, "/register"), 0);
    house.nothing_stored(&mcp.url(), &["flow.user_mismatch"]).await;
}

#[tokio::test]
async fn declining_what_is_connected_says_that_it_is() {
    let (house, mcp) = (House::local().await, server().await);
    let link = house.link("", "anna", &mcp.url()).await;
    let (mut anna, mut again) = (Person::new(), Person::new());
    let shown = again.open(&link).await;
    anna.log_in(&link).await;
    let page = again.press(&shown, "decline").await;
    assert!(page.text.contains("is connected for") && !page.text.contains("Nothing"), "{}", page.text);
    assert_eq!(house.accounts(&mcp.url()).await.len(), 1);
}

#[tokio::test]
async fn an_expired_link_says_so_ends_the_wait_and_is_written_down() {
    let (house, mcp) = (House::local().await, server().await);
    let body = with(ask(&[mcp.entry("s")]), json!({ "user": "anna", "toolgate": { "on_auth": "wait" } }));
    let mut stream = house.gateway.client.stream(&body).await;
    let chunk = stream.until(|chunk| chunk["toolgate"]["event"] == "authorization_required").await;
    let link = chunk["toolgate"]["connect_url"].as_str().unwrap().to_owned();
    stream.until(|chunk| chunk["toolgate"]["event"] == "waiting").await;
    let mut anna = Person::new();
    let shown = anna.open(&link).await;
    house.end_flows().await;
    let stream = stream.read_to_end().await;
    assert_eq!(stream.events("notice")[0]["code"], "login_ended");
    for page in [anna.press(&shown, "continue").await, anna.open(&link).await] {
        assert!(page.status == 410 && page.text.contains("This link has expired"), "{}", page.text);
    }
    house.nothing_stored(&mcp.url(), &["flow.expired"]).await;
}

#[tokio::test]
async fn all_that_is_asked_for_is_shown_and_where_one_signs_in() {
    let house = House::local().await;
    let scopes: Vec<String> = (0..80).map(|number| format!("scope:{number}")).collect();
    let elsewhere = AuthorizationServer::new()
        .resource(json!({ "scopes_supported": scopes }))
        .server(json!({ "authorization_endpoint": "https://login.elsewhere.example/authorize" }))
        .start()
        .await;
    let link = house.link("", "anna", &elsewhere.url("/mcp")).await;
    let page = Person::new().open(&link).await.text;
    for scope in &scopes {
        assert!(page.contains(&format!("<code>{scope}</code>")), "{scope}");
    }
    assert!(page.contains("Continue to login.elsewhere.example"), "{page}");
    let warning =
        format!("<strong>login.elsewhere.example</strong>, which is another site than {}", elsewhere.host());
    assert!(page.contains(&warning), "{page}");

    let mcp = server().await;
    let page = Person::new().open(&house.link("", "anna", &mcp.url()).await).await.text;
    assert!(page.contains(&format!("Continue to {}", mcp.peer.host())), "{page}");
    assert!(!page.contains("another site"), "{page}");
}

#[tokio::test]
async fn a_person_who_is_proven_by_an_application_declines_and_others_only_close_their_page() {
    let (house, mcp) = (House::hosted().await, server().await);
    let link = house.link(SHOP, "anna", &mcp.url()).await;
    let mut anna = Person::new();
    let page = anna.decline(&link).await;
    assert!(page.text.contains("the link stays for its owner"), "{}", page.text);
    house.nothing_stored(&mcp.url(), &[]).await;
    let proven = house.confirmed(&mut anna, &link, "anna").await;
    anna.open(&proven).await;
    let page = anna.decline(&link).await;
    assert!(page.text.contains("You declined"), "{}", page.text);
    house.nothing_stored(&mcp.url(), &["flow.declined"]).await;
}
