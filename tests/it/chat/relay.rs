//! A completion that uses nothing of the gateway: bytes in, bytes out.

use http_body_util::BodyExt;
use serde_json::json;
use toolgate::config::ApiKey;
use toolgate::crypto::ApiKeyHash;

use crate::support::{
    FakeProvider, Gate, Gateway, Piece, Recorded, Reply, ask, calls, text, text_stream, with,
};

/// JSON that no encoder would write like this.
const ODD_ANSWER: &str = "{ \"id\":\"x\" ,\"choices\" : [ ],\n\"cost\":1.50, \"é\":\"\\u00e9\" }";

#[tokio::test]
async fn request_and_answer_pass_byte_for_byte_except_for_the_model() {
    let provider = FakeProvider::answering(|_| {
        Reply::with_headers(200, &[("content-type", "application/json")], ODD_ANSWER)
    })
    .await;
    let gateway = Gateway::with(&provider).await;
    let body = |model: &str| {
        format!(
            "{{ \"future_field\" : {{\"a\":[1.50,\"\\u00e9\"]}}, \"model\" :\"{model}\",\n \"messages\":[ {{\"role\": \"user\",\"content\":\"hi\"}} ] , \"temperature\":0.10 }}"
        )
    };
    for model in ["fake/m", "m", "fake/of/another/maker"] {
        let answer = gateway.client.post_text("/v1/chat/completions", &[], &body(model)).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, ODD_ANSWER));
        let sent = provider.peer.requests().pop().unwrap();
        assert_eq!(sent.text(), body(model.strip_prefix("fake/").unwrap_or(model)));
        assert_eq!((sent.method.as_str(), sent.path.as_str()), ("POST", "/v1/chat/completions"));
    }
}

#[tokio::test]
async fn the_short_path_works_too() {
    let provider = FakeProvider::start(vec![text("hello")]).await;
    let gateway = Gateway::with(&provider).await;
    assert_eq!(gateway.client.post("/chat/completions", &[], &ask(&[])).await.content(), "hello");
}

#[tokio::test]
async fn a_stream_passes_byte_for_byte() {
    const PIECES: [&str; 5] = [
        ": a comment\r\n\r\n",
        "data: {\"choices\" :[ {\"del",
        "ta\":{}}]}\n\nevent: odd\nid: 7\ndata:{\"x\":1}\n\n",
        "data: {\"error\":{\"message\":\"mine\"}}\n\n",
        "data: [DONE]\n\n",
    ];
    let provider =
        FakeProvider::start(vec![Reply::stream(PIECES.iter().map(|piece| Piece::from(*piece)).collect())])
            .await;
    let gateway = Gateway::with(&provider).await;
    let answer =
        gateway.client.post("/v1/chat/completions", &[], &with(ask(&[]), json!({ "stream": true }))).await;
    assert_eq!(answer.text(), PIECES.concat());
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(answer.header("x-accel-buffering"), Some("no"));
    let sent = provider.peer.only_request().json();
    assert!(sent.get("stream_options").is_none(), "nothing is added: {sent}");
}

#[tokio::test]
async fn every_piece_of_a_stream_arrives_before_the_next_is_sent() {
    let (one, two) = (Gate::new(), Gate::new());
    let pieces = vec![
        "data: {\"n\":1}\n\n".into(),
        Piece::Wait(one.clone()),
        "data: {\"n\":2}\n\n".into(),
        Piece::Wait(two.clone()),
        "data: [DONE]\n\n".into(),
    ];
    let provider = FakeProvider::start(vec![Reply::stream(pieces)]).await;
    let gateway = Gateway::with(&provider).await;
    let mut stream = gateway.client.stream(&ask(&[])).await;
    assert_eq!(stream.next().await.unwrap()["n"], 1);
    one.open();
    assert_eq!(stream.next().await.unwrap()["n"], 2);
    two.open();
    assert!(stream.next().await.is_none() && stream.done);
}

