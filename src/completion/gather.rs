//! What asking the servers of a request came to, and what is said when it may not go on.

use serde_json::{Value, json};

use super::defuse::OwnLinks;
use super::event::{AuthorizationRequired, LinkKind, LoginHeaders, Notice, RunError};
use super::json_notice::json_repaired;
use super::logins::{Asked, Missing};
use super::prepare::Error;
use crate::bounds::LimitReached;
use crate::connections::FlowError;
use crate::openai::{ErrorBody, ErrorKind, InvalidField};
use crate::rate_limit::RetryAfterSeconds;
use crate::tools::{self, Resolved, Spec};

/// The servers of one request.
#[derive(Default)]
pub struct Found {
    pub ready: Vec<Resolved>,
    pub missing: Vec<(Spec, Missing)>,
    pub notices: Vec<Notice>,
}

impl Found {
    /// Whether a login is missing without which the run cannot go on.
    pub fn is_blocked(&self) -> bool {
        self.missing.iter().any(|(spec, _)| !spec.optional)
    }

    /// The missing logins.
    pub fn logins(&self) -> Vec<Missing> {
        self.missing.iter().map(|(_, missing)| missing.clone()).collect()
    }
}

/// Sorts what the servers said. Their own words may stand in what is said of them here, which is in the gateway's voice:
/// `links` of ours are taken out of it.
///
/// # Errors
/// When an indispensable server cannot be used, and no login would change that.
pub fn gather(asked: Vec<Asked>, links: &OwnLinks) -> Result<Found, Error> {
    let mut found = Found::default();
    let (mut failed, mut nobody, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    let mut busy = None::<RetryAfterSeconds>;
    let safe = |text: &str| links.broken_in(text).into_owned();
    for asked in asked {
        match asked {
            Asked::Ready(resolved) => {
                found.notices.extend(remarks(&resolved, links));
                found.ready.push(resolved);
            }
            Asked::Missing(spec, missing) => found.missing.push((spec, missing)),
            Asked::Failed(spec, tools::Error::Refused(refusal)) => {
                return Err(not_allowed(&spec, &safe(&refusal.to_string())).into());
            }
            Asked::Failed(spec, error) if spec.optional => {
                let message = safe(&format!("{} could not be used and was left out: {error}.", spec.host()));
                found.notices.push(Notice { code: "server_unreachable".into(), message });
            }
            Asked::Failed(spec, error) => failed.push((spec, safe(&error.to_string()))),
            Asked::Nobody(spec) if spec.optional => {
                let message =
                    format!("{} wants a login, and the request names no user. It was left out.", spec.host());
                found.notices.push(Notice { code: "user_required".into(), message });
            }
            Asked::Nobody(spec) => nobody.push(spec.host().to_owned()),
            Asked::Busy(spec, after) if spec.optional => {
                let message = format!(
                    "{} wants a login, and {}. It was left out.",
                    spec.host(),
                    FlowError::Busy(after)
                );
                found.notices.push(Notice { code: "login_unknown".into(), message });
            }
            Asked::Busy(_, after) => busy = busy.max(Some(after)),
            Asked::Unknown(spec, error) => {
                tracing::error!(mcp.host = spec.host(), %error, "a connection could not be looked up");
                if spec.optional {
                    let message =
                        format!("The login for {} could not be looked up. It was left out.", spec.host());
                    found.notices.push(Notice { code: "login_unknown".into(), message });
                } else {
                    unknown.push(spec.host().to_owned());
                }
            }
        }
    }
    if let Some(after) = busy {
        return Err(Error::Ended(too_many_logins(after)));
    }
    match (nobody.as_slice(), unknown.as_slice(), failed.as_slice()) {
        ([], [], []) => Ok(found),
        ([_, ..], _, _) => Err(Error::Ended(user_required(&nobody))),
        ([], [_, ..], _) => Err(Error::Ended(unavailable(&unknown.join(", ")))),
        ([], [], [_, ..]) => Err(Error::Ended(ended(424, failed_dependency(&failed)))),
    }
}

/// A failure with this status and body.
pub fn ended(status: u16, body: ErrorBody) -> RunError {
    RunError { status, error: body.into_value(), retry_after: None, login: None }
}

/// A principal holds as much as it may: 429, which names the bound.
pub fn limit_reached(reached: LimitReached) -> RunError {
    let body = ErrorBody::new(ErrorKind::RateLimit, Some("limit_reached"), reached.to_string());
    let retry_after = reached.bound.frees_itself().then(|| "5".to_owned());
    RunError { retry_after, ..ended(429, body.param(reached.bound.as_str())) }
}

/// What the logins are kept in cannot be read: 503.
pub fn unavailable(hosts: &str) -> RunError {
    let message = format!("the logins for {hosts} cannot be looked up right now; try again");
    let body = ErrorBody::new(ErrorKind::Server, Some("connections_unavailable"), message);
    RunError { retry_after: Some("5".to_owned()), ..ended(503, body) }
}

fn too_many_logins(after: RetryAfterSeconds) -> RunError {
    let body =
        ErrorBody::new(ErrorKind::RateLimit, Some("rate_limit_exceeded"), FlowError::Busy(after).to_string());
    RunError { retry_after: Some(after.0.to_string()), ..ended(429, body) }
}

fn user_required(hosts: &[String]) -> RunError {
    let verb = if hosts.len() == 1 { "wants a login" } else { "want logins" };
    let message = format!(
        "`user` is missing: {} {verb}, so name the end user whose login it is, or send a credential with the tool",
        hosts.join(", ")
    );
    ended(400, ErrorBody::new(ErrorKind::InvalidRequest, Some("user_required"), message).param("user"))
}

/// The 401 of a request that wants to fail when a login is missing.
pub fn authorization_required(
    missing: &[&AuthorizationRequired],
    connect_all_url: Option<String>,
) -> RunError {
    let reasons: Vec<String> =
        missing.iter().map(|login| format!("{}: {}", login.host, login.reason)).collect();
    let provider = |login: &&AuthorizationRequired| {
        let kind = match login.kind {
            LinkKind::Connection => "mcp",
            LinkKind::Elicitation => "page",
        };
        json!({ "url": login.resource, "hostname": login.host, "login_url": login.connect_url, "provider_type": kind })
    };
    let mut body =
        ErrorBody::new(ErrorKind::AuthRequired, Some("authentication_required"), reasons.join(" "))
            .with("providers", missing.iter().map(provider).collect());
    if let Some(url) = &connect_all_url {
        body = body.with("connect_all_url", Value::from(url.as_str()));
    }
    let login_url = connect_all_url.or_else(|| missing.iter().find_map(|login| login.connect_url.clone()));
    RunError { login: Some(Box::new(LoginHeaders { login_url })), ..ended(401, body) }
}

/// What a reader should know about a server that answered.
fn remarks(server: &Resolved, links: &OwnLinks) -> Vec<Notice> {
    let host = server.spec.host();
    let mut notices = Vec::new();
    if !server.absent.is_empty() {
        let names: Vec<String> =
            server.absent.iter().take(10).map(|name| format!("\"{}\"", name.escape_default())).collect();
        let message = format!("{host} has no tool called {}, which allowed_tools names.", names.join(", "));
        notices.push(Notice { code: "tool_absent".into(), message });
    }
    if !server.list.dropped.is_empty() {
        let shown = server
            .list
            .dropped
            .iter()
            .take(5)
            .map(|(name, reason)| format!("\"{}\" ({reason})", name.escape_default()));
        let message = format!(
            "{} tools of {host} cannot be used: {}.",
            server.list.dropped.len(),
            shown.collect::<Vec<_>>().join(", ")
        );
        let message = links.broken_in(&message).into_owned();
        notices.push(Notice { code: "tools_left_out".into(), message });
    }
    if server.list.is_repaired {
        notices.push(json_repaired(&format!("The list of tools of {host}")));
    }
    if server.chosen.is_empty() {
        notices.push(Notice {
            code: "no_tools".into(),
            message: format!("{host} offers no tool that may be used here."),
        });
    }
    notices
}

/// An address that policy refuses.
pub fn not_allowed(spec: &Spec, reason: &str) -> InvalidField {
    let param = spec.param("server_url");
    InvalidField::new(param.clone(), format!("`{param}`: {reason}"))
}

fn failed_dependency(failed: &[(Spec, String)]) -> ErrorBody {
    let named: Vec<String> =
        failed.iter().map(|(spec, reason)| format!("{}: {reason}", spec.host())).collect();
    let message = format!(
        "{} could not be used, and nothing was sent to the model. Try again, or set `\"optional\": true` to go on without: {}",
        if failed.len() == 1 { "An MCP server" } else { "Some MCP servers" },
        named.join("; ")
    );
    let servers: Vec<Value> = failed
        .iter()
        .map(|(spec, reason)| json!({ "server_url": spec.server_url, "server_label": spec.label, "reason": reason }))
        .collect();
    let param = failed.first().map(|(spec, _)| spec.param("server_url")).unwrap_or_default();
    ErrorBody::new(ErrorKind::FailedDependency, Some("mcp_server_unreachable"), message)
        .param(param)
        .with("servers", Value::Array(servers))
}
