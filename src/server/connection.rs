//! One client's connection: what its silence and its end mean.
//!
//! A client that has sent its request may close its half of the connection and still wait for the answer; one that has
//! left looks just the same (RFC 9112 §9.6). The difference shows when something is sent: whoever left answers with a
//! reset. So a client that closes before its answer begins is sent `100 Continue`, which every client must be able to
//! skip (RFC 9110 §15.2), and is given up only when it is gone. Once an event stream has begun, whoever closes has left;
//! any other answer is sent to its end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// What a client that has closed its half is sent to find out whether it is still there.
const STILL_THERE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// How long a client of HTTP/1.0, which may not be sent that, gets its answer after it has closed its half.
const OLD_CLIENT: Duration = Duration::from_secs(30);
/// How long, and how much, is still read from a client that gets its answer in the middle of its request. It would lose
/// the answer if the connection ended while it sends (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(5);
const LINGER_SILENCE: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 << 20;

/// Time to read a request that came together with the end of its client's half. A head that is not whole after it is torn.
const HEAD_GRACE: Duration = Duration::from_secs(1);

const IDLE: u8 = 0;
const ANSWERING: u8 = 1;
const ANSWERING_OLD: u8 = 2;
/// The head of an answer is there.
const SENDING: u8 = 3;
/// As `SENDING`, of an event stream.
const STREAMING: u8 = 4;
/// The answer is there to its end, and perhaps not sent yet.
const FINISHING: u8 = 5;

/// What a connection is at, told by the service that answers on it to the socket below it.
#[derive(Default)]
pub(super) struct ExchangeState {
    phase: AtomicU8,
    /// The client has closed its half, and its answer is awaited all the same.
    half_closed: AtomicBool,
    /// Something of a request was left unread.
    unread: AtomicBool,
    reader: AtomicWaker,
}

impl ExchangeState {
    /// A request of this version of HTTP has come.
    pub fn begin(&self, version: http::Version) {
        let phase = if version < http::Version::HTTP_11 { ANSWERING_OLD } else { ANSWERING };
        self.phase.store(phase, Ordering::Release);
        self.reader.wake();
    }

    /// The head of its answer is there.
    pub fn send(self: Arc<Self>, is_stream: bool) -> Exchange {
        self.phase.store(if is_stream { STREAMING } else { SENDING }, Ordering::Release);
        Exchange(self)
    }

    /// The rest of the request will not be read, so that the connection ends with the answer.
    pub fn leave_unread(&self) {
        self.unread.store(true, Ordering::Release);
    }
}

/// An answer that is being sent, until it is dropped.
pub(super) struct Exchange(Arc<ExchangeState>);

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.phase.store(FINISHING, Ordering::Release);
        if self.0.half_closed.load(Ordering::Acquire) {
            self.0.reader.wake();
        }
    }
}

/// The socket as HTTP sees it.
pub(super) struct ClientSocket {
    stream: TcpStream,
    state: Arc<ExchangeState>,
    write_timeout: Duration,
    /// Runs while the client reads nothing of what is to be sent.
    stalled: Option<Pin<Box<Sleep>>>,
    /// What was given to be sent is not all sent.
    unsent: bool,
    /// Something was read since the last answer was sent: a request has begun, perhaps to its end.
    has_begun: bool,
    /// Runs while the client has closed its half, and its request is not known to be whole.
    head_grace: Option<Pin<Box<Sleep>>>,
    /// Ready when a client that closed its half has gone.
    gone: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    linger: Linger,
}

enum Linger {
    NotYet,
    /// When it ends at the latest, when for want of more, and how much has been read.
    Until(Instant, Pin<Box<Sleep>>, usize),
    Over,
}

impl ClientSocket {
    /// A connection whose client may leave what it is sent unread for `write_timeout`.
    pub fn new(stream: TcpStream, state: Arc<ExchangeState>, write_timeout: Duration) -> Self {
        ClientSocket {
            stream,
            state,
            write_timeout,
            stalled: None,
            unsent: false,
            has_begun: false,
            head_grace: None,
            gone: None,
            linger: Linger::NotYet,
        }
    }

