//! One simulated server for each row of what servers are known to do differently. Each test takes the built-in row, points
//! it at the simulated server, and shows that without the row it would not work.

use std::collections::{BTreeMap, BTreeSet};

use http::Uri;
use serde_json::json;
use toolgate::config::{OauthQuirk, Secret};
use toolgate::connections::quirks::built_in;
use toolgate::egress::{Egress, system_lookup};
use toolgate::oauth::{
    Authorize, Challenge, Client, ClientDocument, Discovered, DiscoveryError, Pkce, QuirkTable, Quirks,
    RegistrationError, TokenEndpoint, TokenError, Tokens, Trace, authorize_url, discover, refresh, register,
};

use crate::support::authorization_server::{AuthorizationServer, RESOURCE_METADATA, SERVER_METADATA};
use crate::support::{
    FakeMcp, FakeProvider, FakeTool, Gateway, Peer, Person, Protected, Recorded, Reply, ask, calls, text,
    with,
};

fn egress() -> Egress {
    Egress::new(&toolgate::config::Egress::default(), true, system_lookup()).unwrap()
}

/// The built-in row for this host, pointed at `peer`.
fn row(host: &str, peer: &Peer) -> QuirkTable {
    let names = |hosts: &Vec<String>| hosts.iter().any(|known| known == host);
    let mut row = built_in()
        .into_iter()
        .find(|row| names(&row.issuers) || names(&row.resources))
        .unwrap_or_else(|| panic!("no row is about {host}"));
    if !row.issuers.is_empty() {
        row.issuers = vec![peer.host()];
    }
    if !row.resources.is_empty() {
        row.resources = vec![peer.host()];
    }
    QuirkTable::new([row])
}

async fn find(peer: &Peer, table: &QuirkTable) -> Result<Discovered, DiscoveryError> {
    let challenge = Challenge { status: 401, ..Challenge::default() };
    discover(&egress(), &resource(peer), Some(&challenge), table, &mut Trace::new()).await
}

fn resource(peer: &Peer) -> Uri {
    peer.url("/mcp").parse().unwrap()
}

async fn refresh_at(peer: &Peer, quirks: &Quirks) -> Result<Tokens, TokenError> {
    let (client, url) = (Client::public("c"), peer.url("/token"));
    let endpoint = TokenEndpoint {
        url: &url,
        reach: toolgate::egress::Reach::Requested,
        client: &client,
        resource: Some("https://mcp.example/mcp"),
        quirks,
    };
    refresh(&egress(), &endpoint, &Secret::new("refresh-0")).await
}

/// What the authorize address of a login asks for.
fn authorize(found: &Discovered) -> BTreeMap<String, String> {
    let url = authorize_url(&Authorize {
        server: &found.server,
        client_id: "c",
        redirect_uri: "https://tools.example.com/oauth/callback",
        scopes: &found.scopes,
        state: &Secret::new("s"),
        pkce: &Pkce::new(),
        resource: Some(&found.resource),
        quirks: &found.quirks,
    });
    let url = url::Url::parse(&url.unwrap().to_string()).unwrap();
    url.query_pairs().into_owned().collect()
}

fn token_form(request: &Recorded) -> BTreeMap<String, String> {
    url::form_urlencoded::parse(&request.body).into_owned().collect()
}

#[test]
fn every_row_is_tested_here() {
    let source = include_str!("quirks.rs");
    for OauthQuirk { issuers, resources, .. } in built_in() {
        let hosts: BTreeSet<&String> = issuers.iter().chain(&resources).collect();
        let is_tested = hosts.iter().any(|host| source.contains(&format!("row(\"{host}\"")));
        assert!(is_tested, "no test takes the row of {hosts:?}");
    }
}

