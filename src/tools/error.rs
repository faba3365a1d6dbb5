//! Why an MCP server could not be used.

use std::time::Duration;

use url::Url;

use super::protocol::Answers;
use crate::egress;
use crate::oauth::Challenge;

/// Pages that a server wants a person to open before it goes on (MCP 2026-07-28, elicitation in URL mode).
#[derive(Debug, Clone)]
pub struct PageRequired {
    /// At least one; addresses of the web, normalised. Nobody but the person opens them.
    pub pages: Vec<Url>,
    /// What a repeated call must bring, when the server waits for the same call to be continued.
    pub(super) resume: Option<Resume>,
}

/// The answers of a repeated call.
#[derive(Debug, Clone)]
pub(super) struct Resume(pub(super) Box<Answers>);

impl PageRequired {
    /// The hosts of the pages, for a sentence.
    pub fn hosts(&self) -> String {
        let hosts: Vec<&str> = self.pages.iter().filter_map(Url::host_str).collect();
        format!("a page at {}", hosts.join(", "))
    }
}

/// The outcomes of speaking to an MCP server that callers treat differently.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// It wants a login, or another one. The connection itself is well.
    #[error("{}", if .0.is_forbidden() { "the server forbids it to who was logged in" } else { "the server asks for authorization" })]
    Unauthorized(Challenge),
    /// The address policy refused it, before anything was sent.
    #[error(transparent)]
    Refused(#[from] egress::Refusal),
    /// No answer at all: name, connection, TLS, or it hung up. `maybe_ran` says whether a call may have run.
    #[error("{reason}")]
    Unreachable { reason: String, maybe_ran: bool },
    #[error("no answer within {} s", .after.as_secs())]
    Timeout { after: Duration },
    /// An HTTP status that is neither success nor a known meaning.
    #[error("the server answered with HTTP status {status}")]
    Status { status: u16 },
    /// A JSON-RPC error.
    #[error("the server answered: {message} ({code})")]
    Rpc { code: i64, message: String },
    /// What it sent is not MCP.
    #[error("the server's answer is not MCP: {0}")]
    Protocol(String),
    #[error("the server's answer is larger than {limit} bytes")]
    TooLarge { limit: usize },
    /// It wants a person to open a page first (URL elicitation). The call did not run to its end.
    #[error("the server asks that a person opens {}", .0.hosts())]
    PageRequired(Box<PageRequired>),
    /// What became of a call that went on as a task cannot be found out.
    #[error("{reason}")]
    TaskLost { reason: String },
    /// The server, or somebody there, ended a call that went on as a task.
    #[error("the server cancelled the call{}", .message.as_ref().map_or_else(String::new, |message| format!(": {message}")))]
    TaskCancelled { message: Option<String> },
    /// It asks for input that nobody here can give (elicitation, sampling, roots).
    #[error("the server asks for input that is not available here: {0}")]
    InputRequired(String),
}
