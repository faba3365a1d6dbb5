//! Who may write: an instance that is declared dead cannot, whatever it had begun, and each run has one owner.

use std::collections::BTreeSet;

use toolgate::store::{Error, QuietInstance};

use super::rows_of::{Pair, SHOP, batch, change, journal, run};
use crate::instances::until_blocked;

#[tokio::test]
async fn an_instance_that_was_declared_dead_writes_nothing_any_more() {
    let pair = Pair::new().await;
    pair.create(&[run("r1")]).await;
    assert!(journal(&pair.one, "one", 200, vec![batch("r1", 0, 0, 1)], &[]).await.unwrap());
    assert!(!pair.other.declare_dead("one", Some(200), 300).await.unwrap(), "it was seen at that time");
    assert!(pair.other.declare_dead("one", Some(201), 300).await.unwrap());
    assert!(pair.other.declare_dead("one", Some(201), 301).await.unwrap(), "it is dead already");
    let ended = [change("r1", "completed", Some(300))];
    assert!(!journal(&pair.one, "one", 301, vec![batch("r1", 1, 1, 1)], &ended).await.unwrap());
    let late = pair.one.register_instance("one", 302).await;
    assert!(matches!(late, Err(Error::Exists)), "it does not come back");
    assert!(
        pair.one.adopt_runs("one", "one", 9, 303).await.unwrap().is_empty(),
        "nor takes what was its own"
    );
    assert_eq!(pair.other.last_batch(SHOP, "r1").await.unwrap(), Some((0, 0, 1)));
    assert_eq!(pair.other.find_run("r1").await.unwrap().unwrap().status, "in_progress");
    assert!(!journal(&pair.one, "unknown", 301, vec![], &[]).await.unwrap(), "nor does who was never there");
}

