//! A process that is lost, and the one that goes on.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::watcher::{self, Seen, Watcher};
use crate::support::{
    Answer, Client, FakeProvider, Gateway, PATIENCE, Place, Program, Recorded, Reply, Running, free_address,
    with,
};

/// Two processes of one house. In PostgreSQL both run from the beginning; a file has one at a time.
pub struct Scene {
    pub place: Place,
    pub provider: FakeProvider,
    configuration: String,
    program: Program,
    addresses: [SocketAddr; 2],
    pub first: Running,
    second: Option<Running>,
}

impl Scene {
    pub async fn new(provider: FakeProvider) -> Scene {
        Scene::with_lease(provider, 60).await
    }

    /// As [`Scene::new`]; a process that is silent for so long is missed.
    pub async fn with_lease(provider: FakeProvider, seconds: u32) -> Scene {
        let place = Place::new().await;
        let program = Program::at(&place).with("TOOLGATE__RUN__LEASE_SECONDS", &seconds.to_string());
        let addresses = [free_address(), free_address()];
        // People come to the one that is left.
        let configuration = format!(
            "public_url = \"http://{}\"\n[[providers]]\nname = \"fake\"\nbase_url = \"{}\"\napi_key = \"k\"\nmodels = [\"m\"]\n",
            addresses[1],
            provider.peer.url("/v1")
        );
        let first = program.serve(&place, addresses[0], &configuration).await;
        let second = match place.is_shared() {
            true => Some(program.serve(&place, addresses[1], &configuration).await),
            false => None,
        };
        Scene { place, provider, configuration, program, addresses, first, second }
    }

    /// Starts a task at the first process; gives its id.
    pub async fn start(&self, body: &Value) -> String {
        let answer = self.first.client.post("/v1/tasks", &[], body).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    /// Follows the run at the first process.
    pub async fn watch(&self, id: &str) -> Watcher {
        Watcher::open(&self.first.client, id, None).await.expect("there are events")
    }

    /// The first process is lost in the middle of whatever it does; its runs go on at the one that is given.
    pub async fn crash(&mut self) -> Client {
        self.first.kill();
        if self.place.is_shared() {
            self.miss().await;
        }
        self.other().await
    }

    /// The first process stops as it should; its runs go on at the one that is given.
    pub async fn stop(&mut self) -> Client {
        self.first.terminate();
        assert_eq!(self.first.until_ended().await, Some(0));
        self.other().await
    }

    /// The process that is left.
    pub async fn other(&mut self) -> Client {
        if self.second.is_none() {
            let started = self.program.serve(&self.place, self.addresses[1], &self.configuration).await;
            self.second = Some(started);
        }
        self.second.as_ref().unwrap().client.clone()
    }

    /// Nobody has been seen for long: who lives shows it soon.
    async fn miss(&self) {
        let store = self.place.store().await;
        assert!(store.execute("UPDATE instances SET seen_at = 1", Vec::new()).await.unwrap() > 0);
        store.close().await;
    }

    /// The first process stands still, until others have taken its runs. Not in the middle of a write, which would keep
    /// the others from it.
    pub async fn put_to_sleep(&mut self) -> Client {
        let store = self.place.store().await;
        loop {
            self.first.pause();
            let missing = store.execute("UPDATE instances SET seen_at = 1", Vec::new());
            match tokio::time::timeout(Duration::from_millis(500), missing).await {
                Ok(done) => {
                    done.unwrap();
                    break;
                }
                Err(_) => self.first.resume(),
            }
        }
        let client = self.other().await;
        let taken = "SELECT COUNT(*) AS number FROM runs WHERE takeovers > 0";
        let taking = async {
            while store.row(taken, Vec::new()).await.unwrap().unwrap().int("number").unwrap() == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, taking).await.expect("they are taken over");
        store.close().await;
        client
    }

    /// Changes what is in the store.
    pub async fn change(&self, statement: &'static str) {
        let store = self.place.store().await;
        assert!(store.execute(statement, Vec::new()).await.unwrap() > 0);
        store.close().await;
    }

    /// Lets the processes that are left end what they do, and stops them.
    pub async fn end(mut self) {
        for process in [Some(&mut self.first), self.second.as_mut()].into_iter().flatten() {
            if !process.has_ended() {
                process.terminate();
                process.until_ended().await;
            }
        }
    }

    /// What both processes said.
    pub fn log(&self) -> String {
        self.addresses.map(|address| self.place.log_of(address)).join("\n")
    }

    /// One number that a statement gives.
    pub async fn number(&self, statement: &'static str) -> i64 {
        let store = self.place.store().await;
        let row = store.row(statement, Vec::new()).await.unwrap().unwrap();
        store.close().await;
        row.int("number").unwrap()
    }
}

/// What `before` had seen of the run, and who comes fresh, and who goes on behind what was seen, reach the same end.
pub async fn all_the_same(client: &Client, id: &str, before: &[Seen]) -> Vec<Seen> {
    let last = before.last().expect("something was seen").number;
    let behind = Watcher::open(client, id, Some(last)).await.expect("there is more");
    let (fresh, behind) = tokio::join!(watcher::all(client, id), behind.rest());
    let continued: Vec<Seen> = before.iter().cloned().chain(behind).collect();
    assert_eq!(continued, fresh);
    assert_eq!(watcher::all(client, id).await, fresh, "and so does who comes late");
    fresh
}

/// The run as JSON, once it has ended.
pub async fn result(client: &Client, id: &str) -> Value {
    watcher::all(client, id).await;
    json_of(client, id).await
}

/// The run as JSON as it stands.
pub async fn json_of(client: &Client, id: &str) -> Value {
    let answer = client.get(&format!("/{id}.json")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// The text that a run of these events shows.
pub fn content(whole: &Value) -> &str {
    whole["completion"]["choices"][0]["message"]["content"].as_str().unwrap_or_default()
}

/// Whether results of tools are among the messages.
pub fn has_results(request: &Recorded) -> bool {
    request.json()["messages"].as_array().unwrap().iter().any(|message| message["role"] == "tool")
}

/// A provider that asks for `calls` first, and with their results says `done`.
pub async fn calling(
    calls: impl Fn() -> Reply + Send + Sync + 'static,
    done: impl Fn() -> Reply + Send + Sync + 'static,
) -> FakeProvider {
    FakeProvider::answering(move |request| if has_results(request) { done() } else { calls() }).await
}

/// A task at a gateway of this process.
pub async fn task(gateway: &Gateway, body: &Value) -> String {
    let answer = gateway.client.post("/v1/tasks", &[], body).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    answer.json()["id"].as_str().unwrap().to_owned()
}

/// The id of a stored completion.
pub fn id_of(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["id"].as_str().unwrap().to_owned()
}

/// `body`, stored.
pub fn stored(body: Value) -> Value {
    with(body, json!({ "store": true }))
}
