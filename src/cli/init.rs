//! `toolgate init`: everything a gateway needs before it can start for others.

use super::args::StoreArgs;
use super::{Failure, Output, house};
use crate::config::Environment;
use crate::keys::Source;
use crate::server::{Opened, WithoutKeys};
use crate::store::Location;

pub(super) fn run(args: &StoreArgs, environment: &Environment, output: Output) -> Result<(), Failure> {
    let settings = house::settings(args, environment)?;
    house::with_store_of(&settings, environment, WithoutKeys::Make, async |opened: &Opened| {
        let keyring = match &opened.source {
            Source::File(path) => path.display().to_string(),
            Source::Variable(_) => "TOOLGATE_KEYRING".to_owned(),
            Source::Memory => "in memory".to_owned(),
        };
        let database = match &opened.location {
            Location::File(path) => path.display().to_string(),
            Location::Postgres(_) => "PostgreSQL, by `store.url`".to_owned(),
            Location::Memory => "in memory".to_owned(),
        };
        output.table(&[vec!["keyring".to_owned(), keyring], vec!["database".to_owned(), database]]);
        output.note(
            "Ready. Keep a copy of the keyring now, apart from copies of the database: who has both can use",
        );
        output.note("every login, and without the keyring the database is worth nothing.");
        Ok(())
    })
}
