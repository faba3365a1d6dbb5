//! What types alone do not say: values that exist but make no sense, or are not safe.

use std::collections::HashSet;
use std::net::IpAddr;

use url::{Host, Url};

use super::{AnyHostMode, Settings};
use crate::crypto::ApiKeyHash;

/// A setting that cannot be used. `reason` completes "`path` …".
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) path: String,
    pub(super) reason: String,
    pub(super) hint: Option<String>,
}

pub(super) fn problem(path: impl Into<String>, reason: impl Into<String>) -> Problem {
    Problem { path: path.into(), reason: reason.into(), hint: None }
}

impl Problem {
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Checks settings that have the right types.
pub(super) fn check(settings: &Settings) -> Result<(), Problem> {
    public_url(settings)?;
    store(settings)?;
    providers(settings)?;
    api_keys(settings)?;
    hosts(settings)?;
    aliases(settings)?;
    super::sign_in::check(settings)?;
    super::oauth::check(settings)?;
    numbers(settings)?;
    Ok(())
}

/// Whether a host is this machine itself.
pub(super) fn is_loopback(host: Host<&str>) -> bool {
    match host {
        Host::Domain(name) => name == "localhost" || name.ends_with(".localhost"),
        Host::Ipv4(ip) => IpAddr::from(ip).is_loopback(),
        Host::Ipv6(ip) => IpAddr::from(ip).is_loopback(),
    }
}

fn public_url(settings: &Settings) -> Result<(), Problem> {
    let Some(text) = &settings.public_url else { return Ok(()) };
    let url = http_url("public_url", text)?;
    if url.scheme() == "http" && !url.host().is_some_and(is_loopback) {
        return Err(problem("public_url", "must begin with https:// outside this machine")
            .hint("logins and keys travel over it; put a TLS proxy in front"));
    }
    if url.path() != "/" {
        return Err(problem("public_url", "must have no path")
            .hint("give the gateway a host name of its own, such as https://tools.example.com"));
    }
    Ok(())
}

/// A plain http(s) address. The text is not repeated: it could hold a password.
pub(super) fn http_url(path: &str, text: &str) -> Result<Url, Problem> {
    let url = Url::parse(text).map_err(|error| {
        problem(path, format!("is not an address: {error}")).hint("write it whole, with https://")
    })?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(problem(path, "must begin with https:// or http://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(problem(path, "must not carry a user name or password"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(problem(path, "must not have a `?` or `#` part"));
    }
    Ok(url)
}

/// The text is not repeated: it may hold a password.
fn store(settings: &Settings) -> Result<(), Problem> {
    let Some(url) = &settings.store.url else { return Ok(()) };
    let is_postgres = ["postgres://", "postgresql://"].iter().any(|scheme| url.expose().starts_with(scheme));
    if !is_postgres || Url::parse(url.expose()).is_err() {
        return Err(problem("store.url", "must be an address that begins with postgres://")
            .hint("leave it out to keep everything in a SQLite file in the data directory"));
    }
    Ok(())
}

fn providers(settings: &Settings) -> Result<(), Problem> {
    let mut names = HashSet::new();
    for (number, provider) in settings.providers.iter().enumerate() {
        let at = |key: &str| format!("providers.{number}.{key}");
        name(&at("name"), &provider.name)?;
        if !names.insert(provider.name.as_str()) {
            return Err(problem(at("name"), format!("`{}` is given to two providers", provider.name)));
        }
        if let Some(base_url) = &provider.base_url {
            let url = http_url(&at("base_url"), base_url)?;
            if url.path().trim_end_matches('/').ends_with("/chat/completions") {
                return Err(problem(at("base_url"), "must end before `/chat/completions`"));
            }
        }
        let sources = [
            ("api_key", provider.api_key.is_some()),
            ("api_key_env", provider.api_key_env.is_some()),
            ("api_key_file", provider.api_key_file.is_some()),
        ];
        let given: Vec<&str> = sources.iter().filter(|(_, given)| *given).map(|(key, _)| *key).collect();
        if let [first, second, ..] = given[..] {
            return Err(problem(at(second), format!("contradicts `{first}`"))
                .hint("keep one of `api_key`, `api_key_env` and `api_key_file`"));
        }
        if provider.api_key.as_ref().is_some_and(|key| !is_header_text(key.expose())) {
            return Err(problem(at("api_key"), "must be one line of visible characters"));
        }
    }
    Ok(())
}

fn api_keys(settings: &Settings) -> Result<(), Problem> {
    let (mut names, mut hashes) = (HashSet::new(), HashSet::new());
    for (number, key) in settings.api_keys.iter().enumerate() {
        let at = |field: &str| format!("api_keys.{number}.{field}");
        name(&at("name"), &key.name)?;
        if let Some(project) = &key.project {
            name(&at("project"), project)?;
        }
        let hash = ApiKeyHash::parse(&key.hash).map_err(|error| {
            problem(at("hash"), error.to_string()).hint("`toolgate key hash` prints the hash of a key")
        })?;
        if !names.insert(key.name.as_str()) {
            return Err(problem(at("name"), format!("`{}` is given to two keys", key.name)));
        }
        if !hashes.insert(hash) {
            return Err(problem(at("hash"), "is the same as another key's"));
        }
    }
    Ok(())
}

pub(super) fn name(path: &str, name: &str) -> Result<(), Problem> {
    if name.is_empty() {
        return Err(problem(path, "is missing"));
    }
    if !is_name(name) {
        return Err(problem(path, "must be up to 64 letters, digits, `-`, `_` and `.`"));
    }
    Ok(())
}

/// Whether `name` can name a project or a key: in addresses, namespaces and logs.
pub fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// Whether `text` is an address that secrets may travel to: https, or this machine, and nothing hidden in it.
pub fn is_public_or_own_url(text: &str) -> bool {
    http_url("", text).is_ok_and(|url| url.scheme() == "https" || url.host().is_some_and(is_loopback))
}

fn is_header_text(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn hosts(settings: &Settings) -> Result<(), Problem> {
    for (number, host) in settings.any_host.hosts.iter().enumerate() {
        if host.is_empty() || host.contains(['/', '@', '*']) || host.contains("://") {
            return Err(problem(format!("any_host.hosts.{number}"), "must be a host name alone")
                .hint("such as `api.openai.com`"));
        }
    }
    if settings.any_host.mode != AnyHostMode::Listed && !settings.any_host.hosts.is_empty() {
        return Err(problem("any_host.hosts", "has no effect with this `any_host.mode`")
            .hint("set `any_host.mode = \"listed\"`"));
    }
    for (number, entry) in settings.egress.allow.iter().enumerate() {
        if entry.host.is_none() && entry.cidr.is_none() {
            return Err(problem(format!("egress.allow.{number}"), "would allow every address")
                .hint("give it a `host` or a `cidr`"));
        }
    }
    Ok(())
}

fn aliases(settings: &Settings) -> Result<(), Problem> {
    for (alias, model) in &settings.aliases {
        if alias.is_empty() || model.is_empty() || alias == model {
            return Err(problem(format!("aliases.{alias}"), "must name another model")
                .hint("such as `fast = \"openai/gpt-5.4-mini\"`"));
        }
    }
    Ok(())
}

/// With less memory for runs and bodies not even the demo works.
const LEAST_MEMORY_BYTES: usize = 4 << 20;

fn numbers(settings: &Settings) -> Result<(), Problem> {
    let Settings { limits, egress, upstream, mcp, run, connections, .. } = settings;
    let at_least_one = [
        ("limits.body_bytes", limits.body_bytes as u64),
        ("limits.header_seconds", limits.header_seconds),
        ("limits.write_seconds", limits.write_seconds),
        ("limits.body_seconds", limits.body_seconds),
        ("limits.body_bytes_per_second", limits.body_bytes_per_second),
        ("egress.connect_seconds", egress.connect_seconds),
        ("upstream.first_byte_seconds", upstream.first_byte_seconds),
        ("upstream.idle_seconds", upstream.idle_seconds),
        ("mcp.list_seconds", mcp.list_seconds),
        ("mcp.call_seconds", mcp.call_seconds),
        ("mcp.call_max_seconds", mcp.call_max_seconds),
        ("mcp.task_seconds", mcp.task_seconds),
        ("mcp.response_bytes", mcp.response_bytes as u64),
        ("mcp.result_bytes", mcp.result_bytes as u64),
        ("mcp.max_tools_per_server", mcp.max_tools_per_server as u64),
        ("mcp.max_servers", mcp.max_servers as u64),
        ("mcp.max_sessions", mcp.max_sessions),
        ("mcp.session_idle_seconds", mcp.session_idle_seconds),
        ("run.max_turns", run.max_turns.into()),
        ("run.max_turns_cap", run.max_turns_cap.into()),
        ("run.max_bytes", run.max_bytes as u64),
        ("run.max_seconds", run.max_seconds),
        ("run.keep_alive_seconds", run.keep_alive_seconds),
        ("connections.audit_days", connections.audit_days),
        ("connections.renewal_failures", connections.renewal_failures.into()),
        ("connections.renewal_failure_seconds", connections.renewal_failure_seconds.into()),
    ];
    if let Some((path, _)) = at_least_one.iter().find(|(_, value)| *value == 0) {
        return Err(problem(*path, "must be at least 1"));
    }
    if (1..LEAST_MEMORY_BYTES).contains(&limits.memory_bytes) {
        return Err(problem(
            "limits.memory_bytes",
            format!("must be 0 (no limit) or at least {LEAST_MEMORY_BYTES}"),
        ));
    }
    if run.max_turns > run.max_turns_cap {
        return Err(problem(
            "run.max_turns",
            format!("must be at most `run.max_turns_cap`, which is {}", run.max_turns_cap),
        ));
    }
    if upstream.retry_budget_percent > 100 {
        return Err(problem("upstream.retry_budget_percent", "must be at most 100"));
    }
    if mcp.call_seconds > mcp.call_max_seconds {
        return Err(problem(
            "mcp.call_seconds",
            format!("must be at most `mcp.call_max_seconds`, which is {}", mcp.call_max_seconds),
        ));
    }
    if connections.audit_days > 36_500 {
        return Err(problem("connections.audit_days", "must be at most 36500"));
    }
    // What is larger is a slip, and could overflow sums of times.
    const YEAR_SECONDS: u64 = 365 * 24 * 3600;
    let times = [
        ("limits.shutdown_seconds", limits.shutdown_seconds),
        ("upstream.model_list_seconds", upstream.model_list_seconds),
        ("mcp.tool_list_seconds", mcp.tool_list_seconds),
        ("run.hidden_turn_seconds", run.hidden_turn_seconds),
    ];
    let too_long = at_least_one
        .iter()
        .chain(&times)
        .find(|(path, value)| path.ends_with("_seconds") && *value > YEAR_SECONDS);
    if let Some((path, _)) = too_long {
        return Err(problem(*path, "must be at most a year (31536000)"));
    }
    Ok(())
}
