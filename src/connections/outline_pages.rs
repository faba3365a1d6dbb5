//! What the pages ask of connections. The outline only.

use http::Uri;

use super::{Application, Connections, Error, Reason, RevokeOutcome};
use crate::config::Secret;

/// How the person at the browser is proven. A project has exactly one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// They sign in at the gateway.
    Gateway,
    /// The application confirms its own session.
    App,
    /// It is their own machine.
    Local,
}

/// Where a flow is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nobody has left for the authorization server, or nobody has come back.
    Open,
    /// Somebody came back with another account than before, and must say whether that is right.
    OtherAccount,
    Granted,
    Declined,
    Failed,
    Mismatched,
    Expired,
}

/// A flow as its page shows it.
#[derive(Clone, Debug)]
pub struct FlowPage {
    /// What stands in the link after `/connect/`.
    pub link: String,
    pub host: String,
    pub resource: String,
    pub label: String,
    pub application: Application,
    pub user: String,
    pub profile: String,
    pub scopes: Vec<String>,
    pub reason: Reason,
    pub proof: Proof,
    pub stage: Stage,
    /// The application has confirmed the user for the browser that asks.
    pub proven: bool,
    pub created_at_ms: i64,
    pub expires_at_ms: i64,
}

/// What is behind a link.
#[derive(Clone, Debug)]
pub enum LinkView {
    One(Box<FlowPage>),
    /// In the order in which they are done.
    Several(Vec<FlowPage>),
}

/// The person at the browser, and the browser's cookie.
#[derive(Clone, Debug)]
pub enum Proven {
    /// Signed in under these ids.
    Gateway {
        ids: Vec<String>,
        browser: Secret,
    },
    /// Confirmed by the application, for this browser.
    App {
        browser: Secret,
    },
    Local {
        browser: Secret,
    },
}

/// The browser comes back.
#[derive(Clone, Debug)]
pub struct Callback {
    /// As they came, twice where they came twice.
    pub fields: Vec<(String, String)>,
    pub browser: Option<Secret>,
}

/// What coming back came to.
#[derive(Clone, Debug)]
pub enum Finished {
    /// Stored. `next` is the link of several that goes on.
    Connected { flow: Box<FlowPage>, account: Option<String>, next: Option<String> },
    /// Held until the person says that the other account is right.
    OtherAccount { flow: Box<FlowPage>, before: String, now: String },
}

/// Why a page cannot be what was asked for.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PageError {
    #[error("there is no such link")]
    Unknown,
    #[error("the link has expired")]
    Expired(Box<FlowPage>),
    #[error("the person is not the user of the link")]
    UserMismatch(Box<FlowPage>),
    /// The browser is not the one that was proven.
    #[error("nobody was proven in this browser")]
    NotProven,
    /// The browser that comes back is not the one that left; with the link, where it may be begun anew.
    #[error("the way back does not belong to this browser")]
    NotThisBrowser(Option<String>),
    /// The authorization server said no.
    #[error("the server refused")]
    Refused(Box<FlowPage>),
    /// The server cannot be used now.
    #[error("the server cannot be used")]
    Failed(Box<FlowPage>),
    #[error(transparent)]
    Store(#[from] Error),
}

/// A connection as its owner sees it.
#[derive(Clone, Debug)]
pub struct OwnConnection {
    pub id: String,
    pub project: String,
    pub profile: String,
    pub host: String,
    pub resource: String,
    pub account: Option<String>,
    pub application: Application,
    pub scopes: Vec<String>,
    pub needs_login: bool,
    pub last_used_at_ms: i64,
}

#[expect(clippy::unused_async, reason = "an outline")]
#[expect(clippy::missing_errors_doc, reason = "an outline")]
impl Connections {
    /// What is behind a link. Changes nothing.
    pub async fn view_link(&self, _link: &str, _browser: Option<&Secret>) -> Result<LinkView, PageError> {
        Err(PageError::Unknown)
    }

    /// Where the person goes to agree.
    pub async fn begin(&self, _link: &str, _proven: Proven) -> Result<Uri, PageError> {
        Err(PageError::Unknown)
    }

    /// The person says no, also to another account than before.
    pub async fn decline(&self, _link: &str) -> Result<FlowPage, PageError> {
        Err(PageError::Unknown)
    }

    /// The application's verifier, with a reference for this browser.
    pub async fn app_reference(&self, _link: &str, _browser: &Secret) -> Result<Uri, PageError> {
        Err(PageError::Unknown)
    }

    /// The browser came back.
    pub async fn finish(&self, _callback: Callback) -> Result<Finished, PageError> {
        Err(PageError::Unknown)
    }

    /// The person says that the other account is right.
    pub async fn keep(&self, _link: &str, _proven: Proven) -> Result<Finished, PageError> {
        Err(PageError::Unknown)
    }

    /// What this gateway is as a client.
    pub fn client_document(&self) -> String {
        "{}".to_owned()
    }

    /// What the person with these ids connected under the gateway's own proof, or at their machine.
    pub async fn list_own(&self, _ids: &[String]) -> Result<Vec<OwnConnection>, Error> {
        Ok(Vec::new())
    }

    /// Ends one of them.
    pub async fn revoke_own(&self, _: &[String], _project: &str, _id: &str) -> Result<RevokeOutcome, Error> {
        Ok(RevokeOutcome::NotFound)
    }

    /// A link for one of them, with other scopes.
    pub async fn reauthorize_own(
        &self,
        _ids: &[String],
        _project: &str,
        _id: &str,
        _scopes: Vec<String>,
    ) -> Result<String, PageError> {
        Err(PageError::Unknown)
    }
}
