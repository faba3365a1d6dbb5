//! A copy of the database from the middle of runs, started when the original has finished them: nothing is done twice.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{
    Answer, Browser, Client, Cluster, FakeMcp, FakeProvider, FakeTool, Gate, PATIENCE, Peer, Place, Program,
    Reply, Running, ask, calls_stream, free_address, on_postgres, text_stream, with,
};

const RUNS: usize = 6;

/// Runs that make two calls each, the second one when the gate opens.
struct Original {
    place: Place,
    mcp: FakeMcp,
    provider: FakeProvider,
    gate: Gate,
    ids: Vec<String>,
    process: Running,
}

/// The configuration of whoever carries the runs out.
fn configuration(provider: &FakeProvider) -> String {
    format!(
        "[[providers]]\nname = \"fake\"\nbase_url = \"{}\"\napi_key = \"k\"\nmodels = [\"m\"]\n",
        provider.peer.url("/v1")
    )
}

impl Original {
    /// All runs have made their first call.
    async fn start(body: Value) -> Original {
        Original::start_at(Place::new().await, body).await
    }

    async fn start_at(place: Place, body: Value) -> Original {
        let (mcp, gate) = (FakeMcp::start(vec![FakeTool::text("write", "written")]).await, Gate::new());
        let opened = gate.clone();
        let provider = FakeProvider::answering(move |request| {
            let body = request.json();
            let messages = body["messages"].as_array().unwrap();
            match messages.iter().filter(|message| message["role"] == "tool").count() {
                0 => calls_stream(&[("a", "s_write", json!({ "number": 1 }))]),
                1 => calls_stream(&[("b", "s_write", json!({ "number": 2 }))]).after(&opened),
                _ => text_stream("done"),
            }
        })
        .await;
        let process = serve(&place, &provider, free_address()).await;
        let mut ids = Vec::new();
        for _ in 0..RUNS {
            let body = with(ask(&[mcp.entry("s")]), body.clone());
            let started = process.client.post("/v1/tasks", &[], &body).await;
            assert_eq!(started.status, 202, "{}", started.text());
            ids.push(started.json()["id"].as_str().unwrap().to_owned());
        }
        provider.peer.until_requests(2 * RUNS).await;
        Original { place, mcp, provider, gate, ids, process }
    }

    /// A backup, as `.backup` makes one, in a folder of its own; with `lock`, of all files in the directory.
    async fn back_up(&self, lock: bool) -> Place {
        let copy = Place::new().await;
        let store = self.place.store().await;
        let file = copy.folder().join("toolgate.db").display().to_string();
        let statement: &'static str = format!("VACUUM INTO '{file}'").leak();
        store.execute(statement, Vec::new()).await.unwrap();
        store.close().await;
        copy_file(self.place.folder(), copy.folder(), "keyring.toml");
        if lock {
            copy_file(self.place.folder(), copy.folder(), "toolgate.lock");
        }
        copy
    }

    /// The runs make their second calls and end.
    async fn finish_runs(&self) {
        self.gate.open();
        for id in &self.ids {
            assert_eq!(ended(&self.process.client, id).await["status"], "completed");
        }
    }

    /// The runs end, and the process stops.
    async fn finish(&mut self) {
        self.finish_runs().await;
        self.process.terminate();
        self.process.until_ended().await;
        assert_eq!(self.mcp.count("tools/call"), 2 * RUNS);
    }

    /// Every run is shown as interrupted, and nothing was asked of anybody.
    async fn assert_interrupted(&self, client: &Client) {
        let (calls, asked) = (self.mcp.count("tools/call"), self.provider.peer.requests().len());
        for id in &self.ids {
            let run = ended(client, id).await;
            assert_eq!((&run["status"], &run["reason"]), (&json!("failed"), &json!("interrupted")), "{run}");
            assert!(run["error"]["message"].as_str().unwrap().contains("restored from a backup"), "{run}");
            let whole = client.get(&format!("/{id}.json")).await.json();
            assert_eq!(
                (&whole["status"], &whole["reason"]),
                (&json!("failed"), &json!("interrupted")),
                "{whole}"
            );
        }
        assert_eq!(self.mcp.count("tools/call"), calls, "a side effect was repeated");
        assert_eq!(self.provider.peer.requests().len(), asked);
    }
}

