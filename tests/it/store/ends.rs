//! What is deleted, or whose time is over, is gone: from every table, and from the disk.

use toolgate::server::DATABASE_FILE;
use toolgate::store::{Claimed, DeletedProject, Error, NewKey, Project, ProjectProof, RunRow};

use super::rows_of::{Pair, SHOP, batch, change, journal, run};
use crate::instances::until_blocked;
use crate::support::Place;

const CANARY: &str = "canary-5f1b7c";

/// How often the canary stands in the files of the database.
fn sightings(place: &Place) -> usize {
    let files = std::fs::read_dir(place.folder()).unwrap().flatten();
    let files = files.filter(|file| file.file_name().to_string_lossy().starts_with(DATABASE_FILE));
    files
        .map(|file| {
            let bytes = std::fs::read(file.path()).unwrap();
            bytes.windows(CANARY.len()).filter(|found| *found == CANARY.as_bytes()).count()
        })
        .sum()
}

/// A run that says the canary everywhere.
fn telling(id: &str) -> RunRow {
    RunRow {
        user: format!("{CANARY} user"),
        model: format!("{CANARY} model"),
        title: format!("{CANARY} {}", "title ".repeat(id.len())),
        person: format!("{CANARY} {id}"),
        metadata: CANARY.as_bytes().to_vec(),
        request: CANARY.repeat(2000).into_bytes(),
        state: CANARY.repeat(20).into_bytes(),
        ..run(id)
    }
}

/// 40 runs, every second of which tells, and what happened in them, in turns, so that they share pages.
async fn fill(pair: &Pair, expires_at: Option<i64>) {
    let tells = |number: usize| number.is_multiple_of(2);
    let runs = (0..40).map(|number| match tells(number) {
        true => RunRow { expires_at, ended_at: expires_at.map(|_| 1), ..telling(&format!("r{number:02}")) },
        false => run(&format!("r{number:02}")),
    });
    pair.create(&runs.collect::<Vec<_>>()).await;
    for place in 0..30_i64 {
        let batches = (0..40).map(|number| {
            let mut next = batch(&format!("r{number:02}"), place, place, 1);
            let times = 1 + usize::try_from(place).unwrap() * number % 37;
            let word = if tells(number) { CANARY } else { "harmless-12345" };
            next.events = word.repeat(times).into_bytes();
            next.steps = (place % 3 == 0).then(|| word.repeat(300 * (number % 2 + 1)).into_bytes());
            next
        });
        assert!(journal(&pair.one, "one", 101, batches.collect(), &[]).await.unwrap());
    }
    let mut open = pair.one.begin().await.unwrap();
    for number in 0..40_u8 {
        let key = NewKey { kind: "content", hash: &[number; 32], body_hash: &[1; 32], expires_at: i64::MAX };
        open.claim_key(SHOP, &key, &format!("r{number:02}"), 1).await.unwrap();
    }
    open.commit().await.unwrap();
}

/// Only the harmless half is left.
async fn assert_wiped(pair: &Pair) {
    for (statement, number) in [
        ("SELECT COUNT(*) AS number FROM runs", 20),
        ("SELECT COUNT(*) AS number FROM run_events", 20 * 30),
        ("SELECT COUNT(*) AS number FROM run_keys", 20),
    ] {
        assert_eq!(pair.count(statement).await, number, "{statement}");
    }
    if !pair.place.is_shared() {
        assert_eq!(sightings(&pair.place), 0);
    }
}

#[tokio::test]
async fn a_run_whose_time_is_over_leaves_no_byte_behind() {
    let pair = Pair::new().await;
    fill(&pair, Some(1000)).await;
    assert!(pair.place.is_shared() || sightings(&pair.place) > 1000, "it stands there before");
    assert_eq!(pair.other.expire_runs(999, 100).await.unwrap(), 0);
    assert_eq!(pair.other.expire_runs(1000, 3).await.unwrap(), 3);
    assert_eq!(pair.other.expire_runs(1000, 100).await.unwrap(), 17);
    assert_eq!(pair.other.expire_runs(1000, 100).await.unwrap(), 0);
    assert_wiped(&pair).await;
    pair.create(&[RunRow { expires_at: Some(900), ..run("r99") }]).await;
    assert_eq!(pair.other.expire_runs(1000, 100).await.unwrap(), 0, "it goes on");
}

#[tokio::test]
async fn a_run_that_is_deleted_leaves_no_byte_behind_even_when_it_was_made_smaller_before() {
    let pair = Pair::new().await;
    fill(&pair, None).await;
    for number in (0..40).step_by(2) {
        let id = format!("r{number:02}");
        if number % 4 == 0 {
            assert!(
                journal(&pair.one, "one", 102, vec![], &[change(&id, "completed", Some(102))]).await.unwrap()
            );
            assert!(pair.one.compact_run(SHOP, &id).await.unwrap().is_some());
        }
        assert!(!pair.other.delete_run("project:rival", &id).await.unwrap());
        assert!(pair.other.delete_run(SHOP, &id).await.unwrap());
        assert!(!pair.other.delete_run(SHOP, &id).await.unwrap());
    }
    assert_wiped(&pair).await;
}

