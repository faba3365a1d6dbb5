//! What is put in comes out, once, and stays as it is when a run has ended.

use toolgate::store::{Claimed, Error, NewKey, RunChange, RunRow, RunUsage};

use super::rows_of::{Pair, SHOP, batch, change, journal, run};

#[tokio::test]
async fn a_run_comes_out_as_it_was_put_in_and_shows_nothing_of_itself_in_a_log() {
    let pair = Pair::new().await;
    let full = RunRow {
        user: "a\0nn".to_owned(),
        profile: "work".to_owned(),
        person: "acct_1".to_owned(),
        title: "Secret title \0 ✓".to_owned(),
        reason: Some("stop".to_owned()),
        metadata: b"{\"a\":\"secret\"}".to_vec(),
        request: b"secret request".to_vec(),
        state: vec![0, 159, 146, 150],
        takeovers: 2,
        cancel_requested: true,
        ended_at: Some(7),
        expires_at: Some(8),
        usage: RunUsage { prompt_tokens: 1, completion_tokens: 2, turns: 3, tool_calls: 4 },
        ..run("r1")
    };
    pair.create(&[full.clone(), run("r2")]).await;
    assert_eq!(pair.other.find_run("r1").await.unwrap(), Some(full.clone()));
    assert_eq!(pair.other.find_run("r2").await.unwrap(), Some(run("r2")));
    assert_eq!(pair.other.find_run("r3").await.unwrap(), None);
    assert!(!format!("{full:?} {:?}", batch("r1", 0, 0, 3)).to_lowercase().contains("secret"));
    let mut open = pair.one.begin().await.unwrap();
    let elsewhere = RunRow { project: "project:rival".to_owned(), ..run("r1") };
    assert!(matches!(open.create_run(&elsewhere).await, Err(Error::Exists)), "an id is one run's only");
}

#[tokio::test]
async fn events_are_found_from_any_number_and_in_pieces() {
    let pair = Pair::new().await;
    pair.create(&[run("r1"), run("r10")]).await;
    // 40 batches of 0 to 3 events: some hold only steps.
    let (mut batches, mut first) = (Vec::new(), 0);
    for place in 0..40 {
        let mut next = batch("r1", place, first, place % 4);
        next.steps = (place % 4 == 0).then(|| format!("step {place}\n").into_bytes());
        first += next.number;
        batches.push(next);
    }
    let mut twin = batches.clone();
    twin.iter_mut().for_each(|batch| batch.run = "r10".to_owned());
    for batches in [batches.clone(), twin] {
        assert!(journal(&pair.one, "one", 101, batches, &[]).await.unwrap());
    }
    for compacted in [false, true] {
        for from in 0..=first {
            let (mut next, mut seen) = (from, String::new());
            loop {
                let rows = pair.other.list_run_events(SHOP, "r1", next, 7).await.unwrap();
                let Some(last) = rows.last() else { break };
                assert!(rows[0].first <= next && next < rows[0].first + rows[0].number);
                let lines = rows.iter().map(|row| String::from_utf8(row.events.clone()).unwrap());
                let lines: Vec<String> =
                    lines.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
                let begun = usize::try_from(next - rows[0].first).unwrap();
                lines[begun..].iter().for_each(|line| seen.push_str(&format!("{line} ")));
                next = last.first + last.number;
            }
            let expected: String = (from..first).map(|event| format!("{event} ")).collect();
            assert_eq!(seen, expected, "from {from}");
        }
        let steps = pair.other.list_run_steps(SHOP, "r1").await.unwrap();
        let steps: Vec<u8> = steps.into_iter().flat_map(|row| row.steps.unwrap()).collect();
        assert_eq!(String::from_utf8(steps).unwrap().lines().count(), if compacted { 0 } else { 10 });
        if compacted {
            assert_eq!(pair.other.last_batch(SHOP, "r1").await.unwrap(), Some((0, 0, first)));
        } else {
            assert_eq!(pair.other.last_batch(SHOP, "r1").await.unwrap(), Some((39, first - 3, 3)));
            assert_eq!(pair.one.compact_run(SHOP, "r1").await.unwrap(), None, "it goes on");
            assert!(
                journal(&pair.one, "one", 102, vec![], &[change("r1", "completed", Some(102))])
                    .await
                    .unwrap()
            );
            assert_eq!(pair.one.compact_run(SHOP, "r1").await.unwrap(), Some(1));
        }
    }
    assert_eq!(
        pair.other.list_run_events(SHOP, "r10", 0, 100).await.unwrap().len(),
        30,
        "another one's stay"
    );
    assert_eq!(pair.other.last_batch(SHOP, "absent").await.unwrap(), None);
}

