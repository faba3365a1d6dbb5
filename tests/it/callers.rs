//! Who may call, with whose key, and how often.

use serde_json::json;
use toolgate::config::{ApiKey, EgressAllow, Models, PassThroughLogins, Provider, Secret, Settings};
use toolgate::crypto::ApiKeyHash;
use toolgate::egress::system_lookup;

use crate::support::{
    Answer, FakeProvider, FakeTool, Gateway, Logs, Protected, Reply, ask, settings, text, whole, with,
};

const PROJECT_KEY: &str = "tgk_0123456789abcdefghjkmnpq";

fn api_key(requests_per_minute: Option<u32>) -> ApiKey {
    ApiKey {
        name: "web".into(),
        project: Some("shop".into()),
        hash: ApiKeyHash::of(PROJECT_KEY).to_string(),
        requests_per_minute,
        scopes: None,
    }
}

/// A gateway that is not local: it has a project key, takes providers' keys, and has beside `fake` a provider without any
/// key.
async fn shared(provider: &FakeProvider, change: impl FnOnce(&mut Settings)) -> Gateway {
    let mut settings = settings(provider);
    settings.api_keys.push(api_key(None));
    settings.pass_through.enabled = Some(true);
    settings.providers.push(Provider {
        name: "keyless".into(),
        base_url: Some(provider.peer.url("/keyless")),
        models: Some(Models::These(vec!["free".into()])),
        ..Provider::default()
    });
    change(&mut settings);
    Gateway::start(settings, system_lookup()).await
}

async fn chat(gateway: &Gateway, authorization: &str, model: &str) -> Answer {
    let headers: Vec<(&str, &str)> = match authorization {
        "" => Vec::new(),
        value => vec![("authorization", value)],
    };
    gateway.client.post("/v1/chat/completions", &headers, &with(ask(&[]), json!({ "model": model }))).await
}

fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

#[tokio::test]
async fn in_local_mode_every_bearer_is_accepted_and_the_configured_key_wins() {
    let provider = FakeProvider::answering(|_| text("hi")).await;
    let gateway = Gateway::with(&provider).await;
    for authorization in ["", "Bearer sk-whatever", "Bearer ", "bearer dummy"] {
        assert_eq!(chat(&gateway, authorization, "m").await.status, 200, "{authorization}");
    }
    assert!(
        provider
            .peer
            .requests()
            .iter()
            .all(|sent| sent.header("authorization") == Some("Bearer provider-key"))
    );
}

#[tokio::test]
async fn in_local_mode_the_caller_s_key_is_used_where_none_is_configured() {
    let provider = FakeProvider::answering(|_| text("hi")).await;
    let gateway = Gateway::configured(&provider, |settings| {
        // A preset has a key by nature: without one of its own it takes the caller's.
        settings.providers[0].name = "openai".into();
        settings.providers[0].api_key = None;
    })
    .await;
    assert_eq!(chat(&gateway, "Bearer sk-mine", "openai/m").await.status, 200);
    assert_eq!(provider.peer.only_request().header("authorization"), Some("Bearer sk-mine"));
    let answer = chat(&gateway, "", "openai/m").await;
    assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (401, Some("no_provider_key")));
    assert!(answer.text().contains("OPENAI_API_KEY"), "{}", answer.text());
}

#[tokio::test]
async fn a_project_key_opens_the_operator_s_providers_and_stays_here() {
    let provider = FakeProvider::answering(|_| text("hi")).await;
    let gateway = shared(&provider, |_| {}).await;
    assert_eq!(chat(&gateway, &bearer(PROJECT_KEY), "m").await.status, 200);
    assert_eq!(chat(&gateway, &bearer(PROJECT_KEY), "keyless/free").await.status, 200);
    let sent: Vec<Option<String>> = provider
        .peer
        .requests()
        .iter()
        .map(|request| request.header("authorization").map(str::to_owned))
        .collect();
    assert_eq!(sent, [Some("Bearer provider-key".to_owned()), None]);
}

