//! Names: of a tool as the model calls it, and of a server nobody named.
//!
//! Pure. A function name is `{label}_{tool}` wherever that is a valid and free name. Otherwise it carries a short
//! hash of both originals, so that it depends on nothing but them and on the fact of the collision, never on the
//! order of servers or tools.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::net::IpAddr;

use sha2::{Digest, Sha256};

/// OpenAI's bound for function names; the alphabet is `[a-zA-Z0-9_-]`.
pub const MAX_NAME: usize = 64;

/// The part of a shortened name that the label keeps at least.
const MIN_LABEL: usize = 16;
const MAX_LABEL: usize = 32;

/// The function names of the tools of all servers, in the same order. `taken` are the caller's own function names.
///
/// All names are valid and differ from each other and from `taken`. Labels should differ; should one server list
/// the same tool twice, the second gets a hash.
pub fn assign(servers: &[(&str, &[&str])], taken: &HashSet<&str>) -> Vec<Vec<String>> {
    let mut tools = Vec::new();
    let mut seen = HashMap::new();
    for (server, (label, names)) in servers.iter().enumerate() {
        for (position, tool) in names.iter().enumerate() {
            let repetition = seen.entry((*label, *tool)).or_insert(0_u32);
            tools.push(Candidate { server, position, label, tool, repetition: *repetition, round: 0 });
            *repetition += 1;
        }
    }

    let mut assigned: Vec<Vec<String>> =
        servers.iter().map(|(_, names)| vec![String::new(); names.len()]).collect();
    let mut settled: HashSet<String> = HashSet::with_capacity(tools.len());
    // Everyone whose name is wanted twice, or gone, gets another one in the next round: in whatever order they
    // stand, the same ones lose.
    while !tools.is_empty() {
        let names: Vec<String> = tools.iter().map(Candidate::name).collect();
        let mut wanted: HashMap<&str, u32> = HashMap::with_capacity(names.len());
        for name in &names {
            *wanted.entry(name).or_default() += 1;
        }
        let free: Vec<bool> = names
            .iter()
            .map(|name| wanted[name.as_str()] == 1 && !taken.contains(&**name) && !settled.contains(name))
            .collect();
        let mut losers = Vec::new();
        for ((mut tool, name), free) in tools.into_iter().zip(names).zip(free) {
            if free {
                assigned[tool.server][tool.position].clone_from(&name);
                settled.insert(name);
            } else {
                tool.round += 1;
                losers.push(tool);
            }
        }
        tools = losers;
    }
    assigned
}

struct Candidate<'a> {
    server: usize,
    position: usize,
    label: &'a str,
    tool: &'a str,
    repetition: u32,
    round: u32,
}

impl Candidate<'_> {
    fn name(&self) -> String {
        let valid = |text: &str| !text.is_empty() && text.chars().all(is_allowed);
        let fits = self.label.len() + 1 + self.tool.len() <= MAX_NAME;
        if self.round == 0 && self.repetition == 0 && fits && valid(self.label) && valid(self.tool) {
            return format!("{}_{}", self.label, self.tool);
        }
        let hash = self.hash();
        let room = MAX_NAME - 2 - hash.len();
        let tool = allowed_start(self.tool, room);
        let label = allowed_start(self.label, MIN_LABEL.max(room - tool.len()));
        let tool = &tool[..tool.len().min(room - label.len())];
        format!("{label}_{tool}_{hash}")
    }

    /// Longer with every round, so that even names made to collide soon do not.
    fn hash(&self) -> String {
        let mut hasher = Sha256::new();
        hasher.update(self.round.to_be_bytes());
        hasher.update(self.repetition.to_be_bytes());
        hasher.update((self.label.len() as u64).to_be_bytes());
        hasher.update(self.label);
        hasher.update(self.tool);
        let bytes = if self.round < 2 { 4 } else { 8 };
        hasher.finalize().iter().take(bytes).fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("writing to a String cannot fail");
            text
        })
    }
}

fn is_allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

/// The first `limit` characters, in the alphabet of function names.
fn allowed_start(text: &str, limit: usize) -> String {
    text.chars().take(limit).map(|c| if is_allowed(c) { c } else { '_' }).collect()
}

