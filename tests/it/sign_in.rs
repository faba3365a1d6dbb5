//! Signing in at the gateway: the way there and back, and every attack on it that we know.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use toolgate::config::{ApiKey, EgressAllow, Settings, SignInOauth2};
use toolgate::crypto::ApiKeyHash;

use super::support::issuer::{Issuer, PUBLIC, entry, leave, query_of, sign_in};
use super::support::{
    Browser, FakeProvider, FakeTool, Gateway, Place, Protected, ask, fields_of, text, whole,
};

/// Headers of a request that a page of the gateway makes.
const OURS: [(&str, &str); 2] = [("sec-fetch-site", "same-origin"), ("content-type", "application/json")];

async fn gateway(change: impl FnOnce(&mut Settings)) -> Gateway {
    let provider = FakeProvider::start(Vec::new()).await;
    Gateway::configured(&provider, |settings| {
        settings.public_url = Some(PUBLIC.into());
        change(settings);
    })
    .await
}

async fn with_issuer(issuer: &Issuer) -> Gateway {
    let entry = entry("company", issuer);
    gateway(|settings| settings.sign_in = vec![entry]).await
}

fn browser(gateway: &Gateway) -> Browser {
    Browser::new(&gateway.client)
}

async fn is_signed_in(browser: &mut Browser) -> bool {
    browser.visit("/account").await.status == 200
}

#[tokio::test]
async fn a_person_signs_in_sees_their_ids_and_signs_out() {
    let issuer = Issuer::start(false).await;
    let gateway = with_issuer(&issuer).await;
    let mut anna = browser(&gateway);
    assert_eq!(anna.visit("/account").await.header("location"), Some("/login?return_to=/account"));
    let address = leave(&mut anna, "company", "/connections").await;
    let asked = query_of(&address);
    assert_eq!(asked["redirect_uri"], format!("{PUBLIC}/login/company/callback"));
    assert_eq!(
        (asked["code_challenge_method"].as_str(), asked["scope"].as_str()),
        ("S256", "openid profile email")
    );
    let back = anna.visit(&issuer.agree(&address, "anna", &json!({}))).await;
    assert_eq!((back.status, back.header("location")), (303, Some("/connections")));
    let cookie = back.headers.get_all("set-cookie").iter().next_back().unwrap().to_str().unwrap().to_owned();
    assert!(
        cookie.starts_with("__Host-toolgate-session=tgs_")
            && cookie.ends_with("; Path=/; Max-Age=34560000; HttpOnly; SameSite=Lax; Secure"),
        "{cookie}"
    );
    let token = issuer.peer.requests().into_iter().find(|request| request.path == "/token").unwrap();
    let verifier: BTreeMap<_, _> = url::form_urlencoded::parse(&token.body).into_owned().collect();
    let challenge = URL_SAFE_NO_PAD.encode(toolgate::crypto::sha256(verifier["code_verifier"].as_bytes()));
    assert_eq!(challenge, asked["code_challenge"]);
    assert!(token.header("authorization").unwrap().starts_with("Basic "));
    let account = anna.visit("/account").await.text();
    assert!(
        account.contains("company:anna")
            && account.contains("<code>acct_")
            && account.contains("this browser")
    );
    let page = anna.visit("/account").await;
    let out = anna.submit(&page, "/logout", &[]).await;
    assert!(out.text().contains("You are signed out"));
    assert_eq!(anna.cookie("session"), None);
    assert!(!is_signed_in(&mut anna).await);
}

#[tokio::test]
async fn an_ended_session_is_over_even_for_who_kept_the_cookie() {
    let issuer = Issuer::start(false).await;
    let gateway = with_issuer(&issuer).await;
    let (mut laptop, mut phone) = (browser(&gateway), browser(&gateway));
    sign_in(&mut laptop, &issuer, "anna").await;
    sign_in(&mut phone, &issuer, "anna").await;
    let mut thief = phone.clone();
    assert!(is_signed_in(&mut thief).await);
    let page = laptop.visit("/account").await;
    assert_eq!(page.text().matches("last used").count(), 2);
    let html = page.text();
    let path = html
        .split("action=\"")
        .filter_map(|rest| rest.split('"').next())
        .find(|path| path.starts_with("/account/sessions/"))
        .unwrap();
    laptop.submit(&page, path, &[]).await;
    assert!(!is_signed_in(&mut thief).await && is_signed_in(&mut laptop).await);
    sign_in(&mut phone, &issuer, "anna").await;
    let page = laptop.visit("/account").await;
    let out = laptop.submit(&page, "/account/sign-out-everywhere", &[]).await;
    assert!(out.text().contains("2 sessions were ended"), "{}", out.text());
    assert!(!is_signed_in(&mut phone).await && !is_signed_in(&mut laptop).await);
}

