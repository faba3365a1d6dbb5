//! The pages of runs as templates.

use std::sync::Arc;

use askama::Template;

use super::prompt::Prompt;
use super::samples::Samples;
use crate::completion::Visibility;
use crate::web::frame::Frame;

/// `/{id}`: one run.
#[derive(Template)]
#[template(path = "runs/run.html")]
pub(in crate::web) struct RunPage {
    pub frame: Frame,
    /// Where the page is, such as `/run_1`.
    pub path: String,
    /// The whole of it, to be handed to others.
    pub address: String,
    pub facts: Facts,
    pub prompt: Prompt,
    /// The result, one HTML element each.
    pub elements: Vec<Arc<str>>,
    /// Whether its prompt may be somebody's who reads this, by program.
    pub is_prompt: bool,
    pub samples: Samples,
    /// What an MCP client needs to use the run as a server.
    pub mcp: String,
    /// Whether more may come.
    pub is_live: bool,
    /// Whether it waits for a person.
    pub is_waiting: bool,
    /// Whether the visitor may change who reads it, stop and delete it.
    pub is_owner: bool,
    /// It was interrupted, and its owner may continue it.
    pub can_resume: bool,
    pub visibility: Visibility,
    /// Whether tools were used in a person's name.
    pub used_logins: bool,
    /// When it is deleted, in words; `None`: it is kept for good.
    pub kept_until: Option<String>,
    /// Set for public runs: what it says of itself where it is linked.
    pub preview: Option<Preview>,
    /// Where it can be run again from, if it can.
    pub again: Option<String>,
    /// What the last form did, in words.
    pub notice: Option<&'static str>,
    /// Set when a choice of who may read it was not taken: why.
    pub stale: Option<&'static str>,
}

impl RunPage {
    /// What one can choose.
    fn visibilities(&self) -> [Visibility; 3] {
        [Visibility::Private, Visibility::Unlisted, Visibility::Public]
    }

    /// What it means.
    fn meaning(&self, visibility: &Visibility) -> &'static str {
        match visibility {
            Visibility::Private => "Only you, and the application it was asked with.",
            Visibility::Unlisted => "Everybody who has the address.",
            Visibility::Public => "Everybody. Search engines may list it.",
        }
    }
}

/// A run in a line.
#[derive(Template, Debug, Clone)]
#[template(path = "runs/facts.html")]
pub(in crate::web) struct Facts {
    pub tone: &'static str,
    pub status: &'static str,
    pub model: String,
    /// When it was asked, in words.
    pub created: String,
    pub duration: String,
    /// `1,234 tokens in, 56 out`; empty while nobody knows.
    pub tokens: String,
    pub turns: u32,
    pub tool_calls: u32,
}

/// What other sites show of a link to it.
#[derive(Debug)]
pub(in crate::web) struct Preview {
    pub description: String,
}

/// `/`: try it.
#[derive(Template)]
#[template(path = "runs/start.html")]
pub(in crate::web) struct StartPage {
    pub frame: Frame,
    /// Names to choose from.
    pub models: Vec<String>,
    pub model: String,
    /// One that is not among them.
    pub other_model: String,
    pub message: String,
    /// One address a line.
    pub servers: String,
    pub samples: Samples,
    /// The API's address, which the script needs to write the lines anew.
    pub base: String,
    pub local: bool,
    /// Whether the visitor may start a run here.
    pub can_start: bool,
    /// Whether signing in is a way to start one.
    pub can_sign_in: bool,
    /// The visitor's own run whose instructions and limits go along.
    pub from: Option<String>,
    /// What was wrong with the form.
    pub problem: Option<String>,
}

/// `/runs`: one's results.
#[derive(Template)]
#[template(path = "runs/list.html")]
pub(in crate::web) struct ListPage {
    pub frame: Frame,
    pub rows: Vec<Row>,
    pub search: String,
    /// The chosen status, or empty.
    pub status: String,
    pub is_filtered: bool,
    /// The query of the next page.
    pub older: Option<String>,
    pub newest: Option<String>,
    pub notice: Option<&'static str>,
}

impl ListPage {
    /// What one can look for: the API's word and ours.
    fn statuses(&self) -> [(&'static str, &'static str); 6] {
        [
            ("in_progress", "running"),
            ("requires_action", "needs you"),
            ("completed", "done"),
            ("failed", "failed"),
            ("incomplete", "incomplete"),
            ("cancelled", "cancelled"),
        ]
    }
}

/// One of one's results.
#[derive(Debug)]
pub(in crate::web) struct Row {
    pub id: String,
    pub title: String,
    pub tone: &'static str,
    pub status: &'static str,
    pub model: String,
    pub created: String,
    pub visibility: &'static str,
}
