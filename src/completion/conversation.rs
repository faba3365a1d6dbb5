//! What a provider is sent: the caller's request with the gateway's fields taken out, growing turn by turn.

use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::toolset::Toolset;
use crate::clean_json;
use crate::openai::{ChatRequest, InvalidField};
use crate::upstream::Quirks;

/// Fields that the gateway consumes, or writes anew for every turn.
const CONSUMED: [&str; 10] = [
    "model",
    "messages",
    "tools",
    "tool_choice",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "toolgate",
    "authorizationRequestCallback",
];

/// The request as it grows. Everything is kept as JSON text; nothing is parsed twice.
#[derive(Debug)]
pub struct Conversation {
    /// The beginning of every body: `{"model":…` and the fields that are only forwarded.
    head: Vec<u8>,
    /// The messages so far, separated by commas.
    messages: Vec<u8>,
    /// Where in `messages` the last pictures begin, when they may be taken out again.
    pictures: Option<std::ops::Range<usize>>,
    tool_choice: Option<Choice>,
    /// The caller's bound on the sum of completion tokens, and the field that carried it.
    budget: Option<(&'static str, u64)>,
    stream: bool,
    stream_options: Option<Map<String, Value>>,
}

/// What a request says about the form of its answer.
#[derive(Debug)]
pub struct Shape {
    /// The caller wants a stream.
    pub stream: bool,
    stream_options: Option<Map<String, Value>>,
    /// The caller wants the usage at the end of its stream.
    pub include_usage: bool,
    budget: Option<(&'static str, u64)>,
}

impl Shape {
    /// Reads it from `request`.
    ///
    /// # Errors
    /// [`InvalidField`] for fields of a wrong shape.
    pub fn read(request: &ChatRequest) -> Result<Self, InvalidField> {
        let stream = request.get("stream", "true or false")?.unwrap_or(false);
        let stream_options = request.get::<Map<String, Value>>("stream_options", "an object")?;
        let include_usage = match stream_options.as_ref().and_then(|options| options.get("include_usage")) {
            None | Some(Value::Null) => false,
            Some(Value::Bool(include)) => *include,
            Some(_) => {
                return Err(InvalidField::new(
                    "stream_options.include_usage",
                    "`stream_options.include_usage` must be true or false",
                ));
            }
        };
        Ok(Shape { stream, stream_options, include_usage, budget: budget(request)? })
    }
}

/// `tool_choice`, for the first turn and for those after it.
#[derive(Debug)]
struct Choice {
    first: String,
    later: Option<String>,
}

impl Conversation {
    /// Takes the request apart. `messages` is the caller's list, hidden turns already put back.
    ///
    /// # Errors
    /// [`InvalidField`] for fields of a wrong shape.
    pub fn new(
        request: &ChatRequest,
        model: &str,
        messages: Vec<u8>,
        toolset: &Toolset,
        quirks: &Quirks,
    ) -> Result<Self, InvalidField> {
        let mut head = format!("{{\"model\":{}", Value::from(model)).into_bytes();
        let has_tools = toolset.json().is_some();
        for (key, value) in request.fields().filter(|(key, _)| !CONSUMED.contains(key)) {
            let Some(key) = quirks.sent_as(key) else { continue };
            if key == "parallel_tool_calls" && !has_tools {
                continue;
            }
            head.push(b',');
            head.extend_from_slice(Value::from(key).to_string().as_bytes());
            head.push(b':');
            head.extend_from_slice(value.as_bytes());
        }
        if let Some(tools) = toolset.json() {
            head.extend_from_slice(b",\"tools\":");
            head.extend_from_slice(tools.as_bytes());
        }
        let Shape { stream, mut stream_options, budget, .. } = Shape::read(request)?;
        if quirks.no_stream_options {
            stream_options = None;
        } else {
            stream_options.get_or_insert_default().insert("include_usage".into(), Value::Bool(true));
        }
        let budget = budget.and_then(|(field, most)| Some((quirks.sent_as(field)?, most)));
        Ok(Conversation {
            head,
            messages,
            pictures: None,
            tool_choice: if has_tools { choice(request, toolset)? } else { None },
            budget,
            stream,
            stream_options,
        })
    }