#[tokio::test]
async fn without_a_usable_key_there_is_a_401_that_repeats_no_key() {
    let provider = FakeProvider::answering(|_| text("hi")).await;
    let open = shared(&provider, |_| {}).await;
    let closed = shared(&provider, |settings| settings.pass_through.enabled = Some(false)).await;
    for (gateway, authorization) in [
        (&open, ""),
        (&open, "Bearer "),
        (&open, "Basic Y2FuYXJ5OmNhbmFyeQ=="),
        (&open, "Bearer tgk_canarycanarycanary"),
        (&open, "Bearer two canary"),
        (&closed, ""),
        (&closed, "Bearer sk-canary"),
        (&closed, "Bearer tgk_canarycanarycanary"),
    ] {
        let answer = chat(gateway, authorization, "m").await;
        assert_eq!(answer.status, 401, "{authorization}: {}", answer.text());
        let error = &answer.json()["error"];
        assert_eq!(
            (&error["type"], &error["code"]),
            (&json!("authentication_error"), &json!("invalid_api_key"))
        );
        assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"toolgate\""));
        assert!(!answer.text().contains("canary") && !answer.text().contains("Y2Fu"), "{}", answer.text());
    }
    for path in ["/v1/models", "/v1/models/m"] {
        assert_eq!(open.client.get(path).await.status, 401, "{path}");
    }
    assert_eq!(open.client.post("/v1/embeddings", &[], &ask(&[])).await.status, 401);
    assert_eq!(provider.peer.requests().len(), 0);
}

#[tokio::test]
async fn where_there_are_project_keys_a_mistyped_one_goes_to_no_provider_and_the_answer_says_what_would_let_it()
 {
    let provider = FakeProvider::answering(|_| text("hi")).await;
    let gateway = shared(&provider, |settings| settings.pass_through.enabled = None).await;
    assert_eq!(chat(&gateway, &bearer(PROJECT_KEY), "m").await.status, 200);
    let host = format!("/{}/v1", provider.peer.address);
    let (host_chat, host_models) = (format!("{host}/chat/completions"), format!("{host}/models"));
    for key in ["gk_0123456789abcdefghjkmnpq", "0123456789abcdefghjkmnpq", "sk-stranger"] {
        for path in [
            "/v1/chat/completions",
            "/v1/embeddings",
            "/v1/tasks",
            "/v1/connections",
            "/v1/connections/check",
            &host_chat,
            &host_models,
            "/run_0123456789abcdefghjkmnpqrs/mcp",
            "/run_0123456789abcdefghjkmnpqrs/chat/completions",
        ] {
            let headers =
                [("authorization", bearer(key)), ("accept", "application/json, text/event-stream".into())];
            let headers: Vec<(&str, &str)> =
                headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let answer = gateway.client.post(path, &headers, &ask(&[])).await;
            assert_eq!(answer.status, 401, "{key} {path}: {}", answer.text());
            assert!(answer.text().contains("[pass_through] enabled = true"), "{path}: {}", answer.text());
            assert!(!answer.text().contains(key), "{}", answer.text());
        }
        let headers = [("authorization", bearer(key))];
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        for path in ["/v1/models", "/v1/runs", "/v1/chat/completions", "/v1/webhooks/secret"] {
            let answer = whole(gateway.client.send("GET", path, &headers, String::new()).await).await;
            assert_eq!(answer.status, 401, "{key} {path}: {}", answer.text());
        }
    }
    assert_eq!(provider.peer.requests().len(), 1, "nothing was relayed");
    let open = shared(&provider, |_| {}).await;
    for key in
        ["TGK_0123456789abcdefghjkmnpq", "\"tgk_0123456789abcdefghjkmnpq\"", "tgk-0123456789abcdefghjkm"]
    {
        assert_eq!(chat(&open, &bearer(key), "m").await.status, 401, "{key}: it was meant for this gateway");
    }
    assert_eq!(provider.peer.requests().len(), 1);
}

#[tokio::test]
async fn a_pass_through_caller_pays_with_its_own_key() {
    let provider = FakeProvider::answering(|_| text("hi")).await;
    let gateway = shared(&provider, |_| {}).await;
    assert_eq!(chat(&gateway, "Bearer sk-mine", "m").await.status, 200);
    assert_eq!(provider.peer.only_request().header("authorization"), Some("Bearer sk-mine"));
    let keyless = chat(&gateway, "Bearer sk-mine", "keyless/free").await;
    assert_eq!(keyless.status, 401, "the operator's own machines are not for strangers: {}", keyless.text());
    let body = with(ask(&[]), json!({ "model": "keyless/free", "toolgate": { "max_turns": 1 } }));
    let headers = [("authorization", "Bearer sk-mine")];
    assert_eq!(gateway.client.post("/v1/chat/completions", &headers, &body).await.status, 401);
    assert_eq!(provider.peer.requests().len(), 1);
}

