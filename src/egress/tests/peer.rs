//! A server that counts its connections and keeps what it was sent, and resolvers that answer as told.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::{Body, Egress, Error, Lookup, Reach, full};
use crate::config::{self, EgressAllow};

pub(super) const PATIENCE: Duration = Duration::from_secs(10);
pub(super) const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    heads: Mutex<Vec<String>>,
}

pub(super) struct Peer {
    pub address: SocketAddr,
    seen: Arc<Seen>,
}

impl Peer {
    /// Answers every request on `address` with what `answer` makes of its head and body.
    pub async fn start(address: SocketAddr, answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Peer {
        let listener = TcpListener::bind(address).await.unwrap();
        let peer = Peer { address: listener.local_addr().unwrap(), seen: Arc::default() };
        let (seen, answer) = (peer.seen.clone(), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                seen.connections.fetch_add(1, Ordering::SeqCst);
                let (seen, answer) = (seen.clone(), answer.clone());
                tokio::spawn(async move { serve(stream, &seen, &*answer).await });
            }
        });
        peer
    }

    pub async fn on(ip: &str, answer: &str) -> Peer {
        let answer = answer.to_owned();
        Peer::start(SocketAddr::new(ip.parse().unwrap(), 0), move |_| answer.clone()).await
    }

    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// Head and body of each request, the header names in lower case.
    pub fn requests(&self) -> Vec<String> {
        self.seen.heads.lock().unwrap().clone()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

async fn serve(mut stream: TcpStream, seen: &Seen, answer: &(dyn Fn(&str) -> String + Send + Sync)) {
    let mut buffer = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&buffer).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |n| n.parse().unwrap());
            if body.len() >= length {
                seen.heads.lock().unwrap().push(text.clone());
                let reply = answer(&text);
                if stream.write_all(reply.as_bytes()).await.is_err() || reply.contains("connection: close") {
                    return;
                }
                buffer.clear();
            }
        }
        match stream.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// A resolver that gives the next answer at each question, the last one for ever, and counts questions.
pub(super) fn rebinding(answers: &[&[&str]], port: u16) -> (Lookup, Arc<AtomicUsize>) {
    let mut answers: VecDeque<Vec<SocketAddr>> = answers
        .iter()
        .map(|ips| ips.iter().map(|ip| SocketAddr::new(ip.parse::<IpAddr>().unwrap(), port)).collect())
        .collect();
    let last = answers.back().unwrap().clone();
    let (answers, asked) = (Mutex::new(std::mem::take(&mut answers)), Arc::new(AtomicUsize::new(0)));
    let count = asked.clone();
    let lookup: Lookup = Arc::new(move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
        let answer = answers.lock().unwrap().pop_front().unwrap_or_else(|| last.clone());
        Box::pin(async move { Ok(answer) })
    });
    (lookup, asked)
}

pub(super) fn no_lookup() -> Lookup {
    Arc::new(|host, _| panic!("{host} was looked up"))
}

/// `127.0.0.2` plays the public internet: it is allowed, and `127.0.0.1` is not.
pub(super) fn internet_is_127_0_0_2() -> Vec<EgressAllow> {
    vec![EgressAllow { cidr: Some("127.0.0.2/32".parse().unwrap()), ..EgressAllow::default() }]
}

pub(super) fn egress(allow: Vec<EgressAllow>, local: bool, lookup: Lookup) -> Egress {
    Egress::new(&config::Egress { allow, ..config::Egress::default() }, local, lookup).unwrap()
}

pub(super) fn get(uri: &str) -> Request<Body> {
    request(Method::GET, uri, &[], "")
}

pub(super) fn request(
    method: Method,
    uri: &str,
    headers: &[(&'static str, &str)],
    body: &'static str,
) -> Request<Body> {
    let mut builder = Request::builder().method(method).uri(uri.parse::<Uri>().unwrap());
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(full(body)).unwrap()
}

pub(super) async fn send(egress: &Egress, reach: Reach, uri: &str) -> Result<Response<Incoming>, Error> {
    egress.send(reach, get(uri), PATIENCE).await
}

/// Sends and reads to the end, so that the connection goes back to its pool.
pub(super) async fn send_and_read(egress: &Egress, reach: Reach, uri: &str) -> Result<Bytes, Error> {
    let response = send(egress, reach, uri).await?;
    Ok(response.into_body().collect().await.unwrap().to_bytes())
}

pub(super) async fn follow(
    egress: &Egress,
    reach: Reach,
    request: Request<Body>,
) -> Result<(Response<Incoming>, Uri), Error> {
    follow_within(egress, reach, request, &|_| true).await
}

/// As [`follow`], with a credential that is for what `covered` says.
pub(super) async fn follow_within(
    egress: &Egress,
    reach: Reach,
    request: Request<Body>,
    covered: &(dyn Fn(&Uri) -> bool + Sync),
) -> Result<(Response<Incoming>, Uri), Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    egress.send_following(reach, parts, body, PATIENCE, covered).await
}
