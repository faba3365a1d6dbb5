//! `on_auth: "wait"`: the link first, then the answer in the same request.

use serde_json::{Value, json};

use crate::support::{
    FakeProvider, FakeTool, Gateway, PATIENCE, Peer, Person, Place, Protected, Reply, ask, calls_stream,
    text, text_stream, with,
};

fn waiting(mcp: &Protected, options: Value) -> Value {
    let mut all = json!({ "on_auth": "wait" });
    all.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    with(ask(&[mcp.entry("s")]), json!({ "user": "ann", "toolgate": all }))
}

fn is(event: &'static str) -> impl Fn(&Value) -> bool {
    move |chunk| chunk["toolgate"]["event"] == event
}

/// The link that a request which does not wait is shown: the same as that of one that does.
async fn link(gateway: &Gateway, mcp: &Protected) -> String {
    let body = with(ask(&[mcp.entry("s")]), json!({ "user": "ann" }));
    let answer = gateway.client.chat(&body).await.json();
    answer["toolgate"]["authorization_required"][0]["connect_url"].as_str().expect("a link").to_owned()
}

#[tokio::test]
async fn the_link_comes_first_and_after_the_click_the_answer_in_the_same_stream() {
    let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
    let script = vec![calls_stream(&[("call_1", "s_t", json!({}))]), text_stream("done")];
    let provider = FakeProvider::start(script).await;
    let gateway = Gateway::with(&provider).await;
    let mut stream = gateway.client.stream(&waiting(&mcp, json!({}))).await;
    let chunk = stream.until(is("authorization_required")).await;
    let url = chunk["toolgate"]["connect_url"].as_str().unwrap().to_owned();
    let chunk = stream.until(is("waiting")).await;
    assert_eq!(chunk["toolgate"]["seconds"], 120);
    assert_eq!(provider.peer.requests().len(), 0, "no provider is held meanwhile");
    Person::new().log_in(&url).await;
    stream.until(is("authorized")).await;
    let stream = stream.read_to_end().await;
    assert!(stream.content().ends_with("done"), "{}", stream.content());
    assert_eq!(stream.finish_reason(), Some("stop"));
    assert_eq!(provider.last_said("tool"), ["x"]);
}

#[tokio::test]
async fn a_whole_answer_that_waited_does_not_mention_the_login() {
    let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
    let provider = FakeProvider::answering(|_| text("done")).await;
    let gateway = Gateway::with(&provider).await;
    let app = Peer::start(|_| Reply::with_headers(204, &[], "")).await;
    let body = waiting(&mcp, json!({ "wait_seconds": 300, "authorization_callback_url": app.url("/hook") }));
    let client = gateway.client.clone();
    let answer = tokio::spawn(async move { client.chat(&body).await });
    // The request itself has asked for the login that is told of here.
    app.until_requests(1).await;
    let told = app.requests()[0].json();
    assert_eq!(provider.peer.requests().len(), 0);
    Person::new().log_in(told["data"]["url"].as_str().unwrap()).await;
    let answer = answer.await.unwrap();
    assert_eq!(answer.content(), "done");
    assert_eq!(answer.json()["toolgate"]["authorization_required"], json!([]));
}

#[tokio::test]
async fn a_login_that_is_declined_ends_the_wait_for_those_before_it_too() {
    let one = Protected::start(vec![FakeTool::text("t", "x")]).await;
    let two = Protected::start(vec![FakeTool::text("t", "x")]).await;
    let provider = FakeProvider::answering(|_| text("never")).await;
    let gateway = Gateway::with(&provider).await;
    let options = json!({ "user": "ann", "toolgate": { "on_auth": "wait", "wait_seconds": 300 } });
    let body = with(ask(&[one.entry("one"), two.entry("two")]), options);
    let mut stream = gateway.client.stream(&body).await;
    stream.until(is("waiting")).await;
    let links: Vec<(String, String)> = stream
        .events("authorization_required")
        .iter()
        .map(|event| {
            (event["host"].as_str().unwrap().to_owned(), event["connect_url"].as_str().unwrap().to_owned())
        })
        .collect();
    assert_eq!(
        links.iter().map(|(host, _)| host.as_str()).collect::<Vec<_>>(),
        [one.peer.host(), two.peer.host()]
    );
    Person::new().decline(&links[1].1).await;
    let stream =
        tokio::time::timeout(PATIENCE, stream.read_to_end()).await.expect("nobody waits for the first");
    assert_eq!(stream.events("notice")[0]["code"], "login_ended");
    assert_eq!(provider.peer.requests().len(), 0);
}

