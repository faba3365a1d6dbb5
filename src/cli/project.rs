//! `toolgate project …`: the applications that call with keys of their own.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::args::{ChangeProjectArgs, ListArgs, ProjectCommand, ProofArg, StoreArgs, UpdateProjectArgs};
use super::{Failure, Output, connections, house, key};
use crate::config::{Environment, Secret, Settings, is_name, is_public_or_own_url};
use crate::id::random_bytes;
use crate::server::{Opened, WithoutKeys};
use crate::store::{self, DeletedProject, PROJECT_WEBHOOK_SECRET, Project, ProjectProof};

pub(super) fn run(command: ProjectCommand, environment: &Environment, output: Output) -> Result<(), Failure> {
    match command {
        ProjectCommand::Create(args) => create(&args, environment, output),
        ProjectCommand::List(args) => list(&args, environment, output),
        ProjectCommand::Show { name, list } => show(&name, &list, environment, output),
        ProjectCommand::Update(args) => update(&args, environment, output),
        ProjectCommand::Delete { name, store } => delete(&name, &store, environment, output),
    }
}

/// The failure that there is no such project.
pub(super) fn unknown(name: &str) -> Failure {
    Failure::new(format!("there is no project `{name}` in the store")).hint(format!(
        "`toolgate project create {name}` adds it; `toolgate project list` shows those there are"
    ))
}

/// A name that can be part of addresses and namespaces.
pub(super) fn checked_name(name: &str) -> Result<&str, Failure> {
    if is_name(name) {
        return Ok(name);
    }
    Err(Failure::new("a name must be up to 64 letters, digits, `-`, `_` and `.`"))
}

fn create(args: &ChangeProjectArgs, environment: &Environment, output: Output) -> Result<(), Failure> {
    let name = checked_name(&args.name)?;
    let settings = house::settings(&args.store, environment)?;
    let ends_pass_through =
        settings.pass_through.enabled.is_none() && settings.api_keys.is_empty() && !settings.is_local();
    house::with_store(&args.store, environment, async |opened: &Opened| {
        let is_first = !opened.store.has_projects().await?;
        let now = house::now();
        let mut project = Project {
            name: name.to_owned(),
            proof: ProjectProof::Gateway,
            verifier_url: None,
            webhook_url: None,
            sealed_webhook_secret: None,
            created_at: now,
            updated_at: now,
        };
        let secret = change(&mut project, args, opened)?;
        check_links(&project, &settings)?;
        match opened.store.create_project(&project).await {
            Ok(()) => {}
            Err(store::Error::Exists) => {
                return Err(Failure::new(format!("there is a project `{name}` already"))
                    .hint(format!("`toolgate project update {name}` changes it")));
            }
            Err(error) => return Err(error.into()),
        }
        show_secret(secret.as_ref(), output);
        output.note(&format!("Added. `toolgate key create --project {name}` makes a key for it."));
        if is_first && ends_pass_through {
            output.note(
                "Callers with a provider's own key are refused from now on; `[pass_through] enabled = true` lets them in.",
            );
        }
        Ok(())
    })
}

fn update(args: &UpdateProjectArgs, environment: &Environment, output: Output) -> Result<(), Failure> {
    let name = args.change.name.as_str();
    let settings = house::settings(&args.change.store, environment)?;
    house::with_store(&args.change.store, environment, async |opened: &Opened| {
        let mut project = opened.store.find_project(name).await?.ok_or_else(|| unknown(name))?;
        if args.no_webhook {
            (project.webhook_url, project.sealed_webhook_secret) = (None, None);
        }
        let mut secret = change(&mut project, &args.change, opened)?;
        check_links(&project, &settings)?;
        if args.new_webhook_secret && secret.is_none() {
            if project.webhook_url.is_none() {
                return Err(
                    Failure::new("the project has no webhook").hint("give it one with `--webhook-url URL`")
                );
            }
            secret = Some(new_secret(&mut project, opened));
        }
        project.updated_at = house::now();
        if !opened.store.update_project(&project).await? {
            return Err(unknown(name));
        }
        show_secret(secret.as_ref(), output);
        output.note("Changed.");
        Ok(())
    })
}

/// Refuses a project whose users could complete no login.
fn check_links(project: &Project, settings: &Settings) -> Result<(), Failure> {
    let obstacle = match project.proof {
        ProjectProof::App => settings.link_obstacle(),
        ProjectProof::Gateway => settings.gateway_proof_obstacle(),
    };
    match obstacle {
        Some(obstacle) => Err(Failure::new(format!("project `{}`: {}", project.name, obstacle.reason()))
            .hint(format!("{}; `--config FILE` names the gateway's configuration", obstacle.remedy()))),
        None => Ok(()),
    }
}

