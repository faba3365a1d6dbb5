//! Reading one answer of a provider, streamed or not: its text goes on at once, its calls are gathered.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::durable::KeptCall;
use super::event::RunEvent;
use super::growing_text::append_text;
use super::run_budget::{BudgetExceeded, HeldBytes, RunBudget, weigh, weigh_value};
use super::sink::{Gone, Sink};
use super::toolset::{Owner, Toolset};
use crate::clean_json;
use crate::egress::{self, DecodedBody};
use crate::id::{random_id, random_id_of};
use crate::openai::{ErrorBody, ErrorKind, error_object};
use crate::sse;

/// Largest answer that is not streamed, and largest event of one that is.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// Largest stream of one turn, with all that frames its events.
const MAX_STREAM_BYTES: usize = 128 << 20;

/// How long the rest of a stream is waited for once the provider has said why the answer ends. Counts of tokens may
/// still come then; some providers send no `[DONE]` and keep the connection open.
const AFTER_FINISH: Duration = Duration::from_secs(3);
/// Events up to this size are put together without asking for memory.
const SMALL_EVENT: usize = 64 << 10;

/// Most function calls in one answer.
const MAX_CALLS: usize = 1000;

/// Characters of every id of a call at some providers.
const NINE: usize = 9;

/// What one turn came to.
#[derive(Debug, Default)]
pub struct Turn {
    /// The assistant's message, as it is given back to the provider.
    pub message: Map<String, Value>,
    pub calls: Vec<Call>,
    pub finish_reason: Option<String>,
    pub usage: Option<Map<String, Value>>,
    /// The answer had something that no JSON value can hold, and that was replaced.
    pub is_repaired: bool,
}

/// One function call of the model.
#[derive(Debug, Clone)]
pub struct Call {
    /// The provider's own.
    pub id: String,
    /// The id that the caller knows it by, where it is the caller's to answer.
    pub caller_id: Option<String>,
    pub function: String,
    /// As the model wrote them: not necessarily JSON.
    pub arguments: String,
    pub owner: Owner,
    /// The whole call as it is given back to the provider, with fields that only the provider understands.
    pub raw: Map<String, Value>,
}

impl Call {
    /// The id that the caller knows it by.
    pub fn shown_id(&self) -> &str {
        self.caller_id.as_deref().unwrap_or(&self.id)
    }

    /// What is kept of it.
    pub fn kept(&self) -> KeptCall {
        KeptCall {
            id: self.id.clone(),
            caller_id: self.caller_id.clone(),
            function: self.function.clone(),
            arguments: self.arguments.clone(),
            raw: self.raw.clone(),
        }
    }

    /// The call again, with the tools that there are now.
    pub fn of_kept(kept: &KeptCall, toolset: &Toolset) -> Self {
        Call {
            id: kept.id.clone(),
            caller_id: kept.caller_id.clone(),
            function: kept.function.clone(),
            arguments: kept.arguments.clone(),
            owner: toolset.owner(&kept.function),
            raw: kept.raw.clone(),
        }
    }
}

/// An unguessable id for a call that the provider calls `own`: providers repeat theirs (`call_1_0`, `functions.add:0`), and
/// who names a call gets back the turns that led to it.
fn id_for_caller(own: &str) -> String {
    // Mistral takes nothing but nine letters and digits, also in a conversation that nothing is known of any more.
    let is_nine = own.len() == NINE && own.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_nine { random_id_of("", NINE) } else { random_id("call_") }
}

/// Why a turn could not be read to its end.
#[derive(Debug)]
pub enum Broken {
    /// Nobody reads any more.
    Gone,
    /// The provider said so, or broke off.
    Failed(ErrorBody),
    /// The run may not take more.
    OverBudget(BudgetExceeded),
}

impl From<BudgetExceeded> for Broken {
    fn from(why: BudgetExceeded) -> Self {
        Broken::OverBudget(why)
    }
}

impl From<Gone> for Broken {
    fn from(_: Gone) -> Self {
        Broken::Gone
    }
}

/// What the reader needs to know of its surroundings.
pub struct Reader<'a> {
    pub sink: &'a Sink,
    pub provider: &'a str,
    pub owner: &'a (dyn Fn(&str) -> Owner + Send + Sync),
    pub idle: Duration,
    /// The number of this turn, from 1.
    pub number: u32,
    /// Calls already handed to the caller, so that their indices have no gaps.
    pub callers_so_far: u32,
    pub budget: &'a RunBudget,
}

