use bytes::Bytes;
use proptest::prelude::*;
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};
use serde_json::json;

use super::*;
use crate::clean_json::CleanJson;

fn call(tool: &str, host: &str, arguments: Value) -> ToolCall {
    ToolCall {
        call_id: "call_1".to_owned(),
        tool: tool.to_owned(),
        function: "docs_search".to_owned(),
        server_label: "docs".to_owned(),
        host: host.to_owned(),
        arguments,
    }
}

fn result(result: ToolResult) -> ToolResultEvent {
    ToolResultEvent {
        call_id: "call_1".to_owned(),
        tool: "search".to_owned(),
        host: "mcp.example.com".to_owned(),
        result,
        milliseconds: 7,
        outcome: crate::completion::event::CallOutcome::Ok,
    }
}

fn text(text: &str) -> ToolResult {
    ToolResult { parts: vec![Part::Text(text.to_owned())], ..ToolResult::default() }
}

fn parse(markdown: &str) -> Vec<Event<'_>> {
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    Parser::new_ext(markdown, options).collect()
}

/// The outermost pieces of a text: its HTML, its code blocks with their language, and everything else.
#[derive(Debug, PartialEq)]
enum Piece {
    Html(String),
    Code(String, String),
    Other(String),
}

fn pieces(markdown: &str) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut depth = 0;
    for event in parse(markdown) {
        match event {
            Event::Start(tag) => {
                match tag {
                    _ if depth > 0 => {}
                    Tag::HtmlBlock => pieces.push(Piece::Html(String::new())),
                    Tag::CodeBlock(CodeBlockKind::Fenced(language)) => {
                        pieces.push(Piece::Code(language.into_string(), String::new()));
                    }
                    tag => pieces.push(Piece::Other(format!("{tag:?}"))),
                }
                depth += 1;
            }
            Event::End(_) => depth -= 1,
            Event::Html(more) | Event::Text(more) => {
                if let Some(Piece::Html(all) | Piece::Code(_, all)) = pieces.last_mut() {
                    all.push_str(&more);
                }
            }
            other if depth == 0 => pieces.push(Piece::Other(format!("{other:?}"))),
            _ => {}
        }
    }
    pieces
}

#[test]
fn a_call_has_the_documented_form() {
    assert_eq!(
        tool_call(&call("search", "mcp.example.com", json!({"q": "rust", "limit": 3}))),
        "<details><summary>🔧 search (mcp.example.com)</summary>\n\n```json\n{\n  \"q\": \"rust\",\n  \"limit\": \
         3\n}\n```\n\n</details>\n\n"
    );
    assert_eq!(
        tool_call(&call("now", "127.0.0.1:8080", json!({}))),
        "<details><summary>🔧 now (127.0.0.1:8080)</summary>\n\n```json\n{}\n```\n\n</details>\n\n"
    );
    assert_eq!(
        tool_call(&call("now", "h", json!("{\"broken"))),
        "<details><summary>🔧 now (h)</summary>\n\n```text\n{\"broken\n```\n\n</details>\n\n"
    );
}

#[test]
fn a_result_has_the_documented_form() {
    assert_eq!(
        tool_result(&result(text("It is sunny."))),
        "<details><summary>Result (±3 tokens)</summary>\n\n```text\nIt is sunny.\n```\n\n</details>\n\n"
    );
    assert_eq!(
        tool_result(&result(text("{\"a\":[1]}"))),
        "<details><summary>Result (±3 tokens)</summary>\n\n```json\n{\n  \"a\": [\n    1\n  ]\n}\n```\n\n</details>\n\n"
    );
    assert_eq!(
        tool_result(&result(ToolResult::default())),
        "<details><summary>Result (±7 tokens)</summary>\n\n```text\n(nothing)\n```\n\n</details>\n\n"
    );
}

#[test]
fn media_are_named_with_type_and_size() {
    let shown = tool_result(&result(ToolResult {
        parts: vec![
            Part::Text("Here:".to_owned()),
            Part::Image { mime_type: "image/png".to_owned(), data: Bytes::from(vec![b'A'; 16384]) },
            Part::Link {
                uri: "file:///a.md".to_owned(),
                name: "notes".to_owned(),
                mime_type: Some("text/markdown".to_owned()),
                size_bytes: Some(900),
            },
        ],
        ..ToolResult::default()
    }));
    assert!(
        shown.ends_with(
            "```text\nHere:\n[image image/png, 12 KiB]\n[link notes: file:///a.md, text/markdown, 900 bytes]\n```\n\n\
             </details>\n\n"
        ),
        "{shown}"
    );
}

