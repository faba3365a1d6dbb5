//! A mock provider: OpenAI chat completions whose shape the request chooses in its field `x_bench`, which a gateway
//! must forward like any field it does not know.
//!
//! `{"chunks":50,"delay_ms":1,"bytes":16,"turns":1,"calls":1,"call_delay_ms":0}`: a stream of so many chunks with so
//! much time between and so much text each; before that, so many turns with so many tool calls. Fields are found by
//! searching the bytes, since parsing a megabyte would be measured too. `GET` anything: how many it was asked for.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Method, Request, Response};
use memchr::memmem;

use super::serve::{self, Body};

/// The name that the harness gives the tool the model calls; gateways may put their own prefix before it.
const TOOL: &str = "tool_0\"";

pub fn serve(port: u16) -> Result<(), String> {
    let count = Rc::new(Cell::new(0));
    serve::forever(port, move |request| respond(request, count.clone()))
}

struct Wish {
    stream: bool,
    chunks: usize,
    delay: Duration,
    bytes: usize,
    calls: usize,
    call_delay_ms: usize,
    /// The name of the tool to call, when there are turns left.
    tool: Option<String>,
}

async fn respond(request: Request<Incoming>, count: Rc<Cell<u64>>) -> Result<Response<Body>, hyper::Error> {
    if request.method() == Method::GET {
        return Ok(serve::answer("text/plain", serve::full(count.get().to_string())));
    }
    count.set(count.get() + 1);
    let body = request.into_body().collect().await?.to_bytes();
    let wish = read(&body);
    Ok(match (wish.stream, &wish.tool) {
        (false, None) => serve::answer("application/json", serve::full(plain(wish.bytes))),
        (false, Some(tool)) => serve::answer("application/json", serve::full(call_message(&wish, tool))),
        (true, Some(tool)) => serve::answer("text/event-stream", serve::full(call_chunks(&wish, tool))),
        (true, None) => serve::answer("text/event-stream", text_chunks(&wish)),
    })
}

fn read(body: &Bytes) -> Wish {
    let wish = memmem::find(body, b"\"x_bench\"").map_or(&[][..], |at| &body[at..]);
    let wish = memchr::memchr(b'}', wish).map_or(wish, |end| &wish[..end]);
    let turns = integer(wish, "turns", 0);
    let calls = integer(wish, "calls", 1);
    let done =
        if turns > 0 { memmem::find_iter(body, b"\"tool_call_id\"").count() / calls.max(1) } else { 0 };
    let stream = [&b"\"stream\":true"[..], b"\"stream\": true"];
    Wish {
        stream: stream.iter().any(|form| memmem::find(body, form).is_some()),
        chunks: integer(wish, "chunks", 1),
        delay: Duration::from_millis(integer(wish, "delay_ms", 0) as u64),
        bytes: integer(wish, "bytes", 16),
        calls,
        call_delay_ms: integer(wish, "call_delay_ms", 0),
        tool: if done < turns { tool_name(body) } else { None },
    }
}

