//! What can come of asking an authorization server. The texts are ours: of the server's own words only a code is
//! kept, and that only when it is one.

use std::time::Duration;

/// Why no login could be offered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// Nothing there speaks of OAuth.
    #[error("{host} offers no login by OAuth")]
    NotOffered { host: String },
    /// It does, but not in a way that can be used safely. `reason` names the fault.
    #[error("the login that {host} offers cannot be used: {reason}")]
    Unusable { host: String, reason: String },
    /// An address was not reached this time.
    #[error("{reason}")]
    Unreachable { host: String, reason: String },
}

/// Why there is no client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistrationError {
    /// The server registers nobody by program: the operator must.
    #[error("{host} registers no clients by itself")]
    NotOffered { host: String },
    /// It registers some, and not us. `code` is the server's.
    #[error("{host} does not register this gateway ({code})")]
    NotAllowed { host: String, code: String },
    /// It refused what we said of ourselves.
    #[error("{host} refused the registration ({code})")]
    Refused { host: String, code: String },
    /// It may work later.
    #[error("{reason}")]
    Temporary { reason: String, retry_after: Option<Duration> },
    /// It said yes without giving an id.
    #[error("{host} answered the registration with something else than a client: {reason}")]
    NotAnAnswer { host: String, reason: String },
}

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The code or refresh token is used, expired, revoked or another client's: only a new login helps.
    #[error("the authorization server no longer takes this grant")]
    InvalidGrant,
    /// The client is unknown there, or its secret is: register again.
    #[error("the authorization server does not know this client")]
    InvalidClient,
    /// RFC 8707 §2
    #[error("the authorization server does not issue tokens for this resource")]
    InvalidTarget,
    #[error("the authorization server does not grant these scopes")]
    InvalidScope,
    /// Another code of RFC 6749 §5.2, or one the server made up.
    #[error("the authorization server refused: {code}")]
    Refused { code: String },
    /// Busy, broken, or not reached: nothing is wrong with the grant. `in_doubt`: the request may have been carried out.
    #[error("{reason}")]
    Temporary { reason: String, retry_after: Option<Duration>, in_doubt: bool },
    /// Neither a token nor an error. `in_doubt` as above: a success in a form that says nothing.
    #[error("the authorization server's answer is none: {reason}")]
    NotAnAnswer { reason: &'static str, in_doubt: bool },
    /// The address policy or the address itself forbids to ask.
    #[error("{0}")]
    Address(String),
}

/// An error code as RFC 6749 §5.2 allows it and short enough to be one, else a word that stands for it.
pub(super) fn code_of(text: &str) -> String {
    let is_code = (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.:/".contains(&byte));
    if is_code { text.to_owned() } else { "unreadable_error".to_owned() }
}
