//! The few requests of a sign-in. Addresses are the operator's, or those that the operator's issuer names.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use serde_json::Value;

use crate::clean_json;
use crate::config::Secret;
use crate::egress::{self, Egress, Reach};

/// Time for each request, head and body.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest answer, in bytes.
const LARGEST: usize = 256 << 10;

/// Why a provider gave no usable answer: for the log. Never holds a provider's text.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error(transparent)]
    Egress(#[from] egress::Error),
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("its answer is not the JSON it should be, too large, or too slow")]
    Answer,
    /// `error` of RFC 6749 §5.2, when it is one of that list.
    #[error("it answered `{0}`")]
    Code(&'static str),
}

/// What of an issuer's metadata a sign-in needs (OpenID Connect Discovery 1.0 §3).
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Metadata {
    pub issuer: String,
    pub authorization_endpoint: String,
    pub token_endpoint: String,
    pub userinfo_endpoint: Option<String>,
    #[serde(default)]
    pub token_endpoint_auth_methods_supported: Vec<String>,
    /// RFC 9207 §3
    #[serde(default)]
    pub authorization_response_iss_parameter_supported: bool,
}

/// How the client proves itself at the token endpoint.
pub(super) enum ClientProof<'a> {
    None,
    Basic(&'a Secret),
    Post(&'a Secret),
}

/// The metadata of `issuer`, from its well-known place.
pub(super) async fn metadata(egress: &Egress, issuer: &str) -> Result<Metadata, WireError> {
    let address = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let answer = get(egress, &address, None).await?;
    serde_json::from_value(answer).map_err(|_| WireError::Answer)
}

/// Exchanges a code for tokens and gives the answer's fields.
pub(super) async fn exchange(
    egress: &Egress,
    endpoint: &str,
    client_id: &str,
    proof: ClientProof<'_>,
    fields: &[(&str, &str)],
) -> Result<Value, WireError> {
    let request = token_request(endpoint, client_id, proof, fields)?;
    let (status, answer) = send(egress, request).await?;
    // GitHub reports errors with status 200.
    if let Some(code) = answer["error"].as_str() {
        return Err(WireError::Code(known_code(code)));
    }
    if status.is_success() { Ok(answer) } else { Err(WireError::Status(status)) }
}

fn token_request(
    endpoint: &str,
    client_id: &str,
    proof: ClientProof<'_>,
    fields: &[(&str, &str)],
) -> Result<Request<egress::Body>, WireError> {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "authorization_code");
    form.extend_pairs(fields);
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(address(endpoint)?)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(header::ACCEPT, "application/json");
    match proof {
        ClientProof::None => {
            form.append_pair("client_id", client_id);
        }
        ClientProof::Post(secret) => {
            form.append_pair("client_id", client_id).append_pair("client_secret", secret.expose());
        }
        ClientProof::Basic(secret) => {
            request = request.header(header::AUTHORIZATION, basic(client_id, secret))
        }
    }
    let body = egress::full(Bytes::from(form.finish()));
    request.body(body).map_err(|_| WireError::Answer)
}

/// Asks an API who the token's person is.
pub(super) async fn get(egress: &Egress, place: &str, token: Option<&Secret>) -> Result<Value, WireError> {
    let mut request = Request::builder()
        .uri(address(place)?)
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, concat!("toolgate/", env!("CARGO_PKG_VERSION")));
    if let Some(token) = token {
        let mut value =
            HeaderValue::try_from(format!("Bearer {}", token.expose())).map_err(|_| WireError::Answer)?;
        value.set_sensitive(true);
        request = request.header(header::AUTHORIZATION, value);
    }
    let request = request.body(egress::full(Bytes::new())).map_err(|_| WireError::Answer)?;
    let (status, answer) = send(egress, request).await?;
    if status.is_success() { Ok(answer) } else { Err(WireError::Status(status)) }
}

async fn send(egress: &Egress, request: Request<egress::Body>) -> Result<(StatusCode, Value), WireError> {
    let response = egress.send(Reach::Configured, request, PATIENCE).await?;
    let status = response.status();
    if status.is_redirection() {
        return Err(WireError::Status(status));
    }
    let response = egress::decoded(response).map_err(|reason| {
        tracing::warn!(%reason, "an answer of a sign-in provider could not be read");
        WireError::Answer
    })?;
    let reading = Limited::new(response.into_body(), LARGEST).collect();
    let body = tokio::time::timeout(PATIENCE, reading).await;
    let body = body.map_err(|_| WireError::Answer)?.map_err(|_| WireError::Answer)?.to_bytes();
    match clean_json::from_slice(&body) {
        Ok(answer) => Ok((status, answer)),
        Err(_) if !status.is_success() => Err(WireError::Status(status)),
        Err(_) => Err(WireError::Answer),
    }
}

/// An address that credentials may be sent to, and people: https, or this machine.
pub(super) fn address(text: &str) -> Result<Uri, WireError> {
    let uri = egress::parse_uri(text).map_err(egress::Error::from)?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let here = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    if uri.scheme_str() == Some("https") || here { Ok(uri) } else { Err(WireError::Answer) }
}

/// RFC 6749 §2.3.1: both parts are form-encoded before they are joined.
fn basic(client_id: &str, secret: &Secret) -> HeaderValue {
    use base64::Engine as _;
    let encode = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = zeroize::Zeroizing::new(format!("{}:{}", encode(client_id), encode(secret.expose())));
    let text = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair.as_bytes()));
    let mut value = HeaderValue::try_from(text).expect("base64 is plain ASCII");
    value.set_sensitive(true);
    value
}

fn known_code(code: &str) -> &'static str {
    const KNOWN: &[&str] = &[
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
        "bad_verification_code",
        "incorrect_client_credentials",
        "redirect_uri_mismatch",
    ];
    KNOWN.iter().find(|known| **known == code).unwrap_or(&"another error")
}
