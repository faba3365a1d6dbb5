//! Somebody who signed in before `allowed_domains` was narrowed, and is outside of it now.

use serde_json::json;
use toolgate::config::{EgressAllow, Settings};

use super::stale_pages::log_in;
use crate::runs::outside::{SHOP, as_key};
use crate::runs::pages::{in_two, live, start};
use crate::runs::pages_of_people::{gateway_with, person, shop_key};
use crate::support::issuer::{Issuer, PUBLIC, entry, leave};
use crate::support::{
    Answer, Browser, FakeProvider, FakeTool, Gate, Gateway, Place, Protected, ask, calls, settings, text,
    with,
};

const OURS: [(&str, &str); 1] = [("sec-fetch-site", "same-origin")];

async fn gateway(provider: &FakeProvider, issuer: &Issuer, place: &Place, domains: &[&str]) -> Gateway {
    let mut chosen: Settings = settings(provider);
    chosen.public_url = Some(PUBLIC.into());
    chosen.api_keys.push(shop_key());
    let mut company = entry("company", issuer);
    company.allowed_domains = domains.iter().map(|domain| (*domain).to_owned()).collect();
    chosen.sign_in = vec![company];
    let loopback = "127.0.0.0/8".parse().unwrap();
    chosen.egress.allow.push(EgressAllow { cidr: Some(loopback), ..EgressAllow::default() });
    place.give_to(&mut chosen);
    Gateway::start(chosen, toolgate::egress::system_lookup()).await
}

/// Signs somebody in whose verified address is in this domain.
async fn sign_in(gateway: &Gateway, issuer: &Issuer, name: &str, domain: &str) -> Browser {
    let mut browser = Browser::new(&gateway.client);
    let address = leave(&mut browser, "company", "/account").await;
    let email = json!({ "email": format!("{name}@{domain}") });
    browser.visit(&issuer.agree(&address, name, &email)).await;
    browser
}

async fn is_in(browser: &mut Browser) -> bool {
    let page = browser.visit("/account").await.status == 200;
    let api = browser.send("GET", "/v1/connections", &OURS, "").await.status == 200;
    assert_eq!(page, api);
    page
}

async fn chat(gateway: &Gateway, mcp: &Protected, user: &str) -> Answer {
    let headers = as_key(SHOP);
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let body = with(ask(&[mcp.entry("s")]), json!({ "user": user }));
    gateway.client.post("/v1/chat/completions", &headers, &body).await
}

#[tokio::test]
async fn who_is_outside_a_narrowed_domain_is_out_at_once_with_their_logins_and_at_every_instance() {
    let provider = FakeProvider::answering(|request| {
        let said = request.json()["messages"].as_array().unwrap().len();
        if said == 1 { calls(&[("call_1", "s_t", json!({}))]) } else { text("done") }
    })
    .await;
    let (issuer, place) = (Issuer::start(false).await, Place::new().await);
    let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
    let before = gateway(&provider, &issuer, &place, &[]).await;
    let mut anna = sign_in(&before, &issuer, "anna", "example.com").await;
    let mut eve = sign_in(&before, &issuer, "eve", "evil.example").await;
    for (name, browser) in [("anna", &mut anna), ("eve", &mut eve)] {
        assert!(is_in(browser).await, "{name}");
        let user = format!("company:{name}");
        let missing = chat(&before, &mcp, &user).await;
        log_in(browser, &missing, &mcp).await;
        assert!(chat(&before, &mcp, &user).await.content().ends_with("done"), "{name}");
    }
    // The instance with the old settings stays, where there can be several.
    let before = if place.is_shared() {
        Some(before)
    } else {
        before.stop().await;
        None
    };
    let after = gateway(&provider, &issuer, &place, &["example.com"]).await;
    let at = |browser: &Browser| {
        let mut same = Browser::new(&after.client);
        same.cookies.clone_from(&browser.cookies);
        same
    };
    assert!(is_in(&mut at(&anna)).await && !is_in(&mut at(&eve)).await);
    let before_calls = mcp.callers().len();
    let refused = chat(&after, &mcp, "company:eve").await;
    assert!(!refused.content().ends_with("done"), "{}", refused.text());
    assert_eq!(mcp.callers().len(), before_calls, "nobody uses her login");
    assert!(chat(&after, &mcp, "company:anna").await.content().ends_with("done"));
    if before.is_some() {
        assert!(!is_in(&mut eve).await && is_in(&mut anna).await, "at the other instance, too");
    }
    let mut again = Browser::new(&after.client);
    let address = leave(&mut again, "company", "/account").await;
    let answer = again.visit(&issuer.agree(&address, "eve", &json!({ "email": "eve@evil.example" }))).await;
    assert_eq!(answer.status, 403, "{}", answer.text());
}

#[tokio::test]
async fn an_open_page_ends_with_the_session_of_who_reads_it() {
    let (issuer, gate) = (Issuer::start(false).await, Gate::new());
    let provider = FakeProvider::start(vec![in_two("so far", "secret", &gate)]).await;
    let gateway = gateway_with(&provider, &issuer, |_| {}).await;
    let mut anna = person(&gateway, &issuer, "anna").await;
    let path = start(&mut anna, &[("servers", "")]).await;
    let page = anna.visit(&path).await;
    anna.submit(&page, &format!("{path}/share"), &[("visibility", "private")]).await;
    let mut open = live(&anna, &path).await;
    open.until(|message| message["elements"].to_string().contains("so far")).await;
    let mut elsewhere = person(&gateway, &issuer, "anna").await;
    let account = elsewhere.visit("/account").await;
    let ended = elsewhere.submit(&account, "/account/sign-out-everywhere", &[]).await;
    assert_eq!(ended.status, 200, "{}", ended.text());
    assert!(open.next().await.is_none(), "the page hears no more");
    gate.open();
    assert_eq!(anna.visit(&path).await.status, 404);
}
