//! One list of cases for every way to start a run: what works, and what fails, does so in the same way everywhere.

use serde_json::{Value, json};

use super::scene::{calling, content, result};
use crate::support::{
    FakeMcp, FakeProvider, FakeTool, Gateway, Protected, Reply, ask, calls, calls_stream, text, text_stream,
    with,
};

/// A way to start a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Surface {
    Unstored,
    Stored,
    Streamed,
    Task,
    StoredTask,
    Prompt,
}

const ALL: [Surface; 6] = [
    Surface::Unstored,
    Surface::Stored,
    Surface::Streamed,
    Surface::Task,
    Surface::StoredTask,
    Surface::Prompt,
];

/// What a run came to, as far as it must be the same everywhere.
#[derive(Debug, PartialEq)]
struct Outcome {
    status: u64,
    error: Value,
    content: String,
    finish_reason: Value,
    /// Of calls that the caller has to answer.
    calls: Value,
}

impl Outcome {
    fn of(completion: &Value) -> Outcome {
        let choice = &completion["choices"][0];
        let mut calls = choice["message"]["tool_calls"].clone();
        for call in calls.as_array_mut().into_iter().flatten() {
            // Each run has ids of its own making.
            let id = call.as_object_mut().and_then(|call| call.shift_remove("id")).unwrap_or_default();
            assert!(id.as_str().is_some_and(|id| id.starts_with("call_") && id.len() == 31), "{id}");
        }
        Outcome {
            status: 200,
            error: Value::Null,
            content: choice["message"]["content"].as_str().unwrap_or_default().to_owned(),
            finish_reason: choice["finish_reason"].clone(),
            calls,
        }
    }

    fn failed(status: u64, error: &Value) -> Outcome {
        let (content, finish_reason) = (String::new(), Value::Null);
        Outcome { status, error: error.clone(), content, finish_reason, calls: Value::Null }
    }
}

/// Starts a run in this way and gives what it came to.
async fn outcome(gateway: &Gateway, surface: Surface, prompt: &str, body: &Value) -> Outcome {
    let client = &gateway.client;
    let is_stored = matches!(surface, Surface::Stored | Surface::Streamed | Surface::StoredTask);
    let body = with(body.clone(), if is_stored { json!({ "store": true }) } else { json!({}) });
    let path = match surface {
        Surface::Unstored | Surface::Stored | Surface::Streamed => "/v1/chat/completions".to_owned(),
        Surface::Task | Surface::StoredTask => "/v1/tasks".to_owned(),
        Surface::Prompt => format!("/{prompt}/chat/completions"),
    };
    if surface == Surface::Streamed {
        let body = with(body, json!({ "stream": true }));
        let answer = client.post(&path, &[], &body).await;
        if answer.status != 200 {
            return Outcome::failed(answer.status.into(), &answer.json()["error"]);
        }
        // What was streamed is what can be read later.
        let id = answer.header("x-run-id").unwrap();
        let streamed = answer.text();
        let whole = result(client, id).await;
        let outcome = Outcome::of(&whole["completion"]);
        assert!(streamed.contains(outcome.finish_reason.as_str().unwrap()), "{streamed}");
        return outcome;
    }
    let answer = client.post(&path, &[], &body).await;
    match answer.status {
        200 => Outcome::of(&answer.json()),
        202 => {
            let id = answer.json()["id"].as_str().unwrap().to_owned();
            let whole = result(client, &id).await;
            if whole["status"] == "failed" {
                let seen = super::watcher::all(client, &id).await;
                let status = seen.last().unwrap().data["status"].as_u64().unwrap();
                return Outcome::failed(status, &whole["error"]);
            }
            assert!(whole["status"] == "completed" || whole["status"] == "incomplete", "{whole}");
            assert_eq!(whole["result"].as_str().unwrap(), content(&whole), "both forms say the same");
            Outcome::of(&whole["completion"])
        }
        status => Outcome::failed(status.into(), &answer.json()["error"]),
    }
}

