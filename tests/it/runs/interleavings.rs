//! Whatever comes in between, in whatever order: the same model and the same tools give the same record.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::scene::json_of;
use super::watcher::{self, Seen, Watcher, named};
use crate::support::provider::{delta, event, finish, function_call, usage};
use crate::support::{
    FakeMcp, FakeProvider, FakeTool, Gate, PATIENCE, Piece, Place, Program, Reply, Running, ask,
    free_address, text_result,
};

/// Gates of one turn, and turns.
const PIECES: usize = 4;
const TURNS: usize = 3;

/// Numbers that look random, the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        // Knuth's numbers; the high bits are good.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

/// A model that says a little in each of its turns, piece by piece as the gates open, and calls the tool in all but the
/// last. Asked for the same turn again, it says the same.
async fn model(gates: &[Gate]) -> FakeProvider {
    let gates = gates.to_vec();
    FakeProvider::answering(move |request| {
        let messages = request.json()["messages"].as_array().unwrap().clone();
        let turn = messages.iter().filter(|message| message["role"] == "tool").count();
        let mut pieces = vec![event(&delta(&json!({ "role": "assistant", "content": "" })))];
        for piece in 0..PIECES {
            pieces.push(Piece::Wait(gates[turn * PIECES + piece].clone()));
            pieces.push(event(&delta(&json!({ "content": format!("{turn}.{piece} ") }))));
        }
        if turn + 1 < TURNS {
            let mut call =
                function_call(&format!("call_{turn}"), "s_t", &json!({ "turn": turn }).to_string());
            call["index"] = 0.into();
            pieces.push(event(&delta(&json!({ "tool_calls": [call] }))));
            pieces.push(event(&finish("tool_calls")));
        } else {
            pieces.push(event(&finish("stop")));
        }
        pieces.extend([event(&usage()), "data: [DONE]\n\n".into()]);
        Reply::stream(pieces)
    })
    .await
}

/// Somebody who watches, and comes back when the stream breaks off.
#[derive(Default)]
struct Viewer {
    seen: Vec<Seen>,
    watching: Option<JoinHandle<Vec<Seen>>>,
}

impl Viewer {
    async fn attach(&mut self, process: &Running, id: &str) {
        let last = self.seen.last().map(|seen| seen.number);
        let watcher = Watcher::open(&process.client, id, last).await;
        self.watching = watcher.map(|watcher| tokio::spawn(watcher.rest()));
    }

    async fn gather(&mut self) {
        if let Some(watching) = self.watching.take() {
            self.seen.extend(watching.await.unwrap());
        }
    }
}

/// What must be the same, however often the run was torn.
#[derive(Debug, PartialEq)]
struct Record {
    status: Value,
    reason: Value,
    turns: Value,
    tool_calls: Value,
    calls: Vec<Value>,
    results: Vec<Value>,
    last_words: String,
}

impl Record {
    fn of(whole: &Value, seen: &[Seen]) -> Record {
        let last_turn = seen.iter().rposition(|seen| seen.name == "turn_started").unwrap_or_default();
        Record {
            status: whole["status"].clone(),
            reason: whole["reason"].clone(),
            turns: whole["turns"].clone(),
            tool_calls: whole["tool_calls"].clone(),
            calls: named(seen, "tool_call").iter().map(|data| data["arguments"].clone()).collect(),
            results: named(seen, "tool_result").iter().map(|data| data["text"].clone()).collect(),
            last_words: watcher::text_of(&seen[last_turn..]),
        }
    }
}

struct Stage {
    place: Place,
    program: Program,
    address: SocketAddr,
    configuration: String,
    process: Running,
}

impl Stage {
    async fn new(provider: &FakeProvider) -> Stage {
        let place = Place::new().await;
        let program = Program::at(&place);
        let address = free_address();
        let configuration = format!(
            "[[providers]]\nname = \"fake\"\nbase_url = \"{}\"\napi_key = \"k\"\nmodels = [\"m\"]\n",
            provider.peer.url("/v1")
        );
        let process = program.serve(&place, address, &configuration).await;
        Stage { place, program, address, configuration, process }
    }