/// A label for the server at `host` (port allowed): the name people know it by, such as `notion` for
/// `mcp.notion.com`. Starts with a letter; not unique.
pub fn label_from_host(host: &str) -> String {
    let host = without_port(host);
    let address = host.trim_start_matches('[').trim_end_matches(']');
    if address.parse::<IpAddr>().is_ok() {
        return SERVER.to_owned();
    }
    let host = host.trim_matches('.').to_ascii_lowercase();
    let parts: Vec<&str> = host.split('.').filter(|part| !part.is_empty()).collect();
    let mut names = &parts[..parts.len().saturating_sub(suffix_length(&parts))];
    while let [rest @ .., last] = names
        && !rest.is_empty()
        && GENERIC.contains(last)
    {
        names = rest;
    }
    let name = names.last().copied().unwrap_or_default();
    let mut label: String =
        name.chars().map(|c| if is_allowed(c) { c } else { '_' }).take(MAX_LABEL).collect();
    if label.is_empty() || label == "localhost" {
        return SERVER.to_owned();
    }
    if !label.starts_with(|c: char| c.is_ascii_alphabetic()) {
        label.insert_str(0, "s_");
        label.truncate(MAX_LABEL);
    }
    label
}

const SERVER: &str = "server";

/// Parts of host names that say nothing about whose they are, as in `wiki.mcp.internal`.
const GENERIC: &[&str] = &["api", "app", "gateway", "mcp", "server"];

/// Second-level parts that belong to the suffix when a country follows, as in `co.uk`.
const SECOND_LEVEL: &[&str] = &["ac", "co", "com", "edu", "gov", "net", "org"];

/// Domains below which anyone gets a name: the part before is the owner's. The public suffix list has thousands;
/// a label is only a convenience, so the common homes of MCP servers suffice.
const SHARED: &[&str] = &[
    "azurewebsites.net",
    "deno.dev",
    "fly.dev",
    "github.io",
    "herokuapp.com",
    "hf.space",
    "modal.run",
    "netlify.app",
    "ngrok-free.app",
    "ngrok.app",
    "ngrok.io",
    "onrender.com",
    "pages.dev",
    "railway.app",
    "replit.app",
    "run.app",
    "vercel.app",
    "workers.dev",
];

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|b| b.is_ascii_digit()) && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        _ => host,
    }
}

