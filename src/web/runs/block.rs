//! One thing on a run's page, and its HTML.

use std::borrow::Cow;
use std::sync::Arc;

use crate::store::INTERRUPTED;
use askama::Template;
use serde_json::Value;

use crate::completion::event::{
    self, AuthorizationRequired, FinishReason, LinkKind, RunError, ToolCall, ToolResultEvent,
};
use crate::completion::render::pretty_json;
use crate::tools::text;
use crate::web::{markdown, words};

/// Most bytes of arguments or of one result on a page. All of it is in the JSON.
const MAX_TEXT_BYTES: usize = 64 << 10;
/// Longest sentence of a stranger, in characters.
const SENTENCE_CHARACTERS: usize = 2000;

/// The code of a run whose MCP servers could not be used.
const UNREACHABLE: &str = "mcp_server_unreachable";

/// One thing on the page.
#[derive(Debug)]
pub(super) enum Block {
    /// What the model says, as Markdown.
    Prose(String),
    /// What it thinks, as Markdown.
    Reasoning(String),
    Tool(Tool),
    Logins(Logins),
    Notice(Notice),
    Error(Failure),
    CallerCall(CallerCall),
}

impl Block {
    /// Its HTML, one element each. `number` tells it from the others on the page.
    pub fn elements(&self, number: usize) -> Vec<Arc<str>> {
        match self {
            Block::Prose(prose) => markdown::elements(prose).into_iter().map(Arc::from).collect(),
            Block::Reasoning(thoughts) => written(&Thoughts { number, html: markdown::html(thoughts) }),
            Block::Tool(tool) => written(&ToolBlock { number, tool }),
            Block::Logins(logins) => written(&LoginsBlock { logins }),
            Block::Notice(notice) => written(&NoticeBlock { notice }),
            Block::Error(failure) => written(&FailureBlock { failure }),
            Block::CallerCall(call) => {
                written(&CallerCallBlock { number, name: &call.name, arguments: json(&call.arguments) })
            }
        }
    }
}

fn written<T: Template>(template: &T) -> Vec<Arc<str>> {
    let html = template.render().unwrap_or_else(|error| {
        tracing::error!(%error, "a part of a page could not be written");
        "<p>This part could not be written.</p>".to_owned()
    });
    vec![Arc::from(html.trim())]
}

#[derive(Template)]
#[template(path = "runs/reasoning.html")]
struct Thoughts {
    number: usize,
    html: String,
}

#[derive(Template)]
#[template(path = "runs/tool.html")]
struct ToolBlock<'a> {
    number: usize,
    tool: &'a Tool,
}

#[derive(Template)]
#[template(path = "runs/logins.html")]
struct LoginsBlock<'a> {
    logins: &'a Logins,
}

#[derive(Template)]
#[template(path = "runs/notice.html")]
struct NoticeBlock<'a> {
    notice: &'a Notice,
}

#[derive(Template)]
#[template(path = "runs/error.html")]
struct FailureBlock<'a> {
    failure: &'a Failure,
}

#[derive(Template)]
#[template(path = "runs/caller_call.html")]
struct CallerCallBlock<'a> {
    number: usize,
    name: &'a str,
    arguments: String,
}

/// How far a tool call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Running,
    Succeeded,
    Failed,
    /// The run ended before it did.
    Left,
}

/// A tool call.
#[derive(Debug)]
pub(super) struct Tool {
    pub name: String,
    pub host: String,
    pub arguments: String,
    pub result: Option<String>,
    pub state: State,
    pub time: String,
    pub tokens: String,
    /// What it said last about how far it is.
    pub message: Option<String>,
    /// How far it is, in percent.
    pub percent: Option<u8>,
}

impl Tool {
    pub fn named(tool: &str, host: &str) -> Self {
        Tool {
            name: words::line(tool),
            host: words::address(host),
            arguments: String::new(),
            result: None,
            state: State::Running,
            time: String::new(),
            tokens: String::new(),
            message: None,
            percent: None,
        }
    }

    pub fn of(call: &ToolCall) -> Self {
        let arguments = match &call.arguments {
            // What the model wrote is not JSON.
            Value::String(written) => cut(written),
            Value::Object(members) if members.is_empty() => String::new(),
            arguments => json(&arguments.to_string()),
        };
        Tool { arguments, ..Tool::named(&call.tool, &call.host) }
    }

