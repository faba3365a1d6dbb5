//! Reading the messages of an answer, be it one JSON text or an event stream, within a bound of bytes.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::Response;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::BodyExt;

use super::link::cut;
use super::message::{Message, parse};
use crate::egress::DecodedBody;
use crate::memory_budget::{MemoryExhausted, MemoryReservation};
use crate::sse;
use crate::tools::Error;

/// How long the end of a stream is waited for after its last message, so that the connection can be used again.
const DRAIN: Duration = Duration::from_secs(1);

/// The messages of one answer, one after the other.
pub(crate) struct Messages {
    body: DecodedBody,
    form: Form,
    limit: usize,
    /// What is being read, and was read last.
    memory: MemoryReservation,
    queue: VecDeque<Message>,
    ended: bool,
    /// The id of the last event, to resume after it.
    pub(crate) last_event_id: Option<String>,
    /// How long the server wants us to wait before resuming.
    pub(crate) retry: Option<Duration>,
}

enum Form {
    Json,
    Events(sse::Decoder),
}

impl Messages {
    /// `None` when the answer is neither JSON nor an event stream.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when it announces more than `limit` bytes.
    pub(crate) fn new(
        response: Response<DecodedBody>,
        limit: usize,
        memory: MemoryReservation,
    ) -> Result<Option<Self>, Error> {
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let kind = header(CONTENT_TYPE).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        let form = if kind.eq_ignore_ascii_case("application/json") {
            Form::Json
        } else if kind.eq_ignore_ascii_case("text/event-stream") {
            Form::Events(sse::Decoder::new(limit))
        } else {
            return Ok(None);
        };
        let announced = header(CONTENT_LENGTH).and_then(|length| length.parse::<usize>().ok());
        if announced.is_some_and(|length| length > limit) {
            return Err(Error::TooLarge { limit });
        }
        Ok(Some(Messages {
            body: response.into_body(),
            form,
            limit,
            memory,
            queue: VecDeque::new(),
            ended: false,
            last_event_id: None,
            retry: None,
        }))
    }

    /// The next message, or `None` at the end.
    ///
    /// # Errors
    /// A cut connection, an answer that is too large, or one that is not JSON-RPC.
    pub(crate) async fn next(&mut self) -> Result<Option<Message>, Error> {
        loop {
            if let Some(message) = self.queue.pop_front() {
                return Ok(Some(message));
            }
            if self.ended {
                return Ok(None);
            }
            match &mut self.form {
                Form::Json => {
                    let whole = read_all(&mut self.body, self.limit, &self.memory).await?;
                    self.ended = true;
                    self.queue.extend(parse(&whole)?);
                }
                Form::Events(decoder) => {
                    match decoder.next_event().map_err(|_| Error::TooLarge { limit: self.limit })? {
                        Some(event) => {
                            self.take(event)?;
                            self.memory.shrink(usize::MAX);
                        }
                        None => match self.body.frame().await {
                            Some(frame) => {
                                if let Ok(data) = frame.map_err(cut)?.into_data() {
                                    self.memory.grow(2 * data.len()).await.map_err(no_memory)?;
                                    decoder.feed(&data);
                                }
                            }
                            None => self.ended = true,
                        },
                    }
                }
            }
        }
    }

    fn take(&mut self, event: sse::Event) -> Result<(), Error> {
        if event.id.is_some() {
            self.last_event_id = event.id;
        }
        if let Some(milliseconds) = event.retry_milliseconds {
            self.retry = Some(Duration::from_millis(milliseconds));
        }
        match event.name.as_deref() {
            Some("endpoint") => {
                self.queue.push_back(Message::Endpoint(String::from_utf8_lossy(&event.data).into_owned()));
            }
            // An event without data only brings an id to resume from.
            None | Some("message") if !event.data.is_empty() => self.queue.extend(parse(&event.data)?),
            _ => {}
        }
        Ok(())
    }

    /// Whether the answer is a stream, which may end before it is complete and be resumed.
    pub(crate) fn is_stream(&self) -> bool {
        matches!(self.form, Form::Events(_))
    }

    /// Lets go of an answer whose last interesting message was read. Where the end of the stream is not here
    /// yet, a short task waits for it: dropping it now would cost the connection.
    pub(crate) async fn finish(mut self) {
        if self.ended {
            return;
        }
        for _ in 0..2 {
            while let Some(frame) = self.body.frame().now_or_never() {
                if !matches!(frame, Some(Ok(_))) {
                    return;
                }
            }
            // The end usually comes with the last event; the connection's task only needs its turn to see it.
            tokio::task::yield_now().await;
        }
        tokio::spawn(tokio::time::timeout(DRAIN, async move {
            while let Some(Ok(_)) = self.body.frame().await {}
        }));
    }
}

async fn read_all(body: &mut DecodedBody, limit: usize, memory: &MemoryReservation) -> Result<Bytes, Error> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(cut)?.into_data() else { continue };
        if first.len() + rest.len() + data.len() > limit {
            return Err(Error::TooLarge { limit });
        }
        memory.grow(2 * data.len()).await.map_err(no_memory)?;
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

fn no_memory(_: MemoryExhausted) -> Error {
    Error::Protocol("its answer is larger than the gateway has memory for right now".to_owned())
}
