//! The functions that a model is offered: the MCP tools under names it accepts, beside the caller's own.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::clean_json;
use crate::openai::InvalidField;
use crate::tools::{Resolved, Tool, name};
use crate::upstream::Provider;

/// Who answers a function call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The tool at `tool` of the server at `server`.
    Mcp { server: usize, tool: usize },
    /// The caller.
    Caller,
    /// Nobody: the model made the name up.
    Nobody,
}

/// All functions of one request.
#[derive(Debug)]
pub struct Toolset {
    pub servers: Vec<Resolved>,
    owners: HashMap<String, Owner>,
    /// The value of `tools` for the provider; empty when there is none.
    json: String,
}

impl Toolset {
    /// Names the tools of `servers` and joins them with the caller's own entries.
    ///
    /// # Errors
    /// When there are more tools than the provider takes.
    pub fn build(
        servers: Vec<Resolved>,
        callers: &[&RawValue],
        provider: &Provider,
    ) -> Result<Self, InvalidField> {
        let caller_names: Vec<String> = callers.iter().filter_map(|raw| own_name(raw)).collect();
        let taken: HashSet<&str> = caller_names.iter().map(String::as_str).collect();
        let listed: Vec<(&str, Vec<&str>)> = servers
            .iter()
            .map(|server| {
                (server.spec.label.as_str(), server.tools().map(|tool| tool.name.as_str()).collect())
            })
            .collect();
        let borrowed: Vec<(&str, &[&str])> =
            listed.iter().map(|(label, tools)| (*label, tools.as_slice())).collect();
        check_count(&borrowed, callers.len(), provider)?;
        let names = name::assign(&borrowed, &taken);

        let mut json = String::new();
        for raw in callers {
            push(&mut json, raw.get());
        }
        let mut owners: HashMap<String, Owner> =
            caller_names.iter().map(|name| (name.clone(), Owner::Caller)).collect();
        for (at, (server, names)) in servers.iter().zip(names).enumerate() {
            for ((place, tool), function) in server.chosen.iter().zip(server.tools()).zip(names) {
                push(&mut json, "");
                write_function(&mut json, &function, tool, provider.quirks.simple_schemas);
                owners.insert(function, Owner::Mcp { server: at, tool: *place });
            }
        }
        if !json.is_empty() {
            json = format!("[{json}]");
        }
        Ok(Toolset { servers, owners, json })
    }

    /// Who answers a call of `function`.
    pub fn owner(&self, function: &str) -> Owner {
        self.owners.get(function).copied().unwrap_or(Owner::Nobody)
    }

    /// The server and tool behind an MCP function.
    pub fn find(&self, owner: Owner) -> Option<(&Resolved, &Tool)> {
        let Owner::Mcp { server, tool } = owner else { return None };
        let server = self.servers.get(server)?;
        Some((server, server.list.tools.get(tool)?))
    }

    /// The value of `tools` for the provider, `None` when no tool is left.
    pub fn json(&self) -> Option<&str> {
        Some(self.json.as_str()).filter(|json| !json.is_empty())
    }

    /// The function name of a server's tool.
    pub fn function_of<'s>(&'s self, label: &'s str, tool: &'s str) -> Option<&'s str> {
        self.functions_where(move |server, candidate| server.spec.label == label && candidate.name == tool)
            .next()
    }

    /// The function names of all tools, of any server, that are called `tool` by their server.
    pub fn functions_named<'s>(&'s self, tool: &'s str) -> impl Iterator<Item = &'s str> {
        self.functions_where(move |_, candidate| candidate.name == tool)
    }

    /// The labels of the servers.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.servers.iter().map(|server| server.spec.label.as_str())
    }

    fn functions_where<'s>(
        &'s self,
        fits: impl Fn(&Resolved, &Tool) -> bool + 's,
    ) -> impl Iterator<Item = &'s str> {
        let fitting = move |owner: &Owner| self.find(*owner).is_some_and(|(server, tool)| fits(server, tool));
        self.owners.iter().filter(move |(_, owner)| fitting(owner)).map(|(function, _)| function.as_str())
    }
}

fn push(json: &mut String, entry: &str) {
    if !json.is_empty() {
        json.push(',');
    }
    json.push_str(entry);
}

fn write_function(json: &mut String, function: &str, tool: &Tool, simple: bool) {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let description = tool.description_for_models();
    let _ = write!(
        json,
        r#"{{"type":"function","function":{{"name":{},"description":{},"parameters":"#,
        quoted(function),
        quoted(description)
    );
    json.push_str(tool.parameters(simple).get());
    json.push_str("}}");
}

/// The name of a caller's `function` or `custom` tool.
fn own_name(raw: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }
    #[derive(Deserialize)]
    struct Entry {
        function: Option<Named>,
        custom: Option<Named>,
    }
    let entry: Entry = clean_json::from_str(raw.get()).ok()?;
    entry.function.or(entry.custom).map(|named| named.name)
}

fn check_count(servers: &[(&str, &[&str])], callers: usize, provider: &Provider) -> Result<(), InvalidField> {
    let total = callers + servers.iter().map(|(_, tools)| tools.len()).sum::<usize>();
    let Some(limit) = provider.quirks.max_tools.filter(|limit| total > *limit) else { return Ok(()) };
    let mut largest: Vec<(&str, usize)> =
        servers.iter().map(|(label, tools)| (*label, tools.len())).collect();
    largest.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let largest: Vec<String> =
        largest.iter().take(3).map(|(label, count)| format!("`{label}` has {count}")).collect();
    let message = format!(
        "the request offers {total} tools, but {} takes at most {limit}: {}. Choose with `allowed_tools`",
        provider.name,
        largest.join(", ")
    );
    Err(InvalidField::new("tools", message))
}
