//! What strangers write on pages of runs, and what strangers' pages send.

use serde_json::json;

use super::pages::{finished, start};
use crate::support::{
    Browser, FakeMcp, FakeProvider, FakeTool, Gateway, Reply, Stream, calls_stream, fields_of, text_stream,
};

const HOSTILE: &str = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'></title></textarea><!-- [a](javascript:alert(1)) ![b](https://evil.example/p.png) {{7*7}}\u{202e}";

/// Nothing of a stranger's is a tag, an attribute or an address that runs.
fn assert_harmless(html: &str, what: &str) {
    let lower = html.to_ascii_lowercase();
    let ours =
        ["<script src=\"/static/run.js\" defer></script>", "<script src=\"/static/try.js\" defer></script>"];
    let lower = ours.iter().fold(lower, |text, script| text.replace(script, ""));
    for forbidden in
        ["<script", "<img", "<iframe", "<svg", "<!--", "href=\"javascript:", "href=\"data:", "\u{202e}"]
    {
        assert!(!lower.contains(forbidden), "{what}: {forbidden}: {html}");
    }
    // Inside tags, outside quotes: no handler.
    for tag in lower.split('<').skip(1).filter_map(|rest| rest.split('>').next()) {
        let outside: String = tag.split('"').step_by(2).collect();
        assert!(!outside.contains(" on") && !outside.contains('\''), "{what}: <{tag}>");
    }
    assert_eq!(lower.matches("<title>").count(), lower.matches("</title>").count(), "{what}");
}

#[tokio::test]
async fn nothing_that_a_model_a_tool_or_a_person_says_becomes_markup() {
    let tools = vec![
        FakeTool::text("t", HOSTILE),
        FakeTool::raw("f", |_| Reply::Json(500, json!({ "error": { "message": HOSTILE } }))),
    ];
    let mcp = FakeMcp::start(tools).await;
    let arguments = json!({ HOSTILE: HOSTILE });
    let replies = vec![
        calls_stream(&[
            ("c1", "server_t", arguments.clone()),
            ("c2", "server_f", arguments),
            ("c3", HOSTILE, json!({})),
        ]),
        text_stream(&format!(
            "{HOSTILE}\n\n# {HOSTILE}\n\n```{HOSTILE}\n{HOSTILE}\n```\n\n| {HOSTILE} |\n|-|\n| {HOSTILE} |"
        )),
        Reply::Json(400, json!({ "error": { "message": HOSTILE, "code": HOSTILE, "type": HOSTILE } })),
    ];
    let provider = FakeProvider::start(replies).await;
    let gateway = Gateway::with(&provider).await;
    let mut anna = Browser::new(&gateway.client);
    for servers in [mcp.url(), String::new()] {
        let path = start(&mut anna, &[("message", HOSTILE), ("servers", &servers)]).await;
        let page = finished(&mut anna, &path).await;
        assert_harmless(&page.text(), &path);
        assert!(page.text().contains("alert(1)"), "it is shown as text");
        let mut live = Stream::new(anna.open_stream(&format!("{path}/live")).await);
        while let Some(message) = live.next().await {
            for html in message["elements"].as_array().unwrap() {
                assert_harmless(html.as_str().unwrap(), "live");
            }
            assert_harmless(message["facts"].as_str().unwrap(), "facts");
        }
        assert_harmless(&anna.visit(&format!("/?from={}", &path[1..])).await.text(), "again");
    }
    assert_harmless(&anna.visit("/runs").await.text(), "list");
    let query: String = url::form_urlencoded::byte_serialize(HOSTILE.as_bytes()).collect();
    for path in [
        format!("/runs?q={query}"),
        format!("/runs?status={query}"),
        format!("/?from={query}"),
        format!("/run_{query}"),
    ] {
        assert_harmless(&anna.visit(&path).await.text(), &path);
    }
    let form = anna.visit("/").await;
    let wrong =
        anna.submit(&form, "/", &[("model", HOSTILE), ("message", HOSTILE), ("servers", HOSTILE)]).await;
    assert_eq!(wrong.status, 400);
    assert_harmless(&wrong.text(), "form");
    let unknown =
        anna.submit(&form, "/", &[("model", HOSTILE), ("message", HOSTILE), ("from", HOSTILE)]).await;
    assert_eq!(unknown.status, 404);
    assert_harmless(&unknown.text(), "form of a run that is none");
}

#[tokio::test]
async fn strangers_pages_neither_start_nor_change_anything() {
    let provider = FakeProvider::answering(|_| text_stream("x")).await;
    let gateway = Gateway::with(&provider).await;
    let mut anna = Browser::new(&gateway.client);
    let path = start(&mut anna, &[("servers", "")]).await;
    let page = finished(&mut anna, &path).await.text();
    let before = provider.peer.requests().len();
    let fields = fields_of(&page, &format!("{path}/delete"));
    assert!(fields.iter().any(|(name, _)| name == "csrf"));
    let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let runs = format!("/runs{path}/delete");
    let attempts = [
        ("/", vec![field("model", "m"), field("message", "mine")]),
        (runs.as_str(), vec![]),
        (&*format!("{path}/delete").leak(), vec![]),
        (&*format!("{path}/cancel").leak(), vec![]),
        (&*format!("{path}/share").leak(), vec![field("visibility", "public")]),
    ];
    for (target, values) in attempts {
        // Without the token, with one that is made up, with another browser's, and from elsewhere even with the right one.
        let mut mallory = Browser::new(&gateway.client);
        mallory.visit("/").await;
        let made_up = [values.clone(), vec![field("csrf", &"0".repeat(64))]].concat();
        let stolen = [values.clone(), fields.clone()].concat();
        for answer in [
            anna.post(target, &values).await,
            anna.post(target, &made_up).await,
            mallory.post(target, &stolen).await,
            anna.post_from("https://evil.example", target, &stolen).await,
        ] {
            assert_eq!(answer.status, 403, "{target}: {}", answer.text());
        }
        let read = anna.send("GET", target, &[], "").await;
        assert!(target == "/" || matches!(read.status, 404 | 405), "{target} by GET: {}", read.status);
    }
    let page = anna.visit(&path).await;
    assert!(page.status == 200 && page.text().contains("value=\"unlisted\" checked"));
    assert_eq!(provider.peer.requests().len(), before);
}
