//! The body of a relayed answer: the provider's bytes as they come, a place among its principal's open answers, an end to
//! streams that have said why they end, and, where the operator wants it, to silence.

use std::io;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use memchr::memmem::{self, Finder};
use serde_json::json;
use tokio::time::{Instant, Sleep, sleep};

use crate::bounds::BoundGuard;
use crate::openai::{ErrorBody, ErrorKind};
use crate::sse;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What a relayed answer is held to.
#[derive(Default)]
pub struct RelayTerms {
    /// Its place among the open answers.
    pub open: BoundGuard,
    /// Silence after which it ends; zero is no limit.
    pub idle: Duration,
    /// The last words of an event stream that fell silent, in the endpoint's own form.
    pub dialect: StreamDialect,
    /// The answer has one choice: once that has its `finish_reason`, the stream ends, whether the provider says `[DONE]` or not.
    pub ends_with_finish: bool,
}

/// How the streams of an endpoint say that something failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StreamDialect {
    /// `data: {"error":{…}}`.
    ChatCompletions,
    /// `event: error`, as Anthropic's messages have it.
    Messages,
    /// Not known: the stream is cut off, so that nobody takes it for whole.
    #[default]
    Other,
}

impl StreamDialect {
    /// The dialect of an endpoint, by its path with or without a query.
    pub fn of_path(path: &str) -> Self {
        let path = path.split('?').next().unwrap_or_default();
        match path.rsplit('/').next().unwrap_or_default() {
            "completions" => StreamDialect::ChatCompletions,
            "messages" => StreamDialect::Messages,
            _ => StreamDialect::Other,
        }
    }

    fn last_words(self, seconds: u64) -> Option<Bytes> {
        let message =
            format!("the provider has sent nothing for {seconds} s, so the answer ends here; try again");
        let mut out = Vec::new();
        match self {
            StreamDialect::ChatCompletions => {
                let error = ErrorBody::new(ErrorKind::Upstream, Some("provider_stream_error"), message);
                sse::data(&mut out, &error.to_bytes());
            }
            StreamDialect::Messages => {
                out.extend_from_slice(b"event: error\n");
                let error = json!({ "type": "error", "error": { "type": "api_error", "message": message } });
                sse::data(&mut out, error.to_string().as_bytes());
            }
            StreamDialect::Other => return None,
        }
        Some(out.into())
    }
}

/// The body of a relayed answer with these headers. Where there is nothing to hold it to, it is the provider's own.
pub fn relay_body(body: Incoming, headers: &HeaderMap, terms: RelayTerms) -> Body {
    let is_plain_stream = !headers.contains_key(header::CONTENT_LENGTH)
        && !headers.contains_key(header::CONTENT_ENCODING)
        && headers
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    let finish =
        if terms.ends_with_finish && is_plain_stream { FinishWatch::Awaited } else { FinishWatch::Ignored };
    if terms.open.is_empty() && terms.idle.is_zero() && matches!(finish, FinishWatch::Ignored) {
        return Body::new(body);
    }
    Body::new(RelayBody {
        body,
        _open: terms.open,
        idle: terms.idle,
        silence: (!terms.idle.is_zero()).then(|| Box::pin(sleep(terms.idle))),
        dialect: if is_plain_stream { terms.dialect } else { StreamDialect::Other },
        finish,
        tail: *b"\n\n",
        has_ended: false,
    })
}

/// Silence after a `finish_reason` that ends a stream. Token counts come in that time.
const AFTER_FINISH: Duration = Duration::from_secs(3);

/// Watches a stream of one choice for its end.
enum FinishWatch {
    /// Nobody looks for it.
    Ignored,
    Awaited,
    /// The provider has said why the answer ends, and perhaps `[DONE]`.
    Said {
        silence: Pin<Box<Sleep>>,
        is_done: bool,
    },
}

