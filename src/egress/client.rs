//! Sending one request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::{Error, Refusal};
use crate::config;

/// The body of an outbound request.
pub type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Resolves a host name to addresses. An argument, so that tests can answer differently each time.
pub type Lookup =
    Arc<dyn Fn(String, u16) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// Who named the address that is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The operator, in the configuration: any address.
    Configured,
    /// A request: public addresses only, and what the operator allows.
    Requested,
}

/// The outbound client. Cheap to clone.
#[derive(Clone)]
pub struct Egress {
    client: Client<HttpsConnector<HttpConnector>, Body>,
}

/// A body that is wholly in memory.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// The operating system's resolver.
pub fn system_lookup() -> Lookup {
    Arc::new(|host, port| Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) }))
}

impl Egress {
    /// A client under `settings`; `local` also allows loopback addresses to requests.
    ///
    /// # Errors
    /// When the machine's root certificates cannot be used.
    pub fn new(_settings: &config::Egress, _local: bool, _lookup: Lookup) -> Result<Self, Error> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(placeholder())
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(http);
        Ok(Egress { client: Client::builder(TokioExecutor::new()).build(connector) })
    }

    /// Whether a request may name this address, as far as that can be said without resolving it.
    ///
    /// # Errors
    /// The [`Refusal`] that names the reason.
    pub fn check(&self, uri: &Uri) -> Result<(), Refusal> {
        match uri.scheme_str() {
            Some("http" | "https") => Ok(()),
            other => Err(Refusal::Scheme(other.unwrap_or("").to_owned())),
        }
    }

    /// Sends one request and gives the head of the answer; no redirect is followed.
    /// `first_byte` bounds the time to that head, the connecting included.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn send(
        &self,
        _reach: Reach,
        request: Request<Body>,
        first_byte: Duration,
    ) -> Result<Response<Incoming>, Error> {
        let host = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        match tokio::time::timeout(first_byte, self.client.request(request)).await {
            Err(_) => Err(Error::Timeout { host, after: first_byte }),
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) if error.is_connect() => Err(Error::Connect { host, reason: error.to_string() }),
            Ok(Err(error)) => Err(Error::Closed { host, reason: error.to_string() }),
        }
    }
}

fn placeholder() -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the default protocol versions are supported")
        .with_root_certificates(roots)
        .with_no_client_auth()
}