/// Everything that starts runs gives `expect`, and the same besides.
async fn everywhere(
    provider: &FakeProvider,
    only: &[Surface],
    body: &Value,
    expect: impl Fn(&Outcome) -> bool,
) {
    let gateway = Gateway::with(provider).await;
    let prompt = prompt(&gateway).await;
    let mut first: Option<Outcome> = None;
    for surface in only {
        let outcome = outcome(&gateway, *surface, &prompt, body).await;
        assert!(expect(&outcome), "{surface:?}: {outcome:?}");
        if let Some(first) = &first {
            assert_eq!(&outcome, first, "{surface:?}");
        }
        first.get_or_insert(outcome);
    }
}

/// A run whose prompt others can use, from a provider that answers everything.
async fn prompt(gateway: &Gateway) -> String {
    let question = json!([{ "role": "user", "content": "a prompt for later" }]);
    let answer = gateway.client.chat(&json!({ "model": "m", "store": true, "messages": question })).await;
    answer.header("x-run-id").map(str::to_owned).unwrap_or_else(|| {
        // The provider refuses everything: the run is kept all the same.
        "run_00000000000000000000000000".to_owned()
    })
}

fn is_prompt(request: &crate::support::Recorded) -> bool {
    request.json()["messages"][0]["content"] == "a prompt for later"
        && request.json()["messages"].as_array().unwrap().len() == 1
}

/// Answers as a stream or whole, as it was asked.
async fn model(answer: impl Fn(bool, bool) -> Reply + Send + Sync + 'static) -> FakeProvider {
    FakeProvider::answering(move |request| {
        if is_prompt(request) {
            return text("a prompt");
        }
        let streamed = request.json()["stream"] == true;
        answer(super::scene::has_results(request), streamed)
    })
    .await
}

fn says(words: &'static str, streamed: bool) -> Reply {
    if streamed { text_stream(words) } else { text(words) }
}

fn asks_for(tool: &'static str, streamed: bool) -> Reply {
    let list = [("call_1", tool, json!({ "a": 1 }))];
    if streamed { calls_stream(&list) } else { calls(&list) }
}

#[tokio::test]
async fn text_comes_the_same_way_everywhere() {
    let provider = model(|_, streamed| says("hello there", streamed)).await;
    everywhere(&provider, &ALL, &ask(&[]), |outcome| outcome.content == "hello there").await;
}

#[tokio::test]
async fn tools_are_called_and_shown_the_same_way_everywhere() {
    let mcp = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let provider = model(|has_results, streamed| match has_results {
        true => says("done", streamed),
        false => asks_for("s_t", streamed),
    })
    .await;
    let body = ask(&[mcp.entry("s")]);
    everywhere(&provider, &ALL, &body, |outcome| {
        outcome.content.contains("🔧") && outcome.content.ends_with("done") && outcome.finish_reason == "stop"
    })
    .await;
    assert_eq!(mcp.count("tools/call"), ALL.len());
}

#[tokio::test]
async fn functions_of_the_caller_are_handed_back_everywhere() {
    let provider = model(|_, streamed| asks_for("mine", streamed)).await;
    let mcp = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let own =
        json!({ "type": "function", "function": { "name": "mine", "parameters": { "type": "object" } } });
    everywhere(&provider, &ALL, &ask(&[own, mcp.entry("s")]), |outcome| {
        outcome.finish_reason == "tool_calls" && outcome.calls[0]["function"]["name"] == "mine"
    })
    .await;
}

#[tokio::test]
async fn a_missing_login_is_said_the_same_way_everywhere() {
    let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
    let provider = model(|_, streamed| says("never", streamed)).await;
    let body = with(ask(&[mcp.entry("s")]), json!({ "user": "ann", "toolgate": { "on_auth": "link" } }));
    everywhere(&provider, &ALL, &body, |outcome| {
        outcome.content.contains("/connect/") && outcome.finish_reason == "stop"
    })
    .await;
}

