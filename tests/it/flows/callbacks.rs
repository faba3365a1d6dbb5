//! The way back from the authorization server: it works once, in the browser that left, for the issuer it left for.

use super::house::{House, almost, asked, server};
use crate::support::{Person, Protected};

/// An address with another value for one of its fields; `None` takes it out.
fn changed(address: &str, field: &str, value: Option<&str>) -> String {
    let mut url = url::Url::parse(address).unwrap();
    let mut pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    pairs.retain(|(name, _)| name != field);
    pairs.extend(value.map(|value| (field.to_owned(), value.to_owned())));
    url.query_pairs_mut().clear().extend_pairs(pairs);
    url.into()
}

fn field(address: &str, field: &str) -> String {
    let url = url::Url::parse(address).unwrap();
    url.query_pairs().find(|(name, _)| name == field).expect("the field is there").1.into_owned()
}

#[tokio::test]
async fn a_way_back_in_another_browser_or_without_the_cookie_spends_no_code_and_shows_no_link() {
    let (house, mcp) = (House::local().await, server().await);
    let link = house.link("", "anna", &mcp.url()).await;
    let mut mallory = Person::new();
    let back = almost(&mut mallory, &link).await;
    let mut victim = Person::new();
    victim.open(&house.url("/account")).await;
    for page in [victim.open(&back).await, Person::new().open(&back).await] {
        assert!(page.status == 400 && page.text.contains("Please start again"), "{}", page.text);
        assert!(!page.text.contains("/connect/"), "who only knows the state gets no link: {}", page.text);
    }
    assert_eq!(asked(&mcp, "/token"), 0);
    house.nothing_stored(&mcp.url(), &["flow.wrong_browser"]).await;
}

#[tokio::test]
async fn a_code_of_somebody_else_cannot_be_put_into_a_way_back() {
    let house = House::local().await;
    let (mcp, own) =
        (Protected::marked(Vec::new(), "-one").await, Protected::marked(Vec::new(), "-two").await);
    let theirs = house.link("", "mallory", &mcp.url()).await;
    let mine = house.link("", "victim", &own.url()).await;
    let (mut mallory, mut victim) = (Person::new(), Person::new());
    let (from, to) = (almost(&mut mallory, &theirs).await, almost(&mut victim, &mine).await);
    let page = victim.open(&changed(&to, "code", Some(&field(&from, "code")))).await;
    assert!(page.text.contains("cannot be connected now"), "{}", page.text);
    house.nothing_stored(&own.url(), &["flow.failed"]).await;
    let page = victim.open(&to).await;
    assert!(page.text.contains("works only once"), "its state is used up: {}", page.text);
    house.nothing_stored(&own.url(), &["flow.failed"]).await;
    house.nothing_stored(&mcp.url(), &[]).await;
}

#[tokio::test]
async fn a_replayed_way_back_stores_nothing_more() {
    let (house, mcp) = (House::local().await, server().await);
    let mut anna = Person::new();
    let back = almost(&mut anna, &house.link("", "anna", &mcp.url()).await).await;
    assert!(anna.open(&back).await.text.contains("You have authorised"));
    let page = anna.open(&back).await;
    assert!(page.status == 404 && page.text.contains("works only once"), "{}", page.text);
    assert_eq!((asked(&mcp, "/token"), house.accounts(&mcp.url()).await.len()), (1, 1));
    assert_eq!(house.audit(&mcp.url()).await, ["connection.created"]);
}

#[tokio::test]
async fn an_answer_of_one_issuer_is_not_taken_for_anothers() {
    let (house, mcp, evil) = (House::local().await, server().await, server().await);
    let link = house.link("", "anna", &mcp.url()).await;
    let other = house.link("", "anna", &evil.url()).await;
    let mut anna = Person::new();
    let (back, foreign) = (almost(&mut anna, &link).await, almost(&mut anna, &other).await);
    // Honest about where it comes from: no code is spent. The state is used up with it.
    let mixed =
        changed(&changed(&foreign, "code", Some(&field(&back, "code"))), "iss", Some(&field(&back, "iss")));
    let page = anna.open(&mixed).await;
    assert!(page.text.contains("cannot be connected now"), "{}", page.text);
    house.nothing_stored(&evil.url(), &["flow.issuer_mismatch"]).await;
    assert_eq!(asked(&evil, "/token"), 0, "the code of the one did not reach the other");
    // And an answer without `iss` is none of an issuer that says it always names itself.
    let page = anna.open(&changed(&back, "iss", None)).await;
    assert!(page.text.contains("cannot be connected now"), "{}", page.text);
    assert_eq!(asked(&mcp, "/token"), 0);
    house.nothing_stored(&mcp.url(), &["flow.issuer_mismatch"]).await;
}