#[tokio::test]
async fn no_key_is_logged() {
    let logs = Logs::catch();
    let provider = FakeProvider::answering(|_| Reply::with_headers(503, &[("retry-after", "0")], "")).await;
    let gateway = shared(&provider, |_| {}).await;
    for key in [PROJECT_KEY, "sk-mine", "tgk_unknownunknownunknown"] {
        chat(&gateway, &bearer(key), "m").await;
        gateway.client.post("/127.0.0.1:1/v1/models", &[("authorization", &bearer(key))], &ask(&[])).await;
    }
    assert!(logs.text().contains("trying the provider again"), "the log is caught");
    for secret in ["0123456789abc", "sk-mine", "unknownunknown", "provider-key"] {
        assert!(!logs.text().contains(secret), "{secret} in {}", logs.text());
    }
}

#[tokio::test]
async fn a_shared_gateway_has_no_demo() {
    let provider = FakeProvider::start(Vec::new()).await;
    let gateway = shared(&provider, |_| {}).await;
    assert_eq!(chat(&gateway, &bearer(PROJECT_KEY), "demo/demo").await.status, 404);
    assert_eq!(gateway.client.post("/demo/mcp", &[], &json!({})).await.status, 404);
}

#[tokio::test]
async fn a_shared_gateway_answers_on_any_name_and_to_any_page() {
    let provider = FakeProvider::answering(|_| text("hi")).await;
    let gateway = shared(&provider, |_| {}).await;
    let key = bearer(PROJECT_KEY);
    let headers =
        [("authorization", key.as_str()), ("host", "gateway.example"), ("origin", "https://app.example")];
    assert_eq!(gateway.client.post("/v1/chat/completions", &headers, &ask(&[])).await.status, 200);
}

#[tokio::test]
async fn over_its_rate_a_caller_gets_429_with_retry_after_and_others_do_not() {
    let provider = FakeProvider::answering(|_| text("hi")).await;
    let gateway = shared(&provider, |settings| {
        settings.api_keys[0] = api_key(Some(2));
        settings.rate_limit.requests_per_minute = 1;
    })
    .await;
    let project = bearer(PROJECT_KEY);
    assert_eq!(chat(&gateway, &project, "m").await.status, 200);
    assert_eq!(chat(&gateway, &project, "m").await.status, 200);
    assert_eq!(chat(&gateway, "Bearer sk-1", "m").await.status, 200);
    assert_eq!(chat(&gateway, "Bearer sk-2", "m").await.status, 200, "each key has its own");
    for authorization in [project.as_str(), "Bearer sk-1"] {
        let answer = chat(&gateway, authorization, "m").await;
        assert_eq!(answer.status, 429);
        let error = &answer.json()["error"];
        assert_eq!(
            (&error["type"], &error["code"]),
            (&json!("rate_limit_error"), &json!("rate_limit_exceeded"))
        );
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
    }
    assert_eq!(provider.peer.requests().len(), 4);
}

#[tokio::test]
async fn a_loopback_listener_behind_a_public_name_is_not_local() {
    let provider = FakeProvider::answering(|_| text("hi")).await;
    let gateway = Gateway::configured(&provider, |settings| {
        settings.public_url = Some("https://gateway.example".into());
        settings.providers[0].api_key = Some(Secret::new("provider-key"));
    })
    .await;
    assert_eq!(chat(&gateway, "", "m").await.status, 401);
    assert_eq!(chat(&gateway, "Bearer sk-mine", "m").await.status, 200);
    assert_eq!(provider.peer.only_request().header("authorization"), Some("Bearer sk-mine"));
}

#[tokio::test]
async fn a_caller_s_key_is_not_shown_to_providers_to_find_out_whose_it_is() {
    let provider = FakeProvider::answering(|_| text("hi")).await;
    let gateway = shared(&provider, |settings| {
        for entry in &mut settings.providers {
            entry.models = None;
        }
    })
    .await;
    let answer = chat(&gateway, "Bearer sk-mine", "some-model").await;
    assert_eq!(answer.status, 404, "{}", answer.text());
    let headers = [("authorization", "Bearer sk-mine"), ("api-key", PROJECT_KEY)];
    gateway.client.send("GET", "/v1/models", &headers, "").await;
    assert_eq!(provider.peer.requests().len(), 0, "nobody was asked");
    gateway
        .client
        .post("/v1/chat/completions", &headers, &with(ask(&[]), json!({ "model": "fake/m" })))
        .await;
    assert_eq!(provider.peer.only_request().header("authorization"), Some("Bearer sk-mine"));
    assert_eq!(provider.peer.only_request().header("api-key"), None, "a key of this gateway stays here");
}

