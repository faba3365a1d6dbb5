//! `toolgate doctor`: what it prints for servers that are well, and for each that is not.

use serde_json::{Value, json};

use crate::support::authorization_server::{AuthorizationServer, RESOURCE_METADATA, SERVER_METADATA};
use crate::support::{Peer, Program, Reply};

/// Exit code and what is printed, the server's address replaced.
async fn examine(peer: &Peer, path: &str, program: Program) -> String {
    let ended = program.run(&["doctor", &peer.url(path)]).await;
    assert_eq!(ended.stderr, "");
    format!("{}\n{}", ended.code, ended.stdout.replace(&peer.host(), "HOST"))
}

#[tokio::test]
async fn a_gateway_that_is_not_local_is_told_whether_it_takes_providers_keys() {
    let peer = AuthorizationServer::new().start().await;
    let examined = async |enabled: Option<&str>| {
        let mut program = Program::nowhere().with("TOOLGATE__PUBLIC_URL", "https://gateway.example");
        if let Some(enabled) = enabled {
            program = program.with("TOOLGATE__PASS_THROUGH__ENABLED", enabled);
        }
        program.run(&["doctor", &peer.url("/mcp")]).await.stderr
    };
    for (enabled, words) in [
        (None, "let in until there is a project"),
        (Some("true"), "are let in (`"),
        (Some("false"), "are refused (`"),
    ] {
        let said = examined(enabled).await;
        assert!(said.contains(words), "{enabled:?}: {said}");
    }
}