impl FinishWatch {
    fn note(&mut self, data: &[u8]) {
        static REASON: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"finish_reason\":"));
        let is_given = |at: usize| data[at..].trim_ascii_start().first() == Some(&b'"');
        match self {
            FinishWatch::Ignored => {}
            FinishWatch::Awaited => {
                if REASON.find_iter(data).any(|at| is_given(at + REASON.needle().len())) {
                    let is_done = memmem::find(data, b"[DONE]").is_some();
                    *self = FinishWatch::Said { silence: Box::pin(sleep(AFTER_FINISH)), is_done };
                }
            }
            FinishWatch::Said { silence, is_done } => {
                silence.as_mut().reset(Instant::now() + AFTER_FINISH);
                *is_done |= memmem::find(data, b"[DONE]").is_some();
            }
        }
    }

    /// Ready when the stream is to end, with whether `[DONE]` was said.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        match self {
            FinishWatch::Said { silence, is_done } => silence.as_mut().poll(cx).map(|()| *is_done),
            FinishWatch::Ignored | FinishWatch::Awaited => Poll::Pending,
        }
    }
}

struct RelayBody {
    body: Incoming,
    _open: BoundGuard,
    idle: Duration,
    silence: Option<Pin<Box<Sleep>>>,
    dialect: StreamDialect,
    finish: FinishWatch,
    /// The last two bytes: only behind a whole event may another one begin.
    tail: [u8; 2],
    has_ended: bool,
}

impl RelayBody {
    fn note(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            self.finish.note(data);
        }
        if let Some(silence) = &mut self.silence {
            silence.as_mut().reset(Instant::now() + self.idle);
        }
        if self.silence.is_some() || matches!(self.finish, FinishWatch::Said { .. }) {
            for byte in frame.data_ref().map(|data| &data[data.len().saturating_sub(4)..]).unwrap_or_default()
            {
                // Lines may end in CR LF.
                if *byte != b'\r' {
                    self.tail = [self.tail[1], *byte];
                }
            }
        }
    }

    /// The end of an answer whose provider has said why it ends, and leaves the connection open.
    fn finish(&mut self, is_done: bool) -> Option<Result<Frame<Bytes>, BoxError>> {
        self.has_ended = true;
        let may_say_done = !is_done && self.tail == *b"\n\n";
        may_say_done.then(|| Ok(Frame::data(Bytes::from_static(b"data: [DONE]\n\n"))))
    }

    /// The end of an answer that fell silent.
    fn give_up(&mut self) -> Option<Result<Frame<Bytes>, BoxError>> {
        let seconds = self.idle.as_secs();
        self.has_ended = true;
        tracing::info!(seconds, "a relayed answer fell silent and was ended");
        let last_words = self.dialect.last_words(seconds).filter(|_| self.tail == *b"\n\n");
        Some(match last_words {
            Some(last_words) => Ok(Frame::data(last_words)),
            None => Err(io::Error::new(io::ErrorKind::TimedOut, "the provider fell silent").into()),
        })
    }
}

impl http_body::Body for RelayBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            if let Some(Ok(frame)) = &frame {
                self.note(frame);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        if let Poll::Ready(is_done) = self.finish.poll(cx) {
            return Poll::Ready(self.finish(is_done));
        }
        let silence = self.silence.as_mut().map(|silence| silence.as_mut().poll(cx).is_ready());
        if silence == Some(true) { Poll::Ready(self.give_up()) } else { Poll::Pending }
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_says_how_a_stream_fails() {
        for (path, dialect) in [
            ("/chat/completions", StreamDialect::ChatCompletions),
            ("/v1/completions?x=1", StreamDialect::ChatCompletions),
            ("/v1/messages", StreamDialect::Messages),
            ("/v1/responses", StreamDialect::Other),
            ("", StreamDialect::Other),
        ] {
            assert_eq!(StreamDialect::of_path(path), dialect, "{path}");
        }
    }

    #[test]
    fn the_last_words_are_an_event_of_their_dialect() {
        let words = |dialect: StreamDialect| {
            dialect.last_words(7).map(|words| String::from_utf8(words.to_vec()).unwrap()).unwrap_or_default()
        };
        assert!(
            words(StreamDialect::ChatCompletions).starts_with("data: {\"error\":{\"message\":\"the provider")
        );
        assert!(words(StreamDialect::Messages).starts_with("event: error\ndata: {\"type\":\"error\","));
        assert_eq!(words(StreamDialect::Other), "");
    }
}