#[tokio::test]
async fn local_mode_does_not_serve_what_a_proxy_sends_on() {
    let provider = FakeProvider::answering(|_| text("hi")).await;
    let local = Gateway::with(&provider).await;
    let traces = [
        ("forwarded", "for=203.0.113.7"),
        ("x-forwarded-for", "203.0.113.7"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "127.0.0.1"),
        ("x-real-ip", "127.0.0.1"),
        ("via", "1.1 proxy"),
    ];
    for trace in traces {
        for path in
            ["/v1/chat/completions", "/v1/connections/check", "/connect/x", "/connections", "/metrics"]
        {
            let answer = local.client.post(path, &[trace], &ask(&[])).await;
            assert_eq!(answer.status, 403, "{trace:?} {path}");
            let error = answer.json()["error"].clone();
            assert_eq!(error["code"], "not_local");
            let message = error["message"].as_str().unwrap();
            assert!(message.contains(trace.0) && message.contains("public_url"), "{message}");
        }
    }
    assert_eq!(provider.peer.requests().len(), 0);
    let shared = shared(&provider, |_| {}).await;
    let key = bearer(PROJECT_KEY);
    for trace in traces {
        let headers = [("authorization", key.as_str()), trace];
        let answer = shared.client.post("/v1/chat/completions", &headers, &ask(&[])).await;
        assert_eq!(answer.status, 200, "behind a proxy there is a key: {}", answer.text());
    }
}

#[tokio::test]
async fn a_user_that_cannot_be_read_is_not_taken_for_nobody() {
    let provider = FakeProvider::answering(|_| text("hi")).await;
    let mcp = Protected::start(vec![FakeTool::echo("t")]).await;
    let gateway = Gateway::with(&provider).await;
    for headers in [
        vec![("x-toolgate-user", "jos\u{e9}")],
        vec![("x-toolgate-user", "ann"), ("x-toolgate-user", "bob")],
        vec![("x-toolgate-user", ""), ("x-toolgate-user", "bob")],
    ] {
        for body in [ask(&[mcp.entry("s")]), with(ask(&[mcp.entry("s")]), json!({ "user": "ann" }))] {
            let answer = gateway.client.post("/v1/chat/completions", &headers, &body).await;
            assert_eq!(answer.status, 400, "{headers:?}: {}", answer.text());
            assert_eq!(answer.json()["error"]["param"], "X-Toolgate-User");
        }
    }
    let profile = [("x-toolgate-profile", "caf\u{e9}")];
    let answer = gateway.client.post("/v1/chat/completions", &profile, &ask(&[mcp.entry("s")])).await;
    assert_eq!((answer.status, answer.json()["error"]["param"].as_str()), (400, Some("x-toolgate-profile")));
    let credential = [("x-mcp-authorization", "s\u{e9}cret")];
    let answer = gateway.client.post("/v1/chat/completions", &credential, &ask(&[mcp.entry("s")])).await;
    assert_eq!((answer.status, answer.json()["error"]["param"].as_str()), (400, Some("x-mcp-authorization")));
    assert_eq!(mcp.peer.requests().len(), 0, "nobody was asked for anybody");
}

