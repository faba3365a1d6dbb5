//! A peer on the network that answers exactly as told, down to the byte and the broken connection.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::wire::{read_request, write_whole};
use super::{Gate, Recorded};

/// How long a test waits for something that must happen.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// A write that takes longer than this is held up by the reader.
const STALL: Duration = Duration::from_millis(500);

/// One step of an answer.
pub enum Piece {
    Bytes(Vec<u8>),
    /// Goes on when the test says so.
    Wait(Gate),
}

impl From<&str> for Piece {
    fn from(text: &str) -> Piece {
        Piece::Bytes(text.as_bytes().to_vec())
    }
}

/// What the peer does with a request.
pub enum Reply {
    /// A whole answer with this status and JSON body.
    Json(u16, Value),
    /// Status, headers and body, as given.
    Whole(u16, Vec<(String, String)>, Vec<u8>),
    /// A 200 event stream of these pieces; `cut` ends it by closing the connection in the middle of the body.
    Stream { pieces: Vec<Piece>, cut: bool },
    /// These bytes instead of any HTTP of ours; then the connection is closed.
    Raw(Vec<Piece>),
    /// The answer, once the test says so.
    After(Gate, Box<Reply>),
    /// Nothing at all until the client goes away.
    Silence,
    /// The connection is closed without an answer.
    Hangup,
}

impl Reply {
    /// Status and headers, with a JSON body.
    pub fn with_headers(status: u16, headers: &[(&str, &str)], body: &str) -> Reply {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Reply::Whole(status, headers.collect(), body.as_bytes().to_vec())
    }

    /// An event stream that is sent to its end.
    pub fn stream(pieces: Vec<Piece>) -> Reply {
        Reply::Stream { pieces, cut: false }
    }

    pub fn after(self, gate: &Gate) -> Reply {
        Reply::After(gate.clone(), Box::new(self))
    }
}

type Handler = Arc<dyn Fn(&Recorded) -> Reply + Send + Sync>;

/// A listening peer. Ends with the test's runtime.
#[derive(Clone)]
pub struct Peer {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<Recorded>>>,
    counts: Arc<Counts>,
    changed: Arc<Notify>,
}

#[derive(Default)]
struct Counts {
    /// Requests whose client went away before the answer was over.
    abandoned: AtomicUsize,
    /// Writes that were held up by a reader that does not read.
    stalled: AtomicUsize,
    /// Bytes of streams that were sent.
    sent: AtomicUsize,
}

impl Peer {
    pub async fn start(handler: impl Fn(&Recorded) -> Reply + Send + Sync + 'static) -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = Peer {
            address: listener.local_addr().unwrap(),
            requests: Arc::default(),
            counts: Arc::default(),
            changed: Arc::default(),
        };
        let handler: Handler = Arc::new(handler);
        let accepting = peer.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (peer, handler) = (accepting.clone(), Arc::clone(&handler));
                tokio::spawn(async move { peer.converse(stream, &handler).await });
            }
        });
        peer
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Host and port, as the gateway names it.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn requests(&self) -> Vec<Recorded> {
        self.requests.lock().unwrap().clone()
    }

    /// The only request so far.
    pub fn only_request(&self) -> Recorded {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests.remove(0)
    }

    pub fn bytes_sent(&self) -> usize {
        self.counts.sent.load(Ordering::SeqCst)
    }

    /// Waits until the peer has had `count` requests.
    pub async fn until_requests(&self, count: usize) {
        self.until(|| self.requests.lock().unwrap().len() >= count).await;
    }

    /// Waits until the peer has had `count` requests that `are` so.
    pub async fn until_requests_that(&self, count: usize, are: impl Fn(&Recorded) -> bool) {
        self.until(|| self.requests.lock().unwrap().iter().filter(|request| are(request)).count() >= count)
            .await;
    }

    /// Waits until `count` clients have gone away in the middle of an answer.
    pub async fn until_abandoned(&self, count: usize) {
        self.until(|| self.counts.abandoned.load(Ordering::SeqCst) >= count).await;
    }

    /// Waits until the peer cannot send any more because nobody reads.
    pub async fn until_stalled(&self) {
        self.until(|| self.counts.stalled.load(Ordering::SeqCst) > 0).await;
    }

    async fn until(&self, done: impl Fn() -> bool) {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                if done() {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("the peer sees what the test waits for");
    }

    async fn converse(&self, mut stream: TcpStream, handler: &Handler) {
        let _ = stream.set_nodelay(true);
        let mut buffer = Vec::new();
        while let Some(request) = read_request(&mut stream, &mut buffer).await {
            self.requests.lock().unwrap().push(request.clone());
            self.changed.notify_waiters();
            let keep = self.answer(&mut stream, handler(&request)).await;
            if !keep {
                return;
            }
        }
    }

    /// Whether the connection can be used again.
    async fn answer(&self, stream: &mut TcpStream, mut reply: Reply) -> bool {
        while let Reply::After(gate, then) = reply {
            if !self.wait(stream, &gate).await {
                return false;
            }
            reply = *then;
        }
        match reply {
            Reply::Json(status, body) => {
                let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
                write_whole(stream, status, &headers, body.to_string().as_bytes()).await
            }
            Reply::Whole(status, headers, body) => write_whole(stream, status, &headers, &body).await,
            Reply::Hangup | Reply::After(..) => false,
            Reply::Silence => self.wait(stream, &Gate::new()).await,
            Reply::Stream { pieces, cut } => self.stream(stream, pieces, cut).await,
            Reply::Raw(pieces) => {
                self.pieces(stream, pieces, <[u8]>::to_vec).await;
                false
            }
        }
    }

    async fn stream(&self, stream: &mut TcpStream, pieces: Vec<Piece>, cut: bool) -> bool {
        let head =
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        let chunk = |bytes: &[u8]| {
            let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
            chunk.extend(bytes);
            chunk.extend(b"\r\n");
            chunk
        };
        self.write(stream, head).await
            && self.pieces(stream, pieces, chunk).await
            && !cut
            && self.write(stream, b"0\r\n\r\n").await
    }

    async fn pieces(
        &self,
        stream: &mut TcpStream,
        pieces: Vec<Piece>,
        encode: impl Fn(&[u8]) -> Vec<u8>,
    ) -> bool {
        for piece in pieces {
            let sent = match piece {
                Piece::Bytes(bytes) => self.write(stream, &encode(&bytes)).await,
                Piece::Wait(gate) => self.wait(stream, &gate).await,
            };
            if !sent {
                return false;
            }
        }
        true
    }

    /// Whether the gate opened before the client went away.
    async fn wait(&self, stream: &mut TcpStream, gate: &Gate) -> bool {
        let mut byte = [0u8; 1];
        tokio::select! {
            () = gate.wait() => true,
            _ = stream.read(&mut byte) => {
                self.note(&self.counts.abandoned, 1);
                false
            }
        }
    }

    async fn write(&self, stream: &mut TcpStream, bytes: &[u8]) -> bool {
        let writing = stream.write_all(bytes);
        tokio::pin!(writing);
        let written = match tokio::time::timeout(STALL, &mut writing).await {
            Ok(written) => written,
            Err(_) => {
                self.note(&self.counts.stalled, 1);
                writing.await
            }
        };
        match written {
            Ok(()) => self.note(&self.counts.sent, bytes.len()),
            Err(_) => self.note(&self.counts.abandoned, 1),
        }
        written.is_ok()
    }

    fn note(&self, counter: &AtomicUsize, more: usize) {
        counter.fetch_add(more, Ordering::SeqCst);
        self.changed.notify_waiters();
    }
}
