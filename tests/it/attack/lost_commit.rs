//! A commit whose outcome nobody hears: PostgreSQL carries it out, and the connection breaks before it says so. The run is
//! begun once or not at all, and its caller is told which.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use toolgate::config::Secret;

use crate::support::{Cluster, FakeProvider, Gateway, PATIENCE, Place, ask, text, with};

/// What goes between the gateway and its database.
#[derive(Clone)]
struct BreakingWire {
    address: SocketAddr,
    /// The connection that carried this breaks behind its commit, once.
    mark: Arc<Mutex<Option<String>>>,
    /// Whether everything breaks with it, until it is mended.
    breaks_all: Arc<AtomicBool>,
    is_broken: watch::Sender<bool>,
}

impl BreakingWire {
    async fn to(database: SocketAddr) -> BreakingWire {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let wire = BreakingWire {
            address: listener.local_addr().unwrap(),
            mark: Arc::default(),
            breaks_all: Arc::default(),
            is_broken: watch::Sender::new(false),
        };
        let accepting = wire.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let wire = accepting.clone();
                tokio::spawn(async move {
                    let mut broken = wire.is_broken.subscribe();
                    if !*broken.borrow_and_update() {
                        let server = TcpStream::connect(database).await.unwrap();
                        tokio::select! {
                            () = wire.carry(client, server) => {}
                            _ = broken.wait_for(|is_broken| *is_broken) => {}
                        }
                    }
                });
            }
        });
        wire
    }

    fn break_behind(&self, mark: &str, breaks_all: bool) {
        self.breaks_all.store(breaks_all, Ordering::SeqCst);
        *self.mark.lock().unwrap() = Some(mark.to_owned());
    }

    fn mend(&self) {
        self.is_broken.send_replace(false);
    }

    async fn carry(&self, mut client: TcpStream, mut server: TcpStream) {
        let (mut from_client, mut from_server) = (vec![0; 64 << 10], vec![0; 64 << 10]);
        let has =
            |bytes: &[u8], part: &str| bytes.windows(part.len()).any(|window| window == part.as_bytes());
        let (mut is_marked, mut is_last) = (false, false);
        loop {
            tokio::select! {
                read = client.read(&mut from_client) => {
                    let Ok(length @ 1..) = read else { return };
                    let bytes = &from_client[..length];
                    let mark = self.mark.lock().unwrap().clone();
                    is_marked |= mark.is_some_and(|mark| has(bytes, &mark));
                    is_last = is_marked && has(bytes, "COMMIT");
                    if server.write_all(bytes).await.is_err() { return };
                }
                read = server.read(&mut from_server) => {
                    let Ok(length @ 1..) = read else { return };
                    let bytes = &from_server[..length];
                    if is_last && has(bytes, "COMMIT") {
                        *self.mark.lock().unwrap() = None;
                        self.is_broken.send_replace(self.breaks_all.load(Ordering::SeqCst));
                        return;
                    }
                    if client.write_all(bytes).await.is_err() { return };
                }
            }
        }
    }
}

fn stored(question: &str) -> Value {
    with(ask(&[]), json!({ "store": true, "messages": [{ "role": "user", "content": question }] }))
}

#[tokio::test]
async fn a_run_whose_commit_is_not_heard_of_is_begun_once_or_taken_back() {
    if !Place::new().await.is_shared() {
        return;
    }
    let cluster = Cluster::start_new();
    let database: http::Uri = cluster.url().expose().parse().unwrap();
    let database = SocketAddr::from(([127, 0, 0, 1], database.port_u16().unwrap()));
    let wire = BreakingWire::to(database).await;
    let place = Place::at(Secret::new(format!("postgres://postgres@{}/postgres", wire.address)));
    let provider = FakeProvider::answering(|_| text("done")).await;
    let gateway = Gateway::configured(&provider, |settings| place.give_to(settings)).await;
    let client = &gateway.client;
    let asked = |mark: &str| {
        let requests = provider.peer.requests();
        requests.iter().filter(|request| request.text().contains(mark)).count()
    };

    // The database is there all the time: the run is found, and begins.
    for (mark, path) in [("heard-a", "/v1/chat/completions"), ("heard-b", "/v1/tasks")] {
        wire.break_behind(mark, false);
        let answer = client.post(path, &[], &stored(mark)).await;
        assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
        assert!(wire.mark.lock().unwrap().is_none(), "the wire broke");
        provider.peer.until_requests_that(1, |request| request.text().contains(mark)).await;
        let id = answer.json()["id"].as_str().unwrap().to_owned();
        let ending =
            async { while client.get(&format!("/{id}.json")).await.json()["status"] != "completed" {} };
        tokio::time::timeout(PATIENCE, ending).await.expect("it ends");
        assert_eq!(asked(mark), 1);
    }

    // It is away: the caller is told, with the id, and the run is taken back once the database answers.
    let key = [("idempotency-key", "once")];
    for (mark, headers) in [("in-doubt-a", &[][..]), ("in-doubt-b", &key[..])] {
        wire.break_behind(mark, true);
        let answer = client.post("/v1/chat/completions", headers, &stored(mark)).await;
        assert_eq!(answer.status, 503, "{}", answer.text());
        let error = &answer.json()["error"];
        assert_eq!(error["code"], "store_unavailable");
        assert!(answer.header("retry-after").is_some());
        let id = error["run_id"].as_str().unwrap_or_else(|| panic!("{error}")).to_owned();
        assert!(error["url"].as_str().unwrap().ends_with(&id));
        wire.mend();
        let taking_back = async { while client.get(&format!("/v1/runs/{id}")).await.status != 404 {} };
        tokio::time::timeout(PATIENCE, taking_back).await.expect("it is taken back");
        assert_eq!(asked(mark), 0, "nobody was asked");
        let ready = async { while client.get("/readyz").await.status != 200 {} };
        tokio::time::timeout(PATIENCE, ready).await.expect("the database is back");
        let again = client.post("/v1/chat/completions", headers, &stored(mark)).await;
        assert_eq!((again.status, again.content()), (200, "done".to_owned()), "{}", again.text());
        assert_eq!(asked(mark), 1);
    }
    gateway.stop().await;
}
