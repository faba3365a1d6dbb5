//! Dynamic client registration (RFC 7591).

use http::Uri;
use serde::Deserialize;

use super::error::code_of;
use super::fetch::{self, Failure};
use super::{AuthMethod, Client, ClientDocument, RegistrationError, ServerMetadata};
use crate::clean_json;
use crate::config::Secret;
use crate::egress::{self, Egress, Reach, parse_uri};

/// Longest client id or secret, in bytes.
const MAX_BYTES: usize = 4096;

#[derive(Deserialize)]
struct Document {
    client_id: Option<String>,
    client_secret: Option<String>,
    client_secret_expires_at: Option<i64>,
    token_endpoint_auth_method: Option<String>,
    error: Option<String>,
}

/// A client that a server has just made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewClient {
    pub client: Client,
    /// When its secret ends, in Unix seconds; `None` when it does not (RFC 7591 §3.2.1).
    pub secret_ends: Option<i64>,
}

/// Registers the client that `document` describes. How it proves itself is agreed on from what the server lists.
///
/// # Errors
/// See [`RegistrationError`].
pub async fn register(
    egress: &Egress,
    server: &ServerMetadata,
    document: &ClientDocument,
) -> Result<NewClient, RegistrationError> {
    let issuer_host = || host_of(&server.issuer);
    let Some(endpoint) = &server.registration_endpoint else {
        return Err(RegistrationError::NotOffered { host: issuer_host() });
    };
    let host = host_of(endpoint);
    let uri = parse_uri(endpoint)
        .map_err(|refusal| RegistrationError::Refused { host: host.clone(), code: refusal.to_string() })?;
    let mut document = document.clone();
    document.client_id = None;
    document.token_endpoint_auth_method = server.registered_auth_method();
    let outcome = register_once(egress, &host, &uri, &document).await;
    // A server that knows no native clients may take the same address from a web client.
    if matches!(&outcome, Err(RegistrationError::Refused { .. })) && document.application_type == "native" {
        document.application_type = "web";
        let second = register_once(egress, &host, &uri, &document).await;
        return if second.is_ok() { second } else { outcome };
    }
    outcome
}

async fn register_once(
    egress: &Egress,
    host: &str,
    uri: &Uri,
    document: &ClientDocument,
) -> Result<NewClient, RegistrationError> {
    let host = host.to_owned();
    let body = serde_json::to_string(document).expect("texts and lists are JSON");
    let answer = match fetch::post(egress, Reach::Requested, uri, "application/json", None, body).await {
        Ok(answer) => answer,
        Err(Failure::Egress(egress::Error::Refused(refusal))) => {
            return Err(RegistrationError::Refused { host, code: refusal.to_string() });
        }
        Err(failure) => {
            return Err(RegistrationError::Temporary { reason: failure.to_string(), retry_after: None });
        }
    };
    let status = answer.status.as_u16();
    if matches!(status, 408 | 425 | 429 | 500..) {
        return Err(RegistrationError::Temporary {
            reason: format!("{host} answered the registration with HTTP status {status}"),
            retry_after: answer.retry_after(),
        });
    }
    let read: Option<Document> = clean_json::from_slice(&answer.body).ok();
    let code = read.as_ref().and_then(|read| read.error.as_deref()).map(code_of);
    match (status, code) {
        (200..=299, None) => {}
        (404 | 405 | 410, None) => return Err(RegistrationError::NotOffered { host }),
        (401 | 403, code) => {
            let code = code.unwrap_or_else(|| format!("HTTP status {status}"));
            return Err(RegistrationError::NotAllowed { host, code });
        }
        (_, Some(code)) if is_allow_list(&code) => {
            return Err(RegistrationError::NotAllowed { host, code });
        }
        (_, Some(code)) => return Err(RegistrationError::Refused { host, code }),
        (_, None) => {
            return Err(RegistrationError::Refused { host, code: format!("HTTP status {status}") });
        }
    }
    client_of(read, document.token_endpoint_auth_method)
        .map_err(|reason| RegistrationError::NotAnAnswer { host, reason: reason.to_owned() })
}

/// RFC 7591 §3.2.2, and what servers with a list of friends say.
fn is_allow_list(code: &str) -> bool {
    matches!(
        code,
        "unapproved_software_statement"
            | "access_denied"
            | "unauthorized_client"
            | "invalid_software_statement"
    )
}

fn client_of(read: Option<Document>, asked: AuthMethod) -> Result<NewClient, &'static str> {
    let read = read.ok_or("it is not JSON")?;
    let is_good = |text: &str, visible: fn(u8) -> bool| {
        (1..=MAX_BYTES).contains(&text.len()) && text.bytes().all(visible)
    };
    // RFC 6749 appendix A.1 and A.2: what is printable; a space in an id or secret is more likely an attack.
    let id = read.client_id.ok_or("it holds no client id")?;
    if !is_good(&id, |byte| byte.is_ascii_graphic()) {
        return Err("its client id is unreadable");
    }
    let secret = read.client_secret.filter(|secret| !secret.is_empty());
    if secret.as_ref().is_some_and(|secret| !is_good(secret, |byte| byte.is_ascii_graphic() || byte == b' '))
    {
        return Err("its client secret is unreadable");
    }
    // What it says it registered; else what was asked, since RFC 7591 §3.2.1 makes it say when that differs.
    let auth_method = match (read.token_endpoint_auth_method.as_deref(), &secret) {
        (_, None) | (Some("none"), Some(_)) => AuthMethod::None,
        (Some("client_secret_post"), Some(_)) => AuthMethod::ClientSecretPost,
        (Some("client_secret_basic"), Some(_)) => AuthMethod::ClientSecretBasic,
        (Some(_) | None, Some(_)) => asked,
    };
    let secret_ends = read.client_secret_expires_at.filter(|end| *end > 0 && secret.is_some());
    Ok(NewClient { client: Client { id, secret: secret.map(Secret::new), auth_method }, secret_ends })
}

pub(super) fn host_of(url: &str) -> String {
    let uri = parse_uri(url).ok();
    uri.and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_else(|| "the authorization server".to_owned())
}
