//! What the store does not take, and what it forgets.

use std::time::Duration;

use serde_json::json;
use toolgate::clock::Clock;
use toolgate::store::Store;

use super::keeping::{is_on_disk, rows};
use super::scene::{content, json_of, result, task};
use super::viewers::slowly;
use crate::support::{FakeProvider, Gate, Gateway, PATIENCE, Place, ask, text, text_stream, whole, with};

/// Makes the store refuse what is written of this run, or of all that are `LIKE` it, until it is healed.
async fn poison(store: &Store, place: &Place, run: &str) {
    let statements = match place.is_shared() {
        true => vec![
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
             'BEGIN RAISE EXCEPTION ''refused''; END'"
                .to_owned(),
            format!(
                "CREATE TRIGGER poison BEFORE INSERT ON run_events FOR EACH ROW WHEN (NEW.run LIKE '{run}')
                 EXECUTE FUNCTION refuse()"
            ),
        ],
        false => vec![format!(
            "CREATE TRIGGER poison BEFORE INSERT ON run_events WHEN NEW.run LIKE '{run}'
             BEGIN SELECT RAISE(ABORT, 'refused'); END"
        )],
    };
    for statement in statements {
        store.execute(statement.leak(), Vec::new()).await.unwrap();
    }
}

async fn heal(store: &Store, place: &Place) {
    let of_table = if place.is_shared() { " ON run_events" } else { "" };
    store.execute(format!("DROP TRIGGER poison{of_table}").leak(), Vec::new()).await.unwrap();
}

#[tokio::test]
async fn a_run_that_the_store_does_not_take_holds_up_no_other() {
    let gate = Gate::new();
    let slow = gate.clone();
    let provider = FakeProvider::answering(move |_| text_stream("written").after(&slow)).await;
    let place = Place::new().await;
    let gateway = Gateway::configured(&provider, |settings| place.give_to(settings)).await;
    let (poisoned, healthy) = (task(&gateway, &ask(&[])).await, task(&gateway, &ask(&[])).await);
    provider.peer.until_requests(2).await;
    let store = place.store().await;
    poison(&store, &place, &poisoned).await;
    gate.open();
    assert_eq!(content(&result(&gateway.client, &healthy).await), "written");
    let stands = gateway.client.get(&format!("/v1/runs/{poisoned}")).await.json();
    assert_eq!(stands["ended_at"], json!(null), "it is not said to have ended: {stands}");
    heal(&store, &place).await;
    assert_eq!(
        content(&result(&gateway.client, &poisoned).await),
        "written",
        "and is written when it can be"
    );
    store.close().await;
}

/// Takes as long as the journal has patience: half a minute.
#[tokio::test]
async fn whoever_watches_a_run_that_the_store_does_not_take_is_told_its_end_and_it_ends_once() {
    let gate = Gate::new();
    let provider = slowly(std::slice::from_ref(&gate)).await;
    let place = Place::new().await;
    let gateway = Gateway::configured(&provider, |settings| place.give_to(settings)).await;
    let body = with(ask(&[]), json!({ "stream": true, "store": true })).to_string();
    let headers = [("content-type", "application/json")];
    let mut ids = Vec::new();
    let mut watching = Vec::new();
    for _ in 0..2 {
        let answer = gateway.client.send("POST", "/v1/chat/completions", &headers, body.clone()).await;
        ids.push(answer.headers()["x-run-id"].to_str().unwrap().to_owned());
        watching.push(tokio::spawn(whole(answer)));
    }
    let store = place.store().await;
    poison(&store, &place, "%").await;
    for id in &ids {
        let events = gateway.client.send("GET", &format!("/v1/runs/{id}/events"), &[], "").await;
        watching.push(tokio::spawn(whole(events)));
    }
    let stopped = gateway.client.post(&format!("/v1/runs/{}/cancel", ids[0]), &[], &json!({})).await;
    assert_eq!(stopped.status, 200, "that was written: {}", stopped.text());
    gate.open();
    for watcher in watching {
        let seen = tokio::time::timeout(3 * PATIENCE, watcher).await.expect("nobody waits for ever").unwrap();
        assert_eq!(seen.status, 200);
    }
    heal(&store, &place).await;
    for (id, end) in ids.iter().zip(["cancelled", "completed"]) {
        let written = async {
            while json_of(&gateway.client, id).await["status"] != end {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, written).await.expect("it is written when it can be");
    }
    assert_eq!(provider.peer.requests().len(), 2, "neither began anew");
    store.close().await;
}

#[tokio::test]
async fn nothing_of_a_task_whose_day_is_over_is_left_on_the_disk() {
    let place = Place::new().await;
    let provider = FakeProvider::answering(|_| text("canary of the model")).await;
    let clock = Clock::fixed(1_800_000_000_000);
    let gateway = Gateway::at(&clock, &provider, |settings| place.give_to(settings)).await;
    let question = json!({ "messages": [{ "role": "user", "content": "canary of the prompt" }] });
    let id = task(&gateway, &with(ask(&[]), question)).await;
    result(&gateway.client, &id).await;
    assert!(place.is_shared() || is_on_disk(&place, "canary of the"), "it stands there before");
    // Nobody deletes anything: the sweep alone does.
    clock.advance(Duration::from_secs(24 * 3600));
    let forgetting = async {
        while rows(&place).await > 0 || (!place.is_shared() && is_on_disk(&place, "canary of the")) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, forgetting).await.expect("not a byte is left");
}
