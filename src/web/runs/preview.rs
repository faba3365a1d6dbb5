//! Pages of runs with everything that can stand on them, for `web::preview_test`.

use std::sync::Arc;

use askama::Template;
use serde_json::{Map, Value, json};

use super::*;
use crate::completion::Visibility;
use crate::completion::event::*;
use crate::tools::ToolResult;
use crate::web::frame::Frame;
use crate::web::words;

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

fn delta(value: Value) -> RunEvent {
    RunEvent::Delta { delta: object(value), logprobs: None }
}

fn turn(turn: u32, model: &str) -> RunEvent {
    RunEvent::TurnStarted { turn, head: object(json!({ "model": model })) }
}

fn call(id: &str, tool: String, host: String, arguments: Value) -> RunEvent {
    let function = tool.clone();
    RunEvent::ToolCall(ToolCall {
        call_id: id.into(),
        tool,
        function,
        server_label: host.clone(),
        host,
        arguments,
    })
}

fn result(id: &str, tool: String, host: String, text: &str, is_error: bool) -> RunEvent {
    let mut result = ToolResult::failure(text);
    result.is_error = is_error;
    RunEvent::ToolResult(ToolResultEvent {
        call_id: id.into(),
        tool,
        host,
        result,
        milliseconds: 834,
        outcome: CallOutcome::Ok,
    })
}

fn login(text: Option<&str>, number: usize, kind: LinkKind) -> RunEvent {
    let or = |ordinary: String| text.map_or(ordinary, str::to_owned);
    let host = ["files.example.com", "calendar.example.org", "tickets.example.net"][number];
    RunEvent::AuthorizationRequired(Arc::new(AuthorizationRequired {
        resource: or(format!("https://{host}/mcp")),
        server_label: or(host.into()),
        host: or(host.into()),
        connect_url: Some(or(format!("https://{host}/connect/flw_{number}"))),
        scopes: vec![or("files:read".into()), or("openid".into())],
        reason: or("Log in so that the assistant can read your files.".into()),
        expires_at: None,
        kind,
    }))
}

const PROSE: &str = "## What I found\n\nThe **third quarter** closed *better* than planned. Three things stand out:\n\n1. Revenue grew by 12 %, mostly in the `EU-West` region\n2. Two invoices are [still open](https://billing.example.com/invoices?status=open)\n3. ~~Travel~~ costs fell\n\n| Region | Revenue | Change |\n|---|--:|--:|\n| EU-West | 1,204,000 | +12 % |\n| US-East | 980,400 | +3 % |\n| APAC | 312,900 | −1 % |\n\n> Numbers are provisional until the audit ends.\n\n- [x] compare with the plan\n- [ ] ask for the two invoices\n\n```python\ndef growth(now, before):\n    \"\"\"In percent.\"\"\"\n    return round((now - before) / before * 100, 1)\n```\n\n![The chart by region](https://charts.example.net/q3.png)\n\nMore at https://reports.example.com/q3_summary.";

/// All that can happen, in an order in which it could.
fn everything(text: Option<&str>) -> Vec<RunEvent> {
    let or = |ordinary: &str| text.unwrap_or(ordinary).to_owned();
    let (files, host) = (or("search_files"), or("files.example.com"));
    let calendar = or("calendar.example.org");
    vec![
        RunEvent::Accepted,
        turn(1, &or("demo/demo")),
        delta(
            json!({ "reasoning_content": or("The person wants *numbers*, so I look for the report first.") }),
        ),
        delta(json!({ "content": or("I look for the report and at the calendar.") })),
        call(
            "c1",
            files.clone(),
            host.clone(),
            json!({ "query": or("Q3 report"), "folders": ["finance", "board"], "limit": 5 }),
        ),
        call(
            "c2",
            or("list_events"),
            calendar.clone(),
            json!({ "from": or("2026-07-01"), "to": "2026-09-30" }),
        ),
        result(
            "c2",
            or("list_events"),
            calendar,
            &or("The calendar is not available: 503 Service Unavailable"),
            true,
        ),
        result(
            "c1",
            files,
            host,
            &or(
                "{\"files\":[{\"name\":\"Q3 report (final).pdf\",\"bytes\":248113,\"owner\":\"anna\"},{\"name\":\"Q3 plan.xlsx\",\"bytes\":88210,\"owner\":\"bo\"}]}",
            ),
            false,
        ),
        RunEvent::Notice(Notice {
            code: or("server_unreachable"),
            message: or("calendar.example.org did not answer and was left out."),
        }),
        RunEvent::Usage(object(json!({ "prompt_tokens": 4310, "completion_tokens": 211 }))),
        turn(2, "demo/demo"),
        delta(json!({ "content": or(PROSE) })),
        RunEvent::CallerCall {
            index: 0,
            call: object(
                json!({ "function": { "name": or("send_report"), "arguments": or("{\"to\":\"board\",\"urgent\":false}") } }),
            ),
        },
    ]
}

