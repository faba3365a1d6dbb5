//! `GET /{id}` for programs: a run's result as Markdown, as JSON, or as it happens.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag, TagEnd};
use serde_json::{Value, json};

use super::any_host::nothing_at;
use super::reading::ReadingMemory;
use super::runs::{EventOutcome, follow, json_response, read, summary};
use super::stored::{begun_completion, ended_completion};
use super::{ApiError, App};
use crate::completion::event::RunEvent;
use crate::completion::render::{self, Output, Renderer};
use crate::completion::{Record, Status, Visibility, append_text, text_of};
use crate::openai::{ErrorKind, InvalidField};

/// Copies of a run's texts in its JSON: the result and the completion, each as a value and as what is sent.
const WHOLE_COPIES: usize = 4;

/// What of a result is wanted, as its address or its `Accept` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Markdown,
    Json,
    Events,
    /// For people.
    Page,
}

impl Form {
    /// The id in `/{id}`, and the form that is wanted of it.
    pub fn of<'i>(segment: &'i str, uri: &Uri, headers: &HeaderMap) -> (&'i str, Form) {
        if let Some(id) = segment.strip_suffix(".md") {
            return (id, Form::Markdown);
        }
        if let Some(id) = segment.strip_suffix(".json") {
            return (id, Form::Json);
        }
        let query = uri.query().unwrap_or_default();
        let wants_part = url::form_urlencoded::parse(query.as_bytes())
            .any(|(name, _)| name == "key" || name == "codeblock");
        let accept = headers.get_all(header::ACCEPT).iter();
        let accept: Vec<&str> =
            accept.filter_map(|value| value.to_str().ok()).flat_map(|list| list.split(',')).collect();
        // The first that is known; browsers name pages first.
        let named = accept.iter().find_map(|kind| match kind.split(';').next().unwrap_or_default().trim() {
            "text/html" | "application/xhtml+xml" => Some(Form::Page),
            "text/event-stream" => Some(Form::Events),
            "application/json" => Some(Form::Json),
            "text/markdown" | "text/plain" => Some(Form::Markdown),
            _ => None,
        });
        let form = match named {
            Some(Form::Page) | None if wants_part => Form::Markdown,
            Some(form) => form,
            // Programs that do not say.
            None => Form::Markdown,
        };
        (segment, form)
    }
}

/// The result in a form for programs.
///
/// # Errors
/// 400, 401, 404, 429, 503.
pub async fn show(
    State(app): State<Arc<App>>,
    Path(segment): Path<String>,
    head: Parts,
) -> Result<Response, ApiError> {
    let (id, form) = Form::of(&segment, &head.uri, &head.headers);
    if !id.starts_with("run_") {
        return Err(nothing_at(&head.uri));
    }
    let (record, reader) = read(&app, id, &head).await?;
    match form {
        Form::Events => follow(&app, &record, &reader, &head).await,
        Form::Json => json(&app, &record, head.uri.query()).await,
        Form::Markdown | Form::Page => markdown(&app, &record, head.uri.query()).await,
    }
}

/// One part of a run.
enum Part {
    Prompt,
    Context,
    Result,
}

struct Wanted {
    part: Option<Part>,
    codeblock: Option<String>,
}

impl Wanted {
    fn read(query: Option<&str>) -> Result<Self, InvalidField> {
        let mut wanted = Wanted { part: None, codeblock: None };
        for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match &*name {
                "key" => {
                    wanted.part = Some(match &*value {
                        "prompt" => Part::Prompt,
                        "context" => Part::Context,
                        "result" => Part::Result,
                        _ => {
                            return Err(InvalidField::new(
                                "key",
                                "`key` must be `prompt`, `context` or `result`",
                            ));
                        }
                    });
                }
                "codeblock" => wanted.codeblock = Some(value.into_owned()),
                _ => {}
            }
        }
        Ok(wanted)
    }
}

impl Wanted {
    /// The block of code that is asked for. Of a result only what the model wrote counts.
    async fn codeblock(
        &self,
        app: &App,
        record: &Record,
        which: &str,
        memory: &ReadingMemory,
    ) -> Result<String, ApiError> {
        let (name, text) = match self.part {
            Some(Part::Prompt) => ("prompt", prompt(record)),
            Some(Part::Context) => ("context", context(record)),
            Some(Part::Result) | None => ("result", content(app, record, Output::Events, memory).await?),
        };
        codeblock(&text, which).map_err(|there| no_codeblock(name, there, which))
    }
}