#[tokio::test]
async fn a_link_lasts_as_long_as_its_login_is_waited_for() {
    let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
    let provider = FakeProvider::answering(|_| text("never")).await;
    let place = Place::new().await;
    let gateway = Gateway::configured(&provider, |settings| place.give_to(settings)).await;
    let first = link(&gateway, &mcp).await;
    let store = place.store().await;
    let shorter = "UPDATE flows SET expires_at = expires_at - 500000";
    assert_eq!(store.execute(shorter, Vec::new()).await.unwrap(), 1);
    store.close().await;
    let shown = async |seconds: u32| {
        let mut stream = gateway.client.stream(&waiting(&mcp, json!({ "wait_seconds": seconds }))).await;
        let event = stream.until(is("authorization_required")).await["toolgate"].clone();
        (event["connect_url"].as_str().unwrap().to_owned(), event["expires_at"].as_i64().unwrap())
    };
    assert_eq!(link(&gateway, &mcp).await, first, "it lasts for a minute still");
    assert_eq!(shown(30).await.0, first, "and for half of one");
    let now = toolgate::clock::Clock::system().unix_milliseconds() / 1000;
    let (longer, until) = shown(300).await;
    assert_ne!(longer, first);
    assert!(until >= now + 300, "{until} {now}");
    assert_eq!(link(&gateway, &mcp).await, longer, "the newer one is everybody's");
}

#[tokio::test]
async fn when_the_time_is_up_it_is_the_answer_with_the_link() {
    let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
    let provider = FakeProvider::answering(|_| text("never")).await;
    let gateway = Gateway::with(&provider).await;
    let body = waiting(&mcp, json!({ "wait_seconds": 1 }));
    let answer = gateway.client.chat(&body).await;
    let url = answer.json()["toolgate"]["authorization_required"][0]["connect_url"].clone();
    assert!(answer.content().contains(url.as_str().unwrap()), "{}", answer.content());
    assert_eq!(answer.json()["toolgate"]["notices"][0]["code"], "login_timed_out");
    let stream = gateway.client.stream(&body).await.read_to_end().await;
    assert_eq!(stream.events("authorization_required")[0]["connect_url"], url);
    assert_eq!(stream.events("notice")[0]["code"], "login_timed_out");
    assert_eq!(provider.peer.requests().len(), 0);
}

#[tokio::test]
async fn a_declined_login_ends_the_wait_and_says_so() {
    for at_the_gateway in [true, false] {
        let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
        let provider = FakeProvider::answering(|_| text("never")).await;
        let gateway = Gateway::with(&provider).await;
        let mut stream = gateway.client.stream(&waiting(&mcp, json!({}))).await;
        let chunk = stream.until(is("authorization_required")).await;
        let url = chunk["toolgate"]["connect_url"].as_str().unwrap().to_owned();
        stream.until(is("waiting")).await;
        if at_the_gateway {
            Person::new().decline(&url).await;
        } else {
            mcp.decline();
            Person::new().log_in(&url).await;
        }
        let stream = stream.read_to_end().await;
        assert_eq!(stream.events("notice")[0]["code"], "login_ended", "{at_the_gateway}");
        assert_eq!(provider.peer.requests().len(), 0);
    }
}

