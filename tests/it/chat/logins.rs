//! Logins by link: missing ones, those that are there, and those that end in the middle of a run.

use serde_json::{Value, json};
use toolgate::config::{ApiKey, EgressAllow};
use toolgate::crypto::ApiKeyHash;

use crate::support::{
    Answer, FakeMcp, FakeProvider, FakeTool, Gateway, Person, Place, Protected, Reply, ask, calls, text,
    whole, with,
};

/// A provider that calls `function` once, after `before` has run, and then says `done`.
async fn calling(function: &'static str, before: impl Fn() + Send + Sync + 'static) -> FakeProvider {
    FakeProvider::answering(move |request| {
        let body = request.json();
        let answered = body["messages"].as_array().unwrap().iter().any(|message| message["role"] == "tool");
        if answered {
            return text("done");
        }
        before();
        calls(&[("call_1", function, json!({}))])
    })
    .await
}

fn link(answer: &Answer) -> String {
    let json = answer.json();
    let required = &json["toolgate"]["authorization_required"];
    assert_eq!(required.as_array().map(Vec::len), Some(1), "{json}");
    required[0]["connect_url"].as_str().expect("a link").to_owned()
}

/// The body for `user`, with these gateway options.
fn of(user: &str, tools: &[Value], options: Value) -> Value {
    with(ask(tools), json!({ "user": user, "toolgate": options }))
}

/// Logs `user` in for the server at `entry`.
async fn logged_in(gateway: &Gateway, user: &str, entry: &Value) {
    let answer = gateway.client.chat(&of(user, std::slice::from_ref(entry), json!({}))).await;
    let page = Person::new().log_in(&link(&answer)).await;
    assert_eq!(page.status, 200, "{}", page.text);
}

