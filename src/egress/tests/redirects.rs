//! Where a redirect may lead and what goes with it.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Method, StatusCode};

use super::super::{Error, Lookup, Reach, Refusal};
use super::peer::*;

fn redirect(status: u16, location: &str) -> String {
    format!("HTTP/1.1 {status} x\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")
}

const HEADERS: [(&str, &str); 9] = [
    ("authorization", "Bearer secret-1"),
    ("cookie", "secret-2"),
    ("x-api-key", "secret-3"),
    ("mcp-session-id", "secret-4"),
    ("proxy-authorization", "secret-5"),
    ("last-event-id", "secret-6"),
    ("content-type", "application/json"),
    ("accept", "text/event-stream"),
    ("mcp-protocol-version", "2025-06-18"),
];

#[tokio::test]
async fn another_origin_gets_the_body_but_no_secret() {
    let last = Peer::on("127.0.0.1", OK).await;
    let first = Peer::on("127.0.0.1", &redirect(307, &last.url("/next"))).await;
    let egress = egress(vec![], true, no_lookup());
    let sent = request(Method::POST, &first.url("/mcp"), &HEADERS, "{\"a\":1}");
    let (response, uri) = follow(&egress, Reach::Requested, sent).await.unwrap();
    assert_eq!((response.status(), uri.to_string()), (StatusCode::OK, last.url("/next")));
    assert!(first.requests()[0].contains("secret-1"));
    let seen = last.requests().remove(0);
    assert!(seen.starts_with("POST /next ") && seen.ends_with("{\"a\":1}"), "{seen}");
    assert!(seen.contains("application/json") && seen.contains("2025-06-18"), "{seen}");
    assert!(!seen.contains("secret"), "{seen}");
}

#[tokio::test]
async fn secrets_do_not_come_back_with_a_detour() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let detour = Peer::on("127.0.0.1", &redirect(307, &format!("http://127.0.0.1:{port}/end"))).await;
    let away = redirect(307, &detour.url("/"));
    let origin = Peer::start(([127, 0, 0, 1], port).into(), move |head| {
        if head.starts_with("POST /end") { OK.to_owned() } else { away.clone() }
    })
    .await;
    let sent = request(Method::POST, &origin.url("/start"), &HEADERS, "x");
    follow(&egress(vec![], true, no_lookup()), Reach::Requested, sent).await.unwrap();
    assert!(!origin.requests()[1].contains("secret"));
}

#[tokio::test]
async fn the_same_origin_gets_everything_again() {
    for status in [307, 308] {
        let away = redirect(status, "/mcp/");
        let peer = Peer::start(([127, 0, 0, 1], 0).into(), move |head| {
            if head.starts_with("POST /mcp/ ") { OK.to_owned() } else { away.clone() }
        })
        .await;
        let sent = request(Method::POST, &peer.url("/mcp"), &HEADERS, "x");
        let (response, uri) =
            follow(&egress(vec![], true, no_lookup()), Reach::Requested, sent).await.unwrap();
        assert_eq!((response.status(), uri.path()), (StatusCode::OK, "/mcp/"));
        assert!(peer.requests()[1].contains("secret-1") && peer.requests()[1].contains("secret-4"));
    }
}

#[tokio::test]
async fn a_credential_stays_within_what_it_is_for_and_does_not_come_back() {
    let peer = Peer::start(([127, 0, 0, 1], 0).into(), |head| {
        let path = head.split(' ').nth(1).unwrap_or_default();
        match path {
            "/mcp" => redirect(308, "/mcp/deeper"),
            "/mcp/deeper" => redirect(307, "/other"),
            "/other" => redirect(307, "/mcp/end"),
            _ => OK.to_owned(),
        }
    })
    .await;
    let sent = request(Method::POST, &peer.url("/mcp"), &HEADERS, "x");
    let egress = egress(vec![], true, no_lookup());
    let covered = |uri: &http::Uri| uri.path().starts_with("/mcp");
    let (_, uri) = follow_within(&egress, Reach::Requested, sent, &covered).await.unwrap();
    assert_eq!(uri.path(), "/mcp/end");
    let with_token: Vec<bool> =
        peer.requests().iter().map(|request| request.contains("Bearer secret-1")).collect();
    assert_eq!(with_token, [true, true, false, false]);
    assert!(peer.requests()[2].contains("secret-4"), "what is for the origin still is");
}

