//! Bodies that nobody has read when the answer is there.
//!
//! A connection with the rest of a request on it cannot be used again: it is closed, and a client that is still sending
//! may never see why. So what is refused before its body is read has a small body taken off the connection first.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, header};
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
            Some(body) => Pin::new(body).poll_frame(context),
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

/// Whether a body of such a request is worth taking off. One that is not sent before it is asked for (`Expect`) would be
/// asked for by that.
pub fn is_worth_it(headers: &HeaderMap, body: &impl Body) -> bool {
    !body.is_end_stream() && body.size_hint().lower() <= MOST as u64 && !headers.contains_key(header::EXPECT)
}

/// Takes a body that has come back off the connection.
pub async fn take_off(back: &Back) {
    let unread = back.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(body) = unread {
        let mut body = Limited::new(body, MOST);
        let taking = async { while let Some(Ok(_)) = body.frame().await {} };
        // What is longer, or slower, ends its connection.
        let _ = tokio::time::timeout(TIME, taking).await;
    }
}