#[tokio::test]
async fn signing_in_makes_a_new_session_and_ends_the_one_before() {
    let issuer = Issuer::start(false).await;
    let gateway = with_issuer(&issuer).await;
    let mut shared = browser(&gateway);
    sign_in(&mut shared, &issuer, "anna").await;
    let before = shared.clone();
    sign_in(&mut shared, &issuer, "bob").await;
    assert_ne!(before.cookie("session"), shared.cookie("session"));
    assert!(!is_signed_in(&mut before.clone()).await, "the session before is over");
    assert!(shared.visit("/account").await.text().contains("company:bob"));
    // A cookie that an attacker chose is not taken over.
    let mut fixed = browser(&gateway);
    let chosen = format!("tgs_{}", "a".repeat(52));
    fixed.cookies.insert("__Host-toolgate-session".into(), chosen.clone());
    sign_in(&mut fixed, &issuer, "anna").await;
    assert_ne!(fixed.cookie("session"), Some(chosen.as_str()));
}

#[tokio::test]
async fn the_same_person_is_the_same_account_and_another_issuer_is_another_person() {
    let (one, other) = (Issuer::start(false).await, Issuer::start(false).await);
    let entries = vec![entry("company", &one), entry("partner", &other)];
    let gateway = gateway(|settings| settings.sign_in = entries).await;
    let account =
        |html: String| html.split("<code>").find(|part| part.starts_with("acct_")).unwrap()[..31].to_owned();
    let mut first = browser(&gateway);
    sign_in(&mut first, &one, "anna").await;
    let mut second = browser(&gateway);
    sign_in(&mut second, &one, "anna").await;
    let mut third = browser(&gateway);
    let address = leave(&mut third, "partner", "/account").await;
    third.visit(&other.agree(&address, "anna", &json!({}))).await;
    let ids = [
        account(first.visit("/account").await.text()),
        account(second.visit("/account").await.text()),
        account(third.visit("/account").await.text()),
    ];
    assert_eq!(ids[0], ids[1]);
    assert_ne!(ids[0], ids[2]);
}

#[tokio::test]
async fn a_sign_in_begun_by_somebody_else_cannot_be_finished_here() {
    let issuer = Issuer::start(true).await;
    let gateway = with_issuer(&issuer).await;
    let (mut attacker, mut victim) = (browser(&gateway), browser(&gateway));
    let address = leave(&mut attacker, "company", "/account").await;
    let callback = format!("{}&iss={}", issuer.agree(&address, "attacker", &json!({})), issuer.url());
    // Login CSRF: the attacker's way back, opened by the victim, would sign the victim in as the attacker.
    assert_eq!(victim.visit(&callback).await.status, 400);
    let own = leave(&mut victim, "company", "/account").await;
    assert_eq!(victim.visit(&callback).await.status, 400, "also with a cookie and a sign-in of their own");
    // The attacker's code under the victim's state: PKCE's verifier and the nonce belong to the victim's attempt.
    let code = query_of(&format!("{PUBLIC}{callback}"))["code"].clone();
    let injected =
        format!("/login/company/callback?code={code}&state={}&iss={}", query_of(&own)["state"], issuer.url());
    assert_eq!(victim.visit(&injected).await.status, 502, "the ID token's nonce is of another sign-in");
    assert!(!is_signed_in(&mut victim).await);
}

#[tokio::test]
async fn a_way_back_works_once_and_only_as_it_was_given() {
    let issuer = Issuer::start(true).await;
    let gateway = with_issuer(&issuer).await;
    let mut anna = browser(&gateway);
    let address = leave(&mut anna, "company", "/account").await;
    let callback = format!("{}&iss={}", issuer.agree(&address, "anna", &json!({})), issuer.url());
    for forged in [
        "/login/company/callback".to_owned(),
        "/login/company/callback?code=x".to_owned(),
        "/login/company/callback?code=x&state=".to_owned(),
        callback.replace("state=", "state=x"),
        format!("{callback}&state=x"),
    ] {
        assert_eq!(anna.visit(&forged).await.status, 400, "{forged}");
    }
    for (method, headers) in [("HEAD", &[][..]), ("GET", &[("sec-purpose", "prefetch;prerender")])] {
        assert_eq!(anna.send(method, &callback, headers, "").await.status, 425, "{method} only looks at it");
    }
    assert_eq!(anna.visit(&callback).await.status, 303);
    assert_eq!(anna.visit(&callback).await.status, 400, "replayed");
    let mut bare = browser(&gateway);
    assert_eq!(bare.visit(&callback).await.status, 400, "without a cookie");
}