#[tokio::test]
async fn after_the_click_the_same_request_runs_with_the_users_tools() {
    let mcp = Protected::start(vec![FakeTool::text("t", "secret of ann")]).await;
    let provider = calling("s_t", || ()).await;
    let gateway = Gateway::with(&provider).await;
    let body = of("ann", &[mcp.entry("s")], json!({}));

    let answer = gateway.client.chat(&body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let required = answer.json()["toolgate"]["authorization_required"][0].clone();
    let url = required["connect_url"].as_str().unwrap();
    assert!(url.starts_with(&format!("http://{}/connect/", gateway.address)), "{url}");
    assert_eq!((&required["resource"], &required["host"]), (&json!(mcp.url()), &json!(mcp.peer.host())));
    assert_eq!((&required["scopes"], &required["kind"]), (&json!(["files:read"]), &json!("connection")));
    assert!(required["expires_at"].as_i64().unwrap() > 1_700_000_000);
    assert!(answer.content().contains(&format!("[{}]({url})", mcp.peer.host())), "{}", answer.content());
    assert_eq!(provider.peer.requests().len(), 0, "nothing was sent to the model");

    let again = gateway.client.chat(&body).await;
    assert_eq!(link(&again), url, "the same login is not started twice");
    let page = Person::new().log_in(url).await;
    assert_eq!(page.status, 200, "{}", page.text);

    let answer = gateway.client.chat(&body).await;
    assert!(answer.content().ends_with("done"), "{}", answer.text());
    assert_eq!(provider.last_said("tool"), ["secret of ann"]);
    assert_eq!(answer.json()["toolgate"]["authorization_required"], json!([]));
}

#[tokio::test]
async fn all_missing_logins_come_at_once_with_one_link_for_all() {
    let one = Protected::start(vec![FakeTool::echo("t")]).await;
    let two = Protected::start(vec![FakeTool::echo("t")]).await;
    let open = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let provider = FakeProvider::answering(|_| text("hello")).await;
    let gateway = Gateway::with(&provider).await;
    let body = of("ann", &[one.entry("one"), open.entry("open"), two.entry("two")], json!({}));
    let answer = gateway.client.chat(&body).await;
    let json = answer.json();
    assert_eq!(json["toolgate"]["authorization_required"].as_array().unwrap().len(), 2);
    let all = json["toolgate"]["connect_all_url"].as_str().expect("a link for both").to_owned();
    assert!(answer.content().contains(&all), "{}", answer.content());
    assert_eq!(provider.peer.requests().len(), 0);

    let stream = gateway.client.stream(&body).await.read_to_end().await;
    assert_eq!(stream.events("authorization_required").len(), 2);
    assert_eq!(stream.events("authorization_batch").len(), 1);

    Person::new().log_in(&all).await;
    let answer = gateway.client.chat(&body).await;
    assert_eq!(answer.content(), "hello", "{}", answer.text());
}

#[tokio::test]
async fn fail_is_a_401_with_the_links() {
    let mcp = Protected::start(vec![FakeTool::echo("t")]).await;
    let provider = FakeProvider::answering(|_| text("never")).await;
    let gateway = Gateway::with(&provider).await;
    for streamed in [false, true] {
        let body = of("ann", &[mcp.entry("s")], json!({ "on_auth": "fail" }));
        let answer = gateway.client.chat(&with(body, json!({ "stream": streamed }))).await;
        assert_eq!(answer.status, 401);
        let url = answer.json()["error"]["providers"][0]["login_url"].as_str().unwrap().to_owned();
        assert!(url.contains("/connect/"));
        assert_eq!(answer.header("x-login-url"), Some(url.as_str()));
        assert!(answer.header("www-authenticate").unwrap().contains("authentication_required"));
    }
    assert_eq!(provider.peer.requests().len(), 0);
}

#[tokio::test]
async fn a_login_serves_its_own_user_and_profile_only() {
    let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
    let provider = calling("s_t", || ()).await;
    let gateway = Gateway::with(&provider).await;
    logged_in(&gateway, "ann", &mcp.entry("s")).await;
    for other in [
        of("bob", &[mcp.entry("s")], json!({})),
        of("ann", &[mcp.entry("s")], json!({ "profile": "work" })),
        of("ANN", &[mcp.entry("s")], json!({})),
        of("ann ", &[mcp.entry("s")], json!({})),
        with(ask(&[mcp.entry("s")]), json!({})),
    ] {
        link(&gateway.client.chat(&other).await);
    }
    assert_eq!(mcp.callers(), Vec::<String>::new());
    let answer = gateway.client.chat(&of("ann", &[mcp.entry("s")], json!({}))).await;
    assert!(answer.content().ends_with("done"), "{}", answer.text());
    logged_in(&gateway, "bob", &mcp.entry("s")).await;
    gateway.client.chat(&of("bob", &[mcp.entry("s")], json!({}))).await;
    let callers = mcp.callers();
    assert_eq!(callers.len(), 2);
    assert_ne!(callers[0], callers[1], "each with the own token");
}

#[tokio::test]
async fn a_token_goes_only_to_the_resource_it_is_for() {
    let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
    let other = FakeMcp::start(vec![FakeTool::text("t", "x")]).await;
    let provider = FakeProvider::answering(|_| text("hello")).await;
    let gateway = Gateway::with(&provider).await;
    logged_in(&gateway, "ann", &mcp.entry("s")).await;
    let elsewhere = json!({ "type": "mcp", "server_url": mcp.peer.url("/mcpx"), "server_label": "x" });
    let body = of("ann", &[mcp.entry("s"), other.entry("o"), elsewhere], json!({}));
    gateway.client.chat(&body).await;
    assert!(other.peer.requests().iter().all(|request| request.header("authorization").is_none()));
    for request in mcp.peer.requests().iter().filter(|request| request.path == "/mcpx") {
        assert!(request.header("authorization").is_none(), "{request:?}");
    }
}

#[tokio::test]
async fn a_refreshed_token_keeps_the_tool_list() {
    let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
    let provider = calling("s_t", || ()).await;
    let gateway = Gateway::with(&provider).await;
    logged_in(&gateway, "ann", &mcp.entry("s")).await;
    let body = of("ann", &[mcp.entry("s")], json!({}));
    gateway.client.chat(&body).await;
    let lists = |mcp: &Protected| {
        let requests = mcp.peer.requests();
        requests.iter().filter(|request| request.json()["method"] == "tools/list").count()
    };
    let before = lists(&mcp);
    mcp.expire();
    let answer = gateway.client.chat(&body).await;
    assert!(answer.content().ends_with("done"), "{}", answer.text());
    assert_eq!(provider.last_said("tool"), ["x"], "the model does not notice");
    assert_eq!(mcp.refreshes(), 1);
    assert_eq!(lists(&mcp), before);
}

#[tokio::test]
async fn a_login_that_ends_in_the_middle_ends_the_run_with_the_link() {
    for on_auth in ["link", "fail"] {
        let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
        let ending = mcp.clone();
        let provider = calling("s_t", move || ending.end_grants()).await;
        let gateway = Gateway::with(&provider).await;
        logged_in(&gateway, "ann", &mcp.entry("s")).await;
        let body = of("ann", &[mcp.entry("s")], json!({ "on_auth": on_auth }));
        let answer = gateway.client.chat(&body).await;
        assert_eq!(provider.peer.requests().len(), 1, "the model is not asked again");
        if on_auth == "fail" {
            assert_eq!(answer.status, 401);
            assert!(answer.header("x-login-url").is_some());
            continue;
        }
        link(&answer);
        let call = &answer.json()["toolgate"]["tool_calls"][0];
        assert_eq!(call["is_error"], true, "{call}");
        assert_eq!(answer.json()["choices"][0]["finish_reason"], "stop");
    }
}

/// What a request without waiting is shown as the reason, and what the page behind its link says.
async fn reasons(gateway: &Gateway, mcp: &Protected) -> (String, String) {
    let answer = gateway.client.chat(&of("ann", &[mcp.entry("s")], json!({}))).await;
    let page = Person::new().open(&link(&answer)).await;
    let required = &answer.json()["toolgate"]["authorization_required"][0];
    (required["reason"].as_str().unwrap().to_owned(), page.text)
}

#[tokio::test]
async fn a_login_that_has_ended_is_not_called_the_first_one() {
    let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
    let provider = calling("s_t", || ()).await;
    let gateway = Gateway::with(&provider).await;
    let (reason, page) = reasons(&gateway, &mcp).await;
    assert_eq!(reason, "It wants you to log in. Then ask again.");
    assert!(!page.contains("before"), "{page}");
    logged_in(&gateway, "ann", &mcp.entry("s")).await;
    mcp.end_grants();
    // The first request finds out, the second one knows.
    for _ in 0..2 {
        let (reason, page) = reasons(&gateway, &mcp).await;
        assert_eq!(reason, "The login was withdrawn. Log in again to go on. Then ask again.");
        assert!(page.contains("that login was withdrawn since"), "{page}");
    }
    let list = whole(gateway.client.send("GET", "/v1/connections", &[], "").await).await.json();
    let path = format!("/v1/connections/{}", list["data"][0]["id"].as_str().unwrap());
    whole(gateway.client.send("DELETE", &path, &[], "").await).await;
    let (reason, _) = reasons(&gateway, &mcp).await;
    assert_eq!(reason, "It wants you to log in. Then ask again.", "who has disconnected begins anew");
}

#[tokio::test]
async fn a_login_that_has_expired_is_said_to_have() {
    let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
    let provider = calling("s_t", || ()).await;
    let place = Place::new().await;
    let again = async || Gateway::configured(&provider, |settings| place.give_to(settings)).await;
    let gateway = again().await;
    logged_in(&gateway, "ann", &mcp.entry("s")).await;
    gateway.stop().await;
    let store = place.store().await;
    let over = "UPDATE connection_secrets SET sealed_refresh = NULL, issued_at = 1, expires_at = 2";
    assert_eq!(store.execute(over, Vec::new()).await.unwrap(), 1);
    store.close().await;
    let gateway = again().await;
    for _ in 0..2 {
        let (reason, page) = reasons(&gateway, &mcp).await;
        assert_eq!(reason, "The login has expired. Log in again. Then ask again.");
        assert!(page.contains("that login has expired since"), "{page}");
    }
}

#[tokio::test]
async fn a_login_that_is_refused_again_and_again_has_words_of_its_own() {
    let refusing = FakeTool::raw("t", |_| {
        Reply::with_headers(401, &[("www-authenticate", r#"Bearer error="invalid_token""#)], "")
    });
    let mcp = Protected::start(vec![refusing]).await;
    let provider = calling("s_t", || ()).await;
    let gateway = Gateway::with(&provider).await;
    logged_in(&gateway, "ann", &mcp.entry("s")).await;
    let (reason, page) = reasons(&gateway, &mcp).await;
    assert_eq!(reason, "It does not accept the login any more. Log in again. Then ask again.");
    assert!(page.contains("The server keeps refusing the login that was given before."), "{page}");
    assert!(!page.contains("This changes what is allowed"), "{page}");
}

#[tokio::test]
async fn the_user_is_named_by_user_then_safety_identifier_then_header() {
    let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
    let provider = calling("s_t", || ()).await;
    let gateway = Gateway::with(&provider).await;
    logged_in(&gateway, "ann", &mcp.entry("s")).await;
    let is_ann = async |names: Value, header: Option<&str>| {
        let headers: Vec<(&str, &str)> = header.iter().map(|name| ("x-toolgate-user", *name)).collect();
        let body = with(ask(&[mcp.entry("s")]), names);
        let answer = gateway.client.post("/v1/chat/completions", &headers, &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.content().ends_with("done")
    };
    let [ann, bob] = [Some("ann"), Some("bob")];
    for (names, header, expected) in [
        (json!({ "user": "ann", "safety_identifier": "bob" }), bob, true),
        (json!({ "user": "bob", "safety_identifier": "ann" }), ann, false),
        (json!({ "safety_identifier": "ann" }), bob, true),
        (json!({ "safety_identifier": "bob" }), ann, false),
        (json!({ "user": "", "safety_identifier": "ann" }), bob, true),
        (json!({ "user": null, "safety_identifier": "" }), ann, true),
        (json!({}), ann, true),
        (json!({}), bob, false),
        // At one's own machine one is `local` then.
        (json!({}), None, false),
    ] {
        assert_eq!(is_ann(names.clone(), header).await, expected, "{names} {header:?}");
    }
    for (names, param) in
        [(json!({ "user": 7 }), "user"), (json!({ "safety_identifier": ["ann"] }), "safety_identifier")]
    {
        let refused = gateway.client.chat(&with(ask(&[mcp.entry("s")]), names)).await;
        assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!(param)));
    }
}

#[tokio::test]
async fn calls_of_one_turn_that_want_the_same_login_share_one_link() {
    let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
    let ending = mcp.clone();
    let provider = FakeProvider::answering(move |_| {
        ending.end_grants();
        let call = |id| (id, "s_t", json!({}));
        calls(&[call("call_1"), call("call_2"), call("call_3")])
    })
    .await;
    let gateway = Gateway::with(&provider).await;
    logged_in(&gateway, "ann", &mcp.entry("s")).await;
    let stream_body = of("ann", &[mcp.entry("s")], json!({}));
    let answer = gateway.client.chat(&stream_body).await;
    link(&answer);
    assert_eq!(answer.json()["toolgate"]["tool_calls"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_tool_that_wants_more_permissions_asks_for_them_together_with_the_old() {
    let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
    mcp.want("t", "files:write");
    let provider = calling("s_t", || ()).await;
    let gateway = Gateway::with(&provider).await;
    logged_in(&gateway, "ann", &mcp.entry("s")).await;
    let body = of("ann", &[mcp.entry("s")], json!({}));
    let answer = gateway.client.chat(&body).await;
    let required = answer.json()["toolgate"]["authorization_required"][0].clone();
    let mut scopes: Vec<&str> =
        required["scopes"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    scopes.sort_unstable();
    assert_eq!(scopes, ["files:read", "files:write"]);
    Person::new().log_in(&link(&answer)).await;
    let answer = gateway.client.chat(&body).await;
    assert!(answer.content().ends_with("done"), "{}", answer.text());
}

#[tokio::test]
async fn permissions_that_are_never_enough_do_not_loop() {
    let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
    let provider = FakeProvider::answering(|_| calls(&[("call_1", "s_t", json!({}))])).await;
    let gateway = Gateway::with(&provider).await;
    logged_in(&gateway, "ann", &mcp.entry("s")).await;
    // Never granted, whatever is asked for.
    mcp.want("t", "no such scope");
    let body = of("ann", &[mcp.entry("s")], json!({}));
    let answer = gateway.client.chat(&body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(mcp.callers().len() <= 3, "{:?}", mcp.callers());
}

const PROJECT_KEY: &str = "tgk_0123456789abcdefghjkmnpq";

#[tokio::test]
async fn a_project_that_names_no_user_is_told_so() {
    let mcp = Protected::start(vec![FakeTool::echo("t")]).await;
    let open = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let provider = FakeProvider::answering(|_| text("hello")).await;
    let gateway = Gateway::configured(&provider, |settings| {
        let loopback = "127.0.0.0/8".parse().unwrap();
        settings.egress.allow.push(EgressAllow { cidr: Some(loopback), ..EgressAllow::default() });
        settings.api_keys.push(ApiKey {
            name: "web".into(),
            project: Some("shop".into()),
            hash: ApiKeyHash::of(PROJECT_KEY).to_string(),
            requests_per_minute: None,
            scopes: None,
        });
    })
    .await;
    let bearer = format!("Bearer {PROJECT_KEY}");
    let headers = [("authorization", bearer.as_str())];
    let post = async |body: &Value| gateway.client.post("/v1/chat/completions", &headers, body).await;
    for empty in [json!({}), json!({ "user": "" }), json!({ "user": null })] {
        let refused = post(&with(ask(&[open.entry("o"), mcp.entry("s")]), empty)).await;
        assert_eq!(refused.status, 400, "{}", refused.text());
        let error = &refused.json()["error"];
        assert_eq!((&error["code"], &error["param"]), (&json!("user_required"), &json!("user")));
        assert!(error["message"].as_str().unwrap().contains(&mcp.peer.host()), "{error}");
    }
    assert_eq!(post(&ask(&[open.entry("o")])).await.status, 200, "no login is needed there");
    let optional = with(mcp.entry("s"), json!({ "optional": true }));
    let answer = post(&ask(&[optional])).await;
    assert!(answer.content().contains("names no user"), "{}", answer.text());
    link(&post(&with(ask(&[mcp.entry("s")]), json!({ "user": "ann" }))).await);
}

#[tokio::test]
async fn a_server_whose_login_cannot_be_offered_says_why_and_what_to_send() {
    let provider = FakeProvider::answering(|_| text("never")).await;
    let mcp = FakeMcp::guarded(vec![FakeTool::echo("t")], "Bearer x").await;
    let gateway = Gateway::with(&provider).await;
    let answer = gateway.client.chat(&of("ann", &[mcp.entry("s")], json!({}))).await;
    let required = &answer.json()["toolgate"]["authorization_required"][0];
    assert_eq!(required["connect_url"], Value::Null);
    assert!(required["reason"].as_str().unwrap().contains("authorization"), "{required}");
}

#[tokio::test]
async fn a_server_that_lists_its_tools_to_everybody_wants_the_login_at_the_first_call() {
    let mcp = Protected::start(vec![FakeTool::text("t", "secret of ann"), FakeTool::text("free", "x")]).await;
    mcp.guard_only(&["t"]);
    let provider = calling("s_t", || ()).await;
    let gateway = Gateway::with(&provider).await;
    let body = of("ann", &[mcp.entry("s")], json!({}));
    let answer = gateway.client.chat(&body).await;
    let page = Person::new().log_in(&link(&answer)).await;
    assert_eq!(page.status, 200, "{}", page.text);
    assert_eq!(provider.peer.requests().len(), 1, "the model was asked, and is not told of the link");
    let answer = gateway.client.chat(&body).await;
    assert!(answer.content().ends_with("done"), "{}", answer.text());
    assert_eq!(provider.last_said("tool"), ["secret of ann"]);
    assert_eq!(answer.json()["toolgate"]["authorization_required"], json!([]));
}

#[tokio::test]
async fn tools_that_are_open_to_everybody_need_no_login_at_a_server_that_has_one() {
    let mcp = Protected::start(vec![FakeTool::text("t", "secret of ann"), FakeTool::text("free", "x")]).await;
    mcp.guard_only(&["t"]);
    let provider = calling("s_free", || ()).await;
    let gateway = Gateway::with(&provider).await;
    let answer = gateway.client.chat(&of("ann", &[mcp.entry("s")], json!({}))).await;
    assert!(answer.content().ends_with("done"), "{}", answer.text());
    assert_eq!(answer.json()["toolgate"]["authorization_required"], json!([]));
}
