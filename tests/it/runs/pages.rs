//! Trying, watching and keeping runs at one's own machine, page by page.

use serde_json::{Value, json};
use toolgate::config::{Models, Provider};

use crate::support::provider::{delta, event, finish, usage};
use crate::support::{
    Answer, Browser, FakeMcp, FakeProvider, FakeTool, Gate, Gateway, Piece, Reply, Stream, calls_stream,
    text_stream,
};

/// Fills in the form of `/` and sends it; where it leads.
pub async fn start(browser: &mut Browser, fields: &[(&str, &str)]) -> String {
    let page = browser.visit("/").await;
    let mut all = vec![("model", "m"), ("message", "question")];
    all.retain(|(name, _)| fields.iter().all(|(given, _)| given != name));
    all.extend(fields);
    let answer = browser.submit(&page, "/", &all).await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    answer.header("location").unwrap().to_owned()
}

/// Reads a page until its run has ended.
pub async fn finished(browser: &mut Browser, path: &str) -> Answer {
    let mut live = live(browser, path).await;
    live.until(|message| message["ended"] == true).await;
    assert!(live.next().await.is_none(), "nothing follows the end");
    browser.visit(path).await
}

/// The stream of a page.
pub async fn live(browser: &Browser, path: &str) -> Stream {
    Stream::new(browser.open_stream(&format!("{path}/live")).await)
}

/// What stands on a page after these messages.
fn shown(messages: &[Value]) -> Vec<String> {
    let mut elements: Vec<String> = Vec::new();
    for message in messages {
        let from = usize::try_from(message["from"].as_u64().unwrap()).unwrap();
        assert!(from <= elements.len(), "a message goes on where the page is");
        elements.truncate(from);
        elements.extend(
            message["elements"].as_array().unwrap().iter().map(|html| html.as_str().unwrap().to_owned()),
        );
    }
    elements
}

/// A stream that says one thing, and the other when the gate opens.
pub fn in_two(one: &str, other: &str, gate: &Gate) -> Reply {
    let text = |text: &str| event(&delta(&json!({ "content": text })));
    let end = [event(&finish("stop")), event(&usage()), "data: [DONE]\n\n".into()];
    let mut pieces = vec![text(one), Piece::Wait(gate.clone()), text(other)];
    pieces.extend(end);
    Reply::stream(pieces)
}

#[tokio::test]
async fn the_form_offers_the_models_that_are_configured_by_name_and_can_be_asked() {
    let provider = FakeProvider::answering(|_| text_stream("the answer")).await;
    let gateway = Gateway::configured(&provider, |settings| {
        let models = |name: &str| Some(Models::These(vec![name.to_owned()]));
        let without_key = Provider { name: "openai".into(), models: models("gpt-x"), ..Provider::default() };
        settings.providers.push(without_key);
        settings.aliases.insert("fast".into(), "fake/m".into());
    })
    .await;
    let mut anna = Browser::new(&gateway.client);
    let page = anna.visit("/").await.text();
    let options: Vec<&str> = page.split("<option").skip(1).collect();
    let named = |name: &str| options.iter().any(|option| option.contains(&format!(">{name}</option>")));
    assert!(named("demo") && named("fast") && named("fake/m"), "{options:?}");
    assert!(!named("openai/gpt-x") && !named("demo/demo"), "{options:?}");
    let path = start(&mut anna, &[("model", "fake/m"), ("servers", "")]).await;
    assert!(finished(&mut anna, &path).await.text().contains("the answer"));
}

#[tokio::test]
async fn a_form_starts_a_run_and_its_page_goes_on_by_itself() {
    let gate = Gate::new();
    let provider = FakeProvider::start(vec![in_two("# One\n\ntwo ", "**three**", &gate)]).await;
    let gateway = Gateway::with(&provider).await;
    let mut anna = Browser::new(&gateway.client);
    let path = start(&mut anna, &[("message", "Count *up*.")]).await;
    assert!(path.starts_with("/run_"), "{path}");
    let mut watching = live(&anna, &path).await;
    let first = watching.until(|message| message["elements"].to_string().contains("two")).await;
    assert_eq!((&first["ended"], &first["waits"]), (&json!(false), &json!(false)));
    let page = anna.visit(&path).await;
    let html = page.text();
    assert_eq!(page.status, 200);
    assert!(html.contains("<h1>Count *up*.</h1>") && html.contains("<p>Count <em>up</em>.</p>"), "{html}");
    assert!(html.contains("running") && html.contains(&format!("data-live=\"{path}/live\"")), "{html}");
    assert!(
        html.contains("<h3>One</h3>") && html.contains("<noscript>"),
        "what is there so far, and a way to look again"
    );
    assert!(html.contains(&format!("action=\"{path}/cancel\"")));

    gate.open();
    // Somebody who comes in the middle ends with the same page.
    let mut late = live(&anna, &path).await;
    for stream in [&mut watching, &mut late] {
        let last = stream.until(|message| message["ended"] == true).await;
        assert!(
            last["facts"].as_str().unwrap().contains("done")
                && last["facts"].as_str().unwrap().contains("10 tokens in, 5 out"),
            "{last}"
        );
        assert!(stream.next().await.is_none());
    }
    assert_eq!(shown(&watching.chunks), shown(&late.chunks));
    let whole = anna.visit(&path).await.text();
    for element in shown(&watching.chunks) {
        assert!(whole.contains(&element), "{element}");
    }
    assert!(whole.contains("<p>two <strong>three</strong></p>") && !whole.contains("data-live"), "{whole}");
    assert!(!whole.contains("/cancel"));
    // Who asks after the end gets everything at once, and the end.
    let mut after = live(&anna, &path).await;
    let all = after.next().await.unwrap();
    assert_eq!((all["ended"].clone(), shown(&[all])), (json!(true), shown(&watching.chunks)));
}