#[tokio::test]
async fn a_provider_gets_the_headers_that_matter_and_no_secret_of_the_gateway() {
    let provider = FakeProvider::start(vec![text("hi")]).await;
    let key = "tgk_0123456789abcdefghjkmnpq";
    // Local mode would refuse the traces of proxies.
    let gateway = Gateway::configured(&provider, |settings| {
        settings.api_keys.push(ApiKey {
            name: "web".into(),
            project: None,
            hash: ApiKeyHash::of(key).to_string(),
            requests_per_minute: None,
            scopes: None,
        });
    })
    .await;
    let bearer = format!("Bearer {key}");
    let given = [
        ("authorization", bearer.as_str()),
        ("openai-organization", "org-1"),
        ("openai-beta", "b=1"),
        ("x-stainless-lang", "python"),
        ("accept-encoding", "br"),
        ("user-agent", "OpenAI/Python"),
        ("cookie", "session=secret"),
        ("x-request-id", "mine"),
        ("x-forwarded-for", "10.1.2.3"),
        ("forwarded", "for=10.1.2.3"),
        ("via", "1.1 inside"),
        ("x-toolgate-user", "anna@example.com"),
        ("te", "trailers"),
        ("connection", "keep-alive, x-hop"),
        ("x-hop", "1"),
    ];
    gateway.client.post("/v1/chat/completions", &given, &ask(&[])).await;
    let sent = provider.peer.only_request();
    for (name, value) in [
        ("authorization", "Bearer provider-key"),
        ("openai-organization", "org-1"),
        ("openai-beta", "b=1"),
        ("x-stainless-lang", "python"),
        ("accept-encoding", "br"),
        ("user-agent", "OpenAI/Python"),
        ("content-type", "application/json"),
        ("host", &provider.peer.host()),
    ] {
        assert_eq!(sent.header(name), Some(value), "{name}");
    }
    for name in [
        "cookie",
        "x-request-id",
        "x-forwarded-for",
        "forwarded",
        "via",
        "x-toolgate-user",
        "te",
        "connection",
        "x-hop",
    ] {
        assert_eq!(sent.header(name), None, "{name}");
    }
}

