//! "Run again": instructions and limits go along for their owner, and for nobody else.

use serde_json::{Value, json};

use super::outside::{SHOP, as_key};
use super::pages::{finished, start};
use super::pages_of_people::{gateway_with, person, shop_key};
use super::scene::{content, id_of, result, stored};
use crate::support::issuer::Issuer;
use crate::support::{
    Browser, FakeMcp, FakeProvider, FakeTool, Gateway, ask, fields_of, text, text_stream, whole, with,
};

const LINE: &str = "With the instructions and limits of";

/// A provider that answers as it is asked to.
async fn model() -> FakeProvider {
    FakeProvider::answering(|request| match request.json()["stream"] == true {
        true => text_stream("the answer"),
        false => text("the answer"),
    })
    .await
}

/// The names of the tools that a model was offered.
fn offered(request: &Value) -> Vec<&str> {
    let tools = request["tools"].as_array().map_or(&[][..], Vec::as_slice);
    tools.iter().filter_map(|tool| tool["function"]["name"].as_str()).collect()
}

#[tokio::test]
async fn running_ones_own_again_keeps_instructions_earlier_messages_restrictions_and_options() {
    let mcp = FakeMcp::start(vec![FakeTool::text("read", "x"), FakeTool::text("erase", "x")]).await;
    let other = FakeMcp::start(vec![FakeTool::text("more", "x")]).await;
    let provider = model().await;
    let gateway = Gateway::with(&provider).await;
    let entry = with(mcp.entry("s"), json!({ "allowed_tools": ["read"], "headers": { "X-A": "canary" } }));
    let messages = json!([
        { "role": "system", "content": "Be brief." },
        { "role": "user", "content": "first" },
        { "role": "assistant", "content": "one" },
        { "role": "user", "content": "second" },
    ]);
    let fields = json!({ "messages": messages, "user": "ann", "max_tokens": 77,
        "toolgate": { "max_turns": 3, "visibility": "public" }, "metadata": { "a": "b" } });
    let id = id_of(&gateway.client.chat(&stored(with(ask(&[entry]), fields))).await);
    let mut anna = Browser::new(&gateway.client);
    let form = anna.visit(&format!("/?from={id}")).await;
    assert!(form.text().contains(LINE) && form.text().contains("second</textarea>"), "{}", form.text());
    assert!(!form.text().contains("data-sample"), "the lines would not be the same: {}", form.text());
    let both = format!("{}\r\n{}", mcp.url(), other.url());
    for (message, servers, tools) in [
        ("second", mcp.url(), vec!["s_read"]),
        ("third", mcp.url(), vec!["s_read"]),
        ("third", both, vec!["s_read", "server_more"]),
    ] {
        let sent =
            anna.submit(&form, "/", &[("model", "m"), ("message", message), ("servers", &servers)]).await;
        assert_eq!(sent.status, 303, "{}", sent.text());
        let path = sent.header("location").unwrap().to_owned();
        finished(&mut anna, &path).await;
        let request = provider.peer.requests().last().unwrap().json();
        assert_eq!(offered(&request), tools, "a restriction does not vanish: {request}");
        let asked: Vec<&str> =
            request["messages"].as_array().unwrap().iter().filter_map(|m| m["content"].as_str()).collect();
        assert_eq!(asked, ["Be brief.", "first", "one", message]);
        let again = result(&gateway.client, &path[1..]).await;
        assert_eq!(
            (&again["user"], &again["kind"], &again["visibility"], &again["metadata"]),
            (&json!("ann"), &json!("page"), &json!("unlisted"), &json!({}))
        );
        assert_eq!(again["request"]["max_tokens"], 77);
        assert!(!again.to_string().contains("canary"));
        // What was carried over is carried over once more.
        assert!(anna.visit(&format!("/?from={}", &path[1..])).await.text().contains(LINE));
    }
    // A run that the form shows whole needs no such line.
    let plain = start(&mut anna, &[("servers", &mcp.url())]).await;
    finished(&mut anna, &plain).await;
    let form = anna.visit(&format!("/?from={}", &plain[1..])).await.text();
    assert!(!form.contains(LINE) && form.contains("data-sample"), "{form}");
}

