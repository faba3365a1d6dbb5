//! `toolgate connections list` and `revoke`: users' logins, for the operator. Tokens are never shown.

use serde_json::{Value, json};

use super::args::{ConnectionsCommand, ListConnectionsArgs, RevokeConnectionsArgs, WhichArgs};
use super::moment::moment;
use super::{Failure, Output, house};
use crate::clock::Clock;
use crate::config::{Environment, Settings};
use crate::connections::{Connections, Error, Parts, RevokeOutcome};
use crate::egress::{self, Egress};
use crate::server::{Opened, WithoutKeys};
use crate::store::{ConnectionRow, Project};

/// Whom the audit log names.
const ACTOR: &str = "operator";

pub(super) fn run(
    command: ConnectionsCommand,
    environment: &Environment,
    output: Output,
) -> Result<(), Failure> {
    match command {
        ConnectionsCommand::List(args) => list(&args, environment, output),
        ConnectionsCommand::Revoke(args) => revoke(&args, environment, output),
    }
}

/// The namespace that `--project` means: a project's name, or one of the namespaces that no project has.
pub(super) fn namespace(project: &str) -> String {
    let is_whole = matches!(project, "local" | "person") || project.starts_with("pt:");
    if is_whole || project.starts_with("project:") { project.to_owned() } else { Project::namespace(project) }
}

fn list(args: &ListConnectionsArgs, environment: &Environment, output: Output) -> Result<(), Failure> {
    house::with_store(&args.list.store, environment, async |opened: &Opened| {
        let rows = find(opened, &args.which).await?;
        if args.list.json {
            output.line(&json!(rows.iter().map(to_json).collect::<Vec<_>>()).to_string());
        } else {
            output.table(&rows.iter().map(to_row).collect::<Vec<_>>());
        }
        if rows.is_empty() {
            output.note("There are no such connections.");
        }
        Ok(())
    })
}

fn revoke(args: &RevokeConnectionsArgs, environment: &Environment, output: Output) -> Result<(), Failure> {
    let settings = house::settings(&args.list.store, environment)?;
    let without_keys = if settings.is_local() { WithoutKeys::Make } else { WithoutKeys::Refuse };
    house::with_store_of(&settings, environment, without_keys, async |opened: &Opened| {
        let connections = open(opened, &settings, environment)?;
        let report = match &args.id {
            Some(id) => {
                let row = opened.store.find_connection_by_id(id).await?.ok_or_else(|| unknown(id))?;
                let outcome = connections.revoke(&row.project, &row.id, ACTOR).await.map_err(failed)?;
                if outcome == RevokeOutcome::NotFound {
                    return Err(Failure::new(format!("the connection `{id}` has ended before")));
                }
                vec![(row, outcome)]
            }
            None => revoke_all(opened, &connections, args, output).await?,
        };
        if args.list.json {
            output.line(&json!(report.iter().map(reported).collect::<Vec<_>>()).to_string());
        } else {
            output.table(&report.iter().map(line).collect::<Vec<_>>());
        }
        let retrying = report.iter().filter(|(_, outcome)| *outcome == RevokeOutcome::Retrying).count();
        if retrying > 0 {
            output.note(&format!(
                "All of them have ended here. For {retrying} the authorization server did not answer yet: a running \
                 gateway asks it again."
            ));
        }
        Ok(())
    })
}

