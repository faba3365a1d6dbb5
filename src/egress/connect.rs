//! Makes connections: resolve, check every address, dial a checked one. Never dials what it did not check.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use http::Uri;
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};
use tower_service::Service;

use super::error::one_line;
use super::policy::Policy;
use super::stream::Stream;
use super::target::{Host, Target};
use super::tls::Tls;
use super::{Error, Reach};

/// Resolves a host name to addresses. An argument, so that tests can answer differently each time.
pub type Lookup = Arc<dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// The operating system's resolver.
pub fn system_lookup() -> Lookup {
    Arc::new(|host, port| Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) }))
}

/// Addresses of one host that are tried; all of them are checked.
const MAX_DIALLED: usize = 8;
/// Head start of one address over the next. RFC 8305 §5.
const STAGGER: Duration = Duration::from_millis(250);

/// Connects for one reach. Cheap to clone.
#[derive(Clone)]
pub(super) struct Connector(Arc<Inner>);

struct Inner {
    reach: Reach,
    policy: Arc<Policy>,
    lookup: Lookup,
    tls: Arc<Tls>,
    timeout: Duration,
}

impl Connector {
    /// `timeout` bounds resolving, dialling and TLS together.
    pub fn new(reach: Reach, policy: Arc<Policy>, lookup: Lookup, tls: Arc<Tls>, timeout: Duration) -> Self {
        Connector(Arc::new(Inner { reach, policy, lookup, tls, timeout }))
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Self::Response, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let target = Target::of(&uri)?;
            match tokio::time::timeout(inner.timeout, inner.connect(&target)).await {
                Ok(connected) => connected,
                Err(_) => Err(Error::Connect {
                    host: target.host.to_string(),
                    reason: format!("nothing within {} s", inner.timeout.as_secs_f32()),
                }),
            }
        })
    }
}

impl Inner {
    async fn connect(&self, target: &Target) -> Result<Stream, Error> {
        let addresses = self.resolve(target).await?;
        let tcp = dial(&addresses)
            .await
            .map_err(|e| Error::Connect { host: target.host.to_string(), reason: dial_reason(&e) })?;
        let stream = Stream::Tcp(TokioIo::new(tcp));
        if target.https { self.tls.connect(&target.host, stream).await } else { Ok(stream) }
    }

    /// The addresses of the target, every one of them checked.
    async fn resolve(&self, target: &Target) -> Result<Vec<SocketAddr>, Error> {
        let requested = self.reach == Reach::Requested;
        if requested {
            self.policy.check(target)?;
        }
        let addresses = match &target.host {
            Host::Ip(ip) => vec![SocketAddr::new(*ip, target.port)],
            Host::Name(name) => (self.lookup)(name.clone(), target.port)
                .await
                .map_err(|_| Error::NameNotFound(name.clone()))?,
        };
        if addresses.is_empty() {
            return Err(Error::NameNotFound(target.host.to_string()));
        }
        if requested {
            addresses.iter().try_for_each(|address| self.policy.check_address(target, address.ip()))?;
        }
        Ok(addresses)
    }
}

/// Connects to the first address that answers, giving each a head start over the next. RFC 8305, without
/// its history of past results.
async fn dial(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut waiting = alternate_families(addresses).into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        match waiting.next() {
            Some(address) => attempts.push(dial_one(address)),
            None if attempts.is_empty() => return Err(failure),
            None => {}
        }
        tokio::select! {
            Some(attempt) = attempts.next() => match attempt {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            },
            () = tokio::time::sleep(STAGGER), if waiting.len() > 0 => {}
        }
    }
}

/// The resolver's order, with the families taking turns, so that one broken family costs one head start.
pub(super) fn alternate_families(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let mut firsts = addresses.iter().filter(|a| a.is_ipv6() == first_is_v6);
    let mut others = addresses.iter().filter(|a| a.is_ipv6() != first_is_v6);
    let mut ordered = Vec::with_capacity(addresses.len().min(MAX_DIALLED));
    while ordered.len() < MAX_DIALLED {
        let before = ordered.len();
        ordered.extend(firsts.next().into_iter().chain(others.next()));
        if ordered.len() == before {
            break;
        }
    }
    ordered
}

async fn dial_one(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Without it a small write waits for the peer's delayed acknowledgement: 40 ms.
    socket.set_nodelay(true)?;
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15));
    SockRef::from(&socket).set_tcp_keepalive(&keepalive)?;
    socket.connect(address).await
}

fn dial_reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "nothing listens there (connection refused)".into(),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "no route to it".into(),
        io::ErrorKind::TimedOut => "it did not answer".into(),
        _ => one_line(error),
    }
}