#[tokio::test]
async fn a_redirect_that_would_change_the_method_is_followed_for_reading_only() {
    for status in [301, 302, 303] {
        let away = redirect(status, "/there");
        let peer = Peer::start(([127, 0, 0, 1], 0).into(), move |head| {
            if head.contains(" /there ") { OK.to_owned() } else { away.clone() }
        })
        .await;
        let egress = egress(vec![], true, no_lookup());
        let (response, _) = follow(&egress, Reach::Requested, get(&peer.url("/"))).await.unwrap();
        assert_eq!(response.status(), 200);
        let posted = request(Method::POST, &peer.url("/"), &[], "x");
        let (response, _) = follow(&egress, Reach::Requested, posted).await.unwrap();
        assert_eq!(response.status(), status);
    }
}

#[tokio::test]
async fn send_follows_nothing() {
    let peer = Peer::on("127.0.0.1", &redirect(307, "/there")).await;
    let egress = egress(vec![], true, no_lookup());
    assert_eq!(send(&egress, Reach::Requested, &peer.url("/")).await.unwrap().status(), 307);
    assert_eq!(peer.requests().len(), 1);
}

#[tokio::test]
async fn a_loop_ends_after_the_allowed_number() {
    let peer = Peer::on("127.0.0.1", &redirect(308, "/")).await;
    let looping = follow(&egress(vec![], true, no_lookup()), Reach::Requested, get(&peer.url("/"))).await;
    assert_eq!(looping.unwrap_err().to_string(), "127.0.0.1 redirects too often");
    assert_eq!(peer.requests().len(), 4);
}

#[tokio::test]
async fn no_redirect_leads_to_a_forbidden_address() {
    let victim = Peer::on("127.0.0.1", OK).await;
    let port = victim.address.port();
    for (location, reach) in [
        (format!("http://127.0.0.1:{port}/"), Reach::Requested),
        (format!("http://127.0.0.1:{port}/"), Reach::Configured),
        (format!("//127.1:{port}/"), Reach::Requested),
        (format!("http://localhost:{port}/"), Reach::Configured),
        (format!("http://inside.test:{port}/"), Reach::Configured),
        (format!("http://user:pass@127.0.0.2:{port}/"), Reach::Requested),
        ("http://169.254.169.254/latest/meta-data/".into(), Reach::Configured),
        ("http://10.0.0.1/".into(), Reach::Requested),
        ("https://[::ffff:10.0.0.1]/".into(), Reach::Requested),
        ("file:///etc/passwd".into(), Reach::Configured),
        ("https://[".into(), Reach::Requested),
    ] {
        let first = Peer::on("127.0.0.2", &redirect(307, &location)).await;
        for local in [false, true] {
            let outside = first.address;
            let lookup: Lookup = Arc::new(move |host, port| {
                let inside = SocketAddr::from(([127, 0, 0, 1], port));
                Box::pin(async move { Ok(vec![if host == "outside.test" { outside } else { inside }]) })
            });
            let egress = egress(internet_is_127_0_0_2(), local, lookup);
            let start = format!("http://outside.test:{}/", outside.port());
            let stopped = follow(&egress, reach, get(&start)).await.expect_err(&location);
            assert!(matches!(stopped, Error::Refused(_) | Error::Redirect { .. }), "{location}: {stopped:?}");
        }
    }
    assert_eq!(victim.connections(), 0);
}

#[tokio::test]
async fn a_redirect_without_a_usable_place_says_so() {
    let nowhere = "HTTP/1.1 307 x\r\ncontent-length: 0\r\n\r\n";
    let peer = Peer::on("127.0.0.1", nowhere).await;
    let stopped = follow(&egress(vec![], true, no_lookup()), Reach::Requested, get(&peer.url("/"))).await;
    assert!(matches!(stopped, Err(Error::Redirect { .. })));
    let credentials = Peer::on("127.0.0.1", &redirect(307, "http://a:hunter2@127.0.0.1/")).await;
    let stopped =
        follow(&egress(vec![], true, no_lookup()), Reach::Requested, get(&credentials.url("/"))).await;
    assert!(matches!(stopped, Err(Error::Refused(Refusal::Credentials))));
}