#[tokio::test]
async fn callers_that_nobody_vouches_for_share_what_they_may_start() {
    let provider = FakeProvider::answering(|_| text("hi")).await;
    let mcp = Protected::start(vec![FakeTool::echo("t")]).await;
    let gateway = shared(&provider, |settings| {
        settings.pass_through.logins_per_minute = 1;
        settings.pass_through.logins = PassThroughLogins::On;
        settings.egress.allow.push(EgressAllow {
            host: Some("127.0.0.1".into()),
            cidr: Some("127.0.0.0/8".parse().unwrap()),
            ports: Vec::new(),
        });
    })
    .await;
    let body = with(ask(&[mcp.entry("s")]), json!({ "user": "ann" }));
    let ask_as = async |key: &str, path: &str, body: &serde_json::Value| {
        gateway.client.post(path, &[("authorization", &bearer(key))], body).await
    };
    let first = ask_as("sk-1", "/v1/chat/completions", &body).await;
    assert_eq!(first.status, 200, "{}", first.text());
    assert!(first.json()["toolgate"]["authorization_required"][0]["connect_url"].is_string());
    let wanted = json!({ "user": "ann", "server_url": mcp.url() });
    let urls = json!({ "user": "ann", "urls": [mcp.url()] });
    let asked = mcp.peer.requests().len();
    for (key, path, body) in [
        ("sk-fresh", "/v1/chat/completions", &body),
        ("sk-fresher", "/v1/connections", &wanted),
        ("sk-freshest", "/v1/connections/check", &urls),
    ] {
        let answer = ask_as(key, path, body).await;
        assert_eq!(answer.status, 429, "{key} {path}: {}", answer.text());
        assert_eq!(answer.json()["error"]["code"], "rate_limit_exceeded");
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
    }
    let questions = mcp.peer.requests().split_off(asked);
    assert!(questions.iter().all(|request| request.path.starts_with("/mcp")), "nothing was looked up");
    for (path, body) in
        [("/v1/chat/completions", &body), ("/v1/connections", &wanted), ("/v1/connections/check", &urls)]
    {
        let answer = ask_as("sk-1", path, body).await;
        assert!(answer.status < 300, "who joins what was begun is not counted: {path}: {}", answer.text());
    }
    let more = json!({ "user": "ann", "server_url": mcp.url(), "scopes": ["files:write"] });
    let answer = ask_as("sk-1", "/v1/connections", &more).await;
    assert_eq!(answer.status, 429, "for more it is another login: {}", answer.text());
    let mut optional = body.clone();
    optional["tools"][0]["optional"] = true.into();
    let answer = ask_as("sk-fresh", "/v1/chat/completions", &optional).await;
    assert_eq!(answer.json()["toolgate"]["notices"][0]["code"], "login_unknown", "{}", answer.text());
    let known = ask_as(PROJECT_KEY, "/v1/chat/completions", &body).await;
    assert!(
        known.json()["toolgate"]["authorization_required"][0]["connect_url"].is_string(),
        "{}",
        known.text()
    );
}

#[tokio::test]
async fn one_place_cannot_use_up_the_logins_of_all_callers_that_nobody_vouches_for() {
    let provider = FakeProvider::answering(|_| text("hi")).await;
    let mcp = Protected::start(vec![FakeTool::echo("t")]).await;
    let gateway = shared(&provider, |settings| {
        settings.pass_through.logins_per_minute = 30;
        settings.pass_through.logins = PassThroughLogins::On;
        settings.egress.allow.push(EgressAllow {
            host: Some("127.0.0.1".into()),
            cidr: Some("127.0.0.0/8".parse().unwrap()),
            ports: Vec::new(),
        });
    })
    .await;
    let body = with(ask(&[mcp.entry("s")]), json!({ "user": "ann" }));
    let wanted = json!({ "user": "ann", "server_url": mcp.url() });
    let ask_from = async |place: &str, number: usize, path: &str| {
        let key = bearer(&format!("sk-{place}-{number}"));
        let headers = [("authorization", &*key), ("x-forwarded-for", place)];
        let body = if path == "/v1/connections" { &wanted } else { &body };
        gateway.client.post(path, &headers, body).await.status
    };
    let mut answers = Vec::new();
    for number in 0..20 {
        let path = if number % 2 == 0 { "/v1/chat/completions" } else { "/v1/connections" };
        answers.push(ask_from("198.51.100.1", number, path).await);
    }
    assert_eq!(answers[..3], [200, 201, 200], "a tenth");
    assert!(answers.iter().filter(|status| **status == 429).count() >= 16, "{answers:?}");
    assert_eq!(ask_from("198.51.100.2", 0, "/v1/chat/completions").await, 200, "others are not stopped");
    assert_eq!(ask_from("198.51.100.3", 0, "/v1/connections").await, 201);
    // Whoever has many places still has no more than all together.
    let mut refused = 0;
    for number in 0..60 {
        let status = ask_from(&format!("203.0.113.{number}"), 0, "/v1/connections").await;
        refused += usize::from(status == 429);
    }
    assert!(refused >= 20, "{refused}");
}
