//! Why an MCP server could not be used.

use std::time::Duration;

use crate::egress;
use crate::oauth::Challenge;

/// The outcomes of speaking to an MCP server that callers treat differently.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// It wants a login, or another one. The connection itself is well.
    #[error("the server asks for authorization")]
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
    /// It asks for input that nobody here can give (elicitation, sampling, roots).
    #[error("the server asks for input that is not available here: {0}")]
    InputRequired(String),
}
