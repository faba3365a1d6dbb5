//! The decision: call tools, or say something.

use serde_json::{Map, Value};

use super::conversation::{Conversation, Outcome};
use super::{arguments, choose};

/// The end of every message, so that nobody mistakes this for a language model.
const LABEL: &str = "_This is toolgate's built-in demo model, not a language model._";
const MAX_QUOTED_CHARS: usize = 700;
/// Calls in one turn.
const MAX_CALLS: usize = 8;

/// A function the request offers.
#[derive(Debug, Clone)]
pub struct Tool {
    pub name: String,
    pub description: String,
    /// A JSON schema.
    pub parameters: Value,
}

/// The request's `tool_choice`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    Auto,
    None,
    Required,
    Function(String),
}

/// A function call to make.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    pub name: String,
    pub arguments: Map<String, Value>,
}

/// What the model does next.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    Say(String),
    Call(Vec<Call>),
}

/// Decides what follows `messages` (OpenAI's chat messages). `parallel` false means at most one call.
pub fn decide(tools: &[Tool], messages: &[Value], choice: &Choice, parallel: bool) -> Decision {
    let conversation = Conversation::read(messages);
    let mut calls = match choice {
        Choice::None => Vec::new(),
        Choice::Function(name) if conversation.outcomes.is_empty() => {
            forced(tools, &conversation.question, name)
        }
        Choice::Auto | Choice::Required | Choice::Function(_) => {
            wanted(tools, &conversation.question).into_iter().filter_map(Wanted::complete).collect()
        }
    };
    calls.retain(|call| !conversation.has_called(&call.name));
    if calls.is_empty() && *choice == Choice::Required && conversation.outcomes.is_empty() {
        let likeliest = choose::likeliest(tools, &conversation.question);
        calls = likeliest.map(|tool| forced(tools, &conversation.question, &tool.name)).unwrap_or_default();
    }
    calls.truncate(if parallel { MAX_CALLS } else { 1 });
    if calls.is_empty() { Decision::Say(answer(tools, &conversation, choice)) } else { Decision::Call(calls) }
}

/// A call the question asks for.
struct Wanted {
    call: Call,
    /// Required arguments that the question does not hold.
    missing: Vec<String>,
}

impl Wanted {
    fn complete(self) -> Option<Call> {
        self.missing.is_empty().then_some(self.call)
    }
}

fn wanted(tools: &[Tool], question: &str) -> Vec<Wanted> {
    let chosen = choose::choose(tools, question).into_iter();
    chosen.map(|chosen| fill(chosen.tool, &chosen.segment, &chosen.matched)).collect()
}

fn fill(tool: &Tool, segment: &str, matched: &[String]) -> Wanted {
    let (arguments, missing) = arguments::fill(tool, segment, matched);
    Wanted { call: Call { name: tool.name.clone(), arguments }, missing }
}

/// A call that the request demands, whatever the question holds.
fn forced(tools: &[Tool], question: &str, name: &str) -> Vec<Call> {
    let chosen = wanted(tools, question).into_iter().find(|wanted| wanted.call.name == name);
    let wanted =
        chosen.or_else(|| tools.iter().find(|tool| tool.name == name).map(|tool| fill(tool, question, &[])));
    wanted.into_iter().map(|wanted| wanted.call).collect()
}

fn answer(tools: &[Tool], conversation: &Conversation, choice: &Choice) -> String {
    let body = if conversation.outcomes.is_empty() {
        without_results(tools, &conversation.question, choice)
    } else {
        from_results(conversation)
    };
    format!("{body}\n\n{LABEL}")
}

fn from_results(conversation: &Conversation) -> String {
    let mut lines: Vec<String> = match conversation.outcomes.as_slice() {
        [single] => vec![format!("`{}` says: {}", plain_name(&single.tool), quoted(single))],
        several => several
            .iter()
            .map(|outcome| format!("- `{}` says: {}", plain_name(&outcome.tool), quoted(outcome)))
            .collect(),
    };
    match conversation.images {
        0 => {}
        1 => lines.push("\nOne image came with it.".to_owned()),
        images => lines.push(format!("\n{images} images came with it.")),
    }
    lines.join("\n")
}

/// A tool's text on one line, cut, and unable to open a code block or a tag.
fn quoted(outcome: &Outcome) -> String {
    let line = outcome.text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut shown: String = line.chars().take(MAX_QUOTED_CHARS).collect();
    if shown.len() < line.len() {
        shown.push('…');
    }
    if shown.is_empty() {
        "(nothing)".to_owned()
    } else {
        shown.replace("```", "ʼʼʼ").replace('<', "&lt;")
    }
}

fn plain_name(name: &str) -> String {
    let name: String = name.chars().filter(|c| c.is_alphanumeric() || "_-.".contains(*c)).take(64).collect();
    if name.is_empty() { "a tool".to_owned() } else { name }
}

fn without_results(tools: &[Tool], question: &str, choice: &Choice) -> String {
    let heard: String = question.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut shown: String = heard.chars().take(200).collect();
    if shown.len() < heard.len() {
        shown.push('…');
    }
    let heard = if shown.is_empty() {
        "There is no text in your message.".to_owned()
    } else {
        format!("You wrote: “{}”.", shown.replace("```", "ʼʼʼ").replace('<', "&lt;"))
    };
    if *choice == Choice::None && !tools.is_empty() {
        return format!("{heard} The request forbids tool calls, so I make none.");
    }
    if tools.is_empty() {
        return format!(
            "{heard} I only compare words with the tools a request offers, and this one offers none. \
             Add an MCP server to `tools` and ask: “Roll 2 dice and tell me the time in Tokyo”."
        );
    }
    if let Some(wanted) = wanted(tools, question).into_iter().find(|wanted| !wanted.missing.is_empty()) {
        let missing: Vec<_> = wanted.missing.iter().map(|name| format!("`{}`", plain_name(name))).collect();
        let tool = plain_name(&wanted.call.name);
        return format!(
            "{heard} I would call `{tool}`, but your message does not say its {}.",
            missing.join(" and ")
        );
    }
    let names: Vec<_> = tools.iter().take(12).map(|tool| format!("`{}`", plain_name(&tool.name))).collect();
    let more = if tools.len() > names.len() {
        format!(" and {} more", tools.len() - names.len())
    } else {
        String::new()
    };
    format!("{heard} None of the offered tools seems to be meant. I could call {}{more}.", names.join(", "))
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