    /// The client will send no more. `Pending` while its answer is due all the same.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.state.reader.register(context.waker());
        let phase = self.state.phase.load(Ordering::Acquire);
        match (phase, &self.gone) {
            (IDLE, None) if self.has_begun => {
                let grace = || Box::pin(tokio::time::sleep(HEAD_GRACE));
                ready!(self.head_grace.get_or_insert_with(grace).as_mut().poll(context));
                return Poll::Ready(Ok(()));
            }
            (IDLE, _) if !self.unsent => return Poll::Ready(Ok(())),
            (STREAMING, None) => return Poll::Ready(Ok(())),
            (_, None) => {
                self.state.half_closed.store(true, Ordering::Release);
                self.gone = Some(self.watch(phase));
            }
            (_, Some(_)) => {}
        }
        match self.gone.as_mut().map(|gone| gone.as_mut().poll(context)) {
            Some(Poll::Ready(())) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            _ => Poll::Pending,
        }
    }

    /// Ready when the client that closed its half is found to have gone.
    fn watch(&self, phase: u8) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        if phase == ANSWERING_OLD {
            return Box::pin(tokio::time::sleep(OLD_CLIENT));
        }
        // A second handle, because this one says "ready to read" for ever now.
        let second = SockRef::from(&self.stream).try_clone().map(std::net::TcpStream::from);
        let second = second.and_then(TcpStream::from_std);
        // Behind an answer that is on its way it would stand in the middle of it.
        if phase == ANSWERING && !self.unsent {
            let _ = self.stream.try_write(STILL_THERE);
        }
        Box::pin(async move {
            match second {
                Ok(stream) => drop(stream.ready(Interest::ERROR).await),
                Err(_) => std::future::pending().await,
            }
        })
    }

    fn note_write(
        &mut self,
        context: &mut Context<'_>,
        wrote: Poll<io::Result<usize>>,
        given: usize,
    ) -> Poll<io::Result<usize>> {
        match wrote {
            Poll::Ready(result) => {
                let unsent = result.as_ref().is_ok_and(|wrote| *wrote < given);
                if self.unsent && !unsent && self.gone.is_some() {
                    self.state.reader.wake();
                }
                self.unsent = unsent;
                self.stalled = None;
                Poll::Ready(result)
            }
            Poll::Pending => {
                self.unsent = true;
                let write_timeout = self.write_timeout;
                let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(write_timeout)));
                ready!(stalled.as_mut().poll(context));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }

    /// Reads what a client still sends that has its answer, and forgets it.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if matches!(self.linger, Linger::NotYet) {
            let needed = self.state.unread.load(Ordering::Acquire);
            self.linger = if needed {
                Linger::Until(Instant::now() + LINGER, Box::pin(tokio::time::sleep(LINGER_SILENCE)), 0)
            } else {
                Linger::Over
            };
        }
        let Linger::Until(latest, end, read) = &mut self.linger else { return Poll::Ready(()) };
        let mut space = [0; 8192];
        while end.as_mut().poll(context).is_pending() {
            let mut buffer = ReadBuf::new(&mut space);
            match ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() && *read < LINGER_BYTES => {
                    *read += buffer.filled().len();
                    end.as_mut().reset((Instant::now() + LINGER_SILENCE).min(*latest));
                }
                _ => break,
            }
        }
        self.linger = Linger::Over;
        Poll::Ready(())
    }
}

impl AsyncRead for ClientSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if self.gone.is_none() {
            ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        }
        if buffer.filled().len() > before {
            self.has_begun = true;
            return Poll::Ready(Ok(()));
        }
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        self.poll_end(context)
    }
}

impl AsyncWrite for ClientSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note_write(context, wrote, bytes.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.note_write(context, wrote, parts.iter().map(|part| part.len()).sum())
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        let idle = self.state.phase.compare_exchange(FINISHING, IDLE, Ordering::AcqRel, Ordering::Acquire);
        if idle.is_ok() {
            // What was sent together with that request is read when it has been answered.
            self.has_begun = false;
            if self.state.half_closed.load(Ordering::Acquire) {
                self.state.reader.wake();
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        ready!(self.poll_linger(context));
        Poll::Ready(Ok(()))
    }
}