#[tokio::test]
async fn an_answer_of_another_issuer_is_refused() {
    let (honest, evil) = (Issuer::start(true).await, Issuer::start(false).await);
    let entries = vec![entry("company", &honest), entry("evil", &evil)];
    let gateway = gateway(|settings| settings.sign_in = entries).await;
    let mut anna = browser(&gateway);
    let mut answer = async |path: &str| anna.visit(path).await.status;
    let mut other = browser(&gateway);
    // Without `iss`, or with another one.
    let address = leave(&mut other, "company", "/account").await;
    let callback = honest.agree(&address, "anna", &json!({}));
    assert_eq!(other.visit(&callback).await.status, 502, "iss is missing");
    let address = leave(&mut other, "company", "/account").await;
    let callback = honest.agree(&address, "anna", &json!({}));
    assert_eq!(other.visit(&format!("{callback}&iss={}", evil.url())).await.status, 502);
    // Mix-up: what began at one provider does not come back as another's.
    let address = leave(&mut other, "evil", "/account").await;
    let callback = evil.agree(&address, "anna", &json!({})).replace("/login/evil/", "/login/company/");
    assert_eq!(other.visit(&callback).await.status, 400);
    assert_eq!(answer("/account").await, 303);
    assert!(!is_signed_in(&mut other).await);
}

#[tokio::test]
async fn id_tokens_for_others_sign_nobody_in() {
    let issuer = Issuer::start(false).await;
    let gateway = with_issuer(&issuer).await;
    for change in [
        json!({ "aud": "another-client" }),
        json!({ "iss": "https://accounts.google.com" }),
        json!({ "exp": 1 }),
        json!({ "nonce": "x" }),
        json!({ "sub": "" }),
    ] {
        let mut anna = browser(&gateway);
        let address = leave(&mut anna, "company", "/account").await;
        let answer = anna.visit(&issuer.agree(&address, "anna", &change)).await;
        assert_eq!(answer.status, 502, "{change}");
        assert!(answer.text().contains("company gave no answer that can be trusted"));
        assert!(anna.cookie("session").is_none());
    }
}

#[tokio::test]
async fn only_verified_addresses_of_allowed_domains_are_let_in() {
    let issuer = Issuer::start(false).await;
    let mut entry = entry("company", &issuer);
    entry.allowed_domains = vec!["Example.com".into()];
    let gateway = gateway(|settings| settings.sign_in = vec![entry]).await;
    for (change, status) in [
        (json!({}), 303),
        (json!({ "email_verified": false }), 403),
        (json!({ "email": "anna@example.com.evil.example" }), 403),
        (json!({ "email": "anna@sub.example.com" }), 403),
        (json!({ "email": null }), 403),
    ] {
        let mut anna = browser(&gateway);
        let address = leave(&mut anna, "company", "/account").await;
        assert_eq!(anna.visit(&issuer.agree(&address, "anna", &change)).await.status, status, "{change}");
    }
}

#[tokio::test]
async fn providers_without_id_tokens_tell_who_it_is_by_their_api() {
    let issuer = Issuer::start(false).await;
    let entries = vec![entry("github", &issuer), entry("x", &issuer)];
    let gateway = gateway(|settings| settings.sign_in = entries).await;
    for (name, scope, id) in
        [("github", "read:user", "github:583231"), ("x", "users.read tweet.read", "x:2244994945")]
    {
        let mut person = browser(&gateway);
        let address = leave(&mut person, name, "/account").await;
        let asked = query_of(&address);
        assert_eq!(asked["scope"], scope);
        assert!(!asked.contains_key("nonce"));
        let back = person.visit(&issuer.agree(&address, "ignored", &json!({}))).await;
        assert_eq!(back.status, 303, "{}", back.text());
        assert!(person.visit("/account").await.text().contains(id), "{id}");
    }
}