    /// The process is lost, or stops, and another one comes in its place.
    async fn restart(&mut self, gently: bool) {
        if gently {
            self.process.terminate();
            assert_eq!(self.process.until_ended().await, Some(0));
        } else {
            self.process.kill();
            let store = self.place.store().await;
            store.execute("UPDATE instances SET seen_at = 1", Vec::new()).await.unwrap();
            store.close().await;
        }
        self.process = self.program.serve(&self.place, self.address, &self.configuration).await;
    }
}

/// Carries out one run with this seed, and gives what it came to.
async fn play(seed: u64) -> (Record, usize) {
    let gates: Vec<Gate> = (0..TURNS * PIECES).map(|_| Gate::new()).collect();
    let provider = model(&gates).await;
    let tool = FakeTool::new("t", |arguments| text_result(&format!("result of {arguments}")));
    let mcp = FakeMcp::start(vec![tool.with("annotations", json!({ "readOnlyHint": true }))]).await;
    let mut stage = Stage::new(&provider).await;
    let started = stage.process.client.post("/v1/tasks", &[], &ask(&[mcp.entry("s")])).await;
    let id = started.json()["id"].as_str().unwrap().to_owned();
    let mut random = Random(seed);
    let mut viewers: Vec<Viewer> = vec![Viewer::default()];
    viewers[0].attach(&stage.process, &id).await;
    let (mut opened, mut restarts, mut cancelled) = (0, 0, false);
    let story = Arc::new(Mutex::new(vec![format!("seed {seed}")]));
    let note = |what: String| story.lock().unwrap().push(what);
    while opened < gates.len() && !cancelled {
        match random.below(12) {
            0..=6 => {
                gates[opened].open();
                opened += 1;
                note(format!("gate {opened}"));
            }
            7 | 8 => {
                let mut viewer = Viewer::default();
                viewer.attach(&stage.process, &id).await;
                viewers.push(viewer);
                note("viewer".to_owned());
            }
            // A few are enough to tear every part of a run over the seeds.
            9 | 10 if seed > 0 && restarts < 2 => {
                let gently = random.below(2) == 0;
                note(format!("restart, gently {gently}"));
                restarts += 1;
                stage.restart(gently).await;
                for viewer in &mut viewers {
                    viewer.gather().await;
                    viewer.attach(&stage.process, &id).await;
                }
            }
            11 if seed % 4 == 3 && opened > 2 => {
                note("cancel".to_owned());
                let path = format!("/v1/runs/{id}/cancel");
                assert_eq!(stage.process.client.post(&path, &[], &json!({})).await.status, 200);
                cancelled = true;
            }
            _ => {}
        }
    }
    let story = story.lock().unwrap().join(", ");
    let fresh = tokio::time::timeout(PATIENCE, watcher::all(&stage.process.client, &id)).await;
    let fresh = fresh.unwrap_or_else(|_| panic!("it does not end: {story}"));
    for viewer in &mut viewers {
        viewer.gather().await;
        assert_eq!(viewer.seen, fresh, "{story}");
    }
    let record = Record::of(&json_of(&stage.process.client, &id).await, &fresh);
    if cancelled {
        assert_eq!((&record.status, &record.reason), (&json!("cancelled"), &json!("cancelled")), "{story}");
    }
    (record, restarts)
}

#[tokio::test]
async fn restarts_viewers_and_cancels_in_any_order_change_nothing_of_the_record() {
    let (undisturbed, _) = play(0).await;
    assert_eq!(undisturbed.status, "completed");
    assert_eq!((undisturbed.calls.len(), undisturbed.results.len()), (TURNS - 1, TURNS - 1));
    assert_eq!(undisturbed.last_words, "2.0 2.1 2.2 2.3 ");
    let (mut restarts, mut cancels) = (0, 0);
    for seed in 1..16 {
        let (record, restarted) = play(seed * 7919).await;
        restarts += restarted;
        if record.status == "cancelled" {
            cancels += 1;
        } else {
            assert_eq!(record, undisturbed, "seed {seed}");
        }
    }
    assert!(restarts >= 5 && cancels >= 1, "{restarts} restarts, {cancels} cancels");
}
