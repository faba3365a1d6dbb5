//! What pages ask of connections, and what they show.

use super::{Application, Reason};
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
    /// Somebody came back just now, and the login is being finished.
    Returned,
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
    /// Its id, by which a form says what its person was shown.
    pub flow: String,
    pub host: String,
    /// Where the person will sign in: the host of the authorization server's page.
    pub sign_in_host: String,
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
