//! The page of a person's connections, as data.

use askama::Template;

use super::frame::Frame;
use super::words::Scope;

#[derive(Template)]
#[template(path = "connections.html")]
pub(super) struct ConnectionsPage {
    pub frame: Frame,
    pub rows: Vec<ConnectionRow>,
    pub notice: Option<Notice>,
}

/// What the last click did.
pub(super) struct Notice {
    pub tone: &'static str,
    pub words: String,
}

pub(super) struct ConnectionRow {
    pub id: String,
    /// The project as the gateway names it: goes back with the forms.
    pub namespace: String,
    pub host: String,
    pub resource: String,
    pub account: Option<String>,
    /// As it is kept: goes back with the forms.
    pub account_text: String,
    pub application: String,
    /// The project in words, where there is one.
    pub project: Option<String>,
    pub profile: Option<String>,
    pub scopes: Vec<Scope>,
    pub scope_text: String,
    pub used: String,
    pub tone: &'static str,
    pub state: &'static str,
    pub advice: Option<String>,
    /// Not when it has been revoked.
    pub can_change: bool,
}
