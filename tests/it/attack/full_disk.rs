//! A disk without room, under SQLite and under PostgreSQL: it is said, nothing is begun that cannot be kept, and once there
//! is room everything goes on without a restart.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use toolgate::config::Secret;
use toolgate::id::random_id;

use crate::support::provider::{delta, event, finish, usage};
use crate::support::small_disk::SmallDisk;
use crate::support::{
    Answer, Browser, Client, Cluster, FakeProvider, FakeTool, Gate, PATIENCE, Piece, Place, Program,
    Protected, Recorded, Reply, Running, ask, free_address, text_stream, with,
};

/// A question that does not fit into what room a full disk may have left, and that cannot be made smaller.
fn large(mark: &str) -> String {
    (0..5000).fold(mark.to_owned(), |text, _| text + &random_id(""))
}

/// A request for a run that is to be kept.
fn stored(question: &str) -> Value {
    with(ask(&[]), json!({ "store": true, "messages": [{ "role": "user", "content": question }] }))
}

/// Waits for what `/readyz` says; gives how long that took.
async fn until_ready(client: &Client, status: u16) -> (Answer, Duration) {
    let since = Instant::now();
    let asking = async {
        loop {
            let answer = client.get("/readyz").await;
            if answer.status == status {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let answer = tokio::time::timeout(PATIENCE, asking).await.expect("it says so in time");
    (answer, since.elapsed())
}

/// A gateway whose store is on a small disk, and who is asked there.
struct FullDisk {
    running: Running,
    provider: FakeProvider,
    mcp: Protected,
    place: Place,
    address: std::net::SocketAddr,
}

fn is_slow(request: &Recorded) -> bool {
    request.text().contains("slowly")
}

impl FullDisk {
    async fn start(program: Program, place: Place, gate: &Gate) -> FullDisk {
        let gate = gate.clone();
        let provider = FakeProvider::answering(move |request| {
            if !is_slow(request) {
                return text_stream("hi");
            }
            Reply::stream(vec![
                event(&delta(&json!({ "content": "one " }))),
                Piece::Wait(gate.clone()),
                event(&delta(&json!({ "content": "two" }))),
                event(&finish("stop")),
                event(&usage()),
                "data: [DONE]\n\n".into(),
            ])
        })
        .await;
        let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
        let address = free_address();
        let configuration = format!(
            "[[providers]]\nname = \"fake\"\nbase_url = \"{}\"\napi_key = \"k\"\nmodels = [\"m\"]\n",
            provider.peer.url("/v1")
        );
        let running = program.serve(&place, address, &configuration).await;
        FullDisk { running, provider, mcp, place, address }
    }

    /// Asks for everything that is kept, in all ways there are, under the name of `mark`.
    async fn ask_for_everything(&self, first: &str, mark: &str) -> Vec<(&'static str, Answer)> {
        let client = &self.running.client;
        let body = stored(&large(mark));
        let streamed = with(body.clone(), json!({ "stream": true }));
        let cached = with(body.clone(), json!({ "toolgate": { "cache_seconds": 60 } }));
        let follow_up = format!("/{first}/chat/completions");
        let key = [("idempotency-key", mark)];
        let mut browser = Browser::new(client);
        let page = browser.visit("/").await;
        let message = large(mark);
        let fields = [("model", "m"), ("message", message.as_str())];
        vec![
            ("a completion", client.post("/v1/chat/completions", &[], &body).await),
            ("a stream", client.post("/v1/chat/completions", &[], &streamed).await),
            ("one that may be found again", client.post("/v1/chat/completions", &[], &cached).await),
            ("one with a key", client.post("/v1/chat/completions", &key, &body).await),
            ("a task", client.post("/v1/tasks", &[], &body).await),
            ("a follow-up", client.post(&follow_up, &[], &body).await),
            ("the form of a page", browser.submit(&page, "/", &fields).await),
        ]
    }

    /// A request that needs a login nobody has.
    async fn ask_for_login(&self) -> Answer {
        self.running.client.chat(&ask(&[self.mcp.entry("s")])).await
    }

    fn log(&self) -> String {
        self.place.log_of(self.address)
    }

    fn metric(metrics: &str, name: &str) -> i64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.expect("it is counted").parse().unwrap()
    }

    /// The disk is full, then has room again, twice.
    async fn attack(&self, disk: &SmallDisk, gate: &Gate) {
        let client = &self.running.client;
        let (ready, _) = until_ready(client, 200).await;
        assert_eq!(ready.text(), "ready\n");
        let first = client.post("/v1/chat/completions", &[], &stored("first")).await;
        assert_eq!(first.status, 200, "{}", first.text());
        let first = first.json()["id"].as_str().unwrap().to_owned();
        let under_way = client.post("/v1/tasks", &[], &stored("slowly")).await;
        assert_eq!(under_way.status, 202, "{}", under_way.text());
        let under_way = under_way.json()["id"].as_str().unwrap().to_owned();
        self.provider.peer.until_requests_that(1, is_slow).await;
        for round in ["refused once", "refused twice"] {
            // SQLite cuts its log behind what is deleted: else that may have room for a while.
            let short = client.post("/v1/chat/completions", &[], &stored("short")).await;
            let path = format!("/v1/runs/{}", short.json()["id"].as_str().unwrap());
            assert_eq!(client.send("DELETE", &path, &[], "").await.status(), 200);
            disk.fill();
            let since = Instant::now();
            for (what, answer) in self.ask_for_everything(&first, round).await {
                assert_eq!(answer.status, 503, "{what}: {}", answer.text());
                if what != "the form of a page" {
                    assert_eq!(answer.json()["error"]["code"], "store_unavailable", "{what}");
                    assert!(answer.header("retry-after").is_some(), "{what}");
                }
            }
            assert!(since.elapsed() < Duration::from_secs(8), "nobody waits long: {:?}", since.elapsed());
            let (unready, _) = until_ready(client, 503).await;
            assert_eq!(unready.text(), "the store takes no writes: disk full\n");
            assert_eq!(client.get("/healthz").await.status, 200);
            let metrics = client.get("/metrics").await.text();
            assert_eq!(Self::metric(&metrics, "toolgate_store_healthy"), 0);
            assert!(Self::metric(&metrics, "toolgate_store_failures_total") > 0);
            let plain = client.chat(&ask(&[])).await;
            assert_eq!(plain.status, 200, "what is not kept goes on: {}", plain.text());
            gate.open();
            disk.empty();
            let (_, took) = until_ready(client, 200).await;
            assert!(took < Duration::from_secs(5), "{took:?}");
            let metrics = client.get("/metrics").await.text();
            assert_eq!(Self::metric(&metrics, "toolgate_store_healthy"), 1);
            for (what, answer) in self.ask_for_everything(&first, "kept").await {
                assert!(matches!(answer.status, 200 | 202 | 303), "{what}: {}", answer.text());
            }
            let login = self.ask_for_login().await;
            assert!(login.text().contains("/connect"), "{}", login.text());
        }
        let refused = |request: &Recorded| request.text().contains("refused");
        assert!(!self.provider.peer.requests().iter().any(refused), "what was refused is not carried out");
        let whole = self.until_ended(&under_way).await;
        assert_eq!(whole["status"], "completed", "{whole}");
        let listed = client.get("/v1/runs?limit=100").await.text();
        assert!(!listed.contains("refused"), "what was refused is in no list: {listed}");
        let log = self.log();
        for line in ["the store takes no writes", "the store takes writes again"] {
            assert_eq!(log.matches(line).count(), 2, "once for each time: {log}");
        }
        assert!(!log.contains("non-zero transaction depth"), "{log}");
    }

    async fn until_ended(&self, id: &str) -> Value {
        let ending = async {
            loop {
                let whole = self.running.client.get(&format!("/{id}.json")).await.json();
                if !matches!(whole["status"].as_str(), Some("queued" | "in_progress")) {
                    return whole;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ending).await.expect("it ends")
    }
}

#[tokio::test]
async fn a_full_disk_under_sqlite_is_said_and_forgotten_once_there_is_room() {
    let Some(disk) = SmallDisk::mount(8) else { return };
    let (place, gate) = (Place::new().await, Gate::new());
    let program = Program::new(vec![("TOOLGATE_DATA".to_owned(), disk.folder().display().to_string())]);
    let attacked = FullDisk::start(program, place, &gate).await;
    attacked.attack(&disk, &gate).await;
}

#[tokio::test]
async fn a_full_disk_under_postgresql_is_said_and_forgotten_once_there_is_room() {
    if !Place::new().await.is_shared() {
        return;
    }
    let Some(disk) = SmallDisk::mount(32) else { return };
    disk.give_to_postgres();
    let cluster = Cluster::start_new();
    let folder: &'static str =
        format!("CREATE TABLESPACE small LOCATION '{}'", disk.folder().display()).leak();
    let whole = Place::at(cluster.url());
    let store = whole.store().await;
    store.execute(folder, Vec::new()).await.unwrap();
    store.close().await;
    let small = Secret::new(format!("{}?options[default_tablespace]=small", cluster.url().expose()));
    let (place, gate) = (Place::at(small), Gate::new());
    let attacked = FullDisk::start(Program::at(&place), place, &gate).await;
    attacked.attack(&disk, &gate).await;
}

#[tokio::test]
async fn a_database_file_that_is_gone_is_said_until_it_is_back() {
    let place = Place::new().await;
    if place.is_shared() {
        return;
    }
    let file = place.folder().join("toolgate.db");
    let aside = place.folder().join("aside.db");
    let attacked = FullDisk::start(Program::at(&place), place, &Gate::new()).await;
    let client = &attacked.running.client;
    until_ready(client, 200).await;
    std::fs::rename(&file, &aside).unwrap();
    let noticed = async {
        while !client.get("/readyz").await.text().contains("its file was deleted or replaced") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, noticed).await.expect("the probe finds it");
    let refused = client.post("/v1/chat/completions", &[], &stored("refused")).await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!(attacked.provider.bodies().len(), 0, "nothing is begun that would be lost");
    std::fs::rename(&aside, &file).unwrap();
    until_ready(client, 200).await;
    let taken = client.post("/v1/chat/completions", &[], &stored("taken")).await;
    assert_eq!(taken.status, 200, "{}", taken.text());
}
