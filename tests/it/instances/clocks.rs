//! Instances whose clocks differ: PostgreSQL's own says who is alive.

use std::time::Duration;

use serde_json::json;
use toolgate::clock::Clock;

use crate::support::{
    FakeProvider, Gate, Gateway, PATIENCE, Place, Program, ask, free_address, on_postgres, text,
};

#[tokio::test]
async fn an_instance_whose_clock_is_a_minute_ahead_or_behind_takes_no_run_of_a_living_one_and_loses_none() {
    if !on_postgres() {
        return;
    }
    let gate = Gate::new();
    let opened = gate.clone();
    let provider = FakeProvider::answering(move |_| text("done").after(&opened)).await;
    let place = Place::new().await;
    let configuration = format!(
        "[[providers]]\nname = \"fake\"\nbase_url = \"{}\"\napi_key = \"k\"\nmodels = [\"m\"]\n",
        provider.peer.url("/v1")
    );
    let right = Program::at(&place).serve(&place, free_address(), &configuration).await;
    let now = Clock::system().unix_milliseconds();
    let ahead = Gateway::at(&Clock::fixed(now + 60_000), &provider, |settings| place.give_to(settings)).await;
    let behind =
        Gateway::at(&Clock::fixed(now - 60_000), &provider, |settings| place.give_to(settings)).await;
    for (number, client) in [&right.client, &ahead.client, &behind.client].into_iter().enumerate() {
        let started = client.post("/v1/tasks", &[], &ask(&[])).await;
        assert_eq!(started.status, 202, "{number}: {}", started.text());
    }
    provider.peer.until_requests(3).await;
    let store = place.store().await;
    let number =
        async |sql: &'static str| store.row(sql, Vec::new()).await.unwrap().unwrap().int("number").unwrap();
    // Each has looked for others several times.
    let least = "SELECT MIN(writes) AS number FROM instances";
    let before = number(least).await;
    let looking = async {
        while number(least).await < before + 5 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.expect("they say that they live");
    assert_eq!(number("SELECT COUNT(*) AS number FROM instances WHERE dead = 0").await, 3);
    assert_eq!(number("SELECT COALESCE(SUM(takeovers), 0)::bigint AS number FROM runs").await, 0);
    // Who is lost is still missed by both.
    gate.open();
    let ending = async {
        while number("SELECT COUNT(*) AS number FROM runs WHERE ended_at IS NULL").await > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, ending).await.expect("all end");
    assert_eq!(provider.peer.requests().len(), 3, "{}", json!("each was asked once"));
    store.close().await;
}
