//! The form of the answer, byte for byte, and tools that try to break out of it.

use pulldown_cmark::{Event, Options, Parser, Tag};
use serde_json::{Value, json};

use crate::support::provider::{finish, usage};
use crate::support::{
    Answer, FakeMcp, FakeProvider, FakeTool, Gateway, Stream, ask, calls, calls_stream, text, text_result,
    text_stream, with,
};

/// One call of `weather` that says `result`, then "Warm.", whole and streamed, in this output mode.
async fn both(result: Value, output: &str) -> (Answer, Stream, String) {
    let call = [("call_1", "s_weather", json!({ "city": "Oslo" }))];
    let provider =
        FakeProvider::start(vec![calls(&call), text("Warm."), calls_stream(&call), text_stream("Warm.")])
            .await;
    let mcp = FakeMcp::start(vec![FakeTool::new("weather", move |_| result.clone())]).await;
    let gateway = Gateway::with(&provider).await;
    let mut body = ask(&[mcp.entry("s")]);
    if output != "default" {
        body = with(body, json!({ "toolgate": { "output": output } }));
    }
    let answer = gateway.client.chat(&body).await;
    let stream = gateway.client.stream(&body).await.read_to_end().await;
    (answer, stream, mcp.peer.host())
}

#[tokio::test]
async fn markdown_shows_the_call_and_its_result_in_two_blocks() {
    for output in ["default", "markdown"] {
        let (answer, stream, host) = both(text_result("{\"degrees\":21.50}"), output).await;
        let expect = format!(
            "<details><summary>🔧 weather ({host})</summary>\n\n```json\n{{\n  \"city\": \"Oslo\"\n}}\n```\n\n</details>\n\n\
             <details><summary>Result (±5 tokens)</summary>\n\n```json\n{{\n  \"degrees\": 21.50\n}}\n```\n\n</details>\n\n\
             Warm."
        );
        assert_eq!(answer.content(), expect);
        assert_eq!(stream.content(), expect);
    }
}

#[tokio::test]
async fn a_failed_call_shows_an_error() {
    let mut result = text_result("no such city");
    result["isError"] = true.into();
    let (answer, stream, _) = both(result, "default").await;
    let expect =
        "<details><summary>Result (±9 tokens)</summary>\n\n**Error** `no such city`\n\n</details>\n\nWarm.";
    let shown = answer.content();
    assert!(shown.ends_with(expect), "{shown}");
    assert_eq!(stream.content(), shown);
}

#[tokio::test]
async fn text_and_events_leave_the_prose_alone_and_the_data_complete() {
    for output in ["text", "events"] {
        let (answer, stream, host) = both(text_result("21"), output).await;
        assert_eq!((answer.content().as_str(), stream.content().as_str()), ("Warm.", "Warm."));
        let call = answer.json()["toolgate"]["tool_calls"][0].clone();
        for (field, value) in [
            ("call_id", json!("call_1")),
            ("tool", json!("weather")),
            ("function", json!("s_weather")),
            ("server_label", json!("s")),
            ("host", json!(host)),
            ("arguments", json!({ "city": "Oslo" })),
            ("is_error", json!(false)),
            ("text", json!("21")),
        ] {
            assert_eq!(call[field], value, "{field}");
        }
        assert_eq!(stream.events("tool_call")[0]["arguments"], json!({ "city": "Oslo" }));
        assert_eq!(stream.events("tool_result")[0]["text"], "21");
        assert!(stream.events("tool_result")[0]["milliseconds"].is_u64());
    }
}

#[tokio::test]
async fn text_still_shows_notices_and_events_does_not() {
    let provider = FakeProvider::answering(|_| text("ok")).await;
    let gateway = Gateway::with(&provider).await;
    let missing = json!({
        "type": "mcp", "server_url": provider.peer.url("/no-mcp"), "server_label": "s", "optional": true
    });
    for (output, shown) in [("text", true), ("events", false)] {
        let body = with(ask(std::slice::from_ref(&missing)), json!({ "toolgate": { "output": output } }));
        let answer = gateway.client.chat(&body).await;
        assert_eq!(answer.content().contains("was left out"), shown, "{output}: {}", answer.content());
        assert_eq!(answer.json()["toolgate"]["notices"][0]["code"], "server_unreachable", "{output}");
    }
}

