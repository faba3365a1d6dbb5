//! An MCP server that answers each request as a closure says and remembers what it was asked.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use crate::config::{self, Secret};
use crate::egress::{Egress, system_lookup};
use crate::memory_budget::MemoryBudget;
use crate::tools::{Error, Follower, Progress, Server, ToolList, Tools};

/// One request as the server read it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) verb: String,
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
}

impl Seen {
    /// The JSON-RPC method, or the HTTP method of a request without one.
    pub(super) fn what(&self) -> String {
        self.body["method"].as_str().map_or_else(|| self.verb.clone(), str::to_owned)
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// A successful answer to this request.
    pub(super) fn result(&self, result: Value) -> Value {
        json!({"jsonrpc": "2.0", "id": self.body["id"], "result": result})
    }

    pub(super) fn error(&self, code: i64, message: &str) -> Value {
        json!({"jsonrpc": "2.0", "id": self.body["id"], "error": {"code": code, "message": message}})
    }
}

/// How an answer goes on after what is written at once.
pub(super) enum Then {
    End,
    /// The connection is closed in the middle of the answer.
    Cut,
    /// Nothing more comes until the client leaves.
    Hold,
    /// What arrives here is sent as it arrives.
    Live(mpsc::UnboundedReceiver<String>),
}

/// One answer.
pub(super) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    /// `None` is a body of a known length.
    events: Option<Then>,
    body: String,
}

impl Reply {
    pub(super) fn json(value: &Value) -> Self {
        Reply::text(200, "application/json", &value.to_string())
    }

    pub(super) fn text(status: u16, kind: &str, body: &str) -> Self {
        Reply { status, headers: vec![("content-type".into(), kind.into())], events: None, body: body.into() }
    }

    pub(super) fn empty(status: u16) -> Self {
        Reply { status, headers: Vec::new(), events: None, body: String::new() }
    }

    pub(super) fn events(events: &str, then: Then) -> Self {
        Reply { events: Some(then), ..Reply::text(200, "text/event-stream", events) }
    }

    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(super) fn status(self, status: u16) -> Self {
        Reply { status, ..self }
    }
}

/// One event with `value` as its data.
pub(super) fn event(value: &Value) -> String {
    format!("data: {value}\n\n")
}

/// A running server. Ends with its test.
pub(super) struct Fake {
    pub(super) port: u16,
    seen: watch::Receiver<Vec<Seen>>,
    connections: Arc<AtomicUsize>,
    left: watch::Receiver<bool>,
}

impl Fake {
    pub(super) async fn start(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, seen) = watch::channel(Vec::new());
        let (sender, answer) = (Arc::new(sender), Arc::new(answer));
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let (leaving, left) = watch::channel(false);
        let leaving = Arc::new(leaving);
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let (sender, answer) = (Arc::clone(&sender), Arc::clone(&answer));
                let leaving = Arc::clone(&leaving);
                tokio::spawn(async move { serve(connection, &sender, &leaving, &*answer).await });
            }
        });
        Fake { port, seen, connections, left }
    }

    /// This server as a request would name it.
    pub(super) fn server(&self) -> Server {
        Server {
            uri: format!("http://127.0.0.1:{}/mcp", self.port).parse::<Uri>().unwrap(),
            authorization: None,
            connection: None,
            resource: None,
            headers: Vec::new(),
            scope: "a".into(),
        }
    }

    pub(super) fn server_for(&self, credential: &str, scope: &str) -> Server {
        Server { authorization: Some(Secret::new(credential)), scope: scope.into(), ..self.server() }
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.borrow().clone()
    }

    /// Waits until the client leaves an answer that is held open.
    pub(super) async fn wait_until_left(&self) {
        let mut left = self.left.clone();
        let leaving = tokio::time::timeout(Duration::from_secs(10), left.wait_for(|left| *left)).await;
        leaving.expect("the client leaves").unwrap();
    }

    /// How often the client connected.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// What was asked so far, in order.
    pub(super) fn asked(&self) -> Vec<String> {
        self.seen().iter().map(Seen::what).collect()
    }

    /// Waits until something is asked.
    pub(super) async fn wait_for(&self, what: &str) -> Seen {
        let mut seen = self.seen.clone();
        let found = seen.wait_for(|seen| seen.iter().any(|one| one.what() == what));
        let found = tokio::time::timeout(Duration::from_secs(10), found).await;
        let found = found.unwrap_or_else(|_| panic!("{what} was not asked")).unwrap();
        found.iter().find(|one| one.what() == what).unwrap().clone()
    }
}