#[tokio::test]
async fn entra_refuses_resource_and_says_nothing_of_pkce() {
    let peer = AuthorizationServer::new()
        .server(json!({
            "issuer": "https://login.microsoftonline.com/{tenantid}/v2.0",
            "code_challenge_methods_supported": null, "registration_endpoint": null,
        }))
        .on("/token", |request| {
            // AADSTS901002, when `resource` is there at all.
            let has_resource = token_form(request).contains_key("resource");
            let error = if has_resource { "invalid_request" } else { "interaction_required" };
            Reply::Json(400, json!({ "error": error, "error_codes": [901_002] }))
        })
        .start()
        .await;
    assert!(find(&peer, &QuirkTable::default()).await.is_err());
    let found = find(&peer, &row("login.microsoftonline.com", &peer)).await.unwrap();
    assert_eq!(authorize(&found).get("resource"), None);
    let error = refresh_at(&peer, &found.quirks).await.unwrap_err();
    assert_eq!(error, TokenError::InvalidGrant, "a policy wants the person again");
    let without = refresh_at(&peer, &Quirks::default()).await.unwrap_err();
    assert_eq!(without, TokenError::Refused { code: "invalid_request".to_owned() });
    assert_by_hand(&found).await;
}

/// Nobody is registered by request, and the operator is told where to go.
async fn assert_by_hand(found: &Discovered) {
    let document = ClientDocument::new("https://g.example", "https://g.example/oauth/callback");
    let error = register(&egress(), &found.server, &document).await.unwrap_err();
    assert!(matches!(error, RegistrationError::NotOffered { .. }), "{error:?}");
    let notice = toolgate::connections::doctor::by_hand(found, "https://g.example/oauth/callback");
    let about = found.quirks.registration.as_deref().unwrap();
    assert!(notice.contains(about) && notice.contains("[[oauth_clients]]"), "{notice}");
}

#[tokio::test]
async fn cognito_says_nothing_of_pkce() {
    let peer = AuthorizationServer::new()
        .server(json!({ "code_challenge_methods_supported": null, "registration_endpoint": null }))
        .start()
        .await;
    assert!(find(&peer, &QuirkTable::default()).await.is_err());
    let found = find(&peer, &row("*.amazoncognito.com", &peer)).await.unwrap();
    assert_eq!(authorize(&found)["code_challenge_method"], "S256");
    assert_by_hand(&found).await;
}

#[tokio::test]
async fn atlassian_names_another_issuer() {
    for (host, named) in [
        ("mcp.atlassian.com", "https://cf.mcp.atlassian.com"),
        ("auth.atlassian.com", "https://auth.atlassian.com"),
    ] {
        let peer = AuthorizationServer::new().server(json!({ "issuer": named })).start().await;
        assert!(find(&peer, &QuirkTable::default()).await.is_err());
        let table = match host {
            "mcp.atlassian.com" => row("mcp.atlassian.com", &peer),
            _ => row("auth.atlassian.com", &peer),
        };
        let found = find(&peer, &table).await.unwrap();
        assert_eq!(found.server.issuer, named);
        assert!(found.server.admits_issuer(Some(named)) && !found.server.admits_issuer(Some(&peer.url(""))));
        assert_eq!(found.authorization_server, peer.url(""), "two tenants stay apart");
        let other =
            AuthorizationServer::new().server(json!({ "issuer": "https://evil.example" })).start().await;
        assert!(find(&other, &row("mcp.atlassian.com", &other)).await.is_err(), "no third name is taken");
    }
}

#[tokio::test]
async fn github_publishes_nothing_registers_nobody_and_reports_errors_with_200() {
    let peer = AuthorizationServer::new()
        .without(SERVER_METADATA)
        .resource(json!({ "scopes_supported": ["repo"] }))
        .on("/token", |request| {
            assert_eq!(request.header("accept"), Some("application/json"), "else it answers in a form");
            let error = match token_form(request).get("client_id").map(String::as_str) {
                Some("c") => "bad_refresh_token",
                _ => "incorrect_client_credentials",
            };
            Reply::Json(200, json!({ "error": error, "error_uri": "https://docs.github.com/x" }))
        })
        .start()
        .await;
    assert!(find(&peer, &QuirkTable::default()).await.is_err());
    let found = find(&peer, &row("github.com", &peer)).await.unwrap();
    assert_eq!(found.server.token_endpoint, "https://github.com/login/oauth/access_token");
    assert_eq!(refresh_at(&peer, &found.quirks).await.unwrap_err(), TokenError::InvalidGrant);
    let without = refresh_at(&peer, &Quirks::default()).await.unwrap_err();
    assert_eq!(without, TokenError::Refused { code: "bad_refresh_token".to_owned() });
    assert_by_hand(&found).await;
}

