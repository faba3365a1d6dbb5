//! Bodies that nobody has read when the answer is there.
//!
//! A connection with the rest of a request on it cannot be used again: it is closed, and its answer says so. What is
//! refused before its body is read has a small body taken off the connection first, so that it stays good.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

/// Largest body that is taken off, in bytes, and how long that may take.
const MOST: usize = 64 << 10;
const TIME: Duration = Duration::from_secs(1);

/// A body that comes back when it is dropped before its end.
pub struct Lent {
    body: Option<Incoming>,
    back: Back,
}

/// Where it comes back to.
#[derive(Clone, Default)]
pub struct Back(Arc<Mutex<Option<Incoming>>>);

impl Lent {
    /// Lends `body`.
    pub fn new(body: Incoming, back: Back) -> Self {
        Lent { body: Some(body), back }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let unread = self.body.take().filter(|body| !body.is_end_stream());
        *self.back.0.lock().unwrap_or_else(PoisonError::into_inner) = unread;
    }
}

impl Body for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.body {
            Some(body) => {
                let frame = std::task::ready!(Pin::new(body).poll_frame(context));
                if frame.is_none() {
                    // One of unknown length does not say by itself that it is over.
                    self.body = None;
                }
                Poll::Ready(frame)
            }
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

impl Back {
    /// Whether something of the body stays on the connection. A small one `may_be_taken_off` first; not where the client
    /// waits to be asked for it (`Expect`), because that would ask for it.
    pub async fn is_left_unread(&self, may_be_taken_off: bool) -> bool {
        let Some(unread) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() else { return false };
        if !may_be_taken_off || unread.size_hint().lower() > MOST as u64 {
            return true;
        }
        let mut body = Limited::new(unread, MOST);
        let taking = async {
            loop {
                match body.frame().await {
                    Some(Ok(_)) => {}
                    Some(Err(_)) => break true,
                    None => break false,
                }
            }
        };
        // What is longer, or slower, ends its connection.
        tokio::time::timeout(TIME, taking).await.unwrap_or(true)
    }
}