#[tokio::test]
async fn limits_that_came_as_headers_go_along() {
    let mcp = FakeMcp::start(vec![FakeTool::text("t", "x")]).await;
    let provider = FakeProvider::answering(|request| match request.json()["stream"] == true {
        true => crate::support::calls_stream(&[("a", "s_t", json!({}))]),
        false => crate::support::calls(&[("a", "s_t", json!({}))]),
    })
    .await;
    let gateway = Gateway::with(&provider).await;
    let headers = [("x-toolgate-max-turns", "1"), ("content-type", "application/json")];
    let body = stored(ask(&[mcp.entry("s")])).to_string();
    let first = whole(gateway.client.send("POST", "/v1/chat/completions", &headers, body).await).await;
    let mut anna = Browser::new(&gateway.client);
    let form = anna.visit(&format!("/?from={}", id_of(&first))).await;
    let fields = [("model", "m"), ("message", "question"), ("servers", &mcp.url())];
    let sent = anna.submit(&form, "/", &fields).await;
    let path = sent.header("location").unwrap().to_owned();
    finished(&mut anna, &path).await;
    let again = result(&gateway.client, &path[1..]).await;
    assert_eq!((&again["reason"], &again["turns"]), (&json!("max_turns"), &json!(1)), "{again}");
}

#[tokio::test]
async fn nobody_takes_anything_along_from_a_run_that_is_not_theirs() {
    let issuer = Issuer::start(false).await;
    let provider = model().await;
    let gateway = gateway_with(&provider, &issuer, |settings| settings.api_keys.push(shop_key())).await;
    let (mut anna, mut bob) =
        (person(&gateway, &issuer, "anna").await, person(&gateway, &issuer, "bob").await);
    let annas = start(&mut anna, &[]).await[1..].to_owned();
    finished(&mut anna, &format!("/{annas}")).await;
    let server = "https://s.example/mcp?key=canary";
    let secret = json!({ "messages": [{ "role": "system", "content": "instructions" }, { "role": "user", "content": "x" }],
        "tools": [{ "type": "mcp", "server_url": server, "optional": true }] });
    let mut headers = as_key(SHOP);
    headers.push(("content-type", "application/json".into()));
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let body = stored(with(ask(&[]), secret)).to_string();
    let shops =
        id_of(&whole(gateway.client.send("POST", "/v1/chat/completions", &headers, body).await).await);
    let asked_before = provider.peer.requests().len();
    let none = format!("run_{}", "0".repeat(shops.len() - 4));
    for id in [&annas, &shops, &none, &"../x".to_owned()] {
        let form = bob.visit(&format!("/?from={id}")).await;
        assert!(!form.text().contains(LINE) && !form.text().contains("canary"), "{}", form.text());
        assert!(!form.text().contains("name=\"from\""));
        let fields = [("model", "m"), ("message", "mine"), ("servers", ""), ("from", id.as_str())];
        let refused = bob.submit(&form, "/", &fields).await;
        assert_eq!(refused.status, 404, "{id}: {}", refused.text());
        let html = refused.text();
        assert!(html.contains("is gone, or not yours") && html.contains("mine</textarea>"), "{html}");
        assert!(
            !html.contains("name=\"from\"") && !html.contains("canary") && !html.contains("instructions\"")
        );
        // Without a word of it the form is sent as it stands.
        let again = fields_of(&html, "/");
        assert!(again.iter().all(|(name, _)| name != "from"), "{again:?}");
    }
    assert_eq!(provider.peer.requests().len(), asked_before, "nothing was started");
    let form = bob.visit(&format!("/?from={shops}")).await;
    let sent = bob.submit(&form, "/", &[("model", "m"), ("message", "mine"), ("servers", "")]).await;
    let path = sent.header("location").unwrap().to_owned();
    finished(&mut bob, &path).await;
    let request = provider.peer.requests().last().unwrap().json();
    assert_eq!(request["messages"], json!([{ "role": "user", "content": "mine" }]));
    let whole =
        bob.send("GET", &format!("{path}.json"), &[("sec-fetch-site", "same-origin")], "").await.json();
    assert_eq!(content(&whole), "the answer");
}
