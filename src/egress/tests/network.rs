//! What reaches a listener and what must not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Method;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::super::connect::alternate_families;
use super::super::{Error, Reach, Refusal, full, streaming, system_lookup};
use super::peer::*;
use crate::config::EgressAllow;

/// A peer on the "public" address and one on loopback with the same port.
async fn outside_and_inside(answer: &'static str) -> (Peer, Peer) {
    let outside = Peer::on("127.0.0.2", answer).await;
    let inside = SocketAddr::from(([127, 0, 0, 1], outside.address.port()));
    let inside = Peer::start(inside, |_| OK.to_owned()).await;
    (outside, inside)
}

#[tokio::test]
async fn a_name_that_becomes_loopback_after_the_check_reaches_nothing() {
    let closing = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
    let (outside, inside) = outside_and_inside(closing).await;
    let port = outside.address.port();
    let (lookup, asked) = rebinding(&[&["127.0.0.2"], &["127.0.0.1"]], port);
    let egress = egress(internet_is_127_0_0_2(), false, lookup);
    let uri = format!("http://rebind.test:{port}/");
    egress.check(&uri.parse().unwrap()).unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 0, "the check resolves nothing, so nothing can change after it");
    assert_eq!(send_and_read(&egress, Reach::Requested, &uri).await.unwrap(), "ok");
    for _ in 0..5 {
        let refused = send(&egress, Reach::Requested, &uri).await.unwrap_err();
        assert!(matches!(refused, Error::Refused(Refusal::NotPublic { .. })), "{refused}");
        assert!(!refused.to_string().contains("127.0.0.1"), "{refused}");
    }
    assert_eq!((outside.connections(), inside.connections()), (1, 0));
}

#[tokio::test]
async fn a_pooled_connection_goes_on_to_the_address_it_was_checked_for() {
    let (outside, inside) = outside_and_inside(OK).await;
    let port = outside.address.port();
    let (lookup, _) = rebinding(&[&["127.0.0.2"], &["127.0.0.1"]], port);
    let egress = egress(internet_is_127_0_0_2(), false, lookup);
    let uri = format!("http://rebind.test:{port}/");
    for _ in 0..3 {
        // The pool may have begun a second connection; that one is refused and nobody waits for it.
        match send_and_read(&egress, Reach::Requested, &uri).await {
            Ok(body) => assert_eq!(body, "ok"),
            Err(refused) => assert!(matches!(refused, Error::Refused(_)), "{refused}"),
        }
    }
    assert_eq!((outside.connections(), inside.connections()), (1, 0));
}

#[tokio::test]
async fn a_redirect_to_a_name_that_became_loopback_reaches_nothing() {
    let back = "HTTP/1.1 307 x\r\nconnection: close\r\nlocation: /again\r\ncontent-length: 0\r\n\r\n";
    let (outside, inside) = outside_and_inside(back).await;
    let port = outside.address.port();
    let (lookup, _) = rebinding(&[&["127.0.0.2"], &["127.0.0.1"]], port);
    let egress = egress(internet_is_127_0_0_2(), false, lookup);
    let refused =
        follow(&egress, Reach::Requested, get(&format!("http://rebind.test:{port}/"))).await.unwrap_err();
    assert!(matches!(refused, Error::Refused(Refusal::NotPublic { .. })), "{refused}");
    assert_eq!((outside.connections(), inside.connections()), (1, 0));
}

#[tokio::test]
async fn one_forbidden_address_among_public_ones_refuses_them_all() {
    let (outside, inside) = outside_and_inside(OK).await;
    let port = outside.address.port();
    for order in [["127.0.0.2", "127.0.0.1"], ["127.0.0.1", "127.0.0.2"]] {
        let (lookup, _) = rebinding(&[&order], port);
        let egress = egress(internet_is_127_0_0_2(), false, lookup);
        let refused = send(&egress, Reach::Requested, &format!("http://mixed.test:{port}/")).await;
        assert!(matches!(refused, Err(Error::Refused(Refusal::NotPublic { .. }))));
    }
    let many = vec!["8.8.8.8"; 40].into_iter().chain(["10.0.0.1"]).collect::<Vec<_>>();
    let (lookup, _) = rebinding(&[&many], 443);
    let refused = send(&egress(vec![], false, lookup), Reach::Requested, "https://mixed.test/").await;
    assert!(matches!(refused, Err(Error::Refused(Refusal::NotPublic { .. }))));
    assert_eq!((outside.connections(), inside.connections()), (0, 0));
}