#[tokio::test]
async fn slack_answers_200_for_everything_and_puts_the_users_token_aside() {
    let answer = json!({
        "ok": true, "access_token": "bot-token", "token_type": "bot", "team": { "name": "Acme", "id": "T1" },
        "authed_user": {
            "id": "U1", "access_token": "user-token", "refresh_token": "user-refresh", "token_type": "user",
            "expires_in": 43200, "scope": "search:read,chat:write",
        },
    });
    let peer = AuthorizationServer::new()
        .server(json!({ "issuer": "https://slack.com", "registration_endpoint": null, "code_challenge_methods_supported": null }))
        .json("/token", 200, answer)
        .start()
        .await;
    assert!(find(&peer, &QuirkTable::default()).await.is_err());
    let found = find(&peer, &row("slack.com", &peer)).await.unwrap();
    assert_eq!(authorize(&found)["scope"], "read,write");
    let tokens = refresh_at(&peer, &found.quirks).await.unwrap();
    assert_eq!(tokens.access.expose(), "user-token");
    assert_eq!(tokens.refresh.unwrap().expose(), "user-refresh");
    assert_eq!(
        (tokens.expires_in_seconds, tokens.scope.as_deref()),
        (Some(43200), Some("search:read chat:write"))
    );
    assert_eq!(tokens.extra["team"], "Acme");
    assert!(refresh_at(&peer, &Quirks::default()).await.is_err(), "a bot's token is nobody's");

    for (error, expected) in [
        ("invalid_refresh_token", TokenError::InvalidGrant),
        ("bad_client_secret", TokenError::InvalidClient),
        ("fatal", TokenError::Refused { code: "fatal".to_owned() }),
    ] {
        let peer = AuthorizationServer::new()
            .json("/token", 200, json!({ "ok": false, "error": error }))
            .start()
            .await;
        assert_eq!(refresh_at(&peer, &found.quirks).await.unwrap_err(), expected);
    }
    assert_by_hand(&found).await;
}

#[tokio::test]
async fn google_lists_tools_for_everyone_and_gives_refresh_tokens_on_request_only() {
    let peer = AuthorizationServer::new()
        .server(json!({ "registration_endpoint": null, "code_challenge_methods_supported": null }))
        .json("/mcp", 200, json!({ "jsonrpc": "2.0", "id": 1, "result": { "tools": [] } }))
        .start()
        .await;
    let table = row("accounts.google.com", &peer);
    let found = discover(&egress(), &resource(&peer), None, &table, &mut Trace::new()).await.unwrap();
    let asked = authorize(&found);
    assert_eq!((asked["access_type"].as_str(), asked["prompt"].as_str()), ("offline", "consent"));
    assert_by_hand(&found).await;
}

#[tokio::test]
async fn figma_and_clickup_register_only_whom_they_know() {
    for (status, body) in [
        (403, json!("Forbidden")),
        (400, json!({ "error": "invalid_request", "error_description": "not allowlisted" })),
    ] {
        let peer = AuthorizationServer::new().json("/register", status, body).start().await;
        for table in [row("mcp.figma.com", &peer), row("mcp.clickup.com", &peer)] {
            let found = find(&peer, &table).await.unwrap();
            let document = ClientDocument::new("https://g.example", "https://g.example/oauth/callback");
            let error = register(&egress(), &found.server, &document).await.unwrap_err();
            assert!(
                matches!(error, RegistrationError::NotAllowed { .. } | RegistrationError::Refused { .. }),
                "{error:?}"
            );
            let notice = toolgate::connections::doctor::by_hand(&found, "https://g.example/oauth/callback");
            assert!(notice.contains("registers only the applications"), "{notice}");
        }
    }
}

