//! Why an outbound request did not happen.

use std::time::Duration;

/// The address policy said no. The text names the reason and never a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("only http and https addresses can be called, not `{0}`")]
    Scheme(String),
    #[error("an address must not carry a user name or password")]
    Credentials,
    #[error("`{0}` is not an address")]
    Malformed(String),
    #[error("`{host}` is or resolves to {address}, which is not a public address")]
    NotPublic { host: String, address: String },
    #[error("plain http to `{0}` is not allowed; use https")]
    PlainHttp(String),
    #[error("port {port} of `{host}` is not allowed")]
    Port { host: String, port: u16 },
}

/// What went wrong with one outbound request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the name `{0}` was not found")]
    NameNotFound(String),
    #[error("no connection to {host}: {reason}")]
    Connect { host: String, reason: String },
    #[error("no secure connection to {host}: {reason}")]
    Tls { host: String, reason: String },
    #[error("{host} did not answer within {} s", .after.as_secs())]
    Timeout { host: String, after: Duration },
    #[error("{host} closed the connection: {reason}")]
    Closed { host: String, reason: String },
    #[error("{host} redirects too often, or to where it must not")]
    Redirect { host: String },
}

impl Error {
    /// Whether the request certainly never reached the server.
    pub fn is_before_sending(&self) -> bool {
        match self {
            Error::Refused(_) | Error::NameNotFound(_) | Error::Connect { .. } | Error::Tls { .. } => true,
            Error::Timeout { .. } | Error::Closed { .. } | Error::Redirect { .. } => false,
        }
    }
}