#[test]
fn structured_content_is_shown_once() {
    let structured = || CleanJson::read("{\"temperature\":21}").ok();
    let both = ToolResult {
        parts: vec![Part::Text("{ \"temperature\": 21 }".to_owned())],
        structured: structured(),
        ..ToolResult::default()
    };
    assert_eq!(tool_result(&result(both)).matches("temperature").count(), 1);
    let other = ToolResult {
        parts: vec![Part::Text("It is warm.".to_owned())],
        structured: structured(),
        ..ToolResult::default()
    };
    let shown = tool_result(&result(other));
    assert!(
        shown.contains("```text\nIt is warm.\n```\n\n```json\n{\n  \"temperature\": 21\n}\n```\n"),
        "{shown}"
    );
}

#[test]
fn a_failure_is_called_one() {
    assert_eq!(
        tool_result(&result(ToolResult::failure("no answer within 120 s"))),
        "<details><summary>Result (±11 tokens)</summary>\n\n**Error** `no answer within 120 s`\n\n</details>\n\n"
    );
    let long = tool_result(&result(ToolResult::failure("Traceback:\n  line 1")));
    assert!(
        long.contains("\n\n**Error** The call failed:\n\n```text\nTraceback:\n  line 1\n```\n\n</details>"),
        "{long}"
    );
    let empty = tool_result(&result(ToolResult { is_error: true, ..ToolResult::default() }));
    assert!(empty.contains("\n\n**Error** `(nothing)`\n\n"), "{empty}");
}

#[test]
fn notices_and_logins_are_plain_prose() {
    let shown =
        notice(&Notice { code: "x".to_owned(), message: "a\n\n# <b>b</b> get_weather `c`".to_owned() });
    assert_eq!(shown, "> **Notice** a \\# &lt;b&gt;b&lt;/b&gt; get_weather \\`c\\`\n\n");

    let login = |host: &str, url: Option<&str>| AuthorizationRequired {
        resource: format!("https://{host}/mcp"),
        server_label: "x".to_owned(),
        host: host.to_owned(),
        connect_url: url.map(str::to_owned),
        scopes: Vec::new(),
        reason: "Log in to go on.".to_owned(),
        expires_at: None,
        kind: LinkKind::Connection,
    };
    assert_eq!(
        authorization_required(&[
            login("mcp.example.com", Some("https://gate.example/connect/flow_1(2)")),
            login("a](javascript:1)", Some("javascript:alert(1)")),
            login("mcp.other.com", None),
        ]),
        "**Authorization required**\n\n- [mcp.example.com](https://gate.example/connect/flow_1%282%29): Log in to go \
         on.\n\n- **a\\](javascript:1)**: Log in to go on.\n\n- **mcp.other.com**: Log in to go on.\n\n"
    );
    assert_eq!(authorization_required(&[]), "");
}

/// Text made of everything that ends, opens or hides blocks somewhere.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("```"),
        Just("````"),
        Just("~~~"),
        Just("`"),
        Just("\n"),
        Just("\r"),
        Just("\r\n"),
        Just("\n\n"),
        Just("</details>"),
        Just("<details>"),
        Just("</summary>"),
        Just("<script>alert(1)</script>"),
        Just("<!--"),
        Just("-->"),
        Just("]]>"),
        Just("<b>"),
        Just("&lt;"),
        Just("&#96;"),
        Just("\\"),
        Just("[x](javascript:alert(1))"),
        Just("![x](http://evil/)"),
        Just("# h"),
        Just("- "),
        Just("> "),
        Just("    "),
        Just("\t"),
        Just("|a|b|\n|-|-|\n"),
        Just("{\"a\":"),
        Just("}"),
        Just("["),
        Just("]"),
        Just("\u{1b}[2J"),
        Just("\u{1b}]8;;http://evil\u{7}"),
        Just("\u{9b}31m"),
        Just("\0"),
        Just("\u{7}"),
        Just("\u{200b}"),
        Just("\u{200d}"),
        Just("\u{202e}"),
        Just("\u{2066}"),
        Just("\u{feff}"),
        Just("\u{2028}"),
        Just("\u{2029}"),
        Just("\u{85}"),
        Just("\u{b}"),
        Just("\u{c}"),
        Just("\u{e0041}"),
        Just("word"),
        Just("<|im_end|>"),
        Just("$$"),
        Just(":::"),
        Just("{{"),
        Just("---"),
    ];
    prop_oneof![
        4 => proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat()),
        1 => any::<String>(),
    ]
}

