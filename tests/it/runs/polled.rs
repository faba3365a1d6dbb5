//! Calls that their servers have made tasks of: whose run ends before it has asked about them again, and whose run is ended
//! elsewhere. The server is told, once.

use serde_json::json;

use super::scene::{Scene, calling, json_of, result};
use super::watcher::{self, named};
use crate::support::{
    Client, FakeMcp, FakeProvider, FakeTool, Gate, Peer, Person, Protected, Recorded, Reply, ask, calls,
    on_postgres, rpc_result, text, with,
};

const ID: &str = "786512e2-9e0d-44bd-8f29-789f320fe840";

/// A tool `t` whose call becomes a task that never ends.
fn endless() -> FakeTool {
    FakeTool::raw("t", |request| {
        let kind = match request.json()["method"].as_str() {
            Some("tools/call") => "task",
            _ => "complete",
        };
        let task = json!({
            "resultType": kind, "taskId": ID, "status": "working", "statusMessage": "half", "ttlMs": 60_000,
            "pollIntervalMs": 200, "createdAt": "2026-11-21T10:00:00Z", "lastUpdatedAt": "2026-11-21T10:00:00Z",
        });
        rpc_result(request, &task)
    })
}

async fn model() -> FakeProvider {
    calling(|| calls(&[("a", "s_t", json!({}))]), || text("done")).await
}

/// An endless task's server where nobody needs a login.
async fn open() -> Protected {
    let mcp = Protected::start(vec![endless()]).await;
    mcp.guard_only(&[]);
    mcp
}

fn asks(method: &'static str) -> impl Fn(&Recorded) -> bool {
    move |request| request.path.starts_with("/mcp") && request.json()["method"] == method
}

fn asked(peer: &Peer, method: &'static str) -> Vec<Recorded> {
    peer.requests().into_iter().filter(asks(method)).collect()
}

/// The request by which the server was told. The processes stop before it is looked for others.
async fn told_once(scene: Scene, peer: &Peer) -> Recorded {
    peer.until_requests_that(1, asks("tasks/cancel")).await;
    scene.end().await;
    let mut told = asked(peer, "tasks/cancel");
    assert_eq!((told.len(), asked(peer, "tools/call").len()), (1, 1));
    let told = told.remove(0);
    assert_eq!(told.json()["params"]["taskId"], ID);
    told
}

