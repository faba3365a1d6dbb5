//! What pages ask of connections, and what they show.

use std::fmt;

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
#[derive(Clone)]
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

/// Without the link: whoever has it can act on it.
impl fmt::Debug for FlowPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowPage")
            .field("host", &self.host)
            .field("user", &self.user)
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
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
#[derive(Clone)]
pub struct Callback {
    /// As they came, twice where they came twice.
    pub fields: Vec<(String, String)>,
    pub browser: Option<Secret>,
}

/// Without the values: code and state are among them.
impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.fields.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Callback").field("fields", &names).finish_non_exhaustive()
    }
}

/// What coming back came to.
#[derive(Clone)]
pub enum Finished {
    /// Stored. `next` is the link of several that goes on.
    Connected { flow: Box<FlowPage>, account: Option<String>, next: Option<String> },
    /// Held until the person says that the other account is right.
    OtherAccount { flow: Box<FlowPage>, question: Question },
}

/// What the person is asked where a login is of another account than the one before.
#[derive(Clone, Debug)]
pub struct Question {
    /// By which an answer says which login its person was shown. Every way back has another one.
    pub id: String,
    /// The account before.
    pub before: String,
    /// The account of the login that waits.
    pub now: String,
}

/// Without the link that goes on.
impl fmt::Debug for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, flow) = match self {
            Finished::Connected { flow, .. } => ("Connected", flow),
            Finished::OtherAccount { flow, .. } => ("OtherAccount", flow),
        };
        f.debug_struct(name).field("flow", flow).finish_non_exhaustive()
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connections::{PageError, PendingFlow};

    #[test]
    fn neither_links_nor_codes_nor_states_are_seen_by_who_looks_at_values() {
        let flow = Box::new(FlowPage {
            flow: "flow_1".into(),
            link: "CANARY".into(),
            sign_in_host: "login.example.com".into(),
            host: "mcp.example.com".into(),
            resource: "https://mcp.example.com/mcp".into(),
            label: String::new(),
            application: Application { name: "shop".into(), verified: true, place: None },
            user: "ann".into(),
            profile: String::new(),
            scopes: Vec::new(),
            reason: Reason::FirstUse,
            proof: Proof::Local,
            stage: Stage::Open,
            proven: false,
            created_at_ms: 1,
            expires_at_ms: 2,
        });
        let field = |name: &str| (name.to_owned(), "CANARY".to_owned());
        let callback = Callback {
            fields: vec![field("state"), field("code"), field("error")],
            browser: Some(Secret::new("CANARY")),
        };
        let pending = PendingFlow {
            flow: "flow_1".into(),
            connect_url: "https://gateway.example/connect/CANARY".into(),
            resource: "https://mcp.example.com/mcp".into(),
            host: "mcp.example.com".into(),
            scopes: Vec::new(),
            expires_at_ms: 2,
        };
        for seen in [
            format!("{flow:?}"),
            format!("{:?}", LinkView::One(flow.clone())),
            format!(
                "{:?}",
                Finished::Connected { flow: flow.clone(), account: None, next: Some("CANARY".into()) }
            ),
            format!("{:?}", PageError::Failed(flow)),
            format!("{:?}", PageError::NotThisBrowser(Some(Secret::new("CANARY")))),
            format!("{callback:?}"),
            format!("{pending:?}"),
        ] {
            assert!(!seen.contains("CANARY"), "{seen}");
        }
        assert!(format!("{callback:?}").contains("state"), "the names are there");
    }
}