fn copy_file(from: &Path, to: &Path, name: &str) {
    std::fs::copy(from.join(name), to.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
}

async fn serve(place: &Place, provider: &FakeProvider, address: SocketAddr) -> Running {
    Program::at(place).serve(place, address, &configuration(provider)).await
}

/// The run, once it has ended.
async fn ended(client: &Client, id: &str) -> Value {
    let ending = async {
        loop {
            let run = client.get(&format!("/v1/runs/{id}")).await;
            assert_eq!(run.status, 200, "{}", run.text());
            if !run.json()["ended_at"].is_null() {
                return run.json();
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, ending).await.expect("it ends")
}

async fn resume(client: &Client, id: &str) -> Answer {
    client.post(&format!("/v1/runs/{id}/resume"), &[], &json!({})).await
}

#[tokio::test]
async fn a_backup_from_the_middle_of_runs_repeats_no_side_effect_wherever_it_is_started() {
    if on_postgres() {
        return;
    }
    let mut original = Original::start(json!({})).await;
    let alone = original.back_up(false).await;
    let whole = original.back_up(true).await;
    let over = original.back_up(false).await;
    original.finish().await;

    for copy in [&alone, &whole] {
        let process = serve(copy, &original.provider, free_address()).await;
        original.assert_interrupted(&process.client).await;
    }
    // Restored where it came from: the lock file there knows that more was written.
    for name in ["toolgate.db-wal", "toolgate.db-shm"] {
        let path: PathBuf = original.place.folder().join(name);
        // There is none after an orderly end.
        let _ = std::fs::remove_file(path);
    }
    copy_file(over.folder(), original.place.folder(), "toolgate.db");
    let mut process = serve(&original.place, &original.provider, free_address()).await;
    original.assert_interrupted(&process.client).await;

    // By hand, and once only: what is known to be done is not done again.
    let id = &original.ids[0];
    let first = resume(&process.client, id).await;
    assert_eq!(first.status, 202, "{}", first.text());
    let resumed = first.json()["id"].as_str().unwrap().to_owned();
    assert!(resumed != *id && first.header("location").unwrap().ends_with(&resumed), "{}", first.text());
    assert_eq!(resume(&process.client, id).await.json()["id"], resumed.as_str());
    assert_eq!(ended(&process.client, &resumed).await["status"], "completed");
    assert_eq!(original.mcp.count("tools/call"), 2 * RUNS + 1, "the second call, and not the first");
    assert_eq!(ended(&process.client, id).await["reason"], "interrupted", "the old one stays as it is");
    let again = resume(&process.client, &resumed).await;
    assert_eq!((again.status, &again.json()["error"]["code"]), (409, &json!("not_interrupted")));
    assert_eq!(resume(&process.client, "run_00000000000000000000000000").await.status, 404);

    // Whoever crashes now is not taken for a copy: the others stay interrupted, and new runs go on.
    let body = ask(&[original.mcp.entry("s")]);
    let next = process.client.post("/v1/tasks", &[], &body).await.json()["id"].as_str().unwrap().to_owned();
    process.kill();
    let process = serve(&original.place, &original.provider, free_address()).await;
    assert_eq!(ended(&process.client, &next).await["status"], "completed");
    assert_eq!(ended(&process.client, &original.ids[1]).await["reason"], "interrupted");
}

#[tokio::test]
async fn the_owner_of_an_interrupted_run_is_told_and_finds_a_button_to_resume_it() {
    if on_postgres() {
        return;
    }
    let app = Peer::start(|_| Reply::with_headers(204, &[], "")).await;
    let mut original = Original::start(json!({ "toolgate": { "webhook_url": app.url("/hook") } })).await;
    let copy = original.back_up(false).await;
    original.finish_runs().await;
    app.until_requests(RUNS).await;
    original.finish().await;
    let process = serve(&copy, &original.provider, free_address()).await;
    original.assert_interrupted(&process.client).await;
    app.until_requests(2 * RUNS).await;
    let told = app.requests().split_off(RUNS);
    assert!(told.iter().all(|request| request.json()["type"] == "run.failed"), "{:?}", told[0].json());
    assert!(
        told.iter().all(|request| request.json()["data"]["reason"] == "interrupted"),
        "{:?}",
        told[0].json()
    );
    let id = &original.ids[0];
    let page = Browser::new(&process.client).visit(&format!("/{id}")).await.text();
    assert!(
        page.contains(&format!("action=\"/{id}/resume\""))
            && page.contains("restored from a backup")
            && page.contains(">interrupted<")
            && !page.contains("run it again"),
        "{page}"
    );
    let completion = process.client.get(&format!("/v1/chat/completions/{id}")).await;
    assert_eq!(completion.status, 404, "a task is no stored completion");
}

#[tokio::test]
async fn a_directory_that_was_moved_on_purpose_goes_on_and_one_that_looks_the_same_can_be_called_a_copy() {
    if on_postgres() {
        return;
    }
    let mut original = Original::start(json!({})).await;
    let moved = original.back_up(true).await;
    let refused = Program::at(&original.place).run(&["restore"]).await;
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("already uses the data directory"), "{}", refused.stderr);
    original.process.kill();
    // What is taken back before a gateway started has not happened.
    for arguments in [&["restore"][..], &["restore", "--resume"]] {
        let said = Program::at(&moved).run(arguments).await;
        assert_eq!(said.code, 0, "{}", said.stderr);
    }
    original.gate.open();
    let process = serve(&moved, &original.provider, free_address()).await;
    for id in &original.ids {
        assert_eq!(ended(&process.client, id).await["status"], "completed");
    }
    assert_eq!(original.mcp.count("tools/call"), 2 * RUNS);
    // As after a snapshot of the whole machine, which nothing tells from a crash.
    let said = Program::at(&original.place).run(&["restore"]).await;
    assert_eq!((said.code, said.stdout.trim()), (0, "6"), "{}", said.stderr);
    let process = serve(&original.place, &original.provider, free_address()).await;
    original.assert_interrupted(&process.client).await;
}

#[tokio::test]
async fn a_place_without_a_database_is_named_and_nothing_is_made_there() {
    if on_postgres() {
        return;
    }
    let place = Place::new().await;
    for arguments in [&["restore"][..], &["restore", "--resume"], &["keys", "list"]] {
        let said = Program::at(&place).run(arguments).await;
        assert_eq!(said.code, 2, "{arguments:?}");
        assert!(
            said.stderr.contains("there is no database in") && said.stderr.contains("--config FILE"),
            "{}",
            said.stderr
        );
        assert!(!place.folder().join("toolgate.db").exists());
    }
}

#[tokio::test]
async fn a_dump_from_the_middle_of_runs_that_is_read_in_again_repeats_no_side_effect() {
    if !on_postgres() {
        return;
    }
    let cluster = Cluster::start_new();
    let mut original = Original::start_at(Place::at(cluster.url()), json!({})).await;
    cluster.dump("dump");
    original.finish().await;
    cluster.restore("dump");
    let process = serve(&original.place, &original.provider, free_address()).await;
    original.assert_interrupted(&process.client).await;
    let resumed = resume(&process.client, &original.ids[0]).await;
    assert_eq!(resumed.status, 202, "{}", resumed.text());
    let resumed = resumed.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(ended(&process.client, &resumed).await["status"], "completed");
    assert_eq!(original.mcp.count("tools/call"), 2 * RUNS + 1);
}

#[tokio::test]
async fn a_database_that_is_brought_back_under_a_running_gateway_repeats_no_side_effect() {
    if !on_postgres() {
        return;
    }
    let cluster = Cluster::start_new();
    let original = Original::start_at(Place::at(cluster.url()), json!({})).await;
    cluster.dump("dump");
    original.finish_runs().await;
    cluster.restore("dump");
    original.assert_interrupted(&original.process.client).await;
}
