//! What the protected resource and its authorization server say of themselves.

use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use crate::demo::address::Here;
use crate::demo::router;

/// The one scope there is.
pub const SCOPE: &str = "tools";

/// `GET /.well-known/oauth-protected-resource/demo/private/mcp` (RFC 9728 §2).
pub async fn resource(request: Request) -> Response {
    told(&request, |here| {
        json!({
            "resource": here.resource(),
            "resource_name": "toolgate demo, private tools",
            "authorization_servers": [here.issuer()],
            "scopes_supported": [SCOPE],
            "bearer_methods_supported": ["header"],
        })
    })
}

/// `GET /.well-known/oauth-authorization-server/demo/oauth` (RFC 8414 §2).
pub async fn server(request: Request) -> Response {
    told(&request, |here| {
        let issuer = here.issuer();
        json!({
            "issuer": issuer,
            "authorization_endpoint": format!("{issuer}/authorize"),
            "token_endpoint": format!("{issuer}/token"),
            "revocation_endpoint": format!("{issuer}/revoke"),
            "registration_endpoint": format!("{issuer}/register"),
            "client_id_metadata_document_supported": true,
            "scopes_supported": [SCOPE],
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "token_endpoint_auth_methods_supported": ["none"],
            "revocation_endpoint_auth_methods_supported": ["none"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": true,
        })
    })
}

fn told(request: &Request, document: impl FnOnce(&Here) -> Value) -> Response {
    match Here::of(request.headers()) {
        Some(here) => router::json(StatusCode::OK, &document(&here)),
        None => router::json(
            StatusCode::BAD_REQUEST,
            &json!({"error": "the Host header is not a loopback address"}),
        ),
    }
}
