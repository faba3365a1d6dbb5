//! What was asked: the messages and tools of a request, for its page.
//!
//! Pure. Of tools only what everybody may know is read: credentials, headers and whole addresses stay where they are.

use serde_json::{Map, Value};
use url::Url;

use crate::tools::text;
use crate::web::{markdown, words};

/// Longest title, in characters.
const TITLE_CHARACTERS: usize = 90;
/// Longer texts are folded, with their beginning as the fold's label.
const FOLDED_FROM_CHARACTERS: usize = 1600;
/// Most messages of a conversation that are shown, the last ones.
const MAX_MESSAGES: usize = 100;
/// Most tools that are named.
const MAX_TOOLS: usize = 128;

/// A request as its page shows it.
#[derive(Debug, Default)]
pub(in crate::web) struct Prompt {
    /// Its first words.
    pub title: String,
    /// What is folded away: instructions and the conversation before.
    pub before: Vec<Message>,
    /// The message that was answered.
    pub asked: Vec<Message>,
    pub tools: Vec<String>,
}

/// One message.
#[derive(Debug)]
pub(in crate::web) struct Message {
    /// Who it is from.
    pub from: &'static str,
    /// Its beginning.
    pub line: String,
    pub html: String,
    pub is_long: bool,
}

impl Prompt {
    /// Of the body of a chat completion.
    pub fn read(request: &Map<String, Value>) -> Prompt {
        let empty = Vec::new();
        let messages = request.get("messages").and_then(Value::as_array).unwrap_or(&empty);
        let skipped = messages.len().saturating_sub(MAX_MESSAGES);
        let role = |message: &Value| message.get("role").and_then(Value::as_str).unwrap_or("").to_owned();
        let last = messages.iter().rposition(|message| role(message) == "user");
        let mut prompt = Prompt::default();
        for (number, message) in messages.iter().enumerate().skip(skipped) {
            let shown = Message::read(&role(message), message);
            if Some(number) == last {
                prompt.asked.push(shown);
            } else {
                prompt.before.push(shown);
            }
        }
        let first = last.or(messages.len().checked_sub(1)).and_then(|at| messages.get(at));
        prompt.title = first.map(|message| title(&content(message))).unwrap_or_default();
        if prompt.title.is_empty() {
            prompt.title = "Without words".to_owned();
        }
        let tools = request.get("tools").and_then(Value::as_array).unwrap_or(&empty);
        prompt.tools = tools.iter().take(MAX_TOOLS).map(tool).collect();
        prompt
    }
}

impl Message {
    fn read(role: &str, message: &Value) -> Message {
        let from = match role {
            "user" => "You asked",
            "system" | "developer" => "Instructions",
            "assistant" => "Answer before",
            "tool" | "function" => "Result of a function",
            _ => "Message",
        };
        let mut content = content(message);
        for call in message.get("tool_calls").and_then(Value::as_array).into_iter().flatten() {
            let name = call.pointer("/function/name").and_then(Value::as_str).unwrap_or("?");
            let name: String = words::line(name).replace('`', "'");
            content.push_str(&format!("\n\n*Called* `{name}`"));
        }
        let line = text::one_line(&content, TITLE_CHARACTERS);
        let is_long = content.chars().nth(FOLDED_FROM_CHARACTERS).is_some();
        Message { from, line, html: markdown::html(&content), is_long }
    }
}

/// The text of a message, with a word for each part that is none.
fn content(message: &Value) -> String {
    match message.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => parts.iter().map(part).collect::<Vec<_>>().join("\n\n"),
        _ => String::new(),
    }
}

fn part(part: &Value) -> String {
    match part.get("type").and_then(Value::as_str) {
        Some("text" | "input_text") => part.get("text").and_then(Value::as_str).unwrap_or("").to_owned(),
        Some("refusal") => part.get("refusal").and_then(Value::as_str).unwrap_or("").to_owned(),
        Some("image_url") => match part.pointer("/image_url/url").and_then(Value::as_str) {
            Some(url) if url.starts_with("http") => {
                format!("![picture](<{}>)", url.replace(['<', '>', '\n'], ""))
            }
            _ => "[a picture]".to_owned(),
        },
        Some("input_audio") => "[a recording]".to_owned(),
        Some("file") => "[a file]".to_owned(),
        _ => "[something else]".to_owned(),
    }
}

/// The first line with words in it, without its marks.
fn title(content: &str) -> String {
    let marks = |line: &str| line.trim_start_matches(['#', '>', '*', '-', '`', ' ', '\t']).trim().to_owned();
    let line = content.lines().map(marks).find(|line| line.chars().any(char::is_alphanumeric));
    let line = line.unwrap_or_else(|| content.to_owned());
    text::one_line(&line, TITLE_CHARACTERS)
}

/// A tool in a few words: a server by its host, a function by its name.
fn tool(tool: &Value) -> String {
    let text = |name: &str| tool.get(name).and_then(Value::as_str);
    match text("type") {
        Some("mcp") => {
            let url = text("server_url").or(text("url")).and_then(|url| Url::parse(url).ok());
            let host = url.as_ref().and_then(Url::host_str).unwrap_or("a server");
            let port = url.as_ref().and_then(Url::port).map(|port| format!(":{port}")).unwrap_or_default();
            words::address(&format!("{host}{port}"))
        }
        _ => {
            let name =
                tool.pointer("/function/name").and_then(Value::as_str).or(text("type")).unwrap_or("tool");
            format!("{}()", words::line(name))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(request: Value) -> Prompt {
        Prompt::read(request.as_object().unwrap_or(&Map::new()))
    }

    #[test]
    fn the_last_question_stands_out_and_the_rest_is_folded() {
        let prompt = read(json!({
            "messages": [
                {"role": "system", "content": "Be *brief*."},
                {"role": "user", "content": "Hello"},
                {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "look`up"}}]},
                {"role": "user", "content": [
                    {"type": "text", "text": "\n# What is\u{202e} <b>this</b>?\nSay it."},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                    {"type": "image_url", "image_url": {"url": "https://p.example/a.png"}},
                ]},
            ],
            "tools": [
                {"type": "mcp", "server_url": "https://s.example:8443/secret?token=1", "authorization": "x"},
                {"type": "function", "function": {"name": "<i>"}},
            ],
        }));
        assert_eq!(prompt.title, "What is <b>this</b>?");
        let from: Vec<&str> = prompt.before.iter().map(|message| message.from).collect();
        assert_eq!(from, ["Instructions", "You asked", "Answer before"]);
        assert_eq!(prompt.before[0].html, "<p>Be <em>brief</em>.</p>\n");
        assert!(prompt.before[2].html.contains("<code>look&#39;up</code>"));
        let html = &prompt.asked[0].html;
        assert!(html.contains("&lt;b&gt;this") && html.contains("[a picture]") && !html.contains("base64"));
        assert!(html.contains("picture (p.example)</a>") && !html.contains("<img"));
        assert_eq!(prompt.tools, ["s.example:8443", "<i>()"]);
    }

    #[test]
    fn a_request_without_anything_has_a_title() {
        for request in [
            json!(null),
            json!({"messages": []}),
            json!({"messages": [{"role": 7, "content": " "}]}),
            json!({"messages": "x"}),
        ] {
            assert_eq!(read(request.clone()).title, "Without words", "{request}");
        }
        assert_eq!(read(json!({"messages": [{"role": "user", "content": "???"}]})).title, "???");
    }
}
