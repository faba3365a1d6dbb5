//! What ends a run: conditions, limits, budgets.

use serde_json::{Value, json};

use crate::support::{FakeMcp, FakeProvider, FakeTool, Gateway, Reply, ask, calls, calls_stream, text, with};

/// A provider that calls `s_t` in every turn.
async fn restless() -> FakeProvider {
    FakeProvider::answering(|request| {
        let turn = request.json()["messages"].as_array().unwrap().len();
        let call = [("call", "s_t", json!({ "turn": turn }))];
        if request.json()["stream"] == true { calls_stream(&call) } else { calls(&call) }
    })
    .await
}

/// The answer to a request with these fields, of a model that never stops by itself: with how many turns it took,
/// and how many tool calls.
async fn run(fields: Value) -> (Value, usize, usize) {
    let provider = restless().await;
    let mcp = FakeMcp::start(vec![FakeTool::text("t", "ok"), FakeTool::text("other", "ok")]).await;
    let gateway = Gateway::with(&provider).await;
    let body = with(ask(&[mcp.entry("s")]), fields);
    let whole = gateway.client.chat(&body).await;
    assert_eq!(whole.status, 200, "{}", whole.text());
    let (turns, called) = (provider.bodies().len(), mcp.count("tools/call"));
    let stream = gateway.client.stream(&body).await.read_to_end().await;
    let whole = whole.json();
    assert_eq!(stream.finish_reason(), whole["choices"][0]["finish_reason"].as_str());
    assert_eq!(provider.bodies().len(), turns * 2, "streamed and not, the run is the same");
    assert_eq!(mcp.count("tools/call"), called * 2);
    assert_eq!(stream.events("notice").len(), whole["toolgate"]["notices"].as_array().unwrap().len());
    (whole, turns, called)
}

#[tokio::test]
async fn max_turns_ends_with_length_and_says_so() {
    let (answer, turns, called) = run(json!({ "toolgate": { "max_turns": 3 } })).await;
    assert_eq!((turns, called), (3, 3));
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["toolgate"]["notices"][0]["code"], "max_turns");
    let content = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(content.contains("limit of turns: 3"), "{content}");
}

#[tokio::test]
async fn ten_turns_are_the_default() {
    let (answer, turns, _) = run(json!({})).await;
    assert_eq!((turns, answer["toolgate"]["turns"].as_u64()), (10, Some(10)));
}

#[tokio::test]
async fn max_tool_calls_ends_with_length_and_says_so() {
    let (answer, turns, called) = run(json!({ "toolgate": { "max_tool_calls": 2 } })).await;
    assert_eq!((turns, called), (3, 2), "the third call is not made");
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["toolgate"]["notices"][0]["code"], "max_tool_calls");
    assert_eq!(answer["toolgate"]["tool_calls"].as_array().unwrap().len(), 3, "the refused one is shown");
}

#[tokio::test]
async fn stop_when_ends_after_the_results_are_in() {
    for (condition, turns) in [
        (json!([{ "turns": 2 }]), 2),
        (json!([{ "tool": "t" }]), 1),
        (json!([{ "tool": "s_t" }]), 1),
        (json!([{ "tool": "other" }, { "turns": 4 }]), 4),
        (json!({ "turns": 1 }), 1),
    ] {
        let (answer, took, called) = run(json!({ "toolgate": { "stop_when": condition } })).await;
        assert_eq!((took, called), (turns, turns), "{condition}");
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
        assert_eq!(answer["toolgate"]["tool_calls"][turns - 1]["text"], "ok");
        assert_eq!(answer["toolgate"]["notices"], json!([]));
    }
}

#[tokio::test]
async fn options_may_come_as_headers() {
    let provider = restless().await;
    let mcp = FakeMcp::start(vec![FakeTool::text("t", "ok")]).await;
    let gateway = Gateway::with(&provider).await;
    let headers = [("x-toolgate-max-turns", "2"), ("x-toolgate-output", "text")];
    let answer = gateway.client.post("/v1/chat/completions", &headers, &ask(&[mcp.entry("s")])).await;
    assert_eq!(provider.bodies().len(), 2);
    assert!(!answer.content().contains("<details>"));
    assert!(provider.peer.requests().iter().all(|request| request.header("x-toolgate-max-turns").is_none()));
}

#[tokio::test]
async fn tokens_are_bounded_over_all_turns() {
    // Every turn of the fake uses 5.
    for field in ["max_tokens", "max_completion_tokens"] {
        let provider = restless().await;
        let mcp = FakeMcp::start(vec![FakeTool::text("t", "ok")]).await;
        let gateway = Gateway::with(&provider).await;
        let answer = gateway.client.chat(&with(ask(&[mcp.entry("s")]), json!({ field: 12 }))).await.json();
        let asked: Vec<u64> = provider.bodies().iter().map(|body| body[field].as_u64().unwrap()).collect();
        assert_eq!(asked, [12, 7, 2]);
        assert_eq!(answer["choices"][0]["finish_reason"], "length");
        assert_eq!(answer["toolgate"]["notices"][0]["code"], "token_budget");
        assert_eq!(answer["usage"]["completion_tokens"], 15);
    }
}

#[tokio::test]
async fn a_run_ends_at_its_wall_clock() {
    let mcp = FakeMcp::start(vec![FakeTool::raw("t", |_| Reply::Silence)]).await;
    let provider = restless().await;
    let gateway = Gateway::configured(&provider, |settings| settings.run.max_seconds = 1).await;
    let answer = gateway.client.chat(&ask(&[mcp.entry("s")])).await.json();
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["toolgate"]["notices"][0]["code"], "time_limit");
    mcp.peer.until_abandoned(1).await;
}

#[tokio::test]
async fn a_forced_tool_is_released_after_the_first_turn() {
    let mcp = FakeMcp::start(vec![FakeTool::text("t", "ok"), FakeTool::text("u", "ok")]).await;
    let forced = json!({ "type": "function", "function": { "name": "s_t" } });
    for (given, sent) in [
        (json!("required"), json!("required")),
        (json!({ "type": "mcp", "server_label": "s", "name": "t" }), forced.clone()),
        (json!({ "type": "mcp", "server_label": "s" }), json!("required")),
        (json!({ "type": "function", "function": { "name": "s_t" } }), forced.clone()),
        (json!({ "type": "function", "function": { "name": "t" } }), forced.clone()),
    ] {
        let provider = FakeProvider::start(vec![calls(&[("call_1", "s_t", json!({}))]), text("done")]).await;
        let gateway = Gateway::with(&provider).await;
        gateway.client.chat(&with(ask(&[mcp.entry("s")]), json!({ "tool_choice": given }))).await;
        let bodies = provider.bodies();
        assert_eq!(bodies[0]["tool_choice"], sent, "{given}");
        assert!(bodies[1].get("tool_choice").is_none(), "{given}: {}", bodies[1]);
    }
}

#[tokio::test]
async fn auto_and_none_stay_as_they_are() {
    let mcp = FakeMcp::start(vec![FakeTool::text("t", "ok")]).await;
    for choice in ["auto", "none"] {
        let provider = FakeProvider::start(vec![calls(&[("call_1", "s_t", json!({}))]), text("done")]).await;
        let gateway = Gateway::with(&provider).await;
        gateway.client.chat(&with(ask(&[mcp.entry("s")]), json!({ "tool_choice": choice }))).await;
        assert!(provider.bodies().iter().all(|body| body["tool_choice"] == choice));
    }
}