#[tokio::test]
async fn a_server_that_is_well() {
    let peer = AuthorizationServer::new().start().await;
    insta::assert_snapshot!(examine(&peer, "/mcp", Program::nowhere()).await, @r#"
    0
    1. the resource, without a login (MCP 2026-07-28 authorization)
       http://HOST/mcp → 401
       ok: it asks for a login: resource_metadata="http://HOST/.well-known/oauth-protected-resource/mcp"

    2. protected resource metadata (RFC 9728 §5.1)
       http://HOST/.well-known/oauth-protected-resource/mcp → 200
       ok: resource `http://HOST/mcp`, authorization server http://HOST

    3. authorization server metadata (RFC 8414 §3.1)
       http://HOST/.well-known/oauth-authorization-server → 200
       ok: issuer `http://HOST`

      resource  http://HOST/mcp
        scopes  read write
        issuer  http://HOST
     authorize  http://HOST/authorize
         token  http://HOST/token
        revoke  http://HOST/revoke
        client  by request at http://HOST/register
      redirect  http://127.0.0.1:8787/oauth/callback

    A login can be offered, once the server has registered this gateway.
    "#);
    let asked: Vec<String> = peer.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(asked, ["/mcp", RESOURCE_METADATA, SERVER_METADATA], "nothing is registered");
}

#[tokio::test]
async fn a_server_with_faults_names_each_and_what_would_help() {
    let peer = AuthorizationServer::new()
        .challenge("Bearer error=\"invalid_token\"")
        .on(RESOURCE_METADATA, |_| Reply::with_headers(302, &[("location", "/elsewhere")], ""))
        .json(
            "/.well-known/oauth-protected-resource",
            200,
            json!({ "resource": "{own}", "authorization_servers": ["{own}/a"] }),
        )
        .json("/.well-known/oauth-authorization-server/a", 200, json!({ "issuer": "{own}/b" }))
        .json(
            "/.well-known/openid-configuration/a",
            200,
            json!({
                "issuer": "https://idp.example", "authorization_endpoint": "{own}/authorize",
                "token_endpoint": "{own}/token",
            }),
        )
        .json(
            "/a/.well-known/openid-configuration",
            200,
            json!({
                "issuer": "{own}/a", "authorization_endpoint": "{own}/authorize",
                "token_endpoint": "{own}/token",
            }),
        )
        .start()
        .await;
    insta::assert_snapshot!(examine(&peer, "/mcp", Program::nowhere()).await, @r#"
    1
    1. the resource, without a login (MCP 2026-07-28 authorization)
       http://HOST/mcp → 401
       ok: it asks for a login: error="invalid_token"

    2. protected resource metadata (RFC 9728 §3.1)
       http://HOST/.well-known/oauth-protected-resource/mcp → 302
       fault: it redirects, which is not followed here

    3. protected resource metadata (RFC 9728 §3.1, at the root)
       http://HOST/.well-known/oauth-protected-resource → 200
       ok: resource `http://HOST`, authorization server http://HOST/a

    4. authorization server metadata (RFC 8414 §3.1)
       http://HOST/.well-known/oauth-authorization-server/a → 200
       fault: the document names no `authorization_endpoint`

    5. authorization server metadata (RFC 8414 §5)
       http://HOST/.well-known/openid-configuration/a → 200
       fault: the issuer is `https://idp.example`, but `http://HOST/a` was asked (RFC 8414 §3.3)
       hint: if that is right, add `accept_issuer = "https://idp.example"` for this host under `[[oauth_quirks]]`

    6. authorization server metadata (OpenID Connect Discovery §4)
       http://HOST/a/.well-known/openid-configuration → 200
       fault: it does not say that it takes PKCE with S256 (MCP authorization, code protection)
       hint: if it does, add `assume_s256 = true` for this host under `[[oauth_quirks]]`

    The login that 127.0.0.1 offers cannot be used: the document names no `authorization_endpoint`.
    "#);
}

#[tokio::test]
async fn a_server_that_registers_nobody_until_the_operator_did() {
    let peer = AuthorizationServer::new().server(json!({ "registration_endpoint": null })).start().await;
    let printed = examine(&peer, "/mcp", Program::nowhere()).await;
    let conclusion: Vec<&str> = printed.lines().rev().take(2).collect();
    insta::assert_snapshot!(format!("{}\n{}\n{}", &printed[..1], conclusion[1], conclusion[0]), @r#"
    1
    A login can be offered once the operator has registered this gateway by hand.
    hint: 127.0.0.1 registers no clients by itself. Register this gateway there with the redirect address http://127.0.0.1:8787/oauth/callback, and add the client under `[[oauth_clients]]` with `issuer = "http://HOST"` and `resources = ["HOST"]`
    "#);
    let file = std::env::temp_dir().join(toolgate::id::random_id("toolgate-doctor-"));
    let written = async |resource: &str| {
        let issuer = peer.url("");
        let settings = format!(
            "[[oauth_clients]]\nissuer = \"{issuer}\"\nclient_id = \"mine\"\nresources = [\"{resource}\"]\n"
        );
        std::fs::write(&file, settings).unwrap();
        let program = Program::nowhere().with("TOOLGATE_CONFIG", file.to_str().unwrap());
        examine(&peer, "/mcp", program).await
    };
    let printed = written("mcp.example.com").await;
    assert!(
        printed.starts_with("1\n")
            && printed.contains("the client `mine` of `[[oauth_clients]]` is not for HOST"),
        "{printed}"
    );
    let printed = written(peer.url("").trim_start_matches("http://")).await;
    std::fs::remove_file(&file).unwrap();
    assert!(
        printed.starts_with("0\n") && printed.contains("the client `mine` of `[[oauth_clients]]`"),
        "{printed}"
    );
}

#[tokio::test]
async fn what_is_no_mcp_server_is_asked_for_itself_and_an_open_server_has_no_login() {
    let peer = AuthorizationServer::new()
        .on("/mcp", |request| match request.method.as_str() {
            "GET" => Reply::with_headers(401, &[("www-authenticate", "Bearer")], ""),
            _ => Reply::Json(405, json!({})),
        })
        .json("/open", 200, json!({}))
        .start()
        .await;
    let printed = examine(&peer, "/mcp", Program::nowhere()).await;
    assert!(printed.starts_with("0\n"), "{printed}");
    let printed = examine(&peer, "/open", Program::nowhere()).await;
    assert!(printed.starts_with("1\n") && printed.contains("It answers without a login"), "{printed}");
}

#[tokio::test]
async fn json_says_the_same() {
    let peer = AuthorizationServer::new().start().await;
    let ended = Program::nowhere().run(&["doctor", &peer.url("/mcp"), "--json"]).await;
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((ended.code, &report["offered"]), (0, &json!(true)));
    assert_eq!(report["login"]["registration"], json!({ "by": "request", "with": peer.url("/register") }));
    assert_eq!(report["login"]["scopes"], json!(["read", "write"]));
    let findings: Vec<&Value> =
        report["steps"].as_array().unwrap().iter().map(|step| &step["finding"]).collect();
    assert_eq!(findings, ["good", "good", "good"]);
    assert_eq!(ended.stdout.lines().count(), 1);
}

#[tokio::test]
async fn bad_addresses_and_hostile_words_do_no_harm() {
    let ended = Program::nowhere().run(&["doctor", "example"]).await;
    assert_eq!(ended.code, 2);
    assert!(ended.stderr.contains("hint: write the address whole"), "{}", ended.stderr);
    for (address, reason) in
        [("https://10.0.0.1/mcp", "a private address"), ("http://127.0.0.1:9/mcp", "no connection")]
    {
        let ended = Program::nowhere().run(&["doctor", address]).await;
        assert!(ended.code == 1 && ended.stdout.contains(reason), "{ended:?}");
    }
    let peer = AuthorizationServer::new()
        .challenge("Bearer scope=\"a \u{9b}2J\"")
        .resource(json!({ "resource": "{own}/\u{1b}[2Jx", "resource_name": "\u{1b}[2J" }))
        .start()
        .await;
    let printed = examine(&peer, "/mcp", Program::nowhere()).await;
    assert!(!printed.contains(['\u{1b}', '\u{9b}']), "{printed:?}");
}
