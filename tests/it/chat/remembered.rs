//! Hidden turns in the store: after a restart, at another instance, and when the store fails.

use serde_json::{Value, json};

use crate::support::provider::function_call;
use crate::support::{
    FakeMcp, FakeProvider, FakeTool, Gateway, PATIENCE, Place, Program, Reply, ask, calls, free_address,
    on_postgres, text, whole, with,
};

/// What stands in no question, and so is in a file only if a hidden turn is.
const CANARY: &str = "CaNaRy7f3a91";

fn script() -> Vec<Reply> {
    let mine = json!({ "note": CANARY });
    vec![
        calls(&[("call_1", "s_t", json!({}))]),
        text("It is 4."),
        calls(&[("call_2", "s_t", json!({})), ("call_3", "mine", mine)]),
        text("the end"),
        text("bye"),
    ]
}

fn tools(mcp: &FakeMcp) -> Value {
    let parameters = json!({ "type": "object", "properties": {} });
    let mine = json!({ "type": "function", "function": { "name": "mine", "parameters": parameters } });
    with(ask(&[mcp.entry("s"), mine]), json!({ "user": "ann" }))
}

/// What stands in no answer: the tool's words.
async fn server() -> FakeMcp {
    FakeMcp::start(vec![FakeTool::text("t", &format!("{CANARY} from the server"))]).await
}

async fn at(place: &Place, provider: &FakeProvider) -> Gateway {
    Gateway::configured(provider, |settings| place.give_to(settings)).await
}

fn configuration(provider: &FakeProvider) -> String {
    format!(
        "[[providers]]\nname = \"fake\"\nbase_url = \"{}\"\napi_key = \"k\"\nmodels = [\"m\"]\n",
        provider.peer.url("/v1")
    )
}

fn push(body: &mut Value, message: Value) {
    body["messages"].as_array_mut().unwrap().push(message);
}

async fn count(place: &Place) -> i64 {
    let store = place.store().await;
    let row = store.row("SELECT COUNT(*) AS number FROM hidden_turns", Vec::new()).await.unwrap().unwrap();
    store.close().await;
    row.int("number").unwrap()
}