fn at_work(text: Option<&str>) -> Vec<RunEvent> {
    let or = |ordinary: &str| text.unwrap_or(ordinary).to_owned();
    let mut events = everything(text);
    events.truncate(6);
    events.push(RunEvent::ToolProgress {
        call_id: "c1".into(),
        progress: 42.0,
        total: Some(120.0),
        message: Some(or("Reading folder 3 of 8")),
    });
    events
}

fn waiting(text: Option<&str>) -> Vec<RunEvent> {
    let or = |ordinary: &str| text.unwrap_or(ordinary).to_owned();
    vec![
        login(text, 0, LinkKind::Connection),
        login(text, 1, LinkKind::Connection),
        login(text, 2, LinkKind::Elicitation),
        RunEvent::AuthorizationBatch(AuthorizationBatch {
            connect_all_url: Some(or("https://tools.example.com/connect/all_1")),
            resources: vec![or("a"), or("b"), or("c")],
        }),
        RunEvent::Waiting { seconds: 120, resources: Vec::new() },
        RunEvent::Authorized { resource: or("https://files.example.com/mcp"), host: or("files.example.com") },
    ]
}

fn failed(text: Option<&str>) -> Vec<RunEvent> {
    let message = text.unwrap_or("api.example.com answered 429: Rate limit reached for requests per minute.");
    let error = json!({ "message": message, "type": message, "code": text.unwrap_or("rate_limit_exceeded") });
    let mut events = everything(text);
    events.truncate(4);
    events.push(RunEvent::Error(RunError { status: 429, error, retry_after: None, login: None }));
    events
}

fn run(text: Option<&str>, frame: &Frame, events: &[RunEvent], kind: (&str, bool, bool)) -> String {
    let (status, is_owner, is_live) = kind;
    let or = |ordinary: &str| text.unwrap_or(ordinary).to_owned();
    let mut view = View::new(if is_owner { Links::Shown } else { Links::Hidden });
    for event in events {
        view.push(event);
    }
    let (tone, words) = words::status(status);
    let visibility = if is_owner { Visibility::Private } else { Visibility::Public };
    RunPage {
        frame: frame.clone(),
        path: or("/run_5d1f0c9a7b3e4826"),
        address: or("https://tools.example.com/run_5d1f0c9a7b3e4826"),
        facts: Facts {
            tone,
            status: words,
            model: view.model.clone().unwrap_or_else(|| or("demo/demo")),
            created: or("2 minutes ago"),
            duration: if is_live { String::new() } else { words::duration(8340) },
            tokens: if is_live { String::new() } else { "4,310 tokens in, 980 out".into() },
            turns: view.turns,
            tool_calls: view.tool_calls,
        },
        prompt: Prompt::read(&object(json!({
            "messages": [
                { "role": or("system"), "content": or("You are the finance team's assistant.") },
                { "role": "user", "content": or("How did the third quarter go, compared with the plan?\nA table, please, and what is still open.") },
            ],
            "tools": [{ "type": "mcp", "server_url": or("https://files.example.com/mcp") }, { "type": "mcp", "server_url": "https://calendar.example.org/mcp" },
                      { "type": "function", "function": { "name": or("send_report") } }],
        }))),
        elements: view.elements(),
        is_prompt: true,
        samples: Samples::new(&or("https://tools.example.com/run_5d1f0c9a7b3e4826"), &or("demo/demo"), &or("Do that, and answer in one sentence."), &[], false),
        mcp: mcp_settings(&or("https://tools.example.com/run_5d1f0c9a7b3e4826"), &or("How did the third quarter go?"), false),
        is_live,
        is_waiting: status == "requires_action",
        is_owner,
        can_resume: is_owner && status == "failed",
        visibility,
        used_logins: true,
        kept_until: is_live.then(|| or("in 23 hours")),
        preview: (!is_owner).then(|| Preview { description: or("The third quarter closed better than planned. Three things stand out.") }),
        again: Some(or("/?from=run_5d1f0c9a7b3e4826")),
        notice: None,
        stale: None,
    }
    .render()
    .expect("it renders")
}

