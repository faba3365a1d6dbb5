//! Processes that are killed, stand still or stop at every point of a run: it ends right, no tool that changes something
//! is called twice, and everybody who watches reaches the same end.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::scene::{Scene, all_the_same, calling, content, has_results, json_of, result, stored};
use super::watcher::{self, Watcher, named, text_of};
use crate::support::provider::{delta, event, finish, usage};
use crate::support::{
    FakeMcp, FakeProvider, FakeTool, Gate, PATIENCE, Person, Piece, Protected, Reply, Stream, ask, calls,
    calls_stream, on_postgres, rpc_result, text, text_result, text_stream, with,
};

const READ_ONLY: &str = "annotations";

fn read_only(tool: FakeTool) -> FakeTool {
    tool.with(READ_ONLY, json!({ "readOnlyHint": true }))
}

/// A stream that says `before`, and the rest when the gate opens.
fn torn(before: &str, gate: &Gate) -> Reply {
    Reply::stream(vec![
        event(&delta(&json!({ "role": "assistant", "content": "" }))),
        event(&delta(&json!({ "content": before }))),
        Piece::Wait(gate.clone()),
        event(&finish("stop")),
        event(&usage()),
        "data: [DONE]\n\n".into(),
    ])
}

#[tokio::test]
async fn a_run_killed_in_the_middle_of_a_word_begins_the_turn_anew_and_keeps_what_was_shown() {
    let (gate, asked) = (Gate::new(), AtomicUsize::new(0));
    let provider = FakeProvider::answering(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => torn("one tw", &gate),
        _ => text_stream("one two three"),
    })
    .await;
    let mut scene = Scene::new(provider).await;
    let id = scene.start(&ask(&[])).await;
    let mut watcher = scene.watch(&id).await;
    let before = watcher.until_that(|seen| seen.data["delta"]["content"] == "one tw").await;
    let far = match scene.place.is_shared() {
        true => Watcher::open(&scene.other().await, &id, None).await,
        false => None,
    };
    let client = scene.crash().await;
    assert!(watcher.next().await.is_none(), "the stream breaks off");
    let seen = all_the_same(&client, &id, &before).await;
    if let Some(far) = far {
        assert_eq!(far.rest().await, seen, "who watched elsewhere notices nothing");
    }
    assert_eq!(text_of(&seen), "one twone two three");
    assert_eq!(named(&seen, "resumed").len(), 1);
    let whole = json_of(&client, &id).await;
    assert_eq!((&whole["status"], &whole["usage"]["total_tokens"]), (&json!("completed"), &json!(15)));
    assert!(content(&whole).starts_with("one tw") && content(&whole).contains("restarted"));
    assert!(content(&whole).ends_with("one two three"), "{}", content(&whole));
    assert_eq!(scene.provider.peer.requests().len(), 2);
    assert_eq!(scene.number("SELECT takeovers AS number FROM runs").await, 1);
}

#[tokio::test]
async fn a_call_that_was_sent_is_not_sent_again_unless_it_only_reads() {
    let (gate, late) = (Gate::new(), Gate::new());
    let tools = vec![
        FakeTool::text("write", "never heard").behind(&gate),
        read_only(FakeTool::text("read", "what is there")).behind(&late),
        FakeTool::text("again", "as before").with(READ_ONLY, json!({ "idempotentHint": true })).behind(&late),
    ];
    let mcp = FakeMcp::start(tools).await;
    let asked = || {
        calls_stream(&[("a", "s_write", json!({})), ("b", "s_read", json!({})), ("c", "s_again", json!({}))])
    };
    let provider = calling(asked, || text_stream("done")).await;
    let mut scene = Scene::new(provider).await;
    let id = scene.start(&ask(&[mcp.entry("s")])).await;
    let mut watcher = scene.watch(&id).await;
    let mut before = Vec::new();
    for _ in 0..3 {
        before.extend(watcher.until("tool_call").await);
    }
    mcp.until_calls(3).await;
    let client = scene.crash().await;
    late.open();
    let seen = all_the_same(&client, &id, &before).await;
    let made = |tool: &str| {
        let requests = mcp.peer.requests();
        requests.iter().filter(|request| request.json()["params"]["name"] == *tool).count()
    };
    assert_eq!((made("write"), made("read"), made("again")), (1, 2, 2));
    let told = scene.provider.last_said("tool");
    assert!(told[0].as_str().unwrap().contains("is unknown"), "{told:?}");
    assert_eq!(told[1..], ["what is there", "as before"]);
    assert_eq!((named(&seen, "tool_call").len(), named(&seen, "tool_result").len()), (3, 3));
    assert_eq!(scene.provider.peer.requests().len(), 2, "the model's turn was read to its end");
    let whole = json_of(&client, &id).await;
    assert_eq!((&whole["status"], &whole["tool_calls"]), (&json!("completed"), &json!(3)));
    assert_eq!(whole["usage"]["total_tokens"], 30, "both turns count");
}

