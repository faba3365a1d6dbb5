//! One event, one block of Markdown that ends in a blank line.

use std::borrow::Cow;

use serde_json::Value;

use super::{escape, json};
use crate::completion::event::{
    AuthorizationBatch, AuthorizationRequired, LinkKind, Notice, ToolCall, ToolResultEvent,
};
use crate::tools::{Part, ToolResult, text};

const NAME_CHARACTERS: usize = 128;
const HOST_CHARACTERS: usize = 262;
const SENTENCE_CHARACTERS: usize = 1000;
const PAGE_CHARACTERS: usize = 4200;
/// Longer errors, and those of several lines, stand in a fence.
const SHORT_ERROR_CHARACTERS: usize = 300;
/// Most bytes of one fence. Results come cut to the configured size; this is for arguments and for the rest.
const FENCE_BYTES: usize = 1 << 20;

/// A call: tool and host in the summary, the arguments as a fence.
pub fn tool_call(call: &ToolCall) -> String {
    let mut block = String::new();
    let tool = escape::summary(&call.tool, NAME_CHARACTERS);
    let host = escape::summary(&call.host, HOST_CHARACTERS);
    open(&mut block, &format!("🔧 {tool} ({host})"));
    match &call.arguments {
        // What the model wrote is not JSON.
        Value::String(written) => fence(&mut block, &Content::text(written)),
        arguments => {
            let text = arguments.to_string();
            let shown = json::pretty(&text).unwrap_or(text);
            fence(&mut block, &Content { language: "json", text: shown });
        }
    }
    close(&mut block);
    block
}

/// A result: its size in the summary, what the tool said in fences. Media are named, not shown.
pub fn tool_result(event: &ToolResultEvent) -> String {
    let mut block = String::new();
    open(&mut block, &format!("Result (±{} tokens)", event.result.estimate_tokens()));
    let contents = contents(&event.result);
    if event.result.is_error {
        if let [Content { language: "text", text }] = &contents[..]
            && text.chars().nth(SHORT_ERROR_CHARACTERS).is_none()
            && !text.trim_end().contains('\n')
        {
            let message = escape::code_span(text, SHORT_ERROR_CHARACTERS);
            block.push_str(if message.is_empty() { "**Error**" } else { "**Error** " });
            block.push_str(&message);
            block.push_str("\n\n");
            close(&mut block);
            return block;
        }
        block.push_str("**Error** The call failed:\n\n");
    }
    for content in &contents {
        fence(&mut block, content);
    }
    close(&mut block);
    block
}

/// A remark of the gateway, as a quotation.
pub fn notice(notice: &Notice) -> String {
    format!("> **Notice** {}\n\n", escape::inline(&notice.message, SENTENCE_CHARACTERS))
}

/// The run goes on in another process.
pub fn resumed() -> String {
    "> **Notice** The gateway was restarted here. What it was writing begins anew.\n\n".to_owned()
}

/// The run has failed.
pub fn failed(message: &str) -> String {
    format!("\n\n> **Error** {}\n", escape::inline(message, SENTENCE_CHARACTERS))
}

/// Missing logins: one item per server, with its host and, where there is one, the link to log in.
pub fn authorization_required(logins: &[AuthorizationRequired]) -> String {
    if logins.is_empty() {
        return String::new();
    }
    let mut block = String::from("**Authorization required**\n\n");
    for login in logins {
        block.push_str(&login_item(login));
    }
    block
}

/// One item of [`authorization_required`].
pub fn login_item(login: &AuthorizationRequired) -> String {
    let host = escape::inline(&login.host, HOST_CHARACTERS);
    let reason = escape::inline(&login.reason, SENTENCE_CHARACTERS);
    match login.connect_url.as_deref().and_then(link_destination) {
        // The page is the server's choice, so its whole address is what the reader sees.
        Some(url) if login.kind == LinkKind::Elicitation => {
            let whole = escape::code_span(login.connect_url.as_deref().unwrap_or_default(), PAGE_CHARACTERS);
            let page = url::Url::parse(&url).ok();
            let page = escape::inline(
                page.as_ref().and_then(url::Url::host_str).unwrap_or_default(),
                HOST_CHARACTERS,
            );
            format!("- [{page}]({url}): {reason} The whole address: {whole}\n\n")
        }
        Some(url) => format!("- [{host}]({url}): {reason}\n\n"),
        None => format!("- **{host}**: {reason}\n\n"),
    }
}

/// The item of the list that stands for all of it.
pub fn batch_item(batch: &AuthorizationBatch) -> String {
    let count = batch.resources.len();
    match batch.connect_all_url.as_deref().and_then(link_destination) {
        Some(url) => format!("- [All {count} in one sitting]({url})\n\n"),
        None => String::new(),
    }
}

/// That the answer will go on by itself.
pub fn waiting(seconds: u64) -> String {
    format!("> **Waiting** The answer goes on here as soon as that is done, within {seconds} s.\n\n")
}

/// That something waited for is done.
pub fn authorized(host: &str) -> String {
    format!("> **Authorized** {}\n\n", escape::inline(host, HOST_CHARACTERS))
}

/// `url` where Markdown expects one, or `None` when it is not a web address.
fn link_destination(url: &str) -> Option<String> {
    let url = url::Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    let mut out = String::new();
    for c in url.as_str().chars() {
        match c {
            '(' => out.push_str("%28"),
            ')' => out.push_str("%29"),
            '\\' => out.push_str("%5C"),
            '*' => out.push_str("%2A"),
            '`' => out.push_str("%60"),
            c if c.is_ascii_graphic() && !matches!(c, '<' | '>' | '"' | '[' | ']') => out.push(c),
            _ => return None,
        }
    }
    Some(out)
}

struct Content {
    language: &'static str,
    text: String,
}

impl Content {
    fn text(text: &str) -> Self {
        Content { language: "text", text: text::for_reader(text).into_owned() }
    }

    /// JSON where `text` is an object or an array.
    fn of(text: &str) -> Self {
        match json::pretty(text) {
            Some(text) => Content { language: "json", text },
            None => Content::text(text),
        }
    }
}

/// What a reader sees of a result, neighbouring texts together.
fn contents(result: &ToolResult) -> Vec<Content> {
    let mut contents: Vec<Content> = Vec::new();
    let mut add = |content: Content| match contents.last_mut() {
        Some(last) if last.language == "text" && content.language == "text" => {
            if !last.text.ends_with('\n') {
                last.text.push('\n');
            }
            last.text.push_str(&content.text);
        }
        _ => contents.push(content),
    };
    for part in &result.parts {
        if let Some(name) = part.label() {
            add(Content::text(&name));
        }
        if let Part::Text(text) | Part::ResourceText { text, .. } = part {
            add(Content::of(text));
        }
    }
    if let Some(structured) = result.unrepeated_structured() {
        add(Content::of(structured));
    }
    if contents.iter().all(|content| content.text.trim().is_empty()) {
        contents.clear();
        contents.push(Content::text("(nothing)"));
    }
    contents
}

fn open(block: &mut String, summary: &str) {
    block.push_str("<details><summary>");
    block.push_str(summary);
    block.push_str("</summary>\n\n");
}

fn fence(block: &mut String, content: &Content) {
    let text = text::cut(Cow::Borrowed(&content.text), FENCE_BYTES);
    escape::fence(block, content.language, &text);
    block.push('\n');
}

fn close(block: &mut String) {
    block.push_str("</details>\n\n");
}

#[cfg(test)]
#[path = "block_test.rs"]
mod tests;
