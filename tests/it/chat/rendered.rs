//! Answers that showed tool calls as text, sent back by the caller: the model gets the calls themselves.

use serde_json::{Value, json};
use toolgate::config::{ApiKey, EgressAllow, Models};
use toolgate::crypto::ApiKeyHash;

use crate::support::{
    Answer, FakeMcp, FakeProvider, FakeTool, Gateway, Peer, Person, Protected, Reply, ask, calls,
    calls_stream, text, text_stream, whole, with,
};

const SAID: &str = "It is 4.";

/// A run that calls `s_t` once, and the answers to what follows.
fn script(answers_after: usize) -> Vec<Reply> {
    let mut script = vec![calls(&[("call_1", "s_t", json!({ "a": 1 }))]), text(SAID)];
    script.extend((0..answers_after).map(|_| text("bye")));
    script
}

async fn started(script: Vec<Reply>) -> (Gateway, FakeProvider, FakeMcp) {
    let provider = FakeProvider::start(script).await;
    let mcp = FakeMcp::start(vec![FakeTool::text("t", "from the server")]).await;
    (Gateway::with(&provider).await, provider, mcp)
}

/// The next question after an answer with this `content`.
fn then(body: &Value, content: impl Into<Value>) -> Value {
    let mut body = body.clone();
    let messages = body["messages"].as_array_mut().unwrap();
    messages.push(json!({ "role": "assistant", "content": content.into() }));
    messages.push(json!({ "role": "user", "content": "and then?" }));
    body
}

/// The roles of the messages that the model got last.
fn roles(provider: &FakeProvider) -> Vec<String> {
    let body = provider.last_body();
    let roles = body["messages"].as_array().unwrap().iter();
    roles.map(|message| message["role"].as_str().unwrap().to_owned()).collect()
}

fn assert_put_back(provider: &FakeProvider) {
    let messages = provider.last_body()["messages"].clone();
    assert_eq!(roles(provider), ["user", "assistant", "tool", "assistant", "user"], "{messages}");
    assert_eq!(messages[1]["content"], Value::Null);
    assert_eq!(messages[1]["tool_calls"][0]["id"], "call_1");
    assert_eq!(messages[1]["tool_calls"][0]["function"], json!({ "name": "s_t", "arguments": "{\"a\":1}" }));
    assert_eq!(messages[2]["tool_call_id"], "call_1");
    assert_eq!(messages[3], json!({ "role": "assistant", "content": SAID }));
}

fn assert_left_as_text(provider: &FakeProvider) {
    let messages = provider.last_body()["messages"].clone();
    assert_eq!(roles(provider), ["user", "assistant", "user"], "{messages}");
}

#[tokio::test]
async fn the_text_of_a_whole_answer_becomes_calls_again_however_a_client_writes_it() {
    let (gateway, provider, mcp) = started(script(6)).await;
    let body = ask(&[mcp.entry("s")]);
    let content = gateway.client.chat(&body).await.content();
    assert!(content.contains("<details><summary>🔧 t") && content.ends_with(SAID), "{content}");
    let run_saw = provider.last_body()["messages"].clone();
    let (one, two) = content.split_at(content.find("</summary>").unwrap());
    let parts = json!([{ "type": "text", "text": one }, { "type": "text", "text": two }]);
    for shown in [json!(content), json!(content.trim()), json!(format!("\n{content}\n\n")), parts] {
        gateway.client.chat(&then(&body, shown)).await;
        assert_put_back(&provider);
    }
    let put_back = provider.last_body()["messages"].clone();
    let before = run_saw.as_array().unwrap();
    assert_eq!(put_back.as_array().unwrap()[..before.len()], before[..], "the provider has cached these");
    let escaped = then(&body, content.as_str()).to_string();
    let escaped = escaped.replace('<', "\\u003c").replace('>', "\\u003e").replace('🔧', "\\ud83d\\udd27");
    assert_eq!(gateway.client.post_text("/v1/chat/completions", &[], &escaped).await.status, 200);
    assert_put_back(&provider);
}

#[tokio::test]
async fn the_text_of_a_stream_becomes_calls_again_in_a_conversation_of_several_such_answers() {
    let again = [("call_2", "s_t", json!({}))];
    let script = vec![
        calls_stream(&[("call_1", "s_t", json!({ "a": 1 }))]),
        text_stream(SAID),
        calls_stream(&again),
        text_stream("It is 5."),
        text_stream("bye"),
    ];
    let (gateway, provider, mcp) = started(script).await;
    let body = ask(&[mcp.entry("s")]);
    let first = gateway.client.stream(&body).await.read_to_end().await.content();
    let body = then(&body, first);
    let second = gateway.client.stream(&body).await.read_to_end().await.content();
    gateway.client.stream(&then(&body, second)).await.read_to_end().await;
    let one = ["user", "assistant", "tool", "assistant"];
    assert_eq!(roles(&provider), [&one[..], &one[..], &["user"]].concat());
    assert_eq!(provider.last_body()["messages"][7]["content"], "It is 5.");
}

#[tokio::test]
async fn what_was_changed_is_left_as_it_is_and_what_is_repeated_is_put_back_once() {
    let (gateway, provider, mcp) = started(script(2)).await;
    let body = ask(&[mcp.entry("s")]);
    let content = gateway.client.chat(&body).await.content();
    let changed = content.replace("from the server", "from somebody else");
    assert_ne!(changed, content);
    gateway.client.chat(&then(&body, changed.as_str())).await;
    assert_left_as_text(&provider);
    assert_eq!(provider.last_body()["messages"][1]["content"], changed);
    let mut twice = then(&body, content.as_str());
    for _ in 0..2 {
        twice = then(&twice, content.as_str());
    }
    gateway.client.chat(&twice).await;
    let expect = "user assistant tool assistant user assistant user assistant user";
    assert_eq!(roles(&provider).join(" "), expect);
}