#[tokio::test]
async fn a_connection_the_operator_caused_never_serves_a_request() {
    let peer = Peer::on("127.0.0.1", OK).await;
    let (lookup, _) = rebinding(&[&["127.0.0.1"]], peer.address.port());
    let egress = egress(vec![], false, lookup);
    let named = format!("http://provider.test:{}/", peer.address.port());
    for uri in [peer.url("/"), named] {
        assert_eq!(send_and_read(&egress, Reach::Configured, &uri).await.unwrap(), "ok");
        assert!(matches!(send(&egress, Reach::Requested, &uri).await, Err(Error::Refused(_))));
    }
    assert_eq!(peer.requests().len(), 2);
}

#[tokio::test]
async fn in_local_mode_only_a_name_that_means_this_machine_reaches_it() {
    let peer = Peer::on("127.0.0.1", OK).await;
    let port = peer.address.port();
    let (lookup, _) = rebinding(&[&["127.0.0.1"]], port);
    let local = egress(vec![], true, lookup.clone());
    for open in ["127.0.0.1", "127.1", "0x7f.1", "localhost", "LOCALHOST.", "app.localhost"] {
        let body = send_and_read(&local, Reach::Requested, &format!("http://{open}:{port}/")).await;
        assert_eq!(body.unwrap(), "ok", "{open}");
    }
    let served = peer.requests().len();
    for closed in ["evil.test", "localhost.evil.test"] {
        assert!(send(&local, Reach::Requested, &format!("http://{closed}:{port}/")).await.is_err());
    }
    let (lookup, _) = rebinding(&[&["127.0.0.1"]], port);
    let refused = send(&egress(vec![], true, lookup), Reach::Requested, "https://evil.test/").await;
    assert!(matches!(refused, Err(Error::Refused(Refusal::NotPublic { .. }))));
    let (lookup, _) = rebinding(&[&["10.0.0.1"]], port);
    let refused = send(&egress(vec![], true, lookup), Reach::Requested, "http://localhost:3000/").await;
    assert!(matches!(refused, Err(Error::Refused(Refusal::NotPublic { .. }))));
    assert_eq!(peer.requests().len(), served);
}

#[tokio::test]
async fn rules_are_held_against_the_resolved_addresses() {
    let peer = Peer::on("127.0.0.1", OK).await;
    let port = peer.address.port();
    let rule = |host: &str, cidr: Option<&str>| {
        let cidr = cidr.map(|cidr| cidr.parse().unwrap());
        vec![EgressAllow { host: Some(host.to_owned()), cidr, ports: vec![port] }]
    };
    for (allow, name, open) in [
        (rule("*.corp.test", Some("127.0.0.0/8")), "mcp.corp.test", true),
        (rule("*.corp.test", Some("127.0.0.0/8")), "corp.test", false),
        (rule("*.corp.test", Some("10.0.0.0/8")), "mcp.corp.test", false),
        (rule("mcp.corp.test", None), "mcp.corp.test", false),
    ] {
        let (lookup, _) = rebinding(&[&["127.0.0.1"]], port);
        let sent =
            send(&egress(allow, false, lookup), Reach::Requested, &format!("http://{name}:{port}/")).await;
        assert_eq!(sent.is_ok(), open, "{name}: {sent:?}");
    }
}

#[tokio::test]
async fn the_host_header_is_the_address_that_was_checked() {
    let peer = Peer::on("127.0.0.1", OK).await;
    let port = peer.address.port();
    let egress = egress(vec![], true, no_lookup());
    let uri = format!("http://0x7F.1:{port}/mcp?a=b");
    let request = request(Method::POST, &uri, &[("host", "metadata.internal"), ("x-a", "b")], "hello");
    egress.send(Reach::Requested, request, PATIENCE).await.unwrap();
    let seen = peer.requests().remove(0);
    assert!(seen.starts_with("POST /mcp?a=b HTTP/1.1\r\n"), "{seen}");
    assert!(seen.contains(&format!("host: 127.0.0.1:{port}\r\n")), "{seen}");
    assert!(!seen.contains("metadata") && !seen.contains("accept-encoding"), "{seen}");
    assert!(seen.ends_with("\r\n\r\nhello"), "{seen}");
}

#[tokio::test]
async fn a_tunnel_cannot_be_asked_for() {
    let egress = egress(vec![], true, no_lookup());
    let tunnel = request(Method::CONNECT, "http://127.0.0.1:1/", &[], "");
    let refused = egress.send(Reach::Configured, tunnel, PATIENCE).await.unwrap_err();
    assert!(matches!(refused, Error::Refused(Refusal::Method(_))), "{refused}");
}