#[tokio::test]
async fn the_ids_of_the_caller_s_calls_stay_what_was_shown_and_lead_to_the_hidden_turns() {
    let late = Gate::new();
    let mcp = FakeMcp::start(vec![read_only(FakeTool::text("read", "what is there")).behind(&late)]).await;
    let asked = || calls_stream(&[("call_1_0", "mine", json!({})), ("call_1_1", "s_read", json!({}))]);
    let provider = calling(asked, || text_stream("done")).await;
    let mut scene = Scene::new(provider).await;
    let mine = json!({ "type": "function", "function": { "name": "mine", "parameters": { "type": "object", "properties": {} } } });
    let body = ask(&[mcp.entry("s"), mine]);
    let id = scene.start(&body).await;
    let mut watcher = scene.watch(&id).await;
    let before = watcher.until("tool_call").await;
    mcp.until_calls(1).await;
    let client = scene.crash().await;
    late.open();
    let seen = all_the_same(&client, &id, &before).await;
    let shown = named(&seen, "caller_call")[0]["call"]["id"].clone();
    let message = json_of(&client, &id).await["completion"]["choices"][0]["message"].clone();
    assert_eq!(message["tool_calls"][0]["id"], shown);
    assert_ne!(shown, "call_1_0");
    let mut next = body;
    let list = next["messages"].as_array_mut().unwrap();
    list.extend([message, json!({ "role": "tool", "tool_call_id": shown, "content": "from the caller" })]);
    client.chat(&next).await;
    assert_eq!(scene.provider.last_said("tool"), ["what is there", "from the caller"]);
    let messages = scene.provider.last_body()["messages"].clone();
    assert_eq!(messages[3]["tool_call_id"], "call_1_0", "{messages}");
}

#[tokio::test]
async fn a_call_whose_result_is_in_is_not_made_again() {
    let mcp = FakeMcp::start(vec![FakeTool::text("t", "the result")]).await;
    let second = AtomicUsize::new(0);
    let provider = FakeProvider::answering(move |request| {
        match (has_results(request), second.fetch_add(1, Ordering::SeqCst)) {
            (false, _) => calls_stream(&[("a", "s_t", json!({}))]),
            (true, 1) => Reply::Silence,
            (true, _) => text_stream("done"),
        }
    })
    .await;
    let mut scene = Scene::new(provider).await;
    let id = scene.start(&ask(&[mcp.entry("s")])).await;
    let before = scene.watch(&id).await.until("tool_result").await;
    scene.provider.peer.until_requests(2).await;
    let client = scene.crash().await;
    let seen = all_the_same(&client, &id, &before).await;
    assert_eq!(mcp.count("tools/call"), 1);
    assert_eq!(scene.provider.last_said("tool"), ["the result"]);
    assert_eq!(scene.provider.peer.requests().len(), 3);
    assert_eq!(text_of(&seen), "done");
    assert_eq!(named(&seen, "resumed").len(), 0, "nothing of the second turn was shown");
    assert_eq!(json_of(&client, &id).await["usage"]["total_tokens"], 30);
}