/// Waits until so many are stored.
async fn until_stored(place: &Place, number: i64) {
    let stored = async {
        while count(place).await < number {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, stored).await.expect("they are written");
}

#[tokio::test]
async fn hidden_turns_outlive_the_process_and_are_written_before_it_ends() {
    let place = Place::new().await;
    let (provider, mcp) = (FakeProvider::start(script()).await, server().await);
    let mut body = tools(&mcp);
    let first = at(&place, &provider).await;
    let answer = first.client.chat(&body).await;
    first.stop().await;
    assert_eq!(count(&place).await, 1, "written before the end");

    let second = at(&place, &provider).await;
    push(&mut body, json!({ "role": "assistant", "content": answer.content() }));
    push(&mut body, json!({ "role": "user", "content": "and mine?" }));
    let answer = second.client.chat(&body).await;
    let seen = provider.last_body()["messages"].clone();
    assert_eq!(seen[1]["tool_calls"][0]["id"], "call_1", "{seen}");
    assert_eq!(seen[3], json!({ "role": "assistant", "content": "It is 4." }));
    second.stop().await;

    let third = at(&place, &provider).await;
    push(&mut body, answer.json()["choices"][0]["message"].clone());
    let id = answer.json()["choices"][0]["message"]["tool_calls"][0]["id"].clone();
    push(&mut body, json!({ "role": "tool", "tool_call_id": id, "content": "from the caller" }));
    third.client.chat(&body).await;
    let said = provider.last_said("tool");
    let theirs = format!("{CANARY} from the server");
    assert_eq!(said, [theirs.as_str(), theirs.as_str(), "from the caller"]);
}

#[tokio::test]
async fn another_process_has_the_hidden_turns_of_one_that_was_killed_and_no_file_has_them_in_clear() {
    let place = Place::new().await;
    let (provider, mcp) = (FakeProvider::start(script()).await, server().await);
    let address = free_address();
    let configuration = configuration(&provider);
    let program = Program::at(&place);
    let mut running = program.serve(&place, address, &configuration).await;
    let body = tools(&mcp);
    let content = running.client.chat(&body).await.content();
    until_stored(&place, 1).await;
    running.kill();
    let files: Vec<_> =
        std::fs::read_dir(place.folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    for file in files.iter().filter(|path| path.is_file()) {
        let bytes = std::fs::read(file).unwrap();
        for secret in [CANARY, "It is 4.", "call_1", "question"] {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "`{secret}` is in {}", file.display());
        }
    }
    let store = place.store().await;
    let rows = store.rows("SELECT sealed_messages FROM hidden_turns", Vec::new()).await.unwrap();
    store.close().await;
    let sealed = rows[0].bytes("sealed_messages").unwrap();
    assert!(sealed.len() > CANARY.len() && !String::from_utf8_lossy(&sealed).contains(CANARY));
    let second = program.serve(&place, free_address(), &configuration).await;
    let mut next = body;
    push(&mut next, json!({ "role": "assistant", "content": content }));
    push(&mut next, json!({ "role": "user", "content": "and then?" }));
    assert_eq!(second.client.chat(&next).await.status, 200);
    assert_eq!(provider.last_body()["messages"][2]["tool_call_id"], "call_1");
}

#[tokio::test]
async fn stored_turns_are_found_by_their_own_user_and_profile_only() {
    let place = Place::new().await;
    let replies = script().into_iter().take(2).chain((0..5).map(|_| text("bye"))).collect();
    let (provider, mcp) = (FakeProvider::start(replies).await, server().await);
    let first = at(&place, &provider).await;
    let content = first.client.chat(&tools(&mcp)).await.content();
    first.stop().await;
    let second = at(&place, &provider).await;
    for (user, profile, found) in [
        ("bob", Value::Null, 0),
        ("", Value::Null, 0),
        ("Ann", Value::Null, 0),
        ("ann", json!("work"), 0),
        ("ann", Value::Null, 1),
    ] {
        let options = json!({ "user": user, "toolgate": { "profile": profile } });
        let mut body = with(tools(&mcp), options);
        push(&mut body, json!({ "role": "assistant", "content": content }));
        push(&mut body, json!({ "role": "user", "content": "and mine?" }));
        let answer = second.client.chat(&body).await;
        assert_eq!(answer.content(), "bye", "{}", answer.text());
        assert_eq!(provider.last_said("tool").len(), found, "{body}");
    }
}

#[tokio::test]
async fn when_the_store_fails_the_process_still_remembers_and_others_read_the_text() {
    if !on_postgres() {
        return;
    }
    let place = Place::new().await;
    let (provider, mcp) = (FakeProvider::start(script()).await, server().await);
    let (first, second) = (at(&place, &provider).await, at(&place, &provider).await);
    let store = place.store().await;
    store.execute("DROP TABLE hidden_turns", Vec::new()).await.unwrap();
    store.close().await;
    let mut body = tools(&mcp);
    let content = first.client.chat(&body).await.content();
    push(&mut body, json!({ "role": "assistant", "content": content }));
    push(&mut body, json!({ "role": "user", "content": "and mine?" }));
    let answer = second.client.chat(&body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(provider.bodies()[2]["messages"][1]["content"].as_str().unwrap().contains("🔧"));
    first.client.chat(&body).await;
    assert_eq!(provider.last_body()["messages"][1]["tool_calls"][0]["id"], "call_1");
    first.stop().await;
}

#[tokio::test]
async fn plain_completions_and_what_this_process_remembers_never_ask_the_store() {
    const ASKED: &str = "could not be looked up";
    let place = Place::new().await;
    let (provider, mcp) = (FakeProvider::start(script()).await, server().await);
    let address = free_address();
    let gateway = Program::at(&place).serve(&place, address, &configuration(&provider)).await;
    let content = gateway.client.chat(&tools(&mcp)).await.content();
    until_stored(&place, 1).await;
    let store = place.store().await;
    store.execute("DROP TABLE hidden_turns", Vec::new()).await.unwrap();
    store.close().await;
    let mut body = tools(&mcp);
    push(&mut body, json!({ "role": "assistant", "content": content }));
    push(&mut body, json!({ "role": "user", "content": "and mine?" }));
    gateway.client.chat(&body).await;
    assert_eq!(provider.bodies()[2]["messages"][1]["tool_calls"][0]["id"], "call_1", "from memory");
    let mut plain = ask(&[]);
    push(&mut plain, json!({ "role": "assistant", "content": content }));
    push(&mut plain, json!({ "role": "assistant", "tool_calls": [function_call("call_9", "mine", "{}")] }));
    push(&mut plain, json!({ "role": "tool", "tool_call_id": "call_9", "content": "x" }));
    gateway.client.chat(&plain).await;
    assert_eq!(provider.last_body()["messages"], plain["messages"], "relayed");
    assert!(!place.log_of(address).contains(ASKED), "{}", place.log_of(address));
    // Whatever it cannot know by itself it asks for.
    body["user"] = "bob".into();
    gateway.client.chat(&body).await;
    assert!(place.log_of(address).contains(ASKED), "{}", place.log_of(address));
}

/// A provider that calls `s_t` for the first question, and answers everything else.
async fn answering() -> FakeProvider {
    FakeProvider::answering(|request| {
        let body = request.json();
        let messages = body["messages"].as_array().unwrap();
        match messages.last().unwrap() {
            last if last["role"] == "tool" => text("It is 4."),
            last if last["content"] == "question" => calls(&[("call_1", "s_t", json!({}))]),
            _ => text("bye"),
        }
    })
    .await
}

/// Whether the model is given the calls of the answer with this `content`.
async fn is_put_back(gateway: &Gateway, provider: &FakeProvider, mcp: &FakeMcp, content: &str) -> bool {
    let mut body = tools(mcp);
    push(&mut body, json!({ "role": "assistant", "content": content }));
    push(&mut body, json!({ "role": "user", "content": "and then?" }));
    assert_eq!(gateway.client.chat(&body).await.content(), "bye");
    !provider.last_said("tool").is_empty()
}

#[tokio::test]
async fn the_hidden_turns_of_a_stored_run_are_forgotten_with_it_everywhere() {
    if !on_postgres() {
        return;
    }
    let place = Place::new().await;
    let (provider, mcp) = (answering().await, server().await);
    let (first, second) = (at(&place, &provider).await, at(&place, &provider).await);
    let answer = first.client.chat(&with(tools(&mcp), json!({ "store": true }))).await;
    let (run, content) = (answer.json()["id"].as_str().unwrap().to_owned(), answer.content());
    until_stored(&place, 1).await;
    for gateway in [&first, &second] {
        assert!(is_put_back(gateway, &provider, &mcp, &content).await);
    }
    let path = format!("/v1/runs/{run}");
    let deleted = whole(second.client.send("DELETE", &path, &[], "").await).await;
    assert_eq!(deleted.status, 200, "{}", deleted.text());
    assert_eq!(count(&place).await, 0);
    assert!(!is_put_back(&second, &provider, &mcp, &content).await);
    // Where processes tell one another, the first hears of it.
    let heard = async { while is_put_back(&first, &provider, &mcp, &content).await {} };
    if place.is_shared() {
        tokio::time::timeout(PATIENCE, heard).await.expect("the first forgets them, too");
    }
}
