//! Metadata made by an enemy.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use toolgate::config;
use toolgate::config::Secret;
use toolgate::egress::{Egress, Reach, system_lookup};
use toolgate::oauth::{
    Client, DiscoveryError, QuirkTable, Quirks, TokenError, Trace, discover, discover_issuer, refresh,
};

use super::{bare, egress, endpoint, find, paths, resource_of};
use crate::support::authorization_server::{
    AuthorizationServer, RESOURCE_METADATA, SERVER_METADATA, server_metadata,
};
use crate::support::{Gate, Peer, Piece, Reply};

fn unusable(error: &DiscoveryError) -> &str {
    match error {
        DiscoveryError::Unusable { reason, .. } => reason,
        DiscoveryError::NotOffered { .. } | DiscoveryError::Unreachable { .. } => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn a_document_about_another_resource_is_refused_and_no_authorization_server_is_asked() {
    for resource in [
        "https://bank.example/mcp",
        "{own}/other",
        "{own}/mc",
        "{own}/mcp/deeper",
        "{own}:1/mcp",
        "http://user@{own}/mcp",
        "mcp",
        "",
    ] {
        let server = AuthorizationServer::new().resource(json!({ "resource": resource })).start().await;
        let error = find(&server).await.unwrap_err();
        assert!(unusable(&error).contains("not this address"), "{resource}: {error}");
        assert_eq!(paths(&server), [RESOURCE_METADATA], "{resource}");
    }
}

#[tokio::test]
async fn an_issuer_is_compared_to_the_letter() {
    for issuer in
        ["https://bank.example", "{own}/path", "{own}//", "{own}?", "{own}#", "HTTP://localhost", ""]
    {
        let server = AuthorizationServer::new().server(json!({ "issuer": issuer })).start().await;
        let error = find(&server).await.unwrap_err();
        assert!(unusable(&error).contains("RFC 8414 §3.3"), "{issuer}: {error}");
    }
    // A slash counts behind a path.
    let mut document = server_metadata();
    document["issuer"] = json!("{own}/tenant/");
    let server = AuthorizationServer::new()
        .resource(json!({ "authorization_servers": ["{own}/tenant"] }))
        .json("/.well-known/oauth-authorization-server/tenant", 200, document)
        .start()
        .await;
    unusable(&find(&server).await.unwrap_err());
}

#[tokio::test]
async fn no_redirect_of_metadata_is_followed() {
    for path in [RESOURCE_METADATA, SERVER_METADATA] {
        let good = AuthorizationServer::new().start().await;
        let to = good.url(path);
        let server = AuthorizationServer::new()
            .on(path, move |_| Reply::with_headers(302, &[("location", &to)], ""))
            .start()
            .await;
        let found = find(&server).await;
        assert!(good.requests().is_empty(), "{path}");
        if path == SERVER_METADATA {
            assert!(unusable(&found.unwrap_err()).contains("redirects"));
        }
    }
}

#[tokio::test]
async fn addresses_that_must_not_be_called_or_opened_are_refused_wherever_they_stand() {
    let names = [
        "authorization_endpoint",
        "token_endpoint",
        "registration_endpoint",
        "revocation_endpoint",
        "userinfo_endpoint",
        "jwks_uri",
    ];
    let addresses = [
        "javascript:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "https://10.0.0.1/x",
        "https://169.254.169.254/latest",
        "https://[::ffff:10.0.0.1]/x",
        "http://plain.example/x",
        "https://user:pass@idp.example/x",
        "//idp.example/x",
        "https:idp.example",
        "https://idp.example\\@evil.example/",
        "",
    ];
    for name in names {
        for address in addresses {
            let server = AuthorizationServer::new().server(json!({ name: address })).start().await;
            let error = find(&server).await.unwrap_err();
            assert!(unusable(&error).contains(name), "{name} {address}: {error}");
        }
    }
}

#[tokio::test]
async fn authorization_servers_on_addresses_that_must_not_be_called_are_not_called() {
    for issuer in ["https://10.0.0.1", "https://169.254.169.254/x", "file:///etc", "http://plain.example"] {
        let server =
            AuthorizationServer::new().resource(json!({ "authorization_servers": [issuer] })).start().await;
        unusable(&find(&server).await.unwrap_err());
    }
}

#[tokio::test]
async fn a_name_that_points_inside_is_not_called_for_tokens_either() {
    let lookup: toolgate::egress::Lookup =
        Arc::new(|_, port| Box::pin(async move { Ok(vec![([10, 0, 0, 1], port).into()]) }));
    let egress = Egress::new(&config::Egress::default(), true, lookup).unwrap();
    let (client, quirks) = (Client::public("c"), Quirks::default());
    let error =
        refresh(&egress, &endpoint("https://idp.example/token", &client, &quirks), &Secret::new("r")).await;
    assert!(matches!(error, Err(TokenError::Address(_))), "{error:?}");
}

#[tokio::test]
async fn outside_local_mode_this_machine_is_as_forbidden_as_any_inside() {
    let server = AuthorizationServer::new().start().await;
    let egress = Egress::new(&config::Egress::default(), false, system_lookup()).unwrap();
    let found =
        discover(&egress, &resource_of(&server), Some(&bare()), &QuirkTable::default(), &mut Trace::new())
            .await;
    assert!(found.is_err());
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_document_that_is_too_large_too_deep_or_twice_the_same_is_refused() {
    let padded = |padding: &str| {
        let document = server_metadata().to_string();
        format!("{},\"more\":{padding}}}", &document[..document.len() - 1])
    };
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let twice = format!("{},\"issuer\":\"https://evil.example\"}}", {
        let document = server_metadata().to_string();
        document[..document.len() - 1].to_owned()
    });
    for (body, reason) in [
        (padded(&format!("\"{}\"", "x".repeat(300 << 10))), "more than 256 KiB"),
        (twice, "another kind"),
        ("[]".to_owned(), "another kind"),
        ("<html>".to_owned(), "not JSON"),
        (String::new(), "not JSON"),
        (padded("1").replace("\"{own}/token\"", "[]"), "another kind"),
        (
            padded("1").replace("\"{own}/token\"", &format!("\"https://x.example/{}\"", "x".repeat(4000))),
            "too long",
        ),
    ] {
        let server =
            AuthorizationServer::new().text(SERVER_METADATA, 200, "application/json", &body).start().await;
        let error = find(&server).await.unwrap_err();
        assert!(unusable(&error).contains(reason), "{reason}: {error}");
    }
    // What is deep in a field nobody reads is skipped or refused, and breaks nothing.
    let server = AuthorizationServer::new()
        .text(SERVER_METADATA, 200, "application/json", &padded(&deep))
        .start()
        .await;
    let _ = find(&server).await;
}

#[tokio::test]
async fn a_server_that_takes_its_time_is_given_up() {
    let silent = AuthorizationServer::new().on(SERVER_METADATA, |_| Reply::Silence).start().await;
    let never = Gate::new();
    let dripping = AuthorizationServer::new()
        .on(SERVER_METADATA, move |_| {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{\"issuer\":";
            Reply::Raw(vec![head.into(), Piece::Wait(never.clone())])
        })
        .start()
        .await;
    let ask = |server: &Peer| {
        let url = server.url("");
        async move {
            let (egress, table, mut trace) = (egress(), QuirkTable::default(), Trace::new());
            let asked = discover_issuer(&egress, Reach::Requested, &url, &table, &mut trace);
            tokio::time::timeout(Duration::from_secs(15), asked).await.expect("it is given up")
        }
    };
    let (silent, dripping) = tokio::join!(ask(&silent), ask(&dripping));
    for error in [silent, dripping] {
        assert!(matches!(error, Err(DiscoveryError::Unreachable { .. })), "{error:?}");
    }
}

#[tokio::test]
async fn what_a_server_says_does_not_reach_people_unbounded() {
    let server = AuthorizationServer::new()
        .resource(json!({ "resource": format!("https://evil.example/\u{1b}[2J{}", "x".repeat(1500)) }))
        .start()
        .await;
    let error = find(&server).await.unwrap_err().to_string();
    assert!(error.len() < 500 && !error.contains('\u{1b}'), "{error}");
    let server = AuthorizationServer::new()
        .resource(json!({ "resource_name": format!("Files\n\u{202e}{}", "x".repeat(500)) }))
        .start()
        .await;
    let name = find(&server).await.unwrap().resource_name.unwrap();
    assert!(name.len() < 110 && !name.contains(['\n', '\u{202e}']), "{name}");
}
