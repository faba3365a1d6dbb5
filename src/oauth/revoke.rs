//! Telling an authorization server that a token is no longer wanted (RFC 7009).

use std::time::Duration;

use super::exchange::send;
use super::{TokenEndpoint, TokenError};
use crate::clean_json;
use crate::config::Secret;
use crate::egress::Egress;

/// Which kind of token it is (RFC 7009 §2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    Refresh,
    Access,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revoked {
    /// It is, or was not good any more.
    Done,
    /// The server cannot revoke this kind, or not at all.
    NotSupported,
    /// Not this time; asking again may help.
    Failing { reason: String, retry_after: Option<Duration> },
}

/// Revokes one token. `endpoint.url` is the metadata's `revocation_endpoint`; its `resource` is not sent.
pub async fn revoke(egress: &Egress, endpoint: &TokenEndpoint<'_>, token: &Secret, hint: Hint) -> Revoked {
    let hint = match hint {
        Hint::Refresh => "refresh_token",
        Hint::Access => "access_token",
    };
    let form = vec![("token", token.expose().to_owned()), ("token_type_hint", hint.to_owned())];
    let failing = |reason: String, retry_after| Revoked::Failing { reason, retry_after };
    let answer = match send(egress, endpoint, form).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(failure)) => return failing(failure.to_string(), None),
        Err(TokenError::Address(reason)) => return failing(reason, None),
        Err(other) => return failing(other.to_string(), None),
    };
    let code: Option<serde_json::Value> = clean_json::from_slice(&answer.body).ok();
    let code = code.as_ref().and_then(|body| body.get("error")?.as_str()).unwrap_or_default();
    match (answer.status.as_u16(), code) {
        // Whoever does not know the token any more has revoked it.
        (_, "invalid_token" | "invalid_grant") => Revoked::Done,
        (_, "unsupported_token_type") | (404 | 405 | 410 | 501, _) => Revoked::NotSupported,
        (200..=299, "") => Revoked::Done,
        (status, "") => failing(
            format!("the authorization server answered with HTTP status {status}"),
            answer.retry_after(),
        ),
        (_, code) => failing(
            format!("the authorization server refused: {}", super::error::code_of(code)),
            answer.retry_after(),
        ),
    }
}
