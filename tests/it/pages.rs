//! The pages as browsers get them: what they show, what they refuse, and what looking at them does not do.

use super::support::{Browser, FakeProvider, Gateway};

const UNKNOWN: &str = "/connect/flw_00000000000000000000000000";

async fn local() -> Gateway {
    Gateway::with(&FakeProvider::start(Vec::new()).await).await
}

async fn public() -> Gateway {
    let provider = FakeProvider::start(Vec::new()).await;
    Gateway::without_sign_in(&provider, |settings| {
        settings.public_url = Some("https://tools.example.com".into())
    })
    .await
}

#[tokio::test]
async fn a_link_that_is_not_known_says_what_to_do() {
    for gateway in [local().await, public().await] {
        let mut anna = Browser::new(&gateway.client);
        for path in [UNKNOWN, "/connect/x", "/connect/%2e%2e%2faccount", "/connect/flw_0000000000%00"] {
            let page = anna.visit(path).await;
            assert_eq!(
                (page.status, page.header("content-type")),
                (404, Some("text/html; charset=utf-8")),
                "{path}"
            );
            assert!(page.text().contains("it shows a new link"), "{path}");
            assert!(page.header("content-security-policy").unwrap().contains("frame-ancestors 'none'"));
        }
        let head = anna.send("HEAD", UNKNOWN, &[], "").await;
        assert_eq!((head.status, head.body.len()), (404, 0));
    }
}

#[tokio::test]
async fn at_ones_own_machine_nobody_signs_in() {
    let gateway = local().await;
    let mut anna = Browser::new(&gateway.client);
    let account = anna.visit("/account").await;
    assert_eq!(account.status, 200);
    assert!(account.text().contains("nobody signs in") && !account.text().contains("Sign out"));
    assert!(anna.visit("/connections").await.text().contains("You have connected no servers yet"));
    assert_eq!(anna.visit("/login?return_to=/connections").await.header("location"), Some("/connections"));
    let cookie = anna.cookies.keys().next().unwrap();
    assert_eq!(*cookie, format!("toolgate-{}-browser", gateway.address.port()), "no prefix that needs https");
}

#[tokio::test]
async fn elsewhere_ones_things_need_a_sign_in() {
    let gateway = public().await;
    let mut anna = Browser::new(&gateway.client);
    for path in ["/account", "/connections"] {
        assert_eq!(
            anna.visit(path).await.header("location"),
            Some(format!("/login?return_to={path}").as_str())
        );
    }
    assert!(anna.visit("/login").await.text().contains("this gateway has no sign-in provider"));
    assert!(anna.cookie("browser").is_some());
}

