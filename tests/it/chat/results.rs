//! What tools return, and what the model and the reader get of it.

use serde_json::{Value, json};

use crate::support::{
    Answer, FakeMcp, FakeProvider, FakeTool, Gateway, Reply, ask, calls, text, text_result, with,
};

/// A PNG of one pixel.
const PNG: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

/// The answer, and the messages that the model saw in the second turn, after a tool returned `result`.
async fn after(result: Value, model: &str) -> (Answer, Vec<Value>) {
    let provider = FakeProvider::start(vec![calls(&[("call_1", "s_t", json!({}))]), text("ok")]).await;
    let mcp = FakeMcp::start(vec![FakeTool::new("t", move |_| result.clone())]).await;
    let gateway = Gateway::with(&provider).await;
    let body = with(ask(&[mcp.entry("s")]), json!({ "model": format!("fake/{model}") }));
    let answer = gateway.client.chat(&body).await;
    assert!(answer.content().ends_with("ok"), "{}", answer.text());
    (answer, provider.last_body()["messages"].as_array().unwrap().clone())
}

#[tokio::test]
async fn an_error_of_the_tool_reaches_model_and_reader_and_the_run_goes_on() {
    let mut result = text_result("the disk is full");
    result["isError"] = true.into();
    let (answer, messages) = after(result, "m").await;
    assert_eq!(messages[2]["content"], "The tool call failed:\nthe disk is full");
    assert!(answer.content().contains("**Error** "), "{}", answer.content());
    assert!(answer.content().contains("the disk is full"));
    assert_eq!(answer.json()["toolgate"]["tool_calls"][0]["is_error"], true);
}

#[tokio::test]
async fn pictures_go_to_models_that_see_and_are_named_to_all() {
    let result = json!({ "content": [
        { "type": "text", "text": "a dot" },
        { "type": "image", "data": PNG, "mimeType": "image/png" },
    ] });
    let (answer, messages) = after(result.clone(), "gpt-4o").await;
    assert_eq!(messages[2]["role"], "tool");
    assert_eq!(messages[3]["role"], "user");
    assert_eq!(messages[3]["content"][1]["image_url"]["url"], format!("data:image/png;base64,{PNG}"));
    assert!(answer.content().contains("[image image/png, 70 bytes]"), "{}", answer.content());
    assert!(!answer.content().contains(PNG));

    let (_, messages) = after(result, "blind").await;
    assert_eq!(messages.len(), 3);
    assert_eq!(messages[2]["content"], "a dot\n[image image/png, 70 bytes]");
}

