//! `/{provider-host}/…`: any provider by its address, with the caller's key for it.

use serde_json::json;
use toolgate::config::{AnyHostMode, ApiKey, EgressAllow};
use toolgate::crypto::ApiKeyHash;

use crate::support::{
    FakeMcp, FakeProvider, FakeTool, Gateway, Recorded, Reply, ask, calls, text, text_stream, with,
};

const KEY: [(&str, &str); 1] = [("authorization", "Bearer caller-key")];

#[tokio::test]
async fn a_completion_goes_to_the_host_with_the_caller_s_key() {
    let configured = FakeProvider::start(Vec::new()).await;
    let named = FakeProvider::start(vec![text("from the named host"), text("from the root")]).await;
    let gateway = Gateway::with(&configured).await;
    let path = format!("/{}/openai/v1/chat/completions?api-version=2", named.peer.host());
    let body = "{ \"model\" : \"any/model\",\"messages\":[{}] }";
    let answer = gateway.client.post_text(&path, &KEY, body).await;
    assert_eq!(answer.content(), "from the named host");
    let sent = named.peer.only_request();
    assert_eq!(sent.path, "/openai/v1/chat/completions?api-version=2");
    assert_eq!((sent.text().as_str(), sent.header("authorization")), (body, Some("Bearer caller-key")));
    let path = format!("/{}/chat/completions", named.peer.host());
    assert_eq!(gateway.client.post_text(&path, &KEY, body).await.content(), "from the root");
    assert_eq!(configured.peer.requests().len(), 0);
}

#[tokio::test]
async fn without_a_key_none_is_sent_and_never_the_operator_s() {
    let provider = FakeProvider::answering(|_| text("hi")).await;
    let gateway = Gateway::with(&provider).await;
    let path = format!("/{}/v1/chat/completions", provider.peer.host());
    gateway.client.post(&path, &[], &ask(&[])).await;
    assert_eq!(provider.peer.only_request().header("authorization"), None);
}

#[tokio::test]
async fn tools_work_with_every_host() {
    let configured = FakeProvider::start(Vec::new()).await;
    let named = FakeProvider::start(vec![
        calls(&[("call_1", "s_t", json!({}))]),
        text("done"),
        calls(&[("call_1", "s_t", json!({}))]),
        text_stream("done"),
    ])
    .await;
    let mcp = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let gateway = Gateway::with(&configured).await;
    let path = format!("/{}/v1/chat/completions", named.peer.host());
    for streamed in [false, true] {
        let body = with(ask(&[mcp.entry("s")]), json!({ "model": "maker/model", "stream": streamed }));
        let answer = gateway.client.post(&path, &KEY, &body).await;
        assert_eq!(answer.status, 200);
        assert!(answer.text().contains("done"));
        assert_eq!(named.last_body()["model"], "maker/model");
    }
    assert_eq!(mcp.count("tools/call"), 2);
    for request in mcp.peer.requests() {
        assert_eq!(request.header("authorization"), None, "the provider's key is not for tools");
    }
}

#[tokio::test]
async fn other_endpoints_of_the_host_are_relayed_as_they_are() {
    let configured = FakeProvider::start(Vec::new()).await;
    let named = FakeProvider::answering(|request: &Recorded| {
        let told = format!("{} {} {}", request.method, request.path, request.text());
        Reply::with_headers(201, &[("content-type", "text/plain"), ("x-kept", "1")], &told)
    })
    .await;
    let gateway = Gateway::with(&configured).await;
    for (method, path, body) in [
        ("GET", "/v1/models", ""),
        ("GET", "/v1/models?limit=2&after=a%2Fb", ""),
        ("POST", "/v1/embeddings", "{ \"input\" : 1.50 }"),
        ("POST", "/v1/files", "--boundary\r\nnot json\r\n"),
        ("DELETE", "/v1/files/f%20x", ""),
        ("PUT", "/v1/anything", "\u{0}\u{1}"),
    ] {
        let answer = {
            let path = format!("/{}{path}", named.peer.host());
            let response = gateway.client.send(method, &path, &KEY, body).await;
            crate::support::whole(response).await
        };
        assert_eq!((answer.status, answer.header("x-kept")), (201, Some("1")));
        assert_eq!(answer.text(), format!("{method} {path} {body}"));
    }
}

#[tokio::test]
async fn the_mode_decides_which_hosts_there_are() {
    let named = FakeProvider::answering(|_| text("hi")).await;
    let configured = FakeProvider::answering(|_| text("hi")).await;
    for (mode, hosts, by_name, by_configuration) in [
        (AnyHostMode::Public, vec![], 200, 200),
        (AnyHostMode::Listed, vec![], 403, 200),
        (AnyHostMode::Listed, vec![named.peer.host()], 200, 200),
        (AnyHostMode::Off, vec![named.peer.host()], 403, 403),
    ] {
        let gateway = Gateway::configured(&configured, |settings| {
            settings.any_host.mode = mode;
            settings.any_host.hosts = hosts.clone();
        })
        .await;
        for (host, expect) in [(named.peer.host(), by_name), (configured.peer.host(), by_configuration)] {
            for path in ["/v1/chat/completions", "/v1/models"] {
                let answer = gateway.client.post(&format!("/{host}{path}"), &KEY, &ask(&[])).await;
                assert_eq!(answer.status, expect, "{mode:?} {hosts:?} {host}{path}: {}", answer.text());
                if expect == 403 {
                    assert_eq!(answer.json()["error"]["code"], "host_not_allowed");
                    assert!(answer.text().contains(&host));
                }
            }
        }
    }
}

#[tokio::test]
async fn hosts_that_are_not_public_are_refused() {
    let provider = FakeProvider::start(Vec::new()).await;
    let gateway = Gateway::with(&provider).await;
    for host in [
        "10.0.0.1",
        "169.254.169.254",
        "192.168.1.1:8080",
        "[fd00::1]",
        "[::ffff:10.0.0.1]",
        "0.0.0.0",
        "example.com:22",
    ] {
        for path in ["/v1/chat/completions", "/latest/meta-data"] {
            let answer = gateway.client.post(&format!("/{host}{path}"), &KEY, &ask(&[])).await;
            assert_eq!(answer.status, 403, "{host}: {}", answer.text());
            assert_eq!(answer.json()["error"]["type"], "permission_error");
        }
    }
}

#[tokio::test]
async fn a_gateway_key_is_never_sent_to_a_host() {
    let key = "tgk_0123456789abcdefghjkmnpq";
    let named = FakeProvider::answering(|_| text("hi")).await;
    let gateway = Gateway::configured(&named, |settings| {
        settings.api_keys.push(ApiKey {
            name: "web".into(),
            project: None,
            hash: ApiKeyHash::of(key).to_string(),
            requests_per_minute: None,
            scopes: None,
        });
        settings.egress.allow.push(EgressAllow {
            host: Some("127.0.0.1".into()),
            cidr: Some("127.0.0.0/8".parse().unwrap()),
            ports: Vec::new(),
        });
    })
    .await;
    for path in ["/v1/chat/completions", "/v1/models"] {
        for key in [key, "tgk_unknownunknownunknownunk"] {
            let bearer = format!("Bearer {key}");
            let path = format!("/{}{path}", named.peer.host());
            let answer = gateway.client.post(&path, &[("authorization", &bearer)], &ask(&[])).await;
            assert_eq!(answer.status, 401, "{}", answer.text());
            assert!(!answer.text().contains(key));
        }
    }
    assert_eq!(named.peer.requests().len(), 0);
}