#[tokio::test]
async fn in_local_mode_pages_elsewhere_can_link_to_ours_and_nothing_more() {
    let gateway = local().await;
    let client = &gateway.client;
    let status = async |method: &str, path: &str, headers: &[(&str, &str)]| {
        client.send(method, path, headers, "").await.status().as_u16()
    };
    let cross = ("sec-fetch-site", "cross-site");
    let visit = [cross, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
    assert_eq!(status("GET", UNKNOWN, &visit).await, 404, "it gets to the page");
    assert_eq!(status("GET", "/connections", &visit).await, 200);
    assert_eq!(status("GET", "/v1/models", &visit).await, 403);
    assert_eq!(
        status("GET", UNKNOWN, &[cross, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")]).await,
        403
    );
    assert_eq!(status("GET", UNKNOWN, &[cross, ("sec-fetch-mode", "no-cors")]).await, 403);
    for path in [UNKNOWN, "/logout", "/connections/con_1/disconnect", "/connections/con_1/scopes"] {
        assert_eq!(status("POST", path, &visit).await, 403, "{path}");
        assert_eq!(status("POST", path, &[("origin", "https://evil.example")]).await, 403, "{path}");
        assert_eq!(
            status("POST", path, &[("sec-fetch-site", "same-origin")]).await,
            403,
            "{path} without a token"
        );
        assert_eq!(status("POST", path, &[]).await, 403, "{path} from no page at all");
    }
}

#[tokio::test]
async fn a_way_back_that_nobody_left_for_connects_nothing() {
    let gateway = local().await;
    let mut anna = Browser::new(&gateway.client);
    for query in [
        "",
        "?code=x&state=y",
        "?state=y&state=z&code=x",
        "?error=access_denied&error_description=%3Cscript%3E&state=y",
    ] {
        let page = anna.visit(&format!("/oauth/callback{query}")).await;
        assert!((400..500).contains(&page.status), "{query}: {}", page.status);
        assert!(!page.text().contains("script") && !page.text().contains("authorised"), "{query}");
    }
}

/// As [`public`], with five pages in a minute for an address, and so one for a link, and one sign-in.
async fn busy() -> Gateway {
    let provider = FakeProvider::start(Vec::new()).await;
    Gateway::configured(&provider, |settings| {
        settings.public_url = Some("https://tools.example.com".into());
        settings.rate_limit.pages_per_minute = 5;
    })
    .await
}

#[tokio::test]
async fn who_opens_pages_too_often_is_told_when_to_try_again() {
    let gateway = busy().await;
    let mut anna = Browser::new(&gateway.client);
    // The last entry is the proxy's own; those before it are what the client made up.
    let from = |address: &'static str| [("x-forwarded-for", address)];
    for made_up in
        ["203.0.113.7", "10.0.0.1, 203.0.113.7", "x,203.0.113.7", "::1 , 203.0.113.7", "203.0.113.7"]
    {
        assert_eq!(anna.send("GET", "/account", &from(made_up), "").await.status, 303, "{made_up}");
    }
    let refused = anna.send("GET", "/connections", &from("198.51.100.9, 203.0.113.7"), "").await;
    assert_eq!((refused.status, refused.header("set-cookie")), (429, None));
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=12).contains(&seconds), "{seconds}");
    assert!(refused.text().contains(&format!("Try again in {seconds} second")), "{}", refused.text());
    assert!(refused.header("content-security-policy").is_some());
    assert_eq!(anna.send("HEAD", "/login", &from("203.0.113.7"), "").await.status, 429);
    assert_eq!(anna.send("GET", "/oauth/callback?state=x", &from("203.0.113.7"), "").await.status, 429);
    // What a page loads, what authorization servers read, and other people are not affected.
    for path in ["/static/style.css", "/oauth/client-metadata.json"] {
        assert_eq!(anna.send("GET", path, &from("203.0.113.7"), "").await.status, 200, "{path}");
    }
    assert_eq!(anna.send("GET", "/account", &from("203.0.113.8"), "").await.status, 303);
}

#[tokio::test]
async fn a_link_is_opened_so_often_and_a_sign_in_begun_so_often_only() {
    let gateway = busy().await;
    let mut anna = Browser::new(&gateway.client);
    let link = "/connect/flw_00000000000000000000000001";
    assert_eq!(anna.send("GET", link, &[("x-forwarded-for", "203.0.113.1")], "").await.status, 404);
    for (method, path) in [
        ("GET", link.to_owned()),
        ("POST", format!("{link}/account")),
        ("GET", format!("{link}?next")),
        ("GET", link.replace("flw", "%66l%77")),
        ("POST", format!("{}%31/account", &link[..link.len() - 1])),
    ] {
        let refused = anna.send(method, &path, &[("x-forwarded-for", "203.0.113.2")], "").await;
        assert_eq!(refused.status, 429, "{method} {path}, whoever asks");
        assert!(refused.text().contains("This link was opened too often"));
    }
    let other = "/connect/flw_00000000000000000000000002";
    assert_eq!(anna.send("GET", other, &[("x-forwarded-for", "203.0.113.4")], "").await.status, 404);
    let begin = [("x-forwarded-for", "203.0.113.3")];
    assert_eq!(anna.send("POST", "/login/company", &begin, "").await.status, 403, "no token");
    let refused = anna.send("POST", "/login/company", &begin, "").await;
    assert_eq!(refused.status, 429);
    assert!(refused.text().contains("Too many sign-ins were begun from your network"));
    assert_eq!(anna.send("GET", "/login", &begin, "").await.status, 200, "other pages are there");
}

#[tokio::test]
async fn at_ones_own_machine_pages_are_not_counted() {
    let provider = FakeProvider::start(Vec::new()).await;
    let gateway = Gateway::configured(&provider, |settings| settings.rate_limit.pages_per_minute = 1).await;
    let mut anna = Browser::new(&gateway.client);
    for _ in 0..5 {
        assert_eq!(anna.visit("/account").await.status, 200);
    }
}
