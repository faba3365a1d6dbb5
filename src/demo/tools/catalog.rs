//! Which tools there are, and what they say about themselves.

use base64::Engine;
use serde_json::{Map, Value, json};

use super::{calculate, dice, draw, notes, world_time};
use crate::clock::Clock;

const MAX_SLOW_SECONDS: u64 = 20;

/// Who calls a server that wants a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visitor {
    /// With the fixed access token, which is nobody's.
    Nameless,
    /// Somebody who logged in under this name.
    Named(String),
}

/// What a tool answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    Text(String),
    /// A picture with its caption.
    Picture {
        caption: String,
        png: Vec<u8>,
    },
    /// Wait so many seconds, telling the progress, then say so.
    Wait {
        seconds: u64,
    },
    /// The call failed; the text says why and what would work.
    Failure(String),
}

/// The definitions for `tools/list`, in a fixed order. `private` adds `whoami`.
pub fn list(private: bool) -> Vec<Value> {
    let mut tools = vec![
        tool(
            "roll_dice",
            "Roll dice",
            "Roll one or more dice and tell what they show. The numbers are really random.",
            json!({
                "count": {"type": "integer", "minimum": 1, "maximum": 100, "default": 1, "description": "How many dice"},
                "sides": {"type": "integer", "minimum": 2, "maximum": 1000, "default": 6, "description": "Sides of each"},
            }),
            &[],
        ),
        tool(
            "current_time",
            "Current time",
            "Tell the present time and date in a city or time zone.",
            json!({"place": {"type": "string", "description": "A city such as `Tokyo`, a zone such as `Europe/Berlin`, or `UTC`"}}),
            &["place"],
        ),
        tool(
            "calculate",
            "Calculator",
            "Calculate an arithmetic expression exactly as written: + - * / % ^ and parentheses.",
            json!({"expression": {"type": "string", "maxLength": 500, "description": "For example `(2 + 3) * 4`"}}),
            &["expression"],
        ),
        tool(
            "search_notes",
            "Search the notes",
            "Search a small collection of notes about toolgate itself.",
            json!({"query": {"type": "string", "maxLength": 500, "description": "Words to look for"}}),
            &["query"],
        ),
        tool(
            "draw",
            "Draw a shape",
            "Draw a small picture of a shape and return it as a PNG image.",
            json!({
                "shape": {"type": "string", "enum": draw::SHAPES, "description": "What to draw"},
                "colour": {"type": "string", "enum": draw::COLOURS, "default": "blue", "description": "In which colour"},
            }),
            &["shape"],
        ),
        tool(
            "slow",
            "Take your time",
            "Work slowly for some seconds, with progress notifications.",
            json!({"seconds": {"type": "integer", "minimum": 1, "maximum": MAX_SLOW_SECONDS, "default": 3, "description": "How long"}}),
            &[],
        ),
        tool(
            "fail",
            "Fail",
            "Always fail, to show what a failing tool looks like.",
            json!({"message": {"type": "string", "maxLength": 500, "default": "this tool always fails", "description": "The error message"}}),
            &[],
        ),
    ];
    if private {
        tools.push(tool("whoami", "Who am I", "Tell who is logged in at this server.", json!({}), &[]));
    }
    tools
}

fn tool(name: &str, title: &str, description: &str, properties: Value, required: &[&str]) -> Value {
    let mut schema = json!({"type": "object", "properties": properties, "additionalProperties": false});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    json!({
        "name": name,
        "title": title,
        "description": description,
        "inputSchema": schema,
        "annotations": {"title": title, "readOnlyHint": true, "destructiveHint": false, "openWorldHint": false},
    })
}

/// Runs a tool for a visitor of the private server, or for anybody; `None` when there is none of that name. Wrong arguments are a [`Output::Failure`] that names them,
/// so that a model can correct itself (MCP 2026-07-28, tools, "Error Handling").
pub fn call(
    clock: &Clock,
    visitor: Option<&Visitor>,
    name: &str,
    arguments: &Map<String, Value>,
) -> Option<Output> {
    let definition = list(visitor.is_some()).into_iter().find(|tool| tool["name"] == name)?;
    let properties = definition["inputSchema"]["properties"].as_object().cloned().unwrap_or_default();
    if let Some(unknown) = arguments.keys().find(|key| !properties.contains_key(*key)) {
        let known: Vec<_> = properties.keys().map(|key| format!("`{key}`")).collect();
        let unknown: String = unknown.chars().take(40).collect();
        return Some(Output::Failure(format!("unknown argument `{unknown}`; there is {}", known.join(", "))));
    }
    Some(run(clock, visitor, name, arguments).unwrap_or_else(Output::Failure))
}

