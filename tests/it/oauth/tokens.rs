//! The token endpoint: what it is asked, what it may answer, and how a token is given back.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use toolgate::config::Secret;
use toolgate::oauth::{
    AuthMethod, Authorize, Client, Hint, Pkce, Quirks, Revoked, TokenError, authorize_url, exchange_code,
    refresh, revoke,
};

use super::{egress, endpoint, find};
use crate::support::authorization_server::AuthorizationServer;
use crate::support::{Peer, Recorded, Reply};

fn form(request: &Recorded) -> BTreeMap<String, String> {
    let pairs = url::form_urlencoded::parse(&request.body).into_owned();
    let fields: BTreeMap<String, String> = pairs.collect();
    assert_eq!(request.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(request.header("accept"), Some("application/json"));
    fields
}

async fn refresh_at(peer: &Peer) -> Result<toolgate::oauth::Tokens, TokenError> {
    let (client, quirks) = (Client::public("c"), Quirks::default());
    refresh(&egress(), &endpoint(&peer.url("/token"), &client, &quirks), &Secret::new("refresh-0")).await
}

#[tokio::test]
async fn a_code_is_exchanged_with_everything_that_binds_it() {
    let server = AuthorizationServer::new().start().await;
    let (client, quirks) = (Client::public("client-1"), Quirks::default());
    let url = server.url("/token");
    let endpoint = endpoint(&url, &client, &quirks);
    let pkce = Pkce::new();
    let tokens = exchange_code(
        &egress(),
        &endpoint,
        &Secret::new("code:1/+ä"),
        "https://tools.example.com/oauth/callback",
        &pkce.verifier,
    )
    .await
    .unwrap();
    assert_eq!(tokens.access.expose(), "access-1");
    assert_eq!(tokens.expires_in_seconds, Some(3600));
    assert!(!format!("{tokens:?}").contains("access-1"));
    let sent = form(&server.only_request());
    let expected: BTreeMap<String, String> = [
        ("grant_type", "authorization_code"),
        ("code", "code:1/+ä"),
        ("redirect_uri", "https://tools.example.com/oauth/callback"),
        ("code_verifier", pkce.verifier.expose()),
        ("resource", "https://mcp.example/mcp"),
        ("client_id", "client-1"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect();
    assert_eq!(sent, expected);
}

#[tokio::test]
async fn a_client_proves_itself_in_each_way() {
    let server = AuthorizationServer::new().start().await;
    let url = server.url("/token");
    for (method, header, has_id, has_secret) in [
        (AuthMethod::None, None, true, false),
        (AuthMethod::ClientSecretPost, None, true, true),
        // `a:b` and `p%/ö` in form encoding, with a colon between: RFC 6749 §2.3.1.
        (AuthMethod::ClientSecretBasic, Some("Basic YSUzQWI6cCUyNSUyRiVDMyVCNg=="), false, false),
    ] {
        let client = Client { id: "a:b".to_owned(), secret: Some(Secret::new("p%/ö")), auth_method: method };
        let quirks = Quirks::default();
        refresh(&egress(), &endpoint(&url, &client, &quirks), &Secret::new("r")).await.unwrap();
        let sent = server.requests().pop().unwrap();
        let fields = form(&sent);
        assert_eq!(sent.header("authorization"), header);
        assert_eq!(fields.get("client_id").is_some_and(|id| id == "a:b"), has_id, "{method:?}");
        assert_eq!(fields.get("client_secret").is_some_and(|secret| secret == "p%/ö"), has_secret);
    }
}

/// The name of the outcome.
fn kind(error: &TokenError) -> String {
    match error {
        TokenError::InvalidGrant => "grant".to_owned(),
        TokenError::InvalidClient => "client".to_owned(),
        TokenError::InvalidTarget => "target".to_owned(),
        TokenError::InvalidScope => "scope".to_owned(),
        TokenError::Refused { code } => format!("refused {code}"),
        TokenError::Temporary { in_doubt, .. } => format!("temporary {in_doubt}"),
        TokenError::NotAnAnswer { in_doubt, .. } => format!("none {in_doubt}"),
        TokenError::Address(_) => "address".to_owned(),
    }
}

#[tokio::test]
async fn only_invalid_grant_ends_a_grant() {
    let error = |code: &str| json!({ "error": code, "error_description": "secret words" }).to_string();
    let long = "x".repeat(300);
    for (status, body, expected) in [
        (400, error("invalid_grant"), "grant"),
        (401, error("invalid_grant"), "grant"),
        (200, error("invalid_grant"), "grant"),
        (401, error("invalid_client"), "client"),
        (400, error("invalid_target"), "target"),
        (400, error("invalid_scope"), "scope"),
        (400, error("unsupported_grant_type"), "refused unsupported_grant_type"),
        (400, error("<b>no</b>"), "refused unreadable_error"),
        (400, error(&long), "refused unreadable_error"),
        (400, error("slow_down"), "temporary false"),
        (500, error("invalid_grant"), "temporary true"),
        (502, "<html>".to_owned(), "temporary true"),
        (503, String::new(), "temporary false"),
        (429, error("invalid_grant"), "temporary false"),
        (408, String::new(), "temporary true"),
        (425, String::new(), "temporary false"),
        (400, "<html>".to_owned(), "none false"),
        (401, String::new(), "none false"),
        (404, "{}".to_owned(), "none false"),
        (200, "<html>".to_owned(), "none true"),
        (200, "{}".to_owned(), "none true"),
        (200, "[]".to_owned(), "none true"),
        (200, r#"{"access_token":""}"#.to_owned(), "none true"),
        (200, r#"{"access_token":null}"#.to_owned(), "none true"),
        (200, r#"{"access_token":"a","access_token":"b"}"#.to_owned(), "none true"),
        (200, r#"{"access_token":"a b","token_type":"bearer"}"#.to_owned(), "none true"),
        (200, r#"{"access_token":"a\r\nx: y","token_type":"bearer"}"#.to_owned(), "none true"),
        (200, r#"{"access_token":"a","refresh_token":"r\u0000"}"#.to_owned(), "none true"),
        (200, r#"{"access_token":"a","token_type":"DPoP"}"#.to_owned(), "none true"),
        (200, format!(r#"{{"access_token":"{}"}}"#, "x".repeat(17 << 10)), "none true"),
        (200, format!(r#"{{"access_token":"a","x":"{}"}}"#, "x".repeat(300 << 10)), "temporary true"),
        (200, r#"{"ok":false}"#.to_owned(), "none true"),
    ] {
        let server =
            AuthorizationServer::new().text("/token", status, "application/json", &body).start().await;
        let error = refresh_at(&server).await.unwrap_err();
        assert_eq!(kind(&error), expected, "{status} {}", &body[..body.len().min(80)]);
        let text = format!("{error} {error:?}");
        assert!(!text.contains("secret words") && !text.contains("<b>"), "{text}");
    }
}

#[tokio::test]
async fn answers_are_read_in_the_forms_in_which_they_are_written() {
    for (body, seconds, refresh_token, scope) in [
        (r#"{"access_token":"a"}"#, None, None, None),
        (r#"{"access_token":"a","token_type":"BEARER","expires_in":"60"}"#, Some(60), None, None),
        (r#"{"access_token":"a","expires_in":59.9,"refresh_token":""}"#, Some(59), None, None),
        (r#"{"access_token":"a","expires_in":-5,"scope":"b  a b"}"#, None, None, Some("b a")),
        (
            r#"{"access_token":"a","expires_in":1e300,"refresh_token":"r"}"#,
            Some(315_360_000),
            Some("r"),
            None,
        ),
        (r#"{"access_token":"a","expires_in":null,"scope":null,"refresh_token":null}"#, None, None, None),
        (r#"{"access_token":"a","expires_in":{},"scope":["x"]}"#, None, None, None),
    ] {
        let server = AuthorizationServer::new().text("/token", 200, "application/json", body).start().await;
        let tokens = refresh_at(&server).await.unwrap();
        assert_eq!(tokens.access.expose(), "a", "{body}");
        assert_eq!(tokens.expires_in_seconds, seconds, "{body}");
        assert_eq!(tokens.refresh.as_ref().map(Secret::expose), refresh_token, "{body}");
        assert_eq!(tokens.scope.as_deref(), scope, "{body}");
    }
    let form = "access_token=a%2Fb&scope=repo%2Cuser&token_type=bearer";
    let server = AuthorizationServer::new()
        .text("/token", 200, "application/x-www-form-urlencoded; charset=utf-8", form)
        .start()
        .await;
    let tokens = refresh_at(&server).await.unwrap();
    assert_eq!((tokens.access.expose(), tokens.scope.as_deref()), ("a/b", Some("repo user")));
}

#[tokio::test]
async fn a_server_that_is_busy_says_for_how_long() {
    let busy = |headers: &'static [(&'static str, &'static str)]| {
        AuthorizationServer::new().on("/token", move |_| Reply::with_headers(503, headers, "")).start()
    };
    for (headers, pause) in [
        (&[("retry-after", "7")][..], Some(7)),
        (&[][..], None),
        (&[("retry-after", "99999999999")][..], Some(24 * 3600)),
        (
            &[("date", "Sat, 21 Nov 2026 06:00:00 GMT"), ("retry-after", "Sat, 21 Nov 2026 06:01:00 GMT")][..],
            Some(60),
        ),
        (&[("retry-after", "soon")][..], None),
    ] {
        let server = busy(headers).await;
        let Err(TokenError::Temporary { retry_after, .. }) = refresh_at(&server).await else {
            panic!("it is busy")
        };
        assert_eq!(retry_after, pause.map(Duration::from_secs), "{headers:?}");
    }
}

#[tokio::test]
async fn a_refresh_token_never_follows_a_redirect() {
    for status in [301, 302, 303, 307, 308] {
        let other = AuthorizationServer::new().start().await;
        let to = other.url("/token");
        let server = AuthorizationServer::new()
            .on("/token", move |_| Reply::with_headers(status, &[("location", &to)], ""))
            .start()
            .await;
        assert_eq!(kind(&refresh_at(&server).await.unwrap_err()), "none false");
        assert!(other.requests().is_empty());
    }
}

#[tokio::test]
async fn whether_a_lost_request_was_carried_out_is_in_doubt_only_when_it_was_sent() {
    let server = AuthorizationServer::new().on("/token", |_| Reply::Hangup).start().await;
    assert_eq!(kind(&refresh_at(&server).await.unwrap_err()), "temporary true");
    let (client, quirks) = (Client::public("c"), Quirks::default());
    let nobody = endpoint("http://127.0.0.1:9/token", &client, &quirks);
    let error = refresh(&egress(), &nobody, &Secret::new("r")).await.unwrap_err();
    assert_eq!(kind(&error), "temporary false");
    for forbidden in ["https://10.0.0.1/token", "javascript:x", ""] {
        let forbidden = endpoint(forbidden, &client, &quirks);
        assert_eq!(kind(&refresh(&egress(), &forbidden, &Secret::new("r")).await.unwrap_err()), "address");
    }
}

#[tokio::test]
async fn a_token_is_given_back_with_its_kind() {
    let server = AuthorizationServer::new().start().await;
    let (client, quirks) = (Client::public("c"), Quirks::default());
    let url = server.url("/revoke");
    let endpoint = endpoint(&url, &client, &quirks);
    let done = revoke(&egress(), &endpoint, &Secret::new("t"), Hint::Refresh).await;
    assert_eq!(done, Revoked::Done);
    let sent = form(&server.only_request());
    assert_eq!(sent["token"], "t");
    assert_eq!(sent["token_type_hint"], "refresh_token");
    assert_eq!(sent.get("resource"), None, "RFC 7009 knows no resource");

    let failing = |reason: &str| Revoked::Failing { reason: reason.to_owned(), retry_after: None };
    for (status, body, outcome) in [
        (200, json!(""), Revoked::Done),
        (204, json!(""), Revoked::Done),
        (400, json!({ "error": "invalid_token" }), Revoked::Done),
        (400, json!({ "error": "unsupported_token_type" }), Revoked::NotSupported),
        (404, json!({}), Revoked::NotSupported),
        (405, json!({}), Revoked::NotSupported),
        (503, json!({}), failing("the authorization server answered with HTTP status 503")),
        (302, json!({}), failing("the authorization server answered with HTTP status 302")),
        (
            401,
            json!({ "error": "invalid_client" }),
            failing("the authorization server refused: invalid_client"),
        ),
        (200, json!({ "error": "<b>" }), failing("the authorization server refused: unreadable_error")),
    ] {
        let server = AuthorizationServer::new().json("/revoke", status, body.clone()).start().await;
        let (client, quirks, url) = (Client::public("c"), Quirks::default(), server.url("/revoke"));
        let endpoint = super::endpoint(&url, &client, &quirks);
        let done = revoke(&egress(), &endpoint, &Secret::new("t"), Hint::Access).await;
        assert_eq!(done, outcome, "{status} {body}");
    }
}

#[tokio::test]
async fn the_authorize_address_says_what_we_want_and_nothing_that_the_server_slipped_in() {
    let evil = "{own}/authorize?audience=x&client_id=evil&RESOURCE=y&resource=evil&state=evil&prompt=none";
    let server = AuthorizationServer::new().server(json!({ "authorization_endpoint": evil })).start().await;
    let found = find(&server).await.unwrap();
    let pkce = Pkce::of(Secret::new("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"));
    let scopes = ["read".to_owned(), "offline_access".to_owned()];
    let url = authorize_url(&Authorize {
        server: &found.server,
        client_id: "a&b=c#d",
        redirect_uri: "https://tools.example.com/oauth/callback",
        scopes: &scopes,
        state: &Secret::new("st&te"),
        pkce: &pkce,
        resource: Some(&found.resource),
        quirks: &found.quirks,
    })
    .unwrap();
    let url = url::Url::parse(&url.to_string()).unwrap();
    let sent: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let resource = found.resource.as_str();
    let expected = [
        ("audience", "x"),
        ("RESOURCE", "y"),
        ("response_type", "code"),
        ("client_id", "a&b=c#d"),
        ("redirect_uri", "https://tools.example.com/oauth/callback"),
        ("state", "st&te"),
        // RFC 7636 appendix B
        ("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"),
        ("code_challenge_method", "S256"),
        ("scope", "read offline_access"),
        ("resource", resource),
        ("prompt", "consent"),
    ];
    assert_eq!(sent, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(url.path(), "/authorize");
}

#[tokio::test]
async fn the_issuer_of_the_way_back_is_checked_by_the_table_of_rfc_9207() {
    let own = |says: Value| {
        AuthorizationServer::new().server(json!({ "authorization_response_iss_parameter_supported": says }))
    };
    for (says, iss, admitted) in [
        (json!(true), Some(""), true),
        (json!(true), Some("/"), false),
        (json!(true), None, false),
        (json!(false), Some(""), true),
        (json!(false), Some("https://evil.example"), false),
        (json!(null), None, true),
    ] {
        let server = own(says.clone()).start().await;
        let found = find(&server).await.unwrap();
        let iss = iss.map(|end| if end.starts_with('h') { end.to_owned() } else { server.url(end) });
        assert_eq!(found.server.admits_issuer(iss.as_deref()), admitted, "{says} {iss:?}");
    }
}
