//! `toolgate migrate`: the tables brought up to date, for those who want that apart from starting the gateway.

use super::args::StoreArgs;
use super::{Failure, Output, house};
use crate::config::Environment;
use crate::server::Opened;

pub(super) fn run(args: &StoreArgs, environment: &Environment, output: Output) -> Result<(), Failure> {
    house::with_store(args, environment, async |opened: &Opened| {
        // Opening has done it; doing it again changes nothing and says how far it came.
        let number = opened.store.migrate().await?;
        output.line(&number.to_string());
        output.note(&format!("The database is up to date: step {number}."));
        Ok(())
    })
}