fn run(
    clock: &Clock,
    visitor: Option<&Visitor>,
    name: &str,
    arguments: &Map<String, Value>,
) -> Result<Output, String> {
    Ok(match name {
        "roll_dice" => {
            let count = integer(arguments, "count", 1, 100)?.unwrap_or(1);
            let sides = integer(arguments, "sides", 2, 1000)?.unwrap_or(6);
            Output::Text(dice::describe(&dice::roll(count, sides), sides))
        }
        "current_time" => {
            Output::Text(world_time::tell(clock.unix_seconds(), required_text(arguments, "place")?)?)
        }
        "calculate" => {
            let expression = required_text(arguments, "expression")?;
            let value = calculate::evaluate(expression).map_err(|error| error.to_string())?;
            Output::Text(format!("{} = {}", expression.trim(), calculate::show(value)))
        }
        "search_notes" => Output::Text(notes::search(required_text(arguments, "query")?)),
        "draw" => {
            let shape = required_text(arguments, "shape")?;
            let colour = text(arguments, "colour")?.unwrap_or("blue");
            let png = draw::png(shape, colour)?;
            Output::Picture { caption: format!("A {colour} {shape}."), png }
        }
        "slow" => Output::Wait { seconds: integer(arguments, "seconds", 1, MAX_SLOW_SECONDS)?.unwrap_or(3) },
        "whoami" => Output::Text(match visitor {
            Some(Visitor::Named(name)) => format!("You are {name}: so you said when you logged in here."),
            Some(Visitor::Nameless) | None => {
                "You brought the demo's fixed access token, which is nobody's. Log in to be somebody."
                    .to_owned()
            }
        }),
        // `fail`, the only one left: `call` has checked the name.
        _ => Output::Failure(text(arguments, "message")?.unwrap_or("this tool always fails").to_owned()),
    })
}

fn integer(arguments: &Map<String, Value>, key: &str, least: u64, most: u64) -> Result<Option<u64>, String> {
    let Some(value) = arguments.get(key).filter(|value| !value.is_null()) else { return Ok(None) };
    // 2.0 is an integer to JSON Schema too.
    let whole = value.as_u64().or_else(|| {
        let number = value.as_f64().filter(|number| number.fract() == 0.0 && (0.0..1e9).contains(number))?;
        format!("{number}").parse().ok()
    });
    match whole {
        Some(number) if (least..=most).contains(&number) => Ok(Some(number)),
        _ => Err(format!("`{key}` must be a whole number from {least} to {most}")),
    }
}

fn text<'a>(arguments: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, String> {
    match arguments.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.len() <= 500 => Ok(Some(text)),
        Some(_) => Err(format!("`{key}` must be a text of at most 500 bytes")),
    }
}

fn required_text<'a>(arguments: &'a Map<String, Value>, key: &str) -> Result<&'a str, String> {
    text(arguments, key)?.filter(|text| !text.trim().is_empty()).ok_or_else(|| format!("`{key}` is missing"))
}

impl Output {
    /// The `CallToolResult` without its protocol fields. Waiting must be over.
    pub fn into_result(self) -> Value {
        match self {
            Output::Text(text) => json!({"content": [{"type": "text", "text": text}], "isError": false}),
            Output::Picture { caption, png } => {
                let data = base64::engine::general_purpose::STANDARD.encode(png);
                json!({
                    "content": [
                        {"type": "text", "text": caption},
                        {"type": "image", "mimeType": "image/png", "data": data},
                    ],
                    "isError": false,
                })
            }
            Output::Wait { seconds } => {
                let plural = if seconds == 1 { "" } else { "s" };
                json!({
                    "content": [{"type": "text", "text": format!("Done after {seconds} second{plural}.")}],
                    "isError": false,
                })
            }
            Output::Failure(reason) => {
                json!({"content": [{"type": "text", "text": reason}], "isError": true})
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_tool(name: &str, arguments: Value) -> Output {
        let clock = Clock::fixed(1_795_225_530_000);
        call(&clock, Some(&Visitor::Nameless), name, arguments.as_object().unwrap()).unwrap()
    }

    #[test]
    fn every_listed_tool_can_be_called_and_has_words_for_people() {
        for tool in list(true) {
            let name = tool["name"].as_str().unwrap();
            assert!(call(&Clock::system(), Some(&Visitor::Nameless), name, &Map::new()).is_some(), "{name}");
            assert!(tool["title"].is_string() && tool["description"].is_string());
            assert_eq!(tool["annotations"]["readOnlyHint"], true);
        }
    }

    #[test]
    fn only_the_private_server_knows_who_one_is() {
        assert!(call(&Clock::system(), None, "whoami", &Map::new()).is_none());
        assert!(list(false).iter().all(|tool| tool["name"] != "whoami"));
    }

    #[test]
    fn wrong_arguments_are_failures_that_name_them() {
        for (name, arguments, word) in [
            ("roll_dice", json!({"count": 0}), "`count`"),
            ("roll_dice", json!({"sides": "six"}), "`sides`"),
            ("roll_dice", json!({"dice": 2}), "`dice`"),
            ("current_time", json!({}), "`place`"),
            ("current_time", json!({"place": "Atlantis"}), "Atlantis"),
            ("calculate", json!({"expression": "1 +"}), "end"),
            ("draw", json!({"shape": "elephant"}), "elephant"),
            ("slow", json!({"seconds": 21}), "20"),
        ] {
            match run_tool(name, arguments) {
                Output::Failure(reason) => assert!(reason.contains(word), "{reason}"),
                other => panic!("{name}: {other:?}"),
            }
        }
    }

    #[test]
    fn results_have_the_shape_of_mcp() {
        let picture = run_tool("draw", json!({"shape": "circle"})).into_result();
        assert_eq!(picture["content"][1]["mimeType"], "image/png");
        let failure = run_tool("fail", json!({"message": "disk full"})).into_result();
        assert_eq!(failure["isError"], true);
        assert_eq!(failure["content"][0]["text"], "disk full");
        assert_eq!(
            run_tool("calculate", json!({"expression": "2 + 3 * 4"})).into_result()["content"][0]["text"],
            "2 + 3 * 4 = 14"
        );
    }
}
