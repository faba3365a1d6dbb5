//! Dynamic client registration: what is sent, and what may come back.

use serde_json::{Value, json};
use toolgate::oauth::{AuthMethod, ClientDocument, RegistrationError, register};

use super::{egress, find};
use crate::support::Reply;
use crate::support::authorization_server::AuthorizationServer;

const PUBLIC: &str = "https://tools.example.com";

fn document() -> ClientDocument {
    let mut document = ClientDocument::new(PUBLIC, &format!("{PUBLIC}/oauth/callback"));
    document.scope = Some("read write".to_owned());
    document
}

#[tokio::test]
async fn what_we_say_of_ourselves_is_complete() {
    let server = AuthorizationServer::new().start().await;
    let found = find(&server).await.unwrap();
    let client = register(&egress(), &found.server, &document()).await.unwrap().client;
    assert_eq!((client.id.as_str(), client.auth_method), ("client-1", AuthMethod::None));
    let sent = server.requests().pop().unwrap();
    assert_eq!(sent.header("content-type"), Some("application/json"));
    assert_eq!(
        sent.json(),
        json!({
            "client_name": "toolgate", "client_uri": PUBLIC,
            "redirect_uris": ["https://tools.example.com/oauth/callback"],
            "grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"],
            "application_type": "web", "token_endpoint_auth_method": "none", "scope": "read write",
        })
    );
    for (base, kind) in [
        ("http://127.0.0.1:8787", "native"),
        ("http://localhost:8787", "native"),
        ("http://[::1]:8787", "native"),
        ("https://127.0.0.1:8787", "web"),
        ("https://localhost.example.com", "web"),
        ("http://127.0.0.1.example.com", "web"),
    ] {
        let own = ClientDocument::new(base, &format!("{base}/oauth/callback"));
        assert_eq!(own.application_type, kind, "{base}");
    }
    let served = serde_json::to_value(document().served_at("https://tools.example.com/me.json")).unwrap();
    assert_eq!(served["client_id"], "https://tools.example.com/me.json");
}

#[tokio::test]
async fn how_the_client_proves_itself_is_agreed_on() {
    for (listed, answered, secret, method) in [
        (json!(["client_secret_post"]), json!(null), "s", AuthMethod::ClientSecretPost),
        (json!(["client_secret_basic"]), json!(null), "s", AuthMethod::ClientSecretBasic),
        (
            json!(["client_secret_post", "client_secret_basic"]),
            json!(null),
            "s",
            AuthMethod::ClientSecretPost,
        ),
        (json!(["none"]), json!(null), "s", AuthMethod::None),
        (json!(["none"]), json!("client_secret_post"), "s", AuthMethod::ClientSecretPost),
        (json!(null), json!(null), "s", AuthMethod::ClientSecretBasic),
        (json!(null), json!("none"), "", AuthMethod::None),
        (json!(["client_secret_basic"]), json!("client_secret_basic"), "", AuthMethod::None),
    ] {
        let server = AuthorizationServer::new()
            .server(json!({ "token_endpoint_auth_methods_supported": listed }))
            .json(
                "/register",
                201,
                json!({ "client_id": "c", "client_secret": secret, "token_endpoint_auth_method": answered }),
            )
            .start()
            .await;
        let found = find(&server).await.unwrap();
        let client = register(&egress(), &found.server, &document()).await.unwrap().client;
        assert_eq!(client.auth_method, method, "{listed} {answered}");
    }
}

/// The name of the outcome.
fn kind(error: &RegistrationError) -> &'static str {
    match error {
        RegistrationError::NotOffered { .. } => "not offered",
        RegistrationError::NotAllowed { .. } => "not allowed",
        RegistrationError::Refused { .. } => "refused",
        RegistrationError::Temporary { .. } => "temporary",
        RegistrationError::NotAnAnswer { .. } => "no answer",
    }
}

#[tokio::test]
async fn every_no_is_told_apart() {
    let long = "x".repeat(5000);
    let cases: Vec<(u16, Value, &str)> = vec![
        (404, json!({}), "not offered"),
        (403, json!("Forbidden"), "not allowed"),
        (401, json!({}), "not allowed"),
        (400, json!({ "error": "access_denied" }), "not allowed"),
        (400, json!({ "error": "invalid_redirect_uri" }), "refused"),
        (400, json!({ "error": "<script>" }), "refused"),
        (302, json!({}), "refused"),
        (429, json!({}), "temporary"),
        (500, json!({ "error": "invalid_client_metadata" }), "temporary"),
        (201, json!({}), "no answer"),
        (200, json!("<html>"), "no answer"),
        (201, json!({ "client_id": "" }), "no answer"),
        (201, json!({ "client_id": "a\r\nauthorization: Basic x" }), "no answer"),
        (201, json!({ "client_id": "a b" }), "no answer"),
        (201, json!({ "client_id": long }), "no answer"),
        (201, json!({ "client_id": "a", "client_secret": "b\r\nc" }), "no answer"),
        (201, json!({ "client_id": "a", "client_secret": long }), "no answer"),
        (201, json!({ "client_id": 7 }), "no answer"),
    ];
    for (status, body, expected) in cases {
        let server = AuthorizationServer::new().json("/register", status, body.clone()).start().await;
        let found = find(&server).await.unwrap();
        let error = register(&egress(), &found.server, &document()).await.unwrap_err();
        assert_eq!(kind(&error), expected, "{status} {body}");
        let text = error.to_string();
        assert!(!text.contains("script") && text.len() < 300, "{text}");
    }
}

#[tokio::test]
async fn a_registration_is_not_sent_on_to_another_server() {
    let other = AuthorizationServer::new().start().await;
    let to = other.url("/register");
    let server = AuthorizationServer::new()
        .on("/register", move |_| Reply::with_headers(307, &[("location", &to)], ""))
        .start()
        .await;
    let found = find(&server).await.unwrap();
    assert_eq!(kind(&register(&egress(), &found.server, &document()).await.unwrap_err()), "refused");
    assert!(other.requests().is_empty());
}

#[tokio::test]
async fn on_ones_own_machine_the_gateway_registers_as_a_native_application_and_as_another_where_that_is_refused()
 {
    for refused in ["web", "native"] {
        let server = AuthorizationServer::new()
            .on("/register", move |request| {
                if request.json()["application_type"] == refused {
                    return Reply::Json(400, json!({ "error": "invalid_redirect_uri" }));
                }
                Reply::Json(201, json!({ "client_id": "client-1", "token_endpoint_auth_method": "none" }))
            })
            .start()
            .await;
        let found = find(&server).await.unwrap();
        let own = ClientDocument::new("http://127.0.0.1:8787", "http://127.0.0.1:8787/oauth/callback");
        let client = register(&egress(), &found.server, &own).await.unwrap().client;
        assert_eq!(client.id, "client-1", "{refused} is refused");
        let elsewhere = register(&egress(), &found.server, &document()).await;
        assert_eq!(elsewhere.is_ok(), refused == "native", "with https it is a web application");
    }
}
