//! From an address to a login, in the order of the specification.

use serde_json::json;
use toolgate::oauth::{Challenge, DiscoveryError, QuirkTable};

use super::{bare, find, find_with, paths};
use crate::support::authorization_server::{
    AuthorizationServer, RESOURCE_METADATA, SERVER_METADATA, resource_metadata, server_metadata,
};

const ROOT: &str = "/.well-known/oauth-protected-resource";

#[tokio::test]
async fn what_the_challenge_names_is_used_and_nothing_else_is_asked() {
    let server = AuthorizationServer::new().json("/elsewhere", 200, resource_metadata()).start().await;
    let challenge = Challenge { resource_metadata: Some(server.url("/elsewhere")), ..bare() };
    let found = find_with(&server, Some(&challenge), &QuirkTable::default()).await.unwrap();
    assert_eq!(paths(&server), ["/elsewhere", SERVER_METADATA]);
    assert_eq!(found.resource, server.url("/mcp"));
    assert_eq!(found.resource_name.as_deref(), Some("Files"));
    assert_eq!(found.scopes, ["read", "write"]);
    assert_eq!(found.authorization_server, server.url(""));
    assert_eq!(found.server.token_endpoint, server.url("/token"));
    let kept: toolgate::oauth::Discovered =
        serde_json::from_str(&serde_json::to_string(&found).unwrap()).unwrap();
    assert_eq!(kept, found);
}

#[tokio::test]
async fn without_a_hint_the_well_known_places_are_asked_the_one_with_the_path_first() {
    let server = AuthorizationServer::new().start().await;
    find_with(&server, Some(&bare()), &QuirkTable::default()).await.unwrap();
    assert_eq!(paths(&server), [RESOURCE_METADATA, SERVER_METADATA]);

    let at_root = json!({ "resource": "{own}", "authorization_servers": ["{own}"] });
    let server = AuthorizationServer::new().without(RESOURCE_METADATA).json(ROOT, 200, at_root).start().await;
    let found = find_with(&server, Some(&bare()), &QuirkTable::default()).await.unwrap();
    assert_eq!(paths(&server), [RESOURCE_METADATA, ROOT, SERVER_METADATA]);
    assert_eq!(found.resource, server.url(""), "the literal, without path and slash");
    assert!(found.scopes.is_empty());
}

#[tokio::test]
async fn the_documents_of_an_issuer_with_a_path_are_asked_in_order_and_never_the_roots() {
    let places = [
        "/.well-known/oauth-authorization-server/tenant",
        "/.well-known/openid-configuration/tenant",
        "/tenant/.well-known/openid-configuration",
    ];
    for (number, place) in places.iter().enumerate() {
        let mut document = server_metadata();
        document["issuer"] = json!("{own}/tenant");
        let server = AuthorizationServer::new()
            .resource(json!({ "authorization_servers": ["{own}/tenant"] }))
            .json(place, 200, document)
            .start()
            .await;
        let found = find(&server).await.unwrap();
        assert_eq!(found.server.issuer, server.url("/tenant"));
        let mut asked = vec![RESOURCE_METADATA.to_owned()];
        asked.extend(places[..=number].iter().map(|place| (*place).to_owned()));
        assert_eq!(paths(&server), asked);
    }
}

#[tokio::test]
async fn an_openid_issuer_without_a_path_is_found() {
    let server = AuthorizationServer::new()
        .without(SERVER_METADATA)
        .json("/.well-known/openid-configuration", 200, server_metadata())
        .start()
        .await;
    find(&server).await.unwrap();
    assert_eq!(paths(&server), [RESOURCE_METADATA, SERVER_METADATA, "/.well-known/openid-configuration"]);
}

#[tokio::test]
async fn a_server_of_2025_03_26_has_its_authorization_server_at_the_origin() {
    let server = AuthorizationServer::new().without(RESOURCE_METADATA).start().await;
    let found = find_with(&server, Some(&bare()), &QuirkTable::default()).await.unwrap();
    assert_eq!(paths(&server), [RESOURCE_METADATA, ROOT, SERVER_METADATA]);
    assert_eq!((found.resource, found.server.assumed), (server.url("/mcp"), false));

    let server = AuthorizationServer::new().without(RESOURCE_METADATA).without(SERVER_METADATA).start().await;
    let found = find_with(&server, Some(&bare()), &QuirkTable::default()).await.unwrap();
    assert!(found.server.assumed);
    assert_eq!(found.server.authorization_endpoint, server.url("/authorize"));
    assert_eq!(found.server.token_endpoint, server.url("/token"));
    assert_eq!(found.server.registration_endpoint, Some(server.url("/register")));
}

