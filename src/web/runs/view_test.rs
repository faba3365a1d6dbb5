//! What stands on the page after which events.

use serde_json::json;

use super::*;
use crate::completion::event::{AuthorizationBatch, LinkKind, RunError, ToolCall};
use crate::tools::ToolResult;

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn says(text: &str) -> RunEvent {
    RunEvent::Delta { delta: object(json!({ "content": text })), logprobs: None }
}

fn turn(turn: u32) -> RunEvent {
    RunEvent::TurnStarted { turn, head: object(json!({ "model": "m" })) }
}

fn calls(id: &str, tool: &str) -> RunEvent {
    let [call_id, tool, host] = [id, tool, "s.example"].map(str::to_owned);
    let (function, server_label, arguments) = (tool.clone(), host.clone(), json!({ "a": 1 }));
    RunEvent::ToolCall(ToolCall { call_id, tool, function, server_label, host, arguments })
}

fn returns(id: &str, text: &str) -> RunEvent {
    let result = ToolResult { is_error: false, ..ToolResult::failure(text) };
    let [call_id, tool, host] = [id, "t", "s.example"].map(str::to_owned);
    RunEvent::ToolResult(ToolResultEvent {
        call_id,
        tool,
        host,
        result,
        milliseconds: 1200,
        outcome: crate::completion::event::CallOutcome::Ok,
    })
}

fn wants(host: &str, link: &str) -> RunEvent {
    RunEvent::AuthorizationRequired(Arc::new(AuthorizationRequired {
        resource: format!("https://{host}/mcp"),
        server_label: host.to_owned(),
        host: host.to_owned(),
        connect_url: Some(link.to_owned()),
        scopes: vec!["read".to_owned()],
        reason: "Log in.".to_owned(),
        expires_at: None,
        kind: LinkKind::Connection,
    }))
}

fn view(links: Links, events: &[RunEvent]) -> View {
    let mut view = View::new(links);
    events.iter().for_each(|event| view.push(event));
    view
}

fn html(events: &[RunEvent]) -> String {
    view(Links::Shown, events).elements().concat()
}

#[test]
fn prose_grows_within_a_turn_and_what_is_finished_stays_the_same_element() {
    let mut view = view(Links::Shown, &[turn(1), says("# A\n\none"), says(" more")]);
    let before = view.elements();
    assert_eq!(before.concat(), "<h3>A</h3>\n<p>one more</p>\n");
    view.push(&turn(2));
    view.push(&says("two"));
    view.push(&RunEvent::Usage(object(json!({ "prompt_tokens": 5, "completion_tokens": 7 }))));
    let after = view.elements();
    assert_eq!(after.concat(), "<h3>A</h3>\n<p>one more</p>\n<p>two</p>\n");
    assert!(before.iter().zip(&after).all(|(one, two)| one == two));
    assert_eq!((view.turns, view.tokens_in, view.tokens_out, view.model.as_deref()), (2, 5, 7, Some("m")));
}

#[test]
fn a_result_lands_in_the_block_of_its_call() {
    let mut view = view(Links::Shown, &[turn(1), calls("1", "first"), calls("2", "second")]);
    view.push(&RunEvent::ToolProgress {
        call_id: "1".into(),
        progress: 1.0,
        total: Some(4.0),
        message: Some("a <b>".into()),
    });
    view.push(&returns("2", "{\"found\":[]}"));
    let elements = view.elements();
    assert_eq!((elements.len(), view.tool_calls), (2, 2));
    assert!(elements[0].contains("first") && elements[0].contains("running") && elements[0].contains("25 %"));
    assert!(elements[0].contains("a &#60;b&#62;"), "{}", elements[0]);
    assert!(elements[1].contains("second") && elements[1].contains("1.2 s"), "{}", elements[1]);
    assert!(elements[1].contains("&#34;found&#34;: []"), "{}", elements[1]);
    // An end leaves nothing running.
    view.push(&RunEvent::Finish { reason: FinishReason::Time });
    assert!(view.elements()[0].contains("not finished") && !view.elements().concat().contains("running"));
    assert!(view.has_ended && view.elements().concat().contains("the time that a run may take is over"));
}

