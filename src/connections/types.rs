//! What connections are asked for, and what they answer.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;

use crate::config::Secret;
use crate::oauth::Challenge;

/// Whose connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    pub project: Arc<str>,
    pub user: Arc<str>,
    pub profile: Arc<str>,
}

/// A credential.
#[derive(Clone, Debug)]
pub struct Access {
    pub connection: Arc<str>,
    /// What the connection is for: the credential is sent to no address that this does not cover.
    pub resource: Arc<str>,
    pub generation: i64,
    pub authorization: Secret,
}

/// Why a login is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    FirstUse,
    /// It is over, and cannot be renewed.
    Expired,
    /// The authorization server does not renew it any more.
    Revoked,
    /// The server refuses tokens that are fresh.
    Refused,
    StepUp,
    /// The person, or the application, wants to change what the login is for.
    ReAuthorize,
}

/// What a login is to be for.
#[derive(Clone, Debug, Default)]
pub enum Scopes {
    /// What the server asks for, and what the connection has.
    #[default]
    AsAsked,
    /// These, and what the connection has.
    Also(Vec<String>),
    /// These and no others.
    Exactly(Vec<String>),
}

/// What a consent page calls the caller.
#[derive(Clone, Debug)]
pub struct Application {
    pub name: Arc<str>,
    pub verified: bool,
    /// From where it asks now, where nobody vouches for it and that is known.
    pub place: Option<IpAddr>,
}

/// A login that is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub uri: Uri,
    pub label: String,
    /// What the server said; without it, it is asked.
    pub challenge: Option<Challenge>,
    pub scopes: Scopes,
    pub reason: Reason,
    pub application: Application,
    pub callback_url: Option<String>,
    pub run_id: Option<String>,
    /// How long the link must be good at least: somebody waits for the login so long.
    pub lasting: Duration,
}

/// A login that was begun.
#[derive(Clone)]
pub struct PendingFlow {
    pub flow: Arc<str>,
    pub connect_url: String,
    pub resource: String,
    pub host: String,
    pub scopes: Vec<String>,
    pub expires_at_ms: i64,
}

/// Without the link: whoever has it can act on it.
impl fmt::Debug for PendingFlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingFlow")
            .field("flow", &self.flow)
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

/// What a refused credential came to.
#[derive(Clone, Debug)]
pub enum Renewed {
    Access(Access),
    LoginNeeded { reason: Reason },
}

/// How a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowState {
    /// The person said no, here or at the authorization server.
    Declined,
    /// Nobody finished it in time.
    Expired,
}

/// How waiting ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    Granted,
    Ended(FlowState),
    TimedOut,
}

/// What ending a connection came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RevokeOutcome {
    /// There is no such connection, or it ended before.
    NotFound,
    /// It ended here, and the authorization server has revoked the tokens.
    Revoked,
    /// It ended here; the authorization server cannot revoke.
    Unsupported,
    /// It ended here; the authorization server did not take the revocation yet, and is asked again.
    Retrying,
}

/// A connection without its secrets.
#[derive(Clone, Debug)]
pub struct ConnectionView {
    pub id: String,
    pub user: String,
    pub profile: String,
    pub server_url: String,
    pub resource: String,
    pub account: Option<String>,
    pub scopes: Vec<String>,
    pub status: String,
    pub application: String,
    pub created_at_ms: i64,
    pub last_used_at_ms: i64,
}
