//! Which tools the model is offered, under which names, and where their lists come from.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::support::{FakeMcp, FakeProvider, FakeTool, Gateway, Peer, Reply, ask, calls, text, with};

#[tokio::test]
async fn allowed_tools_chooses_and_says_what_it_did_not_find() {
    let tools = || {
        vec![
            FakeTool::echo("read").with("annotations", json!({ "readOnlyHint": true })),
            FakeTool::echo("write").with("annotations", json!({ "readOnlyHint": false })),
            FakeTool::echo("list").with("annotations", json!({ "readOnlyHint": true })),
        ]
    };
    for (allowed, offered, notices) in [
        (json!(null), &["s_read", "s_write", "s_list"][..], &[][..]),
        (json!(["write"]), &["s_write"], &[]),
        (json!({ "tool_names": ["read", "write"] }), &["s_read", "s_write"], &[]),
        (json!({ "read_only": true }), &["s_read", "s_list"], &[]),
        (json!({ "tool_names": ["read", "write"], "read_only": true }), &["s_read"], &[]),
        (json!(["read", "gone"]), &["s_read"], &["tool_absent"]),
        (json!(["gone"]), &[], &["tool_absent", "no_tools"]),
        (json!([]), &[], &["no_tools"]),
    ] {
        let provider = FakeProvider::start(vec![text("ok")]).await;
        let mcp = FakeMcp::start(tools()).await;
        let gateway = Gateway::with(&provider).await;
        let entry = with(mcp.entry("s"), json!({ "allowed_tools": allowed }));
        let answer = gateway.client.chat(&ask(&[entry])).await.json();
        assert_eq!(provider.last_functions(), offered, "{allowed}");
        let codes: Vec<&str> = answer["toolgate"]["notices"]
            .as_array()
            .unwrap()
            .iter()
            .map(|notice| notice["code"].as_str().unwrap())
            .collect();
        assert_eq!(codes, notices, "{allowed}");
        if offered.is_empty() {
            assert!(provider.last_body().get("tools").is_none(), "an empty list is refused by providers");
        }
    }
}

#[tokio::test]
async fn descriptions_and_schemas_reach_the_model() {
    let schema = json!({ "type": "object", "properties": { "city": { "type": "string", "description": "where" } }, "required": ["city"] });
    let tool = FakeTool::echo("weather").with("inputSchema", schema.clone());
    let provider = FakeProvider::start(vec![text("ok")]).await;
    let mcp = FakeMcp::start(vec![tool]).await;
    let gateway = Gateway::with(&provider).await;
    gateway.client.chat(&ask(&[mcp.entry("s")])).await;
    assert_eq!(
        provider.last_body()["tools"],
        json!([{ "type": "function", "function": { "name": "s_weather", "description": "does weather", "parameters": schema } }])
    );
}

#[tokio::test]
async fn names_that_no_provider_takes_are_mapped_and_mapped_back() {
    let long = "long.".repeat(40);
    let names =
        vec!["plain".to_owned(), "files/read file".into(), "läser".into(), "a.b".into(), "a/b".into(), long];
    let provider = FakeProvider::answering(|request| {
        let body = request.json();
        if body["messages"].as_array().unwrap().len() > 1 {
            return text("ok");
        }
        let tools = body["tools"].as_array().unwrap().clone();
        let all: Vec<(String, String)> = tools
            .iter()
            .enumerate()
            .map(|(at, tool)| (format!("call_{at}"), tool["function"]["name"].as_str().unwrap().to_owned()))
            .collect();
        let list: Vec<(&str, &str, Value)> =
            all.iter().map(|(id, name)| (id.as_str(), name.as_str(), json!({}))).collect();
        calls(&list)
    })
    .await;
    let mcp = FakeMcp::start(names.iter().map(|name| FakeTool::text(name, name)).collect()).await;
    let gateway = Gateway::with(&provider).await;
    let answer = gateway.client.chat(&ask(&[mcp.entry("my server")])).await.json();

    let functions = provider.last_functions();
    let valid = |name: &String| {
        (1..=64).contains(&name.len())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
    };
    assert!(functions.iter().all(valid), "{functions:?}");
    assert_eq!(functions.iter().collect::<HashSet<_>>().len(), names.len());
    assert_eq!(provider.last_said("tool"), names.iter().map(|name| json!(name)).collect::<Vec<_>>());
    let shown: Vec<&str> = answer["toolgate"]["tool_calls"]
        .as_array()
        .unwrap()
        .iter()
        .map(|call| call["tool"].as_str().unwrap())
        .collect();
    assert_eq!(shown, names, "people see the tool's own name");

    gateway.client.chat(&ask(&[mcp.entry("my server")])).await;
    assert_eq!(provider.last_functions(), functions, "names are stable");
}

