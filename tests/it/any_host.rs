//! `/{provider-host}/…`: any provider by its address, with the caller's key for it.

use serde_json::json;
use toolgate::config::{AnyHostMode, ApiKey, EgressAllow};
use toolgate::crypto::ApiKeyHash;

use crate::support::{
    FakeMcp, FakeProvider, FakeTool, Gateway, Recorded, Reply, ask, calls, text, text_stream, whole, with,
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
            whole(response).await
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

/// A host that answers everything with a page, and with headers that would act on whoever seems to have sent it.
async fn evil_host() -> FakeProvider {
    FakeProvider::answering(|_| {
        let headers = [
            ("content-type", "text/html"),
            ("content-security-policy", "default-src *"),
            ("content-security-policy", "script-src *"),
            ("x-content-type-options", "none"),
            ("service-worker-allowed", "/"),
            ("clear-site-data", "\"*\""),
            ("refresh", "0; url=/connections"),
            ("set-cookie", "__Host-toolgate=theirs; Path=/; Secure"),
            ("access-control-allow-origin", "*"),
            ("access-control-allow-credentials", "true"),
            ("strict-transport-security", "max-age=1"),
            ("nel", "{}"),
            ("report-to", "{}"),
            ("x-kept", "1"),
        ];
        Reply::with_headers(200, &headers, "<script>fetch('/v1/connections')</script>")
    })
    .await
}

#[tokio::test]
async fn a_browser_is_shown_no_page_of_another_host_under_our_own_address() {
    let named = evil_host().await;
    let gateway = Gateway::with(&named).await;
    let relayed = format!("/{}/x.html", named.peer.host());
    let completions = format!("/{}/v1/chat/completions", named.peer.host());
    let embeddings = with(ask(&[]), json!({ "input": "x" })).to_string();
    for site in ["none", "same-site", "same-origin"] {
        for wanted in
            ["document", "iframe", "script", "style", "image", "serviceworker", "worker", "object", ""]
        {
            for (method, path, body) in [
                ("GET", relayed.as_str(), String::new()),
                ("POST", &completions, ask(&[]).to_string()),
                ("POST", "/v1/chat/completions", ask(&[]).to_string()),
                ("POST", "/chat/completions", ask(&[]).to_string()),
                ("POST", "/v1/embeddings", embeddings.clone()),
            ] {
                let headers =
                    [("sec-fetch-site", site), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", wanted)];
                let answer = whole(gateway.client.send(method, path, &headers, body).await).await;
                assert_eq!(answer.status, 403, "{site} {wanted} {path}: {}", answer.text());
                assert_eq!(answer.json()["error"]["code"], "not_a_page");
                assert_eq!(answer.header("content-type"), Some("application/json"));
            }
        }
    }
    let twice = [("sec-fetch-dest", "empty"), ("sec-fetch-dest", "document")];
    assert_eq!(whole(gateway.client.send("GET", &relayed, &twice, "").await).await.status, 403);
    assert_eq!(named.peer.requests().len(), 0);
}

#[tokio::test]
async fn what_is_relayed_cannot_act_on_our_own_origin() {
    let named = evil_host().await;
    let gateway = Gateway::with(&named).await;
    let relayed = format!("/{}/x.html", named.peer.host());
    let embeddings = with(ask(&[]), json!({ "input": "x" })).to_string();
    for (method, path, body) in [
        ("GET", relayed.as_str(), String::new()),
        ("POST", "/v1/chat/completions", ask(&[]).to_string()),
        ("POST", "/v1/embeddings", embeddings),
    ] {
        let headers = [("sec-fetch-site", "same-origin"), ("sec-fetch-dest", "empty")];
        let answer = whole(gateway.client.send(method, path, &headers, body).await).await;
        assert_eq!((answer.status, answer.header("x-kept")), (200, Some("1")), "{path}");
        let all = |name: &str| -> Vec<String> {
            answer.headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
        };
        assert_eq!(all("content-security-policy"), ["sandbox"], "{path}");
        assert_eq!(all("x-content-type-options"), ["nosniff"], "{path}");
        for gone in [
            "service-worker-allowed",
            "clear-site-data",
            "refresh",
            "set-cookie",
            "access-control-allow-origin",
            "access-control-allow-credentials",
            "strict-transport-security",
            "nel",
            "report-to",
        ] {
            assert_eq!(answer.header(gone), None, "{path}");
        }
    }
}
