//! The caller's own functions beside MCP tools.

use serde_json::{Value, json};
use toolgate::config::Models;

use crate::support::provider::function_call;
use crate::support::{
    Answer, FakeMcp, FakeProvider, FakeTool, Gateway, ask, calls, calls_stream, text, text_stream, with,
};

fn mine() -> Value {
    json!({ "type": "function", "function": { "name": "mine", "parameters": { "type": "object", "properties": {} } } })
}

/// A gateway, a provider with these turns, and a server with the tool `t`.
async fn with_turns(replies: Vec<crate::support::Reply>) -> (Gateway, FakeProvider, FakeMcp) {
    let provider = FakeProvider::start(replies).await;
    let mcp = FakeMcp::start(vec![FakeTool::text("t", "from the server")]).await;
    (Gateway::with(&provider).await, provider, mcp)
}

/// The request that answers the calls of `message`, one after the other.
fn answered(body: &Value, message: &Value, results: &[&str]) -> Value {
    let mut body = body.clone();
    let messages = body["messages"].as_array_mut().unwrap();
    messages.push(message.clone());
    for (call, content) in message["tool_calls"].as_array().unwrap().iter().zip(results) {
        messages.push(json!({ "role": "tool", "tool_call_id": call["id"], "content": content }));
    }
    body
}

fn message(answer: &Answer) -> Value {
    answer.json()["choices"][0]["message"].clone()
}

#[tokio::test]
async fn only_the_caller_s_calls_are_handed_back_streamed() {
    let both = [
        ("call_1", "s_t", json!({})),
        ("call_2", "mine", json!({ "a": "one two" })),
        ("call_3", "mine", json!({ "a": 2 })),
    ];
    let (gateway, _provider, mcp) = with_turns(vec![calls_stream(&both)]).await;
    let stream = gateway.client.stream(&ask(&[mcp.entry("s"), mine()])).await.read_to_end().await;
    let seen = stream.calls();
    let calls: Vec<(&str, &str)> =
        seen.iter().map(|(_, name, text)| (name.as_str(), text.as_str())).collect();
    assert_eq!(calls, [("mine", "{\"a\":\"one two\"}"), ("mine", "{\"a\":2}")]);
    let ids: Vec<&str> = seen.iter().map(|(id, ..)| id.as_str()).collect();
    assert!(ids.iter().all(|id| id.starts_with("call_") && id.len() == 31) && ids[0] != ids[1], "{ids:?}");
    assert_eq!(stream.finish_reason(), Some("tool_calls"));
    assert_eq!(stream.events("tool_result").len(), 1, "ours is executed meanwhile");
    assert_eq!(mcp.count("tools/call"), 1);
}