#[tokio::test]
async fn stopping_turns_a_held_request_into_the_answer_with_the_link() {
    let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
    let provider = FakeProvider::answering(|_| text("never")).await;
    let mut gateway = Gateway::with(&provider).await;
    let mut stream = gateway.client.stream(&waiting(&mcp, json!({}))).await;
    stream.until(is("waiting")).await;
    gateway.begin_stop();
    let stream = stream.read_to_end().await;
    assert_eq!(stream.events("notice")[0]["code"], "gateway_stopping");
    assert!(stream.content().contains("/connect/"));
    gateway.stop().await;
}

#[tokio::test]
async fn a_login_that_ends_in_the_middle_is_waited_for_there() {
    let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
    let ending = mcp.clone();
    let provider = FakeProvider::answering(move |request| {
        let body = request.json();
        if body["messages"].as_array().unwrap().iter().any(|message| message["role"] == "tool") {
            return text_stream("done");
        }
        ending.end_grants();
        calls_stream(&[("call_1", "s_t", json!({})), ("call_2", "s_t", json!({}))])
    })
    .await;
    let gateway = Gateway::with(&provider).await;
    Person::new().log_in(&link(&gateway, &mcp).await).await;
    let mut stream = gateway.client.stream(&waiting(&mcp, json!({}))).await;
    let chunk = stream.until(is("authorization_required")).await;
    let url = chunk["toolgate"]["connect_url"].as_str().unwrap().to_owned();
    stream.until(is("waiting")).await;
    Person::new().log_in(&url).await;
    let stream = stream.read_to_end().await;
    assert!(stream.content().ends_with("done"), "{}", stream.content());
    assert_eq!(stream.events("authorization_required").len(), 1, "both calls share one link");
    assert_eq!(provider.last_said("tool"), ["x", "x"], "both calls were repeated");
}

#[tokio::test]
async fn a_server_that_lists_its_tools_to_everybody_is_waited_for_at_the_first_call() {
    let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
    mcp.guard_only(&["t"]);
    let script = vec![calls_stream(&[("call_1", "s_t", json!({}))]), text_stream("done")];
    let provider = FakeProvider::start(script).await;
    let gateway = Gateway::with(&provider).await;
    let mut stream = gateway.client.stream(&waiting(&mcp, json!({}))).await;
    let chunk = stream.until(is("authorization_required")).await;
    let url = chunk["toolgate"]["connect_url"].as_str().unwrap().to_owned();
    stream.until(is("waiting")).await;
    Person::new().log_in(&url).await;
    stream.until(is("authorized")).await;
    let stream = stream.read_to_end().await;
    assert!(stream.content().ends_with("done"), "{}", stream.content());
    assert_eq!(provider.last_said("tool"), ["x"]);
    assert_eq!(mcp.callers().len(), 2, "refused once, and made once with the login");
}

#[tokio::test]
async fn a_held_stream_is_kept_alive() {
    let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
    let provider = FakeProvider::answering(|_| text("never")).await;
    let gateway = Gateway::configured(&provider, |settings| settings.run.keep_alive_seconds = 1).await;
    let mut stream = gateway.client.stream(&waiting(&mcp, json!({}))).await;
    stream.until(is("waiting")).await;
    stream.until_comment().await;
}

#[tokio::test]
async fn many_requests_that_wait_for_one_login_all_go_on() {
    let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
    let provider = FakeProvider::answering(|_| text_stream("done")).await;
    let gateway = Gateway::with(&provider).await;
    let mut streams = Vec::new();
    let mut url = String::new();
    for _ in 0..20 {
        let mut stream = gateway.client.stream(&waiting(&mcp, json!({}))).await;
        let chunk = stream.until(is("authorization_required")).await;
        url = chunk["toolgate"]["connect_url"].as_str().unwrap().to_owned();
        stream.until(is("waiting")).await;
        streams.push(stream);
    }
    Person::new().log_in(&url).await;
    for stream in streams {
        assert!(stream.read_to_end().await.content().ends_with("done"));
    }
}
