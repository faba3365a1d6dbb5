//! Accepting connections, and letting go of them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::Error;
use super::address_connections::AddressConnections;
use super::connection::{ClientSocket, ExchangeState};
use super::front::Front;
use crate::config::Limits;

/// Largest request head, and the most that is read ahead of a slow handler.
const READ_BUFFER_BYTES: usize = 16 << 10;
/// Connections at a time; the next one waits.
const MAX_CONNECTIONS: usize = 65_536;

/// Opens the listener.
///
/// # Errors
/// [`Error::AddressInUse`], [`Error::Listen`].
pub fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    let open = || -> io::Result<TcpListener> {
        let socket = if address.is_ipv4() {
            tokio::net::TcpSocket::new_v4()?
        } else {
            tokio::net::TcpSocket::new_v6()?
        };
        #[cfg(unix)]
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(4096)
    };
    open().map_err(|error| Error::listen(address, &error))
}

/// Serves until `stop` is ready, then lets open requests finish for as long as `limits` say.
pub async fn accept(listener: TcpListener, front: Front, limits: &Limits, stop: impl Future<Output = ()>) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(limits.header_seconds))
        .max_buf_size(READ_BUFFER_BYTES);
    let open = GracefulShutdown::new();
    let addresses = AddressConnections::new(limits.connections_per_address);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    tokio::pin!(stop);
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => (prepared(stream), peer.ip()),
                Err(error) => { pause_after(&error).await; continue }
            },
            () = &mut stop => break,
        };
        // There is nobody to tell: an answer would take what the connection may not have.
        let Some(seat) = addresses.enter(peer) else { continue };
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
        let state = Arc::<ExchangeState>::default();
        let front = front.facing(peer, Arc::clone(&state));
        let write_timeout = Duration::from_secs(limits.write_seconds);
        let connection = open.watch(serve_one(&http, ClientSocket::new(stream, state, write_timeout), front));
        // An error here is a client that broke off or spoke no HTTP; there is nobody to tell. Not an `async` block,
        // which would keep room for the connection twice.
        tokio::spawn(connection.map(move |_| drop((place, seat))));
    }
    drop(listener);
    let seconds = limits.shutdown_seconds;
    if tokio::time::timeout(Duration::from_secs(seconds), open.shutdown()).await.is_err() {
        tracing::warn!(seconds, "streams were still open when the time for stopping was over");
    }
}

fn prepared(stream: TcpStream) -> TcpStream {
    // Without this every small chunk may wait for the client's delayed acknowledgement, 40 ms.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    stream
}

fn serve_one(
    http: &http1::Builder,
    socket: ClientSocket,
    front: Front,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = hyper::Error> + use<> {
    // Boxed, so that its memory is given back when the head of a stream is out: a connection keeps room for this
    // future as long as it lives.
    let service = hyper::service::service_fn(move |request| Box::pin(front.clone().answer(request)));
    http.serve_connection(TokioIo::new(socket), service)
}

/// An accept that fails for want of file descriptors fails again at once: wait a little.
async fn pause_after(error: &io::Error) {
    let harmless = matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset);
    if !harmless {
        tracing::error!(%error, "cannot accept connections");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
