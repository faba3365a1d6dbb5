//! Sending one request.

use std::sync::Arc;
use std::time::Duration;

use http::header::HOST;
use http::{Method, Request, Response, Uri};
use hyper::body::Incoming;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::connect::Connector;
use super::error::one_line;
use super::policy::Policy;
use super::target::Target;
use super::tls::Tls;
use super::{Body, Error, Lookup, Refusal};
use crate::config;

/// Largest response head, and the most that one read takes, in bytes.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// Shorter than the minute after which most servers close an idle connection.
const IDLE: Duration = Duration::from_secs(50);

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
pub struct Egress(Arc<Inner>);

struct Inner {
    policy: Arc<Policy>,
    /// Two pools: a connection that only the operator may cause never serves a request's address.
    configured: Client<Connector, Body>,
    requested: Client<Connector, Body>,
    max_redirects: usize,
}

impl Egress {
    /// A client under `settings`; `local` also allows this machine's own addresses to requests.
    ///
    /// # Errors
    /// [`Error::Settings`] when a rule in them cannot be used.
    pub fn new(settings: &config::Egress, local: bool, lookup: Lookup) -> Result<Self, Error> {
        Egress::with_tls(settings, local, lookup, Tls::default())
    }

    pub(super) fn with_tls(
        settings: &config::Egress,
        local: bool,
        lookup: Lookup,
        tls: Tls,
    ) -> Result<Self, Error> {
        let policy = Arc::new(Policy::new(&settings.allow, local)?);
        let tls = Arc::new(tls);
        let timeout = Duration::from_secs(settings.connect_seconds);
        let client = |reach| {
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(settings.idle_connections_per_host)
                .http1_max_buf_size(MAX_HEAD_BYTES)
                .build(Connector::new(reach, policy.clone(), lookup.clone(), tls.clone(), timeout))
        };
        Ok(Egress(Arc::new(Inner {
            configured: client(Reach::Configured),
            requested: client(Reach::Requested),
            policy,
            max_redirects: settings.max_redirects,
        })))
    }

    /// Whether a request may name this address, as far as that can be said without resolving it.
    ///
    /// # Errors
    /// The [`Refusal`] that names the reason.
    pub fn check(&self, uri: &Uri) -> Result<(), Refusal> {
        self.0.policy.check(&Target::of(uri)?)
    }

    /// Sends one request and gives the head of the answer; no redirect is followed.
    /// `first_byte` bounds the time to that head, the connecting included. The `Host` header is always
    /// the URI's, and nothing is sent twice unless the first attempt wrote nothing.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn send(
        &self,
        reach: Reach,
        mut request: Request<Body>,
        first_byte: Duration,
    ) -> Result<Response<Incoming>, Error> {
        if request.method() == Method::CONNECT {
            return Err(Refusal::Method(request.method().to_string()).into());
        }
        let client = match reach {
            Reach::Configured => &self.0.configured,
            Reach::Requested => {
                let target = Target::of(request.uri())?;
                self.0.policy.check(&target)?;
                *request.uri_mut() = target.canonical(std::mem::take(request.uri_mut()));
                &self.0.requested
            }
        };
        request.headers_mut().remove(HOST);
        let uri = request.uri().clone();
        match tokio::time::timeout(first_byte, client.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(classify(&error, &uri)),
            Err(_) => Err(Error::Timeout { host: host_of(&uri), after: first_byte }),
        }
    }

    pub(super) fn max_redirects(&self) -> usize {
        self.0.max_redirects
    }
}

fn host_of(uri: &Uri) -> String {
    uri.host().unwrap_or_default().to_owned()
}

/// The connector's own error where it failed, else what broke the exchange.
fn classify(error: &legacy::Error, uri: &Uri) -> Error {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(ours) = inner.downcast_ref::<Error>() {
            return ours.clone();
        }
        cause = inner.source();
    }
    let (host, reason) = (host_of(uri), one_line(error));
    if error.is_connect() { Error::Connect { host, reason } } else { Error::Closed { host, reason } }
}
