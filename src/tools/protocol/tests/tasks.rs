//! Servers that turn a call into a task (extension `io.modelcontextprotocol/tasks`).

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use serde_json::{Map, Value, json};
use url::Url;

use super::fake::{Fake, Reply, Seen, Then, call, call_with, client, modern_list};
use crate::tools::{Error, Follower, Opening, Progress, Server, TaskRef, Tools};

const ID: &str = "786512e2-9e0d-44bd-8f29-789f320fe840";

/// A task with `more` about it, to be asked about as often as may be.
fn task(more: Value) -> Value {
    let mut task = json!({
        "resultType": "complete", "taskId": ID, "status": "working", "ttlMs": null, "pollIntervalMs": 1,
        "createdAt": "2026-11-21T10:00:00Z", "lastUpdatedAt": "2026-11-21T10:00:00Z",
    });
    task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    task
}

fn completed() -> Value {
    task(json!({ "status": "completed", "result": { "content": [{ "type": "text", "text": "done" }] } }))
}

fn wants(requests: Value) -> Value {
    task(json!({ "status": "input_required", "inputRequests": requests }))
}

/// A server whose call is a task, which is asked about as `report` answers; it is told how often that was before.
async fn tasked(report: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Fake {
    let asked = AtomicUsize::new(0);
    Fake::start(move |seen| match seen.what().as_str() {
        "tools/list" => Reply::json(&seen.result(modern_list())),
        "tools/call" => Reply::json(&seen.result(task(json!({ "resultType": "task" })))),
        "tasks/get" => report(seen, asked.fetch_add(1, Ordering::SeqCst)),
        _ => Reply::json(&seen.result(json!({ "resultType": "complete" }))),
    })
    .await
}

/// A server whose task is as `states` say, one after the other; the last one stays.
async fn going_through(states: Vec<Value>) -> Fake {
    tasked(move |seen, asked| Reply::json(&seen.result(states[asked.min(states.len() - 1)].clone()))).await
}

/// Calls the tool with `follow`.
async fn call_following(tools: &Tools, server: &Server, follow: &dyn Follower) -> Result<String, Error> {
    let list = tools.list(server).await.unwrap();
    call_with(tools, server, &list, "t", &Map::new(), follow).await
}

/// Calls the tool; nobody looks on.
async fn call_at(fake: &Fake) -> Result<String, Error> {
    call_following(&client(|_| {}), &fake.server(), &|_: Progress| {}).await
}

/// Notes what it is told, shows pages as `opening` says, and keeps the task when `keeps`.
struct Notes {
    said: Mutex<Vec<String>>,
    pages: Mutex<Vec<String>>,
    task: Mutex<Option<TaskRef>>,
    opening: Opening,
    keeps: bool,
    server: Mutex<Option<Server>>,
}

fn notes(opening: Opening) -> Notes {
    let (said, pages, task, server) = Default::default();
    Notes { said, pages, task, opening, keeps: false, server }
}

impl Follower for Notes {
    fn progress(&self, progress: Progress) {
        self.said.lock().unwrap().extend(progress.message);
    }

    fn page<'a>(&'a self, page: &'a Url) -> BoxFuture<'a, Opening> {
        self.pages.lock().unwrap().push(page.to_string());
        ready(self.opening).boxed()
    }

    fn task<'a>(&'a self, task: &'a TaskRef) -> BoxFuture<'a, ()> {
        async {
            // What is awaited here, a journal, takes its time.
            tokio::task::yield_now().await;
            *self.task.lock().unwrap() = Some(task.clone());
        }
        .boxed()
    }

    fn keeps_task(&self) -> bool {
        self.keeps
    }

    fn server(&self) -> BoxFuture<'_, Option<Server>> {
        ready(self.server.lock().unwrap().clone()).boxed()
    }
}

#[tokio::test]
async fn a_task_is_asked_about_until_it_is_over_and_its_result_is_the_calls() {
    let states = vec![
        task(json!({ "statusMessage": "a third" })),
        task(json!({ "statusMessage": "a third" })),
        task(json!({ "statusMessage": "two thirds" })),
        completed(),
    ];
    let fake = going_through(states).await;
    let notes = notes(Opening::Refused);
    let result = call_following(&client(|_| {}), &fake.server_for("Bearer x", "a"), &notes).await.unwrap();
    assert_eq!(serde_json::from_str::<Value>(&result).unwrap(), completed()["result"]);
    assert_eq!(
        fake.asked(),
        ["tools/list", "tools/call", "tasks/get", "tasks/get", "tasks/get", "tasks/get"]
    );
    assert_eq!(*notes.said.lock().unwrap(), ["a third", "two thirds"]);
    for seen in &fake.seen()[1..] {
        let capabilities = &seen.body["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"];
        assert_eq!(capabilities["extensions"], json!({ "io.modelcontextprotocol/tasks": {} }));
        assert_eq!(seen.header("authorization"), "Bearer x");
    }
    let poll = &fake.seen()[2];
    assert_eq!((&poll.body["params"]["taskId"], poll.header("mcp-name")), (&json!(ID), ID));
}