#[tokio::test]
async fn a_function_of_the_caller_keeps_its_name_and_its_owner() {
    let own =
        json!({ "type": "function", "function": { "name": "s_t", "parameters": { "type": "object" } } });
    let provider = FakeProvider::answering(|request| {
        let functions = request.json();
        let taken = functions["tools"][1]["function"]["name"].as_str().unwrap().to_owned();
        if functions["messages"].as_array().unwrap().len() > 1 {
            text("ok")
        } else {
            calls(&[("call_1", &taken, json!({}))])
        }
    })
    .await;
    let mcp = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let gateway = Gateway::with(&provider).await;
    gateway.client.chat(&ask(&[own.clone(), mcp.entry("s")])).await;
    let functions = provider.last_functions();
    assert_eq!(functions[0], "s_t");
    assert_ne!(functions[1], "s_t");
    assert_eq!(provider.last_body()["tools"][0], own);
    assert_eq!(mcp.count("tools/call"), 1);
}

#[tokio::test]
async fn servers_without_a_label_are_named_after_their_host() {
    let provider = FakeProvider::start(vec![text("ok")]).await;
    let one = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let two = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let gateway = Gateway::with(&provider).await;
    let entry = |mcp: &FakeMcp| json!({ "type": "mcp", "url": mcp.url() });
    gateway.client.chat(&ask(&[entry(&one), entry(&two)])).await;
    let functions = provider.last_functions();
    assert_eq!(functions.iter().collect::<HashSet<_>>().len(), 2, "{functions:?}");
    assert!(functions.iter().all(|name| name.ends_with("_t")), "{functions:?}");
}

#[tokio::test]
async fn the_second_request_asks_the_server_for_nothing_but_the_call() {
    let turns = || [calls(&[("call_1", "s_t", json!({}))]), text("ok")];
    let provider = FakeProvider::start(turns().into_iter().chain(turns()).collect()).await;
    let mcp = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let gateway = Gateway::with(&provider).await;
    gateway.client.chat(&ask(&[mcp.entry("s")])).await;
    let first = mcp.methods().len();
    gateway.client.chat(&ask(&[mcp.entry("s")])).await;
    assert_eq!(mcp.methods()[first..], ["tools/call"]);
    assert_eq!(mcp.methods()[..first], ["tools/list", "tools/call"], "and the first for little more");
}

#[tokio::test]
async fn many_requests_at_the_same_time_ask_for_a_list_once() {
    let provider = FakeProvider::answering(|_| text("ok")).await;
    let mcp = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let gateway = Gateway::with(&provider).await;
    let body = ask(&[mcp.entry("s")]);
    let answers = futures_util::future::join_all((0..20).map(|_| gateway.client.chat(&body))).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(mcp.methods(), ["tools/list"]);
}

#[tokio::test]
async fn a_private_list_is_not_shown_to_another_credential() {
    for (scope, lists) in [("private", 2), ("public", 1)] {
        let provider = FakeProvider::answering(|_| text("ok")).await;
        let mcp = FakeMcp::with_scope(vec![FakeTool::echo("t")], scope).await;
        let gateway = Gateway::with(&provider).await;
        for credential in ["anna", "bert", "anna", "bert"] {
            let entry = with(mcp.entry("s"), json!({ "authorization": credential }));
            gateway.client.chat(&ask(&[entry])).await;
        }
        assert_eq!(mcp.count("tools/list"), lists, "{scope}");
    }
}

#[tokio::test]
async fn an_unreachable_server_is_named_before_any_model_call() {
    let provider = FakeProvider::start(vec![text("never")]).await;
    let fine = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let gateway = Gateway::with(&provider).await;
    let dead = Peer::start(|_| Reply::Hangup).await;
    let broken = Peer::start(|_| Reply::with_headers(503, &[], "down")).await;
    let no_mcp =
        Peer::start(|_| Reply::with_headers(200, &[("content-type", "text/html")], "<html>Welcome!</html>"))
            .await;
    for peer in [&dead, &broken, &no_mcp] {
        let entry = json!({ "type": "mcp", "server_url": peer.url("/mcp"), "server_label": "bad" });
        for streamed in [false, true] {
            let body = with(ask(&[fine.entry("s"), entry.clone()]), json!({ "stream": streamed }));
            let answer = gateway.client.chat(&body).await;
            assert_eq!(answer.status, 424, "{}", answer.text());
            let error = &answer.json()["error"];
            assert_eq!(
                (&error["type"], &error["code"]),
                (&json!("mcp_server_error"), &json!("mcp_server_unreachable"))
            );
            assert_eq!(error["param"], "tools[1].server_url");
            assert_eq!(error["servers"][0]["server_label"], "bad");
            assert!(error["message"].as_str().unwrap().contains(&peer.host()), "{error}");
            assert!(!error["message"].as_str().unwrap().contains(&fine.peer.host()), "{error}");
        }
    }
    assert_eq!(provider.peer.requests().len(), 0);
}