#[tokio::test]
async fn a_model_that_refuses_pictures_is_asked_again_without() {
    let refusal = || Reply::Json(400, json!({ "error": { "message": "no images" } }));
    let provider =
        FakeProvider::start(vec![calls(&[("call_1", "s_t", json!({}))]), refusal(), text("ok")]).await;
    let mcp = FakeMcp::start(vec![FakeTool::new(
        "t",
        |_| json!({ "content": [{ "type": "image", "data": PNG, "mimeType": "image/png" }] }),
    )])
    .await;
    let gateway = Gateway::with(&provider).await;
    let body = with(ask(&[mcp.entry("s")]), json!({ "model": "fake/gpt-4o" }));
    let answer = gateway.client.chat(&body).await.json();
    assert_eq!(answer["toolgate"]["notices"][0]["code"], "pictures_left_out");
    assert_eq!(provider.last_body()["messages"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn everything_else_is_named_or_shown() {
    let result = json!({
        "content": [
            { "type": "audio", "data": "UklGRg==", "mimeType": "audio/wav" },
            { "type": "resource_link", "uri": "https://example.com/a.pdf", "name": "a.pdf", "mimeType": "application/pdf", "size": 2048 },
            { "type": "resource", "resource": { "uri": "file:///notes.txt", "mimeType": "text/plain", "text": "the notes" } },
            { "type": "resource", "resource": { "uri": "file:///x.bin", "blob": "AAAA" } },
            { "type": "hologram", "depth": 3 },
        ],
        "structuredContent": { "degrees": 21.50 },
    });
    let (answer, messages) = after(result, "m").await;
    let told = messages[2]["content"].as_str().unwrap();
    for part in [
        "[audio audio/wav, 4 bytes]",
        "[link a.pdf: https://example.com/a.pdf, application/pdf, 2 KiB]",
        "[resource file:///notes.txt, text/plain]\nthe notes",
        "[resource file:///x.bin, application/octet-stream, 3 bytes]",
        "[hologram, ",
        "{\"degrees\":21.5",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert!(answer.content().contains("the notes"), "{}", answer.content());
    let call = &answer.json()["toolgate"]["tool_calls"][0];
    assert_eq!(call["structured"], json!({ "degrees": 21.5 }));
}

#[tokio::test]
async fn a_huge_result_is_cut_where_everybody_sees_it() {
    let provider = FakeProvider::start(vec![calls(&[("call_1", "s_t", json!({}))]), text("ok")]).await;
    let mcp = FakeMcp::start(vec![FakeTool::text("t", &"word ".repeat(400_000))]).await;
    let gateway = Gateway::configured(&provider, |settings| settings.mcp.result_bytes = 10_000).await;
    let answer = gateway.client.chat(&ask(&[mcp.entry("s")])).await;
    let told = provider.last_said("tool")[0].as_str().unwrap().to_owned();
    assert!((9_000..=10_000).contains(&told.len()), "{}", told.len());
    let last_line = told.lines().last().unwrap();
    assert!(last_line.contains("2,000,000"), "how much there was: {last_line}");
    assert!(answer.content().contains(last_line), "{last_line}");
    assert!(answer.content().len() < 11_000);
}

#[tokio::test]
async fn an_answer_larger_than_the_limit_is_dropped_and_the_run_goes_on() {
    let provider = FakeProvider::start(vec![calls(&[("call_1", "s_t", json!({}))]), text("ok")]).await;
    let mcp = FakeMcp::start(vec![FakeTool::text("t", &"x".repeat(100_000))]).await;
    let gateway = Gateway::configured(&provider, |settings| settings.mcp.response_bytes = 50_000).await;
    let answer = gateway.client.chat(&ask(&[mcp.entry("s")])).await;
    assert!(answer.content().ends_with("ok"));
    assert!(provider.last_said("tool")[0].as_str().unwrap().contains("larger than 50000 bytes"));
}

#[tokio::test]
async fn what_is_no_result_is_an_error_the_model_reads() {
    for result in [json!({}), json!(7), json!({ "content": "x" }), json!(null), json!({ "content": [7] })] {
        let (answer, messages) = after(result.clone(), "m").await;
        assert!(messages[2]["content"].as_str().is_some_and(|told| !told.is_empty()), "{result}");
        assert!(answer.content().contains("Result"), "{result}: {}", answer.content());
    }
}

#[tokio::test]
async fn a_refusal_of_the_server_is_an_error_the_model_reads() {
    let tool = FakeTool::raw("t", |request| {
        let error = json!({ "code": -32602, "message": "`city` is missing" });
        Reply::Json(200, json!({ "jsonrpc": "2.0", "id": request.json()["id"], "error": error }))
    });
    let provider = FakeProvider::start(vec![calls(&[("call_1", "s_t", json!({}))]), text("ok")]).await;
    let mcp = FakeMcp::start(vec![tool]).await;
    let gateway = Gateway::with(&provider).await;
    gateway.client.chat(&ask(&[mcp.entry("s")])).await;
    assert_eq!(provider.last_said("tool"), ["The tool call failed:\n`city` is missing (-32602)"]);
    assert_eq!(mcp.count("tools/call"), 1);
}

#[tokio::test]
async fn a_tool_that_takes_too_long_is_given_up_and_the_run_goes_on() {
    let provider = FakeProvider::start(vec![calls(&[("call_1", "s_t", json!({}))]), text("ok")]).await;
    let mcp = FakeMcp::start(vec![FakeTool::raw("t", |_| Reply::Silence)]).await;
    let gateway = Gateway::configured(&provider, |settings| settings.mcp.call_seconds = 1).await;
    let answer = gateway.client.chat(&ask(&[mcp.entry("s")])).await;
    assert!(answer.content().ends_with("ok"));
    assert!(provider.last_said("tool")[0].as_str().unwrap().contains("did not answer within 1 s"));
    mcp.peer.until_abandoned(1).await;
}