#[tokio::test]
async fn a_key_goes_with_its_time_and_its_run_stays() {
    let pair = Pair::new().await;
    pair.create(&[run("r1")]).await;
    let mut open = pair.one.begin().await.unwrap();
    for (kind, expires_at) in [("idempotency", 500), ("content", 501)] {
        let key = NewKey { kind, hash: &[1; 32], body_hash: &[1; 32], expires_at };
        assert_eq!(open.claim_key(SHOP, &key, "r1", 1).await.unwrap(), Claimed::New);
    }
    open.commit().await.unwrap();
    assert_eq!(pair.other.expire_runs(500, 100).await.unwrap(), 0);
    assert_eq!(pair.count("SELECT COUNT(*) AS number FROM run_keys WHERE kind = 'content'").await, 1);
    assert_eq!(pair.count("SELECT COUNT(*) AS number FROM run_keys").await, 1);
    assert!(pair.one.find_run("r1").await.unwrap().is_some());
}

/// Else events would be left that belong to nothing, and that nothing would ever delete.
#[tokio::test]
async fn a_run_that_is_deleted_while_its_events_are_written_goes_with_them() {
    let pair = Pair::new().await;
    pair.create(&[RunRow { expires_at: Some(900), ended_at: Some(1), ..run("r1") }, run("r2")]).await;
    for (deletion, name) in [("expiry", "r1"), ("deletion", "r2")] {
        let mut open = pair.one.begin().await.unwrap();
        assert!(open.still_alive("one", 500).await.unwrap());
        open.append_events("one", vec![batch(name, 0, 0, 1)]).await.unwrap();
        let other = pair.other.clone();
        let deleting = tokio::spawn(async move {
            match deletion {
                "expiry" => other.expire_runs(1000, 10).await.unwrap() == 1,
                _ => other.delete_run(SHOP, "r2").await.unwrap(),
            }
        });
        if pair.place.is_shared() {
            until_blocked(&pair.place, 1).await;
        }
        open.append_events("one", vec![batch(name, 1, 1, 1)]).await.unwrap();
        open.commit().await.unwrap();
        assert!(deleting.await.unwrap());
        assert!(journal(&pair.one, "one", 501, vec![batch(name, 2, 2, 1)], &[]).await.unwrap());
        assert_eq!(pair.count("SELECT COUNT(*) AS number FROM run_events").await, 0, "{deletion}");
    }
}

#[tokio::test]
async fn a_project_that_is_deleted_takes_its_runs_with_it_and_nobody_elses() {
    let pair = Pair::new().await;
    for name in ["shop", "rival"] {
        let project = Project {
            name: name.to_owned(),
            proof: ProjectProof::Gateway,
            verifier_url: None,
            webhook_url: None,
            sealed_webhook_secret: None,
            created_at: 1,
            updated_at: 1,
        };
        pair.one.create_project(&project).await.unwrap();
    }
    fill(&pair, None).await;
    let rival = RunRow { project: "project:rival".to_owned(), ..run("rival") };
    pair.create(std::slice::from_ref(&rival)).await;
    let deleted = pair.other.delete_project("shop", async |_, _| Ok::<(), Error>(())).await.unwrap();
    assert_eq!(deleted, DeletedProject::Deleted);
    for statement in [
        "SELECT COUNT(*) AS number FROM run_events",
        "SELECT COUNT(*) AS number FROM run_keys",
        "SELECT COUNT(*) - 1 AS number FROM runs",
    ] {
        assert_eq!(pair.count(statement).await, 0, "{statement}");
    }
    assert_eq!(pair.one.find_run("rival").await.unwrap(), Some(rival));
    assert!(pair.place.is_shared() || sightings(&pair.place) == 0);
    let late = vec![batch("r01", 99, 99, 1)];
    assert!(journal(&pair.one, "one", 101, late, &[]).await.unwrap());
    assert_eq!(pair.count("SELECT COUNT(*) AS number FROM run_events").await, 0);
}

/// Fillings of the database with which SQLite, when it deletes, leaves copies behind of what it deletes next.
#[tokio::test]
async fn pages_that_are_put_in_order_while_runs_go_keep_nothing_of_them() {
    for start in [5_u64, 33, 48, 52] {
        let mut state = start;
        let mut next = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let pair = Pair::new().await;
        for number in 0..30 {
            let tells = next(2) == 0;
            let mut run = run(&format!("r{number:02}"));
            (run.expires_at, run.ended_at) = (tells.then_some(5), tells.then_some(1));
            let word = if tells { CANARY } else { "harmless-12345" };
            pair.create(&[run.clone()]).await;
            let mut events = Vec::new();
            for place in 0..i64::try_from(next(40)).unwrap() {
                let mut one = batch(&run.id, place, place, 1);
                one.events = word.repeat(1 + usize::try_from(next(100)).unwrap()).into_bytes();
                events.push(one);
            }
            assert!(journal(&pair.one, "one", 101, events, &[]).await.unwrap());
        }
        pair.other.expire_runs(10, 1000).await.unwrap();
        assert!(pair.place.is_shared() || sightings(&pair.place) == 0);
        assert_eq!(pair.count("SELECT COUNT(*) AS number FROM runs WHERE expires_at IS NOT NULL").await, 0);
    }
}