    pub fn progress(&mut self, progress: f64, total: Option<f64>, message: Option<&str>) {
        let share =
            total.filter(|total| *total > 0.0).map(|total| (progress / total * 100.0).clamp(0.0, 100.0));
        // Between 0 and 100 nothing is lost.
        self.percent = share.map(|share| share as u8);
        if let Some(message) = message {
            self.message = Some(words::line(message)).filter(|message| !message.is_empty());
        }
    }

    pub fn end(&mut self, ended: &ToolResultEvent) {
        self.state = if ended.result.is_error { State::Failed } else { State::Succeeded };
        let said = ended.result.for_model();
        // The block says itself that it failed.
        let said = said.strip_prefix("The tool call failed:\n").unwrap_or(&said);
        self.result = Some(json(said));
        self.time = words::duration(ended.milliseconds);
        self.tokens = words::count(ended.result.estimate_tokens() as u64);
        (self.message, self.percent) = (None, None);
    }
}

/// Missing logins that were named together.
#[derive(Debug)]
pub(super) struct Logins {
    pub list: Vec<Login>,
    /// One link for all of them.
    pub all: Option<String>,
    /// The run goes on by itself when they are done within this time.
    pub waiting_seconds: Option<u64>,
    pub shows_links: bool,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Login {
    pub resource: String,
    pub host: String,
    pub reason: String,
    pub link: Option<String>,
    /// The whole address, when it is the server's choice.
    pub foreign: Option<String>,
    pub scopes: Vec<words::Scope>,
    pub is_done: bool,
}

impl Logins {
    pub fn of(login: Login, shows_links: bool) -> Self {
        Logins { list: vec![login], all: None, waiting_seconds: None, shows_links }
    }

    pub fn add(&mut self, login: Login) {
        self.list.push(login);
    }

    /// Marks one as done; whether it was among them.
    pub fn authorized(&mut self, resource: &str) -> bool {
        let mut found = false;
        for login in self.list.iter_mut().filter(|login| login.resource == resource && !login.is_done) {
            login.is_done = true;
            found = true;
        }
        found
    }

    pub fn are_done(&self) -> bool {
        self.list.iter().all(|login| login.is_done)
    }

    /// The link for all of them, while it saves anything.
    pub fn batch(&self) -> Option<&str> {
        let left = self.list.iter().filter(|login| !login.is_done).count();
        self.all.as_deref().filter(|_| self.shows_links && left > 1)
    }
}

impl Login {
    pub fn of(required: &AuthorizationRequired, shows_link: bool) -> Self {
        let url = required.connect_url.as_deref().and_then(markdown::address).filter(|url| url.has_host());
        let link = url.map(String::from).filter(|_| shows_link);
        let is_foreign = required.kind == LinkKind::Elicitation;
        Login {
            resource: required.resource.clone(),
            host: words::address(&required.host),
            reason: text::one_line(&required.reason, SENTENCE_CHARACTERS),
            foreign: link.clone().filter(|_| is_foreign),
            link,
            scopes: words::scopes(&required.scopes),
            is_done: false,
        }
    }
}

/// A remark.
#[derive(Debug)]
pub(super) struct Notice {
    pub tone: &'static str,
    pub words: String,
}

impl Notice {
    pub fn of(notice: &event::Notice) -> Self {
        Notice { tone: "warn", words: text::one_line(&notice.message, SENTENCE_CHARACTERS) }
    }

    pub fn waiting(seconds: u64) -> Self {
        Notice { tone: "now", words: format!("Waiting for somebody, {seconds} seconds at most.") }
    }

    pub fn authorized(host: &str) -> Self {
        Notice { tone: "good", words: format!("Connected: {}", words::address(host)) }
    }

    pub fn resumed() -> Self {
        let words = "The gateway was interrupted here. It goes on; what it said last may come again.";
        Notice { tone: "now", words: words.into() }
    }

    pub fn too_long() -> Self {
        Notice { tone: "warn", words: "This page shows no more of it. The JSON has everything.".into() }
    }

