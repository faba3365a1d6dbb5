//! The pages of a link, as data.

use askama::Template;

use super::frame::Frame;
use super::words::Scope;

/// One server to connect.
#[derive(Template)]
#[template(path = "connect.html")]
pub(super) struct ConnectPage {
    pub frame: Frame,
    pub asked: Asked,
    /// Its place among several.
    pub step: Option<Step>,
    /// What the person signed in calls themself.
    pub person: Option<String>,
    pub step_to: Next,
    /// This page's own.
    pub path: String,
    /// The id of what it shows: its forms are about that alone.
    pub flow: String,
    /// Why it is not the page that was expected.
    pub notice: Option<&'static str>,
}

/// What is asked for. Texts of strangers are cleaned; the templates escape them.
pub(super) struct Asked {
    pub application: String,
    pub application_is_known: bool,
    pub label: String,
    pub host: String,
    pub resource: String,
    /// The host of the page where the person signs in.
    pub sign_in: String,
    /// Whether that is another site's than the server's.
    pub sign_in_elsewhere: bool,
    pub scopes: Vec<Scope>,
    /// Masked.
    pub user: String,
    pub profile: Option<String>,
    /// Why a login is needed again.
    pub why: Option<&'static str>,
    pub since: String,
    pub until: String,
}

pub(super) struct Step {
    pub number: usize,
    pub of: usize,
}

/// What the button does.
pub(super) enum Next {
    /// Sign in here first.
    SignIn,
    /// Go to the server's authorization server.
    Leave,
    /// Go to the application, which knows its people.
    App,
}

/// Several servers, one after the other.
#[derive(Template)]
#[template(path = "batch.html")]
pub(super) struct BatchPage {
    pub frame: Frame,
    pub application: String,
    pub application_is_known: bool,
    pub rows: Vec<BatchRow>,
    pub done: usize,
    /// None was declined or has expired.
    pub all_connected: bool,
    pub total: usize,
    pub next: Option<NextServer>,
}

pub(super) struct BatchRow {
    pub host: String,
    pub label: String,
    pub tone: &'static str,
    pub state: &'static str,
}

pub(super) struct NextServer {
    pub host: String,
    pub path: String,
}
