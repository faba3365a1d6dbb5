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

/// The request that answers the caller's calls of `first`.
fn answered(body: &Value, message: &Value, results: &[(&str, &str)]) -> Value {
    let mut body = body.clone();
    let messages = body["messages"].as_array_mut().unwrap();
    messages.push(message.clone());
    for (id, content) in results {
        messages.push(json!({ "role": "tool", "tool_call_id": id, "content": content }));
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
    assert_eq!(
        stream.calls(),
        [
            ("call_2".to_owned(), "mine".to_owned(), "{\"a\":\"one two\"}".to_owned()),
            ("call_3".to_owned(), "mine".to_owned(), "{\"a\":2}".to_owned()),
        ]
    );
    assert_eq!(stream.finish_reason(), Some("tool_calls"));
    assert_eq!(stream.events("tool_result").len(), 1, "ours is executed meanwhile");
    assert_eq!(mcp.count("tools/call"), 1);
}

#[tokio::test]
async fn only_the_caller_s_calls_are_handed_back_whole() {
    let both = [("call_1", "mine", json!({ "a": 1 })), ("call_2", "s_t", json!({}))];
    let (gateway, _provider, mcp) = with_turns(vec![calls(&both)]).await;
    let answer = gateway.client.chat(&ask(&[mcp.entry("s"), mine()])).await;
    assert_eq!(
        message(&answer)["tool_calls"],
        json!([{ "id": "call_1", "type": "function", "function": { "name": "mine", "arguments": "{\"a\":1}" } }])
    );
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
    let second = answered(&body, &message(&first), &[("call_2", "from the caller")]);
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
    let second = answered(&body, &rebuilt, &[(&id, "from the caller")]);
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
    let second = answered(&ask(&[mine()]), &message(&first), &[("call_2", "from the caller")]);
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
        let second = answered(&body, &message(&first), &[("call_2", "from the caller")]);
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
    let second = answered(&body, &message(&first), &[("call_2", "from the caller")]);
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
    gateway.client.chat(&answered(&body, &guessed, &[("call_2", "x")])).await;
    assert_eq!(provider.last_said("tool"), ["x"]);
}

#[tokio::test]
async fn an_unknown_call_of_the_past_is_forwarded_as_it_is() {
    let (gateway, provider, mcp) = with_turns(vec![text("ok")]).await;
    let past = json!({ "role": "assistant", "content": null, "tool_calls": [function_call("call_9", "mine", "{ }")] });
    let body = answered(&ask(&[mcp.entry("s"), mine()]), &past, &[("call_9", "x")]);
    gateway.client.chat(&body).await;
    assert_eq!(provider.last_body()["messages"], body["messages"]);
}
