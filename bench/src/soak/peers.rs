//! The model provider and the MCP server of a soak. Both write down what they are asked, by the token of the request, so
//! that a call that was made twice or without being acknowledged is seen.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::peers::mcp;
use crate::peers::serve::{self, Body};

/// Bytes of one piece of a tool call's arguments that never end.
const PIECE_BYTES: usize = 256 << 10;
/// Bytes of such arguments in one turn.
const ENDLESS_BYTES: usize = 100 << 20;

/// What the peers were asked, by token.
#[derive(Default)]
pub struct Ledger {
    /// How often the model was asked for the first turn.
    pub asked: HashMap<String, u32>,
    /// How often the tool was executed.
    pub executed: HashMap<String, u32>,
}

/// Both peers, serving until the runtime ends.
pub struct Peers {
    pub ledger: Rc<RefCell<Ledger>>,
    pub provider: u16,
    pub mcp: u16,
}

impl Peers {
    /// Starts both on free ports.
    pub async fn start() -> Result<Peers, String> {
        let ledger = Rc::new(RefCell::new(Ledger::default()));
        let provider = listen(Rc::clone(&ledger), answer_as_provider).await?;
        let mcp = listen(Rc::clone(&ledger), answer_as_mcp).await?;
        Ok(Peers { ledger, provider, mcp })
    }
}

type Answer = fn(Rc<RefCell<Ledger>>, String, Bytes) -> AnswerFuture;
type AnswerFuture = std::pin::Pin<Box<dyn Future<Output = Response<Body>>>>;

async fn listen(ledger: Rc<RefCell<Ledger>>, answer: Answer) -> Result<u16, String> {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .await
        .map_err(|error| error.to_string())?;
    let port = listener.local_addr().map_err(|error| error.to_string())?.port();
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let ledger = Rc::clone(&ledger);
            let service = service_fn(move |request: Request<Incoming>| {
                let ledger = Rc::clone(&ledger);
                async move {
                    let path = request.uri().path().to_owned();
                    let body = request.into_body().collect().await?.to_bytes();
                    Ok::<_, hyper::Error>(answer(ledger, path, body).await)
                }
            });
            tokio::task::spawn_local(async move {
                // A gateway that was killed is no event here.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    Ok(port)
}

/// The words after `name` in the last message of the user: `soak TOKEN CHUNKS DELAY_MS`.
fn wish(request: &Value) -> Option<(String, usize, u64)> {
    let messages = request["messages"].as_array()?;
    let text = messages.iter().rev().find(|message| message["role"] == "user")?["content"].as_str()?;
    let mut words = text.strip_prefix("soak ")?.split(' ');
    Some((words.next()?.to_owned(), words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

fn answer_as_provider(ledger: Rc<RefCell<Ledger>>, _path: String, body: Bytes) -> AnswerFuture {
    Box::pin(async move {
        let request: Value = serde_json::from_slice(&body).unwrap_or_default();
        let Some((token, chunks, delay)) = wish(&request) else {
            return serve::answer("text/event-stream", text_chunks(2, 0));
        };
        if token == "endless" {
            return serve::answer("text/event-stream", endless_arguments(&request));
        }
        let has_result =
            request["messages"].as_array().is_some_and(|all| all.iter().any(|one| one["role"] == "tool"));
        if has_result {
            return serve::answer("text/event-stream", text_chunks(chunks, delay));
        }
        *ledger.borrow_mut().asked.entry(token.clone()).or_default() += 1;
        let call = json!([{
            "index": 0, "id": "call_1_0", "type": "function",
            "function": { "name": tool_name(&request), "arguments": json!({ "text": token }).to_string() },
        }]);
        let text = [
            chunk(&json!({ "role": "assistant", "content": null, "tool_calls": call }), None),
            chunk(&json!({}), Some("tool_calls")),
            "data: [DONE]\n\n".to_owned(),
        ];
        serve::answer("text/event-stream", serve::full(text.concat()))
    })
}

fn tool_name(request: &Value) -> String {
    request["tools"][0]["function"]["name"].as_str().unwrap_or("tool_0").to_owned()
}

fn chunk(delta: &Value, finish_reason: Option<&str>) -> String {
    let chunk = json!({
        "id": "chatcmpl-soak", "object": "chat.completion.chunk", "created": 1, "model": "mock-model",
        "choices": [{ "index": 0, "delta": delta, "finish_reason": finish_reason }],
    });
    format!("data: {chunk}\n\n")
}

fn text_chunks(count: usize, delay_ms: u64) -> Body {
    let frames = stream::unfold(0, move |sent| async move {
        if delay_ms > 0 {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        }
        let text = match sent {
            _ if sent < count => chunk(&json!({ "content": format!("{sent} ") }), None),
            _ if sent == count => format!("{}data: [DONE]\n\n", chunk(&json!({}), Some("stop"))),
            _ => return None,
        };
        Some((Ok(Frame::data(Bytes::from(text))), sent + 1))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// A tool call whose arguments go on for a hundred megabytes, as a broken or hostile provider sends them.
fn endless_arguments(request: &Value) -> Body {
    let name = tool_name(request);
    let piece = Bytes::from(chunk(
        &json!({ "tool_calls": [{ "index": 0, "function": { "arguments": "x".repeat(PIECE_BYTES) } }] }),
        None,
    ));
    let frames = stream::unfold(0, move |sent| {
        let (name, piece) = (name.clone(), piece.clone());
        async move {
            let data = match sent {
                0 => Bytes::from(chunk(
                    &json!({ "tool_calls": [{
                        "index": 0, "id": "call_1_0", "type": "function",
                        "function": { "name": name, "arguments": "{\"text\":\"" },
                    }] }),
                    None,
                )),
                _ if sent * PIECE_BYTES < ENDLESS_BYTES => {
                    tokio::task::yield_now().await;
                    piece
                }
                _ => return None,
            };
            Some((Ok(Frame::data(data)), sent + 1))
        }
    });
    StreamBody::new(frames).boxed_unsync()
}

fn answer_as_mcp(ledger: Rc<RefCell<Ledger>>, path: String, body: Bytes) -> AnswerFuture {
    Box::pin(async move {
        let message: Value = serde_json::from_slice(&body).unwrap_or_default();
        if message["method"] == "tools/list" {
            // Called twice it would do its work twice: nothing says that it only reads.
            let mut tools = mcp::tools(1);
            tools[0]["annotations"] = json!({ "readOnlyHint": false });
            let result = json!({ "resultType": "complete", "tools": tools, "ttlMs": 3_600_000, "cacheScope": "public" });
            let text = json!({ "jsonrpc": "2.0", "id": message["id"], "result": result }).to_string();
            return serve::answer("application/json", serve::full(text));
        }
        if message["method"] == "tools/call"
            && let Some(token) = message["params"]["arguments"]["text"].as_str()
        {
            // All requests of a flood have one token.
            if !matches!(token, "endless" | "unread") {
                *ledger.borrow_mut().executed.entry(token.to_owned()).or_default() += 1;
            }
        }
        mcp::answer(&path, &body).await
    })
}