#[tokio::test]
async fn a_long_run_becomes_rows_of_256_kib_at_most_in_the_same_order() {
    let pair = Pair::new().await;
    pair.create(&[run("r1")]).await;
    let batches = (0..300).map(|place| {
        let mut next = batch("r1", place, place, 1);
        next.events = [format!("{place:05}").into_bytes(), vec![b'x'; 5000]].concat();
        next
    });
    let batches: Vec<_> = batches.collect();
    let whole: Vec<u8> = batches.iter().flat_map(|batch| batch.events.clone()).collect();
    assert!(journal(&pair.one, "one", 101, batches, &[change("r1", "completed", Some(102))]).await.unwrap());
    for _ in 0..2 {
        assert_eq!(pair.one.compact_run(SHOP, "r1").await.unwrap(), Some(6));
        let rows = pair.other.list_run_events(SHOP, "r1", 0, 100).await.unwrap();
        assert!(rows.iter().all(|row| row.events.len() <= 256 * 1024));
        assert!(rows.windows(2).all(|two| two[0].first + two[0].number == two[1].first));
        assert_eq!(rows.iter().flat_map(|row| row.events.clone()).collect::<Vec<u8>>(), whole);
    }
}

#[tokio::test]
async fn a_place_is_taken_once_and_events_of_a_deleted_run_are_not_kept() {
    let pair = Pair::new().await;
    pair.create(&[run("r1"), run("r2")]).await;
    assert!(journal(&pair.one, "one", 101, vec![batch("r1", 0, 0, 1)], &[]).await.unwrap());
    let twice = journal(&pair.one, "one", 101, vec![batch("r2", 0, 0, 1), batch("r1", 0, 0, 1)], &[]).await;
    assert!(matches!(twice, Err(Error::Exists)));
    assert!(pair.one.list_run_events(SHOP, "r2", 0, 9).await.unwrap().is_empty(), "nothing of it happened");

    assert!(pair.other.delete_run(SHOP, "r1").await.unwrap());
    let mut open = pair.one.begin().await.unwrap();
    assert!(open.still_alive("one", 102).await.unwrap());
    let batches: Vec<_> =
        (1..40).map(|place| batch(if place % 2 == 0 { "r1" } else { "r2" }, place, place, 1)).collect();
    assert_eq!(open.append_events("one", batches).await.unwrap(), 20, "those of the one that is there");
    open.commit().await.unwrap();
    assert_eq!(pair.count("SELECT COUNT(*) AS number FROM run_events WHERE run = 'r1'").await, 0);
}

