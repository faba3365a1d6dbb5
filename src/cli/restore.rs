//! `toolgate restore`: says of a database what no gateway can see by itself: that it is an older copy, or that it is not.

use super::args::RestoreArgs;
use super::house::{now, settings, with_existing_store};
use super::{Failure, Output};
use crate::config::Environment;
use crate::id::random_id;
use crate::server::{self, Opened};
use crate::store::Location;

/// How long an interrupted run that is not stored can at least be resumed, in milliseconds: a day.
const TO_RESUME: i64 = 24 * 3_600_000;

/// Interrupts the unfinished runs of a database, or lets the next gateway go on with them.
pub(super) fn run(args: &RestoreArgs, environment: &Environment, output: Output) -> Result<(), Failure> {
    let lease = i64::try_from(settings(&args.store, environment)?.run.lease_seconds)
        .unwrap_or(i64::MAX / 1000)
        * 1000;
    with_existing_store(&args.store, environment, async |opened: &Opened| {
        let (store, now) = (&opened.store, now());
        let lock = match &opened.location {
            Location::File(path) => Some(server::lock(path, None).await?),
            Location::Postgres(_) | Location::Memory => None,
        };
        let lease_time = store.lease_time(now).await?;
        if lock.is_none() && store.is_served(lease_time.saturating_sub(lease)).await? {
            return Err(Failure::new("a gateway uses this database, or did a moment ago")
                .hint(format!("stop every instance, wait {} s, then try again", lease / 1000)));
        }
        // A name for what is done here, which nobody waits for.
        let name = random_id("gw_");
        store.register_instance(&name, lease_time).await?;
        if args.resume {
            store.accept_as_original().await?;
            output.note("The next gateway that starts here will continue the unfinished runs.");
        } else {
            let runs = store.interrupt_runs(&name, now, now + TO_RESUME).await?;
            output.line(&runs.to_string());
            output.note(&format!(
                "{runs} unfinished {} will end as `interrupted` when a gateway starts here. \
                 Their owners can resume them.",
                if runs == 1 { "run" } else { "runs" }
            ));
        }
        store.declare_dead(&name, Some(i64::MAX), lease_time).await?;
        if let Some(lock) = lock {
            lock.record(&name, 0);
        }
        Ok(())
    })
}