    /// Has the provider stream its answers, also where the caller wants one piece: others look on.
    pub fn stream_for_viewers(&mut self) {
        self.stream = true;
    }

    /// The bound on completion tokens over all turns.
    pub fn token_budget(&self) -> Option<u64> {
        self.budget.map(|(_, most)| most)
    }

    /// The body of the next provider call. `used` counts the completion tokens of the turns before it.
    pub fn body(&self, turn: u32, used: u64) -> Bytes {
        let mut body = Vec::with_capacity(self.head.len() + self.messages.len() + 256);
        body.extend_from_slice(&self.head);
        let choice = self
            .tool_choice
            .as_ref()
            .and_then(|choice| if turn == 1 { Some(&choice.first) } else { choice.later.as_ref() });
        if let Some(choice) = choice {
            body.extend_from_slice(b",\"tool_choice\":");
            body.extend_from_slice(choice.as_bytes());
        }
        if let Some((field, most)) = self.budget {
            body.extend_from_slice(format!(",\"{field}\":{}", most.saturating_sub(used).max(1)).as_bytes());
        }
        if self.stream {
            body.extend_from_slice(b",\"stream\":true");
            if let Some(options) = &self.stream_options {
                body.extend_from_slice(b",\"stream_options\":");
                body.extend_from_slice(json!(options).to_string().as_bytes());
            }
        }
        body.extend_from_slice(b",\"messages\":[");
        body.extend_from_slice(&self.messages);
        body.extend_from_slice(b"]}");
        body.into()
    }

    /// Bytes of the next body, nearly.
    pub fn bytes(&self) -> usize {
        self.head.len() + self.messages.len()
    }

    /// Where the messages end now, for [`Conversation::since`].
    pub fn mark(&self) -> usize {
        self.messages.len()
    }

    /// The messages added since `mark`, as JSON text separated by commas.
    pub fn since(&self, mark: usize) -> &[u8] {
        let added = self.messages.get(mark..).unwrap_or_default();
        added.strip_prefix(b",").unwrap_or(added)
    }

    /// Adds messages that are text already, separated by commas.
    pub fn push_text(&mut self, messages: &str) {
        if messages.is_empty() {
            return;
        }
        if !self.messages.is_empty() {
            self.messages.push(b',');
        }
        self.messages.extend_from_slice(messages.as_bytes());
    }

    /// Adds a message.
    pub fn push(&mut self, message: &Value) {
        if !self.messages.is_empty() {
            self.messages.push(b',');
        }
        serde_json::to_writer(&mut self.messages, message).expect("JSON values are written to memory");
    }

    /// Adds a message with pictures or sound, which [`Conversation::drop_pictures`] can take out again.
    pub fn push_pictures(&mut self, message: &Value) {
        let start = self.mark();
        self.push(message);
        self.pictures = Some(start..self.mark());
    }