async fn revoke_all(
    opened: &Opened,
    connections: &Connections,
    args: &RevokeConnectionsArgs,
    output: Output,
) -> Result<Vec<(ConnectionRow, RevokeOutcome)>, Failure> {
    let which = &args.which;
    if which.project.is_none() && which.user.is_none() && which.issuer.is_none() {
        return Err(Failure::new("nothing says which connections are meant").hint(
            "give an id, as `toolgate connections list` shows it, or `--project`, `--user` or `--issuer`",
        ));
    }
    if !args.yes {
        let rows = find(opened, which).await?;
        if rows.is_empty() {
            output.note("There are no such connections.");
            return Ok(Vec::new());
        }
        let (number, those) = match rows.len() {
            1 => ("1 connection".to_owned(), "it"),
            many => (format!("{many} connections"), "them"),
        };
        return Err(Failure::new(format!("{number} would end, and nothing brings {those} back"))
            .hint("add `--yes` to do it; `toolgate connections list` with the same options shows which"));
    }
    let project = which.project.as_deref().map(namespace);
    let report = connections
        .revoke_all(project.as_deref(), which.user.as_deref(), which.issuer.as_deref(), ACTOR)
        .await
        .map_err(failed)?;
    if report.is_empty() {
        output.note("There are no such connections.");
    }
    Ok(report)
}

async fn find(opened: &Opened, which: &WhichArgs) -> Result<Vec<ConnectionRow>, Failure> {
    let project = which.project.as_deref().map(namespace);
    let (user, issuer) = (which.user.as_deref(), which.issuer.as_deref());
    Ok(opened.store.list_connections_everywhere(project.as_deref(), user, issuer).await?)
}

pub(super) fn open(
    opened: &Opened,
    settings: &Settings,
    environment: &Environment,
) -> Result<Connections, Failure> {
    let local = settings.is_local();
    let egress = Egress::new(&settings.egress, local, egress::system_lookup())
        .map_err(|error| Failure::new(error.to_string()))?;
    Connections::new(Parts {
        settings,
        variable: &|name| environment.get(name).map(str::to_owned),
        store: opened.store.clone(),
        keyring: opened.keyring.clone(),
        egress,
        clock: Clock::system(),
        pepper: *opened.pepper,
        public_url: settings.public_url(),
        local,
        metrics: std::sync::Arc::default(),
    })
    .map_err(Failure::new)
}

fn unknown(id: &str) -> Failure {
    Failure::new(format!("there is no connection with the id `{id}`"))
        .hint("`toolgate connections list` shows the ids")
}

pub(super) fn failed(error: Error) -> Failure {
    let hint = match error {
        Error::Sealed => "does the keyring belong to this database? `toolgate keys list` shows its keys",
        Error::Store | Error::NotNow => "try again; what has ended stays ended",
    };
    Failure::new(error.to_string()).hint(hint)
}

fn to_json(row: &ConnectionRow) -> Value {
    json!({
        "id": row.id,
        "project": row.project,
        "user": row.user,
        "profile": Some(&row.profile).filter(|profile| !profile.is_empty()),
        "resource": row.resource,
        "issuer": row.issuer,
        "account": row.account,
        "scopes": row.scopes.split_whitespace().collect::<Vec<_>>(),
        "status": row.status,
        "reason": row.reason,
        "created_at_ms": row.created_at,
        "last_used_at_ms": row.last_used_at,
    })
}

fn to_row(row: &ConnectionRow) -> Vec<String> {
    let status = if row.status == "needs_reauth" { "needs a login" } else { &row.status };
    vec![
        row.id.clone(),
        row.project.clone(),
        row.user.clone(),
        row.resource.clone(),
        status.to_owned(),
        format!("used {}", moment(row.last_used_at)),
    ]
}

fn reported((row, outcome): &(ConnectionRow, RevokeOutcome)) -> Value {
    json!({
        "id": row.id,
        "project": row.project,
        "user": row.user,
        "resource": row.resource,
        "issuer": row.issuer,
        "revocation": outcome,
    })
}

fn line((row, outcome): &(ConnectionRow, RevokeOutcome)) -> Vec<String> {
    let outcome = match outcome {
        RevokeOutcome::Revoked => "revoked",
        RevokeOutcome::Unsupported => "unsupported: ended here; the provider cannot revoke",
        RevokeOutcome::Retrying => "retrying: ended here; the provider did not answer yet",
        RevokeOutcome::NotFound => "had ended",
    };
    vec![row.id.clone(), row.project.clone(), row.user.clone(), row.resource.clone(), outcome.to_owned()]
}
