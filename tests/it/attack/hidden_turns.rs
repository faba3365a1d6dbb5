//! Conversations whose provider repeats its ids, whose questions and visible answers are the same: each has a secret of its
//! own in what its caller does not see, and no other conversation's model may read it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use toolgate::config::{ApiKey, EgressAllow, Settings};
use toolgate::crypto::ApiKeyHash;

use crate::support::provider::{delta, finish, function_call, stream};
use crate::support::{
    Answer, FakeMcp, FakeProvider, FakeTool, Gateway, Recorded, Stream, ask, calls, text, whole, with,
};

const KEY: &str = "tgk_0123456789abcdefghjkmnpq";
const CONVERSATIONS: usize = 8;
/// How a picture begins, in base 64.
const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAA";

/// The secret of the call with this number, in base 64 of a picture: no reader is shown it.
fn secret(number: usize) -> String {
    format!("SECRET{number:02}")
}

/// A server whose every picture is another one of the same size.
async fn server() -> FakeMcp {
    let counter = AtomicUsize::new(0);
    let picture = move |_: &Value| {
        let data = format!("{PNG}{}", secret(counter.fetch_add(1, Ordering::Relaxed)));
        json!({ "content": [{ "type": "text", "text": "a dot" }, { "type": "image", "data": data, "mimeType": "image/png" }] })
    };
    FakeMcp::start(vec![FakeTool::new("t", picture)]).await
}

/// A provider that uses the same ids in every conversation: it calls `s_t`, then the caller's `mine` where it is offered, then
/// says the same words.
async fn provider() -> FakeProvider {
    let reply = |request: &Recorded, list: &[(&str, &str, Value)]| match request.json()["stream"] == true {
        true => crate::support::calls_stream(list),
        false => calls(list),
    };
    FakeProvider::answering(move |request| {
        let body = request.json();
        let messages = body["messages"].as_array().unwrap();
        let since = messages.iter().rposition(|message| message["content"] == "question").unwrap_or(0);
        let tools = messages[since..].iter().filter(|message| message["role"] == "tool").count();
        let has_mine = body["tools"].to_string().contains("mine");
        match tools {
            0 if messages.last().unwrap()["content"] == "question" => {
                reply(request, &[("functions.s_t:0", "s_t", json!({}))])
            }
            1 if has_mine && messages.last().unwrap()["content"] != "and then?" => {
                reply(request, &[("call_1_0", "mine", json!({}))])
            }
            _ if body["stream"] == true => {
                stream(&[delta(&json!({ "content": "It is a dot." })), finish("stop")])
            }
            _ => text("It is a dot."),
        }
    })
    .await
}

/// Asks as `headers` say, and gives the message of the answer.
async fn message(gateway: &Gateway, headers: &[(&str, &str)], body: &Value) -> Value {
    let mut all = vec![("content-type", "application/json")];
    all.extend(headers);
    let sent = gateway.client.send("POST", "/v1/chat/completions", &all, body.to_string()).await;
    if body["stream"] == true {
        let stream: Stream = Stream::new(sent).read_to_end().await;
        let calls: Vec<Value> =
            stream.calls().iter().map(|(id, name, text)| function_call(id, name, text)).collect();
        let mut message = json!({ "role": "assistant", "content": stream.content() });
        if !calls.is_empty() {
            message["tool_calls"] = calls.into();
        }
        return message;
    }
    let answer: Answer = whole(sent).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["choices"][0]["message"].clone()
}

fn with_key(settings: &mut Settings) {
    settings.api_keys.push(ApiKey {
        name: "shop".into(),
        project: Some("shop".into()),
        hash: ApiKeyHash::of(KEY).to_string(),
        requests_per_minute: None,
        scopes: None,
    });
    let loopback = "127.0.0.0/8".parse().unwrap();
    settings.egress.allow.push(EgressAllow { cidr: Some(loopback), ..EgressAllow::default() });
}