#[tokio::test]
async fn changes_are_all_made_and_none_of_them_revives_a_run() {
    let pair = Pair::new().await;
    let names: Vec<String> = (0..37).map(|number| format!("r{number}")).collect();
    pair.create(&names.iter().map(|name| run(name)).collect::<Vec<_>>()).await;
    let mut changes: Vec<RunChange> =
        names.iter().map(|name| change(name, "requires_action", None)).collect();
    changes[3].visibility = Some("unlisted".to_owned());
    // The same run thrice: what was said about who sees it stays, and behind the end nothing counts.
    changes.push(change("r3", "completed", Some(150)));
    changes.push(change("r3", "in_progress", None));
    assert!(journal(&pair.one, "one", 140, vec![], &changes).await.unwrap());
    for name in &names {
        let row = pair.other.find_run(name).await.unwrap().unwrap();
        assert_eq!((row.changed_at, row.usage), (140, changes[0].usage));
        if name == "r3" {
            assert_eq!((row.status.as_str(), row.ended_at), ("completed", Some(150)));
            assert_eq!((row.visibility.as_str(), row.reason.as_deref()), ("unlisted", Some("stop")));
        } else {
            assert_eq!((row.status.as_str(), row.ended_at), ("requires_action", None));
            assert_eq!((row.visibility.as_str(), row.reason), ("private", None));
        }
    }
    let before = pair.other.find_run("r3").await.unwrap();
    let mut open = pair.one.begin().await.unwrap();
    let again = [change("r3", "in_progress", None), change("absent", "failed", Some(1))];
    assert_eq!(open.change_runs("one", &again, 160).await.unwrap(), 0);
    open.commit().await.unwrap();
    assert_eq!(pair.other.find_run("r3").await.unwrap(), before);
    assert!(!pair.one.request_cancel(SHOP, "r3", 170).await.unwrap(), "it has ended");
    assert!(!pair.one.request_cancel("project:rival", "r4", 170).await.unwrap(), "it is another project's");
    assert!(pair.other.request_cancel(SHOP, "r4", 170).await.unwrap());
    assert_eq!(pair.one.list_cancel_requested("one").await.unwrap(), [(SHOP.to_owned(), "r4".to_owned())]);
    assert!(pair.one.list_cancel_requested("other").await.unwrap().is_empty());

    assert!(!pair.one.update_run("project:rival", "r3", Some(b"[]"), Some("public"), 180).await.unwrap());
    assert!(pair.one.update_run(SHOP, "r3", Some(b"{\"a\":\"b\"}"), None, 180).await.unwrap());
    assert!(pair.one.update_run(SHOP, "r3", None, Some("public"), 181).await.unwrap());
    let row = pair.other.find_run("r3").await.unwrap().unwrap();
    assert_eq!((row.metadata.as_slice(), row.visibility.as_str()), (&b"{\"a\":\"b\"}"[..], "public"));
    assert_eq!((row.status.as_str(), row.changed_at), ("completed", 181));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_instances_that_take_a_key_at_once_one_gets_it() {
    let pair = Pair::new().await;
    for round in 0..10_u8 {
        // In every second round there is a key already, whose time is over.
        let hash = [round / 2; 32];
        let now = 1000 * i64::from(round);
        let mut tasks = Vec::new();
        for number in 0..8 {
            let store = if number % 2 == 0 { pair.one.clone() } else { pair.other.clone() };
            tasks.push(tokio::spawn(async move {
                let name = format!("r{round}-{number}");
                let key =
                    NewKey { kind: "content", hash: &hash, body_hash: &[number; 32], expires_at: now + 1000 };
                let mut open = store.begin().await.unwrap();
                let claimed = open.claim_key(SHOP, &key, &name, now).await.unwrap();
                open.commit().await.unwrap();
                (name, number, claimed)
            }));
        }
        let (mut winners, mut told) = (Vec::new(), Vec::new());
        for task in tasks {
            match task.await.unwrap() {
                (name, number, Claimed::New) => winners.push((name, vec![number; 32])),
                (.., Claimed::Taken { run, body_hash }) => told.push((run, body_hash)),
            }
        }
        assert_eq!((winners.len(), told.len()), (1, 7));
        assert!(told.iter().all(|told| *told == winners[0]), "all hear of the same one");
    }
}

#[tokio::test]
async fn a_key_is_its_projects_and_its_kinds_and_is_free_when_given_back_or_rolled_back() {
    let pair = Pair::new().await;
    let key = |kind| NewKey { kind, hash: &[7; 32], body_hash: &[8; 32], expires_at: 1000 };
    let claim = async |project: &str, kind, run: &str, now| {
        let mut open = pair.one.begin().await.unwrap();
        let claimed = open.claim_key(project, &key(kind), run, now).await.unwrap();
        open.commit().await.unwrap();
        claimed
    };
    let mut open = pair.one.begin().await.unwrap();
    assert_eq!(open.claim_key(SHOP, &key("content"), "r0", 1).await.unwrap(), Claimed::New);
    drop(open);
    assert_eq!(claim(SHOP, "content", "r1", 1).await, Claimed::New, "what was rolled back holds nothing");
    assert_eq!(claim(SHOP, "idempotency", "r1", 1).await, Claimed::New);
    assert_eq!(claim("project:rival", "content", "r9", 1).await, Claimed::New);
    let taken = Claimed::Taken { run: "r1".to_owned(), body_hash: vec![8; 32] };
    assert_eq!(claim(SHOP, "content", "r2", 999).await, taken);
    let mut open = pair.one.begin().await.unwrap();
    open.release_key(SHOP, "content", "r2").await.unwrap();
    open.release_key("project:rival", "content", "r1").await.unwrap();
    open.commit().await.unwrap();
    assert_eq!(claim(SHOP, "content", "r2", 999).await, taken, "only who has it gives it back");
    let mut open = pair.one.begin().await.unwrap();
    open.release_key(SHOP, "content", "r1").await.unwrap();
    open.commit().await.unwrap();
    assert_eq!(claim(SHOP, "content", "r2", 999).await, Claimed::New);
    assert_eq!(claim(SHOP, "idempotency", "r2", 999).await, taken, "the other kind stayed");
    assert_eq!(claim(SHOP, "idempotency", "r3", 1000).await, Claimed::New, "its time is over");
}