/// How many of the last parts are not the owner's.
fn suffix_length(parts: &[&str]) -> usize {
    match parts {
        [_, .., second, last] if SHARED.contains(&format!("{second}.{last}").as_str()) => {
            // `service-hash-uc.a.run.app` has a region between.
            if *second == "run" && parts.len() > 3 { 3 } else { 2 }
        }
        [_, .., second, last] if last.len() == 2 && SECOND_LEVEL.contains(second) => 2,
        [_, .., _] => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(servers: &[(&str, &[&str])], taken: &[&str]) -> Vec<Vec<String>> {
        assign(servers, &taken.iter().copied().collect())
    }

    fn is_valid(name: &str) -> bool {
        (1..=MAX_NAME).contains(&name.len()) && name.chars().all(is_allowed)
    }

    #[test]
    fn a_valid_name_is_label_and_tool() {
        assert_eq!(
            names(&[("docs", &["search", "read-page"]), ("wiki", &["search"])], &["search"]),
            [vec!["docs_search", "docs_read-page"], vec!["wiki_search"]]
        );
    }

    #[test]
    fn names_that_were_changed_say_so_with_a_hash_that_stays() {
        let long = "a".repeat(70);
        let given = names(&[("docs", &["files.read", "files/read", &long, "", "größe"])], &[]);
        assert_eq!(given[0][0], "docs_files_read_002381fa");
        assert_ne!(given[0][0], given[0][1]);
        assert_eq!(given[0][2].len(), MAX_NAME);
        assert!(given[0].iter().all(|name| is_valid(name)), "{given:?}");
    }

    #[test]
    fn a_long_label_leaves_room_for_the_tool() {
        let given = names(&[(&"l".repeat(60), &["create_issue"])], &[]);
        assert!(given[0][0].contains("_create_issue_"), "{given:?}");
    }

    #[test]
    fn both_sides_of_a_collision_get_a_hash() {
        let given = names(&[("a_b", &["c"]), ("a", &["b_c"])], &[]);
        assert!(given[0][0].starts_with("a_b_c_") && given[1][0].starts_with("a_b_c_"), "{given:?}");
        assert_ne!(given[0][0], given[1][0]);
    }

    #[test]
    fn the_callers_own_functions_keep_their_names() {
        let given = names(&[("docs", &["search"])], &["docs_search"]);
        assert!(given[0][0].starts_with("docs_search_"), "{given:?}");
        let again = names(&[("docs", &["search"])], &["docs_search", &given[0][0]]);
        assert!(is_valid(&again[0][0]) && again[0][0] != given[0][0]);
    }

    #[test]
    fn a_tool_listed_twice_is_two_functions() {
        let given = names(&[("docs", &["search", "search"])], &[]);
        assert_eq!(given[0][0], "docs_search");
        assert_ne!(given[0][1], "docs_search");
    }

    #[test]
    fn names_made_to_collide_cost_little() {
        let mut tools = vec!["x.y".to_owned()];
        for round in 0..300 {
            let name =
                Candidate { server: 0, position: 0, label: "s", tool: "x.y", repetition: 0, round }.name();
            tools.push(name.strip_prefix("s_").expect("the label stands first").to_owned());
        }
        let tools: Vec<&str> = tools.iter().map(String::as_str).collect();
        let given = names(&[("s", &tools)], &[]);
        let distinct: HashSet<&String> = given[0].iter().collect();
        assert_eq!(distinct.len(), tools.len());
    }

    #[test]
    fn a_host_gives_the_name_people_know() {
        for (host, label) in [
            ("mcp.notion.com", "notion"),
            ("api.githubcopilot.com", "githubcopilot"),
            ("docs.mcp.cloudflare.com", "cloudflare"),
            ("mcp.example.co.uk:8443", "example"),
            ("my-tools.vercel.app", "my-tools"),
            ("mcp.alice.workers.dev", "alice"),
            ("svc-abc-uc.a.run.app", "svc-abc-uc"),
            ("Wiki", "wiki"),
            ("wiki.mcp.internal", "wiki"),
            ("mcp.dev", "mcp"),
            ("7digital.com", "s_7digital"),
            ("127.0.0.1:8080", "server"),
            ("[::1]:9000", "server"),
            ("::1", "server"),
            ("localhost:3000", "server"),
            ("", "server"),
            ("...", "server"),
            ("müller.de", "m_ller"),
        ] {
            assert_eq!(label_from_host(host), label, "{host:?}");
        }
    }

    fn servers() -> impl Strategy<Value = Vec<(String, Vec<String>)>> {
        let tool = prop_oneof!["[ab_]{0,3}", "[a-z_./-]{0,70}", "\\PC{0,12}"];
        let tools = proptest::collection::vec(tool, 0..6);
        proptest::collection::btree_map(prop_oneof!["[ab_]{1,3}", "[a-z.-]{0,70}"], tools, 0..5)
            .prop_map(|servers| servers.into_iter().collect())
    }

    fn assign_owned(servers: &[(String, Vec<String>)], taken: &HashSet<&str>) -> Vec<Vec<String>> {
        let tools: Vec<Vec<&str>> =
            servers.iter().map(|(_, tools)| tools.iter().map(String::as_str).collect()).collect();
        let borrowed: Vec<(&str, &[&str])> =
            servers.iter().zip(&tools).map(|((label, _), tools)| (label.as_str(), &tools[..])).collect();
        assign(&borrowed, taken)
    }

    proptest! {
        #[test]
        fn names_are_valid_unique_and_the_same_in_any_order(
            servers in servers(),
            taken in proptest::collection::hash_set("[ab_]{1,6}", 0..4),
        ) {
            let taken: HashSet<&str> = taken.iter().map(String::as_str).collect();
            let given = assign_owned(&servers, &taken);
            let all: Vec<&String> = given.iter().flatten().collect();
            prop_assert_eq!(all.len(), servers.iter().map(|(_, tools)| tools.len()).sum::<usize>());
            prop_assert!(all.iter().all(|name| is_valid(name) && !taken.contains(name.as_str())));
            prop_assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());

            let reversed: Vec<_> = servers.iter().rev().cloned().collect();
            let mut again = assign_owned(&reversed, &taken);
            again.reverse();
            prop_assert_eq!(given, again);
        }

        #[test]
        fn every_label_from_a_host_is_a_label(host in "\\PC{0,80}") {
            let label = label_from_host(&host);
            prop_assert!(label.len() <= MAX_LABEL && label.chars().all(is_allowed), "{label}");
            prop_assert!(label.starts_with(|c: char| c.is_ascii_alphabetic()), "{label}");
        }
    }
}
