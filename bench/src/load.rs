//! The load generator: closed loop, one kept-alive connection per worker, every answer checked.

use std::cell::{Cell, RefCell};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use memchr::memmem;
use tokio::net::TcpStream;

/// No request of a measurement may take longer.
const LIMIT: Duration = Duration::from_secs(60);

/// One request, to be sent many times.
#[derive(Clone)]
pub struct Shot {
    pub path: String,
    pub body: Bytes,
    /// Bytes that a good answer contains.
    pub expect: &'static str,
}

/// One answer: its times since the request was begun.
pub struct Answer {
    pub first: Duration,
    pub total: Duration,
    pub body: Vec<u8>,
}

/// Times of many requests, sorted.
#[derive(Default)]
pub struct Times {
    pub first: Vec<Duration>,
    pub total: Vec<Duration>,
}

impl Times {
    fn sort(&mut self) {
        self.first.sort_unstable();
        self.total.sort_unstable();
    }
}

/// The value below which `percent` of the sorted `times` lie, in microseconds.
pub fn percentile(times: &[Duration], percent: usize) -> f64 {
    let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times.get(index).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
}

/// A kept-alive connection to a port on loopback.
pub struct Connection(SendRequest<Full<Bytes>>);

impl Connection {
    pub async fn open(port: u16) -> Result<Self, String> {
        let stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
            .await
            .map_err(|error| format!("port {port}: {error}"))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        tokio::task::spawn_local(connection);
        Ok(Connection(sender))
    }

    /// Sends one request and reads the whole answer.
    pub async fn send(&mut self, method: Method, path: &str, body: Bytes) -> Result<Answer, String> {
        tokio::time::timeout(LIMIT, self.exchange(method, path, body))
            .await
            .map_err(|_| format!("no answer to {path} after {} s", LIMIT.as_secs()))?
    }

    async fn exchange(&mut self, method: Method, path: &str, body: Bytes) -> Result<Answer, String> {
        let started = Instant::now();
        let (mut first, mut text) = (None, Vec::new());
        let head = |_: &HeaderMap| {};
        let (status, _) = self
            .read(method, path, body, head, |data| {
                first.get_or_insert_with(|| started.elapsed());
                text.extend_from_slice(data);
            })
            .await?;
        let total = started.elapsed();
        if !status.is_success() {
            let text = String::from_utf8_lossy(&text);
            return Err(format!("{path}: status {status}: {}", text.chars().take(300).collect::<String>()));
        }
        Ok(Answer { first: first.unwrap_or(total), total, body: text })
    }

    /// Sends one request, and gives the answer's head and its pieces to those who want them as they come.
    pub async fn read(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
        on_head: impl FnOnce(&HeaderMap),
        mut on_data: impl FnMut(&[u8]),
    ) -> Result<(StatusCode, usize), String> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "127.0.0.1")
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("authorization", "Bearer bench");
        if path.starts_with("/mcp") {
            request = request
                .header("mcp-protocol-version", "2026-07-28")
                .header("mcp-method", "tools/call")
                .header("mcp-name", "tool_0");
        }
        let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        self.0.ready().await.map_err(|error| error.to_string())?;
        let response = self.0.send_request(request).await.map_err(|error| format!("{path}: {error}"))?;
        let status = response.status();
        on_head(response.headers());
        let (mut response, mut bytes) = (response.into_body(), 0);
        while let Some(frame) = response.frame().await {
            let frame = frame.map_err(|error| format!("{path}: {error}"))?;
            if let Some(data) = frame.data_ref() {
                bytes += data.len();
                on_data(data);
            }
        }
        Ok((status, bytes))
    }

    /// Sends a shot and checks the answer.
    pub async fn fire(&mut self, shot: &Shot) -> Result<Answer, String> {
        let answer = self.send(Method::POST, &shot.path, shot.body.clone()).await?;
        if memmem::find(&answer.body, shot.expect.as_bytes()).is_none() {
            let text = String::from_utf8_lossy(&answer.body);
            let head: String = text.chars().take(600).collect();
            return Err(format!("{}: no `{}` in the answer: {head}", shot.path, shot.expect));
        }
        Ok(answer)
    }
}

/// Runs `count` shots over `concurrency` connections.
pub async fn fire(port: u16, shot: &Shot, count: usize, concurrency: usize) -> Result<Times, String> {
    let left = Rc::new(RefCell::new(count));
    let times = Rc::new(RefCell::new(Times::default()));
    let mut workers = Vec::new();
    for _ in 0..concurrency {
        let mut connection = Connection::open(port).await?;
        let (left, times, shot) = (left.clone(), times.clone(), shot.clone());
        workers.push(tokio::task::spawn_local(async move {
            loop {
                {
                    let mut left = left.borrow_mut();
                    if *left == 0 {
                        return Ok::<(), String>(());
                    }
                    *left -= 1;
                }
                let answer = connection.fire(&shot).await?;
                let mut times = times.borrow_mut();
                times.first.push(answer.first);
                times.total.push(answer.total);
            }
        }));
    }
    for worker in workers {
        worker.await.map_err(|error| error.to_string())??;
    }
    let mut times = times.take();
    times.sort();
    Ok(times)
}

/// A stream that is opened and then only read; ended when dropped.
pub struct SlowStream(tokio::task::JoinHandle<Result<(), String>>);

impl SlowStream {
    /// Opens it in the background; `arrived` counts those whose first bytes came.
    pub fn open(port: u16, shot: Shot, arrived: Rc<Cell<usize>>) -> Self {
        SlowStream(tokio::task::spawn_local(async move {
            let mut connection = Connection::open(port).await?;
            connection.0.ready().await.map_err(|error| error.to_string())?;
            let request = Request::post(&shot.path)
                .header("host", "127.0.0.1")
                .header("content-type", "application/json")
                .header("authorization", "Bearer bench")
                .body(Full::new(shot.body))
                .map_err(|error| error.to_string())?;
            let response = connection.0.send_request(request).await.map_err(|error| error.to_string())?;
            if !response.status().is_success() {
                return Err(format!("status {}", response.status()));
            }
            let mut body = response.into_body();
            let mut is_first = true;
            while let Some(frame) = body.frame().await {
                frame.map_err(|error| error.to_string())?;
                if std::mem::take(&mut is_first) {
                    arrived.set(arrived.get() + 1);
                }
            }
            Ok(())
        }))
    }

    /// Whether it ended, which a slow stream should not.
    pub fn is_over(&self) -> bool {
        self.0.is_finished()
    }
}

impl Drop for SlowStream {
    fn drop(&mut self) {
        self.0.abort();
    }
}
