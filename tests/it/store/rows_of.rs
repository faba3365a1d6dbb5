//! Rows to begin with, and two instances at one place.

use toolgate::store::{Error, RunBatch, RunChange, RunRow, RunUsage, Store};

use crate::support::Place;

pub const SHOP: &str = "project:shop";

/// A place with two instances that know each other.
pub struct Pair {
    pub place: Place,
    pub one: Store,
    pub other: Store,
}

impl Pair {
    pub async fn new() -> Pair {
        let place = Place::new().await;
        let one = place.store().await;
        one.migrate().await.unwrap();
        let other = place.store().await;
        one.register_instance("one", 100).await.unwrap();
        other.register_instance("other", 100).await.unwrap();
        Pair { place, one, other }
    }

    pub async fn create(&self, runs: &[RunRow]) {
        let mut open = self.one.begin().await.unwrap();
        for run in runs {
            open.create_run(run).await.unwrap();
        }
        open.commit().await.unwrap();
    }

    pub async fn count(&self, statement: &'static str) -> i64 {
        self.one.row(statement, Vec::new()).await.unwrap().unwrap().int("number").unwrap()
    }
}

/// A run of `one` in the shop that has just begun.
pub fn run(id: &str) -> RunRow {
    RunRow {
        project: SHOP.to_owned(),
        id: id.to_owned(),
        user: "ann".to_owned(),
        kind: "completion".to_owned(),
        model: "m".to_owned(),
        title: format!("About {id}"),
        status: "in_progress".to_owned(),
        visibility: "private".to_owned(),
        stored: true,
        metadata: b"{}".to_vec(),
        request: b"{}".to_vec(),
        state: b"{}".to_vec(),
        owner: "one".to_owned(),
        created_at: 100,
        changed_at: 100,
        ..RunRow::default()
    }
}

pub fn batch(run: &str, place: i64, first: i64, number: i64) -> RunBatch {
    let lines: String = (first..first + number).map(|event| format!("{event}\n")).collect();
    RunBatch {
        project: SHOP.to_owned(),
        run: run.to_owned(),
        place,
        first,
        number,
        events: lines.into_bytes(),
        steps: None,
    }
}

pub fn change(run: &str, status: &str, ended_at: Option<i64>) -> RunChange {
    RunChange {
        project: SHOP.to_owned(),
        run: run.to_owned(),
        status: status.to_owned(),
        reason: ended_at.map(|_| "stop".to_owned()),
        ended_at,
        usage: RunUsage { prompt_tokens: 1, completion_tokens: 2, turns: 3, tool_calls: 4 },
        visibility: None,
        used_logins: false,
        keep: false,
        more_bytes: 0,
    }
}

/// One write of the journal: `false` when this instance may not write any more.
pub async fn journal(
    store: &Store,
    instance: &str,
    now: i64,
    batches: Vec<RunBatch>,
    changes: &[RunChange],
) -> Result<bool, Error> {
    let mut open = store.begin().await?;
    if !open.still_alive(instance, now).await? {
        return Ok(false);
    }
    open.append_events(instance, batches).await?;
    open.change_runs(instance, changes, now).await?;
    open.commit().await?;
    Ok(true)
}
