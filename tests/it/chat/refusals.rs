//! What providers refuse: fields that are not sent to them, and reasons that are handed on.

use serde_json::{Value, json};

use crate::support::{FakeProvider, Gateway, Reply, ask, text, text_stream, with};

/// A gateway whose preset `name` is at the fake provider.
async fn preset(name: &str, provider: &FakeProvider) -> Gateway {
    let name = name.to_owned();
    Gateway::configured(provider, |settings| settings.providers[0].name = name).await
}

/// Fields that say who asks and how the request is filed, and some that are about the answer.
fn fields() -> Value {
    json!({
        "user": "ann", "safety_identifier": "ann", "metadata": { "a": "b" }, "store": false, "prompt_cache_key": "k",
        "prompt_cache_retention": "24h", "service_tier": "auto", "max_completion_tokens": 100, "temperature": 0.5,
        "seed": 7, "response_format": { "type": "text" }, "stream_options": { "include_usage": true },
    })
}

#[tokio::test]
async fn fields_that_a_preset_refuses_are_not_sent_to_it() {
    let filing = ["metadata", "store", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"];
    for (name, refused) in [
        ("mistral", [&filing[..], &["user", "service_tier", "max_completion_tokens"]].concat()),
        ("google", [&filing[..], &["user"]].concat()),
        ("groq", filing.to_vec()),
        ("cerebras", filing.to_vec()),
        ("xai", vec!["metadata", "store"]),
        ("openai", vec![]),
        ("openrouter", vec![]),
    ] {
        let provider = FakeProvider::answering(|request| {
            if request.json()["stream"] == true { text_stream("ok") } else { text("ok") }
        })
        .await;
        let gateway = preset(name, &provider).await;
        for (is_run, is_streamed) in [(true, true), (true, false), (false, true), (false, false)] {
            let mut body = with(ask(&[]), fields());
            body["model"] = format!("{name}/m").into();
            body["stream"] = is_streamed.into();
            if is_run {
                body["toolgate"] = json!({ "max_turns": 2 });
            }
            let answer = gateway.client.chat(&body).await;
            assert_eq!(answer.status, 200, "{name}: {}", answer.text());
            let sent = provider.last_body();
            for (field, value) in fields().as_object().unwrap() {
                let is_kept = !refused.contains(&field.as_str());
                // What the gateway says of streams itself has tests of its own.
                if field != "stream_options" {
                    assert_eq!(sent.get(field), is_kept.then_some(value), "{name}, run {is_run}: {sent}");
                }
            }
            let older = (name == "mistral").then_some(json!(100));
            assert_eq!(sent.get("max_tokens"), older.as_ref(), "{name}, run {is_run}");
        }
    }
}

#[tokio::test]
async fn operators_say_what_their_provider_refuses() {
    let provider = FakeProvider::answering(|_| text("ok")).await;
    let gateway = Gateway::configured(&provider, |settings| {
        settings.providers[0].name = "mistral".to_owned();
        settings.providers[0].quirks.refused_fields = Some(vec!["seed".to_owned(), "max_tokens".to_owned()]);
    })
    .await;
    let body = json!({ "model": "mistral/m", "seed": 7, "user": "ann", "max_tokens": 5, "toolgate": {} });
    gateway.client.chat(&with(ask(&[]), body)).await;
    let sent = provider.last_body();
    assert_eq!((sent.get("seed"), &sent["user"]), (None, &json!("ann")), "the preset's list does not count");
    assert_eq!((sent.get("max_tokens"), &sent["max_completion_tokens"]), (None, &json!(5)));
}

#[tokio::test]
async fn the_providers_reason_reaches_the_caller_in_whatever_shape_it_came() {
    let mistral = r#"{"object":"error","message":{"detail":[{"type":"extra_forbidden","loc":["body","user"],"msg":"Extra inputs are not permitted"}]},"type":"invalid_request_error"}"#;
    let google = r#"[{"error":{"code":400,"message":"Unknown name \"store\"","status":"INVALID_ARGUMENT"}}]"#;
    for (status, kind, said, words) in [
        (422, "application/json", mistral, "body.user: Extra inputs are not permitted"),
        (400, "application/json", google, "Unknown name \"store\""),
        (400, "application/json", r#"{"detail":"no tools here"}"#, "no tools here"),
        (400, "application/json", r#"{"error":"model not found"}"#, "model not found"),
        (
            404,
            "application/json",
            r#"{"type":"error","error":{"type":"not_found_error","message":"model: x"}}"#,
            "model: x",
        ),
        (413, "text/html", "<html><title>413 Too Large</title></html>", "413 Too Large"),
        (400, "text/plain", "bad \u{7}request\n again", "bad request again"),
        (400, "application/json", "", "it gave no reason"),
        // A failure in the place of an answer.
        (200, "application/json", google, "Unknown name \"store\""),
        (200, "application/json", r#"{"error":{"detail":"overloaded"}}"#, "overloaded"),
        (
            200,
            "text/event-stream",
            "data: {\"error\":[{\"message\":\"engine crashed\"}]}\n\n",
            "engine crashed",
        ),
        (
            200,
            "text/event-stream",
            "data: [{\"error\":{\"message\":\"engine crashed\"}}]\n\n",
            "engine crashed",
        ),
    ] {
        let provider =
            FakeProvider::answering(move |_| Reply::with_headers(status, &[("content-type", kind)], said))
                .await;
        let gateway = Gateway::with(&provider).await;
        let answer = gateway.client.chat(&with(ask(&[]), json!({ "toolgate": { "max_turns": 2 } }))).await;
        assert_eq!(answer.status, if status == 200 { 502 } else { status }, "{}", answer.text());
        let error = &answer.json()["error"];
        let message = error["message"].as_str().unwrap();
        assert!(message.starts_with("fake") && message.contains(words), "{said}: {message}");
        // Relayed, it stays as it came.
        let relayed = gateway.client.chat(&ask(&[])).await;
        assert_eq!((relayed.status, relayed.text().as_str()), (status, said));
    }
}
