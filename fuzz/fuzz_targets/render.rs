//! Our blocks are closed by us alone, whatever the tool says and the prose before left open.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value, json};
use toolgate::completion::event::{RunEvent, ToolCall, ToolResultEvent};
use toolgate::completion::render::{Output, Renderer};
use toolgate::tools::{Part, ToolResult};

const SUMMARY_END: &str = "</summary>\n\n";
const BLOCK_END: &str = "\n\n</details>\n\n";

/// Takes one block off the start of `text`: a summary on one line, fences, and the end.
fn after_block(text: &str) -> &str {
    let text = text.strip_prefix("<details><summary>").expect("a block");
    let (summary, mut rest) = text.split_once(SUMMARY_END).expect("a summary");
    assert!(!summary.contains(['<', '>', '\n']), "{summary:?}");
    while rest.starts_with("```") {
        let ticks: String = rest.chars().take_while(|&c| c == '`').collect();
        let mut lines = rest.split_inclusive('\n');
        let mut length = lines.next().expect("the opening line").len();
        for line in lines {
            length += line.len();
            if line.trim_end() == ticks {
                break;
            }
            assert!(!line.trim_start().starts_with(&ticks), "{line:?}");
        }
        rest = rest[length..].strip_prefix('\n').expect("a blank line after the fence");
    }
    rest.strip_prefix(&BLOCK_END[2..]).expect("the end of the block")
}

fuzz_target!(|input: (&str, &str, &str, &str, bool)| {
    let (prose, name, host, said, as_value) = input;
    let mut renderer = Renderer::new(Output::Markdown);
    let mut delta = Map::new();
    delta.insert("content".to_owned(), json!(prose));
    assert_eq!(renderer.event(&RunEvent::Delta { delta, logprobs: None }), None);
    let call = RunEvent::ToolCall(ToolCall {
        call_id: "1".to_owned(),
        tool: name.to_owned(),
        function: String::new(),
        server_label: String::new(),
        host: host.to_owned(),
        arguments: if as_value { json!({ said: said }) } else { Value::from(said) },
    });
    let shown = renderer.event(&call).expect("a block");
    let block = shown.find("<details>").expect("a block");
    assert!(block == 0 || shown[..block].ends_with('\n'));
    assert_eq!(after_block(&shown[block..]), "");
    let result = RunEvent::ToolResult(ToolResultEvent {
        call_id: "1".to_owned(),
        tool: name.to_owned(),
        host: host.to_owned(),
        result: ToolResult { parts: vec![Part::Text(said.to_owned())], ..ToolResult::default() },
        milliseconds: 0,
    });
    assert_eq!(after_block(&renderer.event(&result).expect("a block")), "");
});
