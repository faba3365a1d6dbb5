//! JSON that is valid by its grammar and fits into no value: from tools, from providers, from callers, and in what was
//! written down before it was cleaned.

use serde_json::{Value, json};

use crate::support::{
    Client, FakeMcp, FakeProvider, FakeTool, Gateway, Place, Recorded, Reply, ask, calls, text, text_stream,
    with,
};

/// Values that a tree cannot hold, or not for long.
fn monsters() -> Vec<String> {
    let mut recursive = "[]".to_owned();
    for _ in 0..60 {
        let quoted = recursive.replace('\\', "\\u005c").replace('"', "\\u0022");
        let (open, close) = ("[".repeat(90), "]".repeat(90));
        recursive = format!("{open}{{\"$serde_json::private::RawValue\":\"{quoted}\"}}{close}");
    }
    let mut all: Vec<String> = [
        r#""\ud800""#,
        r#""a\udc00\ud83dz""#,
        "1e400",
        "-1E999999999",
        r#"{"a":[1e400,{"\ud800":"\udfff"}],"a":2}"#,
        r#"{"$serde_json::private::RawValue":"\ud800"}"#,
        r#"{"\u0024serde_json::private::RawValue":"[[["}"#,
        r#"{"$serde_json::private::Number":"1e400"}"#,
        "\"\u{202e}\u{0}\"",
        "18446744073709551616",
        "null",
    ]
    .map(str::to_owned)
    .to_vec();
    all.extend([format!("{}{}", "[".repeat(120), "]".repeat(120)), "9".repeat(400), recursive]);
    all.push(format!("{}1{}", "{\"a\":".repeat(20_000), "}".repeat(20_000)));
    all
}

/// Those that are JSON by its grammar.
fn valid_monsters() -> Vec<String> {
    monsters().into_iter().filter(|monster| !monster.contains('\0')).collect()
}

