//! The loop: model, tools, model.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::support::provider::{delta, event, finish, function_call, usage, whole};
use crate::support::{
    FakeMcp, FakeProvider, FakeTool, Gate, Gateway, Piece, Reply, ask, calls, calls_stream, text,
    text_result, text_stream, with,
};

#[tokio::test]
async fn a_tool_is_called_and_its_result_answered_in_one_stream() {
    let provider = FakeProvider::start(vec![
        calls_stream(&[("call_1", "s_add", json!({ "a": 2 }))]),
        text_stream("It is 4."),
    ])
    .await;
    let mcp = FakeMcp::start(vec![FakeTool::text("add", "4")]).await;
    let gateway = Gateway::with(&provider).await;
    let body = with(ask(&[mcp.entry("s")]), json!({ "stream_options": { "include_usage": true } }));
    let stream = gateway.client.stream(&body).await.read_to_end().await;

    assert!(stream.content().ends_with("It is 4."), "{}", stream.content());
    assert_eq!(stream.finish_reason(), Some("stop"));
    assert!(stream.calls().is_empty(), "a call that we execute is never shown as the caller's");
    let last = stream.chunks.last().unwrap();
    assert_eq!(last["usage"], json!({ "prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30 }));
    assert_eq!(last["choices"], json!([]));
    assert!(stream.chunks.iter().all(|chunk| chunk["model"] == "fake-model-1"));
    assert_eq!(stream.headers["x-run-id"].to_str().unwrap(), stream.chunks[0]["id"]);

    let call = mcp.peer.requests().pop().unwrap().json();
    assert_eq!((&call["params"]["name"], &call["params"]["arguments"]), (&json!("add"), &json!({ "a": 2 })));
    let messages = provider.last_body()["messages"].clone();
    assert_eq!(
        messages,
        json!([
            { "role": "user", "content": "question" },
            { "role": "assistant", "content": null, "tool_calls": [function_call("call_1", "s_add", "{\"a\":2}")] },
            { "role": "tool", "tool_call_id": "call_1", "content": "4" },
        ])
    );
}

#[tokio::test]
async fn the_answer_that_is_not_streamed_says_the_same() {
    let provider =
        FakeProvider::start(vec![calls(&[("call_1", "s_add", json!({ "a": 2 }))]), text("It is 4.")]).await;
    let mcp = FakeMcp::start(vec![FakeTool::text("add", "4")]).await;
    let gateway = Gateway::with(&provider).await;
    let answer = gateway.client.chat(&ask(&[mcp.entry("s")])).await;
    let json = answer.json();
    assert_eq!(json["object"], "chat.completion");
    assert_eq!(json["id"], answer.header("x-run-id").unwrap());
    assert_eq!(json["choices"][0]["finish_reason"], "stop");
    assert!(json["choices"][0]["message"].get("tool_calls").is_none());
    assert!(answer.content().ends_with("It is 4."));
    assert_eq!(json["usage"], json!({ "prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30 }));
    assert_eq!(json["toolgate"]["turns"], 2);
    assert_eq!(json["toolgate"]["run_id"], json["id"]);
    let call = &json["toolgate"]["tool_calls"][0];
    assert_eq!((&call["tool"], &call["text"]), (&json!("add"), &json!("4")));
    assert_eq!((&call["arguments"], &call["is_error"]), (&json!({ "a": 2 }), &json!(false)));
    let sent = &provider.bodies()[0];
    assert!(sent.get("stream").is_none() && sent.get("stream_options").is_none(), "{sent}");
}

#[tokio::test]
async fn parallel_calls_run_at_the_same_time() {
    let list: Vec<(&str, &str, Value)> = vec![
        ("call_1", "s_a", json!({})),
        ("call_2", "s_b", json!({})),
        ("call_3", "s_a", json!({ "n": 2 })),
    ];
    let provider = FakeProvider::start(vec![calls_stream(&list), text_stream("done")]).await;
    let gate = Gate::new();
    let mcp =
        FakeMcp::start(vec![FakeTool::echo("a").behind(&gate), FakeTool::text("b", "B").behind(&gate)]).await;
    let gateway = Gateway::with(&provider).await;
    let reading = tokio::spawn({
        let (client, body) = (gateway.client.clone(), ask(&[mcp.entry("s")]));
        async move { client.stream(&body).await.read_to_end().await }
    });
    // None of them is answered before all have arrived.
    mcp.until_calls(3).await;
    gate.open();
    let stream = reading.await.unwrap();
    assert_eq!(stream.events("tool_result").len(), 3);
    assert_eq!(provider.last_said("tool"), ["{}", "B", "{\"n\":2}"], "in the order of the calls");
}

#[tokio::test]
async fn a_result_is_shown_as_soon_as_it_is_there_and_the_slowest_ends_the_turn() {
    let list = [("call_1", "s_slow", json!({})), ("call_2", "s_quick", json!({}))];
    let provider = FakeProvider::start(vec![calls_stream(&list), text_stream("done")]).await;
    let gate = Gate::new();
    let mcp = FakeMcp::start(vec![FakeTool::echo("slow").behind(&gate), FakeTool::echo("quick")]).await;
    let gateway = Gateway::with(&provider).await;
    let mut stream = gateway.client.stream(&ask(&[mcp.entry("s")])).await;
    let first = stream.until(|chunk| chunk["toolgate"]["event"] == "tool_result").await;
    assert_eq!(first["toolgate"]["call_id"], "call_2");
    assert_eq!(provider.bodies().len(), 1, "the model waits for the slow one");
    gate.open();
    let stream = stream.read_to_end().await;
    let content = stream.content();
    let place = |text: &str| content.find(text).unwrap_or_else(|| panic!("{text} in {content}"));
    assert!(place("🔧 slow") < place("Result") && place("Result") < place("🔧 quick"), "results below calls");
}

#[tokio::test]
async fn calls_that_must_not_be_parallel_run_one_after_the_other() {
    let list = [("call_1", "s_one", json!({})), ("call_2", "s_two", json!({}))];
    let provider = FakeProvider::start(vec![calls_stream(&list), text_stream("done")]).await;
    let gate = Gate::new();
    let mcp = FakeMcp::start(vec![FakeTool::echo("one").behind(&gate), FakeTool::echo("two")]).await;
    let gateway = Gateway::with(&provider).await;
    let body = with(ask(&[mcp.entry("s")]), json!({ "parallel_tool_calls": false }));
    let mut stream = gateway.client.stream(&body).await;
    mcp.until_calls(1).await;
    stream.until(|chunk| chunk["toolgate"]["call_id"] == "call_2").await;
    assert_eq!(mcp.count("tools/call"), 1, "the second waits for the first");
    gate.open();
    let stream = stream.read_to_end().await;
    let ids: Vec<&Value> = stream.events("tool_result").iter().map(|result| &result["call_id"]).collect();
    assert_eq!(ids, ["call_1", "call_2"]);
    assert_eq!(provider.bodies()[0]["parallel_tool_calls"], false);
}

#[tokio::test]
async fn tools_of_several_servers_are_used_in_one_turn() {
    let list = [("call_1", "one_name", json!({})), ("call_2", "two_name", json!({}))];
    let provider = FakeProvider::start(vec![calls(&list), text("done")]).await;
    let one = FakeMcp::start(vec![FakeTool::text("name", "ONE")]).await;
    let two = FakeMcp::start(vec![FakeTool::text("name", "TWO")]).await;
    let gateway = Gateway::with(&provider).await;
    let answer = gateway.client.chat(&ask(&[one.entry("one"), two.entry("two")])).await.json();
    assert_eq!(provider.last_said("tool"), ["ONE", "TWO"]);
    let hosts: HashSet<&str> = answer["toolgate"]["tool_calls"]
        .as_array()
        .unwrap()
        .iter()
        .map(|call| call["host"].as_str().unwrap())
        .collect();
    assert_eq!(hosts, HashSet::from([one.peer.host().as_str(), two.peer.host().as_str()]));
}

#[tokio::test]
async fn arguments_that_are_no_json_are_not_sent_and_the_model_is_told() {
    for arguments in ["{\"a\": ", "[1]", "nonsense", "{\"a\":1}}"] {
        let message = json!({ "role": "assistant", "content": null, "tool_calls": [function_call("call_1", "s_t", arguments)] });
        let provider = FakeProvider::start(vec![whole(&message, "tool_calls"), text("sorry")]).await;
        let mcp = FakeMcp::start(vec![FakeTool::echo("t")]).await;
        let gateway = Gateway::with(&provider).await;
        let answer = gateway.client.chat(&ask(&[mcp.entry("s")])).await;
        assert!(answer.content().ends_with("sorry"), "the run goes on");
        assert!(answer.content().contains("**Error**"), "the reader sees it: {}", answer.content());
        assert_eq!(mcp.count("tools/call"), 0);
        let told = provider.last_said("tool")[0].as_str().unwrap().to_owned();
        assert!(told.contains("not a valid JSON object"), "{told}");
        let back = &provider.last_body()["messages"][1]["tool_calls"][0]["function"]["arguments"];
        assert!(serde_json::from_str::<Value>(back.as_str().unwrap()).unwrap().is_object(), "{back}");
    }
}

#[tokio::test]
async fn no_arguments_are_an_empty_object() {
    let message = json!({ "role": "assistant", "tool_calls": [function_call("call_1", "s_t", "")] });
    let provider = FakeProvider::start(vec![whole(&message, "tool_calls"), text("ok")]).await;
    let mcp = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let gateway = Gateway::with(&provider).await;
    gateway.client.chat(&ask(&[mcp.entry("s")])).await;
    assert_eq!(provider.last_said("tool"), ["{}"]);
}

#[tokio::test]
async fn a_tool_that_the_model_made_up_is_refused_and_the_run_goes_on() {
    let provider =
        FakeProvider::start(vec![calls_stream(&[("call_1", "s_nope", json!({}))]), text_stream("ok")]).await;
    let mcp = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let gateway = Gateway::with(&provider).await;
    let stream = gateway.client.stream(&ask(&[mcp.entry("s")])).await.read_to_end().await;
    assert!(stream.content().ends_with("ok"));
    assert_eq!(stream.events("tool_result")[0]["is_error"], true);
    assert!(provider.last_said("tool")[0].as_str().unwrap().contains("no tool `s_nope`"));
    assert_eq!(mcp.count("tools/call"), 0);
}

#[tokio::test]
async fn providers_that_count_calls_strangely_are_understood() {
    let call = |index: Option<u64>, id: &str, name: &str, arguments: Value| {
        let mut call = json!({ "function": { "name": name, "arguments": arguments } });
        if !id.is_empty() {
            call["id"] = id.into();
        }
        if let Some(index) = index {
            call["index"] = index.into();
        }
        event(&delta(&json!({ "tool_calls": [call] })))
    };
    let done = || Piece::from("data: [DONE]\n\n");
    let end = |mut pieces: Vec<Piece>| {
        pieces.extend([event(&finish("tool_calls")), event(&usage()), done()]);
        Reply::stream(pieces)
    };
    for (what, turn) in [
        (
            "all at index 0",
            end(vec![
                call(Some(0), "a", "s_t", json!("{\"n\":1}")),
                call(Some(0), "b", "s_t", json!("{\"n\":2}")),
            ]),
        ),
        (
            "no index",
            end(vec![call(None, "a", "s_t", json!("{\"n\":1}")), call(None, "b", "s_t", json!("{\"n\":2}"))]),
        ),
        (
            "arguments as objects",
            end(vec![
                call(Some(0), "a", "s_t", json!({ "n": 1 })),
                call(Some(1), "b", "s_t", json!({ "n": 2 })),
            ]),
        ),
        (
            "no ids",
            end(vec![
                call(Some(0), "", "s_t", json!("{\"n\":1}")),
                call(Some(1), "", "s_t", json!("{\"n\":2}")),
            ]),
        ),
    ] {
        let provider = FakeProvider::start(vec![turn, text_stream("ok")]).await;
        let mcp = FakeMcp::start(vec![FakeTool::echo("t")]).await;
        let gateway = Gateway::with(&provider).await;
        gateway.client.stream(&ask(&[mcp.entry("s")])).await.read_to_end().await;
        assert_eq!(provider.last_said("tool"), ["{\"n\":1}", "{\"n\":2}"], "{what}");
    }
}

#[tokio::test]
async fn prose_before_a_call_and_fields_only_the_provider_knows_go_back_to_it() {
    let mut own = function_call("call_1", "s_t", "{}");
    own["extra_content"] = json!({ "google": { "thought_signature": "sig" } });
    let message = json!({ "role": "assistant", "content": "Let me look.", "reasoning_content": "hm", "tool_calls": [own] });
    let provider = FakeProvider::start(vec![whole(&message, "tool_calls"), text("Found.")]).await;
    let mcp = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let gateway = Gateway::with(&provider).await;
    let answer = gateway.client.chat(&ask(&[mcp.entry("s")])).await;
    assert!(answer.content().starts_with("Let me look.\n\n<details>"), "{}", answer.content());
    assert_eq!(answer.json()["choices"][0]["message"]["reasoning_content"], "hm");
    let back = &provider.last_body()["messages"][1];
    assert_eq!((&back["content"], &back["reasoning_content"]), (&json!("Let me look."), &json!("hm")));
    assert_eq!(back["tool_calls"][0]["extra_content"]["google"]["thought_signature"], "sig");
}

#[tokio::test]
async fn progress_keeps_the_stream_alive_and_is_told_as_data() {
    let gate = Gate::new();
    let behind = gate.clone();
    let tool = FakeTool::raw("t", move |request| {
        let message = request.json();
        let progress = json!({
            "jsonrpc": "2.0", "method": "notifications/progress",
            "params": { "progressToken": message["params"]["_meta"]["progressToken"], "progress": 1, "total": 3, "message": "one of three" },
        });
        let result = json!({ "jsonrpc": "2.0", "id": message["id"], "result": text_result("done") });
        Reply::stream(vec![event(&progress), Piece::Wait(behind.clone()), event(&result)])
    });
    let provider =
        FakeProvider::start(vec![calls_stream(&[("call_1", "s_t", json!({}))]), text_stream("ok")]).await;
    let mcp = FakeMcp::start(vec![tool]).await;
    let gateway = Gateway::with(&provider).await;
    let mut stream = gateway.client.stream(&ask(&[mcp.entry("s")])).await;
    let progress = stream.until(|chunk| chunk["toolgate"]["event"] == "tool_progress").await;
    assert_eq!(
        progress["toolgate"],
        json!({ "event": "tool_progress", "call_id": "call_1", "progress": 1.0, "total": 3.0, "message": "one of three" })
    );
    gate.open();
    assert!(stream.read_to_end().await.content().ends_with("ok"));
    assert_eq!(provider.last_said("tool"), ["done"]);
}

#[tokio::test]
async fn silence_is_filled_with_comments() {
    let gate = Gate::new();
    let mcp = FakeMcp::start(vec![FakeTool::echo("t").behind(&gate)]).await;
    let provider =
        FakeProvider::start(vec![calls_stream(&[("call_1", "s_t", json!({}))]), text_stream("ok")]).await;
    let gateway = Gateway::configured(&provider, |settings| settings.run.keep_alive_seconds = 1).await;
    let mut stream = gateway.client.stream(&ask(&[mcp.entry("s")])).await;
    stream.until_comment().await;
    gate.open();
    assert!(stream.read_to_end().await.content().ends_with("ok"));
}

#[tokio::test]
async fn a_provider_s_error_to_tools_keeps_its_status_and_names_the_model() {
    let body = json!({ "error": { "message": "tools are not supported", "type": "invalid_request_error", "param": "tools", "code": "no_tools" } });
    let provider = FakeProvider::answering(move |_| Reply::Json(400, body.clone())).await;
    let mcp = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let gateway = Gateway::with(&provider).await;
    for streamed in [false, true] {
        let body = with(ask(&[mcp.entry("s")]), json!({ "stream": streamed }));
        let answer = gateway.client.chat(&body).await;
        assert_eq!(answer.status, 400);
        assert_eq!(
            answer.json()["error"],
            json!({ "message": "fake (model `m`): tools are not supported", "type": "invalid_request_error", "param": "tools", "code": "no_tools" })
        );
    }
}

#[tokio::test]
async fn a_provider_that_answers_in_the_other_form_is_understood() {
    let mcp = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let call = [("call_1", "s_t", json!({}))];
    let provider =
        FakeProvider::start(vec![calls(&call), text("whole"), calls_stream(&call), text_stream("parts")])
            .await;
    let gateway = Gateway::with(&provider).await;
    let stream = gateway.client.stream(&ask(&[mcp.entry("s")])).await.read_to_end().await;
    assert!(stream.content().ends_with("whole"));
    let answer = gateway.client.chat(&ask(&[mcp.entry("s")])).await;
    assert!(answer.content().ends_with("parts"));
    assert_eq!(mcp.count("tools/call"), 2);
}

#[tokio::test]
async fn a_call_is_a_call_whatever_the_reason_says() {
    for reason in ["stop", "tool_calls", "function_call", "end_turn"] {
        let message = json!({ "role": "assistant", "content": "", "tool_calls": [function_call("call_1", "s_t", "{}")] });
        let provider = FakeProvider::start(vec![whole(&message, reason), text("ok")]).await;
        let mcp = FakeMcp::start(vec![FakeTool::echo("t")]).await;
        let gateway = Gateway::with(&provider).await;
        let answer = gateway.client.chat(&ask(&[mcp.entry("s")])).await.json();
        assert_eq!(
            (mcp.count("tools/call"), answer["choices"][0]["finish_reason"].as_str()),
            (1, Some("stop"))
        );
    }
}

#[tokio::test]
async fn a_turn_cut_by_its_length_executes_no_half_call() {
    let message = json!({ "role": "assistant", "content": null, "tool_calls": [function_call("call_1", "s_t", "{\"a\": \"tex")] });
    let provider = FakeProvider::start(vec![whole(&message, "length"), text("ok")]).await;
    let mcp = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let gateway = Gateway::with(&provider).await;
    gateway.client.chat(&ask(&[mcp.entry("s")])).await;
    assert_eq!(mcp.count("tools/call"), 0);
}

#[tokio::test]
async fn large_numbers_in_arguments_arrive_as_the_model_wrote_them() {
    let arguments = "{\"id\":18446744073709551615,\"small\":-9223372036854775808,\"text\":\"\\u00e9\"}";
    let message = json!({ "role": "assistant", "tool_calls": [function_call("call_1", "s_t", arguments)] });
    let provider = FakeProvider::start(vec![whole(&message, "tool_calls"), text("ok")]).await;
    let mcp = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let gateway = Gateway::with(&provider).await;
    gateway.client.chat(&ask(&[mcp.entry("s")])).await;
    let sent = mcp.peer.requests().pop().unwrap().json()["params"]["arguments"].clone();
    assert_eq!(sent, serde_json::from_str::<Value>(arguments).unwrap());
}