#[tokio::test]
async fn an_expired_token_is_seen_behind_200_500_and_307() {
    let peer = AuthorizationServer::new().start().await;
    let todoist =
        br#"{"result":{"isError":true,"content":[{"text":"Todoist API request failed (HTTP 401)."}]}}"#;
    for (table, status, text) in [
        (row("ai.todoist.net", &peer), 200, &todoist[..]),
        (row("mcp.freee.co.jp", &peer), 500, b"{}"),
        (row("mcp.gitbook.com", &peer), 307, b""),
    ] {
        let quirks = table.find(None, Some(&resource(&peer)));
        assert!(quirks.hides_expiry(status, text), "{status}");
        assert!(!quirks.hides_expiry(200, b"{\"result\":{}}") && !quirks.hides_expiry(404, text));
        assert!(!Quirks::default().hides_expiry(status, text));
    }
}

#[tokio::test]
async fn an_operator_can_accept_a_resource_by_another_name() {
    let peer = AuthorizationServer::new().resource(json!({ "resource": "{own}/sse" })).start().await;
    assert!(find(&peer, &QuirkTable::default()).await.is_err());
    let accepting = |resource: String| {
        QuirkTable::new([OauthQuirk {
            resources: vec![peer.host()],
            accept_resource: Some(resource),
            ..OauthQuirk::default()
        }])
    };
    let found = find(&peer, &accepting(peer.url("/sse"))).await.unwrap();
    assert_eq!(found.resource, peer.url("/sse"), "the literal is what is asked for");
    assert!(find(&peer, &accepting(peer.url("/other"))).await.is_err());
    let slash = AuthorizationServer::new().resource(json!({ "resource": "{own}/mcp/" })).start().await;
    assert_eq!(find(&slash, &QuirkTable::default()).await.unwrap().resource, slash.url("/mcp/"));
    assert!(slash.requests().iter().any(|request| request.path == RESOURCE_METADATA));
}

#[tokio::test]
async fn an_operators_row_of_another_host_changes_nothing() {
    let peer =
        AuthorizationServer::new().server(json!({ "code_challenge_methods_supported": null })).start().await;
    for host in ["127.0.0.1", "127.0.0.1:1", "localhost", "*.0.0.1"] {
        let row =
            OauthQuirk { issuers: vec![host.to_owned()], assume_s256: Some(true), ..OauthQuirk::default() };
        assert!(find(&peer, &QuirkTable::new([row])).await.is_err(), "{host}");
    }
}

/// Logs in, lets the token expire, and asks again. Gives the answer and how often the token was renewed.
async fn ask_with_an_expired_token(host: &str, status: u16, body: &str, known: bool) -> (String, usize) {
    let server = Protected::start(vec![FakeTool::text("t", "files of ann")]).await;
    server.disguise(status, body);
    let shared = server.clone();
    let provider = FakeProvider::answering(move |request| {
        let body = request.json();
        let said = body["messages"].as_array().unwrap().iter().find(|message| message["role"] == "tool");
        match said {
            Some(said) => text(said["content"].as_str().unwrap()),
            None => {
                shared.expire();
                calls(&[("call_1", "s_t", json!({}))])
            }
        }
    })
    .await;
    let peer = server.peer.host();
    let gateway = Gateway::configured(&provider, |settings| {
        let mut row =
            built_in().into_iter().find(|row| row.resources.iter().any(|known| known == host)).unwrap();
        row.resources = vec![if known { peer } else { "elsewhere.example".to_owned() }];
        settings.oauth_quirks = vec![row];
    })
    .await;
    let ask = with(ask(&[server.entry("s")]), json!({ "user": "ann" }));
    let answer = gateway.client.chat(&ask).await.json();
    let link = answer["toolgate"]["authorization_required"][0]["connect_url"].as_str().unwrap().to_owned();
    assert_eq!(Person::new().log_in(&link).await.status, 200);
    let answer = gateway.client.chat(&ask).await;
    (answer.content(), server.refreshes())
}

