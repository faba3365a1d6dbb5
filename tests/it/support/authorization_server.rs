//! A protected resource and its authorization server on one origin, doing exactly what a test says and else what the
//! specifications want. `{own}` in its texts stands for its origin.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Peer, Recorded, Reply};

type Answer = Arc<dyn Fn(&Recorded) -> Reply + Send + Sync>;

/// What it answers at each path, without the query.
#[derive(Default)]
pub struct AuthorizationServer {
    answers: BTreeMap<String, Answer>,
}

pub const RESOURCE_METADATA: &str = "/.well-known/oauth-protected-resource/mcp";
pub const SERVER_METADATA: &str = "/.well-known/oauth-authorization-server";

impl AuthorizationServer {
    /// One that does everything right.
    pub fn new() -> AuthorizationServer {
        AuthorizationServer::default()
            .challenge(r#"Bearer resource_metadata="{own}/.well-known/oauth-protected-resource/mcp""#)
            .json(RESOURCE_METADATA, 200, resource_metadata())
            .json(SERVER_METADATA, 200, server_metadata())
            .json("/register", 201, json!({ "client_id": "client-1", "token_endpoint_auth_method": "none" }))
            .json(
                "/token",
                200,
                json!({ "access_token": "access-1", "token_type": "Bearer", "expires_in": 3600 }),
            )
            .json("/revoke", 200, json!({}))
    }

    /// What a request without a token gets.
    #[must_use]
    pub fn challenge(self, challenge: &str) -> AuthorizationServer {
        let challenge = challenge.to_owned();
        self.on("/mcp", move |request| {
            let challenge = own(&challenge, request);
            Reply::with_headers(401, &[("www-authenticate", &challenge)], "")
        })
    }

    /// Fields of the resource's metadata; `null` takes one out.
    #[must_use]
    pub fn resource(self, changes: Value) -> AuthorizationServer {
        self.json(RESOURCE_METADATA, 200, changed(resource_metadata(), changes))
    }

    /// Fields of the server's metadata; `null` takes one out.
    #[must_use]
    pub fn server(self, changes: Value) -> AuthorizationServer {
        self.json(SERVER_METADATA, 200, changed(server_metadata(), changes))
    }

    /// A JSON answer at a path.
    #[must_use]
    pub fn json(self, path: &str, status: u16, body: Value) -> AuthorizationServer {
        self.text(path, status, "application/json", &body.to_string())
    }

    /// Any answer at a path.
    #[must_use]
    pub fn text(self, path: &str, status: u16, media_type: &str, body: &str) -> AuthorizationServer {
        let (media_type, body) = (media_type.to_owned(), body.to_owned());
        self.on(path, move |request| {
            Reply::with_headers(status, &[("content-type", &media_type)], &own(&body, request))
        })
    }

    /// An answer that a test works out.
    #[must_use]
    pub fn on(
        mut self,
        path: &str,
        answer: impl Fn(&Recorded) -> Reply + Send + Sync + 'static,
    ) -> AuthorizationServer {
        self.answers.insert(path.to_owned(), Arc::new(answer));
        self
    }

    /// Nothing at a path.
    #[must_use]
    pub fn without(mut self, path: &str) -> AuthorizationServer {
        self.answers.remove(path);
        self
    }

    pub async fn start(self) -> Peer {
        Peer::start(move |request| {
            let path = request.path.split('?').next().unwrap_or_default();
            match self.answers.get(path) {
                Some(answer) => answer(request),
                None => Reply::Json(404, json!({ "error": "not found" })),
            }
        })
        .await
    }
}

pub fn resource_metadata() -> Value {
    json!({
        "resource": "{own}/mcp", "authorization_servers": ["{own}"], "scopes_supported": ["read", "write"],
        "resource_name": "Files",
    })
}

pub fn server_metadata() -> Value {
    json!({
        "issuer": "{own}", "authorization_endpoint": "{own}/authorize", "token_endpoint": "{own}/token",
        "registration_endpoint": "{own}/register", "revocation_endpoint": "{own}/revoke",
        "response_types_supported": ["code"], "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["none", "client_secret_post", "client_secret_basic"],
        "authorization_response_iss_parameter_supported": true,
    })
}

fn changed(mut document: Value, changes: Value) -> Value {
    let Value::Object(changes) = changes else { panic!("changes are an object") };
    let fields = document.as_object_mut().expect("a document is an object");
    for (name, value) in changes {
        if value.is_null() {
            fields.remove(&name);
        } else {
            fields.insert(name, value);
        }
    }
    document
}

fn own(text: &str, request: &Recorded) -> String {
    text.replace("{own}", &format!("http://{}", request.header("host").unwrap_or_default()))
}