/// A run that waits for a login, before it begins or in the middle of a call; its process is lost, or stops.
async fn waits_on(in_a_call: bool, gently: bool) {
    let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
    if in_a_call {
        mcp.list_openly();
    }
    let provider = calling(|| calls(&[("a", "s_t", json!({}))]), || text("done")).await;
    let mut scene = Scene::new(provider).await;
    let id = scene.start(&with(ask(&[mcp.entry("s")]), json!({ "user": "ann" }))).await;
    let before = scene.watch(&id).await.until("waiting").await;
    let stands = json_of(&scene.first.client, &id).await;
    assert_eq!(stands["status"], "requires_action");
    let link = stands["authorization_required"][0]["connect_url"].as_str().unwrap().to_owned();
    let client = if gently { scene.stop().await } else { scene.crash().await };
    let mut again = Watcher::open(&client, &id, Some(before.len() - 1)).await.unwrap();
    let mut seen = again.until("waiting").await;
    // The wait begins anew, and may outlast the first link; that one is still good.
    let page = Person::new().log_in(&link).await;
    assert_eq!(page.status, 200, "{}", page.text);
    seen.extend(again.rest().await);
    let all: Vec<_> = before.into_iter().chain(seen).collect();
    assert_eq!(watcher::all(&client, &id).await, all);
    let whole = json_of(&client, &id).await;
    assert!(content(&whole).ends_with("done"), "{whole}");
    assert_eq!((&whole["status"], &whole["authorization_required"]), (&json!("completed"), &Value::Null));
    assert_eq!((&whole["visibility"], &whole["used_logins"]), (&json!("unlisted"), &json!(true)));
    assert_eq!(scene.provider.last_said("tool"), ["x"]);
    let carried_out = mcp.callers().iter().filter(|caller| !caller.is_empty()).count();
    assert_eq!(carried_out, 1);
}

#[tokio::test]
async fn a_run_that_waits_for_a_login_waits_on_elsewhere_after_a_crash() {
    waits_on(false, false).await;
    waits_on(true, false).await;
}

#[tokio::test]
async fn a_run_that_waits_for_a_login_waits_on_elsewhere_when_its_process_stops() {
    waits_on(false, true).await;
    waits_on(true, true).await;
}

#[tokio::test]
async fn a_stored_stream_that_waits_is_told_where_its_run_goes_on() {
    let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
    let provider = calling(|| calls(&[("a", "s_t", json!({}))]), || text("done")).await;
    let mut scene = Scene::new(provider).await;
    let body = with(ask(&[mcp.entry("s")]), json!({ "user": "ann", "toolgate": { "on_auth": "wait" } }));
    let mut stream = scene.first.client.stream(&stored(body)).await;
    let id = stream.headers["x-run-id"].to_str().unwrap().to_owned();
    let shown = stream.until(|chunk| chunk["toolgate"]["event"] == "authorization_required").await;
    let link = shown["toolgate"]["connect_url"].as_str().unwrap().to_owned();
    stream.until(|chunk| chunk["toolgate"]["event"] == "waiting").await;
    scene.first.terminate();
    let stream = stream.read_to_end().await;
    let error = stream.error().expect("the stream says why it ends");
    assert_eq!(error["code"], "run_moved");
    assert!(error["url"].as_str().unwrap().ends_with(&id), "{error}");
    assert_eq!(scene.first.until_ended().await, Some(0));
    let client = scene.other().await;
    assert_eq!(Person::new().log_in(&link).await.status, 200);
    let whole = result(&client, &id).await;
    assert!(content(&whole).ends_with("done"), "{whole}");
}

#[tokio::test]
async fn a_process_that_stops_lets_a_call_end_that_nobody_may_repeat() {
    let gate = Gate::new();
    let mcp = FakeMcp::start(vec![FakeTool::text("write", "written").behind(&gate)]).await;
    let provider = calling(|| calls(&[("a", "s_write", json!({}))]), || text("done")).await;
    let mut scene = Scene::new(provider).await;
    let id = scene.start(&ask(&[mcp.entry("s")])).await;
    mcp.until_calls(1).await;
    scene.first.terminate();
    scene.first.until_closed().await;
    gate.open();
    assert_eq!(scene.first.until_ended().await, Some(0));
    let client = scene.other().await;
    assert!(content(&result(&client, &id).await).ends_with("done"));
    let log = scene.log();
    assert_eq!(scene.provider.last_said("tool"), ["written"], "its outcome is known: {log}");
    assert_eq!(mcp.count("tools/call"), 1);
}