#[tokio::test]
async fn a_caller_gets_the_headers_that_matter() {
    let headers = [
        ("content-type", "application/json; charset=utf-8"),
        ("x-ratelimit-remaining-tokens", "12"),
        ("openai-processing-ms", "7"),
        ("content-encoding", "identity"),
        ("x-request-id", "theirs"),
        ("set-cookie", "a=b"),
        ("keep-alive", "timeout=5"),
        ("x-hop", "1"),
        ("connection", "x-hop"),
    ];
    let provider = FakeProvider::answering(move |_| Reply::with_headers(200, &headers, "{}")).await;
    let gateway = Gateway::with(&provider).await;
    let answer = gateway.client.chat(&ask(&[])).await;
    for (name, value) in &headers[..4] {
        assert_eq!(answer.header(name), Some(*value), "{name}");
    }
    assert_eq!(answer.header("x-provider-request-id"), Some("theirs"));
    assert_ne!(answer.header("x-request-id"), Some("theirs"));
    for name in ["set-cookie", "keep-alive", "x-hop"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
}

#[tokio::test]
async fn a_provider_s_errors_keep_their_status_and_their_words() {
    for status in [400, 401, 403, 404, 422, 429, 500, 501, 503, 529] {
        let body = format!("{{\"error\": {{\"message\":\"no {status}\"}} }}");
        let reply = body.clone();
        let provider = FakeProvider::answering(move |_| {
            let headers = [("content-type", "application/json"), ("retry-after", "3600")];
            Reply::with_headers(status, &headers, &reply)
        })
        .await;
        let gateway = Gateway::with(&provider).await;
        let answer = gateway.client.chat(&ask(&[])).await;
        assert_eq!((answer.status, answer.text()), (status, body));
        assert_eq!(answer.header("retry-after"), Some("3600"));
        assert_eq!(provider.peer.requests().len(), 1, "an hour is not waited for");
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_cancels_the_provider_s_request() {
    let never = Gate::new();
    let begun = Reply::stream(vec!["data: {}\n\n".into(), Piece::Wait(never.clone())]);
    let provider = FakeProvider::start(vec![Reply::Silence, begun]).await;
    let gateway = Gateway::with(&provider).await;

    let before_the_answer = gateway.client.connect(&ask(&[])).await;
    provider.peer.until_requests(1).await;
    drop(before_the_answer);
    provider.peer.until_abandoned(1).await;

    let mut in_the_middle = gateway.client.stream(&ask(&[])).await;
    in_the_middle.next().await.unwrap();
    drop(in_the_middle);
    provider.peer.until_abandoned(2).await;
}

#[tokio::test]
async fn functions_of_the_caller_alone_do_not_leave_the_fast_path() {
    let provider = FakeProvider::answering(|_| calls(&[("call_1", "mine", json!({ "a": 1 }))])).await;
    let gateway = Gateway::with(&provider).await;
    let tool =
        json!({ "type": "function", "function": { "name": "mine", "parameters": { "type": "object" } } });
    let body = with(ask(&[tool]), json!({ "n": 3, "tool_choice": "required" }));
    let answer = gateway.client.chat(&body).await.json();
    assert!(answer.get("toolgate").is_none());
    assert_eq!(answer["choices"][0]["message"]["tool_calls"][0]["id"], "call_1");
    assert_eq!(provider.peer.only_request().json(), body);
}

#[tokio::test]
async fn fields_that_nobody_knows_reach_the_provider_beside_tools_too() {
    let provider = FakeProvider::start(vec![text("hi"), text_stream("hi")]).await;
    let gateway = Gateway::with(&provider).await;
    let unknown = json!({ "future_field": { "a": [1.5, null] }, "reasoning_effort": "high", "metadata": { "k": "v" }, "user": "u" });
    let body = with(with(ask(&[]), unknown.clone()), json!({ "toolgate": { "max_turns": 3 } }));
    gateway.client.chat(&body).await;
    gateway.client.stream(&body).await.read_to_end().await;
    for sent in provider.bodies() {
        for (field, value) in unknown.as_object().unwrap() {
            assert_eq!(sent[field], *value, "{field}");
        }
        assert!(sent.get("toolgate").is_none(), "what the gateway consumes is removed");
    }
}

#[tokio::test]
async fn other_endpoints_go_to_the_provider_that_has_the_model() {
    let provider = FakeProvider::answering(|request: &Recorded| {
        Reply::with_headers(200, &[("content-type", "application/json")], &request.path)
    })
    .await;
    let gateway = Gateway::with(&provider).await;
    for path in ["/embeddings", "/completions", "/moderations", "/images/generations", "/audio/speech"] {
        let body = "{\"model\": \"fake/m\", \"input\" : \"x\"}";
        let answer = gateway.client.post_text(&format!("/v1{path}"), &[], body).await;
        assert_eq!(answer.text(), format!("/v1{path}"));
        assert_eq!(provider.peer.requests().pop().unwrap().text(), body.replace("fake/m", "m"));
    }
}

#[tokio::test]
async fn models_are_listed_as_the_caller_may_name_them() {
    let provider = FakeProvider::start(vec![text("hi")]).await;
    let gateway = Gateway::configured(&provider, |settings| {
        settings.aliases.insert("quick".into(), "fake/m".into());
    })
    .await;
    let list = gateway.client.get("/v1/models").await.json();
    let ids: Vec<&str> =
        list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["quick", "fake/m", "demo/demo"]);
    for id in ids {
        assert_eq!(gateway.client.get(&format!("/v1/models/{id}")).await.json()["id"], id);
    }
    assert_eq!(gateway.client.get("/v1/models/nothing").await.status, 404);
    gateway.client.chat(&with(ask(&[]), json!({ "model": "quick" }))).await;
    assert_eq!(provider.last_body()["model"], "m");
}

#[tokio::test]
async fn a_long_body_streams_through_in_both_directions() {
    let long = "x".repeat(3 << 20);
    let provider = FakeProvider::answering(|request| {
        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        Reply::Whole(200, headers, request.body.clone())
    })
    .await;
    let gateway = Gateway::with(&provider).await;
    let body = with(ask(&[]), json!({ "metadata": long })).to_string();
    let response = gateway
        .client
        .send("POST", "/v1/chat/completions", &[("content-type", "application/json")], body.clone())
        .await;
    let echoed = response.into_body().collect().await.unwrap().to_bytes();
    assert!(echoed == body.as_bytes());
}