#[tokio::test]
async fn a_provider_with_oauth_2_alone_is_read_as_the_operator_says() {
    let issuer = Issuer::start(false).await;
    let mut forum = entry("forum", &issuer);
    forum.oauth2 = Some(SignInOauth2 {
        authorization_endpoint: issuer.peer.url("/authorize?tenant=a"),
        token_endpoint: issuer.peer.url("/token"),
        user_endpoint: issuer.peer.url("/2/users/me"),
        scope: "identify".into(),
        subject: "data.id".into(),
        label: Some("data.username".into()),
    });
    let gateway = gateway(|settings| settings.sign_in = vec![forum]).await;
    let mut person = browser(&gateway);
    let address = leave(&mut person, "forum", "/account").await;
    let asked = query_of(&address);
    assert_eq!((asked["scope"].as_str(), asked["tenant"].as_str()), ("identify", "a"));
    assert!(!asked.contains_key("nonce") && asked.contains_key("code_challenge"));
    let back = issuer.agree(&address, "ignored", &json!({}));
    let mut stranger = browser(&gateway);
    assert_eq!(stranger.visit(&back).await.status, 400, "begun in another browser");
    assert_eq!(person.visit(&back).await.status, 303);
    let account = person.visit("/account").await.text();
    assert!(account.contains("forum:2244994945") && account.contains("dev"), "{account}");
}

#[tokio::test]
async fn nobody_is_sent_elsewhere_after_signing_in() {
    let issuer = Issuer::start(false).await;
    let gateway = with_issuer(&issuer).await;
    for target in
        ["https://evil.example", "//evil.example", "/%5Cevil.example", "/connect/..%2f..%2fevil", "/logout"]
    {
        let mut anna = browser(&gateway);
        let address = leave(&mut anna, "company", target).await;
        let back = anna.visit(&issuer.agree(&address, "anna", &json!({}))).await;
        assert_eq!(back.header("location"), Some("/account"), "{target}");
    }
}

#[tokio::test]
async fn forms_of_other_sites_are_refused() {
    let issuer = Issuer::start(false).await;
    let gateway = with_issuer(&issuer).await;
    let mut anna = browser(&gateway);
    sign_in(&mut anna, &issuer, "anna").await;
    let page = anna.visit("/account").await.text();
    let fields = fields_of(&page, "/account/sign-out-everywhere");
    assert_eq!(fields.len(), 1, "the token");
    for path in ["/logout", "/account/sign-out-everywhere", "/login/company"] {
        assert_eq!(anna.post_from("https://evil.example", path, &fields).await.status, 403, "{path}");
        assert_eq!(anna.post(path, &[]).await.status, 403, "{path} without a token");
        let mut stranger = browser(&gateway);
        stranger.visit("/login").await;
        assert_eq!(stranger.post(path, &fields).await.status, 403, "{path} with another browser's token");
    }
    assert!(is_signed_in(&mut anna).await);
}

#[tokio::test]
async fn every_page_is_kept_from_frames_caches_and_foreign_content() {
    let issuer = Issuer::start(false).await;
    let gateway = with_issuer(&issuer).await;
    for path in ["/login", "/account"] {
        let answer = browser(&gateway).visit(path).await;
        for (name, value) in [
            (
                "content-security-policy",
                "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
            ),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("cross-origin-opener-policy", "same-origin"),
            ("strict-transport-security", "max-age=31536000"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path}");
        }
    }
    let style = gateway.client.get("/static/style.css").await;
    assert_eq!((style.status, style.header("content-type")), (200, Some("text/css; charset=utf-8")));
}

#[tokio::test]
async fn a_provider_that_is_down_or_says_no_is_named() {
    let issuer = Issuer::start(false).await;
    let mut gone = entry("gone", &issuer);
    gone.issuer = Some("http://127.0.0.1:9".into());
    let mut elsewhere = entry("elsewhere", &issuer);
    elsewhere.issuer = Some(format!("{}/", issuer.url()));
    let entries = vec![entry("company", &issuer), gone, elsewhere];
    let gateway = gateway(|settings| settings.sign_in = entries).await;
    let mut anna = browser(&gateway);
    let page = anna.visit("/login").await;
    for name in ["gone", "elsewhere"] {
        let answer = anna.submit(&page, &format!("/login/{name}"), &[]).await;
        assert_eq!(answer.status, 502, "{}", answer.text());
        assert!(answer.text().contains(name));
    }
    let address = leave(&mut anna, "company", "/account").await;
    let state = &query_of(&address)["state"];
    let denied = format!(
        "/login/company/callback?error=access_denied&error_description=%3Cb%3Ecall+0900%3C/b%3E&state={state}"
    );
    let answer = anna.visit(&denied).await;
    assert_eq!(answer.status, 403);
    assert!(!answer.text().contains("0900"), "the provider's own text is not shown");
    assert_eq!(anna.visit("/login/nobody/callback").await.status, 404);
}

