//! `toolgate keys …`: the keys that seal what is stored, and their exchange: add, activate, rotate, retire.

use std::time::Duration;

use serde_json::json;
use zeroize::Zeroizing;

use super::args::{KeysCommand, ListArgs, StoreArgs};
use super::{Failure, Output, house};
use crate::config::Environment;
use crate::crypto::KEY_ID_PREFIX;
use crate::id::{random_bytes, random_id};
use crate::keys::{self, Use};
use crate::server::Opened;

/// How long `retire` waits: longer than a running gateway takes to read the keyring again.
const NOTICED_AFTER: Duration = Duration::from_secs(5);

pub(super) fn run(command: KeysCommand, environment: &Environment, output: Output) -> Result<(), Failure> {
    match command {
        KeysCommand::List(args) => list(&args, environment, output),
        KeysCommand::Add(store) => add(&store, environment, output),
        KeysCommand::Activate { id, store } => activate(&id, &store, environment, output),
        KeysCommand::Rotate(store) => rotate(&store, environment, output),
        KeysCommand::Retire { id, now, store } => retire(&id, now, &store, environment, output),
    }
}

fn list(args: &ListArgs, environment: &Environment, output: Output) -> Result<(), Failure> {
    house::with_existing_store(&args.store, environment, async |opened: &Opened| {
        let set = opened.keyring.keys();
        let uses = keys::count_uses(&opened.store, &set).await?;
        let number =
            |id: &str| uses.iter().filter(|used| used.key_id == id).map(|used| used.number).sum::<i64>();
        if args.json {
            let keys: Vec<_> = set
                .ids()
                .map(|id| json!({ "id": id, "active": id == set.active_id(), "sealed_values": number(id) }))
                .collect();
            output.line(&json!(keys).to_string());
            return Ok(());
        }
        let row = |id: &str| {
            let state = if id == set.active_id() { "active" } else { "" };
            vec![id.to_owned(), format!("{} sealed", number(id)), state.to_owned()]
        };
        output.table(&set.ids().map(row).collect::<Vec<_>>());
        Ok(())
    })
}

fn add(store: &StoreArgs, environment: &Environment, output: Output) -> Result<(), Failure> {
    house::with_store(store, environment, async |opened: &Opened| {
        let id = random_id(KEY_ID_PREFIX);
        let key = Zeroizing::new(random_bytes::<32>());
        opened.source.change(|set| Ok(set.add(&id, &key)?))?;
        output.line(&id);
        output.note(
            "Added, not active yet. Give the keyring to every instance and to your copies first, then:",
        );
        output.note(&format!("toolgate keys activate {id}"));
        Ok(())
    })
}

fn activate(id: &str, store: &StoreArgs, environment: &Environment, output: Output) -> Result<(), Failure> {
    house::with_store(store, environment, async |opened: &Opened| {
        opened.source.change(|set| Ok(set.activate(id)?))?;
        output.note(&format!(
            "{id} seals from now on; running gateways notice within seconds. What was sealed before stays readable; \
             `toolgate keys rotate` seals it anew."
        ));
        Ok(())
    })
}

fn rotate(store: &StoreArgs, environment: &Environment, output: Output) -> Result<(), Failure> {
    house::with_store(store, environment, async |opened: &Opened| {
        let mut last = 0;
        let done = keys::rotate(&opened.store, &opened.keyring, |column, total| {
            if total.resealed >= last + 1000 {
                last = total.resealed;
                output
                    .note(&format!("{} sealed anew, at {}.{}", total.resealed, column.table, column.column));
            }
        })
        .await?;
        output.line(&done.resealed.to_string());
        output.note(&format!(
            "{} values are sealed anew with {}.",
            done.resealed,
            opened.keyring.active_id()
        ));
        Ok(())
    })
}

fn retire(
    id: &str,
    now: bool,
    store: &StoreArgs,
    environment: &Environment,
    output: Output,
) -> Result<(), Failure> {
    house::with_store(store, environment, async |opened: &Opened| {
        let set = opened.keyring.keys();
        if !set.contains(id) {
            return Err(keys::Error::from(crate::crypto::KeySetError::Unknown).into());
        }
        if id == set.active_id() {
            return Err(Failure::new(format!("`{id}` is the active key")).hint(
                "`toolgate keys add` makes another; activate that one and run `toolgate keys rotate` first",
            ));
        }
        refuse_in_use(opened, id).await?;
        if !now {
            output.note("Waiting some seconds, until every running gateway has noticed which key is active…");
            tokio::time::sleep(NOTICED_AFTER).await;
            refuse_in_use(opened, id).await?;
        }
        opened.source.change(|set| Ok(set.remove(id)?))?;
        output.note(&format!(
            "{id} is gone from the keyring. Older backups of the database still need it: keep it with them."
        ));
        Ok(())
    })
}

async fn refuse_in_use(opened: &Opened, id: &str) -> Result<(), Failure> {
    let uses: Vec<Use> = keys::count_uses(&opened.store, &opened.keyring.keys()).await?;
    let places: Vec<String> = uses
        .iter()
        .filter(|used| used.key_id == id)
        .map(|used| format!("{} in {}.{}", used.number, used.table, used.column))
        .collect();
    if places.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("`{id}` is still in use: {}", places.join(", ")))
        .hint("`toolgate keys rotate` seals everything with the active key"))
}