/// Puts what was given into `project`, and gives the webhook secret that was made for it.
fn change(
    project: &mut Project,
    args: &ChangeProjectArgs,
    opened: &Opened,
) -> Result<Option<Secret>, Failure> {
    if let Some(proof) = args.proof {
        project.proof = match proof {
            ProofArg::Gateway => ProjectProof::Gateway,
            ProofArg::App => ProjectProof::App,
        };
    }
    if let Some(url) = &args.verifier_url {
        project.verifier_url = Some(checked_url("--verifier-url", url)?);
    }
    match (project.proof, &project.verifier_url) {
        (ProjectProof::App, None) => {
            return Err(Failure::new("with `--proof app` the application's verifier is needed")
                .hint("give its address with `--verifier-url URL`"));
        }
        (ProjectProof::Gateway, Some(_)) if args.verifier_url.is_some() => {
            return Err(Failure::new("`--verifier-url` has no effect without `--proof app`"));
        }
        (ProjectProof::Gateway, _) => project.verifier_url = None,
        (ProjectProof::App, Some(_)) => {}
    }
    let Some(url) = &args.webhook_url else { return Ok(None) };
    project.webhook_url = Some(checked_url("--webhook-url", url)?);
    Ok(project.sealed_webhook_secret.is_none().then(|| new_secret(project, opened)))
}

/// A signing secret in the form of Standard Webhooks, sealed into `project`.
fn new_secret(project: &mut Project, opened: &Opened) -> Secret {
    let bytes = Zeroizing::new(random_bytes::<32>());
    let secret = Secret::new(format!("whsec_{}", STANDARD.encode(bytes.as_slice())));
    let place = PROJECT_WEBHOOK_SECRET.place(&project.name, &project.name, "");
    let sealed = opened.keyring.seal(random_bytes(), &place, secret.expose().as_bytes());
    project.sealed_webhook_secret = Some(sealed);
    secret
}

fn show_secret(secret: Option<&Secret>, output: Output) {
    if let Some(secret) = secret {
        output.line(secret.expose());
        output.note("This secret signs the webhooks. It is not shown again.");
    }
}

fn checked_url(option: &str, url: &str) -> Result<String, Failure> {
    if is_public_or_own_url(url) {
        return Ok(url.to_owned());
    }
    Err(Failure::new(format!("`{option}` must be an address that begins with https://")).hint(
        "http:// is for this machine only; a user name, a password, a `?` or a `#` part cannot be in it",
    ))
}

fn list(args: &ListArgs, environment: &Environment, output: Output) -> Result<(), Failure> {
    house::with_store(&args.store, environment, async |opened: &Opened| {
        let projects = opened.store.list_projects().await?;
        if args.json {
            output.line(&json!(projects.iter().map(to_json).collect::<Vec<_>>()).to_string());
        } else {
            output.table(&projects.iter().map(to_row).collect::<Vec<_>>());
        }
        if projects.is_empty() {
            output.note("There are no projects in the store; `toolgate project create NAME` adds one.");
        }
        Ok(())
    })
}

fn show(name: &str, args: &ListArgs, environment: &Environment, output: Output) -> Result<(), Failure> {
    house::with_store(&args.store, environment, async |opened: &Opened| {
        let project = opened.store.find_project(name).await?.ok_or_else(|| unknown(name))?;
        let keys = opened.store.list_api_keys(Some(name)).await?;
        if args.json {
            let mut shown = to_json(&project);
            shown["keys"] = keys.iter().map(key::to_json).collect();
            output.line(&shown.to_string());
        } else {
            output.table(&[to_row(&project)]);
            output.table(&keys.iter().map(key::to_row).collect::<Vec<_>>());
        }
        Ok(())
    })
}

fn delete(name: &str, args: &StoreArgs, environment: &Environment, output: Output) -> Result<(), Failure> {
    let settings = house::settings(args, environment)?;
    let without_keys = if settings.is_local() { WithoutKeys::Make } else { WithoutKeys::Refuse };
    house::with_store_of(&settings, environment, without_keys, async |opened: &Opened| {
        let connections = connections::open(opened, &settings, environment)?;
        match connections.delete_project(name).await.map_err(connections::failed)? {
            DeletedProject::Deleted => {
                output.note(&format!("The project {name} and its keys are gone."));
                Ok(())
            }
            DeletedProject::NotFound => Err(unknown(name)),
            DeletedProject::HasConnections(number) => Err(Failure::new(format!(
                "users of `{name}` still have {number} connections, and nothing was deleted"
            ))
            .hint(format!("revoke them first: `toolgate connections revoke --project {name}`"))),
        }
    })
}

fn to_json(project: &Project) -> Value {
    json!({
        "name": project.name,
        "proof": project.proof.as_str(),
        "verifier_url": project.verifier_url,
        "webhook_url": project.webhook_url,
        "created_at_ms": project.created_at,
        "updated_at_ms": project.updated_at,
    })
}

fn to_row(project: &Project) -> Vec<String> {
    let or_dash = |url: &Option<String>| url.clone().unwrap_or_else(|| "-".to_owned());
    vec![
        project.name.clone(),
        project.proof.as_str().to_owned(),
        or_dash(&project.verifier_url),
        or_dash(&project.webhook_url),
    ]
}