#[tokio::test]
async fn every_other_end_of_a_task_is_told_as_what_it_is() {
    let error = json!({ "code": -32603, "message": format!("{ID}: out of paper") });
    let fake = going_through(vec![task(json!({ "status": "failed", "error": error }))]).await;
    let failed = call_at(&fake).await;
    assert!(
        matches!(&failed, Err(Error::Rpc { code: -32603, message }) if message == "…: out of paper"),
        "{failed:?}"
    );

    let fake = going_through(vec![task(json!({ "status": "cancelled", "statusMessage": "by Ann" }))]).await;
    let cancelled = call_at(&fake).await;
    assert!(
        matches!(&cancelled, Err(Error::TaskCancelled { message: Some(message) }) if message == "by Ann"),
        "{cancelled:?}"
    );

    for forgotten in [(200, -32602), (400, -32602), (404, -32602), (404, -32601), (500, -32602)] {
        let (status, code) = forgotten;
        let fake = tasked(move |seen, _| Reply::json(&seen.error(code, ID)).status(status)).await;
        let lost = call_at(&fake).await;
        assert!(matches!(&lost, Err(Error::TaskLost { reason }) if !reason.contains(ID)), "{lost:?}");
        assert_eq!(fake.asked(), ["tools/list", "tools/call", "tasks/get"], "asked once, and not cancelled");
    }
    let fake = tasked(|_, _| Reply::empty(404)).await;
    assert!(matches!(call_at(&fake).await, Err(Error::TaskLost { .. })));
}

#[tokio::test]
async fn what_passes_is_waited_out_and_the_tool_is_not_called_again() {
    let fake = tasked(|seen, asked| match asked {
        0 => Reply::empty(503),
        1 => Reply::events("", Then::Cut),
        2 => Reply::json(&seen.error(-32603, "busy")),
        _ => Reply::json(&seen.result(completed())),
    })
    .await;
    call_at(&fake).await.unwrap();
    assert_eq!(
        fake.asked(),
        ["tools/list", "tools/call", "tasks/get", "tasks/get", "tasks/get", "tasks/get"]
    );
}

#[tokio::test]
async fn a_task_has_its_own_time_and_is_cancelled_after_it() {
    let working = |seen: &Seen, _| Reply::json(&seen.result(task(json!({}))));
    let silent = |_: &Seen, _| Reply::empty(503);
    for (fake, is_late) in [(tasked(working).await, true), (tasked(silent).await, false)] {
        let tools = client(|settings| settings.task_seconds = 1);
        let called = call_following(&tools, &fake.server(), &|_: Progress| {}).await;
        match &called {
            Err(Error::Timeout { after }) => assert!(is_late && *after == Duration::from_secs(1)),
            Err(Error::TaskLost { reason }) => assert!(!is_late && reason.contains("503"), "{reason}"),
            other => panic!("{other:?}"),
        }
        let cancel = fake.wait_for("tasks/cancel").await;
        assert_eq!((&cancel.body["params"]["taskId"], cancel.header("mcp-name")), (&json!(ID), ID));
    }
}

#[tokio::test]
async fn a_task_nobody_waits_for_is_cancelled_unless_somebody_else_goes_on_with_it() {
    for keeps in [false, true] {
        let done = std::sync::Arc::new(AtomicBool::new(false));
        let is_done = std::sync::Arc::clone(&done);
        let fake = tasked(move |seen, _| {
            let now = if is_done.load(Ordering::SeqCst) { completed() } else { task(json!({})) };
            Reply::json(&seen.result(now))
        })
        .await;
        let (tools, server) = (client(|_| {}), fake.server());
        let notes = Notes { keeps, ..notes(Opening::Refused) };
        tokio::select! {
            ended = call_following(&tools, &server, &notes) => panic!("{ended:?}"),
            _ = fake.wait_for("tasks/get") => {}
        }
        let kept = serde_json::to_string(notes.task.lock().unwrap().as_ref().unwrap()).unwrap();
        let kept: TaskRef = serde_json::from_str(&kept).unwrap();
        if !keeps {
            fake.wait_for("tasks/cancel").await;
            continue;
        }
        // Another process goes on with it.
        done.store(true, Ordering::SeqCst);
        let (tools, list) = (client(|_| {}), tools.list(&server).await.unwrap());
        let result = tools.resume_task(&server, &list.tools[0], &kept, &|_: Progress| {}).await.unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&result).unwrap(), completed()["result"]);
        let asked = fake.asked();
        assert_eq!(asked.iter().filter(|what| *what == "tools/call").count(), 1, "{asked:?}");
        assert!(!asked.contains(&"tasks/cancel".to_owned()) && kept.is_over(), "{asked:?}");
        tools.cancel_task(&server, &kept).await;
        assert_eq!(fake.asked().last().unwrap(), "tasks/cancel");
    }
}