#[tokio::test]
async fn a_missing_login_fails_with_the_same_words_where_that_is_wanted() {
    let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
    let provider = model(|_, streamed| says("never", streamed)).await;
    let body = with(ask(&[mcp.entry("s")]), json!({ "user": "ann", "toolgate": { "on_auth": "fail" } }));
    everywhere(&provider, &ALL, &body, |outcome| {
        outcome.status == 401 && outcome.error["code"] == "authentication_required"
    })
    .await;
}

#[tokio::test]
async fn bounds_end_runs_the_same_way_everywhere() {
    let mcp = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let provider = model(|_, streamed| asks_for("s_t", streamed)).await;
    for (options, reason) in [
        (json!({ "max_turns": 2 }), "length"),
        (json!({ "max_tool_calls": 1 }), "length"),
        (json!({ "stop_when": [{ "turns": 1 }] }), "stop"),
    ] {
        let body = with(ask(&[mcp.entry("s")]), json!({ "toolgate": options }));
        everywhere(&provider, &ALL, &body, |outcome| outcome.finish_reason == reason).await;
    }
}

#[tokio::test]
async fn a_provider_that_fails_keeps_its_status_and_its_words_everywhere() {
    let mcp = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    for (status, headers) in [(500_u16, &[][..]), (429, &[("retry-after", "7")][..]), (400, &[][..])] {
        let provider = FakeProvider::answering(move |request| {
            if is_prompt(request) {
                return text("a prompt");
            }
            let body = r#"{"error":{"message":"the provider's words","type":"its_type","code":"its_code"}}"#;
            let mut all = vec![("content-type", "application/json")];
            all.extend(headers);
            Reply::with_headers(status, &all, body)
        })
        .await;
        // With a tool, so that the unstored one is a run as well.
        everywhere(&provider, &ALL, &ask(&[mcp.entry("s")]), |outcome| {
            outcome.status == u64::from(status) && outcome.error.to_string().contains("the provider's words")
        })
        .await;
    }
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_at_once_with_the_same_words_everywhere() {
    let provider = calling(|| text("a prompt"), || text("never")).await;
    let mcp = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let tool = || ask(&[mcp.entry("s")]);
    for (body, status, param) in [
        (with(tool(), json!({ "n": 2 })), 400, json!("n")),
        (with(tool(), json!({ "toolgate": { "max_trns": 1 } })), 400, json!("toolgate.max_trns")),
        (with(tool(), json!({ "toolgate": { "on_auth": "maybe" } })), 400, json!("toolgate.on_auth")),
        (with(tool(), json!({ "model": "nowhere/nothing" })), 404, Value::Null),
        (with(ask(&[json!({ "type": "mcp" })]), json!({})), 400, json!("tools[0].server_url")),
        (with(tool(), json!({ "stream_options": 3 })), 400, Value::Null),
        (with(tool(), json!({ "messages": "hello" })), 400, json!("messages")),
    ] {
        let gateway = Gateway::with(&provider).await;
        let prompt = prompt(&gateway).await;
        let mut first: Option<Outcome> = None;
        for surface in ALL {
            let outcome = outcome(&gateway, surface, &prompt, &body).await;
            assert_eq!(outcome.status, status, "{surface:?} {body}: {outcome:?}");
            if !param.is_null() {
                assert_eq!(outcome.error["param"], param, "{surface:?} {body}");
            }
            if let Some(first) = &first {
                assert_eq!(&outcome, first, "{surface:?}");
            }
            first.get_or_insert(outcome);
        }
        let list = gateway.client.get("/v1/chat/completions").await.json();
        assert_eq!(list["data"].as_array().unwrap().len(), 1, "the prompt alone is stored: {list}");
    }
    assert_eq!(mcp.methods().len(), 0, "nobody was asked");
}