/// The secrets in each request of the provider, by the number of the conversation that it belongs to.
fn seen(provider: &FakeProvider) -> HashMap<u64, Vec<String>> {
    let mut seen: HashMap<u64, Vec<String>> = HashMap::new();
    for body in provider.bodies() {
        let text = body["messages"].to_string();
        let secrets = (0..CONVERSATIONS * 2).map(secret).filter(|secret| text.contains(secret));
        seen.entry(body["seed"].as_u64().unwrap()).or_default().extend(secrets);
    }
    seen
}

#[tokio::test]
async fn no_conversation_reads_another_one_s_hidden_turns() {
    let mine = json!({ "type": "function", "function": { "name": "mine", "parameters": { "type": "object", "properties": {} } } });
    let bearer = format!("Bearer {KEY}");
    let key = [("authorization", bearer.as_str())];
    for (has_key, user) in [(false, None), (true, None), (true, Some("ann"))] {
        for has_calls in [true, false] {
            let (provider, mcp) = (provider().await, server().await);
            let gateway = Gateway::configured(&provider, |settings| {
                if has_key {
                    with_key(settings);
                }
            })
            .await;
            let headers: &[(&str, &str)] = if has_key { &key } else { &[] };
            let tools = if has_calls { vec![mcp.entry("s"), mine.clone()] } else { vec![mcp.entry("s")] };
            let mut bodies = Vec::new();
            for number in 0..CONVERSATIONS {
                let fields = json!({ "model": "fake/gpt-4o", "seed": number, "stream": number % 2 == 1, "user": user });
                let mut body = with(ask(&tools), fields);
                let said = message(&gateway, headers, &body).await;
                let list = body["messages"].as_array_mut().unwrap();
                list.push(said.clone());
                match said["tool_calls"][0]["id"].as_str() {
                    Some(id) => {
                        list.push(json!({ "role": "tool", "tool_call_id": id, "content": "from the caller" }))
                    }
                    None => list.push(json!({ "role": "user", "content": "and then?" })),
                }
                bodies.push(body);
            }
            // The first come back last.
            for body in bodies.iter().rev() {
                message(&gateway, headers, body).await;
            }
            let seen = seen(&provider);
            for number in 0..CONVERSATIONS {
                let mut secrets = seen[&(number as u64)].clone();
                secrets.dedup();
                assert_eq!(secrets, [secret(number)], "key: {has_key}, user: {user:?}, calls: {has_calls}");
            }
            if has_calls {
                let times =
                    provider.bodies().iter().filter(|body| body.to_string().contains("SECRET")).count();
                assert_eq!(times, 2 * CONVERSATIONS, "each conversation gets its own back");
            }
        }
    }
}

#[tokio::test]
async fn the_provider_s_ids_and_another_conversation_s_ids_open_nothing() {
    let bearer = format!("Bearer {KEY}");
    let headers = [("authorization", bearer.as_str())];
    let (provider, mcp) = (provider().await, server().await);
    let gateway = Gateway::configured(&provider, with_key).await;
    let mine = json!({ "type": "function", "function": { "name": "mine", "parameters": { "type": "object", "properties": {} } } });
    let body = with(ask(&[mcp.entry("s"), mine]), json!({ "model": "fake/gpt-4o", "seed": 0 }));
    let said = message(&gateway, &headers, &body).await;
    let known = said["tool_calls"][0]["id"].as_str().unwrap().to_owned();
    for (question, id) in [("question", "call_1_0"), ("another question", known.as_str())] {
        let messages = json!([
            { "role": "user", "content": question },
            { "role": "assistant", "content": null, "tool_calls": [function_call(id, "mine", "{}")] },
            { "role": "tool", "tool_call_id": id, "content": "from the caller" },
        ]);
        message(&gateway, &headers, &with(body.clone(), json!({ "messages": messages, "seed": 1 }))).await;
        assert_eq!(provider.last_body()["messages"], messages, "nothing is put back for {id}");
    }
}
