//! What a login at an address would be like, and if there can be none, why: every question and every answer.
//!
//! It asks as a run would and registers nothing, stores nothing, and shows no secret: it has none.

use std::time::Duration;

use http::Uri;
use serde::Serialize;

use super::clients::{is_for, is_of, within};
use super::probe::{Said, ask};
use crate::config::{OauthClient, Settings};
use crate::egress::{Egress, parse_uri};
use crate::oauth::{Challenge, Discovered, Finding, Step, Trace, discover};

/// Time for the first answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Everything that was found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub url: String,
    /// Whether a login could be offered to people.
    pub offered: bool,
    /// What to say about it in one sentence.
    pub conclusion: String,
    pub hint: Option<String>,
    pub steps: Vec<ReportStep>,
    pub login: Option<Login>,
}

/// One question.
#[derive(Debug, Clone, Serialize)]
pub struct ReportStep {
    pub purpose: &'static str,
    pub rule: &'static str,
    pub url: String,
    pub status: Option<u16>,
    /// `good`, `absent` or `bad`.
    pub finding: &'static str,
    pub detail: String,
    pub hint: Option<String>,
}

/// What a flow would use.
#[derive(Debug, Clone, Serialize)]
pub struct Login {
    pub resource: String,
    pub resource_name: Option<String>,
    pub scopes: Vec<String>,
    pub issuer: String,
    pub authorization_endpoint: String,
    pub token_endpoint: String,
    pub revocation_endpoint: Option<String>,
    pub registration: Choice,
    pub redirect_uri: String,
}

/// How this gateway would become known to an authorization server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "by", content = "with", rename_all = "snake_case")]
pub enum Choice {
    /// The operator's client of this id, from `[[oauth_clients]]`.
    Operator(String),
    /// Our client metadata document at this address.
    Document(String),
    /// A registration by request, at this address.
    Request(String),
    /// Not at all: the operator has to register us by hand. The text says where and how.
    ByHand(String),
}

/// Asks `uri` and everyone it names, as a gateway with these settings would.
pub async fn examine(egress: &Egress, settings: &Settings, uri: &Uri) -> Report {
    let table = super::quirks::table(&settings.oauth_quirks);
    let mut trace = Trace::new();
    let challenge = ask(egress, uri, PATIENCE, &mut trace).await.map(|said| match said {
        Said::Challenge(challenge) => Some(challenge),
        Said::Nothing | Said::Other(_) => None,
    });
    let mut report = Report {
        url: uri.to_string(),
        offered: false,
        conclusion: String::new(),
        hint: None,
        steps: Vec::new(),
        login: None,
    };
    match challenge {
        Ok(challenge) => {
            match discover(egress, uri, challenge.as_ref(), &table, &mut trace).await {
                Ok(found) => conclude(&mut report, found, challenge.as_ref(), settings),
                Err(error) => report.conclusion = sentence(&error.to_string()),
            }
            if challenge.is_none() && !report.offered && trace.first_fault().is_none() {
                report.conclusion =
                    "It answers without a login, and names none for anything else.".to_owned();
            }
        }
        Err(reason) => report.conclusion = sentence(&reason),
    }
    if !report.offered && report.hint.is_none() {
        // The hint of the fault that is named; the steps show the others.
        report.hint = trace.steps.iter().find_map(|step| match &step.finding {
            Finding::Bad(reason) if report.conclusion.contains(reason.as_str()) => step.hint.clone(),
            Finding::Bad(_) | Finding::Good(_) | Finding::Absent(_) => None,
        });
    }
    report.steps = trace.steps.into_iter().map(step).collect();
    report
}