async fn serve(
    connection: TcpStream,
    sender: &watch::Sender<Vec<Seen>>,
    leaving: &watch::Sender<bool>,
    answer: &(dyn Fn(&Seen) -> Reply + Send + Sync),
) -> Option<()> {
    connection.set_nodelay(true).ok()?;
    let mut connection = BufReader::new(connection);
    loop {
        let seen = read_request(&mut connection).await?;
        // Decided before it is announced, so that a test that waits for a request sees its effects.
        let reply = answer(&seen);
        sender.send_modify(|all| all.push(seen));
        let mut head = format!("HTTP/1.1 {} Said\r\n", reply.status);
        for (name, value) in &reply.headers {
            head += &format!("{name}: {value}\r\n");
        }
        let Some(then) = reply.events else {
            head += &format!("content-length: {}\r\n\r\n{}", reply.body.len(), reply.body);
            connection.write_all(head.as_bytes()).await.ok()?;
            continue;
        };
        head += "transfer-encoding: chunked\r\n\r\n";
        if !reply.body.is_empty() {
            head += &chunk(&reply.body);
        }
        connection.write_all(head.as_bytes()).await.ok()?;
        match then {
            Then::End => connection.write_all(b"0\r\n\r\n").await.ok()?,
            Then::Cut => return None,
            Then::Hold => {
                connection.read_u8().await.ok();
                leaving.send_replace(true);
                return None;
            }
            Then::Live(mut events) => {
                while let Some(event) = events.recv().await {
                    connection.write_all(chunk(&event).as_bytes()).await.ok()?;
                }
                return None;
            }
        }
    }
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

async fn read_request(connection: &mut BufReader<TcpStream>) -> Option<Seen> {
    let mut line = String::new();
    connection.read_line(&mut line).await.ok()?;
    let mut words = line.split(' ');
    let (verb, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HeaderMap::new();
    loop {
        let mut line = String::new();
        connection.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.append(HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?);
    }
    let length = headers.get("content-length").and_then(|v| v.to_str().ok()?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    connection.read_exact(&mut body).await.ok()?;
    Some(Seen { verb, path, headers, body: serde_json::from_slice(&body).unwrap_or_default() })
}

/// A client that may call this machine, with `change` made to its settings.
pub(super) fn client(change: impl FnOnce(&mut config::Mcp)) -> Tools {
    let mut settings = config::Mcp::default();
    change(&mut settings);
    Tools::new(
        Egress::new(&config::Egress::default(), true, system_lookup()).unwrap(),
        &settings,
        MemoryBudget::unlimited(),
    )
}

/// Calls the tool `name` of `list` and gives the text of its result.
pub(super) async fn call(
    tools: &Tools,
    server: &Server,
    list: &ToolList,
    name: &str,
) -> Result<String, Error> {
    call_with(tools, server, list, name, &Map::new(), &|_: Progress| {}).await
}

pub(super) async fn call_with(
    tools: &Tools,
    server: &Server,
    list: &ToolList,
    name: &str,
    arguments: &Map<String, Value>,
    follow: &dyn Follower,
) -> Result<String, Error> {
    let tool = list.tools.iter().find(|tool| tool.name == name).expect("the tool is listed");
    let result = tools.call(server, tool, arguments, follow).await?;
    Ok(String::from_utf8(result.to_vec()).unwrap())
}

/// What was reported, for tests that look at it afterwards.
#[derive(Default)]
pub(super) struct Reported(Mutex<Vec<f64>>);

impl Reported {
    pub(super) fn note(&self, progress: &Progress) {
        self.0.lock().unwrap().push(progress.progress);
    }

    pub(super) fn all(&self) -> Vec<f64> {
        self.0.lock().unwrap().clone()
    }
}

/// A list of one tool called `t`, as a modern server gives it.
pub(super) fn modern_list() -> Value {
    json!({"resultType": "complete", "tools": [{"name": "t", "inputSchema": {"type": "object"}}]})
}