#[tokio::test]
async fn tools_are_shown_with_what_they_got_and_gave() {
    let tools = vec![
        FakeTool::text("look", "{\"found\":\"<it>\"}"),
        FakeTool::raw("fail", |_| Reply::Json(500, json!({}))),
    ];
    let mcp = FakeMcp::start(tools).await;
    let called = [("c1", "server_look", json!({ "at": "Tōkyō" })), ("c2", "server_fail", json!({}))];
    let provider = FakeProvider::start(vec![calls_stream(&called), text_stream("That was it.")]).await;
    let gateway = Gateway::with(&provider).await;
    let mut anna = Browser::new(&gateway.client);
    let path = start(&mut anna, &[("servers", &mcp.url())]).await;
    let html = finished(&mut anna, &path).await.text();
    for part in [
        "look",
        "fail",
        "&#34;at&#34;: &#34;Tōkyō&#34;",
        "&#34;found&#34;: &#34;&#60;it&#62;&#34;",
        "<strong>failed</strong>",
        "That was it.",
        "2 tool calls",
        "2 turns",
    ] {
        assert!(html.contains(part), "{part}: {html}");
    }
    assert!(html.contains(&mcp.peer.host()));
    let markdown = gateway.client.get(&format!("{path}.md")).await.text();
    assert!(
        markdown.contains("look") && markdown.contains("That was it."),
        "the same for programs: {markdown}"
    );
}

#[tokio::test]
async fn what_is_wrong_with_the_form_is_said_beside_what_was_entered() {
    let provider = FakeProvider::start(Vec::new()).await;
    let gateway = Gateway::with(&provider).await;
    let mut anna = Browser::new(&gateway.client);
    let page = anna.visit("/").await;
    assert!(page.text().contains("/demo/mcp</textarea>"), "the demo's server is there in local mode");
    for (fields, status, words) in [
        ([("model", "m"), ("message", " "), ("servers", "")], 400, "Write a message first."),
        ([("model", "nope"), ("message", "kept <b>"), ("servers", "")], 404, "`nope` does not exist here"),
        ([("model", ""), ("message", "kept <b>"), ("servers", "")], 404, "does not exist here"),
        (
            [("model", "m"), ("message", "kept <b>"), ("servers", "ftp://x.example")],
            400,
            "`ftp://x.example` is not an address",
        ),
        (
            [("model", "m"), ("message", "kept <b>"), ("servers", "javascript:alert(1)")],
            400,
            "is not an address. Write it whole",
        ),
        (
            [("model", "m"), ("message", "kept <b>"), ("servers", "nonsense")],
            400,
            "`nonsense` is not an address",
        ),
    ] {
        let answer = anna.submit(&page, "/", &fields).await;
        let html = answer.text();
        assert_eq!(answer.status, status, "{fields:?}: {html}");
        assert!(!html.contains("tools[") && !html.contains("server_url is"), "no words for programs: {html}");
        assert!(html.contains(words) && html.contains("role=\"alert\""), "{words}: {html}");
        assert!(fields[1].1 == " " || html.contains("kept &#60;b&#62;</textarea>"), "{html}");
    }
    let long = "ö".repeat(100_000);
    assert_eq!(
        anna.submit(&page, "/", &[("model", "nope"), ("message", &long), ("servers", "")]).await.status,
        404
    );
    let too_long =
        anna.submit(&page, "/", &[("model", "nope"), ("message", &long.repeat(2)), ("servers", "")]).await;
    assert_eq!(too_long.status, 413);
    assert!(too_long.text().contains("This is too long"));
    let many = "https://s.example/mcp ".repeat(17);
    let answer = anna.submit(&page, "/", &[("model", "m"), ("message", "x"), ("servers", &many)]).await;
    assert_eq!(answer.status, 400);
    assert!(provider.peer.requests().is_empty(), "nothing reached the model");
}