/// Whoever comes first, the declaration or the write, the other one waits for it.
#[tokio::test]
async fn a_write_that_had_begun_before_the_declaration_is_either_before_it_or_never_happens() {
    let pair = Pair::new().await;
    pair.create(&[run("r1")]).await;
    // The write is first: then it was seen, and is not dead.
    let mut open = pair.one.begin().await.unwrap();
    assert!(open.still_alive("one", 500).await.unwrap());
    open.append_events("one", vec![batch("r1", 0, 0, 1)]).await.unwrap();
    let other = pair.other.clone();
    let declaring = tokio::spawn(async move { other.declare_dead("one", Some(400), 600).await });
    if pair.place.is_shared() {
        until_blocked(&pair.place, 1).await;
    }
    open.commit().await.unwrap();
    assert!(!declaring.await.unwrap().unwrap(), "it was seen in the meantime");
    assert_eq!(pair.other.last_batch(SHOP, "r1").await.unwrap(), Some((0, 0, 1)));

    if !pair.place.is_shared() {
        // SQLite lets one transaction at a time begin.
        return;
    }
    // The transaction is first, and its first statement comes behind the declaration.
    let mut open = pair.one.begin().await.unwrap();
    assert!(open.row("SELECT 1 AS one FROM runs", Vec::new()).await.unwrap().is_some());
    assert!(pair.other.declare_dead("one", Some(501), 600).await.unwrap());
    assert!(!open.still_alive("one", 601).await.unwrap());
    drop(open);
    // The declaration has begun and is not yet there: the write waits for it.
    pair.one.register_instance("third", 600).await.unwrap();
    let mut declaration = pair.other.begin().await.unwrap();
    let dead = "UPDATE instances SET dead = 1 WHERE id = 'third'";
    assert_eq!(declaration.execute(dead, Vec::new()).await.unwrap(), 1);
    let one = pair.one.clone();
    let writing =
        tokio::spawn(async move { journal(&one, "third", 700, vec![batch("r1", 1, 1, 1)], &[]).await });
    until_blocked(&pair.place, 1).await;
    declaration.commit().await.unwrap();
    assert!(!writing.await.unwrap().unwrap());
    assert_eq!(pair.other.last_batch(SHOP, "r1").await.unwrap(), Some((0, 0, 1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_runs_of_a_dead_instance_go_to_one_taker_each() {
    let pair = Pair::new().await;
    let names: Vec<String> = (0..60).map(|number| format!("r{number:02}")).collect();
    pair.create(&names.iter().map(|name| run(name)).collect::<Vec<_>>()).await;
    assert!(journal(&pair.one, "one", 200, vec![], &[change("r07", "completed", Some(200))]).await.unwrap());
    assert!(pair.other.adopt_runs("one", "other", 99, 300).await.unwrap().is_empty(), "it lives");
    assert!(pair.other.declare_dead("one", Some(201), 300).await.unwrap());
    let takers: Vec<String> = (0..6).map(|number| format!("taker{number}")).collect();
    let mut tasks = Vec::new();
    for taker in takers {
        let store = pair.place.store().await;
        store.register_instance(&taker, 300).await.unwrap();
        tasks.push(tokio::spawn(async move {
            let mut taken = Vec::new();
            loop {
                let runs = store.adopt_runs("one", &taker, 4, 400).await.unwrap();
                assert!(runs.len() <= 4 && runs.is_sorted_by_key(|run| run.id.clone()), "the oldest first");
                assert!(runs.iter().all(|run| run.owner == taker && run.takeovers == 1));
                if runs.is_empty() {
                    return taken;
                }
                taken.extend(runs.into_iter().map(|run| run.id));
            }
        }));
    }
    let mut taken = Vec::new();
    for task in tasks {
        taken.extend(task.await.unwrap());
    }
    assert_eq!(taken.len(), 59, "the one that had ended stays");
    let distinct: BTreeSet<&String> = taken.iter().collect();
    assert_eq!(distinct.len(), 59);
    assert!(!distinct.contains(&"r07".to_owned()));
}

#[tokio::test]
async fn runs_that_are_handed_over_are_taken_by_who_lives() {
    let pair = Pair::new().await;
    pair.create(&[run("r1"), run("r2"), run("r3")]).await;
    let only = ["r1".to_owned(), "r3".to_owned(), "absent".to_owned()];
    assert_eq!(pair.other.release_runs("other", &only).await.unwrap(), 0, "they are not its own");
    assert_eq!(pair.one.release_runs("one", &only).await.unwrap(), 2);
    assert!(pair.one.adopt_runs("", "unknown", 9, 300).await.unwrap().is_empty());
    assert!(pair.one.adopt_runs("", "", 9, 300).await.unwrap().is_empty());
    let taken = pair.other.adopt_runs("", "other", 9, 300).await.unwrap();
    assert_eq!(taken.iter().map(|run| run.id.as_str()).collect::<Vec<_>>(), ["r1", "r3"]);
    assert_eq!(pair.one.find_run("r2").await.unwrap().unwrap().owner, "one");
    assert_eq!(pair.one.find_run("r3").await.unwrap().as_ref(), Some(&taken[1]));
}

#[tokio::test]
async fn quiet_dead_and_unknown_instances_are_found_and_forgotten_in_time() {
    let pair = Pair::new().await;
    let mut lost = run("r2");
    lost.owner = "lost".to_owned();
    let mut nobodys = run("r3");
    nobodys.owner = String::new();
    pair.create(&[run("r1"), lost, nobodys]).await;
    let quiet = |id: &str, seen_at, is_dead| QuietInstance { id: id.to_owned(), seen_at, is_dead };
    let unknown = quiet("lost", None, false);
    assert_eq!(pair.other.list_dead_candidates("other", 100).await.unwrap(), std::slice::from_ref(&unknown));
    let both = [unknown, quiet("one", Some(100), false)];
    assert_eq!(pair.other.list_dead_candidates("other", 101).await.unwrap(), both);
    assert!(pair.other.declare_dead("one", Some(101), 300).await.unwrap());
    assert!(pair.other.declare_dead("lost", None, 300).await.unwrap());
    assert!(!pair.other.declare_dead("other", None, 300).await.unwrap(), "something is known of it");
    let both = [quiet("lost", Some(300), true), quiet("one", Some(300), true)];
    assert_eq!(pair.other.list_dead_candidates("other", 101).await.unwrap(), both);
    assert_eq!(pair.other.forget_instances(1000).await.unwrap(), 0, "they have runs");
    assert_eq!(pair.other.adopt_runs("one", "other", 9, 400).await.unwrap().len(), 1);
    assert_eq!(pair.other.adopt_runs("lost", "other", 9, 400).await.unwrap().len(), 1);
    assert!(pair.other.list_dead_candidates("other", 101).await.unwrap().is_empty());
    assert_eq!(pair.other.forget_instances(300).await.unwrap(), 0, "not yet");
    assert_eq!(pair.other.forget_instances(301).await.unwrap(), 2);
    assert!(!journal(&pair.one, "one", 500, vec![], &[]).await.unwrap(), "forgotten is not alive");
}