#[tokio::test]
async fn each_failure_says_what_happened_and_where() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_url = format!("http://{}/", silent.local_addr().unwrap());
    let talker = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rude = Peer::on("127.0.0.1", "connection: close").await;
    let huge = Peer::on("127.0.0.1", &format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\n", "a".repeat(300_000))).await;
    let missing: super::super::Lookup =
        Arc::new(|_, _| Box::pin(async { Err(std::io::Error::other("no such name")) }));
    let egress = egress(vec![], true, missing);
    let at = |uri: String, patience| {
        let egress = egress.clone();
        async move { egress.send(Reach::Configured, get(&uri), patience).await.unwrap_err() }
    };

    let refused = at(format!("http://{nobody}/"), PATIENCE).await;
    assert!(matches!(refused, Error::Connect { .. }), "{refused:?}");
    assert_eq!(refused.to_string(), "no connection to 127.0.0.1: nothing listens there (connection refused)");
    assert!(refused.is_before_sending());

    let missing = at("http://missing.test/".into(), PATIENCE).await;
    assert_eq!(missing.to_string(), "the name `missing.test` was not found");

    let late = at(silent_url, Duration::from_millis(100)).await;
    assert_eq!(late.to_string(), "127.0.0.1 did not answer within 0.1 s");
    assert!(!late.is_before_sending());

    let closed = at(rude.url("/"), PATIENCE).await;
    assert!(matches!(closed, Error::Closed { .. }), "{closed:?}");
    let too_large = at(huge.url("/"), PATIENCE).await;
    assert!(
        matches!(too_large, Error::Closed { .. }) && too_large.to_string().contains("too large"),
        "{too_large}"
    );

    let (plain, _) =
        tokio::join!(at(format!("https://{}/", talker.local_addr().unwrap()), PATIENCE), async {
            talker.accept().await.unwrap().0.write_all(b"220 mail.test ready\r\n").await.unwrap();
        });
    assert_eq!(plain.to_string(), "no secure connection to 127.0.0.1: it does not speak TLS on this port");
}

#[tokio::test]
async fn a_name_that_is_never_resolved_ends_at_the_connect_timeout() {
    let lookup: super::super::Lookup = Arc::new(|_, _| Box::pin(std::future::pending()));
    let settings = crate::config::Egress { connect_seconds: 0, ..crate::config::Egress::default() };
    let egress = super::super::Egress::new(&settings, false, lookup).unwrap();
    let late = send(&egress, Reach::Requested, "https://slow.test/").await.unwrap_err();
    assert!(matches!(late, Error::Connect { .. }), "{late:?}");
}

#[tokio::test]
async fn an_address_that_does_not_answer_does_not_hold_up_the_next() {
    let peer = Peer::on("127.0.0.1", OK).await;
    let (lookup, _) = rebinding(&[&["127.0.0.3", "::1", "127.0.0.1"]], peer.address.port());
    let body = send_and_read(&egress(vec![], false, lookup), Reach::Configured, "http://many.test/").await;
    assert_eq!(body.unwrap(), "ok");
}

#[test]
fn the_families_take_turns() {
    let addresses = |texts: &[&str]| -> Vec<SocketAddr> {
        texts.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 1)).collect()
    };
    for (given, ordered) in [
        (&["::1", "::2", "::3", "1.1.1.1", "1.1.1.2"][..], &["::1", "1.1.1.1", "::2", "1.1.1.2", "::3"][..]),
        (&["1.1.1.1", "::1", "::2"], &["1.1.1.1", "::1", "::2"]),
        (&["1.1.1.1"], &["1.1.1.1"]),
        (&[], &[]),
    ] {
        assert_eq!(alternate_families(&addresses(given)), addresses(ordered));
    }
    assert_eq!(alternate_families(&addresses(&["1.1.1.1"; 50])).len(), 8);
}

#[tokio::test]
async fn the_system_resolver_knows_localhost() {
    let found = system_lookup()("localhost".to_owned(), 7).await.unwrap();
    assert!(!found.is_empty() && found.iter().all(|a| a.ip().is_loopback() && a.port() == 7), "{found:?}");
}

#[tokio::test]
async fn bodies_in_memory_carry_their_length_and_streams_do_not_need_one() {
    let peer = Peer::on("127.0.0.1", OK).await;
    let egress = egress(vec![], false, no_lookup());
    for body in [full("12345"), full(""), streaming(full("12345"))] {
        let mut request = request(Method::POST, &peer.url("/"), &[], "");
        *request.body_mut() = body;
        egress.send(Reach::Configured, request, PATIENCE).await.unwrap();
    }
    let seen = peer.requests();
    assert!(seen[0].contains("content-length: 5\r\n") && seen[0].ends_with("12345"), "{}", seen[0]);
    assert!(!seen[1].contains("content-length: 5"), "{}", seen[1]);
}