async fn cancel(client: &Client, id: &str) {
    let answer = client.post(&format!("/v1/runs/{id}/cancel"), &[], &json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Until the run has been taken over and asks its server for tools, which does not answer.
async fn until_asked_again(mcp: &Protected, before: usize) {
    mcp.peer.until_requests_that(before + 1, asks("tools/list")).await;
}

#[tokio::test]
async fn a_run_cancelled_before_it_asks_again_cancels_its_task() {
    let mcp = open().await;
    let mut scene = Scene::new(model().await).await;
    let id = scene.start(&ask(&[mcp.entry("s")])).await;
    scene.watch(&id).await.until("tool_progress").await;
    scene.first.kill();
    let (gate, before) = (Gate::new(), asked(&mcp.peer, "tools/list").len());
    mcp.hold("/mcp", &gate);
    let client = scene.crash().await;
    until_asked_again(&mcp, before).await;
    cancel(&client, &id).await;
    assert_eq!(json_of(&client, &id).await["status"], "cancelled", "nobody waits for the server");
    gate.open();
    let told = told_once(scene, &mcp.peer).await;
    assert_eq!(told.header("authorization"), None);
}

#[tokio::test]
async fn a_run_cancelled_while_nobody_carries_it_out_cancels_its_task_when_it_is_taken_over() {
    let mcp = open().await;
    let mut scene = Scene::new(model().await).await;
    let id = scene.start(&ask(&[mcp.entry("s")])).await;
    scene.watch(&id).await.until("tool_progress").await;
    scene.first.kill();
    let client = scene.other().await;
    cancel(&client, &id).await;
    scene.crash().await;
    assert_eq!(result(&client, &id).await["status"], "cancelled");
    told_once(scene, &mcp.peer).await;
}

#[tokio::test]
async fn a_task_begun_with_a_login_is_cancelled_with_it() {
    if !on_postgres() {
        return;
    }
    let mcp = Protected::start(vec![endless()]).await;
    let mut scene = Scene::new(model().await).await;
    // Links lead to the second.
    scene.other().await;
    let id = scene.start(&with(ask(&[mcp.entry("s")]), json!({ "user": "ann" }))).await;
    let mut watcher = scene.watch(&id).await;
    let seen = watcher.until("waiting").await;
    let link = named(&seen, "authorization_required")[0]["connect_url"].as_str().unwrap().to_owned();
    assert_eq!(Person::new().log_in(&link).await.status, 200);
    watcher.until("tool_progress").await;
    scene.first.kill();
    let (gate, before) = (Gate::new(), asked(&mcp.peer, "tools/list").len());
    mcp.hold("/mcp", &gate);
    let client = scene.crash().await;
    until_asked_again(&mcp, before).await;
    cancel(&client, &id).await;
    gate.open();
    let token = asked(&mcp.peer, "tools/call")[0].header("authorization").unwrap().to_owned();
    let told = told_once(scene, &mcp.peer).await;
    assert_eq!(told.header("authorization"), Some(token.as_str()));
}

#[tokio::test]
async fn a_run_that_fails_for_want_of_credentials_cancels_its_task_without_them() {
    let mcp = FakeMcp::start(vec![endless()]).await;
    let mut scene = Scene::new(model().await).await;
    let secrets = json!({ "authorization": "Bearer canary-a", "headers": { "X-Key": "canary-b" } });
    let id = scene.start(&ask(&[with(mcp.entry("s"), secrets)])).await;
    scene.watch(&id).await.until("tool_progress").await;
    let client = scene.crash().await;
    assert_eq!(result(&client, &id).await["reason"], "credentials_not_kept");
    let told = told_once(scene, &mcp.peer).await;
    assert_eq!((told.header("authorization"), told.header("x-key")), (None, None));
}

#[tokio::test]
async fn no_login_takes_the_place_of_a_credential_that_came_with_the_request() {
    if !on_postgres() {
        return;
    }
    let mcp = Protected::start(vec![endless()]).await;
    let mut scene = Scene::new(model().await).await;
    scene.other().await;
    let ann = json!({ "user": "ann" });
    let first = scene.start(&with(ask(&[mcp.entry("s")]), ann.clone())).await;
    let mut watcher = scene.watch(&first).await;
    let seen = watcher.until("waiting").await;
    let link = named(&seen, "authorization_required")[0]["connect_url"].as_str().unwrap().to_owned();
    assert_eq!(Person::new().log_in(&link).await.status, 200);
    watcher.until("tool_progress").await;
    cancel(&scene.first.client, &first).await;
    mcp.peer.until_requests_that(1, asks("tasks/cancel")).await;
    // Ann is logged in; this run is begun with a token of its own.
    let token = asked(&mcp.peer, "tools/call")[0].header("authorization").unwrap().to_owned();
    let entry = with(mcp.entry("s"), json!({ "authorization": token }));
    let id = scene.start(&with(ask(&[entry]), ann)).await;
    scene.watch(&id).await.until("tool_progress").await;
    let client = scene.crash().await;
    assert_eq!(result(&client, &id).await["reason"], "credentials_not_kept");
    mcp.peer.until_requests_that(2, asks("tasks/cancel")).await;
    scene.end().await;
    let told = asked(&mcp.peer, "tasks/cancel");
    let brought: Vec<Option<&str>> = told.iter().map(|told| told.header("authorization")).collect();
    assert_eq!(brought, [Some(token.as_str()), None]);
}

#[tokio::test]
async fn a_run_whose_time_is_over_cancels_its_task() {
    let mcp = open().await;
    let mut scene = Scene::new(model().await).await;
    let id = scene.start(&ask(&[mcp.entry("s")])).await;
    scene.watch(&id).await.until("tool_progress").await;
    scene.first.kill();
    scene.change("UPDATE runs SET created_at = 1").await;
    let client = scene.crash().await;
    assert_eq!(result(&client, &id).await["status"], "incomplete");
    told_once(scene, &mcp.peer).await;
}

#[tokio::test]
async fn a_run_cancelled_elsewhere_ends_where_it_is_and_cancels_its_task() {
    if !on_postgres() {
        return;
    }
    let mcp = open().await;
    let mut scene = Scene::new(model().await).await;
    let far = scene.other().await;
    let id = scene.start(&ask(&[mcp.entry("s")])).await;
    mcp.peer.until_requests_that(1, asks("tasks/get")).await;
    cancel(&far, &id).await;
    for client in [&scene.first.client, &far] {
        assert_eq!(result(client, &id).await["status"], "cancelled");
    }
    told_once(scene, &mcp.peer).await;
}

#[tokio::test]
async fn a_run_deleted_elsewhere_cancels_its_task_and_is_gone() {
    if !on_postgres() {
        return;
    }
    let mcp = open().await;
    let mut scene = Scene::new(model().await).await;
    let far = scene.other().await;
    let id = scene.start(&ask(&[mcp.entry("s")])).await;
    mcp.peer.until_requests_that(1, asks("tasks/get")).await;
    let deleted = far.send("DELETE", &format!("/v1/runs/{id}"), &[], "").await;
    assert_eq!(deleted.status(), 200);
    for client in [&scene.first.client, &far] {
        assert_eq!(client.get(&format!("/v1/runs/{id}")).await.status, 404);
    }
    told_once(scene, &mcp.peer).await;
}

#[tokio::test]
async fn a_run_cancelled_elsewhere_is_cancelled_for_everybody_and_its_provider_is_let_go() {
    if !on_postgres() {
        return;
    }
    let mut scene = Scene::new(FakeProvider::answering(|_| Reply::Silence).await).await;
    let far = scene.other().await;
    let id = scene.start(&ask(&[])).await;
    scene.provider.peer.until_requests(1).await;
    let near = scene.watch(&id).await;
    let ((), seen, elsewhere) = tokio::join!(cancel(&far, &id), near.rest(), watcher::all(&far, &id));
    assert_eq!(elsewhere, seen);
    for client in [&scene.first.client, &far] {
        let whole = json_of(client, &id).await;
        assert_eq!((&whole["status"], &whole["reason"]), (&json!("cancelled"), &json!("cancelled")));
    }
    scene.provider.peer.until_abandoned(1).await;
    assert_eq!(
        scene.number("SELECT takeovers AS number FROM runs").await,
        0,
        "it was the first's to the end"
    );
}
