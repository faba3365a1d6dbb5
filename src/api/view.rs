//! The two viewers of a run over HTTP, and the answer of a relayed request.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderName, HeaderValue, header};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout, timeout_at};

use super::ApiError;
use super::error::{RESULT_URL, RUN_ID, moved, vanished_run};
use super::reading::json_text;
use super::relay_body::{RelayTerms, relay_body};
use crate::bounds::BoundGuard;
use crate::completion::event::{RunError, RunEvent};
use crate::completion::{Answer, CalledTools, CancelOnDrop, Chunks, Started, Viewer};
use crate::memory_budget::MemoryReservation;
use crate::sse;

const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// After the provider has taken the request, how long its first words may decide about the status.
const FIRST_WORDS: Duration = Duration::from_secs(2);
/// Most bytes of chunks that are sent as one piece.
const PIECE_BYTES: usize = 64 << 10;

/// The provider's answer as it is. Event streams are kept from being buffered by proxies.
pub fn relayed(response: http::Response<Incoming>, terms: RelayTerms) -> Response {
    let (mut head, body) = response.into_parts();
    let streamed = head
        .headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    if streamed {
        head.headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    }
    let body = relay_body(body, &head.headers, terms);
    Response::from_parts(head, body)
}

/// The run as one JSON answer, counted in `memory` until the client has it.
///
/// # Errors
/// The run's own.
pub async fn whole(started: Started, memory: MemoryReservation) -> Result<Response, ApiError> {
    started.created().await?;
    let Started { run_id, result_url, model, created, age, output, mut events, task, .. } = started;
    let mut answer = Answer::new(run_id.clone(), model, created, output, memory);
    let (mut ended, called) = (false, CalledTools::default());
    while let Some(event) = events.next().await {
        ended |= event.is_last();
        called.note(&event);
        // Only here, where nobody else sees it.
        answer.add(Arc::unwrap_or_clone(event));
    }
    drop(task);
    if !ended {
        return Err(called.explain(gone(result_url.as_deref())).into());
    }
    let failed = |error: RunError| ApiError::from(error).of_run(&run_id, result_url.as_deref());
    let (answer, memory) = answer.finish().map_err(failed)?;
    // As much again for its text. An answer that nobody else has is not given up for want of it.
    let bytes = memory.held();
    if memory.grow(bytes).await.is_err() {
        memory.grow_anyway(bytes);
    }
    let text = json_text(&answer, memory.held());
    drop(answer);
    let mut response = Response::new(Body::from(memory.bind(text)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    name_run(&mut response, &run_id, result_url.as_deref(), age);
    Ok(response)
}

/// The run as an event stream. The head is held back until it is clear that there is an answer, so that failures
/// keep their status.
///
/// # Errors
/// The run's own, if it fails before its first words.
pub async fn stream(
    started: Started,
    keep_alive_seconds: u64,
    open: BoundGuard,
) -> Result<Response, ApiError> {
    started.created().await?;
    let Started { run_id, result_url, model, created, age, include_usage, output, mut events, task, .. } =
        started;
    let early = first_words(&mut events, result_url.as_deref()).await;
    let early = early.map_err(|error| error.of_run(&run_id, result_url.as_deref()))?;
    let mut chunks = Chunks::new(run_id.clone(), model, created, output, include_usage);
    let mut first = Vec::with_capacity(1024);
    for event in early {
        chunks.write(&event, &mut first);
    }
    let keep_alive = Duration::from_secs(keep_alive_seconds.max(1));
    let state = Box::new(Streaming {
        chunks,
        events,
        keep_alive,
        result_url: result_url.clone(),
        first: Some(first).filter(|bytes| !bytes.is_empty()),
        _task: task,
        _open: open,
    });
    let mut response = Response::new(Body::from_stream(stream::unfold(state, next)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    name_run(&mut response, &run_id, result_url.as_deref(), age);
    Ok(response)
}

fn name_run(response: &mut Response, run_id: &str, result_url: Option<&str>, age: Option<u64>) {
    if let Some(age) = age {
        // RFC 9111 §5.1: the answer is not of this request alone.
        response.headers_mut().insert(header::AGE, HeaderValue::from(age));
    }
    if let Ok(value) = HeaderValue::try_from(run_id) {
        response.headers_mut().insert(RUN_ID, value);
    }
    if let Some(value) = result_url.and_then(|url| HeaderValue::try_from(url).ok()) {
        response.headers_mut().insert(RESULT_URL, value);
    }
}

async fn first_words(events: &mut Viewer, result_url: Option<&str>) -> Result<Vec<Arc<RunEvent>>, ApiError> {
    let mut early = Vec::new();
    let mut deadline: Option<Instant> = None;
    loop {
        let event = match deadline {
            None => events.next().await,
            Some(deadline) => match timeout_at(deadline, events.next()).await {
                Ok(event) => event,
                Err(_) => return Ok(early),
            },
        };
        let event = event.ok_or_else(|| gone(result_url))?;
        match &*event {
            RunEvent::Error(error) => return Err(error.clone().into()),
            RunEvent::Accepted => deadline = Some(Instant::now() + FIRST_WORDS),
            RunEvent::Notice(_) | RunEvent::AuthorizationRequired(_) | RunEvent::AuthorizationBatch(_) => {
                early.push(event);
            }
            // A person must see the link now: `Waiting` is among them.
            _ => {
                early.push(event);
                return Ok(early);
            }
        }
    }
}

/// Why events stop without an end: a run that is kept goes on elsewhere.
fn gone(result_url: Option<&str>) -> RunError {
    result_url.map_or_else(vanished_run, moved)
}

/// A stream being sent. Dropping it, when the client leaves, ends the run.
struct Streaming {
    chunks: Chunks,
    events: Viewer,
    keep_alive: Duration,
    /// Of a run that is kept.
    result_url: Option<String>,
    first: Option<Vec<u8>>,
    _task: Option<CancelOnDrop>,
    _open: BoundGuard,
}

/// The next piece. The state is boxed: a future keeps room for its arguments several times over.
async fn next(
    mut state: Box<Streaming>,
) -> Option<(Result<Bytes, std::convert::Infallible>, Box<Streaming>)> {
    let piece = state.piece().await?;
    Some((Ok(piece), state))
}

impl Streaming {
    async fn piece(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first.into());
        }
        let mut out = Vec::new();
        while out.is_empty() && !self.chunks.is_ended() {
            match timeout(self.keep_alive, self.events.next()).await {
                Err(_) => sse::comment(&mut out, "keep-alive"),
                Ok(Some(event)) => {
                    self.chunks.write(&event, &mut out);
                    while out.len() < PIECE_BYTES
                        && let Some(event) = self.events.ready()
                    {
                        self.chunks.write(&event, &mut out);
                    }
                }
                Ok(None) => {
                    self.chunks.write(&RunEvent::Error(gone(self.result_url.as_deref())), &mut out);
                }
            }
        }
        if out.is_empty() { None } else { Some(out.into()) }
    }
}
