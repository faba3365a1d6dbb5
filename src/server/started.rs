//! What is known once the gateway listens.

use std::net::SocketAddr;

/// The gateway as it runs. Never holds a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// Where it listens, with the true port.
    pub addr: SocketAddr,
    /// The address people and providers use, without a trailing slash.
    pub public_url: String,
    /// Whether it is one person's machine.
    pub local: bool,
    /// How many API keys of projects there are.
    pub project_keys: usize,
    /// Whether callers may bring a provider's own key.
    pub pass_through: bool,
    /// Whether the operator said so; otherwise it depends on whether there are projects.
    pub is_pass_through_chosen: bool,
    /// The active providers by name, and where the key of each is from.
    pub providers: Vec<(String, String)>,
    /// Whether the demo model and its MCP server are there.
    pub demo: bool,
    /// Whether connections and projects outlive the process.
    pub keeps: bool,
}
