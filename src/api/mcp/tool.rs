//! The only tool, `ask`: what it says of itself, and what it is called with.

use serde_json::{Map, Value, json};

use crate::api::App;
use crate::completion::Record;
use crate::mcp::{Refusal, invalid_params, unknown_tool};
use crate::tools::text;

const NAME: &str = "ask";
/// Longest message, in characters.
const LONGEST_MESSAGE: usize = 200_000;
/// Longest title, in characters.
const TITLE_CHARACTERS: usize = 90;
/// Longest name of a model in a description, in characters.
const MODEL_CHARACTERS: usize = 80;
/// Longest token that clients may choose for progress, in bytes: it is repeated in every notification.
const LONGEST_TOKEN: usize = 256;

/// What the run was asked, in a line.
pub(super) fn title(app: &App, record: &Record) -> String {
    let line = plain(app, &record.title, TITLE_CHARACTERS);
    if line.is_empty() { "a kept prompt".to_owned() } else { line }
}

/// A stranger's words in a line of at most `most` characters. They end up among those of other tools, where models read
/// them and clients may show them as HTML or Markdown: what would be a mark there becomes its likeness.
fn plain(app: &App, words: &str, most: usize) -> String {
    let line = text::one_line(&app.engine.without_links(words), most);
    let likeness = |c| match c {
        '<' => '‹',
        '>' => '›',
        '[' => '(',
        ']' => ')',
        '`' | '"' | '“' | '”' => '\'',
        other => other,
    };
    line.chars().map(likeness).collect()
}

/// The tool's definition.
pub(super) fn definition(app: &App, record: &Record) -> Value {
    let title = title(app, record);
    let model = plain(app, &record.model, MODEL_CHARACTERS);
    // Whoever did not ask the run gets its words without its tools.
    let tools = record.request.get("tools").and_then(Value::as_array).filter(|_| record.is_callers);
    let has_tools = tools.is_some_and(|tools| !tools.is_empty());
    let with = if has_tools { ", with the tools of that prompt" } else { "" };
    let description = format!(
        "Asks the model `{model}`{with}, with a kept prompt as its instructions: “{title}”. It sees nothing else of this \
         conversation and remembers no earlier call, so put all it needs into `message`. The answer is text. When \
         somebody must log in first, it holds the links: show them, and ask again after the login."
    );
    json!({
        "name": NAME,
        "title": title,
        "description": description,
        "inputSchema": {
            "type": "object",
            "properties": {
                "message": {
                    "type": "string",
                    "description": "The question or task, in full.",
                    "minLength": 1,
                    "maxLength": LONGEST_MESSAGE,
                },
            },
            "required": ["message"],
            "additionalProperties": false,
        },
        // It costs money, and no two answers are the same; what its tools destroy is theirs to say.
        "annotations": {
            "title": title,
            "readOnlyHint": false,
            "destructiveHint": has_tools,
            "idempotentHint": false,
            "openWorldHint": true,
        },
    })
}

/// What a call asks.
#[derive(Debug)]
pub(super) struct Asked {
    pub message: String,
    /// What the client calls its wish to be told of progress.
    pub progress_token: Option<Value>,
}

impl Asked {
    /// Reads the parameters of `tools/call`.
    ///
    /// # Errors
    /// −32602, naming the parameter.
    pub fn read(params: &Map<String, Value>) -> Result<Self, Refusal> {
        let name = params.get("name").and_then(Value::as_str);
        let name = name.ok_or_else(|| invalid_params("`params.name` must be a string"))?;
        if name != NAME {
            return Err(unknown_tool(name));
        }
        let Some(Value::Object(arguments)) = params.get("arguments") else {
            return Err(invalid_params("`params.arguments` must be an object with `message`"));
        };
        if let Some(unknown) = arguments.keys().find(|key| *key != "message") {
            let unknown = text::one_line(unknown, MODEL_CHARACTERS);
            return Err(invalid_params(format!("`{unknown}` is no argument of `{NAME}`; `message` is")));
        }
        let Some(Value::String(message)) = arguments.get("message") else {
            return Err(invalid_params("`message` must be a string"));
        };
        if message.trim().is_empty() {
            return Err(invalid_params("`message` is empty; put the question into it"));
        }
        if message.chars().count() > LONGEST_MESSAGE {
            return Err(invalid_params(format!("`message` must have at most {LONGEST_MESSAGE} characters")));
        }
        Ok(Asked { message: message.clone(), progress_token: progress_token(params)? })
    }
}

/// MCP: "progress tokens MUST be a string or integer value".
fn progress_token(params: &Map<String, Value>) -> Result<Option<Value>, Refusal> {
    match params.get("_meta").and_then(|meta| meta.get("progressToken")) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(token)) if token.len() <= LONGEST_TOKEN => Ok(Some(token.as_str().into())),
        Some(Value::Number(token)) if token.is_i64() || token.is_u64() => Ok(Some(token.clone().into())),
        Some(_) => Err(invalid_params(format!(
            "`progressToken` must be a whole number or a string of at most {LONGEST_TOKEN} bytes"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(params: Value) -> Result<Asked, String> {
        let Value::Object(params) = params else { panic!("parameters are an object") };
        Asked::read(&params).map_err(|refusal| refusal.message)
    }

    #[test]
    fn arguments_are_one_message() {
        let asked = read(
            json!({ "name": "ask", "arguments": { "message": "Hello" }, "_meta": { "progressToken": 7 } }),
        );
        let asked = asked.unwrap();
        assert_eq!((asked.message.as_str(), asked.progress_token), ("Hello", Some(json!(7))));
        let most = json!({ "message": "é".repeat(LONGEST_MESSAGE) });
        assert!(read(json!({ "name": "ask", "arguments": most })).unwrap().progress_token.is_none());
        for (params, words) in [
            (json!({}), "`params.name`"),
            (json!({ "name": "tell", "arguments": { "message": "x" } }), "Unknown tool: tell"),
            (json!({ "name": "ask" }), "`params.arguments`"),
            (json!({ "name": "ask", "arguments": ["message"] }), "`params.arguments`"),
            (json!({ "name": "ask", "arguments": {} }), "`message` must be a string"),
            (json!({ "name": "ask", "arguments": { "message": 7 } }), "`message` must be a string"),
            (json!({ "name": "ask", "arguments": { "message": " \n" } }), "`message` is empty"),
            (
                json!({ "name": "ask", "arguments": { "message": "é".repeat(LONGEST_MESSAGE + 1) } }),
                "at most 200000",
            ),
            (
                json!({ "name": "ask", "arguments": { "message": "x", "model": "m" } }),
                "`model` is no argument",
            ),
        ] {
            let said = read(params.clone()).unwrap_err();
            assert!(said.contains(words), "{params}: {said}");
        }
    }

    #[test]
    fn a_token_that_would_fill_every_notification_is_refused() {
        for token in [json!("t".repeat(257)), json!({}), json!(1.5), json!(true)] {
            let params = json!({ "name": "ask", "arguments": { "message": "x" }, "_meta": { "progressToken": token } });
            assert!(read(params).unwrap_err().contains("`progressToken`"));
        }
    }
}
