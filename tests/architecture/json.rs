//! JSON from outside has one entrance: what came in through it can be read, shown and stored without a panic.

use super::scan::{self, Token};
use super::{Source, assert_none, sources};

/// The room of the entrance.
const ENTRANCE: &str = "clean_json";

/// Readers of serde_json, and what makes a tree of a value, which panics in `json!` where the value holds raw text.
const READERS: &[&str] = &[
    "from_str",
    "from_slice",
    "from_reader",
    "to_value",
    "to_raw_value",
    "Deserializer",
    "StreamDeserializer",
];

/// Files whose types write raw text into messages to MCP servers, as text and never as a tree.
const WRITES_RAW_TEXT: &[&str] = &["tools/protocol/input.rs", "tools/protocol/request.rs"];

fn readers_outside_the_entrance(sources: &[Source]) -> Vec<String> {
    let mut problems = Vec::new();
    for source in sources.iter().filter(|source| source.room() != ENTRANCE) {
        for path in scan::paths(&source.tokens) {
            let reads = path.last().is_some_and(|last| READERS.contains(&last.as_str()));
            if path.first().is_some_and(|crate_| crate_ == "serde_json") && path.len() > 1 && reads {
                problems.push(format!(
                    "src/{}: `{}`: JSON is read and made a tree of by `{ENTRANCE}` alone, which cleans it",
                    source.path,
                    path.join("::")
                ));
            }
        }
    }
    problems
}

/// Types that `json!` would make a tree of, and that hold raw text, which may not become one.
fn raw_text_that_serialises(sources: &[Source]) -> Vec<String> {
    let mut problems = Vec::new();
    let others =
        |source: &&Source| source.room() != ENTRANCE && !WRITES_RAW_TEXT.contains(&source.path.as_str());
    for source in sources.iter().filter(others) {
        let words = scan::words(&source.tokens);
        for at in (0..words.len()).filter(|at| words[*at] == "derive") {
            let end = |mark: char| {
                source.tokens[at..]
                    .iter()
                    .position(|token| *token == Token::Mark(mark))
                    .map_or(words.len(), |n| at + n)
            };
            if !words[at..end(')')].contains(&"Serialize") {
                continue;
            }
            let item = &words[end(')')..item_end(&source.tokens, end(')'))];
            if item.contains(&"RawValue") {
                let name = item
                    .iter()
                    .skip_while(|word| !matches!(**word, "struct" | "enum"))
                    .nth(1)
                    .unwrap_or(&"?");
                problems.push(format!(
                    "src/{}: `{name}` can be serialised and holds a `RawValue`: hold a `CleanJson`",
                    source.path
                ));
            }
        }
    }
    problems
}

/// Behind the type that follows `from`: its closing brace, or the semicolon of one without.
fn item_end(tokens: &[Token], from: usize) -> usize {
    let mut depth = 0;
    for (offset, token) in tokens[from..].iter().enumerate() {
        match token {
            Token::Mark('{') => depth += 1,
            Token::Mark('}') if depth == 1 => return from + offset,
            Token::Mark('}') => depth -= 1,
            Token::Mark(';') if depth == 0 => return from + offset,
            _ => {}
        }
    }
    tokens.len()
}

#[test]
fn json_from_outside_has_one_entrance() {
    assert_none(readers_outside_the_entrance(&sources()));
    let bad = |path, text| readers_outside_the_entrance(&[Source::new(path, text)]).len();
    assert_eq!(bad("tools/call.rs", "fn f() { serde_json::from_str::<Value>(text) }"), 1);
    assert_eq!(bad("tools/call.rs", "use serde_json::{Value, from_slice};"), 1);
    assert_eq!(bad("tools/call.rs", "use serde_json::value::{RawValue, to_raw_value};"), 1);
    assert_eq!(bad("tools/call.rs", "fn f() { serde_json::to_value(&result).expect(\"it is JSON\") }"), 1);
    assert_eq!(bad("tools/call.rs", "for x in serde_json::Deserializer::from_slice(b).into_iter() {}"), 1);
    assert_eq!(bad("clean_json/read.rs", "fn f() { serde_json::from_str(text) }"), 0);
    assert_eq!(
        bad("tools/call.rs", "use serde_json::{Value, json}; fn f() { clean_json::from_str(text) }"),
        0
    );
}

#[test]
fn what_becomes_a_tree_holds_no_raw_text() {
    assert_none(raw_text_that_serialises(&sources()));
    let bad = |path, text| raw_text_that_serialises(&[Source::new(path, text)]).len();
    let result = "#[derive(Debug, Serialize)] pub struct Result { a: u8, structured: Option<Box<RawValue>> } fn f() {}";
    assert_eq!(bad("tools/result.rs", result), 1);
    assert_eq!(bad("tools/result.rs", "#[derive(Serialize)] struct Raw(Box<RawValue>);"), 1);
    assert_eq!(bad("tools/result.rs", "#[derive(Deserialize)] struct Raw { a: Box<RawValue> }"), 0);
    assert_eq!(
        bad("tools/result.rs", "#[derive(Serialize)] struct A { a: CleanJson } fn f(b: &RawValue) {}"),
        0
    );
    assert_eq!(bad("clean_json/read.rs", "#[derive(Serialize)] struct CleanJson(Box<RawValue>);"), 0);
}