fn start(text: Option<&str>, frame: &Frame, local: bool) -> String {
    let or = |ordinary: &str| text.unwrap_or(ordinary).to_owned();
    let (message, server) =
        (or("What time is it in Lisbon and in Osaka?"), or("http://127.0.0.1:8787/demo/mcp"));
    let base = or(if local { "http://127.0.0.1:8787/v1" } else { "https://tools.example.com/v1" });
    StartPage {
        frame: frame.clone(),
        models: if local {
            vec![or("demo"), or("openai/gpt-5"), or("anthropic/claude-sonnet-4-5")]
        } else {
            Vec::new()
        },
        model: or("demo"),
        other_model: or(""),
        samples: Samples::stored(&base, &or("demo"), &message, std::slice::from_ref(&server), local),
        message,
        servers: server,
        base,
        local,
        can_start: local,
        can_sign_in: text.is_none(),
        from: text.map(str::to_owned),
        problem: (!local)
            .then(|| or("https://mcp.example.com could not be reached: no such host. Check the address.")),
    }
    .render()
    .expect("it renders")
}

fn list(text: Option<&str>, frame: &Frame, count: usize) -> String {
    let or = |ordinary: &str| text.unwrap_or(ordinary).to_owned();
    let row = |number: usize| {
        let (title, status, visibility) = [
            ("How did the third quarter go, compared with the plan?", "in_progress", "private"),
            (
                "Book the cheapest train to Vienna on Friday, and tell Anna and Bo when I arrive there",
                "requires_action",
                "private",
            ),
            ("What time is it in Lisbon and in Osaka?", "completed", "public"),
            (
                "Summarise https://example.org/a-very-long-address/that-does-not-break/anywhere/at-all-it-seems",
                "failed",
                "unlisted",
            ),
        ][number % 4];
        let (tone, status) = words::status(status);
        Row {
            id: or("run_5d1f"),
            title: or(title),
            tone,
            status,
            model: or("demo/demo"),
            created: or("2 hours ago"),
            visibility,
        }
    };
    ListPage {
        frame: frame.clone(),
        rows: (0..count).map(row).collect(),
        search: or(if count == 0 { "" } else { "a" }),
        status: or(""),
        is_filtered: false,
        older: (count > 0).then(|| or("after=run_4")),
        newest: (count > 0).then(|| or("q=a")),
        notice: (count > 0).then_some("Deleted."),
    }
    .render()
    .expect("it renders")
}

/// Every page of runs by name, with `text` everywhere that a text from outside can stand.
pub(in crate::web) fn pages(text: Option<&str>, frame: &Frame) -> Vec<(&'static str, String)> {
    let mut done = everything(text);
    done.push(RunEvent::Finish { reason: FinishReason::ToolCalls });
    let mut elsewhere = waiting(text);
    elsewhere.push(RunEvent::Finish { reason: FinishReason::AuthorizationRequired });
    vec![
        ("run", run(text, frame, &done, ("completed", true, false))),
        ("run-live", run(text, frame, &at_work(text), ("in_progress", true, true))),
        ("run-begins", run(text, frame, &[], ("queued", true, true))),
        ("run-waiting", run(text, frame, &waiting(text), ("requires_action", true, true))),
        ("run-public", run(text, frame, &elsewhere, ("incomplete", false, false))),
        ("run-failed", run(text, frame, &failed(text), ("failed", true, false))),
        ("start", start(text, frame, true)),
        ("start-elsewhere", start(text, frame, false)),
        ("runs", list(text, frame, 4)),
        ("runs-none", list(None, frame, 0)),
    ]
}