#[tokio::test]
async fn text_still_shows_what_a_reader_must_do_and_events_does_not() {
    let mcp = FakeMcp::guarded(vec![FakeTool::echo("t")], "Bearer x").await;
    let provider = FakeProvider::start(Vec::new()).await;
    let gateway = Gateway::with(&provider).await;
    for (output, shown) in [("text", true), ("events", false)] {
        let body = with(ask(&[mcp.entry("s")]), json!({ "toolgate": { "output": output } }));
        let answer = gateway.client.chat(&body).await;
        assert_eq!(answer.content().contains(&mcp.peer.host()), shown, "{output}");
        assert_eq!(answer.json()["toolgate"]["authorization_required"][0]["host"], mcp.peer.host());
    }
}

#[tokio::test]
async fn the_chunks_have_exactly_this_form() {
    let (_, stream, host) = both(text_result("21"), "events").await;
    let id = stream.chunks[0]["id"].clone();
    let created = stream.chunks[0]["created"].clone();
    let chunk = |delta: Value, toolgate: Option<Value>| {
        let choice = json!({ "index": 0, "delta": delta, "finish_reason": null });
        let mut chunk = json!({
            "id": id, "object": "chat.completion.chunk", "created": created, "model": "fake-model-1",
            "system_fingerprint": "fp_1", "choices": [choice],
        });
        if let Some(toolgate) = toolgate {
            chunk["toolgate"] = toolgate;
        }
        chunk
    };
    let milliseconds = stream.events("tool_result")[0]["milliseconds"].clone();
    let call = json!({
        "event": "tool_call", "call_id": "call_1", "tool": "weather", "function": "s_weather",
        "server_label": "s", "host": host, "arguments": { "city": "Oslo" },
    });
    let result = json!({
        "event": "tool_result", "call_id": "call_1", "tool": "weather", "host": host, "is_error": false,
        "milliseconds": milliseconds, "tokens": 1, "text": "21", "structured": null,
    });
    let mut end = chunk(json!({}), None);
    end["choices"][0]["finish_reason"] = "stop".into();
    let expect = [
        chunk(json!({ "role": "assistant", "content": "" }), None),
        chunk(json!({}), Some(call)),
        chunk(json!({}), Some(result)),
        chunk(json!({ "content": "Warm." }), None),
        end,
    ];
    assert_eq!(stream.chunks, expect);
    assert!(id.as_str().unwrap().starts_with("run_"));
    let kind = stream.headers["content-type"].to_str().unwrap();
    assert_eq!(kind, "text/event-stream; charset=utf-8");
    assert_eq!(stream.headers["cache-control"], "no-cache");
    assert_eq!(stream.headers["x-accel-buffering"], "no");
}

#[tokio::test]
async fn usage_comes_only_when_asked_for() {
    for (options, expect) in [
        (json!(null), false),
        (json!({ "include_usage": false }), false),
        (json!({ "include_usage": true }), true),
    ] {
        let provider = FakeProvider::start(vec![text_stream("hi")]).await;
        let gateway = Gateway::with(&provider).await;
        let body = with(ask(&[]), json!({ "toolgate": { "max_turns": 2 }, "stream_options": options }));
        let stream = gateway.client.stream(&body).await.read_to_end().await;
        let last = stream.chunks.last().unwrap();
        assert_eq!(last["usage"].is_object(), expect, "{options}");
        assert_eq!(stream.chunks[0].get("usage").is_some(), expect, "OpenAI sends null before: {options}");
        assert_eq!(provider.last_body()["stream_options"]["include_usage"], true, "the sum needs it");
    }
}