#[tokio::test]
async fn running_again_takes_over_what_was_asked() {
    let provider = FakeProvider::start(vec![text_stream("x")]).await;
    let gateway = Gateway::with(&provider).await;
    let mut anna = Browser::new(&gateway.client);
    let path =
        start(&mut anna, &[("message", "first \"question\""), ("servers", ""), ("other_model", "m")]).await;
    let page = finished(&mut anna, &path).await.text();
    let again = format!("/?from={}", &path[1..]);
    assert!(page.contains(&format!("href=\"{again}\"")), "{page}");
    let form = anna.visit(&again).await.text();
    assert!(form.contains("first &#34;question&#34;</textarea>") && form.contains("value=\"m\""), "{form}");
    assert!(form.contains("&#34;model&#34;: &#34;m&#34;"));
    let unknown = anna.visit("/?from=run_00000000000000000000000000").await;
    assert_eq!(unknown.status, 200);
}

#[tokio::test]
async fn a_run_is_shared_stopped_and_deleted_by_its_page() {
    let gate = Gate::new();
    let provider = FakeProvider::start(vec![in_two("so far", "never", &gate)]).await;
    let gateway = Gateway::with(&provider).await;
    let mut anna = Browser::new(&gateway.client);
    let path = start(&mut anna, &[("servers", "")]).await;
    let mut watching = live(&anna, &path).await;
    watching.until(|message| message["elements"].to_string().contains("so far")).await;
    let page = anna.visit(&path).await;
    assert!(page.text().contains("value=\"unlisted\" checked"));
    assert_eq!(page.header("x-robots-tag"), Some("noindex, nofollow"));
    assert!(page.text().contains("noindex") && !page.text().contains("og:title"));

    let shared = anna.submit(&page, &format!("{path}/share"), &[("visibility", "public")]).await;
    assert_eq!(shared.header("location"), Some(format!("{path}?now=shared").as_str()));
    let page = anna.visit(&format!("{path}?now=shared")).await;
    let html = page.text();
    assert!(html.contains("Changed who may read it.") && html.contains("value=\"public\" checked"));
    assert_eq!(page.header("x-robots-tag"), None);
    assert!(
        !html.contains("noindex") && html.contains("<meta property=\"og:title\" content=\"question\">"),
        "{html}"
    );
    assert!(
        html.contains("<meta property=\"og:description\" content=\"so far\">")
            && html.contains("twitter:card")
    );
    let nonsense = anna.submit(&page, &format!("{path}/share"), &[("visibility", "everything")]).await;
    assert_eq!(nonsense.status, 400);

    let stopped = anna.submit(&page, &format!("{path}/cancel"), &[]).await;
    assert_eq!(stopped.status, 303);
    watching.until(|message| message["ended"] == true).await;
    let page = anna.visit(&path).await;
    assert!(
        page.text().contains("cancelled") && page.text().contains("so far") && !page.text().contains("never")
    );

    let deleted = anna.submit(&page, &format!("{path}/delete"), &[]).await;
    assert_eq!(deleted.header("location"), Some("/runs?now=deleted"));
    let gone = anna.visit(&path).await;
    assert_eq!(gone.status, 404);
    assert!(gone.text().contains("There is no such result"));
    assert_eq!(anna.open_stream(&format!("{path}/live")).await.status(), 404);
    assert_eq!(gateway.client.get(&format!("{path}.md")).await.status, 404);
    assert!(anna.visit("/runs?now=deleted").await.text().contains("Nothing here yet"));
}

#[tokio::test]
async fn a_run_that_goes_on_is_stopped_when_it_is_deleted() {
    let provider = FakeProvider::start(vec![in_two("so far", "never", &Gate::new())]).await;
    let gateway = Gateway::with(&provider).await;
    let mut anna = Browser::new(&gateway.client);
    let path = start(&mut anna, &[("servers", "")]).await;
    let list = anna.visit("/runs").await;
    let deleted = anna.submit(&list, &format!("/runs{path}/delete"), &[]).await;
    assert_eq!((deleted.status, deleted.header("location")), (303, Some("/runs?now=deleted")));
    provider.peer.until_abandoned(1).await;
    assert_eq!(anna.visit(&path).await.status, 404);
}