#[tokio::test]
async fn a_signed_in_browser_calls_as_its_person_from_our_pages_only() {
    let issuer = Issuer::start(false).await;
    let entries = vec![entry("company", &issuer)];
    let ask = ask(&[]).to_string();
    for may in [false, true] {
        let provider = FakeProvider::start(vec![text("hello")]).await;
        let entries = entries.clone();
        let gateway = Gateway::configured(&provider, |settings| {
            settings.public_url = Some(PUBLIC.into());
            settings.sign_in = entries;
            settings.sign_in_may_complete = may;
        })
        .await;
        let mut anna = browser(&gateway);
        sign_in(&mut anna, &issuer, "anna").await;
        let answer = anna.send("POST", "/v1/chat/completions", &OURS, &ask).await;
        assert_eq!(answer.status, if may { 200 } else { 403 }, "{}", answer.text());
        for site in ["cross-site", "same-site", "none"] {
            let headers = [("sec-fetch-site", site), ("content-type", "application/json")];
            let answer = anna.send("POST", "/v1/chat/completions", &headers, &ask).await;
            assert_eq!(answer.status, 401, "{site}");
        }
        let without = anna.send("POST", "/v1/chat/completions", &OURS[1..], &ask).await;
        assert_eq!(without.status, 401, "no browser said where it is from");
        let key = [OURS[0], OURS[1], ("authorization", "Bearer tgk_unknown0123456789abcdef")];
        assert_eq!(
            anna.send("POST", "/v1/chat/completions", &key, &ask).await.status,
            401,
            "a key is taken by its word"
        );
        assert_eq!(provider.peer.requests().len(), usize::from(may));
    }
}

#[tokio::test]
async fn a_wrong_person_is_written_down_when_they_open_the_link_not_when_something_looks_at_it() {
    const KEY: &str = "tgk_0123456789abcdefghjkmnpq";
    let issuer = Issuer::start(false).await;
    let (mcp, place) = (Protected::start(vec![FakeTool::echo("t")]).await, Place::new().await);
    let entry = entry("company", &issuer);
    let gateway = gateway(|settings| {
        place.give_to(settings);
        settings.sign_in = vec![entry];
        let loopback = "127.0.0.0/8".parse().unwrap();
        settings.egress.allow.push(EgressAllow { cidr: Some(loopback), ..EgressAllow::default() });
        settings.api_keys.push(ApiKey {
            name: "desk".into(),
            project: None,
            hash: ApiKeyHash::of(KEY).to_string(),
            requests_per_minute: None,
            scopes: None,
        });
    })
    .await;
    let bearer = format!("Bearer {KEY}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let wanted = json!({ "user": "company:ann", "server_url": mcp.url() }).to_string();
    let started = whole(gateway.client.send("POST", "/v1/connections", &headers, wanted).await).await;
    let link = started.json()["connect_url"].as_str().unwrap().strip_prefix(PUBLIC).unwrap().to_owned();
    let mismatches = async || {
        let store = place.store().await;
        let rows = store.list_audit(None, 100).await.unwrap();
        store.close().await;
        rows.iter().filter(|row| row.event == "flow.user_mismatch").count()
    };
    let mut victim = browser(&gateway);
    sign_in(&mut victim, &issuer, "victim").await;
    for (method, headers) in [("HEAD", &[][..]), ("GET", &[("sec-purpose", "prefetch")])] {
        assert_eq!(victim.send(method, &link, headers, "").await.status, 403, "{method}");
    }
    assert_eq!(mismatches().await, 0);
    let refused = victim.visit(&link).await;
    assert_eq!(refused.status, 403);
    assert!(refused.text().contains("This link is not for you"), "{}", refused.text());
    assert_eq!(mismatches().await, 1);
    let mut ann = browser(&gateway);
    sign_in(&mut ann, &issuer, "ann").await;
    assert!(ann.visit(&link).await.text().contains("Continue to"), "it is still ann's");
}
