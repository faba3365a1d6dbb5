//! Reading a streamed completion as a strict client would.

use http::{HeaderMap, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;
use toolgate::sse::Decoder;

/// A stream under way, or read to its end.
pub struct Stream {
    pub headers: HeaderMap,
    body: Incoming,
    decoder: Decoder,
    /// Every chunk so far.
    pub chunks: Vec<Value>,
    pub done: bool,
}

impl Stream {
    pub fn new(response: Response<Incoming>) -> Stream {
        let (head, body) = response.into_parts();
        assert_eq!(head.status, 200);
        Stream {
            headers: head.headers,
            body,
            decoder: Decoder::new(1 << 26),
            chunks: Vec::new(),
            done: false,
        }
    }

    /// The next chunk; `None` when the stream has ended.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(event) = self.decoder.next_event().expect("short events") {
                assert!(!self.done, "nothing follows [DONE]");
                if event.data == "[DONE]" {
                    self.done = true;
                    continue;
                }
                let chunk: Value = serde_json::from_slice(&event.data).expect("chunks are JSON");
                self.chunks.push(chunk.clone());
                return Some(chunk);
            }
            let frame = self.body.frame().await?.ok()?;
            if let Some(data) = frame.data_ref() {
                self.decoder.feed(data);
            }
        }
    }

    /// Reads until `found` says yes to a chunk.
    pub async fn until(&mut self, found: impl Fn(&Value) -> bool) -> Value {
        while let Some(chunk) = self.next().await {
            if found(&chunk) {
                return chunk;
            }
        }
        panic!("the stream ended before the chunk came: {:#?}", self.chunks);
    }

    /// Reads bytes until a comment line has come. Only for when nothing else is to come.
    pub async fn until_comment(&mut self) {
        let mut seen = Vec::new();
        while !seen.windows(2).any(|pair| pair == b"\n:") && !seen.starts_with(b":") {
            let frame = self.body.frame().await.expect("the stream goes on").expect("it is not cut");
            let data = frame.into_data().expect("only data");
            self.decoder.feed(&data);
            seen.extend_from_slice(&data);
        }
    }

    /// Reads to the end, and checks the form that every completion has.
    pub async fn read_to_end(mut self) -> Stream {
        while self.next().await.is_some() {}
        self.check();
        self
    }

    /// One id, one role, one `finish_reason`, gapless indices, `[DONE]`.
    fn check(&self) {
        assert!(self.done, "the stream ends with [DONE]: {:?}", self.chunks.last());
        let completions: Vec<&Value> =
            self.chunks.iter().filter(|chunk| chunk.get("error").is_none()).collect();
        let failed = completions.len() < self.chunks.len();
        let ids: std::collections::HashSet<&str> =
            completions.iter().filter_map(|chunk| chunk["id"].as_str()).collect();
        assert!(ids.len() <= 1, "one id: {ids:?}");
        let roles =
            completions.iter().filter(|chunk| !chunk["choices"][0]["delta"]["role"].is_null()).count();
        assert!(roles == 1 || completions.is_empty(), "one role: {roles}");
        let reasons =
            completions.iter().filter(|chunk| !chunk["choices"][0]["finish_reason"].is_null()).count();
        assert_eq!(reasons, usize::from(!failed), "one finish_reason");
        let mut next = 0;
        for call in completions
            .iter()
            .flat_map(|chunk| chunk["choices"][0]["delta"]["tool_calls"].as_array().into_iter().flatten())
        {
            let index = call["index"].as_u64().expect("an index");
            assert!(index <= next, "indices have no gaps");
            next = next.max(index + 1);
        }
    }

    /// All `content` so far.
    pub fn content(&self) -> String {
        self.chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect()
    }

    pub fn finish_reason(&self) -> Option<&str> {
        self.chunks.iter().find_map(|chunk| chunk["choices"][0]["finish_reason"].as_str())
    }

    /// The `toolgate` objects called `event`.
    pub fn events(&self, event: &str) -> Vec<&Value> {
        self.chunks
            .iter()
            .filter_map(|chunk| chunk.get("toolgate"))
            .filter(|object| object["event"] == event)
            .collect()
    }

    /// The caller's function calls, put together from their parts: `(id, name, arguments)`.
    pub fn calls(&self) -> Vec<(String, String, String)> {
        let mut calls: Vec<(String, String, String)> = Vec::new();
        for part in self
            .chunks
            .iter()
            .flat_map(|chunk| chunk["choices"][0]["delta"]["tool_calls"].as_array().into_iter().flatten())
        {
            let index = usize::try_from(part["index"].as_u64().expect("an index")).expect("a small index");
            calls.resize_with(calls.len().max(index + 1), Default::default);
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            calls[index].0.push_str(&text(&part["id"]));
            calls[index].1.push_str(&text(&part["function"]["name"]));
            calls[index].2.push_str(&text(&part["function"]["arguments"]));
        }
        calls
    }

    /// The error that ended it.
    pub fn error(&self) -> Option<&Value> {
        self.chunks.iter().find_map(|chunk| chunk.get("error"))
    }
}
