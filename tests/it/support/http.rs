//! A plain HTTP client for the tests.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::Stream;

/// Speaks to one gateway.
#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    pool: Pool<HttpConnector, Full<Bytes>>,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// `choices[0].message.content`.
    pub fn content(&self) -> String {
        self.json()["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned()
    }
}

impl Client {
    pub fn new(address: SocketAddr) -> Client {
        Client { address, pool: Pool::builder(TokioExecutor::new()).build_http() }
    }

    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Response<Incoming> {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            // As bytes, so that a test can send what no program should.
            request = request.header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        self.pool.request(request.body(Full::new(body.into())).unwrap()).await.expect("the gateway answers")
    }

    pub async fn get(&self, path: &str) -> Answer {
        whole(self.send("GET", path, &[], "").await).await
    }

    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        self.post_text(path, headers, &body.to_string()).await
    }

    pub async fn post_text(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut all = vec![("content-type", "application/json")];
        all.extend(headers);
        whole(self.send("POST", path, &all, body.to_owned()).await).await
    }

    /// A chat completion, not streamed.
    pub async fn chat(&self, body: &Value) -> Answer {
        self.post("/v1/chat/completions", &[], body).await
    }

    /// A streamed chat completion.
    pub async fn stream(&self, body: &Value) -> Stream {
        self.stream_with(&[], body).await
    }

    /// A streamed chat completion, with these headers.
    pub async fn stream_with(&self, headers: &[(&str, &str)], body: &Value) -> Stream {
        let mut body = body.clone();
        body["stream"] = true.into();
        let mut all = vec![("content-type", "application/json")];
        all.extend(headers);
        Stream::new(self.send("POST", "/v1/chat/completions", &all, body.to_string()).await)
    }

    /// A connection of its own on which this chat completion was asked. Dropping it is hanging up.
    pub async fn connect(&self, body: &Value) -> TcpStream {
        let mut connection = TcpStream::connect(self.address).await.expect("the gateway listens");
        let body = body.to_string();
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        connection.write_all(request.as_bytes()).await.expect("the gateway reads");
        connection
    }
}

/// Reads an answer to its end.
pub async fn whole(response: Response<Incoming>) -> Answer {
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("the body arrives").to_bytes();
    Answer { status: head.status.as_u16(), headers: head.headers, body }
}