/// Results with a monster in each place.
fn results() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for monster in monsters() {
        all.push(format!(r#"{{"content":[],"structuredContent":{monster}}}"#));
        all.push(format!(
            r#"{{"content":[],"structuredContent":{{"value":{monster}}},"_meta":{{"x":{monster}}}}}"#
        ));
        all.push(format!(r#"{{"content":[{{"type":"text","text":{monster}}}]}}"#));
        all.push(format!(
            r#"{{"content":[{{"type":"resource","resource":{{"uri":{monster},"text":{monster}}}}}]}}"#
        ));
        all.push(format!(
            r#"{{"content":[{{"type":"resource_link","uri":"a:b","name":"n","size":{monster}}}]}}"#
        ));
        all.push(format!(r#"{{"content":[{monster}],"isError":{monster}}}"#));
        all.push(format!(r#"{{"content":{monster}}}"#));
        all.push(monster);
    }
    let mut all: Vec<Vec<u8>> = all.into_iter().map(String::into_bytes).collect();
    all.push(b"{\"content\":[{\"type\":\"text\",\"text\":\"\xff\xfe\"}],\"structuredContent\":{\"\xc3\":\"\xed\xa0\x80\"}}".to_vec());
    all
}

/// The answer to a request over MCP with these bytes as its result.
fn raw_result(request: &Recorded, result: &[u8]) -> Reply {
    let id = &request.json()["id"];
    let mut body = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"#).into_bytes();
    body.extend(result);
    body.push(b'}');
    Reply::Whole(200, vec![("content-type".into(), "application/json".into())], body)
}

/// All forms in which a stored run can be read.
async fn is_readable(client: &Client, id: &str) {
    for path in [
        format!("/v1/runs/{id}"),
        format!("/v1/runs/{id}/events"),
        format!("/v1/chat/completions/{id}"),
        format!("/{id}"),
        format!("/{id}.json"),
        format!("/{id}.md"),
    ] {
        let answer = client.get(&path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
    let events = client.get(&format!("/v1/runs/{id}/events")).await.text();
    assert!(events.contains("event: finish"), "{events}");
}

#[tokio::test]
async fn whatever_a_tool_returns_the_run_goes_on_and_can_be_read() {
    let results = results();
    let number = results.len();
    let list: Vec<(String, Value)> = (0..number).map(|n| (format!("call_{n}"), json!({ "n": n }))).collect();
    let asked = move || {
        let list: Vec<(&str, &str, Value)> =
            list.iter().map(|(id, arguments)| (id.as_str(), "s_t", arguments.clone())).collect();
        calls(&list)
    };
    let provider = FakeProvider::answering(move |request| {
        let body = request.json();
        let answered = body["messages"].as_array().unwrap().iter().any(|message| message["role"] == "tool");
        if answered { text("all read") } else { asked() }
    })
    .await;
    let mcp = FakeMcp::start(vec![FakeTool::raw("t", move |request| {
        let n = request.json()["params"]["arguments"]["n"].as_u64().unwrap();
        raw_result(request, &results[usize::try_from(n).unwrap()])
    })])
    .await;
    let gateway = Gateway::configured(&provider, |settings| settings.run.max_tool_calls = 1000).await;
    for stored in [false, true] {
        let body = with(ask(&[mcp.entry("s")]), json!({ "store": stored }));
        let answer = gateway.client.chat(&body).await;
        assert!(answer.content().ends_with("all read"), "{}", answer.text());
        let toolgate = &answer.json()["toolgate"];
        assert_eq!(toolgate["tool_calls"].as_array().unwrap().len(), number);
        assert!(toolgate["notices"].to_string().contains("json_repaired"), "{}", toolgate["notices"]);
        let stream = gateway.client.stream(&with(body.clone(), json!({ "stream": true }))).await;
        let stream = stream.read_to_end().await;
        assert!(stream.content().ends_with("all read"));
        if stored {
            is_readable(&gateway.client, answer.json()["id"].as_str().unwrap()).await;
        }
    }
    let metrics = gateway.client.get("/metrics").await.text();
    for site in ["request", "answer", "run", "background"] {
        assert!(metrics.contains(&format!("toolgate_panics_total{{site=\"{site}\"}} 0")), "{metrics}");
    }
}

#[tokio::test]
async fn whatever_a_provider_sends_the_run_ends_and_can_be_read() {
    let monsters = valid_monsters();
    let number = monsters.len();
    let provider = FakeProvider::answering(move |request| {
        let body = request.json();
        let n = body["messages"][0]["content"].as_str().unwrap().parse::<usize>().unwrap();
        let monster = &monsters[n];
        let quoted = Value::from(monster.as_str());
        let answered = body["messages"].as_array().unwrap().iter().any(|message| message["role"] == "tool");
        let (message, reason) = match answered {
            true => (format!(r#""content":"done","reasoning_details":[{monster}],"x":{monster}"#), "stop"),
            false => (
                format!(
                    r#""content":{monster},"tool_calls":[{{"index":0,"id":"c","type":"function","function":{{"name":"s_t","arguments":{quoted}}},"extra":{monster}}}]"#
                ),
                "tool_calls",
            ),
        };
        let about = format!(r#""system_fingerprint":{monster},"usage":{{"completion_tokens":{monster},"x":{monster}}}"#);
        let choice = format!(r#"{{"index":0,"delta":{{{message}}},"logprobs":{monster},"finish_reason":"{reason}"}}"#);
        Reply::stream(vec![format!("data: {{{about},\"choices\":[{choice}]}}\n\ndata: [DONE]\n\n").as_str().into()])
    })
    .await;
    let mcp = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let gateway = Gateway::with(&provider).await;
    for n in 0..number {
        let question = json!([{ "role": "user", "content": n.to_string() }]);
        let body = with(ask(&[mcp.entry("s")]), json!({ "messages": question, "store": true }));
        let answer = gateway.client.chat(&body).await;
        assert_eq!(answer.status, 200, "{n}: {}", answer.text());
        assert_eq!(answer.json()["choices"][0]["finish_reason"], "stop", "{n}: {}", answer.text());
        is_readable(&gateway.client, answer.json()["id"].as_str().unwrap()).await;
    }
}

#[tokio::test]
async fn a_callers_own_monsters_are_cleaned_in_a_run_and_relayed_as_they_are() {
    let provider = FakeProvider::answering(|_| text_stream("ok")).await;
    let gateway = Gateway::with(&provider).await;
    for monster in valid_monsters() {
        let plain = format!(
            r#"{{"model":"fake/m","messages":[{{"role":"user","content":"x","y":{monster}}}],"z":{monster},"metadata":{{"a":"b"}}}}"#
        );
        let json = [("content-type", "application/json")];
        let relayed = gateway.client.post_text("/v1/chat/completions", &json, &plain).await;
        assert_eq!(relayed.status, 200, "{}", relayed.text());
        let sent = provider.peer.requests().pop().unwrap();
        assert!(sent.text().contains(&monster), "relayed byte for byte");

        let stored = plain.replacen('{', r#"{"store":true,"#, 1);
        let answer = gateway.client.post_text("/v1/chat/completions", &json, &stored).await;
        assert!(answer.content().ends_with("ok"), "{}", answer.text());
        is_readable(&gateway.client, answer.json()["id"].as_str().unwrap()).await;
        // Of what was relayed the reader of a test could not be sure to return.
        provider.peer.requests().pop().unwrap().json();
    }
    let odd = r#"{"model":"fake/m","store":true,"messages":[{"role":"user","content":"an \ud800 emoji"}]}"#;
    let answer = gateway.client.post_text("/v1/chat/completions", &[], odd).await;
    assert_eq!(answer.json()["toolgate"]["notices"][0]["code"], "json_repaired");
    let sent = provider.peer.requests().pop().unwrap().json();
    assert_eq!(sent["messages"][0]["content"], "an \u{FFFD} emoji");
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    let kept = gateway.client.get(&format!("/v1/chat/completions/{id}/messages")).await.json();
    assert_eq!(kept["data"][0]["content"], "an \u{FFFD} emoji");
}

#[tokio::test]
async fn a_call_with_arguments_that_would_have_to_be_changed_is_not_made() {
    let arguments = r#"{"amount":1e400}"#;
    let call =
        json!({ "id": "c", "type": "function", "function": { "name": "s_t", "arguments": arguments } });
    let message = json!({ "role": "assistant", "content": null, "tool_calls": [call] });
    let provider =
        FakeProvider::start(vec![crate::support::provider::whole(&message, "tool_calls"), text("ok")]).await;
    let mcp = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let gateway = Gateway::with(&provider).await;
    gateway.client.chat(&ask(&[mcp.entry("s")])).await;
    assert_eq!(mcp.count("tools/call"), 0);
    let said = provider.last_said("tool")[0].as_str().unwrap().to_owned();
    assert!(said.contains("JSON"), "{said}");
}

/// Rows that were written when JSON from outside was not cleaned yet.
#[tokio::test]
async fn runs_that_were_stored_before_can_be_read_again() {
    let result = json!({
        "content": [{ "type": "text", "text": "a canary" }],
        "structuredContent": { "a": "canary", "n": 123_456, "deep": "deeper" },
    });
    let provider =
        FakeProvider::start(vec![calls(&[("c", "s_t", json!({ "b": "canary" }))]), text("a canary")]).await;
    let mcp = FakeMcp::start(vec![FakeTool::new("t", move |_| result.clone())]).await;
    let place = Place::new().await;
    let gateway = Gateway::configured(&provider, |settings| place.give_to(settings)).await;
    let body = with(ask(&[mcp.entry("s")]), json!({ "store": true }));
    let answer = gateway.client.chat(&body).await;
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    is_readable(&gateway.client, &id).await;
    gateway.stop().await;

    let store = place.store().await;
    let deep = format!("{}{}", "[".repeat(300), "]".repeat(300));
    for (old, new) in [("canary", r"\ud800".to_owned()), ("123456", "1e400".to_owned()), ("\"deeper\"", deep)]
    {
        let statement = match place.is_shared() {
            true => format!(
                "UPDATE run_events SET events = convert_to(replace(convert_from(events, 'UTF8'), '{old}', '{new}'), 'UTF8')"
            ),
            false => format!(
                "UPDATE run_events SET events = CAST(replace(CAST(events AS TEXT), '{old}', '{new}') AS BLOB)"
            ),
        };
        assert!(store.execute(statement.leak(), Vec::new()).await.unwrap() > 0);
    }
    store.close().await;

    let gateway = Gateway::configured(&provider, |settings| place.give_to(settings)).await;
    is_readable(&gateway.client, &id).await;
    let whole = gateway.client.get(&format!("/{id}.json")).await.json();
    let structured = &whole["completion"]["toolgate"]["tool_calls"][0]["structured"];
    assert_eq!(structured["a"], "\u{FFFD}");
    assert_eq!(structured["n"], f64::MAX);
}
