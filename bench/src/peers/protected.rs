//! MCP servers that want a login, and the authorization server behind them, which asks nobody anything.
//!
//! `/mcp/{ms}/{name}` is a server that answers everything, its metadata included, after so many milliseconds.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{HeaderValue, LOCATION, WWW_AUTHENTICATE};
use hyper::{Request, Response, StatusCode};
use serde_json::{Value, json};

use super::mcp;
use super::serve::{self, Body};

const METADATA: &str = "/.well-known/oauth-protected-resource";
const TOKEN: &str = "bench-token";

pub fn serve(port: u16) -> Result<(), String> {
    serve::forever(port, move |request| respond(request, port))
}

async fn respond(request: Request<Incoming>, port: u16) -> Result<Response<Body>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let own = format!("http://127.0.0.1:{port}");
    let path = head.uri.path();
    let server = path.strip_prefix(METADATA).unwrap_or(path);
    let delay = server.strip_prefix("/mcp/").and_then(|rest| rest.split('/').next()?.parse().ok());
    if let Some(milliseconds) = delay.filter(|delay| *delay > 0) {
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    }
    Ok(match path {
        "/.well-known/oauth-authorization-server" => json_answer(&json!({
            "issuer": own, "authorization_endpoint": format!("{own}/authorize"),
            "token_endpoint": format!("{own}/token"), "registration_endpoint": format!("{own}/register"),
            "response_types_supported": ["code"], "grant_types_supported": ["authorization_code", "refresh_token"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["none"],
            "authorization_response_iss_parameter_supported": true,
        })),
        "/register" => {
            let mut client: Value = serde_json::from_slice(&body).unwrap_or_default();
            client["client_id"] = json!("bench-client");
            client["token_endpoint_auth_method"] = json!("none");
            with_status(json_answer(&client), StatusCode::CREATED)
        }
        "/authorize" => back(&head.uri, &own),
        "/token" => json_answer(&json!({
            "access_token": TOKEN, "token_type": "Bearer", "expires_in": 86400, "refresh_token": "bench-refresh",
        })),
        _ if path.starts_with(METADATA) => json_answer(&json!({
            "resource": format!("{own}{server}"), "authorization_servers": [own], "scopes_supported": ["read"],
        })),
        _ if path.starts_with("/mcp/") => {
            let authorized = head
                .headers
                .get("authorization")
                .is_some_and(|value| value.as_bytes() == format!("Bearer {TOKEN}").as_bytes());
            if authorized { mcp::answer(path, &body).await } else { challenge(&own, path) }
        }
        _ => with_status(json_answer(&json!({})), StatusCode::NOT_FOUND),
    })
}

/// The redirect of a person who agreed.
fn back(uri: &hyper::Uri, own: &str) -> Response<Body> {
    let field = |name: &str| {
        let pairs = uri.query().unwrap_or_default().split('&');
        pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    let target = field("redirect_uri").unwrap_or_default().replace("%3A", ":").replace("%2F", "/");
    let state = field("state").unwrap_or_default();
    let issuer = own.replace(':', "%3A").replace('/', "%2F");
    let mut response = serve::answer("text/plain", serve::full(""));
    *response.status_mut() = StatusCode::FOUND;
    if let Ok(value) = HeaderValue::try_from(format!("{target}?code=bench&state={state}&iss={issuer}")) {
        response.headers_mut().insert(LOCATION, value);
    }
    response
}

fn challenge(own: &str, path: &str) -> Response<Body> {
    let mut response = with_status(json_answer(&json!({})), StatusCode::UNAUTHORIZED);
    let value = format!(r#"Bearer resource_metadata="{own}{METADATA}{path}", scope="read""#);
    if let Ok(value) = HeaderValue::try_from(value) {
        response.headers_mut().insert(WWW_AUTHENTICATE, value);
    }
    response
}

fn with_status(mut response: Response<Body>, status: StatusCode) -> Response<Body> {
    *response.status_mut() = status;
    response
}

fn json_answer(value: &Value) -> Response<Body> {
    serve::answer("application/json", serve::full(value.to_string()))
}
