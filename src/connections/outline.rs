//! What runs and the API ask of connections.

use std::sync::Arc;

use http::Uri;

use crate::config::Secret;
use crate::tools::Challenge;

/// Whose connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub project: Arc<str>,
    pub user: Arc<str>,
    pub profile: Arc<str>,
}

/// All connections. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Connections(());

/// What is stored cannot be read or written.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the store cannot be used")]
pub struct Error;

/// Why there is no login.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FlowError {
    /// The server offers none.
    #[error("{0}")]
    NotOffered(String),
    /// The person at the browser is somebody else.
    #[error("the login was asked for by another user")]
    UserMismatch,
    /// No such link or reference, or it was used, or has expired.
    #[error("there is no such login; ask for a new link")]
    Unknown,
    #[error(transparent)]
    Store(#[from] Error),
}

/// A credential.
#[derive(Clone, Debug)]
pub struct Access {
    pub connection: Arc<str>,
    pub generation: i64,
    pub authorization: Secret,
}

/// Why a login is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    FirstUse,
    Expired,
    Revoked,
    StepUp,
    ReAuthorize,
}

/// What a consent page calls the caller.
#[derive(Clone, Debug)]
pub struct Application {
    pub name: Arc<str>,
    pub verified: bool,
}

/// A login that is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub uri: Uri,
    pub label: String,
    pub challenge: Option<Challenge>,
    pub reason: Reason,
    pub application: Application,
    pub callback_url: Option<String>,
    pub run_id: Option<String>,
}

/// A login that was begun.
#[derive(Clone, Debug)]
pub struct PendingFlow {
    pub flow: Arc<str>,
    pub connect_url: String,
    pub resource: String,
    pub host: String,
    pub scopes: Vec<String>,
    pub expires_at_ms: i64,
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
    Declined,
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
    NotFound,
    Revoked,
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

#[expect(clippy::unused_async, reason = "an outline")]
#[expect(clippy::missing_errors_doc, reason = "an outline")]
impl Connections {
    /// A credential for `uri`.
    pub async fn find_access(&self, _owner: &Owner, _uri: &Uri) -> Result<Option<Access>, Error> {
        Ok(None)
    }

    /// The server refused `access`.
    pub async fn renew(&self, _: &Owner, _access: &Access, _: &Challenge) -> Result<Renewed, Error> {
        Err(Error)
    }

    /// A login link.
    pub async fn start_flow(&self, _owner: &Owner, _wanted: Wanted) -> Result<PendingFlow, FlowError> {
        Err(FlowError::NotOffered("the gateway keeps no logins yet".to_owned()))
    }

    /// One link for several logins.
    pub async fn start_batch(&self, _owner: &Owner, _flows: &[PendingFlow]) -> Result<String, Error> {
        Err(Error)
    }

    /// Until the flows have ended.
    pub async fn wait(&self, _flows: &[PendingFlow], until: tokio::time::Instant) -> Waited {
        tokio::time::sleep_until(until).await;
        Waited::TimedOut
    }

    /// The connections of a project.
    pub async fn list(
        &self,
        _project: &str,
        _user: Option<&str>,
        _profile: Option<&str>,
    ) -> Result<Vec<ConnectionView>, Error> {
        Ok(Vec::new())
    }

    /// Ends a connection.
    pub async fn revoke(&self, _project: &str, _id: &str, _by: &str) -> Result<RevokeOutcome, Error> {
        Ok(RevokeOutcome::NotFound)
    }

    /// The application's confirmation.
    pub async fn confirm(&self, _project: &str, _flow_ref: &str, _user: &str) -> Result<Uri, FlowError> {
        Err(FlowError::Unknown)
    }

    /// A credential for the application itself, with an entry in the audit log.
    pub async fn give_out(&self, _: &Owner, _uri: &Uri, _by: &str) -> Result<Option<Access>, Error> {
        Ok(None)
    }
}