#[tokio::test]
async fn a_conversation_without_tools_has_no_calls_put_into_it() {
    let (gateway, provider, mcp) = started(script(2)).await;
    let content = gateway.client.chat(&ask(&[mcp.entry("s")])).await.content();
    for options in [json!({}), json!({ "toolgate": { "max_turns": 2 } })] {
        gateway.client.chat(&with(then(&ask(&[]), content.as_str()), options)).await;
        assert_left_as_text(&provider);
        assert_eq!(provider.last_body()["tools"], Value::Null);
    }
}

#[tokio::test]
async fn another_model_gets_the_text() {
    let provider = FakeProvider::start(script(3)).await;
    let mcp = FakeMcp::start(vec![FakeTool::text("t", "from the server")]).await;
    let gateway = Gateway::configured(&provider, |settings| {
        settings.providers[0].models = Some(Models::These(vec!["m".into(), "n".into()]));
        let twin = toolgate::config::Provider { name: "twin".into(), ..settings.providers[0].clone() };
        settings.providers.push(twin);
    })
    .await;
    let body = ask(&[mcp.entry("s")]);
    let next = then(&body, gateway.client.chat(&body).await.content());
    for model in ["n", "twin/m"] {
        gateway.client.chat(&with(next.clone(), json!({ "model": model }))).await;
        assert_left_as_text(&provider);
    }
    gateway.client.chat(&with(next, json!({ "model": "fake/m" }))).await;
    assert_put_back(&provider);
}

#[tokio::test]
async fn a_run_that_a_bound_has_ended_stays_text() {
    let (gateway, provider, mcp) = started(script(0)).await;
    let body = with(ask(&[mcp.entry("s")]), json!({ "toolgate": { "max_turns": 1 } }));
    let content = gateway.client.chat(&body).await.content();
    assert!(content.contains("limit of turns"), "{content}");
    gateway.client.chat(&then(&body, content)).await;
    assert_left_as_text(&provider);
}

#[tokio::test]
async fn an_answer_that_waited_for_a_login_is_known_as_a_stream_and_as_a_whole() {
    for streamed in [true, false] {
        let mcp = Protected::start(vec![FakeTool::text("t", "from the server")]).await;
        let provider = FakeProvider::start(script(1)).await;
        let gateway = Gateway::with(&provider).await;
        let app = Peer::start(|_| Reply::with_headers(204, &[], "")).await;
        let options = json!({ "on_auth": "wait", "authorization_callback_url": app.url("/hook") });
        let body = with(ask(&[mcp.entry("s")]), json!({ "user": "ann", "toolgate": options }));
        let (client, asked) = (gateway.client.clone(), body.clone());
        let answer = tokio::spawn(async move {
            match streamed {
                true => {
                    client.stream(&with(asked, json!({ "stream": true }))).await.read_to_end().await.content()
                }
                false => client.chat(&asked).await.content(),
            }
        });
        app.until_requests(1).await;
        let told = app.requests()[0].json();
        Person::new().log_in(told["data"]["url"].as_str().unwrap()).await;
        let content = answer.await.unwrap();
        assert_eq!(content.contains("**Authorized**"), streamed, "{content}");
        assert!(content.ends_with(SAID), "{content}");
        gateway.client.chat(&then(&body, content)).await;
        assert_put_back(&provider);
    }
}

const KEYS: [(&str, &str); 2] =
    [("shop", "tgk_0123456789abcdefghjkmnpq"), ("rival", "tgk_1123456789abcdefghjkmnpq")];

#[tokio::test]
async fn the_same_text_from_another_user_profile_or_project_brings_nothing() {
    let provider = FakeProvider::start(script(7)).await;
    let mcp = FakeMcp::start(vec![FakeTool::text("t", "from the server")]).await;
    let gateway = Gateway::configured(&provider, |settings| {
        for (project, key) in KEYS {
            settings.api_keys.push(ApiKey {
                name: project.into(),
                project: Some(project.into()),
                hash: ApiKeyHash::of(key).to_string(),
                requests_per_minute: None,
                scopes: None,
            });
        }
        let loopback = "127.0.0.0/8".parse().unwrap();
        settings.egress.allow.push(EgressAllow { cidr: Some(loopback), ..EgressAllow::default() });
    })
    .await;
    let post = async |key: &str, body: &Value| -> Answer {
        let bearer = format!("Bearer {key}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let path = "/v1/chat/completions";
        whole(gateway.client.send("POST", path, &headers, body.to_string()).await).await
    };
    let (own, other) = (KEYS[0].1, KEYS[1].1);
    let of = |user: &str, profile: Value| {
        with(ask(&[mcp.entry("s")]), json!({ "user": user, "toolgate": { "profile": profile } }))
    };
    let answer = post(own, &of("ann", json!("work"))).await;
    let content = answer.content();
    assert!(content.ends_with(SAID), "{}", answer.text());
    for (key, user, profile) in [
        (own, "bob", json!("work")),
        (own, "", json!("work")),
        (own, "ann", json!("home")),
        (own, "ann", Value::Null),
        (other, "ann", json!("work")),
        (other, "", Value::Null),
    ] {
        let answer = post(key, &then(&of(user, profile.clone()), content.as_str())).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_left_as_text(&provider);
    }
    post(own, &then(&of("ann", json!("work")), content)).await;
    assert_put_back(&provider);
}
