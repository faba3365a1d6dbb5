//! The memory with a store behind it.

use serde_json::json;
use serde_json::value::RawValue;

use super::earlier_messages::EarlierMessages;
use super::key::of_calls;
use super::shelf::Reader;
use super::turns::{HiddenTurns, LARGE, NewTurns, Whose};
use crate::clock::Clock;
use crate::config;
use crate::crypto::{KeySet, Keyring};
use crate::store::{Location, Store};

const SCOPE: &str = r#"["project:shop","ann",null]"#;

fn whose<'a>(scope: &'a str, run: &'a str) -> Whose<'a> {
    Whose { scope, verified: true, run, provider: "p", model: "m" }
}

async fn store() -> Store {
    let store = Store::open(&Location::Memory).await.unwrap();
    store.migrate().await.unwrap();
    store
}

/// The memory of one process on `store`.
fn process(store: &Store, clock: &Clock) -> HiddenTurns {
    let keyring = Keyring::new(KeySet::of_one("key_a", &[1; 32]).unwrap());
    HiddenTurns::new(&config::Run::default(), clock.clone()).kept_in(store.clone(), keyring)
}

fn calls(id: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    [(id, "f", "{}")].into_iter()
}

fn keep(memory: &HiddenTurns, whose: &Whose<'_>, id: &str, messages: &[u8]) {
    let question = question();
    let question = EarlierMessages::of(&[&question]).question();
    let turns = NewTurns { question, ids: Vec::new(), messages: messages.to_vec() };
    memory.keep(whose, &[of_calls(whose.scope, calls(id))], turns, Reader::Program);
}

/// What every run here was asked.
fn question() -> Box<RawValue> {
    RawValue::from_string(json!({ "role": "user", "content": "q" }).to_string()).unwrap()
}

/// The message that calls `id`.
fn seen(id: &str) -> Box<RawValue> {
    let call = json!({ "id": id, "type": "function", "function": { "name": "f", "arguments": "{ }" } });
    RawValue::from_string(json!({ "role": "assistant", "tool_calls": [call] }).to_string()).unwrap()
}

async fn put_back(memory: &HiddenTurns, whose: &Whose<'_>, ids: &[&str]) -> String {
    // Turns are put back after their question alone.
    let messages: Vec<Box<RawValue>> = ids.iter().flat_map(|id| [question(), seen(id)]).collect();
    let messages: Vec<&RawValue> = messages.iter().map(|message| &**message).collect();
    let joined = String::from_utf8(memory.put_back(whose, false, &messages).await.messages).unwrap();
    joined.replace(&format!("{},", question()), "")
}

/// How many rows there are, once all is written.
async fn rows(memory: &HiddenTurns, store: &Store) -> i64 {
    memory.close().await;
    let row = store.row("SELECT COUNT(*) AS number FROM hidden_turns", Vec::new()).await.unwrap();
    row.unwrap().int("number").unwrap()
}

