//! A bare proxy: what a hyper server and hyper client cost that read the request's JSON to its top-level fields and
//! forward the bytes. A second reference beside nginx: what a Rust gateway could at best reach.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};

use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde_json::value::RawValue;
use tokio::net::TcpListener;

type Outbound = Client<HttpConnector, Full<bytes::Bytes>>;

pub fn serve(port: u16, provider: u16) -> Result<(), String> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(async move {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client: Outbound =
            Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
            .await
            .map_err(|error| format!("port {port}: {error}"))?;
        loop {
            let (stream, _) = listener.accept().await.map_err(|error| error.to_string())?;
            stream.set_nodelay(true).map_err(|error| error.to_string())?;
            let client = client.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| forward(client.clone(), provider, request));
                // A client that goes away is no event here.
                let _ = hyper::server::conn::http1::Builder::new()
                    .max_buf_size(2 << 20)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    })
}

async fn forward(
    client: Outbound,
    provider: u16,
    request: Request<Incoming>,
) -> Result<Response<Incoming>, Box<dyn std::error::Error + Send + Sync>> {
    let (mut head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    if !body.is_empty() {
        let fields: HashMap<&str, &RawValue> = serde_json::from_slice(&body)?;
        std::hint::black_box(fields.get("model"));
    }
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    head.uri = Uri::try_from(format!("http://127.0.0.1:{provider}{path}"))?;
    head.headers.remove("host");
    Ok(client.request(Request::from_parts(head, Full::new(body))).await?)
}