#[tokio::test]
async fn an_optional_server_is_left_out_visibly() {
    let provider = FakeProvider::answering(|_| text("ok")).await;
    let fine = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let dead = Peer::start(|_| Reply::Hangup).await;
    let gateway = Gateway::with(&provider).await;
    let entry =
        json!({ "type": "mcp", "server_url": dead.url("/mcp"), "server_label": "bad", "optional": true });
    let body = ask(&[fine.entry("s"), entry]);
    let answer = gateway.client.chat(&body).await;
    assert_eq!(answer.json()["toolgate"]["notices"][0]["code"], "server_unreachable");
    assert!(
        answer.content().contains(&dead.host()) && answer.content().ends_with("ok"),
        "{}",
        answer.content()
    );
    assert_eq!(provider.last_functions(), ["s_t"]);
    let stream = gateway.client.stream(&body).await.read_to_end().await;
    assert_eq!(stream.events("notice")[0]["code"], "server_unreachable");
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_in_time() {
    let provider = FakeProvider::start(vec![text("never")]).await;
    let silent = Peer::start(|_| Reply::Silence).await;
    let gateway = Gateway::configured(&provider, |settings| settings.mcp.list_seconds = 1).await;
    let entry = json!({ "type": "mcp", "server_url": silent.url("/mcp") });
    let answer = gateway.client.chat(&ask(&[entry])).await;
    assert_eq!(answer.status, 424);
    assert!(answer.text().contains("no answer within 1 s"), "{}", answer.text());
}

#[tokio::test]
async fn servers_are_asked_at_the_same_time() {
    let gate = crate::support::Gate::new();
    let behind = |gate: &crate::support::Gate| {
        let gate = gate.clone();
        move |request: &crate::support::Recorded| {
            let list =
                json!({ "resultType": "complete", "tools": [], "ttlMs": 1000, "cacheScope": "private" });
            crate::support::rpc_result(request, &list).after(&gate)
        }
    };
    let peers = [
        Peer::start(behind(&gate)).await,
        Peer::start(behind(&gate)).await,
        Peer::start(behind(&gate)).await,
    ];
    let provider = FakeProvider::start(vec![text("ok")]).await;
    let gateway = Gateway::with(&provider).await;
    let entries: Vec<Value> =
        peers.iter().map(|peer| json!({ "type": "mcp", "server_url": peer.url("/mcp") })).collect();
    let asking = tokio::spawn({
        let client = gateway.client.clone();
        async move { client.chat(&ask(&entries)).await }
    });
    for peer in &peers {
        peer.until_requests(1).await;
    }
    gate.open();
    assert_eq!(asking.await.unwrap().status, 200);
}

#[tokio::test]
async fn a_thousand_tools_are_offered_where_the_provider_takes_them() {
    let tools = |count: usize| (0..count).map(|n| FakeTool::echo(&format!("tool{n}"))).collect();
    let provider = FakeProvider::start(vec![calls(&[("call_1", "s_tool999", json!({}))]), text("ok")]).await;
    let mcp = FakeMcp::start(tools(1000)).await;
    let gateway = Gateway::with(&provider).await;
    let answer = gateway.client.chat(&ask(&[mcp.entry("s")])).await;
    assert_eq!(answer.status, 200);
    assert_eq!(provider.last_functions().len(), 1000);
    assert_eq!(mcp.count("tools/call"), 1);
}

#[tokio::test]
async fn more_tools_than_the_provider_takes_is_an_error_that_names_the_largest_servers() {
    let tools = |count: usize| (0..count).map(|n| FakeTool::echo(&format!("tool{n}"))).collect();
    let provider = FakeProvider::start(vec![text("ok")]).await;
    let (large, small) = (FakeMcp::start(tools(100)).await, FakeMcp::start(tools(29)).await);
    let gateway = Gateway::configured(&provider, |settings| {
        settings.providers[0].quirks.max_tools = Some(128);
    })
    .await;
    let answer = gateway.client.chat(&ask(&[small.entry("small"), large.entry("large")])).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json()["error"]["param"], "tools");
    let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("129") && message.contains("128") && message.contains("fake"), "{message}");
    assert!(message.contains("`large` has 100, `small` has 29"), "{message}");
    assert_eq!(provider.peer.requests().len(), 0);

    let fewer = with(large.entry("large"), json!({ "allowed_tools": ["tool1"] }));
    assert_eq!(gateway.client.chat(&ask(&[small.entry("small"), fewer])).await.status, 200);
}