#[tokio::test]
async fn a_run_killed_before_it_has_its_tools_begins_elsewhere() {
    let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
    mcp.list_openly();
    mcp.guard_only(&[]);
    mcp.hold_next("/mcp", &Gate::new());
    let provider = calling(|| calls(&[("a", "s_t", json!({}))]), || text("done")).await;
    let mut scene = Scene::new(provider).await;
    let id = scene.start(&ask(&[mcp.entry("s")])).await;
    mcp.peer.until_requests(1).await;
    assert_eq!(json_of(&scene.first.client, &id).await["status"], "queued");
    let client = scene.crash().await;
    assert!(content(&result(&client, &id).await).ends_with("done"));
    assert_eq!(scene.provider.peer.requests().len(), 2);
}

#[tokio::test]
async fn a_call_that_has_become_a_task_is_asked_about_and_not_made_again() {
    let state = Arc::new(Mutex::new(json!({ "status": "working", "statusMessage": "half" })));
    let told = Arc::clone(&state);
    let tool = FakeTool::raw("t", move |request| {
        let task = json!({
            "taskId": "786512e2-9e0d-44bd-8f29-789f320fe840", "ttlMs": 60_000, "pollIntervalMs": 200,
            "createdAt": "2026-11-21T10:00:00Z", "lastUpdatedAt": "2026-11-21T10:00:00Z",
        });
        match request.json()["method"].as_str() {
            Some("tools/call") => {
                rpc_result(request, &with(task, json!({ "resultType": "task", "status": "working" })))
            }
            Some("tasks/get") => {
                let now = with(told.lock().unwrap().clone(), json!({ "resultType": "complete" }));
                rpc_result(request, &with(task, now))
            }
            _ => rpc_result(request, &json!({ "resultType": "complete" })),
        }
    });
    let mcp = FakeMcp::start(vec![tool]).await;
    let provider = calling(|| calls(&[("a", "s_t", json!({}))]), || text("done")).await;
    let mut scene = Scene::new(provider).await;
    let id = scene.start(&ask(&[mcp.entry("s")])).await;
    let before = scene.watch(&id).await.until("tool_progress").await;
    let client = scene.crash().await;
    *state.lock().unwrap() = json!({ "status": "completed", "result": text_result("42 pages") });
    let seen = all_the_same(&client, &id, &before).await;
    assert_eq!((mcp.count("tools/call"), mcp.count("tasks/cancel")), (1, 0));
    assert_eq!(scene.provider.last_said("tool"), ["42 pages"]);
    assert_eq!(text_of(&seen), "done");
}

#[tokio::test]
async fn a_run_whose_credentials_came_with_the_request_fails_and_says_so() {
    let mcp = FakeMcp::start(vec![FakeTool::text("t", "x")]).await;
    let provider = FakeProvider::answering(|_| Reply::Silence).await;
    let mut scene = Scene::new(provider).await;
    let entry = with(mcp.entry("s"), json!({ "authorization": "Bearer canary-credential" }));
    let id = scene.start(&ask(&[entry])).await;
    scene.provider.peer.until_requests(1).await;
    let client = scene.crash().await;
    let whole = result(&client, &id).await;
    assert_eq!((&whole["status"], &whole["reason"]), (&json!("failed"), &json!("credentials_not_kept")));
    assert_eq!(whole["error"]["code"], "credentials_not_kept");
    assert!(!whole.to_string().contains("canary"), "{whole}");
    assert_eq!(scene.provider.peer.requests().len(), 1);
}

#[tokio::test]
async fn a_run_with_the_callers_own_key_for_the_provider_fails_elsewhere_and_never_goes_without_it() {
    let gate = Gate::new();
    let slow = gate.clone();
    let provider = FakeProvider::answering(move |_| torn("so far", &slow)).await;
    let mut scene = Scene::new(provider).await;
    let path = format!("/{}/v1/chat/completions", scene.provider.peer.host());
    let headers = [("authorization", "Bearer own-key"), ("content-type", "application/json")];
    let body = with(stored(ask(&[])), json!({ "stream": true }));
    let mut stream = Stream::new(scene.first.client.send("POST", &path, &headers, body.to_string()).await);
    let id = stream.headers["x-run-id"].to_str().unwrap().to_owned();
    stream.until(|chunk| chunk["choices"][0]["delta"]["content"] == "so far").await;
    let client = scene.crash().await;
    let whole = result(&client, &id).await;
    assert_eq!((&whole["status"], &whole["reason"]), (&json!("failed"), &json!("credentials_not_kept")));
    assert_eq!(scene.provider.peer.only_request().header("authorization"), Some("Bearer own-key"));
}

