//! Reading the messages: what was asked last, and what has happened since.

use serde_json::Value;

const MAX_QUESTION_CHARS: usize = 4000;

/// The part of a conversation that matters for the next message.
#[derive(Debug, Default, PartialEq)]
pub struct Conversation {
    /// The text of the last user message.
    pub question: String,
    /// Functions called since then.
    called: Vec<String>,
    /// Their results, in order.
    pub outcomes: Vec<Outcome>,
    /// Images shown since then.
    pub images: usize,
}

/// One tool result.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    pub tool: String,
    pub text: String,
}

impl Conversation {
    /// Reads OpenAI chat messages; what is malformed counts as absent.
    pub fn read(messages: &[Value]) -> Self {
        let asked = (0..messages.len()).rev().find(|&at| is_question(messages, at));
        let mut conversation = Conversation::default();
        if let Some(at) = asked {
            conversation.question = text_of(&messages[at]).chars().take(MAX_QUESTION_CHARS).collect();
        }
        let mut names = std::collections::HashMap::new();
        for message in &messages[asked.map_or(0, |at| at + 1)..] {
            let calls = message.get("tool_calls").and_then(Value::as_array);
            for call in calls.into_iter().flatten() {
                if let Some(name) = call.pointer("/function/name").and_then(Value::as_str) {
                    conversation.called.push(name.to_owned());
                    names.insert(call.get("id").and_then(Value::as_str).unwrap_or_default(), name);
                }
            }
            conversation.images += images_in(message);
            if role(message) == "tool" {
                let id = message.get("tool_call_id").and_then(Value::as_str).unwrap_or_default();
                let tool = names.get(id).copied().unwrap_or_default().to_owned();
                conversation.outcomes.push(Outcome { tool, text: text_of(message) });
            }
        }
        conversation
    }

    /// Whether the function was already called for this question.
    pub fn has_called(&self, name: &str) -> bool {
        self.called.iter().any(|called| called == name)
    }
}

fn role(message: &Value) -> &str {
    message.get("role").and_then(Value::as_str).unwrap_or_default()
}

/// A user message, but not one right after tool results: that one carries their images.
fn is_question(messages: &[Value], at: usize) -> bool {
    role(&messages[at]) == "user" && (at == 0 || role(&messages[at - 1]) != "tool")
}

/// The text of a message, whether `content` is a string or a list of parts.
pub fn text_of(message: &Value) -> String {
    match message.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            let texts: Vec<_> =
                parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect();
            texts.join("\n")
        }
        _ => String::new(),
    }
}

fn images_in(message: &Value) -> usize {
    let parts = message.get("content").and_then(Value::as_array);
    parts.map_or(0, |parts| parts.iter().filter(|part| part.get("image_url").is_some()).count())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_follows_the_last_question_counts() {
        let call = |id: &str, name: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": "{}"}});
        let messages = json!([
            {"role": "user", "content": "one"},
            {"role": "assistant", "tool_calls": [call("a", "old")]},
            {"role": "tool", "tool_call_id": "a", "content": "old result"},
            {"role": "assistant", "content": "done"},
            {"role": "user", "content": [{"type": "text", "text": "two"}]},
            {"role": "assistant", "content": null, "tool_calls": [call("b", "new"), call("c", "draw")]},
            {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "new result"}]},
            {"role": "tool", "tool_call_id": "c", "content": "a picture"},
            {"role": "user", "content": [{"type": "text", "text": "images of draw"}, {"type": "image_url", "image_url": {"url": "data:"}}]},
        ]);
        let read = Conversation::read(messages.as_array().unwrap());
        assert_eq!(read.question, "two");
        assert!(read.has_called("new") && read.has_called("draw") && !read.has_called("old"));
        assert_eq!(read.images, 1);
        let outcomes: Vec<_> =
            read.outcomes.iter().map(|outcome| (outcome.tool.as_str(), outcome.text.as_str())).collect();
        assert_eq!(outcomes, [("new", "new result"), ("draw", "a picture")]);
    }

    #[test]
    fn nonsense_is_an_empty_conversation() {
        assert_eq!(Conversation::read(&[]), Conversation::default());
        assert_eq!(
            Conversation::read(&[json!(7), json!({"role": 3, "content": {}})]),
            Conversation::default()
        );
    }
}