#[tokio::test]
async fn turns_come_back_from_memory_and_store_until_their_time_is_up() {
    let (store, clock) = (store().await, Clock::fixed(1_000_000));
    let (one, other) = (process(&store, &clock), process(&store, &clock));
    let me = whose(SCOPE, "run_1");
    keep(&one, &me, "a", br#"{"hidden":1},{"hidden":2}"#);
    keep(&one, &me, "b", br#"{"hidden":3}"#);
    let expect = r#"{"hidden":1},{"hidden":2},{"hidden":3}"#;
    assert_eq!(put_back(&one, &me, &["a", "b"]).await, expect, "at once");
    assert_eq!(rows(&one, &store).await, 2);
    assert!(other.is_empty());
    assert_eq!(put_back(&other, &me, &["a", "b"]).await, expect);
    assert!(other.knows_any(SCOPE, &format!(r#"[{},{{"tool_call_id":"a"}}]"#, seen("a"))), "from now on");
    for scope in
        [r#"["project:shop","bob",null]"#, r#"["project:shop","ann","work"]"#, r#"["local","ann",null]"#]
    {
        for process in [&one, &other] {
            assert_eq!(put_back(process, &whose(scope, "run_1"), &["a"]).await, seen("a").get(), "{scope}");
        }
    }
    clock.advance(std::time::Duration::from_secs(24 * 3600));
    for process in [&one, &other, &self::process(&store, &clock)] {
        assert_eq!(put_back(process, &me, &["a"]).await, seen("a").get());
    }
}

#[tokio::test]
async fn what_is_sealed_for_one_opens_for_nobody_else_under_whatever_digest() {
    let (store, clock) = (store().await, Clock::fixed(1));
    let memory = process(&store, &clock);
    keep(&memory, &whose(SCOPE, "run_1"), "a", b"{}");
    assert_eq!(rows(&memory, &store).await, 1);
    // Who can write to the database gives Ann's turns to Bob, under the digest of what Bob will send.
    let bob = r#"["project:shop","bob",null]"#;
    let key = crate::crypto::to_hex(&of_calls(bob, calls("a")));
    let values = vec![key.into(), b"bob".into()];
    store.execute("UPDATE hidden_turns SET id = $1, user_name = $2", values).await.unwrap();
    let memory = process(&store, &clock);
    assert_eq!(put_back(&memory, &whose(bob, "run_2"), &["a"]).await, seen("a").get());
}

#[tokio::test]
async fn a_run_is_forgotten_in_memory_in_the_queue_and_in_the_store() {
    let (store, clock) = (store().await, Clock::fixed(1));
    let memory = process(&store, &clock);
    keep(&memory, &whose(SCOPE, "run_1"), "a", b"{}");
    memory.close().await;
    keep(&memory, &whose(SCOPE, "run_1"), "b", b"{}");
    keep(&memory, &whose(SCOPE, "run_2"), "c", b"{}");
    memory.forget_run("project:shop", "run_1").await.unwrap();
    assert_eq!(rows(&memory, &store).await, 1);
    let me = whose(SCOPE, "run_3");
    assert_eq!(put_back(&memory, &me, &["a"]).await, seen("a").get());
    assert_eq!(put_back(&memory, &me, &["b"]).await, seen("b").get());
    assert_eq!(put_back(&memory, &me, &["c"]).await, "{}");
}

#[tokio::test]
async fn what_is_large_and_what_too_many_want_to_keep_stays_in_memory() {
    let (store, clock) = (store().await, Clock::fixed(1));
    let memory = process(&store, &clock);
    let me = whose(SCOPE, "run_1");
    let large = format!(r#"{{"role":"tool","content":"{}"}}"#, "x".repeat(LARGE));
    keep(&memory, &me, "a", large.as_bytes());
    assert_eq!(rows(&memory, &store).await, 0);
    assert_eq!(put_back(&memory, &me, &["a"]).await, large);
    for number in 0..1100 {
        keep(&memory, &me, &format!("b{number}"), b"{}");
    }
    assert_eq!(rows(&memory, &store).await, 1024, "as many as may wait");
    assert_eq!(put_back(&memory, &me, &["b1099"]).await, "{}");
    keep(&memory, &me, "c", b"{}");
    assert_eq!(rows(&memory, &store).await, 1025, "there is room again");
}

#[tokio::test]
async fn of_more_than_one_request_may_carry_the_newest_are_put_back() {
    let (store, clock) = (store().await, Clock::fixed(1));
    let memory = process(&store, &clock);
    let me = whose(SCOPE, "run_1");
    let ids: Vec<String> = (0..9).map(|number| format!("a{number}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut large = vec![b' '; LARGE - 1];
    large.push(b'x');
    for id in &ids {
        keep(&memory, &me, id, &large);
    }
    let joined = put_back(&memory, &me, &ids).await;
    assert!(joined.starts_with(seen("a0").get()), "the oldest is left as it was seen");
    assert_eq!(joined.matches('x').count(), 8);
}
