//! Lists: every filter, in both directions, complete and stable page by page.

use toolgate::store::{RunFilter, RunRow};

use super::rows_of::{Pair, SHOP, run};

/// 23 runs, several of one moment, of changing kinds; and one of a rival.
fn some() -> Vec<RunRow> {
    let mut runs: Vec<RunRow> = (0..23_i64)
        .map(|number| RunRow {
            created_at: 100 + number / 4,
            // Ids in no order.
            id: format!("r{:02}", number * 7 % 23),
            stored: number % 5 != 0,
            user: if number % 2 == 0 { "ann" } else { "bob" }.to_owned(),
            person: ["", "acct_1", "acct_2"][usize::try_from(number % 3).unwrap()].to_owned(),
            ..run("")
        })
        .collect();
    runs.push(RunRow { project: "project:rival".to_owned(), person: "acct_1".to_owned(), ..run("rival") });
    runs
}

fn ids(runs: &[RunRow]) -> Vec<String> {
    runs.iter().map(|run| run.id.clone()).collect()
}

/// What a list must be.
fn expected(runs: &[RunRow], newest_first: bool, wanted: impl Fn(&RunRow) -> bool) -> Vec<String> {
    let mut runs: Vec<&RunRow> = runs.iter().filter(|run| wanted(run)).collect();
    runs.sort_by_key(|run| (run.created_at, run.id.clone()));
    if newest_first {
        runs.reverse();
    }
    runs.into_iter().map(|run| run.id.clone()).collect()
}

#[tokio::test]
async fn page_by_page_in_both_directions_every_run_comes_once() {
    let pair = Pair::new().await;
    let runs = some();
    pair.create(&runs).await;
    let persons = ["acct_1".to_owned(), "acct_2".to_owned(), "acct_1".to_owned(), String::new()];
    for (stored_only, newest_first, of_person) in [
        (true, true, false),
        (true, false, false),
        (false, true, false),
        (false, false, true),
        (true, true, true),
    ] {
        let all = expected(&runs, newest_first, |run| {
            (run.stored || !stored_only)
                && if of_person { !run.person.is_empty() } else { run.project == SHOP }
        });
        for limit in [1, 3, 100] {
            let base = RunFilter { project: SHOP, stored_only, newest_first, limit, ..RunFilter::default() };
            let list = async |filter: &RunFilter<'_>| {
                if of_person {
                    pair.other.list_person_runs(&persons, filter).await.unwrap()
                } else {
                    pair.other.list_runs(filter).await.unwrap()
                }
            };
            let (mut forward, mut last): (Vec<String>, Option<(i64, String)>) = (Vec::new(), None);
            loop {
                let after = last.as_ref().map(|(at, id)| (*at, id.as_str()));
                let page = list(&RunFilter { after, ..base }).await;
                forward.extend(ids(&page));
                let Some(run) = page.last() else { break };
                last = Some((run.created_at, run.id.clone()));
            }
            assert_eq!(forward, all, "{stored_only} {newest_first} {limit}");
            let far = if newest_first { (0, "") } else { (i64::MAX, "") };
            let (mut back, mut first): (Vec<String>, (i64, String)) = (Vec::new(), (far.0, far.1.to_owned()));
            loop {
                let page = list(&RunFilter { before: Some((first.0, &first.1)), ..base }).await;
                let Some(run) = page.first() else { break };
                first = (run.created_at, run.id.clone());
                back.splice(0..0, ids(&page));
            }
            assert_eq!(back, all, "{stored_only} {newest_first} {limit}");
        }
    }
    let none = RunFilter { project: SHOP, limit: 100, ..RunFilter::default() };
    assert!(
        pair.other.list_person_runs(&[String::new()], &none).await.unwrap().is_empty(),
        "nobody is no person"
    );
}

#[tokio::test]
async fn what_comes_and_goes_meanwhile_moves_no_page() {
    let pair = Pair::new().await;
    let runs = some();
    pair.create(&runs).await;
    let all = expected(&runs, true, |run| run.project == SHOP && run.stored);
    let base =
        RunFilter { project: SHOP, stored_only: true, newest_first: true, limit: 5, ..RunFilter::default() };
    let page = pair.other.list_runs(&base).await.unwrap();
    assert_eq!(ids(&page), all[..5]);
    pair.create(&[RunRow { created_at: 999, ..run("newer") }]).await;
    // Even the one that the next page is asked to begin behind.
    let last = page.last().unwrap();
    assert!(pair.one.delete_run(SHOP, &last.id).await.unwrap());
    let next = RunFilter { after: Some((last.created_at, &last.id)), ..base };
    assert_eq!(ids(&pair.other.list_runs(&next).await.unwrap()), all[5..10]);
}

#[tokio::test]
async fn every_filter_counts_and_text_is_sought_to_the_letter() {
    let pair = Pair::new().await;
    let titles = ["100% sure", "100x sure", "A_B", "aXb", "wow!", "ÄRGER im Büro", "nul \0 title"];
    let mut runs: Vec<RunRow> = some();
    for (number, title) in titles.iter().enumerate() {
        runs.push(RunRow {
            title: (*title).to_owned(),
            model: "special".to_owned(),
            kind: "task".to_owned(),
            status: "failed".to_owned(),
            ..run(&format!("t{number}"))
        });
    }
    pair.create(&runs).await;
    let base = RunFilter { project: SHOP, limit: 100, ..RunFilter::default() };
    let list = async |filter: RunFilter<'_>| ids(&pair.other.list_runs(&filter).await.unwrap());
    let task = expected(&runs, false, |run| run.kind == "task");
    assert_eq!(task.len(), titles.len());
    assert_eq!(list(RunFilter { model: Some("special"), ..base }).await, task);
    assert_eq!(list(RunFilter { kind: Some("task"), ..base }).await, task);
    assert_eq!(list(RunFilter { status: Some("failed"), ..base }).await, task);
    assert_eq!(list(RunFilter { status: Some("queued"), ..base }).await, [""; 0]);
    assert_eq!(
        list(RunFilter { user: Some("bob"), ..base }).await,
        expected(&runs, false, |run| run.user == "bob" && run.project == SHOP)
    );
    for (text, found) in [
        ("100%", "t0"),
        ("% SURE", "t0"),
        ("a_b", "t2"),
        ("AXB", "t3"),
        ("!", "t4"),
        ("ärger", "t5"),
        ("BÜRO", "t5"),
        ("\\", ""),
        ("' OR 1=1 --", ""),
    ] {
        let found: Vec<&str> = [found].into_iter().filter(|id| !id.is_empty()).collect();
        assert_eq!(list(RunFilter { text: Some(text), ..base }).await, found, "{text}");
    }
    assert_eq!(list(RunFilter { text: Some(""), kind: Some("task"), ..base }).await, task);
    assert_eq!(list(RunFilter { text: Some(&"x".repeat(100_000)), ..base }).await, [""; 0]);
    assert_eq!(list(RunFilter { limit: -1, ..base }).await, [""; 0]);
}
