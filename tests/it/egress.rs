//! The outbound policy through the whole gateway: what a request names is checked where it is dialled.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use toolgate::config::{ApiKey, EgressAllow};
use toolgate::crypto::ApiKeyHash;
use toolgate::egress::{Lookup, system_lookup};

use crate::support::{
    Answer, FakeMcp, FakeProvider, FakeTool, Gateway, Peer, Reply, ask, calls, settings, text,
};

const KEY: &str = "tgk_0123456789abcdefghjkmnpq";

/// A gateway that is not local, with this resolver.
async fn shared(provider: &FakeProvider, lookup: Lookup, allow: Vec<EgressAllow>) -> Gateway {
    let mut settings = settings(provider);
    settings.api_keys.push(ApiKey {
        name: "web".into(),
        project: None,
        hash: ApiKeyHash::of(KEY).to_string(),
        requests_per_minute: None,
        scopes: None,
    });
    settings.egress.allow = allow;
    Gateway::start(settings, lookup).await
}

/// Answers with each of these in turn, the last one for ever; and how often it was asked.
fn resolver(answers: &[SocketAddr]) -> (Lookup, Arc<AtomicUsize>) {
    let (answers, asked) = (answers.to_vec(), Arc::new(AtomicUsize::new(0)));
    let counter = Arc::clone(&asked);
    let lookup: Lookup = Arc::new(move |_, _| {
        let at = counter.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
        let answer = answers[at];
        Box::pin(async move { Ok(vec![answer]) })
    });
    (lookup, asked)
}

async fn chat(gateway: &Gateway, tools: &[Value]) -> Answer {
    let key = format!("Bearer {KEY}");
    gateway.client.post("/v1/chat/completions", &[("authorization", &key)], &ask(tools)).await
}

fn entry(url: &str) -> Value {
    json!({ "type": "mcp", "server_url": url, "server_label": "s" })
}

#[tokio::test]
async fn a_name_that_resolves_to_a_private_address_is_refused_with_field_and_reason() {
    for address in [
        "127.0.0.1:443",
        "10.0.0.1:443",
        "169.254.169.254:443",
        "[::1]:443",
        "[fd00::1]:443",
        "100.64.0.1:443",
    ] {
        let provider = FakeProvider::start(vec![text("never")]).await;
        let (lookup, _) = resolver(&[address.parse().unwrap()]);
        let gateway = shared(&provider, lookup, Vec::new()).await;
        let answer = chat(&gateway, &[entry("https://mcp.example.com/mcp")]).await;
        assert_eq!(answer.status, 400, "{address}: {}", answer.text());
        let error = &answer.json()["error"];
        assert_eq!(error["param"], "tools[0].server_url");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("mcp.example.com") && message.contains("not a public address"), "{message}");
        let ip = address.rsplit_once(':').unwrap().0.trim_matches(['[', ']']).to_owned();
        assert!(!message.contains(&ip), "who asks does not learn what is inside: {message}");
        assert_eq!(provider.peer.requests().len(), 0);
    }
}

#[tokio::test]
async fn a_name_that_is_rebound_between_check_and_dial_is_never_dialled() {
    let inside = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let provider = FakeProvider::answering(|_| text("never")).await;
    // Public when it is looked at, private afterwards, and the other way round. The public one is not routed.
    let (public, private) = ("192.0.2.1:443".parse().unwrap(), inside.peer.address);
    for answers in [[public, private], [private, public]] {
        let (lookup, asked) = resolver(&answers);
        let gateway = {
            let mut settings = settings(&provider);
            settings.egress.connect_seconds = 1;
            settings.mcp.list_seconds = 2;
            settings.public_url = Some("https://gateway.example".into());
            Gateway::start(settings, lookup).await
        };
        for _ in 0..2 {
            let headers = [("authorization", "Bearer sk-1")];
            let body = ask(&[entry("https://mcp.example.com/mcp")]);
            let answer = gateway.client.post("/v1/chat/completions", &headers, &body).await;
            assert!([400, 424].contains(&answer.status), "{}", answer.text());
        }
        assert!(asked.load(Ordering::SeqCst) >= 2, "it was asked anew for every connection");
    }
    assert_eq!(inside.peer.requests().len() + provider.peer.requests().len(), 0);
}

