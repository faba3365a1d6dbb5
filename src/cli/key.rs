//! `toolgate key create`, `list` and `revoke`: API keys of projects. A key is shown once; its hash is kept.

use serde_json::json;

use super::args::{CreateKeyArgs, ListArgs, ScopeArg, StoreArgs};
use super::{Failure, Output, house};
use crate::config::{Environment, KeyScope, Secret};
use crate::crypto::ApiKeyHash;
use crate::id::random_id;
use crate::identity::{KeyEnding, Scopes};
use crate::server::Opened;
use crate::store::ApiKey;

const ID_PREFIX: &str = "ak_";

pub(super) fn create(args: &CreateKeyArgs, environment: &Environment, output: Output) -> Result<(), Failure> {
    let project = super::project::checked_name(&args.project)?;
    let name = super::project::checked_name(&args.name)?;
    let scopes = match args.scope.as_slice() {
        [] => Scopes::USUAL,
        given => given.iter().map(|scope| scope_of(*scope)).collect(),
    };
    house::with_store(&args.store, environment, async |opened: &Opened| {
        if opened.store.find_project(project).await?.is_none() {
            return Err(super::project::unknown(project));
        }
        let key = Secret::new(random_id("tgk_"));
        let stored = ApiKey {
            project: project.to_owned(),
            id: random_id(ID_PREFIX),
            name: name.to_owned(),
            hash: ApiKeyHash::of(key.expose()).as_bytes().to_vec(),
            ending: KeyEnding::of(key.expose()).as_str().to_owned(),
            scopes: scopes.to_text(),
            requests_per_minute: args.requests_per_minute.map(i64::from),
            created_at: house::now(),
            revoked_at: None,
        };
        opened.store.create_api_key(&stored).await?;
        output.line(key.expose());
        output.note(&format!(
            "This is the key, not shown again. Its id is {}; it is for {}.",
            stored.id,
            stored.scopes.replace(' ', " and ")
        ));
        Ok(())
    })
}

pub(super) fn list(
    project: Option<&str>,
    args: &ListArgs,
    environment: &Environment,
    output: Output,
) -> Result<(), Failure> {
    house::with_store(&args.store, environment, async |opened: &Opened| {
        if let Some(project) = project
            && opened.store.find_project(project).await?.is_none()
        {
            return Err(super::project::unknown(project));
        }
        let keys = opened.store.list_api_keys(project).await?;
        if args.json {
            output.line(&json!(keys.iter().map(to_json).collect::<Vec<_>>()).to_string());
        } else {
            output.table(&keys.iter().map(to_row).collect::<Vec<_>>());
        }
        if keys.is_empty() {
            output.note("There are no keys in the store; `toolgate key create` makes one.");
        }
        Ok(())
    })
}

pub(super) fn revoke(
    id: &str,
    store: &StoreArgs,
    environment: &Environment,
    output: Output,
) -> Result<(), Failure> {
    house::with_store(store, environment, async |opened: &Opened| {
        if !opened.store.revoke_api_key(id, house::now()).await? {
            return Err(Failure::new(format!("there is no key in use with the id `{id}`"))
                .hint("`toolgate key list` shows the ids"));
        }
        output
            .note(&format!("The key {id} lets nobody in any more; running gateways notice within seconds."));
        Ok(())
    })
}

/// A key in JSON, without anything secret.
pub(super) fn to_json(key: &ApiKey) -> serde_json::Value {
    json!({
        "id": key.id,
        "project": key.project,
        "name": key.name,
        "ending": key.ending,
        "scopes": key.scopes.split(' ').collect::<Vec<_>>(),
        "requests_per_minute": key.requests_per_minute,
        "created_at_ms": key.created_at,
        "revoked_at_ms": key.revoked_at,
    })
}

/// A key in a table.
pub(super) fn to_row(key: &ApiKey) -> Vec<String> {
    let state = if key.revoked_at.is_some() { "revoked" } else { "in use" };
    vec![
        key.id.clone(),
        key.project.clone(),
        key.name.clone(),
        format!("…{}", key.ending),
        key.scopes.replace(' ', ","),
        state.to_owned(),
    ]
}

fn scope_of(scope: ScopeArg) -> KeyScope {
    match scope {
        ScopeArg::Completions => KeyScope::Completions,
        ScopeArg::Connections => KeyScope::Connections,
        ScopeArg::Tokens => KeyScope::Tokens,
    }
}