#[tokio::test]
async fn results_are_listed_searched_and_paged() {
    let provider =
        FakeProvider::answering(|request| match request.json()["messages"][0]["content"].as_str() {
            Some("broken") => Reply::Json(400, json!({ "error": { "message": "no such thing" } })),
            _ => text_stream("x"),
        })
        .await;
    let gateway = Gateway::with(&provider).await;
    let mut anna = Browser::new(&gateway.client);
    assert!(anna.visit("/runs").await.text().contains("Nothing here yet"));
    for number in 0..26 {
        let path =
            start(&mut anna, &[("message", &format!("Number {number}: 100% <sure>")), ("servers", "")]).await;
        finished(&mut anna, &path).await;
    }
    let path = start(&mut anna, &[("message", "broken"), ("servers", "")]).await;
    let failed = finished(&mut anna, &path).await.text();
    assert!(
        failed.contains("role=\"alert\"")
            && failed.contains("no such thing")
            && failed.contains("run it again"),
        "{failed}"
    );

    let first = anna.visit("/runs").await.text();
    assert_eq!(first.matches("class=\"title\"").count(), 25, "{first}");
    assert!(first.contains("Number 25: 100% &#60;sure&#62;") && !first.contains("Number 1:"));
    let older =
        first.split("<a href=\"/runs?").nth(1).unwrap().split('"').next().unwrap().replace("&#38;", "&");
    let second = anna.visit(&format!("/runs?{older}")).await.text();
    assert_eq!(second.matches("class=\"title\"").count(), 2);
    assert!(second.contains("Number 0:") && second.contains(">Newest<") && !second.contains(">Older<"));

    for (query, count) in [
        ("q=number+2", 7),
        ("q=100%25", 25),
        ("q=10_%25", 0),
        ("status=failed", 1),
        ("status=completed&q=NUMBER+7", 1),
        ("q=nowhere", 0),
        ("status=nonsense", 25),
        ("after=x.y", 25),
        ("after=9223372036854775807.~", 25),
    ] {
        let page = anna.visit(&format!("/runs?{query}")).await;
        assert_eq!((page.status, page.text().matches("class=\"title\"").count()), (200, count), "{query}");
    }
    assert!(anna.visit("/runs?q=nowhere").await.text().contains("Nothing was found"));
}

#[tokio::test]
async fn scripts_run_on_pages_of_runs_only_and_come_from_us() {
    let provider = FakeProvider::start(vec![text_stream("x")]).await;
    let gateway = Gateway::with(&provider).await;
    let mut anna = Browser::new(&gateway.client);
    let path = start(&mut anna, &[("servers", "")]).await;
    finished(&mut anna, &path).await;
    for (page, may) in [
        ("/", true),
        (path.as_str(), true),
        ("/runs", false),
        ("/account", false),
        ("/connections", false),
        ("/run_00000000000000000000000000", false),
    ] {
        let page = anna.visit(page).await;
        let policy = page.header("content-security-policy").unwrap();
        assert_eq!(policy.contains("script-src 'self'"), may, "{policy}");
        assert!(
            policy.starts_with("default-src 'none'")
                && !policy.contains("unsafe")
                && policy.contains("form-action 'self'")
        );
        assert_eq!(page.text().contains("<script"), may);
    }
    for script in ["/static/run.js", "/static/try.js"] {
        let script = gateway.client.get(script).await;
        assert_eq!(
            (script.status, script.header("content-type")),
            (200, Some("text/javascript; charset=utf-8"))
        );
    }
}

#[tokio::test]
async fn a_server_that_is_down_is_named_with_what_to_do_on_the_page_and_as_ever_in_the_api() {
    let provider = FakeProvider::start(Vec::new()).await;
    let gateway = Gateway::with(&provider).await;
    let down = format!("http://{}/mcp", crate::support::free_address());
    let mut anna = Browser::new(&gateway.client);
    let path = start(&mut anna, &[("servers", &down)]).await;
    let page = finished(&mut anna, &path).await.text();
    assert!(
        page.contains(&format!("{down} could not be used")) && page.contains("Check the address"),
        "{page}"
    );
    assert!(!page.contains("optional"), "{page}");
    let json = gateway.client.get(&format!("{path}.json")).await.json();
    assert!(json["error"]["message"].as_str().unwrap().contains("set `\"optional\": true`"), "{json}");
    let markdown = gateway.client.get(&format!("{path}.md")).await.text();
    assert!(markdown.starts_with("> **Error** "), "{markdown}");
}

#[tokio::test]
async fn what_other_sites_show_of_a_result_is_words_without_marks() {
    let words = "## It is\n\n`a_b` and **bold** [link](https://l.example/x)\nand _more_\n\n1. one";
    let provider = FakeProvider::answering(move |_| text_stream(words)).await;
    let gateway = Gateway::with(&provider).await;
    let mut anna = Browser::new(&gateway.client);
    let path = start(&mut anna, &[("servers", "")]).await;
    let page = finished(&mut anna, &path).await;
    anna.submit(&page, &format!("{path}/share"), &[("visibility", "public")]).await;
    let html = anna.visit(&path).await.text();
    let description = "content=\"It is a_b and bold link and more one\"";
    assert!(html.contains(&format!("og:description\" {description}")), "{html}");
}