#[tokio::test]
async fn a_process_that_stood_still_writes_and_calls_nothing_any_more() {
    if !on_postgres() {
        return;
    }
    let mcp = FakeMcp::start(vec![FakeTool::text("write", "written")]).await;
    let (gate, asked) = (Gate::new(), AtomicUsize::new(0));
    let old = gate.clone();
    let provider = FakeProvider::answering(move |request| {
        match (has_results(request), asked.fetch_add(1, Ordering::SeqCst)) {
            // What the old process would go on with.
            (false, 0) => calls_stream(&[("old", "s_write", json!({ "by": "old" }))]).after(&old),
            (false, _) => calls_stream(&[("new", "s_write", json!({ "by": "new" }))]),
            (true, _) => text_stream("done"),
        }
    })
    .await;
    let mut scene = Scene::new(provider).await;
    let id = scene.start(&ask(&[mcp.entry("s")])).await;
    scene.provider.peer.until_requests(1).await;
    let client = scene.put_to_sleep().await;
    let seen = watcher::all(&client, &id).await;
    gate.open();
    scene.first.resume();
    // It has read the model's answer, and has found out: it is somebody new among the instances.
    let anew = "SELECT COUNT(*) AS number FROM instances";
    let waking = async {
        while scene.number(anew).await < 3 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waking).await.expect("it begins anew");
    let made: Vec<Value> = mcp
        .peer
        .requests()
        .iter()
        .map(|request| request.json()["params"]["arguments"]["by"].clone())
        .filter(|by| !by.is_null())
        .collect();
    assert_eq!(made, ["new"]);
    assert_eq!(watcher::all(&client, &id).await, seen);
    assert_eq!(watcher::all(&scene.first.client, &id).await, seen, "and it shows what the other wrote");
    assert_eq!(text_of(&seen), "done");
    // It carries out runs again.
    let next = scene.start(&ask(&[mcp.entry("s")])).await;
    assert_eq!(text_of(&watcher::all(&scene.first.client, &next).await), "done");
}

#[tokio::test]
async fn a_process_that_stops_hands_its_tasks_over_and_ends_the_streams_it_answers() {
    let (gate, asked) = (Gate::new(), AtomicUsize::new(0));
    let slow = gate.clone();
    let provider = FakeProvider::answering(move |request| {
        let is_stream = request.text().contains("a stream");
        match (is_stream, asked.fetch_add(1, Ordering::SeqCst)) {
            (true, _) => torn("said to the end", &slow),
            (false, 0) => Reply::Silence,
            (false, _) => text_stream("gone on"),
        }
    })
    .await;
    let mut scene = Scene::new(provider).await;
    let id = scene.start(&ask(&[])).await;
    scene.provider.peer.until_requests(1).await;
    let question = json!({ "messages": [{ "role": "user", "content": "a stream" }] });
    let mut stream = scene.first.client.stream(&stored(with(ask(&[]), question))).await;
    let kept = stream.headers["x-run-id"].to_str().unwrap().to_owned();
    stream.until(|chunk| chunk["choices"][0]["delta"]["content"] == "said to the end").await;
    scene.first.terminate();
    scene.first.until_closed().await;
    gate.open();
    let stream = stream.read_to_end().await;
    assert_eq!((stream.content().as_str(), stream.finish_reason()), ("said to the end", Some("stop")));
    assert_eq!(scene.first.until_ended().await, Some(0));
    let client = scene.other().await;
    assert_eq!(text_of(&watcher::all(&client, &id).await), "gone on");
    assert_eq!(content(&result(&client, &kept).await), "said to the end");
    assert_eq!(scene.provider.peer.requests().len(), 3, "the stream was not asked for again");
}

#[tokio::test]
async fn a_process_that_is_silent_is_missed_after_its_lease() {
    let asked = AtomicUsize::new(0);
    let provider = FakeProvider::answering(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::Silence,
        _ => text_stream("gone on"),
    })
    .await;
    let mut scene = Scene::with_lease(provider, 1).await;
    let id = scene.start(&ask(&[])).await;
    scene.provider.peer.until_requests(1).await;
    scene.first.kill();
    let client = scene.other().await;
    assert!(text_of(&watcher::all(&client, &id).await).ends_with("gone on"));
}
