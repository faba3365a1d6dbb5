use serde_json::json;

use super::*;
use crate::completion::event::{
    AuthorizationRequired, FinishReason, LinkKind, Notice, ToolCall, ToolResultEvent,
};
use crate::tools::{Part, ToolResult};

fn turn(turn: u32) -> RunEvent {
    RunEvent::TurnStarted { turn, head: serde_json::Map::new() }
}

fn delta(content: &str) -> RunEvent {
    let Value::Object(delta) = json!({ "content": content }) else { unreachable!() };
    RunEvent::Delta { delta, logprobs: None }
}

fn call(id: &str) -> RunEvent {
    RunEvent::ToolCall(ToolCall {
        call_id: id.to_owned(),
        tool: format!("tool_{id}"),
        function: format!("docs_tool_{id}"),
        server_label: "docs".to_owned(),
        host: "h".to_owned(),
        arguments: json!({}),
    })
}

fn result(id: &str) -> RunEvent {
    RunEvent::ToolResult(ToolResultEvent {
        call_id: id.to_owned(),
        tool: format!("tool_{id}"),
        host: "h".to_owned(),
        result: ToolResult { parts: vec![Part::Text(format!("result {id}"))], ..ToolResult::default() },
        milliseconds: 1,
        outcome: crate::completion::event::CallOutcome::Ok,
    })
}

fn login(host: &str) -> RunEvent {
    RunEvent::AuthorizationRequired(std::sync::Arc::new(AuthorizationRequired {
        resource: format!("https://{host}/mcp"),
        server_label: "x".to_owned(),
        host: host.to_owned(),
        connect_url: None,
        scopes: Vec::new(),
        reason: "Send a token.".to_owned(),
        expires_at: None,
        kind: LinkKind::Connection,
    }))
}

fn notice(message: &str) -> RunEvent {
    RunEvent::Notice(Notice { code: "x".to_owned(), message: message.to_owned() })
}

fn finish() -> RunEvent {
    RunEvent::Finish { reason: FinishReason::Model("stop".to_owned()) }
}

/// What a client sees in `content`, with blocks shortened to their marks.
fn content(output: Output, events: &[RunEvent]) -> String {
    let mut renderer = Renderer::new(output);
    let mut content = String::new();
    for event in events {
        content.push_str(&renderer.event(event).unwrap_or_default());
        if let RunEvent::Delta { delta, .. } = event {
            content.push_str(delta["content"].as_str().unwrap_or_default());
        }
    }
    content
}

fn call_block(id: &str) -> String {
    format!("<details><summary>🔧 tool_{id} (h)</summary>\n\n```json\n{{}}\n```\n\n</details>\n\n")
}

fn result_block(id: &str) -> String {
    format!("<details><summary>Result (±2 tokens)</summary>\n\n```text\nresult {id}\n```\n\n</details>\n\n")
}

#[test]
fn blocks_and_prose_are_apart_by_blank_lines() {
    let events = [
        turn(1),
        delta("Let me "),
        delta("look."),
        call("1"),
        result("1"),
        turn(2),
        delta("It is 4."),
        finish(),
    ];
    assert_eq!(
        content(Output::Markdown, &events),
        format!("Let me look.\n\n{}{}It is 4.", call_block("1"), result_block("1"))
    );
}

#[test]
fn an_open_fence_is_closed_before_a_block() {
    let events = [turn(1), delta("```sh\nls"), call("1"), result("1")];
    assert!(content(Output::Markdown, &events).starts_with("```sh\nls\n```\n\n<details>"));
}

#[test]
fn each_result_stands_below_its_call() {
    let events = [turn(1), call("a"), call("b"), call("c"), result("b"), result("a"), result("c"), finish()];
    let expect: String = ["a", "b", "c"].map(|id| call_block(id) + &result_block(id)).concat();
    assert_eq!(content(Output::Markdown, &events), expect);

    // The first call is shown at once.
    let mut renderer = Renderer::new(Output::Markdown);
    assert_eq!(renderer.event(&call("a")), Some(call_block("a")));
    assert_eq!(renderer.event(&call("b")), None);
    assert_eq!(renderer.event(&result("b")), None);
    assert_eq!(renderer.event(&result("a")), Some(result_block("a") + &call_block("b") + &result_block("b")));
}

#[test]
fn calls_without_result_are_shown_at_the_end() {
    let events = [turn(1), call("a"), call("b"), result("b"), finish()];
    assert_eq!(content(Output::Markdown, &events), call_block("a") + &call_block("b") + &result_block("b"));
    assert_eq!(content(Output::Markdown, &[result("z")]), result_block("z"));
}

#[test]
fn text_shows_prose_notices_and_logins_only() {
    let events = [
        turn(1),
        delta("One."),
        call("a"),
        result("a"),
        notice("gone"),
        login("x.example"),
        login("y.example"),
        turn(2),
        delta(""),
        delta("Two."),
        turn(3),
        delta("Three."),
        finish(),
    ];
    assert_eq!(
        content(Output::Text, &events),
        "One.\n\n> **Notice** gone\n\n**Authorization required**\n\n- **x.example**: Send a token.\n\n- **y.example**: \
         Send a token.\n\nTwo.\n\nThree."
    );
    assert_eq!(content(Output::Events, &events), "One.\n\nTwo.\n\nThree.");
}

#[test]
fn an_answer_without_prose_or_tools_is_left_alone() {
    let events = [turn(1), delta("Hello"), delta(" there"), RunEvent::Usage(Default::default()), finish()];
    for output in [Output::Markdown, Output::Text, Output::Events] {
        assert_eq!(content(output, &events), "Hello there");
    }
}