#[tokio::test]
async fn a_token_that_expires_unsaid_is_renewed_and_the_call_made_again() {
    let result = r#"{"jsonrpc":"2.0","id":"ID","result":{"isError":true,"content":[{"type":"text","text":"Todoist API request failed (HTTP 401). Try next"}]}}"#;
    for (host, status, body) in
        [("ai.todoist.net", 200, result), ("mcp.freee.co.jp", 500, "{}"), ("mcp.gitbook.com", 307, "")]
    {
        let (content, refreshes) = ask_with_an_expired_token(host, status, body, true).await;
        assert!(content.ends_with("files of ann") && refreshes == 1, "{host}: {refreshes} {content}");
        let (content, refreshes) = ask_with_an_expired_token(host, status, body, false).await;
        assert!(!content.contains("files of ann") && refreshes == 0, "{host}: {refreshes} {content}");
    }
}

#[tokio::test]
async fn a_login_for_calls_is_asked_for_before_the_model_where_the_list_is_for_everybody() {
    let row = |host: String| {
        let google = |row: &OauthQuirk| row.open_list == Some(true);
        OauthQuirk {
            resources: vec![host],
            ..built_in().into_iter().find(google).expect("there is such a row")
        }
    };
    for is_known in [true, false] {
        let server = Protected::start(vec![FakeTool::text("t", "files of ann")]).await;
        server.list_openly();
        let provider = FakeProvider::answering(|request| {
            let said = request.json()["messages"].as_array().unwrap().len();
            if said == 1 { calls(&[("call_1", "s_t", json!({}))]) } else { text("done") }
        })
        .await;
        let known = if is_known { server.peer.host() } else { "elsewhere.example".to_owned() };
        let gateway =
            Gateway::configured(&provider, |settings| settings.oauth_quirks = vec![row(known)]).await;
        let asked = with(ask(&[server.entry("s")]), json!({ "user": "ann" }));
        let answer = gateway.client.chat(&asked).await.json();
        let required = &answer["toolgate"]["authorization_required"][0];
        let link = required["connect_url"].as_str().unwrap_or_else(|| panic!("{answer}"));
        assert_eq!(provider.peer.requests().len(), usize::from(!is_known), "the model was paid for");
        assert_eq!(Person::new().log_in(link).await.status, 200);
        let answer = gateway.client.chat(&asked).await;
        assert!(answer.content().ends_with("done"), "{}", answer.text());
        assert_eq!(provider.last_said("tool"), ["files of ann"]);
    }
}

#[tokio::test]
async fn who_brings_a_credential_or_can_have_no_login_is_not_held_up() {
    let open = FakeMcp::start(vec![FakeTool::text("t", "x")]).await;
    let guarded = Protected::start(vec![FakeTool::text("t", "x")]).await;
    guarded.list_openly();
    let provider = FakeProvider::answering(|_| text("hello")).await;
    let gateway = Gateway::configured(&provider, |settings| {
        settings.oauth_quirks = vec![OauthQuirk {
            resources: vec![open.peer.host(), guarded.peer.host()],
            open_list: Some(true),
            ..OauthQuirk::default()
        }];
    })
    .await;
    for entry in [
        open.entry("s"),
        with(guarded.entry("s"), json!({ "authorization": "mine" })),
        with(guarded.entry("s"), json!({ "headers": { "X-Goog-Api-Key": "mine" } })),
    ] {
        let answer =
            gateway.client.chat(&with(ask(std::slice::from_ref(&entry)), json!({ "user": "ann" }))).await;
        assert_eq!(answer.content(), "hello", "{entry}: {}", answer.text());
    }
}