#[tokio::test]
async fn a_refused_credential_leaves_the_task_and_each_question_brings_the_credential_of_its_time() {
    let fake = tasked(|seen, asked| match (asked, seen.header("authorization")) {
        (0, "Bearer old") | (1.., "Bearer new") => {
            Reply::json(&seen.result(if asked < 3 { task(json!({})) } else { completed() }))
        }
        _ => Reply::empty(401).with("www-authenticate", "Bearer error=\"invalid_token\""),
    })
    .await;
    let (tools, notes) = (client(|_| {}), notes(Opening::Refused));
    let list = tools.list(&fake.server()).await.unwrap();
    let refused = call_following(&tools, &fake.server_for("Bearer old", "a"), &notes).await;
    assert!(matches!(refused, Err(Error::Unauthorized(_))), "{refused:?}");
    let task = notes.task.lock().unwrap().clone().unwrap();
    assert!((task.answered(), task.is_over()) == (1, false));

    *notes.server.lock().unwrap() = Some(fake.server_for("Bearer new", "a"));
    // The first question goes out with what is given, the next with what is right by then.
    let resumed = tools.resume_task(&fake.server_for("Bearer new", "a"), &list.tools[0], &task, &notes).await;
    resumed.unwrap();
    let asked = fake.asked();
    assert_eq!(asked.iter().filter(|what| *what == "tools/call").count(), 1, "{asked:?}");
    assert!(!asked.contains(&"tasks/cancel".to_owned()), "{asked:?}");
    let brought: Vec<_> = fake.seen().iter().map(|seen| seen.header("authorization").to_owned()).collect();
    assert_eq!(brought[3..], ["Bearer old", "Bearer old", "Bearer new", "Bearer new"]);
}

#[tokio::test]
async fn what_a_task_asks_for_is_answered_once_and_the_task_goes_on() {
    let page = json!({ "method": "elicitation/create",
        "params": { "mode": "url", "url": "https://a.example/x", "message": "m" } });
    let form = json!({ "method": "elicitation/create", "params": { "message": "Sure?" } });
    let both = wants(json!({ "page": page, "form": form }));
    // It takes note late, and repeats what it asked for.
    let fake = going_through(vec![both.clone(), both, task(json!({})), completed()]).await;
    let notes = notes(Opening::Shown(Duration::from_secs(60)));
    call_following(&client(|_| {}), &fake.server(), &notes).await.unwrap();
    assert_eq!(*notes.pages.lock().unwrap(), ["https://a.example/x"]);
    let seen = fake.seen();
    let updates: Vec<_> = seen.iter().filter(|seen| seen.what() == "tasks/update").collect();
    assert_eq!(updates.len(), 1);
    let params = &updates[0].body["params"];
    assert_eq!(params["taskId"], ID);
    assert_eq!(
        params["inputResponses"],
        json!({ "page": { "action": "accept" }, "form": { "action": "cancel" } })
    );
    assert_eq!(updates[0].header("mcp-name"), ID);
}

#[tokio::test]
async fn an_answer_that_does_not_arrive_is_sent_again_and_nobody_asked_again() {
    let updates = AtomicUsize::new(0);
    let page = json!({ "k": { "method": "elicitation/create",
        "params": { "mode": "url", "url": "https://a.example/x", "message": "m" } } });
    let fake = Fake::start(move |seen| match seen.what().as_str() {
        "tools/list" => Reply::json(&seen.result(modern_list())),
        "tools/call" => Reply::json(&seen.result(task(json!({ "resultType": "task" })))),
        "tasks/update" if updates.fetch_add(1, Ordering::SeqCst) == 0 => Reply::empty(502),
        "tasks/get" if updates.load(Ordering::SeqCst) < 2 => Reply::json(&seen.result(wants(page.clone()))),
        "tasks/get" => Reply::json(&seen.result(completed())),
        _ => Reply::json(&seen.result(json!({ "resultType": "complete" }))),
    })
    .await;
    let notes = notes(Opening::Shown(Duration::from_secs(60)));
    call_following(&client(|_| {}), &fake.server(), &notes).await.unwrap();
    assert_eq!(notes.pages.lock().unwrap().len(), 1);
    let seen = fake.seen();
    let said = seen.iter().filter(|seen| seen.what() == "tasks/update");
    let said: Vec<_> = said.map(|seen| seen.body["params"]["inputResponses"].clone()).collect();
    assert_eq!(said, [json!({ "k": { "action": "accept" } }), json!({ "k": { "action": "accept" } })]);
}