#[tokio::test]
async fn only_the_caller_s_calls_are_handed_back_whole() {
    let both = [("call_1", "mine", json!({ "a": 1 })), ("call_2", "s_t", json!({}))];
    let (gateway, _provider, mcp) = with_turns(vec![calls(&both)]).await;
    let answer = gateway.client.chat(&ask(&[mcp.entry("s"), mine()])).await;
    let calls = message(&answer)["tool_calls"].clone();
    assert_eq!(calls, json!([function_call(calls[0]["id"].as_str().unwrap(), "mine", "{\"a\":1}")]));
    assert_ne!(calls[0]["id"], "call_1", "an id of our making");
    assert_eq!(answer.json()["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(mcp.count("tools/call"), 1);
}

#[tokio::test]
async fn turns_the_caller_never_saw_are_put_back_in_their_place() {
    let (gateway, provider, mcp) = with_turns(vec![
        calls(&[("call_1", "s_t", json!({}))]),
        calls(&[("call_2", "mine", json!({ "a": 1 })), ("call_3", "s_t", json!({}))]),
        text("the end"),
    ])
    .await;
    let body = ask(&[mcp.entry("s"), mine()]);
    let first = gateway.client.chat(&body).await;
    let second = answered(&body, &message(&first), &["from the caller"]);
    let last = gateway.client.chat(&second).await;
    assert_eq!(last.content(), "the end");
    let seen = provider.last_body()["messages"].clone();
    let roles: Vec<(&str, &str)> = seen
        .as_array()
        .unwrap()
        .iter()
        .map(|message| (message["role"].as_str().unwrap(), message["tool_call_id"].as_str().unwrap_or("")))
        .collect();
    assert_eq!(
        roles,
        [
            ("user", ""),
            ("assistant", ""),
            ("tool", "call_1"),
            ("assistant", ""),
            ("tool", "call_3"),
            ("tool", "call_2"),
        ]
    );
    assert_eq!(seen[3]["tool_calls"].as_array().unwrap().len(), 2);
    assert_eq!(seen[3]["content"], Value::Null, "no rendered Markdown goes back");
    assert_eq!(seen[4]["content"], "from the server");
    assert_eq!(seen[5]["content"], "from the caller");
}

#[tokio::test]
async fn hidden_turns_come_back_when_the_answer_was_streamed_and_the_client_rewrote_it() {
    let (gateway, provider, mcp) = with_turns(vec![
        calls_stream(&[("call_1", "s_t", json!({})), ("call_2", "mine", json!({ "b": [1, 2], "a": "x" }))]),
        text_stream("the end"),
    ])
    .await;
    let body = ask(&[mcp.entry("s"), mine()]);
    let stream = gateway.client.stream(&body).await.read_to_end().await;
    let (id, name, arguments) = stream.calls().remove(0);
    // Clients rebuild the message: other spaces, no content.
    let arguments = arguments.replace(':', ": ").replace(',', ", ");
    let rebuilt = json!({ "role": "assistant", "tool_calls": [function_call(&id, &name, &arguments)] });
    let second = answered(&body, &rebuilt, &["from the caller"]);
    gateway.client.stream(&second).await.read_to_end().await;
    assert_eq!(provider.last_said("tool"), ["from the server", "from the caller"]);
}

#[tokio::test]
async fn hidden_turns_also_come_back_when_the_caller_leaves_the_servers_out() {
    let (gateway, provider, mcp) = with_turns(vec![
        calls(&[("call_1", "s_t", json!({})), ("call_2", "mine", json!({}))]),
        text("the end"),
    ])
    .await;
    let body = ask(&[mcp.entry("s"), mine()]);
    let first = gateway.client.chat(&body).await;
    let second = answered(&ask(&[mine()]), &message(&first), &["from the caller"]);
    gateway.client.chat(&second).await;
    assert_eq!(provider.last_said("tool"), ["from the server", "from the caller"]);
}

#[tokio::test]
async fn another_user_gets_no_hidden_turns() {
    for (second_user, expect) in [("anna", 2), ("bert", 1)] {
        let (gateway, provider, mcp) = with_turns(vec![
            calls(&[("call_1", "s_t", json!({})), ("call_2", "mine", json!({}))]),
            text("the end"),
        ])
        .await;
        let body = with(ask(&[mcp.entry("s"), mine()]), json!({ "user": "anna" }));
        let first = gateway.client.chat(&body).await;
        let second = answered(&body, &message(&first), &["from the caller"]);
        gateway.client.chat(&with(second, json!({ "user": second_user }))).await;
        assert_eq!(provider.last_said("tool").len(), expect, "{second_user}");
    }
}

#[tokio::test]
async fn another_model_gets_no_hidden_turns() {
    let provider = FakeProvider::start(vec![
        calls(&[("call_1", "s_t", json!({})), ("call_2", "mine", json!({}))]),
        text("the end"),
        text("the end"),
    ])
    .await;
    let mcp = FakeMcp::start(vec![FakeTool::text("t", "from the server")]).await;
    let gateway = Gateway::configured(&provider, |settings| {
        settings.providers[0].models = Some(Models::These(vec!["m".into(), "n".into()]));
    })
    .await;
    let body = ask(&[mcp.entry("s"), mine()]);
    let first = gateway.client.chat(&body).await;
    let second = answered(&body, &message(&first), &["from the caller"]);
    gateway.client.chat(&with(second.clone(), json!({ "model": "n" }))).await;
    assert_eq!(provider.last_body()["messages"], second["messages"]);
    gateway.client.chat(&second).await;
    assert_eq!(provider.last_said("tool"), ["from the server", "from the caller"]);
}

#[tokio::test]
async fn a_forged_call_id_gets_no_hidden_turns() {
    let (gateway, provider, mcp) = with_turns(vec![
        calls(&[("call_1", "s_t", json!({})), ("call_2", "mine", json!({ "secret": 1 }))]),
        text("the end"),
    ])
    .await;
    let body = ask(&[mcp.entry("s"), mine()]);
    gateway.client.chat(&body).await;
    let guessed = json!({ "role": "assistant", "tool_calls": [function_call("call_2", "mine", "{}")] });
    gateway.client.chat(&answered(&body, &guessed, &["x"])).await;
    assert_eq!(provider.last_said("tool"), ["x"]);
}

#[tokio::test]
async fn an_unknown_call_of_the_past_is_forwarded_as_it_is() {
    let (gateway, provider, mcp) = with_turns(vec![text("ok")]).await;
    let past = json!({ "role": "assistant", "content": null, "tool_calls": [function_call("call_9", "mine", "{ }")] });
    let body = answered(&ask(&[mcp.entry("s"), mine()]), &past, &["x"]);
    gateway.client.chat(&body).await;
    assert_eq!(provider.last_body()["messages"], body["messages"]);
}

#[tokio::test]
async fn the_provider_gets_its_own_ids_back_and_the_caller_ids_that_the_provider_would_take() {
    for (own, shape) in [("call_1_0", 31), ("functions.mine:0", 31), ("D681PevKs", 9), ("", 31)] {
        let (gateway, provider, mcp) = with_turns(vec![
            calls(&[(own, "mine", json!({ "a": 1 }))]),
            calls_stream(&[(own, "mine", json!({ "a": 2 }))]),
            text("the end"),
        ])
        .await;
        let body = ask(&[mcp.entry("s"), mine()]);
        let first = message(&gateway.client.chat(&body).await);
        let body = answered(&body, &first, &["one"]);
        let stream = gateway.client.stream(&body).await.read_to_end().await;
        let (id, name, arguments) = stream.calls().remove(0);
        let second = json!({ "role": "assistant", "tool_calls": [function_call(&id, &name, &arguments)] });
        gateway.client.chat(&answered(&body, &second, &["two"])).await;
        let ids = [first["tool_calls"][0]["id"].as_str().unwrap(), &id];
        assert!(ids[0] != ids[1] && ids.iter().all(|id| id.len() == shape && *id != own), "{own}: {ids:?}");
        let seen = provider.last_body()["messages"].clone();
        for place in [1, 3] {
            let call = &seen[place]["tool_calls"][0]["id"];
            assert_eq!(*call, seen[place + 1]["tool_call_id"], "{seen}");
            assert!(own.is_empty() || call == own, "{seen}");
        }
    }
}

#[tokio::test]
async fn hidden_turns_come_back_after_their_own_question_only() {
    let first = [("call_1", "s_t", json!({})), ("call_2", "mine", json!({}))];
    let replies = std::iter::once(calls(&first)).chain((0..5).map(|_| text("the end"))).collect();
    let (gateway, provider, mcp) = with_turns(replies).await;
    let mut body = ask(&[mcp.entry("s"), mine()]);
    let old =
        [json!({ "role": "system", "content": "It is 12:00." }), json!({ "role": "user", "content": "hi" })];
    body["messages"].as_array_mut().unwrap().splice(0..0, old);
    let message = message(&gateway.client.chat(&body).await);
    let asked = answered(&body, &message, &["from the caller"]);
    let all = ["from the server", "from the caller"];
    let changed = |change: fn(&mut Vec<Value>)| {
        let mut body = asked.clone();
        change(body["messages"].as_array_mut().unwrap());
        body
    };
    for (what, body, found) in [
        ("as it was", changed(|_| {}), &all[..]),
        ("other instructions", changed(|messages| messages[0]["content"] = "It is 12:01.".into()), &all),
        ("trimmed", changed(|messages| drop(messages.drain(0..2))), &all),
        ("another question", changed(|messages| messages[2]["content"] = "Another.".into()), &all[1..]),
        ("no question", changed(|messages| drop(messages.drain(1..3))), &all[1..]),
    ] {
        let answer = gateway.client.chat(&body).await;
        assert_eq!(provider.last_said("tool"), found, "{what}");
        let notices = answer.json()["toolgate"]["notices"].clone();
        let expect = if found.len() == 2 { json!([]) } else { json!("history_changed") };
        assert_eq!(notices.pointer("/0/code").unwrap_or(&json!([])), &expect, "{what}: {notices}");
        if found.len() == 1 {
            assert_eq!(provider.last_body()["messages"], body["messages"], "{what}: as the caller sent it");
        }
    }
}
