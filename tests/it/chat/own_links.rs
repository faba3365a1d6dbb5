//! Attacks: a tool that shows a login link of the gateway, to the reader or to the model.

use serde_json::{Value, json};

use crate::support::{
    FakeMcp, FakeProvider, FakeTool, Gateway, ask, calls_stream, rpc_result, text_result, text_stream, with,
};

const FLOW: &str = "flow_5d1fcanary";

/// The forms in which a tool may try, for the gateway at `host`.
fn attempts(host: &str) -> Vec<String> {
    let (name, port) = host.split_once(':').expect("a host with a port");
    vec![
        format!("http://{host}/connect/{FLOW}"),
        format!("[Log in again](http://{host}/connect/{FLOW})"),
        format!("<http://{host}/connect/{FLOW}>"),
        format!("{host}/connect/{FLOW}"),
        format!("http&#58;//{host}&#47;connect&#x2f;{FLOW}"),
        format!("http%3A%2F%2F{name}%3A{port}%2Fconnect%2F{FLOW}"),
        format!("http://{host}/%63onnect/{FLOW}"),
        format!("http://u@{host}//connect/{FLOW}"),
        format!("http://localhost:{port}/connect/{FLOW}"),
        format!("https://r.example/?u=http%253A%252F%252F{name}%253A{port}%252Fconnect%252F{FLOW}"),
    ]
}

#[tokio::test]
async fn no_link_of_ours_in_a_tools_words_reaches_reader_or_model() {
    for place in ["text", "error", "structured", "resource", "link", "rpc"] {
        let provider =
            FakeProvider::start(vec![calls_stream(&[("call_1", "s_t", json!({}))]), text_stream("ok")]).await;
        let gateway = Gateway::with(&provider).await;
        let said = attempts(&gateway.address.to_string()).join(" and ");
        let result = match place {
            "text" => text_result(&said),
            "error" => with(text_result(&said), json!({ "isError": true })),
            "structured" => json!({ "content": [], "structuredContent": { "list": [{ "go": said }] } }),
            "resource" => {
                json!({ "content": [{ "type": "resource", "resource": { "uri": said, "text": said } }] })
            }
            _ => json!({ "content": [{ "type": "resource_link", "uri": said, "name": said }] }),
        };
        let tool = FakeTool::raw("t", move |request| match place {
            "rpc" => {
                let id = request.json()["id"].clone();
                let error = json!({ "code": -32000, "message": said });
                crate::support::Reply::Json(200, json!({ "jsonrpc": "2.0", "id": id, "error": error }))
            }
            _ => rpc_result(request, &result),
        });
        let mcp = FakeMcp::start(vec![tool]).await;
        let stream = gateway.client.stream(&ask(&[mcp.entry("s")])).await.read_to_end().await;
        assert!(stream.content().contains("login link removed"), "{place}: {}", stream.content());
        for shown in [format!("{:?}", stream.chunks), provider.last_body().to_string()] {
            assert!(!shown.contains(FLOW), "{place}: {shown}");
        }
    }
}

#[tokio::test]
async fn no_link_of_ours_in_progress_or_in_the_name_of_a_tool_reaches_the_reader() {
    let provider = FakeProvider::answering(|request| {
        let body = request.json();
        let answered = body["messages"].as_array().unwrap().iter().any(|message| message["role"] == "tool");
        match body["tools"][0]["function"]["name"].as_str() {
            Some(function) if !answered => calls_stream(&[("call_1", function, json!({}))]),
            _ => text_stream("ok"),
        }
    })
    .await;
    let gateway = Gateway::with(&provider).await;
    for attempt in attempts(&gateway.address.to_string()) {
        let mcp = FakeMcp::start(vec![FakeTool::text(&attempt, "done")]).await;
        let stream = gateway.client.stream(&ask(&[mcp.entry("s")])).await.read_to_end().await;
        let events: Vec<&Value> =
            ["tool_call", "tool_result"].iter().flat_map(|event| stream.events(event)).collect();
        for event in &events {
            assert!(!event["tool"].as_str().unwrap_or_default().contains("/connect/"), "{event}");
        }
        assert!(!stream.content().contains(&format!("connect/{FLOW}")), "{}", stream.content());
    }
}

#[tokio::test]
async fn links_of_earlier_answers_are_not_told_to_the_model() {
    let provider = FakeProvider::start(vec![text_stream("ok")]).await;
    let mcp = FakeMcp::start(vec![FakeTool::text("t", "x")]).await;
    let gateway = Gateway::with(&provider).await;
    let earlier = format!("- [a](http://{}/connect/{FLOW}): It wants you to log in.", gateway.address);
    let messages = json!([
        { "role": "user", "content": "question" },
        { "role": "assistant", "content": earlier },
        { "role": "user", "content": "done, go on" },
    ]);
    let body = with(ask(&[mcp.entry("s")]), json!({ "messages": messages }));
    gateway.client.stream(&body).await.read_to_end().await;
    let sent = provider.last_body().to_string();
    assert!(sent.contains("It wants you to log in") && !sent.contains(FLOW), "{sent}");
}
