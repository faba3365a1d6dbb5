//! `toolgate doctor`: what a login at an address would be like.

use std::process::ExitCode;

use super::args::DoctorArgs;
use super::{Failure, Output, house};
use crate::config::{Environment, Settings};
use crate::connections::doctor::{Choice, Report, ReportStep, examine};
use crate::egress::{self, Egress, parse_uri};
use crate::server::{Opened, useless_links};

/// Exit code 0 when a login could be offered, 1 when not.
pub(super) fn run(args: &DoctorArgs, environment: &Environment, output: Output) -> Result<ExitCode, Failure> {
    let settings = house::settings(&args.store, environment)?;
    let uri = parse_uri(&args.url).map_err(|refusal| {
        Failure::new(refusal.to_string()).hint("write the address whole, such as https://mcp.example.com/mcp")
    })?;
    let egress = Egress::new(&settings.egress, settings.is_local(), egress::system_lookup())
        .map_err(|error| Failure::new(error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start a worker: {error}")))?;
    let report = runtime.block_on(examine(&egress, &settings, &uri));
    if args.list_json {
        output.line(&serde_json::to_string(&report).expect("texts and numbers are JSON"));
    } else {
        output.text(&in_words(&report));
        if !settings.is_local() {
            output.note(provider_keys(&settings));
        }
    }
    warn_of_useless_links(args, &settings, environment, output);
    Ok(if report.offered { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Whether this gateway, which is not in local mode, lets callers in who bring a provider's own key.
fn provider_keys(settings: &Settings) -> &'static str {
    match (settings.pass_through.enabled, settings.api_keys.is_empty()) {
        (Some(true), _) => "Callers with a provider's own key are let in (`[pass_through] enabled = true`).",
        (Some(false), _) => {
            "Callers with a provider's own key are refused (`[pass_through] enabled = false`)."
        }
        (None, false) => {
            "Callers with a provider's own key are refused, since there are API keys; `[pass_through] enabled = true` lets them in."
        }
        (None, true) => {
            "Callers with a provider's own key are let in until there is a project; `[pass_through] enabled` decides it."
        }
    }
}

/// Says which projects of this gateway get no login links, where its store can be opened.
fn warn_of_useless_links(args: &DoctorArgs, settings: &Settings, environment: &Environment, output: Output) {
    let found = house::with_existing_store(&args.store, environment, async |opened: &Opened| {
        Ok(useless_links(settings, &opened.store).await?)
    });
    for (project, obstacle) in found.unwrap_or_default() {
        output.note(&format!(
            "warning: the project `{project}` gets no login links: {}\nhint: {}",
            obstacle.reason(),
            obstacle.remedy()
        ));
    }
}

fn in_words(report: &Report) -> String {
    let mut text = String::new();
    for (number, step) in report.steps.iter().enumerate() {
        text.push_str(&step_in_words(number + 1, step));
    }
    if let Some(login) = &report.login {
        let registration = match &login.registration {
            Choice::Operator(id) => format!("the client `{id}` of `[[oauth_clients]]`"),
            Choice::Document(url) => format!("the client metadata document {url}"),
            Choice::Request(url) => format!("by request at {url}"),
            Choice::ByHand(_) => "by hand".to_owned(),
        };
        let scopes = if login.scopes.is_empty() { "none".to_owned() } else { login.scopes.join(" ") };
        for (name, value) in [
            ("resource", login.resource.as_str()),
            ("scopes", scopes.as_str()),
            ("issuer", login.issuer.as_str()),
            ("authorize", login.authorization_endpoint.as_str()),
            ("token", login.token_endpoint.as_str()),
            ("revoke", login.revocation_endpoint.as_deref().unwrap_or("not offered")),
            ("client", registration.as_str()),
            ("redirect", login.redirect_uri.as_str()),
        ] {
            text.push_str(&format!("{name:>10}  {}\n", one_line(value)));
        }
        text.push('\n');
    }
    text.push_str(&one_line(&report.conclusion));
    text.push('\n');
    if let Some(hint) = &report.hint {
        text.push_str(&format!("hint: {}\n", one_line(hint)));
    }
    text
}

fn step_in_words(number: usize, step: &ReportStep) -> String {
    let mut text = format!("{number}. {} ({})\n", step.purpose, step.rule);
    if !step.url.is_empty() {
        let status = step.status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
        text.push_str(&format!("   {} → {status}\n", one_line(&step.url)));
    }
    let mark = match step.finding {
        "good" => "ok",
        "bad" => "fault",
        _ => "none",
    };
    text.push_str(&format!("   {mark}: {}\n", one_line(&step.detail)));
    if let Some(hint) = &step.hint {
        text.push_str(&format!("   hint: {}\n", one_line(hint)));
    }
    text.push('\n');
    text
}

/// Control characters would let a foreign text draw on the terminal.
fn one_line(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}
