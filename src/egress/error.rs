//! Why an outbound request did not happen. One line each; no address that a name resolved to, since the
//! reader may be the one who should not learn it.

use std::time::Duration;

/// The address policy said no. The text names the reason and never a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("only http and https addresses can be called, not `{0}`")]
    Scheme(String),
    #[error("the method {0} cannot be sent to another server")]
    Method(String),
    #[error("an address must not carry a user name or password")]
    Credentials,
    #[error("`{0}` is not an address")]
    Malformed(String),
    /// `address` is the kind of address, such as "a private address".
    #[error(
        "`{host}` is or resolves to {address}, which is not a public address; the operator can allow it with `[[egress.allow]]`"
    )]
    NotPublic { host: String, address: String },
    #[error(
        "plain http to `{0}` is not allowed; use https, or let the operator allow it with `[[egress.allow]]`"
    )]
    PlainHttp(String),
    #[error(
        "port {port} of `{host}` is not allowed; use 443, or let the operator allow it with `[[egress.allow]] host = \"{host}\", ports = [{port}]`"
    )]
    Port { host: String, port: u16 },
}

/// What went wrong with one outbound request.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the name `{0}` was not found")]
    NameNotFound(String),
    #[error("no connection to {host}: {reason}")]
    Connect { host: String, reason: String },
    #[error("no secure connection to {host}: {reason}")]
    Tls { host: String, reason: String },
    #[error("{host} did not answer within {} s", .after.as_secs_f32())]
    Timeout { host: String, after: Duration },
    #[error("{host} broke off before it answered: {reason}")]
    Closed { host: String, reason: String },
    #[error("{host} redirects {reason}")]
    Redirect { host: String, reason: &'static str },
    /// A setting under `egress` cannot be used; only [`super::Egress::new`] says this.
    #[error("{0}")]
    Settings(String),
}

impl Error {
    /// Whether the request certainly never reached the server.
    pub fn is_before_sending(&self) -> bool {
        match self {
            Error::Refused(_)
            | Error::NameNotFound(_)
            | Error::Connect { .. }
            | Error::Tls { .. }
            | Error::Settings(_) => true,
            Error::Timeout { .. } | Error::Closed { .. } | Error::Redirect { .. } => false,
        }
    }
}

/// The innermost text of an error chain on one short line.
pub(super) fn one_line(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string().chars().filter(|c| !c.is_control()).take(200).collect()
}