#[test]
fn a_missing_login_cannot_be_missed_and_shows_when_it_is_done() {
    let resource = |host: &str| format!("https://{host}/mcp");
    let mut events = vec![
        wants("a.example", "https://t.example/connect/1"),
        wants("b.example", "https://t.example/connect/2"),
        RunEvent::AuthorizationBatch(AuthorizationBatch {
            connect_all_url: Some("https://t.example/connect/all".into()),
            resources: vec![resource("a.example"), resource("b.example")],
        }),
        RunEvent::Waiting { seconds: 60, resources: Vec::new() },
    ];
    let shown = html(&events);
    assert_eq!(shown.matches("<section").count(), 1, "one list: {shown}");
    assert!(shown.contains("alert bad") && shown.contains("Waiting for you to log in"));
    let all = shown.find("/connect/all").unwrap();
    assert!(all < shown.find("/connect/1").unwrap(), "the link for all of them comes first");
    events.push(RunEvent::Authorized { resource: resource("a.example"), host: "a.example".into() });
    let shown = html(&events);
    assert!(!shown.contains("/connect/1") && shown.contains("/connect/2") && !shown.contains("/connect/all"));
    events.push(RunEvent::Authorized { resource: resource("b.example"), host: "b.example".into() });
    let shown = html(&events);
    assert!(shown.contains("note good") && shown.contains("Logged in") && !shown.contains("/connect/"));
}

#[test]
fn readers_of_what_was_published_get_no_login_links() {
    let batch = AuthorizationBatch {
        connect_all_url: Some("https://t.example/connect/all".into()),
        resources: Vec::new(),
    };
    let events = [
        wants("a.example", "https://t.example/connect/1"),
        wants("b.example", "https://t.example/connect/2"),
        RunEvent::AuthorizationBatch(batch),
    ];
    let shown = view(Links::Hidden, &events).elements().concat();
    assert!(
        !shown.contains("/connect/") && shown.contains("Only the person who started this can log in"),
        "{shown}"
    );
}

#[test]
fn a_login_link_that_is_no_web_address_is_no_link() {
    for link in ["javascript:alert(1)", "data:text/html,x", "/connect/1", "mailto:a@b.example", "https://"] {
        let shown = html(&[wants("a.example", link)]);
        assert!(!shown.contains("href") && shown.contains("a.example"), "{link}: {shown}");
    }
}

#[test]
fn an_end_is_said_once() {
    let notice = crate::completion::event::Notice {
        code: "cancelled".into(),
        message: "The run was cancelled.".into(),
    };
    let end = RunEvent::Finish { reason: FinishReason::Cancelled };
    assert_eq!(html(&[says("a"), RunEvent::Notice(notice), end.clone()]).matches("note").count(), 1);
    assert!(html(&[says("a"), end]).contains("Stopped, as somebody asked"));
    assert_eq!(
        html(&[says("a"), RunEvent::Finish { reason: FinishReason::Model("stop".into()) }]),
        "<p>a</p>\n"
    );
}

#[test]
fn an_error_says_what_to_do() {
    let error = json!({ "message": "api.example.com answered 429.", "code": "rate_limit_exceeded" });
    let error = RunError { status: 429, error, retry_after: None, login: None };
    let shown = html(&[says("a"), RunEvent::Error(error)]);
    assert!(
        shown.contains("role=\"alert\"") && shown.contains("answered 429") && shown.contains("run it again")
    );
    let nothing = RunError { status: 0, error: json!(null), retry_after: None, login: None };
    assert!(html(&[RunEvent::Error(nothing)]).contains("failed without a reason"));
}

#[test]
fn a_page_has_an_end() {
    let mut view = View::new(Links::Shown);
    for number in 0..3 * MAX_BLOCKS {
        view.push(&calls(&number.to_string(), "t"));
        view.push(&returns(&number.to_string(), "ok"));
    }
    let elements = view.elements();
    assert_eq!(elements.len(), MAX_BLOCKS + 1);
    assert!(elements[MAX_BLOCKS].contains("The JSON has everything"));
    let long = html(&[calls("1", "t"), returns("1", &"x".repeat(1 << 20))]);
    assert!(long.len() < 100_000 && long.contains("bytes not shown]"), "{}", long.len());
}