impl Reader<'_> {
    /// Reads an answer of status 2xx.
    ///
    /// # Errors
    /// [`Broken`].
    pub async fn read(&self, response: http::Response<Incoming>) -> Result<Turn, Broken> {
        let response = egress::decoded(response).map_err(|reason| self.failed(reason.to_string()))?;
        let kind = response
            .headers()
            .get(http::header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("");
        if kind.starts_with("text/event-stream") {
            self.stream(response.into_body()).await
        } else {
            self.whole(response.into_body()).await
        }
    }

    /// All bytes of an answer that is not streamed.
    async fn collect(&self, mut body: DecodedBody, held: &mut HeldBytes<'_>) -> Result<Bytes, Broken> {
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.failed(format!("the answer broke off: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            // Twice, for the buffer that grows.
            held.set(2 * (bytes.len() + data.len())).await?;
            if bytes.len() + data.len() > self.budget.left() {
                return Err(self.budget.exceeded().into());
            }
            if bytes.len() + data.len() > MAX_ANSWER_BYTES {
                return Err(BudgetExceeded::Answer(MAX_ANSWER_BYTES).into());
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes.freeze())
    }

    async fn whole(&self, body: DecodedBody) -> Result<Turn, Broken> {
        let mut held = self.budget.hold(0).await?;
        let bytes = match tokio::time::timeout(self.idle, self.collect(body, &mut held)).await {
            Ok(bytes) => bytes?,
            Err(_) => return Err(self.silent()),
        };
        let _reading = self.budget.hold_for_reading(&bytes).await?;
        let (answer, repaired): (Value, bool) = clean_json::from_slice_noting(&bytes)
            .map_err(|error| self.failed(format!("the answer is not JSON: {error}")))?;
        let Value::Object(mut answer) = answer else { return Err(self.refused(answer)) };
        self.provider_error(&mut answer)?;
        let mut assembly = Assembly::new(self);
        assembly.is_repaired = repaired;
        self.sink.send(RunEvent::TurnStarted { turn: self.number, head: head(&answer) }).await?;
        assembly.usage = object(answer.remove("usage"));
        let mut choice =
            first_choice(&mut answer).ok_or_else(|| self.failed("the answer has no choices".into()))?;
        let mut message = object(choice.remove("message")).unwrap_or_default();
        for (place, call) in array(message.remove("tool_calls")).into_iter().enumerate() {
            if let Value::Object(mut call) = call {
                call.insert("index".into(), place.into());
                assembly.call_delta(call).await?;
            }
        }
        assembly.delta(message, choice.remove("logprobs").filter(|value| !value.is_null())).await?;
        assembly.finish_reason = choice.get("finish_reason").and_then(Value::as_str).map(str::to_owned);
        assembly.end().await
    }

    async fn stream(&self, mut body: DecodedBody) -> Result<Turn, Broken> {
        let mut decoder = sse::Decoder::new(MAX_ANSWER_BYTES);
        let mut assembly = Assembly::new(self);
        let mut started = false;
        let mut bytes = 0;
        let mut over = None;
        // Of an event that is not whole yet.
        let (mut unread, mut held) = (0, self.budget.hold(0).await?);
        'stream: loop {
            let idle = Instant::now() + self.idle;
            let until = over.map_or(idle, |over| idle.min(over));
            let frame = match tokio::time::timeout_at(until, body.frame()).await {
                Err(_) if over.is_some() => break,
                Err(_) => return Err(self.silent()),
                Ok(None) => break,
                Ok(Some(Err(error))) if assembly.finish_reason.is_none() => {
                    return Err(self.failed(format!("the stream broke off: {error}")));
                }
                Ok(Some(Err(_))) => break,
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(data) = frame.into_data() else { continue };
            bytes += data.len();
            if bytes > MAX_STREAM_BYTES {
                return Err(BudgetExceeded::Answer(MAX_STREAM_BYTES).into());
            }
            unread += data.len();
            if unread > SMALL_EVENT {
                if unread > self.budget.left() {
                    return Err(self.budget.exceeded().into());
                }
                held.set(2 * unread).await?;
            }
            decoder.feed(&data);
            while let Some(event) = decoder.next_event().map_err(|long| BudgetExceeded::Answer(long.limit))? {
                if std::mem::take(&mut unread) > SMALL_EVENT {
                    held.set(0).await?;
                }
                if event.data.trim_ascii() == b"[DONE]" {
                    break 'stream;
                }
                self.chunk(&event.data, &mut assembly, &mut started).await?;
            }
            if over.is_none() && assembly.finish_reason.is_some() {
                over = Some(Instant::now() + AFTER_FINISH);
            }
        }
        if assembly.finish_reason.is_none() {
            return Err(self.failed("the stream ended in the middle of the answer".into()));
        }
        assembly.end().await
    }

    async fn chunk(
        &self,
        data: &Bytes,
        assembly: &mut Assembly<'_>,
        started: &mut bool,
    ) -> Result<(), Broken> {
        if data.trim_ascii().is_empty() {
            return Ok(());
        }
        let _reading = self.budget.hold_for_reading(data).await?;
        let (chunk, repaired): (Value, bool) = clean_json::from_slice_noting(data)
            .map_err(|error| self.failed(format!("the stream has an event that is not JSON: {error}")))?;
        let Value::Object(mut chunk) = chunk else { return Err(self.refused(chunk)) };
        self.provider_error(&mut chunk)?;
        assembly.is_repaired |= repaired;
        if !*started {
            *started = true;
            self.sink.send(RunEvent::TurnStarted { turn: self.number, head: head(&chunk) }).await?;
        }
        if let Some(usage) = object(chunk.remove("usage")) {
            assembly.usage = Some(usage);
        }
        let Some(mut choice) = first_choice(&mut chunk) else { return Ok(()) };
        let mut delta = object(choice.remove("delta")).unwrap_or_default();
        let calls = array(delta.remove("tool_calls"));
        assembly.delta(delta, choice.remove("logprobs").filter(|value| !value.is_null())).await?;
        for call in calls {
            if let Value::Object(call) = call {
                assembly.call_delta(call).await?;
            }
        }
        if let Some(reason) = choice.get("finish_reason").and_then(Value::as_str) {
            assembly.finish_reason = Some(reason.to_owned());
        }
        Ok(())
    }

    /// Providers report failures inside a 200 answer, too.
    fn provider_error(&self, answer: &mut Map<String, Value>) -> Result<(), Broken> {
        match answer.remove("error") {
            None | Some(Value::Null) => Ok(()),
            Some(error) => Err(self.refused(json!({ "error": error }))),
        }
    }

    /// A failure in the provider's own words.
    fn refused(&self, answer: Value) -> Broken {
        // The status is 200, which says nothing.
        Broken::Failed(ErrorBody::from_provider(error_object(answer, 200), self.provider))
    }

    fn silent(&self) -> Broken {
        self.failed(format!("nothing came for {} s", self.idle.as_secs()))
    }

    fn failed(&self, message: String) -> Broken {
        Broken::Failed(ErrorBody::new(
            ErrorKind::Upstream,
            Some("provider_stream_error"),
            format!("{}: {message}", self.provider),
        ))
    }
}

/// What every chunk of a provider says about itself and callers may want: model, fingerprint, tier.
fn head(answer: &Map<String, Value>) -> Map<String, Value> {
    const KEPT: [&str; 3] = ["model", "system_fingerprint", "service_tier"];
    KEPT.iter()
        .filter_map(|key| {
            Some(((*key).to_owned(), answer.get(*key).filter(|value| !value.is_null())?.clone()))
        })
        .collect()
}

fn first_choice(answer: &mut Map<String, Value>) -> Option<Map<String, Value>> {
    array(answer.remove("choices")).into_iter().next().and_then(|choice| object(Some(choice)))
}

fn object(value: Option<Value>) -> Option<Map<String, Value>> {
    match value {
        Some(Value::Object(fields)) => Some(fields),
        _ => None,
    }
}

fn array(value: Option<Value>) -> Vec<Value> {
    match value {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

/// A turn as it grows.
struct Assembly<'a> {
    reader: &'a Reader<'a>,
    message: Map<String, Value>,
    calls: BTreeMap<u64, Growing>,
    last_index: Option<u64>,
    callers: u32,
    finish_reason: Option<String>,
    usage: Option<Map<String, Value>>,
    is_repaired: bool,
}

/// A call as it grows. Whose it is, is decided when its name is complete.
struct Growing {
    id: String,
    /// Once the caller has been handed its beginning.
    caller_id: Option<String>,
    function: String,
    arguments: String,
    rest: Map<String, Value>,
    /// Its index among the caller's calls, and how many bytes of its arguments the caller has.
    shown: Option<(u32, usize)>,
    owner: Option<Owner>,
}

impl<'a> Assembly<'a> {
    fn new(reader: &'a Reader<'a>) -> Self {
        Assembly {
            reader,
            message: Map::new(),
            calls: BTreeMap::new(),
            last_index: None,
            callers: reader.callers_so_far,
            finish_reason: None,
            usage: None,
            is_repaired: false,
        }
    }

    async fn delta(&mut self, mut delta: Map<String, Value>, logprobs: Option<Value>) -> Result<(), Broken> {
        delta.remove("role");
        delta.retain(|_, value| !value.is_null());
        if delta.get("content").is_some_and(|content| content == "") {
            delta.remove("content");
        }
        if delta.is_empty() && logprobs.is_none() {
            return Ok(());
        }
        let (text, held) = weigh(&delta);
        let (more_text, more_held) = logprobs.as_ref().map_or((0, 0), weigh_value);
        self.reader.budget.take_and_show(text + more_text, held + more_held).await?;
        for (key, value) in &delta {
            merge(&mut self.message, key, value);
        }
        self.reader.sink.send(RunEvent::Delta { delta, logprobs }).await?;
        Ok(())
    }

    async fn call_delta(&mut self, mut call: Map<String, Value>) -> Result<(), Broken> {
        let id = call.remove("id").and_then(|id| id.as_str().map(str::to_owned)).filter(|id| !id.is_empty());
        let index = self.index(call.remove("index").and_then(|index| index.as_u64()), id.as_deref());
        let mut function = object(call.remove("function")).unwrap_or_default();
        if let Some(last) = self.last_index.filter(|last| *last != index) {
            self.settle(last).await?;
        }
        if self.calls.len() >= MAX_CALLS && !self.calls.contains_key(&index) {
            return Err(self.reader.failed(format!("the answer has more than {MAX_CALLS} function calls")));
        }
        self.last_index = Some(index);
        let growing = self.calls.entry(index).or_insert_with(|| Growing {
            id: id.unwrap_or_else(|| random_id("call_")),
            caller_id: None,
            function: String::new(),
            arguments: String::new(),
            rest: Map::new(),
            shown: None,
            owner: None,
        });
        if let Some(name) = function.get("name").and_then(Value::as_str)
            && growing.owner.is_none()
        {
            growing.function.push_str(name);
        }
        let arguments = match function.remove("arguments") {
            Some(Value::String(text)) => text,
            // Some providers send an object where OpenAI sends its text.
            Some(value @ (Value::Object(_) | Value::Array(_))) => value.to_string(),
            _ => String::new(),
        };
        let (text, held) = weigh(&call);
        self.reader.budget.take(arguments.len() + text, arguments.len() + held).await?;
        append_text(&mut growing.arguments, &arguments);
        for (key, value) in call {
            growing.rest.insert(key, value);
        }
        if arguments.is_empty() { Ok(()) } else { self.settle(index).await }
    }

    /// The place of a call: the provider's index, or, where it gives none, a new place for every new id.
    fn index(&self, given: Option<u64>, id: Option<&str>) -> u64 {
        let known = |id: &str| self.calls.iter().find(|(_, call)| call.id == id).map(|(index, _)| *index);
        let next = || self.calls.keys().next_back().map_or(0, |last| last.saturating_add(1));
        match (given, id) {
            (Some(index), Some(id)) => match self.calls.get(&index) {
                // The same index for another id: a provider that does not count.
                Some(other) if other.id != id => known(id).unwrap_or_else(next),
                _ => index,
            },
            (Some(index), None) => index,
            (None, Some(id)) => known(id).unwrap_or_else(next),
            (None, None) => self.last_index.unwrap_or(0),
        }
    }

    async fn settle_all(&mut self) -> Result<(), Broken> {
        let indices: Vec<u64> = self.calls.keys().copied().collect();
        for index in indices {
            self.settle(index).await?;
        }
        Ok(())
    }

    /// Decides whose call it is, and hands what is new of it to the caller if it is theirs.
    async fn settle(&mut self, index: u64) -> Result<(), Broken> {
        let Some(call) = self.calls.get_mut(&index) else { return Ok(()) };
        let owner = *call.owner.get_or_insert_with(|| (self.reader.owner)(&call.function));
        if owner != Owner::Caller {
            return Ok(());
        }
        self.reader.budget.show(call.arguments.len() - call.shown.map_or(0, |(_, shown)| shown));
        let event = match &mut call.shown {
            None => {
                let place = self.callers;
                self.callers += 1;
                call.shown = Some((place, call.arguments.len()));
                let mut whole = call.rest.clone();
                let id = call.caller_id.insert(id_for_caller(&call.id));
                whole.insert("id".into(), id.as_str().into());
                whole.insert("type".into(), "function".into());
                whole
                    .insert("function".into(), json!({ "name": call.function, "arguments": call.arguments }));
                RunEvent::CallerCall { index: place, call: whole }
            }
            Some((_, shown)) if *shown == call.arguments.len() => return Ok(()),
            Some((place, shown)) => {
                let new = call.arguments.get(*shown..).unwrap_or_default().to_owned();
                *shown = call.arguments.len();
                let mut part = Map::new();
                part.insert("function".into(), json!({ "arguments": new }));
                RunEvent::CallerCall { index: *place, call: part }
            }
        };
        self.reader.sink.send(event).await?;
        Ok(())
    }

    async fn end(mut self) -> Result<Turn, Broken> {
        self.settle_all().await?;
        // The call as it is made, as it is kept, and as it is given back; until the run comes to its next turn.
        let arguments: usize = self.calls.values().map(|call| call.arguments.len()).sum();
        self.reader.budget.take(0, 2 * arguments).await?;
        let calls: Vec<Call> = self.calls.into_values().map(Growing::into_call).collect();
        let mut message = Map::new();
        message.insert("role".into(), "assistant".into());
        message.insert("content".into(), Value::Null);
        message.extend(self.message);
        if !calls.is_empty() {
            message.insert(
                "tool_calls".into(),
                calls.iter().map(|call| Value::Object(call.raw.clone())).collect(),
            );
        }
        let Assembly { finish_reason, usage, is_repaired, .. } = self;
        Ok(Turn { message, calls, finish_reason, usage, is_repaired })
    }
}

impl Growing {
    fn into_call(self) -> Call {
        let arguments = if self.arguments.trim().is_empty() { "{}".to_owned() } else { self.arguments };
        let mut raw = self.rest;
        raw.insert("id".into(), self.id.clone().into());
        raw.insert("type".into(), "function".into());
        // A provider refuses its own malformed arguments when they come back; the error result tells the model.
        let valid = is_object(&arguments);
        raw.insert(
            "function".into(),
            json!({ "name": self.function, "arguments": if valid { arguments.as_str() } else { "{}" } }),
        );
        Call {
            id: self.id,
            caller_id: self.caller_id,
            function: self.function,
            arguments,
            owner: self.owner.unwrap_or(Owner::Nobody),
            raw,
        }
    }
}

/// Whether a text is a JSON object. A large one is not built up for that: it would take many times its text.
fn is_object(text: &str) -> bool {
    if text.len() <= SMALL_EVENT {
        return clean_json::exact::<Map<String, Value>>(text).is_ok();
    }
    text.trim_start().starts_with('{') && clean_json::exact::<serde::de::IgnoredAny>(text).is_ok()
}

/// Joins what a field has brought so far with its next part: texts and lists grow, other values are replaced.
pub(super) fn merge(message: &mut Map<String, Value>, key: &str, value: &Value) {
    match (message.get_mut(key), value) {
        (Some(Value::String(text)), Value::String(more)) => append_text(text, more),
        (Some(Value::Array(list)), Value::Array(more)) => list.extend(more.iter().cloned()),
        (Some(Value::Object(fields)), Value::Object(more)) => {
            for (key, value) in more {
                merge(fields, key, value);
            }
        }
        (Some(other), value) => *other = value.clone(),
        (None, value) => {
            message.insert(key.to_owned(), value.clone());
        }
    }
}