    /// What a reader should know about the end, if anything.
    pub fn finish(reason: &FinishReason) -> Option<Self> {
        let words = match reason {
            FinishReason::Model(reason) => match reason.as_str() {
                "stop" | "tool_calls" | "function_call" | "" => return None,
                "length" => {
                    "Cut off: the model reached its limit of tokens. Run it again with a larger `max_tokens`."
                        .into()
                }
                "content_filter" => "Cut off: the provider's content filter stopped the model.".into(),
                other => format!("The model stopped: {}.", words::line(other)),
            },
            FinishReason::ToolCalls => {
                "Handed over: the application that asked answers these function calls.".into()
            }
            FinishReason::StopWhen => return None,
            FinishReason::Cancelled => "Stopped, as somebody asked.".into(),
            FinishReason::MaxTurns => "Stopped after `max_turns` turns. Allow more to let it go on.".into(),
            FinishReason::MaxToolCalls => {
                "Stopped after `max_tool_calls` tool calls. Allow more to let it go on.".into()
            }
            FinishReason::ByteBudget => {
                "Stopped at the limit of bytes for one run. Ask for less at a time.".into()
            }
            FinishReason::TokenBudget => {
                "Cut off: `max_tokens` over all turns is used up. Allow more to let it go on.".into()
            }
            FinishReason::Time => "Stopped: the time that a run may take is over.".into(),
            FinishReason::AuthorizationRequired => {
                "Stopped for a missing login. Log in above, then run it again.".into()
            }
        };
        let is_wanted = matches!(reason, FinishReason::ToolCalls | FinishReason::Cancelled);
        let tone = if is_wanted { "now" } else { "warn" };
        Some(Notice { tone, words })
    }
}

/// Why it failed, and what to do.
#[derive(Debug)]
pub(super) struct Failure {
    pub message: String,
    pub advice: &'static str,
    pub code: String,
}

impl Failure {
    pub fn of(error: &RunError) -> Self {
        let text = |name: &str| error.error.get(name).and_then(Value::as_str).unwrap_or_default();
        let message = match &*unreachable(error) {
            "" => text::one_line(text("message"), SENTENCE_CHARACTERS),
            servers => text::one_line(servers, SENTENCE_CHARACTERS),
        };
        let advice = match error.status {
            _ if text("code") == "provider_failed_after_tools" => {
                "Look at what the tools have done above. Running it again would call them again."
            }
            _ if text("code") == INTERRUPTED => {
                "Look at what the tools have done above, then choose Resume: it goes on behind them."
            }
            _ if text("code") == "credentials_not_kept" => {
                "Send the request again from where it came: it had keys that are not stored. Tools would be called again."
            }
            _ if text("code") == UNREACHABLE => {
                "Check the address, and that the server runs. Then run it again, or without this server."
            }
            _ if text("code") == "authentication_required" => "Log in, then run it again.",
            401 | 403 => "Check the key, or log in, then run it again.",
            402 => "Top up at the provider, then run it again.",
            404 => "Check the model's name, then run it again.",
            408 | 504 => "It took too long. Run it again, or ask for less.",
            413 => "The request is too large. Shorten it, then run it again.",
            429 => "Too many requests. Wait a moment, then run it again.",
            500.. => "Not your fault. Wait a moment, then run it again.",
            _ => "Change the request, then run it again.",
        };
        let code = words::line(if text("code").is_empty() { text("type") } else { text("code") });
        let message = if message.is_empty() { "It failed without a reason.".to_owned() } else { message };
        Failure { message, advice, code }
    }
}

/// The servers that could not be used, and why, in words for people; empty where it is not about that.
fn unreachable(error: &RunError) -> String {
    if error.error.get("code").is_none_or(|code| code != UNREACHABLE) {
        return String::new();
    }
    let servers = error.error.get("servers").and_then(Value::as_array);
    let sentence = |server: &Value| {
        let text = |name: &str| server.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        format!("{} could not be used: {}.", text("server_url"), text("reason").trim_end_matches('.'))
    };
    servers.into_iter().flatten().map(sentence).collect::<Vec<_>>().join(" ")
}

/// A function call that the caller answers.
#[derive(Debug, Default)]
pub(super) struct CallerCall {
    pub name: String,
    pub arguments: String,
}

/// Indented, where it is an object or array; cut to what a page holds.
fn json(written: &str) -> String {
    match pretty_json(written) {
        Some(pretty) => cut(&pretty),
        None => cut(written),
    }
}

fn cut(written: &str) -> String {
    text::cut(Cow::Owned(text::for_reader(written).into_owned()), MAX_TEXT_BYTES).into_owned()
}
