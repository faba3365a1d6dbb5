//! What the commands beside the gateway share: settings, the open store, a runtime.

use std::path::Path;

use super::Failure;
use super::args::StoreArgs;
use crate::clock::Clock;
use crate::config::{self, Environment, Settings};
use crate::server::{self, Opened, WithoutKeys};
use crate::store::Location;

/// The settings as `serve` would have them.
pub(super) fn settings(args: &StoreArgs, environment: &Environment) -> Result<Settings, Failure> {
    let args = args.for_serve();
    let file = args.config_file(environment).map(Path::new);
    Ok(config::load(file, environment, &args.overrides(environment))?)
}

/// Opens the store and hands it to `work`. In local mode a missing keyring is made, as `serve` does.
pub(super) fn with_store<T>(
    args: &StoreArgs,
    environment: &Environment,
    work: impl AsyncFnOnce(&Opened) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let settings = settings(args, environment)?;
    let without_keys = if settings.is_local() { WithoutKeys::Make } else { WithoutKeys::Refuse };
    with_store_of(&settings, environment, without_keys, work)
}

/// As [`with_store`], for settings that were read before.
pub(super) fn with_store_of<T>(
    settings: &Settings,
    environment: &Environment,
    without_keys: WithoutKeys,
    work: impl AsyncFnOnce(&Opened) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start a worker: {error}")))?;
    runtime.block_on(async {
        let opened = server::open(settings, environment, without_keys).await?;
        if opened.location == Location::Memory {
            // What was done would be forgotten at once.
            return Err(server::Error::NoDataDirectory.into());
        }
        let result = work(&opened).await;
        opened.store.close().await;
        result
    })
}

/// As [`with_store`], where there is a store already: nothing is made for who only looks.
pub(super) fn with_existing_store<T>(
    args: &StoreArgs,
    environment: &Environment,
    work: impl AsyncFnOnce(&Opened) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let settings = settings(args, environment)?;
    let is_there = settings.store.url.is_some()
        || settings.data_directory(environment).is_some_and(|data| data.join(server::DATABASE_FILE).exists());
    if !is_there {
        let place = settings.data_directory(environment);
        let place = place.map(|data| format!(" in {}", data.display())).unwrap_or_default();
        return Err(Failure::new(format!("there is no database{place} yet")).hint(
            "name the gateway's with `--data DIR` or `--config FILE`, as the gateway is started, and run this as its user",
        ));
    }
    with_store_of(&settings, environment, WithoutKeys::Refuse, work)
}

/// Milliseconds since 1970.
pub(super) fn now() -> i64 {
    Clock::system().unix_milliseconds()
}