#[tokio::test]
async fn without_a_challenge_only_what_is_published_counts() {
    let server = AuthorizationServer::new().start().await;
    assert!(find_with(&server, None, &QuirkTable::default()).await.is_ok(), "anonymous discovery");
    let silent = AuthorizationServer::new().without(RESOURCE_METADATA).start().await;
    let error = find_with(&silent, None, &QuirkTable::default()).await.unwrap_err();
    assert!(matches!(error, DiscoveryError::NotOffered { .. }), "{error:?}");
    assert_eq!(paths(&silent), [RESOURCE_METADATA, ROOT], "no authorization server is guessed");
}

#[tokio::test]
async fn of_several_authorization_servers_the_first_usable_is_taken() {
    let other = AuthorizationServer::new().start().await;
    let server = AuthorizationServer::new()
        .resource(json!({ "authorization_servers": ["{own}/gone", "not an address", other.url("")] }))
        .start()
        .await;
    let found = find(&server).await.unwrap();
    assert_eq!(found.authorization_server, other.url(""));
    assert_eq!(found.server.token_endpoint, other.url("/token"));
}

#[tokio::test]
async fn scopes_are_the_challenges_else_the_resources_and_offline_access_only_where_it_is_listed() {
    let asked = |scope: &str| Challenge { scope: Some(scope.to_owned()), ..bare() };
    for (challenge, listed, wanted) in [
        (asked("b a"), json!(["a"]), vec!["b", "a"]),
        (bare(), json!(["a"]), vec!["read", "write"]),
        (bare(), json!(["a", "offline_access"]), vec!["read", "write", "offline_access"]),
        (asked("a offline_access"), json!([]), vec!["a"]),
        (asked("a \u{7f}x\" <b>"), json!(null), vec!["a", "<b>"]),
    ] {
        let server = AuthorizationServer::new().server(json!({ "scopes_supported": listed })).start().await;
        let found = find_with(&server, Some(&challenge), &QuirkTable::default()).await.unwrap();
        assert_eq!(found.scopes, wanted);
        assert_eq!(&found.scopes_listed[..2], ["read", "write"]);
    }
}

#[tokio::test]
async fn documents_are_read_in_the_forms_in_which_they_are_written() {
    for (resource, server) in [
        (json!({ "resource": ["{own}/mcp"] }), json!({})),
        (json!({ "authorization_servers": "{own}" }), json!({})),
        (json!({ "authorization_servers": ["{own}/"] }), json!({ "issuer": "{own}/" })),
        (json!({ "authorization_servers": ["{own}/"] }), json!({})),
        (json!({ "authorization_servers": [] }), json!({})),
        (json!({ "resource_name": null, "scopes_supported": null }), json!({ "jwks_uri": null })),
        (json!({ "resource": "{own}/mcp/", "unknown": [{}] }), json!({ "unknown": { "a": [1] } })),
        (json!({ "resource": "{own}/" }), json!({ "revocation_endpoint": null })),
    ] {
        // `changed` takes a null out, so those two are written by hand.
        let peer = AuthorizationServer::new().resource(resource.clone()).server(server.clone()).start().await;
        let found = find(&peer).await;
        assert!(found.is_ok(), "{resource} {server} {found:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_reached_or_busy_is_no_server_without_login() {
    let busy = AuthorizationServer::new().json(SERVER_METADATA, 503, json!({})).start().await;
    let error = find(&busy).await.unwrap_err();
    assert!(matches!(error, DiscoveryError::Unreachable { .. }), "{error:?}");
    let busy = AuthorizationServer::new()
        .json(RESOURCE_METADATA, 502, json!({}))
        .json(SERVER_METADATA, 404, json!({}))
        .start()
        .await;
    let error = find(&busy).await.unwrap_err();
    assert!(matches!(error, DiscoveryError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_without_pkce_is_refused() {
    for methods in [json!(null), json!([]), json!(["plain"])] {
        let server = AuthorizationServer::new()
            .server(json!({ "code_challenge_methods_supported": methods }))
            .start()
            .await;
        let error = find(&server).await.unwrap_err().to_string();
        assert!(error.contains("PKCE"), "{error}");
    }
}