fn is_summary(piece: &Piece) -> bool {
    match piece {
        Piece::Html(html) => {
            let inner =
                html.strip_prefix("<details><summary>").and_then(|rest| rest.strip_suffix("</summary>\n"));
            inner.is_some_and(|inner| !inner.contains(['<', '>', '\n']))
        }
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn no_text_leaves_its_block(said in hostile()) {
        let shown = tool_result(&result(text(&said)));
        let pieces = pieces(&shown);
        prop_assert_eq!(pieces.len(), 3, "{:?}", shown);
        prop_assert!(is_summary(&pieces[0]), "{:?}", shown);
        let Piece::Code(language, code) = &pieces[1] else { panic!("{shown:?}") };
        let mut expect = if said.trim().is_empty() || text::for_reader(&said).trim().is_empty() {
            "(nothing)".to_owned()
        } else if language == "json" {
            json::pretty(&said).unwrap()
        } else {
            text::for_reader(&said).into_owned()
        };
        if !expect.ends_with('\n') {
            expect.push('\n');
        }
        prop_assert_eq!(code, &expect);
        prop_assert_eq!(&pieces[2], &Piece::Html("</details>\n".to_owned()));
        prop_assert_eq!(shown.matches("</details>").count(), code.matches("</details>").count() + 1);
        prop_assert!(!shown.chars().any(|c| text::is_line_break(c) || text::is_hidden_from_readers(c)));
    }

    #[test]
    fn no_failure_leaves_its_block(said in hostile()) {
        let shown = tool_result(&result(ToolResult::failure(said)));
        let pieces = pieces(&shown);
        prop_assert!(is_summary(&pieces[0]), "{:?}", shown);
        prop_assert_eq!(&pieces[1], &Piece::Other("Paragraph".to_owned()));
        prop_assert_eq!(pieces.last().unwrap(), &Piece::Html("</details>\n".to_owned()));
        let html = parse(&shown).into_iter().filter(|event| matches!(event, Event::InlineHtml(_) | Event::Html(_)));
        prop_assert_eq!(html.count(), 2, "{:?}", shown);
        let strange = parse(&shown).into_iter().find(|event| !matches!(
            event,
            Event::Start(Tag::HtmlBlock | Tag::Paragraph | Tag::Strong | Tag::CodeBlock(_))
                | Event::End(TagEnd::HtmlBlock | TagEnd::Paragraph | TagEnd::Strong | TagEnd::CodeBlock)
                | Event::Html(_) | Event::Text(_) | Event::Code(_)
        ));
        prop_assert!(strange.is_none(), "{strange:?} in {shown:?}");
    }

    #[test]
    fn no_name_host_or_argument_leaves_its_block(tool in hostile(), host in hostile(), said in hostile()) {
        for arguments in [json!({ said.clone(): said.clone() }), json!(said.clone())] {
            let shown = tool_call(&call(&tool, &host, arguments));
            let pieces = pieces(&shown);
            prop_assert_eq!(pieces.len(), 3, "{:?}", shown);
            prop_assert!(is_summary(&pieces[0]), "{:?}", shown);
            prop_assert!(matches!(&pieces[1], Piece::Code(..)), "{:?}", shown);
            prop_assert_eq!(&pieces[2], &Piece::Html("</details>\n".to_owned()));
        }
    }

    #[test]
    fn no_notice_or_login_is_more_than_words(said in hostile()) {
        let mut shown = notice(&Notice { code: "x".to_owned(), message: said.clone() });
        shown.push_str(&authorization_required(&[AuthorizationRequired {
            resource: said.clone(),
            server_label: said.clone(),
            host: said.clone(),
            connect_url: Some(said.clone()),
            scopes: vec![said.clone()],
            reason: said,
            expires_at: None,
            kind: LinkKind::Connection,
        }]));
        let strange = parse(&shown).into_iter().find(|event| !matches!(
            event,
            Event::Start(Tag::BlockQuote(_) | Tag::Paragraph | Tag::Strong | Tag::List(_) | Tag::Item)
                | Event::End(_) | Event::Text(_) | Event::SoftBreak
        ));
        prop_assert!(strange.is_none(), "{strange:?} in {shown:?}");
        let words: Vec<_> = parse(&shown).into_iter().filter(|e| matches!(e, Event::Start(_))).collect();
        prop_assert!(words.len() <= 8, "{words:?} in {shown:?}");
    }
}