    /// Takes out the pictures added last, if that is what the messages end with. Says whether there were any.
    pub fn drop_pictures(&mut self) -> bool {
        match self.pictures.take() {
            Some(range) if range.end == self.messages.len() => {
                self.messages.truncate(range.start);
                true
            }
            _ => false,
        }
    }
}

fn budget(request: &ChatRequest) -> Result<Option<(&'static str, u64)>, InvalidField> {
    for field in ["max_completion_tokens", "max_tokens"] {
        if let Some(most) = request.get::<u64>(field, "a whole number above 0")? {
            if most == 0 {
                return Err(InvalidField::new(field, format!("`{field}` must be a whole number above 0")));
            }
            return Ok(Some((field, most)));
        }
    }
    Ok(None)
}

/// Translates `tool_choice`. A forced call is released after the first turn: otherwise the run could never end.
fn choice(request: &ChatRequest, toolset: &Toolset) -> Result<Option<Choice>, InvalidField> {
    let Some(raw) = request.raw("tool_choice") else { return Ok(None) };
    let wrong = |message: String| InvalidField::new("tool_choice", message);
    let value: Value = clean_json::from_str(raw).map_err(|error| wrong(error.to_string()))?;
    let kind = value.get("type").and_then(Value::as_str);
    let forced = |function: &str| {
        let first = json!({ "type": "function", "function": { "name": function } }).to_string();
        Some(Choice { first, later: None })
    };
    match (value.as_str(), kind) {
        (Some("auto" | "none"), _) => Ok(Some(Choice { first: raw.to_owned(), later: Some(raw.to_owned()) })),
        (Some("required"), _) => Ok(Some(Choice { first: raw.to_owned(), later: None })),
        (None, Some("mcp")) => {
            let label = value.get("server_label").and_then(Value::as_str);
            let label =
                label.ok_or_else(|| wrong("`tool_choice` of type `mcp` needs a `server_label`".into()))?;
            match value.get("name").and_then(Value::as_str) {
                Some(tool) => match toolset.function_of(label, tool) {
                    Some(function) => Ok(forced(function)),
                    None => Err(wrong(format!(
                        "`tool_choice`: no tool `{tool}` of a server labelled `{label}` is offered"
                    ))),
                },
                None if toolset.labels().any(|known| known == label) => {
                    Ok(Some(Choice { first: "\"required\"".into(), later: None }))
                }
                None => Err(wrong(format!("`tool_choice`: no server is labelled `{label}`"))),
            }
        }
        (None, Some("function")) => {
            let name = value.pointer("/function/name").or_else(|| value.get("name")).and_then(Value::as_str);
            let name =
                name.ok_or_else(|| wrong("`tool_choice` of type `function` needs `function.name`".into()))?;
            if toolset.owner(name) != super::toolset::Owner::Nobody {
                return Ok(forced(name));
            }
            let found: Vec<&str> = toolset.functions_named(name).collect();
            match found.as_slice() {
                [function] => Ok(forced(function)),
                [] => Err(wrong(format!("`tool_choice`: no tool `{name}` is offered"))),
                _ => Err(wrong(format!(
                    "`tool_choice`: several servers offer `{name}`; use {{\"type\":\"mcp\",\"server_label\":…,\"name\":…}}"
                ))),
            }
        }
        (None, Some(_)) => Ok(Some(Choice { first: raw.to_owned(), later: None })),
        _ => {
            Err(wrong("`tool_choice` must be `auto`, `none`, `required`, or an object with a `type`".into()))
        }
    }
}

/// The messages, separated by commas.
pub fn joined(messages: &[&RawValue]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(messages.iter().map(|message| message.get().len() + 1).sum());
    for message in messages {
        if !joined.is_empty() {
            joined.push(b',');
        }
        joined.extend_from_slice(message.get().as_bytes());
    }
    joined
}

/// The caller's messages as raw JSON texts.
///
/// # Errors
/// When `messages` is missing, empty, or not a list of objects.
pub fn messages(request: &ChatRequest) -> Result<Vec<&RawValue>, InvalidField> {
    let raw =
        request.raw("messages").ok_or_else(|| InvalidField::new("messages", "`messages` is missing"))?;
    let list: Vec<&RawValue> = clean_json::borrowed(raw.as_bytes())
        .map_err(|_| InvalidField::new("messages", "`messages` must be a list of messages"))?;
    if list.is_empty() {
        return Err(InvalidField::new("messages", "`messages` must have at least one message"));
    }
    match list.iter().position(|message| !message.get().starts_with('{')) {
        Some(place) => Err(InvalidField::new(
            format!("messages[{place}]"),
            format!("`messages[{place}]` must be an object"),
        )),
        None => Ok(list),
    }
}