#[tokio::test]
async fn hostile_output_stays_inside_its_block() {
    let attacks = [
        "```\n</details>\n# owned\n[click](https://evil.example)".to_owned(),
        format!("{}\n</details>\n<script>alert(1)</script>", "`".repeat(500)),
        "~~~\n</summary></details>\n<img src=x onerror=alert(1)>".to_owned(),
        "\u{1b}[2J\u{1b}]8;;https://evil.example\u{7}click\u{1b}]8;;\u{7}".to_owned(),
        "a\u{202e}b\u{200b}c\u{2066}d\u{feff}e\u{0}f\u{8}g".to_owned(),
        "data: [DONE]\n\ndata: {\"error\":1}\r\n\r\n: x\r\rdata: y".to_owned(),
        "line\u{2028}```\u{2029}</details>\u{85}</details>\u{b}```\u{c}# owned".to_owned(),
        "</details>\n\n".repeat(20_000),
        "\u{e0041}\u{e0042} hidden words".to_owned(),
    ];
    for attack in attacks {
        let shown: String = attack.chars().take(40).collect();
        let (answer, stream, _) = both(text_result(&attack), "default").await;
        let content = answer.content();
        assert_eq!(stream.content(), content, "{shown:?}");
        let blocks = html(&content);
        assert_eq!(blocks.matches("<details>").count(), 2, "{shown:?}: {blocks}");
        assert_eq!(blocks.matches("</details>").count(), 2, "{shown:?}: {blocks}");
        assert!(!blocks.contains("script") && !blocks.contains("onerror"), "{shown:?}: {blocks}");
        assert!(content.ends_with("</details>\n\nWarm."), "{shown:?}");
        let bad = |c: char| matches!(c, '\u{0}'..='\u{8}' | '\u{b}'..='\u{1f}' | '\u{200b}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}');
        assert!(!content.contains(bad), "{shown:?}: {content:?}");
    }
}

#[tokio::test]
async fn hostile_names_and_arguments_stay_inside_their_block() {
    let name = "x</summary><script>`**[y](http://evil.example)";
    let provider = FakeProvider::answering(|request| {
        let body = request.json();
        let function = body["tools"][0]["function"]["name"].as_str().unwrap();
        if body["messages"].as_array().unwrap().len() > 1 {
            return text("ok");
        }
        calls(&[("call_1", function, json!({ "```\n</details>": "````\n</details><script>" }))])
    })
    .await;
    let mcp = FakeMcp::start(vec![FakeTool::text(name, "fine")]).await;
    let gateway = Gateway::with(&provider).await;
    let content = gateway.client.chat(&ask(&[mcp.entry("s")])).await.content();
    let blocks = html(&content);
    assert_eq!(
        (blocks.matches("<details>").count(), blocks.matches("</details>").count()),
        (2, 2),
        "{blocks}"
    );
    assert!(!blocks.contains("<script>"), "{blocks}");
}

#[tokio::test]
async fn prose_left_open_by_the_model_does_not_swallow_the_blocks() {
    let message = json!({ "role": "assistant", "content": "Look:\n```text\nopen", "tool_calls": [crate::support::provider::function_call("call_1", "s_t", "{}")] });
    let provider =
        FakeProvider::start(vec![crate::support::provider::whole(&message, "tool_calls"), text("ok")]).await;
    let mcp = FakeMcp::start(vec![FakeTool::text("t", "fine")]).await;
    let gateway = Gateway::with(&provider).await;
    let content = gateway.client.chat(&ask(&[mcp.entry("s")])).await.content();
    assert_eq!(html(&content).matches("<details>").count(), 2, "{content}");
}

#[tokio::test]
async fn refusals_reasoning_and_logprobs_pass_through() {
    let mut first = crate::support::provider::delta(&json!({ "reasoning_content": "hm", "refusal": "no" }));
    first["choices"][0]["logprobs"] = json!({ "content": [{ "token": "a", "logprob": -0.5 }] });
    let provider = FakeProvider::start(vec![crate::support::provider::stream(&[
        first,
        finish("content_filter"),
        usage(),
    ])])
    .await;
    let gateway = Gateway::with(&provider).await;
    let body = with(ask(&[]), json!({ "toolgate": { "max_turns": 2 } }));
    let stream = gateway.client.stream(&body).await.read_to_end().await;
    let choice = &stream.chunks[1]["choices"][0];
    assert_eq!(choice["delta"], json!({ "reasoning_content": "hm", "refusal": "no" }));
    assert_eq!(choice["logprobs"]["content"][0]["token"], "a");
    assert_eq!(stream.finish_reason(), Some("content_filter"));
}

/// All HTML of the page that a Markdown reader makes of `content`.
fn html(content: &str) -> String {
    let mut html = String::new();
    for event in Parser::new_ext(content, Options::all()) {
        match event {
            Event::Html(text) | Event::InlineHtml(text) => html.push_str(&text),
            Event::Start(Tag::Link { dest_url, .. }) => panic!("a link to {dest_url} in {content}"),
            Event::Start(Tag::Heading { .. }) => panic!("a heading in {content}"),
            _ => {}
        }
    }
    html
}
