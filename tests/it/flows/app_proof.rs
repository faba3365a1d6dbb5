//! Users that an application proves: its word is for the browser that it was asked about, and for no other.

use super::house::{House, SHOP, asked, server, way_back};
use crate::support::Person;

#[tokio::test]
async fn an_application_is_asked_about_one_browser_and_its_word_is_for_that_one_only() {
    let (house, mcp) = (House::hosted().await, server().await);
    let link = house.link(SHOP, "victim", &mcp.url()).await;
    // Mallory has the victim's link and sends the victim only the way to the application. That confirms the victim,
    // truthfully.
    let (mut mallory, mut victim) = (Person::new(), Person::new());
    victim.open(&house.url("/account")).await;
    let back = house.confirmed(&mut mallory, &link, "victim").await;

    let page = victim.open(&back).await;
    assert_eq!((page.status, page.leaves()), (400, false), "the victim's browser was not asked about");
    assert!(page.text.contains("Please start again") && !page.text.contains("/connect/"), "{}", page.text);
    let page = mallory.open(&link).await;
    let page = mallory.press(&page, "continue").await;
    assert!(!page.leaves() && page.flow_ref().is_some(), "mallory has to be confirmed anew: {}", page.text);
    let page = mallory.open(&back).await;
    assert!(!page.leaves(), "not with the very address either, which is used up: {}", page.text);

    assert_eq!(asked(&mcp, "/authorize") + asked(&mcp, "/register"), 0);
    house.nothing_stored(&mcp.url(), &["flow.wrong_browser"]).await;
}

#[tokio::test]
async fn a_browser_without_a_cookie_proves_nobody_however_often_it_comes() {
    let (house, mcp) = (House::hosted().await, server().await);
    let link = house.link(SHOP, "victim", &mcp.url()).await;
    let back = house.confirmed(&mut Person::new(), &link, "victim").await;
    for _ in 0..3 {
        let page = Person::new().open(&back).await;
        assert_eq!((page.status, page.leaves()), (400, false));
    }
    assert_eq!(asked(&mcp, "/authorize"), 0);
    house.nothing_stored(&mcp.url(), &["flow.wrong_browser"]).await;
}

#[tokio::test]
async fn who_previews_the_way_back_from_the_application_uses_nothing_up() {
    let (house, mcp) = (House::hosted().await, server().await);
    let link = house.link(SHOP, "anna", &mcp.url()).await;
    let mut anna = Person::new();
    let back = house.confirmed(&mut anna, &link, "anna").await;
    for (method, headers) in [
        ("HEAD", vec![]),
        ("GET", vec![("user-agent", "Slackbot-LinkExpanding 1.0")]),
        ("GET", vec![("sec-purpose", "prefetch")]),
    ] {
        let page = house.look(method, &back, &headers).await;
        assert!(!page.text().contains("/authorize?"), "{method} {headers:?}");
    }
    let page = anna.open(&back).await;
    let page = anna.follow(page).await;
    assert!(page.text.contains("You have authorised"), "{}", page.text);
    assert_eq!(house.accounts(&mcp.url()).await.len(), 1);
    let page = anna.open(&back).await;
    assert!(!page.leaves() && page.text.contains("is connected"), "it works once: {}", page.text);
}

#[tokio::test]
async fn an_application_that_names_somebody_else_proves_nobody_and_uses_its_reference_up() {
    let (house, mcp) = (House::hosted().await, server().await);
    let link = house.link(SHOP, "mallory", &mcp.url()).await;
    let mut victim = Person::new();
    let page = victim.open(&link).await;
    let page = victim.press(&page, "continue").await;
    let flow_ref = page.flow_ref().expect("the way to the application");
    assert_eq!(house.confirm(&flow_ref, "victim").await.status, 409);
    for user in ["victim", "mallory"] {
        assert_eq!(house.confirm(&flow_ref, user).await.status, 404, "{user}");
    }
    let page = victim.open(&link).await;
    assert!(!victim.press(&page, "continue").await.leaves());
    house.nothing_stored(&mcp.url(), &["flow.user_mismatch"]).await;
}

#[tokio::test]
async fn a_stranger_with_the_link_neither_ends_nor_takes_over_what_its_user_has_begun() {
    let (house, mcp) = (House::hosted().await, server().await);
    let link = house.link(SHOP, "anna", &mcp.url()).await;
    let mut anna = Person::new();
    let proven = house.confirmed(&mut anna, &link, "anna").await;
    let page = anna.open(&proven).await;
    let back = way_back(&mut anna, &page).await;

    let mut stranger = Person::new();
    let page = stranger.open(&link).await;
    assert!(stranger.press(&page, "continue").await.flow_ref().is_some());
    let page = stranger.decline(&link).await;
    assert!(page.text.contains("the link stays for its owner"), "{}", page.text);
    let page = stranger.open(&back).await;
    assert!(page.text.contains("Please start again"), "{}", page.text);
    house.nothing_stored(&mcp.url(), &["flow.wrong_browser"]).await;

    let page = anna.open(&back).await;
    assert!(page.text.contains("You have authorised"), "{}", page.text);
    assert_eq!(house.accounts(&mcp.url()).await.len(), 1);
}

#[tokio::test]
async fn who_is_confirmed_in_another_browser_meanwhile_does_not_bring_the_first_one_back() {
    // The flow is mallory's own. Mallory leaves for the authorization server and sends the victim there; the victim also
    // clicks on mallory's link, and so is the browser that the application is asked about.
    let (house, mcp) = (House::hosted().await, server().await);
    let link = house.link(SHOP, "mallory", &mcp.url()).await;
    let (mut mallory, mut victim) = (Person::new(), Person::new());
    let proven = house.confirmed(&mut mallory, &link, "mallory").await;
    let page = mallory.open(&proven).await;
    let forwarded = page.target().expect("the way to the authorization server");
    let page = victim.open(&link).await;
    assert!(victim.press(&page, "continue").await.flow_ref().is_some());
    let back = victim.open(&forwarded).await.location.expect("the way back");
    let page = victim.open(&back).await;
    assert!(page.text.contains("Please start again"), "{}", page.text);
    house.nothing_stored(&mcp.url(), &["flow.wrong_browser"]).await;
}

#[tokio::test]
async fn one_link_for_several_servers_goes_on_to_the_next_after_the_application_has_confirmed() {
    let (house, one, two) = (House::hosted().await, server().await, server().await);
    let (_, all) = house.links(SHOP, "anna", &[&one, &two]).await;
    let mut anna = Person::new();
    for mcp in [&one, &two] {
        let page = house.confirmed(&mut anna, &format!("{all}?next"), "anna").await;
        let page = anna.open(&page).await;
        assert!(page.target().unwrap().starts_with(&mcp.peer.url("/authorize")), "{}", page.text);
        let page = anna.follow(page).await;
        assert!(page.text.contains("You have authorised"), "{}", page.text);
        let goes_on = page.text.contains(&format!("href=\"{}\"", all.strip_prefix(&house.url("")).unwrap()));
        assert_eq!(goes_on, mcp.url() == one.url(), "{}", page.text);
        assert_eq!(house.accounts(&mcp.url()).await.len(), 1);
    }
    assert!(anna.open(&all).await.text.contains("All 2 servers are connected"));
}