#[tokio::test]
async fn what_cannot_be_given_ends_the_call_and_cancels_the_task() {
    let page = |url: &str| json!({ "k": { "method": "elicitation/create", "params": { "mode": "url", "url": url, "message": "m" } } });
    let sampling = json!({ "k": { "method": "sampling/createMessage", "params": {} } });
    for (requests, opening, told) in [
        (sampling, Opening::Refused, None),
        (page("https://a.example/x"), Opening::Refused, Some("decline")),
        (page("javascript:alert(1)"), Opening::Shown(Duration::ZERO), Some("decline")),
        (page("https://a.example/x"), Opening::Afterwards, Some("accept")),
    ] {
        let fake = going_through(vec![wants(requests)]).await;
        let notes = notes(opening);
        let ended = call_following(&client(|_| {}), &fake.server(), &notes).await;
        match ended {
            Err(Error::PageRequired(required)) => {
                assert!(opening == Opening::Afterwards && required.resume.is_none());
            }
            Err(Error::InputRequired(_)) => assert!(opening != Opening::Afterwards),
            other => panic!("{other:?}"),
        }
        fake.wait_for("tasks/cancel").await;
        let seen = fake.seen();
        let update = seen.iter().find(|seen| seen.what() == "tasks/update");
        let action = update.map(|seen| seen.body["params"]["inputResponses"]["k"]["action"].clone());
        assert_eq!(action, told.map(|action| json!(action)));
    }
}

#[tokio::test]
async fn a_page_that_nobody_deals_with_is_waited_for_as_long_as_was_said() {
    let page = json!({ "method": "elicitation/create",
        "params": { "mode": "url", "url": "https://a.example/x", "message": "m" } });
    let fake = going_through(vec![wants(json!({ "k": page }))]).await;
    let notes = notes(Opening::Shown(Duration::from_millis(100)));
    let ended = call_following(&client(|_| {}), &fake.server(), &notes).await;
    assert!(matches!(ended, Err(Error::Timeout { .. })), "{ended:?}");
    fake.wait_for("tasks/cancel").await;
}

#[tokio::test]
async fn what_tells_of_another_task_or_promises_again_is_no_result() {
    let promise = json!({ "resultType": "task", "taskId": ID, "status": "working" });
    for report in [
        task(
            json!({ "status": "completed", "taskId": "another-task-of-somebody", "result": { "content": [] } }),
        ),
        task(json!({ "status": "completed", "result": promise })),
        task(json!({ "status": "done" })),
    ] {
        let fake = going_through(vec![report]).await;
        let ended = call_at(&fake).await;
        assert!(matches!(ended, Err(Error::TaskLost { .. })), "{ended:?}");
    }
}

#[tokio::test]
async fn a_name_that_is_none_is_refused_and_never_sent_back() {
    for name in [json!("a\r\nx: y"), json!("x".repeat(1025)), json!(""), json!(7), Value::Null] {
        let made = task(json!({ "resultType": "task", "taskId": name }));
        let fake = Fake::start(move |seen| match seen.what().as_str() {
            "tools/list" => Reply::json(&seen.result(modern_list())),
            _ => Reply::json(&seen.result(made.clone())),
        })
        .await;
        let ended = call_at(&fake).await;
        assert!(matches!(ended, Err(Error::Protocol(_))), "{ended:?}");
        assert_eq!(fake.asked(), ["tools/list", "tools/call"]);
    }
}

#[tokio::test]
async fn servers_of_the_older_revisions_are_not_told_of_tasks_and_make_none() {
    let fake = Fake::start(|seen| match (seen.verb.as_str(), seen.what().as_str()) {
        (_, "initialize") => {
            Reply::json(&seen.result(json!({ "protocolVersion": "2025-11-25" }))).with("mcp-session-id", "s")
        }
        (_, _) if seen.header("mcp-session-id").is_empty() => Reply::empty(400),
        (_, "tools/list") => Reply::json(
            &seen.result(json!({ "tools": [{ "name": "t", "inputSchema": { "type": "object" } }] })),
        ),
        (_, "tools/call") => Reply::json(&seen.result(task(json!({ "resultType": "task" })))),
        _ => Reply::empty(202),
    })
    .await;
    let (tools, server) = (client(|_| {}), fake.server());
    let list = tools.list(&server).await.unwrap();
    let ended = call(&tools, &server, &list, "t").await;
    assert!(matches!(ended, Err(Error::Protocol(_))), "{ended:?}");
    let seen = fake.seen();
    let initialize = seen.iter().find(|seen| seen.what() == "initialize").unwrap();
    assert!(!initialize.body.to_string().contains("tasks"));
    assert!(!fake.asked().iter().any(|what| what.starts_with("tasks/")), "{:?}", fake.asked());
}
