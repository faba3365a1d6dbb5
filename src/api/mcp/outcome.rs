//! What a run came to, as the result of a tool call.

use serde_json::{Value, json};

use crate::completion::event::RunError;
use crate::tools::text;

/// Longest name of a function in an error, in characters.
const LONGEST_NAME: usize = 80;

/// A result with this text.
pub(super) fn text(words: &str, is_error: bool) -> Value {
    json!({ "content": [{ "type": "text", "text": words }], "isError": is_error })
}

/// The result of a run that ended with this answer. Failures are results too: the model that called the tool is told.
pub(super) fn of(answer: Result<Value, RunError>) -> Value {
    let completion = match answer {
        Ok(completion) => completion,
        Err(failed) => {
            let message = failed.error.get("message").and_then(Value::as_str);
            return text(message.unwrap_or("the run failed"), true);
        }
    };
    let message = &completion["choices"][0]["message"];
    let said = [&message["content"], &message["refusal"]];
    let mut words = said.iter().find_map(|words| words.as_str()).unwrap_or_default().to_owned();
    let calls = message["tool_calls"].as_array().map_or(&[][..], Vec::as_slice);
    let names: Vec<String> = calls
        .iter()
        .filter_map(|call| call["function"]["name"].as_str())
        .map(|name| format!("`{}`", text::one_line(name, LONGEST_NAME).replace('`', "'")))
        .collect();
    if !names.is_empty() {
        if !words.is_empty() {
            words.push_str("\n\n");
        }
        words.push_str(&format!(
            "The model wants to call {}: a function of the application that asked this run first, and nobody else can \
             answer it.",
            names.join(", ")
        ));
    } else if words.is_empty() {
        words.push_str("The model gave no text.");
    }
    text(&words, !names.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(message: Value) -> (String, bool) {
        let result = of(Ok(json!({ "choices": [{ "message": message }] })));
        (result["content"][0]["text"].as_str().unwrap().to_owned(), result["isError"] == true)
    }

    #[test]
    fn a_result_is_what_the_model_said() {
        assert_eq!(answer(json!({ "content": "Hello" })), ("Hello".to_owned(), false));
        assert_eq!(answer(json!({ "content": null, "refusal": "No." })), ("No.".to_owned(), false));
        assert_eq!(answer(json!({ "content": null })), ("The model gave no text.".to_owned(), false));
    }

    #[test]
    fn a_function_that_nobody_here_can_answer_is_an_error() {
        let call = json!([{ "function": { "name": "send`it\n" } }]);
        let (words, is_error) = answer(json!({ "content": "I send it.", "tool_calls": call }));
        assert!(is_error && words.starts_with("I send it.\n\nThe model wants to call `send'it`:"), "{words}");
    }
}
