//! A call of `ask`: the run behind it, from its start to the answer, as JSON or as an event stream.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout, timeout_at};

use super::endpoint::Server;
use super::{outcome, progress};
use crate::api::error::{moved, vanished_run};
use crate::api::runs::json_response;
use crate::api::{ApiError, chat, prompts};
use crate::bounds::BoundGuard;
use crate::completion::{Answer, CancelOnDrop, Options, Started, Viewer};
use crate::mcp::{self, Era};
use crate::memory_budget::MemoryReservation;
use crate::openai::ChatRequest;
use crate::sse;

/// The first word to a client that wants to be told of progress.
const BEGINNING: &str = "asking the model";

/// The run of a message. It begins when it is asked for its result, so that who waits can be sent signs of life while
/// the servers of its tools are asked.
pub(super) fn start(server: &Server<'_>, message: &str) -> Running {
    let (app, caller, record) = (Arc::clone(server.app), server.caller.clone(), Arc::clone(&server.record));
    let headers = of_the_gateway(server.headers);
    let body = json!({
        "messages": [{ "role": "user", "content": message }],
        // Who reads it is a model: what tools said is worth something to the one that called them alone.
        "toolgate": { "output": "text" },
    });
    Running::Starting(Box::pin(async move {
        let request = ChatRequest::parse(body.to_string().into())?;
        let (request, target, path) = prompts::follow(&app, &caller, &request, &record).await?;
        let mut options = Options::read(&request, &headers, &app.settings.run)?;
        // No call is kept, also not for the next one that asks the same.
        options.cache_seconds = None;
        let asked = chat::Asked { request, headers, target, path: &path, options };
        Ok(Box::new(Begun::new(chat::start(&app, &caller, asked).await?, app.memory_budget.reserve())))
    }))
}

/// What of an MCP client's headers is for a run. All others, its key among them, are for this gateway alone.
fn of_the_gateway(headers: &HeaderMap) -> HeaderMap {
    let ours = |name: &str| name.starts_with("x-toolgate-") || name == "x-mcp-authorization";
    let kept = headers.iter().filter(|(name, _)| ours(name.as_str()));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// A run, from before its start. Dropping it, when the client leaves, ends the run.
pub(super) enum Running {
    Starting(BoxFuture<'static, Result<Box<Begun>, ApiError>>),
    Begun(Box<Begun>),
}

/// A run under way.
pub(super) struct Begun {
    answer: Option<Answer>,
    events: Viewer,
    /// Of a run that is kept.
    result_url: Option<String>,
    _task: Option<CancelOnDrop>,
}

/// What is next of a run.
enum Next {
    /// In words, where it is worth some.
    Step(Option<String>),
    /// The end: the tool's result.
    Result(Value),
}

impl Running {
    /// The next event. What was read before it is not lost when this is not awaited to its end.
    async fn next(&mut self) -> Next {
        let starting = match self {
            Running::Begun(begun) => return begun.next().await,
            Running::Starting(starting) => starting,
        };
        match starting.await {
            Ok(begun) => {
                *self = Running::Begun(begun);
                Next::Step(None)
            }
            Err(error) => Next::Result(outcome::text(error.message(), true)),
        }
    }

    /// The tool's result.
    pub async fn result(&mut self) -> Value {
        loop {
            if let Next::Result(result) = self.next().await {
                return result;
            }
        }
    }
}

impl Begun {
    fn new(started: Started, memory: MemoryReservation) -> Self {
        let Started { run_id, result_url, model, created, output, events, task, .. } = started;
        let answer = Some(Answer::new(run_id, model, created, output, memory));
        Begun { answer, events, result_url, _task: task }
    }

    async fn next(&mut self) -> Next {
        let event = self.events.next().await;
        let Some(answer) = &mut self.answer else { return Next::Result(outcome::of(Err(vanished_run()))) };
        let Some(event) = event else {
            let gone = self.result_url.as_deref().map_or_else(vanished_run, moved);
            return Next::Result(outcome::of(Err(gone)));
        };
        let (words, is_last) = (progress::words(&event), event.is_last());
        answer.add(Arc::unwrap_or_clone(event));
        match self.answer.take_if(|_| is_last) {
            Some(answer) => Next::Result(outcome::of(answer.finish().map(|(answer, _)| answer))),
            None => Next::Step(words),
        }
    }
}

/// How the answer to a call is told.
pub(super) struct Telling {
    pub era: Era,
    /// The id of the request.
    pub id: Value,
    pub progress_token: Option<Value>,
    /// What a modern answer says of its server.
    pub server_info: Value,
    /// After so long without a word, who reads event streams is sent a comment.
    pub keep_alive: Duration,
    pub reads_streams: bool,
}

impl Telling {
    /// The answer to the request with this result.
    pub fn response(&self, result: Value) -> Value {
        mcp::response(&self.id, &mcp::in_era(self.era, result, &self.server_info))
    }

    /// The whole answer. It is a stream for who wants to be told of progress, and, so that nothing between here and the
    /// client takes the silence for the end, for who has to wait.
    pub async fn answer(self, mut running: Running, open: BoundGuard) -> Response {
        if !self.reads_streams {
            let result = running.result().await;
            return json_response(StatusCode::OK, &self.response(result));
        }
        let mut told = 0;
        let mut first = Vec::new();
        match &self.progress_token {
            Some(token) => {
                told += 1;
                write(&mut first, &mcp::progress(token, told, None, BEGINNING));
            }
            None => match timeout(self.keep_alive, running.result()).await {
                Ok(result) => return json_response(StatusCode::OK, &self.response(result)),
                Err(_) => sse::comment(&mut first, "keep-alive"),
            },
        }
        let streaming =
            Streaming { telling: self, running: Some(running), first: Some(first), told, _open: open };
        let mut response = Response::new(Body::from_stream(stream::unfold(Box::new(streaming), next)));
        for (name, value) in [
            (header::CONTENT_TYPE, "text/event-stream"),
            (header::CACHE_CONTROL, "no-store"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::HeaderName::from_static("x-accel-buffering"), "no"),
        ] {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// An answer being sent. Dropping it, when the client leaves, ends the run.
struct Streaming {
    telling: Telling,
    /// `None` once the result was sent.
    running: Option<Running>,
    first: Option<Vec<u8>>,
    /// How many notifications were sent: the progress itself, since nobody knows how far a run is.
    told: u64,
    _open: BoundGuard,
}

async fn next(mut state: Box<Streaming>) -> Option<(Result<Bytes, Infallible>, Box<Streaming>)> {
    if let Some(first) = state.first.take() {
        return Some((Ok(first.into()), state));
    }
    let Streaming { telling, running, told, .. } = &mut *state;
    let mut out = Vec::new();
    // From the last word to the client: most events are none, and a model that writes is silence to it.
    let until = Instant::now() + telling.keep_alive;
    while out.is_empty() {
        match timeout_at(until, running.as_mut()?.next()).await {
            Err(_) => sse::comment(&mut out, "keep-alive"),
            Ok(Next::Step(words)) => match (words, &telling.progress_token) {
                (Some(words), Some(token)) => {
                    *told += 1;
                    write(&mut out, &mcp::progress(token, *told, None, &words));
                }
                // Where there is always another event, no time passes in waiting for one.
                _ if Instant::now() >= until => sse::comment(&mut out, "keep-alive"),
                _ => {}
            },
            Ok(Next::Result(result)) => {
                write(&mut out, &telling.response(result));
                *running = None;
            }
        }
    }
    Some((Ok(out.into()), state))
}

fn write(out: &mut Vec<u8>, message: &Value) {
    sse::data(out, message.to_string().as_bytes());
}