/// The integer behind `"name":`.
fn integer(text: &[u8], name: &str, default: usize) -> usize {
    let key = format!("\"{name}\":");
    let Some(at) = memmem::find(text, key.as_bytes()) else { return default };
    let digits: Vec<u8> = text[at + key.len()..]
        .iter()
        .copied()
        .skip_while(|byte| *byte == b' ')
        .take_while(u8::is_ascii_digit)
        .collect();
    std::str::from_utf8(&digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(default)
}

/// The first string in the body that ends in the tool's name.
fn tool_name(body: &[u8]) -> Option<String> {
    let end = memmem::find(body, TOOL.as_bytes())? + TOOL.len() - 1;
    let start = memchr::memrchr(b'"', &body[..end])? + 1;
    Some(String::from_utf8_lossy(&body[start..end]).into_owned())
}

fn plain(bytes: usize) -> String {
    format!(
        r#"{{"id":"chatcmpl-bench","object":"chat.completion","created":1,"model":"mock-model","choices":[{{"index":0,"message":{{"role":"assistant","content":"{}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":10,"completion_tokens":10,"total_tokens":20}}}}"#,
        "x".repeat(bytes)
    )
}

fn calls(wish: &Wish, tool: &str) -> String {
    let calls: Vec<String> = (0..wish.calls)
        .map(|index| {
            format!(
                r#"{{"index":{index},"id":"call_{index}","type":"function","function":{{"name":"{tool}","arguments":"{{\"text\":\"n{index}\",\"delay_ms\":{}}}"}}}}"#,
                // The last call is the slowest: parallel calls should take as long as that one.
                wish.call_delay_ms * (index + 1) / wish.calls
            )
        })
        .collect();
    calls.join(",")
}

fn call_message(wish: &Wish, tool: &str) -> String {
    format!(
        r#"{{"id":"chatcmpl-bench","object":"chat.completion","created":1,"model":"mock-model","choices":[{{"index":0,"message":{{"role":"assistant","content":null,"tool_calls":[{}]}},"finish_reason":"tool_calls"}}],"usage":{{"prompt_tokens":10,"completion_tokens":10,"total_tokens":20}}}}"#,
        calls(wish, tool)
    )
}

fn call_chunks(wish: &Wish, tool: &str) -> String {
    let delta = format!(r#"{{"role":"assistant","content":null,"tool_calls":[{}]}}"#, calls(wish, tool));
    format!("{}{}data: [DONE]\n\n", chunk(&delta, "null"), chunk("{}", "\"tool_calls\""))
}

fn chunk(delta: &str, finish_reason: &str) -> String {
    format!(
        r#"data: {{"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1,"model":"mock-model","choices":[{{"index":0,"delta":{delta},"finish_reason":{finish_reason}}}]}}

"#
    )
}

fn text_chunks(wish: &Wish) -> Body {
    let text = Bytes::from(chunk(&format!(r#"{{"content":"{}"}}"#, "x".repeat(wish.bytes)), "null"));
    let last = Bytes::from(format!("{}data: [DONE]\n\n", chunk("{}", "\"stop\"")));
    let (count, delay) = (wish.chunks, wish.delay);
    let frames = stream::unfold(0, move |sent| {
        let (text, last) = (text.clone(), last.clone());
        async move {
            if sent > 0 {
                pause(delay).await;
            }
            match sent {
                _ if sent < count => Some((Ok(Frame::data(text)), sent + 1)),
                _ if sent == count => Some((Ok(Frame::data(last)), sent + 1)),
                _ => None,
            }
        }
    });
    StreamBody::new(frames).boxed_unsync()
}

/// Lets what was written leave before more comes.
async fn pause(delay: Duration) {
    if delay.is_zero() {
        tokio::task::yield_now().await;
    } else {
        tokio::time::sleep(delay).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(body: &str) -> Wish {
        read(&Bytes::copy_from_slice(body.as_bytes()))
    }

    #[test]
    fn the_request_chooses_the_answer() {
        let asked = wish(r#"{"model":"m","stream":true,"x_bench":{"chunks": 50,"delay_ms":2},"chunks":7}"#);
        assert!(asked.stream && asked.chunks == 50 && asked.delay.as_millis() == 2 && asked.tool.is_none());
    }

    #[test]
    fn turns_are_counted_by_tool_messages() {
        let tools = r#""tools":[{"type":"function","function":{"name":"bench_tool_0"}}]"#;
        let first = wish(&format!(r#"{{"x_bench":{{"turns":1,"calls":2}},{tools}}}"#));
        assert_eq!(first.tool.as_deref(), Some("bench_tool_0"));
        let second = wish(&format!(
            r#"{{"messages":[{{"tool_call_id":"a"}},{{"tool_call_id":"b"}}],"x_bench":{{"turns":1,"calls":2}},{tools}}}"#
        ));
        assert_eq!(second.tool, None);
    }
}