async fn markdown(app: &App, record: &Record, query: Option<&str>) -> Result<Response, ApiError> {
    let wanted = Wanted::read(query)?;
    let memory = ReadingMemory::new(app, 1);
    let (kind, text) = match &wanted.codeblock {
        Some(which) => ("text/plain; charset=utf-8", wanted.codeblock(app, record, which, &memory).await?),
        None => {
            let text = match wanted.part {
                Some(Part::Prompt) => prompt(record),
                Some(Part::Context) => context(record),
                Some(Part::Result) | None => {
                    with_state(record, content(app, record, shown(record), &memory).await?)
                }
            };
            ("text/markdown; charset=utf-8", text)
        }
    };
    let mut response = Response::new(memory.body(text));
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Whatever a browser makes of it, it runs nothing and loads nothing.
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'; sandbox"),
        (header::HeaderName::from_static("x-robots-tag"), "noindex, nofollow"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

async fn json(app: &App, record: &Record, query: Option<&str>) -> Result<Response, ApiError> {
    let wanted = Wanted::read(query)?;
    if let Some(which) = &wanted.codeblock {
        let memory = ReadingMemory::new(app, 2);
        let block = wanted.codeblock(app, record, which, &memory).await?;
        return Ok(memory.json(json!({ "codeblock": block })));
    }
    match wanted.part {
        Some(Part::Prompt) => {
            let part = json!({ "prompt": prompt(record), "messages": record.messages() });
            return Ok(json_response(StatusCode::OK, &part));
        }
        Some(Part::Context) => {
            return Ok(json_response(StatusCode::OK, &json!({ "context": context(record) })));
        }
        Some(Part::Result) => {
            let memory = ReadingMemory::new(app, 2);
            let result = content(app, record, shown(record), &memory).await?;
            return Ok(memory.json(json!({ "result": result })));
        }
        None => {}
    }
    let memory = ReadingMemory::new(app, WHOLE_COPIES);
    let mut whole = summary(app, record);
    let (mut outcome, mut completion) = (EventOutcome::of(record), begun_completion(app, record));
    let mut result = ResultText::new(shown(record));
    let mut events = app.runs().events(record).await?;
    while let Some(event) = events.next().await? {
        memory.take(&event).await?;
        outcome.iter_mut().for_each(|outcome| outcome.note(&event));
        result.add(&event);
        completion.iter_mut().for_each(|completion| completion.add(RunEvent::clone(&event)));
    }
    if let Some(outcome) = outcome {
        outcome.add_to(&mut whole);
    }
    whole["request"] = Value::Object(record.shown_request());
    whole["result"] = result.text.into();
    whole["completion"] =
        completion.and_then(|completion| ended_completion(record, completion)).unwrap_or(Value::Null);
    let mut response = memory.json(whole);
    let robots = HeaderValue::from_static("noindex, nofollow");
    response.headers_mut().insert("x-robots-tag", robots);
    Ok(response)
}

/// What was asked: the texts of the messages, each behind who says it where there are several.
fn prompt(record: &Record) -> String {
    let messages = record.messages();
    let text = |message: &Value| text_of(message.get("content"));
    match messages {
        [only] => text(only),
        several => several
            .iter()
            .map(|message| {
                let role = message.get("role").and_then(Value::as_str).unwrap_or("unknown");
                format!("**{role}**\n\n{}\n", text(message))
            })
            .collect::<Vec<_>>()
            .join("\n"),
    }
}

/// What was put beside the prompt: nothing is, so far, but the servers whose tools were offered.
fn context(record: &Record) -> String {
    let tools = record.request.get("tools").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let servers = tools.iter().filter(|tool| tool.get("type").is_some_and(|kind| kind == "mcp"));
    let addresses = servers.filter_map(|tool| tool.get("server_url").or_else(|| tool.get("url"))?.as_str());
    let shown = addresses.map(|address| match url::Url::parse(address) {
        Ok(_) if record.is_callers => format!("- {address}\n"),
        Ok(url) => format!("- {}\n", url.origin().ascii_serialization()),
        Err(_) => String::new(),
    });
    shown.collect()
}

/// The run's `content` so far, counted in `memory`.
async fn content(
    app: &App,
    record: &Record,
    output: Output,
    memory: &ReadingMemory,
) -> Result<String, ApiError> {
    let mut content = ResultText::new(output);
    let mut events = app.runs().events(record).await?;
    while let Some(event) = events.next().await? {
        memory.take(&event).await?;
        content.add(&event);
    }
    Ok(content.text)
}

/// A run's `content` as it grows.
struct ResultText {
    output: Output,
    renderer: Renderer,
    text: String,
}

impl ResultText {
    fn new(output: Output) -> Self {
        ResultText { output, renderer: Renderer::new(output), text: String::new() }
    }

    fn add(&mut self, event: &RunEvent) {
        let text = &mut self.text;
        text.extend(self.renderer.event(event));
        if let RunEvent::Delta { delta, .. } = event
            && let Some(words) = delta.get("content").and_then(Value::as_str)
        {
            append_text(text, words);
        }
        if let RunEvent::Error(error) = event
            && self.output != Output::Events
        {
            let message = error.error.get("message").and_then(Value::as_str).unwrap_or("unknown");
            let failed = render::failed(message);
            text.push_str(if text.is_empty() { failed.trim_start() } else { &failed });
            let logins = error.logins();
            if !logins.is_empty() {
                text.push_str(&format!("\n{}", render::authorization_required(&logins)));
                text.extend(error.login_batch().map(|batch| render::batch_item(&batch)));
            }
        }
    }
}

/// How tool activity appears in the result: logins that are missing and failures are never hidden.
fn shown(record: &Record) -> Output {
    match record.output {
        Output::Events => Output::Text,
        other => other,
    }
}

/// Who reads an unfinished result must see that it is.
fn with_state(record: &Record, content: String) -> String {
    let state = match record.status {
        Status::Queued | Status::InProgress => "> **In progress.** This is the result so far.\n\n",
        // As of an event, such a reader gets no link.
        Status::RequiresAction if !record.is_own && record.visibility == Visibility::Public => {
            "> **Waiting for a login.** Only the person who started this can log in; the run goes on by itself.\n\n"
        }
        Status::RequiresAction => {
            "> **Waiting for you.** Log in with the link below; the run goes on by itself.\n\n"
        }
        Status::Cancelled => "> **Cancelled.** This is the result so far.\n\n",
        Status::Completed | Status::Failed | Status::Incomplete => "",
    };
    if state.is_empty() { content } else { format!("{state}{content}") }
}

/// A fenced code block of the text: by its number, from 1, or by a word of its info string, such as a path. The error
/// is how many there are.
fn codeblock(text: &str, which: &str) -> Result<String, usize> {
    let number: Option<usize> = which.parse().ok();
    let mut seen = 0;
    let mut open: Option<String> = None;
    for event in Parser::new(text) {
        match event {
            Event::Start(Tag::CodeBlock(kind)) => {
                seen += 1;
                let info = match &kind {
                    CodeBlockKind::Fenced(info) => info.to_string(),
                    CodeBlockKind::Indented => String::new(),
                };
                let mut words =
                    info.split(|c: char| c.is_whitespace() || matches!(c, ':' | '=' | '"' | '{' | '}' | ','));
                if number == Some(seen)
                    || (number.is_none() && !which.is_empty() && words.any(|word| word == which))
                {
                    open = Some(String::new());
                }
            }
            Event::Text(part) => {
                if let Some(block) = &mut open {
                    block.push_str(&part);
                }
            }
            Event::End(TagEnd::CodeBlock) => {
                if let Some(block) = open {
                    return Ok(block);
                }
            }
            _ => {}
        }
    }
    Err(seen)
}

fn no_codeblock(part: &str, there: usize, which: &str) -> ApiError {
    let shown: String = which.chars().take(100).collect();
    let count = match there {
        0 => "none".to_owned(),
        1 => "one, `codeblock=1`".to_owned(),
        more => format!("{more}, counted from 1"),
    };
    let message = format!(
        "the {part} has no code block `{}`; it has {count}. Those in what tools gave do not count",
        shown.escape_default()
    );
    ApiError::new(StatusCode::NOT_FOUND, ErrorKind::InvalidRequest, Some("codeblock_not_found"), message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    #[test]
    fn code_blocks_are_found_by_number_and_by_name() {
        let text =
            "a\n```rust src/main.rs\nfn main() {}\n```\n\n```toml title=\"Cargo.toml\"\n[package]\n```\n";
        assert_eq!(codeblock(text, "1").as_deref(), Ok("fn main() {}\n"));
        assert_eq!(codeblock(text, "2").as_deref(), Ok("[package]\n"));
        assert_eq!(codeblock(text, "src/main.rs").as_deref(), Ok("fn main() {}\n"));
        assert_eq!(codeblock(text, "Cargo.toml").as_deref(), Ok("[package]\n"));
        assert_eq!(codeblock(text, "3"), Err(2));
        assert_eq!(codeblock(text, "0"), Err(2));
        assert_eq!(codeblock(text, ""), Err(2));
        assert_eq!(codeblock("none", "1"), Err(0));
    }

    #[test]
    fn browsers_get_pages_and_programs_what_they_name() {
        let form = |path: &str, accept: &str| {
            let request = http::Request::get(format!("http://a/{path}"))
                .header("accept", accept)
                .body(Body::empty())
                .unwrap();
            let segment = path.split('?').next().unwrap().to_owned();
            let (id, form) = Form::of(&segment, request.uri(), request.headers());
            (id.to_owned(), form)
        };
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        assert_eq!(form("run_1", browser), ("run_1".into(), Form::Page));
        assert_eq!(form("run_1.md", browser), ("run_1".into(), Form::Markdown));
        assert_eq!(form("run_1.json", browser), ("run_1".into(), Form::Json));
        assert_eq!(form("run_1?key=prompt", browser).1, Form::Markdown);
        assert_eq!(form("run_1", "text/event-stream").1, Form::Events);
        assert_eq!(form("run_1", "application/json").1, Form::Json);
        assert_eq!(form("run_1", "*/*").1, Form::Markdown);
    }
}
