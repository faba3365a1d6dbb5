//! A peer on the network that answers exactly as told, down to the byte and the broken connection.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// One request as the peer got it.
#[derive(Debug, Clone, Default)]
pub struct Recorded {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Recorded {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// One step of an answer.
pub enum Piece {
    Bytes(Vec<u8>),
    /// Goes on when the test says so.
    Wait(Arc<Notify>),
}

/// What the peer does with a request.
pub enum Reply {
    /// A whole answer with this status and JSON body.
    Json(u16, Value),
    /// Status, headers and body, as given.
    Whole(u16, Vec<(String, String)>, Vec<u8>),
    /// A 200 event stream of these pieces; `cut` ends it by closing the connection in the middle of the body.
    Stream { pieces: Vec<Piece>, cut: bool },
    /// Nothing at all until the client goes away.
    Silence,
    /// The connection is closed without an answer.
    Hangup,
}

type Handler = Arc<dyn Fn(&Recorded) -> Reply + Send + Sync>;

/// A listening peer. Ends with the test's runtime.
#[derive(Clone)]
pub struct Peer {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<Recorded>>>,
    connections: Arc<AtomicUsize>,
    /// Counts requests whose client went away before the answer was over.
    abandoned: Arc<AtomicUsize>,
    changed: Arc<Notify>,
}

impl Peer {
    pub async fn start(handler: impl Fn(&Recorded) -> Reply + Send + Sync + 'static) -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = Peer {
            address: listener.local_addr().unwrap(),
            requests: Arc::default(),
            connections: Arc::default(),
            abandoned: Arc::default(),
            changed: Arc::default(),
        };
        let handler: Handler = Arc::new(handler);
        let accepting = peer.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepting.connections.fetch_add(1, Ordering::SeqCst);
                let (peer, handler) = (accepting.clone(), Arc::clone(&handler));
                tokio::spawn(async move { peer.converse(stream, &handler).await });
            }
        });
        peer
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn requests(&self) -> Vec<Recorded> {
        self.requests.lock().unwrap().clone()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Waits until the peer has had `count` requests.
    pub async fn until_requests(&self, count: usize) {
        self.until(|| self.requests.lock().unwrap().len() >= count).await;
    }

    /// Waits until `count` clients have gone away in the middle of an answer.
    pub async fn until_abandoned(&self, count: usize) {
        self.until(|| self.abandoned.load(Ordering::SeqCst) >= count).await;
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
        tokio::time::timeout(std::time::Duration::from_secs(20), waiting)
            .await
            .expect("the peer sees what the test waits for");
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
    async fn answer(&self, stream: &mut TcpStream, reply: Reply) -> bool {
        match reply {
            Reply::Json(status, body) => {
                let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
                whole(stream, status, &headers, body.to_string().as_bytes()).await
            }
            Reply::Whole(status, headers, body) => whole(stream, status, &headers, &body).await,
            Reply::Hangup => false,
            Reply::Silence => {
                let mut byte = [0u8; 1];
                let _ = stream.read(&mut byte).await;
                self.note_abandoned();
                false
            }
            Reply::Stream { pieces, cut } => self.stream(stream, pieces, cut).await,
        }
    }

    async fn stream(&self, stream: &mut TcpStream, pieces: Vec<Piece>, cut: bool) -> bool {
        let head =
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        if stream.write_all(head).await.is_err() {
            self.note_abandoned();
            return false;
        }
        for piece in pieces {
            let sent = match piece {
                Piece::Bytes(bytes) => {
                    let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
                    chunk.extend(bytes);
                    chunk.extend(b"\r\n");
                    stream.write_all(&chunk).await.is_ok()
                }
                Piece::Wait(go) => {
                    let mut byte = [0u8; 1];
                    tokio::select! {
                        () = go.notified() => true,
                        _ = stream.read(&mut byte) => false,
                    }
                }
            };
            if !sent {
                self.note_abandoned();
                return false;
            }
        }
        !cut && stream.write_all(b"0\r\n\r\n").await.is_ok()
    }

    fn note_abandoned(&self) {
        self.abandoned.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_waiters();
    }
}

async fn whole(stream: &mut TcpStream, status: u16, headers: &[(String, String)], body: &[u8]) -> bool {
    let mut head = format!("HTTP/1.1 {status} Status\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await.is_ok() && stream.write_all(body).await.is_ok()
}

async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Recorded> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let mut request = parse_head(&head)?;
            let length: usize =
                request.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
            while buffer.len() < end + 4 + length {
                read_more(stream, buffer).await?;
            }
            request.body = buffer[end + 4..end + 4 + length].to_vec();
            buffer.drain(..end + 4 + length);
            return Some(request);
        }
        read_more(stream, buffer).await?;
    }
}

async fn read_more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    let mut part = [0u8; 16384];
    match stream.read(&mut part).await {
        Ok(0) | Err(_) => None,
        Ok(count) => {
            buffer.extend(&part[..count]);
            Some(())
        }
    }
}

fn parse_head(head: &str) -> Option<Recorded> {
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
    Some(Recorded { method, path, headers: headers.collect(), body: Vec::new() })
}
