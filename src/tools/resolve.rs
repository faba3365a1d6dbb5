//! Asking a server of a request for its tools, and which of them the request wants.

use std::collections::HashSet;
use std::sync::Arc;

use super::spec::Spec;
use super::{Challenge, Error, Server, Tool, ToolList, Tools};

/// A server that told its tools.
#[derive(Debug)]
pub struct Resolved {
    pub spec: Spec,
    pub server: Server,
    pub list: Arc<ToolList>,
    /// Places in `list.tools` of those that may be used.
    pub chosen: Vec<usize>,
    /// Names in `allowed_tools` that the server does not have.
    pub absent: Vec<String>,
}

impl Resolved {
    /// The tools that may be used.
    pub fn tools(&self) -> impl Iterator<Item = &Tool> {
        self.chosen.iter().filter_map(|place| self.list.tools.get(*place))
    }
}

/// What became of one server.
#[derive(Debug)]
pub enum Outcome {
    Ready(Resolved),
    /// It wants a login, or refused the one it was given.
    Unauthorized {
        spec: Spec,
        challenge: Challenge,
    },
    Failed {
        spec: Spec,
        error: Error,
    },
}

/// Asks `server`, which is the one that `spec` names, for its tools.
pub async fn resolve(tools: &Tools, spec: Spec, server: Server) -> Outcome {
    match tools.list(&server).await {
        Ok(list) => {
            let (chosen, absent) = choose(&spec, &list);
            Outcome::Ready(Resolved { spec, server, list, chosen, absent })
        }
        Err(Error::Unauthorized(challenge)) => Outcome::Unauthorized { spec, challenge },
        Err(error) => Outcome::Failed { spec, error },
    }
}

fn choose(spec: &Spec, list: &ToolList) -> (Vec<usize>, Vec<String>) {
    let names: Option<HashSet<&str>> =
        spec.allowed.names.as_ref().map(|names| names.iter().map(String::as_str).collect());
    let named = |tool: &Tool| names.as_ref().is_none_or(|names| names.contains(tool.name.as_str()));
    let harmless = |tool: &Tool| !spec.allowed.read_only || tool.read_only;
    let places = list.tools.iter().enumerate();
    let chosen = places.filter(|(_, tool)| named(tool) && harmless(tool)).map(|(place, _)| place);
    let known: HashSet<&str> = list.tools.iter().map(|tool| tool.name.as_str()).collect();
    let absent = spec.allowed.names.iter().flatten().filter(|name| !known.contains(name.as_str())).cloned();
    (chosen.collect(), absent.collect())
}