#[tokio::test]
async fn addresses_of_this_machine_are_refused_where_the_gateway_is_shared() {
    let inside = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let provider = FakeProvider::start(vec![text("never")]).await;
    let gateway = shared(&provider, system_lookup(), Vec::new()).await;
    let port = inside.peer.address.port();
    for host in [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "0.0.0.0",
        "2130706433",
        "0x7f.1",
        "127.1",
        "[::ffff:127.0.0.1]",
        "x.localhost",
        "127.0.0.1.",
    ] {
        for url in [format!("http://{host}:{port}/mcp"), format!("https://{host}/mcp")] {
            let answer = chat(&gateway, &[entry(&url)]).await;
            assert_eq!(answer.status, 400, "{url}: {}", answer.text());
            assert_eq!(answer.json()["error"]["param"], "tools[0].server_url");
        }
    }
    assert_eq!(inside.peer.requests().len() + provider.peer.requests().len(), 0);
}

#[tokio::test]
async fn what_the_operator_allows_is_reached_and_a_redirect_elsewhere_is_not() {
    let inside = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let hidden = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let away = hidden.url();
    let redirecting =
        Peer::start(move |_| Reply::with_headers(307, &[("location", away.as_str())], "")).await;
    let provider = FakeProvider::start(vec![calls(&[("call_1", "s_t", json!({}))]), text("done")]).await;
    let allow = vec![EgressAllow {
        host: Some("127.0.0.1".into()),
        cidr: Some("127.0.0.1/32".parse().unwrap()),
        ports: vec![inside.peer.address.port(), redirecting.address.port()],
    }];
    let gateway = shared(&provider, system_lookup(), allow).await;
    assert!(chat(&gateway, &[entry(&inside.url())]).await.content().ends_with("done"));

    let answer = chat(&gateway, &[entry(&redirecting.url("/mcp"))]).await;
    assert!([400, 424].contains(&answer.status), "{}", answer.text());
    assert!(answer.text().contains("not a public address"), "{}", answer.text());
    let answer = chat(&gateway, &[entry(&hidden.url())]).await;
    assert_eq!(answer.status, 400);
    assert_eq!(hidden.peer.requests().len(), 0);
}

#[tokio::test]
async fn a_redirect_in_the_middle_of_a_run_is_refused_too() {
    let hidden = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let target = "http://10.0.0.1/mcp";
    let tool = FakeTool::raw("t", move |_| Reply::with_headers(307, &[("location", target)], ""));
    let mcp = FakeMcp::start(vec![tool]).await;
    let provider = FakeProvider::start(vec![calls(&[("call_1", "s_t", json!({}))]), text("done")]).await;
    let gateway = Gateway::with(&provider).await;
    let answer = gateway.client.chat(&ask(&[mcp.entry("s")])).await;
    assert!(answer.content().ends_with("done"));
    let told = provider.last_said("tool")[0].as_str().unwrap().to_owned();
    assert!(told.contains("10.0.0.1"), "{told}");
    assert_eq!(hidden.peer.requests().len(), 0);
}

#[tokio::test]
async fn on_a_person_s_own_machine_a_name_on_the_internet_may_not_mean_this_machine() {
    let inside = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let provider = FakeProvider::start(vec![text("never")]).await;
    let (lookup, _) = resolver(&[inside.peer.address]);
    let gateway = Gateway::start(settings(&provider), lookup).await;
    let answer = gateway.client.chat(&ask(&[entry("https://mcp.example.com/mcp")])).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert_eq!(inside.peer.requests().len(), 0);
}

#[tokio::test]
async fn providers_of_the_configuration_may_be_anywhere_and_their_redirects_are_not_followed() {
    let away = FakeProvider::start(Vec::new()).await;
    let location = away.peer.url("/v1/chat/completions");
    let provider =
        FakeProvider::answering(move |_| Reply::with_headers(307, &[("location", location.as_str())], ""))
            .await;
    let gateway = shared(&provider, system_lookup(), Vec::new()).await;
    let answer = chat(&gateway, &[]).await;
    assert_eq!(provider.peer.requests().len(), 1);
    assert_eq!(away.peer.requests().len(), 0, "the provider's key stays at the provider: {}", answer.text());
}
