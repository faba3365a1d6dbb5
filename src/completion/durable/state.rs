//! What is kept of a request, so that its run can go on in another process and be looked at: everything but
//! credentials and headers.

use std::net::IpAddr;

use http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::clean_json;
use crate::completion::options::Options;
use crate::connections::Application;
use crate::openai::ChatRequest;
use crate::upstream::{KeptTarget, Target};

/// Fields of a request that are not kept with it: they are columns of their own, or the gateway's.
const LEFT_OUT: [&str; 2] = ["metadata", "store"];
/// Fields of an entry of `tools` that are credentials.
const CREDENTIALS: [&str; 2] = ["authorization", "headers"];
/// Characters of a title.
const TITLE: usize = 140;

/// What is needed to go on, besides the request and what has happened.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeptState {
    pub target: KeptTarget,
    /// The endpoint below the provider's base address.
    pub path: String,
    pub options: Options,
    pub application: KeptApplication,
    /// The request brought credentials, which are not kept: nobody else can go on with it.
    pub has_credentials: bool,
    pub webhook_url: Option<String>,
}

/// What a consent page calls the caller.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeptApplication {
    name: String,
    verified: bool,
    /// From where it asked, where nobody vouches for it: its runs are counted by that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    place: Option<IpAddr>,
}

impl KeptApplication {
    pub fn new(application: &Application) -> Self {
        KeptApplication {
            name: application.name.to_string(),
            verified: application.verified,
            place: application.place,
        }
    }

    pub fn into_application(self) -> Application {
        Application { name: self.name.into(), verified: self.verified, place: self.place }
    }
}

/// Whether the request cannot be repeated from what is kept of it.
pub fn has_credentials(request: &ChatRequest, headers: &HeaderMap, target: &Target) -> bool {
    let in_tools = || {
        let tools: Vec<Map<String, Value>> =
            request.raw("tools").and_then(|tools| clean_json::from_str(tools).ok()).unwrap_or_default();
        tools.iter().any(|tool| is_mcp(tool) && CREDENTIALS.iter().any(|field| tool.contains_key(*field)))
    };
    target.has_callers_key() || headers.contains_key("x-mcp-authorization") || in_tools()
}

/// The request as JSON, without credentials.
pub fn kept_request(request: &ChatRequest) -> Vec<u8> {
    let mut kept = String::with_capacity(request.body().len());
    for (key, value) in request.fields().filter(|(key, _)| !LEFT_OUT.contains(key)) {
        kept.push(if kept.is_empty() { '{' } else { ',' });
        kept.push_str(&Value::from(key).to_string());
        kept.push(':');
        match key {
            "tools" => kept.push_str(&without_credentials(value)),
            _ => kept.push_str(value),
        }
    }
    kept.push_str(if kept.is_empty() { "{}" } else { "}" });
    kept.into_bytes()
}

fn without_credentials(tools: &str) -> String {
    let Ok(mut tools) = clean_json::from_str::<Vec<Value>>(tools) else { return "[]".to_owned() };
    for tool in tools.iter_mut().filter_map(Value::as_object_mut).filter(|tool| is_mcp(tool)) {
        for field in CREDENTIALS {
            tool.shift_remove(field);
        }
    }
    Value::Array(tools).to_string()
}

fn is_mcp(tool: &Map<String, Value>) -> bool {
    tool.get("type").is_some_and(|kind| kind == "mcp")
}

/// What a list calls the run: the beginning of the last message of the user.
pub fn title(request: &ChatRequest) -> String {
    let messages: Vec<Map<String, Value>> =
        request.raw("messages").and_then(|messages| clean_json::from_str(messages).ok()).unwrap_or_default();
    let of_user = |message: &&Map<String, Value>| message.get("role").is_some_and(|role| role == "user");
    let text = messages.iter().rev().find(of_user).map(|message| text_of(message.get("content")));
    let text = text.unwrap_or_default();
    let mut title = String::new();
    for word in text.split_whitespace() {
        if !title.is_empty() {
            title.push(' ');
        }
        title.extend(word.chars().filter(|c| !c.is_control()));
        if title.chars().count() > TITLE {
            title = title.chars().take(TITLE).collect();
            title.push('…');
            break;
        }
    }
    title
}

/// The text of a message's `content`: a text, or the text parts of a list.
pub fn text_of(content: Option<&Value>) -> String {
    match content {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            let texts = parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str));
            texts.collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_kept_and_the_rest_is() {
        let request = ChatRequest::parse(
            r#"{"model":"m","store":true,"metadata":{"a":"b"},"x":{"deep":[1]},"messages":[{"role":"user","content":" Hello\n there "}],
                "tools":[{"type":"mcp","server_url":"https://a.example","authorization":"canary","headers":{"X-A":"canary"}},
                         {"type":"function","function":{"name":"headers"}}]}"#
                .into(),
        )
        .unwrap();
        let kept = String::from_utf8(kept_request(&request)).unwrap();
        assert!(!kept.contains("canary") && !kept.contains("metadata") && !kept.contains("store"), "{kept}");
        let kept: Value = serde_json::from_str(&kept).unwrap();
        assert_eq!(kept["x"]["deep"][0], 1);
        assert_eq!(kept["tools"][1]["function"]["name"], "headers");
        assert_eq!(title(&request), "Hello there");
    }
}