fn conclude(report: &mut Report, mut found: Discovered, challenge: Option<&Challenge>, settings: &Settings) {
    let registration = choose(&found, settings);
    let is_asked = challenge.is_some_and(|challenge| !challenge.scopes().is_empty());
    let operator = settings.oauth_clients.iter().find(|client| is_of(client, &found));
    if let (Some(operator), Choice::Operator(_)) = (operator, &registration) {
        found.scopes = within(found.scopes, &operator.scopes, is_asked);
    }
    report.offered = !matches!(registration, Choice::ByHand(_));
    report.conclusion = match &registration {
        Choice::Operator(_) => "A login can be offered, with the client from `[[oauth_clients]]`.",
        Choice::Document(_) => "A login can be offered, with this gateway's client metadata document.",
        Choice::Request(_) if found.server.assumed => {
            "A login may be offered, if somebody listens at the endpoints that are assumed."
        }
        Choice::Request(_) => "A login can be offered, once the server has registered this gateway.",
        Choice::ByHand(_) => "A login can be offered once the operator has registered this gateway by hand.",
    }
    .to_owned();
    if let Choice::ByHand(how) = &registration {
        report.hint = Some(how.clone());
    } else if let (Choice::Request(_), Some(about)) = (&registration, &found.quirks.registration) {
        report.hint = Some(format!("it {about}"));
    }
    report.login = Some(Login {
        resource: found.resource,
        resource_name: found.resource_name,
        scopes: found.scopes,
        issuer: found.server.issuer,
        authorization_endpoint: found.server.authorization_endpoint,
        token_endpoint: found.server.token_endpoint,
        revocation_endpoint: found.server.revocation_endpoint,
        registration,
        redirect_uri: redirect_uri(settings),
    });
}

fn redirect_uri(settings: &Settings) -> String {
    format!("{}/oauth/callback", settings.public_url())
}

/// The operator's client, our document, a registration by request (MCP 2026-07-28, client registration).
fn choose(found: &Discovered, settings: &Settings) -> Choice {
    let resource: Option<Uri> = found.resource.parse().ok();
    let operator = settings.oauth_clients.iter().find(|client| is_of(client, found));
    if let (Some(client), Some(resource)) = (operator, &resource)
        && is_for(client, resource)
    {
        return Choice::Operator(client.client_id.clone());
    }
    let public_url = settings.public_url();
    // Nobody can fetch a document from here when we are not on the web.
    let document = settings.connections.client_metadata_url.clone().or_else(|| {
        public_url.starts_with("https://").then(|| format!("{public_url}/oauth/client-metadata.json"))
    });
    if let Some(url) = document.filter(|_| found.server.client_id_metadata_document_supported) {
        return Choice::Document(url);
    }
    match &found.server.registration_endpoint {
        Some(url) => Choice::Request(url.clone()),
        None => Choice::ByHand(match operator {
            Some(client) => not_for(client, found),
            None => by_hand(found, &redirect_uri(settings)),
        }),
    }
}

/// What the operator can do when a client is for other resources.
pub(super) fn not_for(client: &OauthClient, found: &Discovered) -> String {
    let host = resource_host(found);
    format!(
        "the client `{}` of `[[oauth_clients]]` is not for {host}. If it should be, add `\"{host}\"` to its \
         `resources`: it then gets this client's tokens",
        client.client_id
    )
}

/// What the operator can do when a server registers nobody, or not us.
pub fn by_hand(found: &Discovered, redirect_uri: &str) -> String {
    let uri = parse_uri(&found.authorization_server).ok();
    let host = uri.as_ref().and_then(Uri::host).unwrap_or("the server");
    let about = found.quirks.registration.as_deref().unwrap_or("registers no clients by itself");
    format!(
        "{host} {about}. Register this gateway there with the redirect address {redirect_uri}, and add the client \
         under `[[oauth_clients]]` with `issuer = \"{}\"` and `resources = [\"{}\"]`",
        found.server.issuer,
        resource_host(found)
    )
}

fn resource_host(found: &Discovered) -> String {
    let resource: Option<Uri> = found.resource.parse().ok();
    let authority = resource.as_ref().and_then(Uri::authority);
    authority.map_or_else(|| "its host".to_owned(), |authority| authority.as_str().to_owned())
}

fn step(step: Step) -> ReportStep {
    let (finding, detail) = match step.finding {
        Finding::Good(detail) => ("good", detail),
        Finding::Absent(detail) => ("absent", detail),
        Finding::Bad(detail) => ("bad", detail),
    };
    ReportStep {
        purpose: step.purpose,
        rule: step.rule,
        url: step.url,
        status: step.status,
        finding,
        detail,
        hint: step.hint,
    }
}

/// Begins with a capital and ends with a full stop.
fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    let end = if text.ends_with('.') { "" } else { "." };
    format!("{first}{}{end}", characters.as_str())
}
