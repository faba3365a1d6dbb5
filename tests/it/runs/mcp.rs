//! A kept run as an MCP server: both eras, its only tool, and what a call comes to.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::outside::{SHOP, as_key, hosted};
use super::scene::{calling, has_results, id_of, stored};
use crate::support::{
    Answer, FakeMcp, FakeProvider, FakeTool, Gate, Gateway, Peer, Person, Piece, Protected, Recorded, Reply,
    Stream, ask, calls, provider::delta, provider::event, text, whole, with,
};

pub const MODERN: &str = "2026-07-28";
const BOTH: &str = "application/json, text/event-stream";

/// A request of 2026-07-28, with the headers that must go with it.
pub async fn modern(
    gateway: &Gateway,
    id: &str,
    more: &[(&str, &str)],
    method: &str,
    params: Value,
) -> Answer {
    let (headers, body) = modern_request(method, params);
    let mut all: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    all.extend(more);
    gateway.client.post(&format!("/{id}/mcp"), &all, &body).await
}

pub fn modern_request(method: &str, params: Value) -> (Vec<(&'static str, String)>, Value) {
    let mut headers = vec![
        ("accept", BOTH.to_owned()),
        ("mcp-protocol-version", MODERN.to_owned()),
        ("mcp-method", method.to_owned()),
    ];
    headers.extend(params["name"].as_str().map(|name| ("mcp-name", name.to_owned())));
    let mut meta = json!({ "io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {} });
    let given = params["_meta"].as_object().cloned().unwrap_or_default();
    meta.as_object_mut().unwrap().extend(given);
    let params = with(params, json!({ "_meta": meta }));
    (headers, json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }))
}

/// A call of `ask`.
pub fn asking(message: &str) -> Value {
    json!({ "name": "ask", "arguments": { "message": message } })
}

/// What a call says, and whether that is a failure.
pub fn said(answer: &Answer) -> (String, bool) {
    let result = answer.json()["result"].clone();
    let content = result["content"].as_array().unwrap_or_else(|| panic!("{}", answer.text()));
    assert!(content.len() == 1 && content[0]["type"] == "text", "{result}");
    (content[0]["text"].as_str().unwrap().to_owned(), result["isError"] == true)
}

async fn legacy(gateway: &Gateway, id: &str, version: Option<&str>, message: &Value) -> Answer {
    let headers: Vec<(&str, &str)> =
        version.map(|version| ("mcp-protocol-version", version)).into_iter().collect();
    gateway.client.post(&format!("/{id}/mcp"), &headers, message).await
}

/// A stored run with these tools.
async fn prompt(gateway: &Gateway, tools: &[Value]) -> String {
    id_of(&gateway.client.chat(&stored(ask(tools))).await)
}

/// The messages of an event stream.
fn messages(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.header("content-type"), Some("text/event-stream"), "{}", answer.text());
    assert_eq!(answer.header("x-accel-buffering"), Some("no"));
    let text = answer.text();
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|data| serde_json::from_str(data).unwrap()).collect()
}

#[tokio::test]
async fn a_modern_client_finds_one_tool_and_a_call_of_it_is_a_completion_behind_the_prompt() {
    let provider = FakeProvider::answering(|_| text("the answer")).await;
    let gateway = Gateway::with(&provider).await;
    let id = prompt(&gateway, &[]).await;
    let found = modern(&gateway, &id, &[], "server/discover", json!({})).await.json()["result"].clone();
    assert_eq!(found["resultType"], "complete");
    assert_eq!(found["supportedVersions"], json!([MODERN, "2025-11-25", "2025-06-18", "2025-03-26"]));
    assert_eq!((&found["capabilities"], &found["cacheScope"]), (&json!({ "tools": {} }), &json!("private")));
    assert_eq!(found["_meta"]["io.modelcontextprotocol/serverInfo"]["title"], "question");
    let list = modern(&gateway, &id, &[], "tools/list", json!({})).await.json()["result"].clone();
    assert!(list["ttlMs"].as_u64().unwrap() > 0 && list["cacheScope"] == "private", "{list}");
    let [tool] = list["tools"].as_array().unwrap().as_slice() else { panic!("{list}") };
    assert_eq!((&tool["name"], &tool["title"]), (&json!("ask"), &json!("question")));
    assert_eq!(tool["inputSchema"]["required"], json!(["message"]));
    assert!(tool["description"].as_str().unwrap().contains("“question”"), "{tool}");
    let hints = &tool["annotations"];
    assert_eq!((&hints["readOnlyHint"], &hints["openWorldHint"]), (&json!(false), &json!(true)));
    assert_eq!(hints["destructiveHint"], false, "it has no tools");

    let called = modern(&gateway, &id, &[], "tools/call", asking("and then?")).await;
    assert_eq!((called.status, called.header("content-type")), (200, Some("application/json")));
    assert_eq!(called.json()["result"]["resultType"], "complete");
    assert_eq!(said(&called), ("the answer".to_owned(), false));
    let body = provider.last_body();
    assert_eq!(body["model"], "m");
    let expected =
        json!([{ "role": "system", "content": "question" }, { "role": "user", "content": "and then?" }]);
    assert_eq!(body["messages"], expected);
    let listed = gateway.client.get("/v1/chat/completions").await.json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 1, "the prompt alone is kept");
}

#[tokio::test]
async fn a_client_of_an_older_revision_is_served_without_a_session() {
    let provider = FakeProvider::answering(|_| text("the answer")).await;
    let gateway = Gateway::with(&provider).await;
    let id = prompt(&gateway, &[]).await;
    for (asked, given) in [
        ("2025-03-26", "2025-03-26"),
        ("2025-06-18", "2025-06-18"),
        ("2025-11-25", "2025-11-25"),
        ("2024-11-05", "2025-11-25"),
    ] {
        let params = json!({ "protocolVersion": asked, "capabilities": {}, "clientInfo": { "name": "c", "version": "1" } });
        let begin = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params });
        let began = legacy(&gateway, &id, None, &begin).await;
        let result = &began.json()["result"];
        assert_eq!(
            (&result["protocolVersion"], &result["serverInfo"]["name"]),
            (&json!(given), &json!("toolgate"))
        );
        assert_eq!(began.header("mcp-session-id"), None);
        let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        let noted = legacy(&gateway, &id, Some(given), &initialized).await;
        assert_eq!((noted.status, noted.text().as_str()), (202, ""));
        let ping = json!({ "jsonrpc": "2.0", "id": "p", "method": "ping" });
        let pong = legacy(&gateway, &id, Some(given), &ping).await.json();
        assert_eq!(pong, json!({ "jsonrpc": "2.0", "id": "p", "result": {} }));
        let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
        let list = legacy(&gateway, &id, Some(given), &list).await.json();
        assert_eq!(list["result"]["tools"][0]["name"], "ask");
        let call = json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": asking("hello") });
        let called = legacy(&gateway, &id, Some(given), &call).await;
        assert_eq!((said(&called).0.as_str(), &called.json()["id"]), ("the answer", &json!(2)));
        assert!(called.json()["result"].get("resultType").is_none());
        let unknown = json!({ "jsonrpc": "2.0", "id": 3, "method": "prompts/list" });
        let unknown = legacy(&gateway, &id, Some(given), &unknown).await;
        assert_eq!((unknown.status, &unknown.json()["error"]["code"]), (200, &json!(-32601)));
    }
}

#[tokio::test]
async fn a_batch_of_the_oldest_revision_may_call_once() {
    let provider = FakeProvider::answering(|_| text("the answer")).await;
    let gateway = Gateway::with(&provider).await;
    let id = prompt(&gateway, &[]).await;
    let call =
        |id: u32| json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": asking("hello") });
    let batch = json!([
        { "jsonrpc": "2.0", "id": 1, "method": "ping" },
        { "jsonrpc": "2.0", "method": "notifications/initialized" },
        call(2),
        call(3),
        { "no": "message" },
    ]);
    let answers = legacy(&gateway, &id, Some("2025-03-26"), &batch).await.json();
    let [pong, first, second, none] = answers.as_array().unwrap().as_slice() else { panic!("{answers}") };
    assert_eq!((&pong["id"], &pong["result"]), (&json!(1), &json!({})));
    assert_eq!(first["result"]["content"][0]["text"], "the answer");
    assert_eq!((&second["id"], &second["error"]["code"]), (&json!(3), &json!(-32602)));
    assert_eq!(none["error"]["code"], -32600);
    assert_eq!(provider.peer.requests().len(), 2, "the prompt's own, and one");
    for version in ["2025-06-18", "2025-11-25", MODERN] {
        assert_eq!(legacy(&gateway, &id, Some(version), &batch).await.status, 400, "{version}");
    }
    let long = Value::Array(vec![json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }); 51]);
    assert_eq!(legacy(&gateway, &id, None, &long).await.status, 400);
}

#[tokio::test]
async fn who_wants_to_be_told_of_progress_is_told_of_turns_and_tool_calls() {
    let mcp = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let provider = calling(|| calls(&[("c", "s_t", json!({ "a": 1 }))]), || text("done")).await;
    let gateway = Gateway::with(&provider).await;
    let id = prompt(&gateway, &[mcp.entry("s")]).await;
    let tool = modern(&gateway, &id, &[], "tools/list", json!({})).await.json()["result"]["tools"][0].clone();
    assert_eq!(tool["annotations"]["destructiveHint"], true, "what its tools do is not known");
    let params = with(asking("go"), json!({ "_meta": { "progressToken": "mine" } }));
    let all = messages(&modern(&gateway, &id, &[], "tools/call", params).await);
    let (last, told) = all.split_last().unwrap();
    let numbers: Vec<u64> = told.iter().map(|note| note["params"]["progress"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=told.len() as u64).collect::<Vec<_>>());
    assert!(told.iter().all(|note| note["params"]["progressToken"] == "mine"), "{told:?}");
    let words: Vec<&str> = told.iter().map(|note| note["params"]["message"].as_str().unwrap()).collect();
    let host = mcp.peer.host();
    let steps = [format!("calling t ({host})"), format!("t ({host}) is done")];
    let expected =
        ["asking the model", "turn 1: the model answers", &steps[0], &steps[1], "turn 2: the model answers"];
    assert_eq!(words, expected);
    assert_eq!((&last["id"], &last["result"]["content"][0]["text"]), (&json!(1), &json!("done")));
    // The words of the model alone: no blocks of tools.
    let called = modern(&gateway, &id, &[], "tools/call", asking("go")).await;
    assert_eq!(said(&called), ("done".to_owned(), false));
}

#[tokio::test]
async fn who_has_to_wait_is_sent_signs_of_life_unless_it_reads_json_only() {
    let gate = Gate::new();
    let behind = gate.clone();
    let provider = FakeProvider::answering(move |request| match request.text().contains("slow") {
        true => text("late").after(&behind),
        false => text("a prompt"),
    })
    .await;
    let gateway = Gateway::configured(&provider, |settings| settings.run.keep_alive_seconds = 1).await;
    let id = prompt(&gateway, &[]).await;
    let (headers, body) = modern_request("tools/call", asking("slow"));
    let mut json_only: Vec<(&str, &str)> =
        headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    json_only.push(("content-type", "application/json"));
    let both = json_only.clone();
    json_only[0].1 = "application/json";
    let path = format!("/{id}/mcp");
    let waiting = gateway.client.send("POST", &path, &json_only, body.to_string());
    // Its head is there before its answer is.
    let streamed = gateway.client.send("POST", &path, &both, body.to_string());
    let opening = async {
        let streamed = streamed.await;
        gate.open();
        streamed
    };
    let (waited, streamed) = tokio::join!(waiting, opening);
    let (waited, streamed) = (whole(waited).await, whole(streamed).await);
    assert_eq!(said(&waited).0, "late");
    assert!(streamed.text().starts_with(": keep-alive\n\n"), "{}", streamed.text());
    assert_eq!(messages(&streamed)[0]["result"]["content"][0]["text"], "late");
}

#[tokio::test]
async fn signs_of_life_come_while_the_model_writes_word_by_word() {
    let gates: Vec<Gate> = (0..10).map(|_| Gate::new()).collect();
    let behind = gates.clone();
    let provider = FakeProvider::answering(move |request| match request.text().contains("slow") {
        true => {
            let word = || event(&delta(&json!({ "content": "word " })));
            Reply::stream(behind.iter().flat_map(|gate| [word(), Piece::Wait(gate.clone())]).collect())
        }
        false => text("a prompt"),
    })
    .await;
    let gateway = Gateway::configured(&provider, |settings| settings.run.keep_alive_seconds = 1).await;
    let id = prompt(&gateway, &[]).await;
    // Sooner than any silence of the model would be broken.
    let writing = tokio::spawn(async move {
        for gate in gates {
            tokio::time::sleep(Duration::from_millis(400)).await;
            gate.open();
        }
    });
    let mut stream =
        open(&gateway, &id, with(asking("slow"), json!({ "_meta": { "progressToken": 1 } }))).await;
    stream.until_comment().await;
    assert!(!writing.is_finished(), "it came in between");
    writing.abort();
}

#[tokio::test]
async fn signs_of_life_come_while_the_servers_of_the_tools_are_asked() {
    let provider = FakeProvider::answering(|_| text("never")).await;
    let silent = Peer::start(|_| Reply::Silence).await;
    let gateway = Gateway::configured(&provider, |settings| settings.run.keep_alive_seconds = 1).await;
    let entry = json!({ "type": "mcp", "server_url": silent.url("/mcp"), "server_label": "silent" });
    let id = super::scene::task(&gateway, &ask(&[entry])).await;
    silent.until_requests(1).await;
    for params in [asking("go"), with(asking("go"), json!({ "_meta": { "progressToken": 1 } }))] {
        open(&gateway, &id, params).await.until_comment().await;
    }
    assert_eq!(provider.peer.requests().len(), 0);
}

/// A call as it is answered to who reads event streams.
async fn open(gateway: &Gateway, id: &str, params: Value) -> Stream {
    let (headers, body) = modern_request("tools/call", params);
    let mut all: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    all.push(("content-type", "application/json"));
    Stream::new(gateway.client.send("POST", &format!("/{id}/mcp"), &all, body.to_string()).await)
}

#[tokio::test]
async fn a_missing_login_is_a_result_with_its_link_and_after_the_click_the_call_works() {
    let mcp = Protected::start(vec![FakeTool::text("t", "secret of ann")]).await;
    let provider = calling(|| calls(&[("c", "s_t", json!({}))]), || text("done")).await;
    let gateway = Gateway::with(&provider).await;
    let id = prompt(&gateway, &[mcp.entry("s")]).await;
    let ann = [("x-toolgate-user", "ann")];
    for token in [json!({}), json!({ "_meta": { "progressToken": 1 } })] {
        let called = modern(&gateway, &id, &ann, "tools/call", with(asking("go"), token.clone())).await;
        let result = match token.get("_meta") {
            Some(_) => messages(&called).pop().unwrap()["result"].clone(),
            None => called.json()["result"].clone(),
        };
        let words = result["content"][0]["text"].as_str().unwrap();
        let link = format!("[{}](http://{}/connect/", mcp.peer.host(), gateway.address);
        assert!(words.contains(&link) && result["isError"] == false, "{words}");
    }
    assert_eq!(provider.peer.requests().len(), 0);
    let words = said(&modern(&gateway, &id, &ann, "tools/call", asking("go")).await).0;
    let link = words.split_once("](").unwrap().1.split_once(')').unwrap().0;
    assert_eq!(Person::new().log_in(link).await.status, 200);
    assert_eq!(said(&modern(&gateway, &id, &ann, "tools/call", asking("go")).await).0, "done");
    assert_eq!(provider.last_said("tool"), ["secret of ann"]);
    let bob = said(&modern(&gateway, &id, &[("x-toolgate-user", "bob")], "tools/call", asking("go")).await).0;
    assert!(bob.contains("/connect/"), "the login is ann's alone: {bob}");
    assert_eq!(mcp.callers().len(), 1);
}

#[tokio::test]
async fn a_call_that_waits_for_a_login_shows_the_link_meanwhile_and_goes_on_after_the_click() {
    let mcp = Protected::start(vec![FakeTool::text("t", "secret of ann")]).await;
    let provider = calling(|| calls(&[("c", "s_t", json!({}))]), || text("done")).await;
    let gateway = Gateway::with(&provider).await;
    let id = prompt(&gateway, &[mcp.entry("s")]).await;
    let params = with(asking("go"), json!({ "_meta": { "progressToken": 1 } }));
    let (headers, body) = modern_request("tools/call", params);
    let mut all: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    all.extend([
        ("content-type", "application/json"),
        ("x-toolgate-user", "ann"),
        ("x-toolgate-on-auth", "wait"),
    ]);
    let sent = gateway.client.send("POST", &format!("/{id}/mcp"), &all, body.to_string()).await;
    let mut stream = Stream::new(sent);
    let words = |note: &Value| note["params"]["message"].as_str().unwrap_or_default().to_owned();
    let note = stream.until(|note| words(note).contains("/connect/")).await;
    let shown = words(&note);
    assert!(shown.starts_with(&mcp.peer.host()), "{shown}");
    assert_eq!(provider.peer.requests().len(), 0, "no provider is held meanwhile");
    assert_eq!(Person::new().log_in(shown.rsplit_once(' ').unwrap().1).await.status, 200);
    let last = stream.until(|message| message.get("id").is_some()).await;
    assert_eq!(last["result"]["content"][0]["text"], "done", "{last}");
    assert!(stream.next().await.is_none(), "nothing follows the answer");
}

#[tokio::test]
async fn what_fails_is_a_result_with_the_words_of_the_chat_error_and_the_next_call_works() {
    let mcp = FakeMcp::start(vec![FakeTool::echo("t")]).await;
    let provider = FakeProvider::answering(|request: &Recorded| match request.text().contains("break") {
        true => Reply::with_headers(400, &[], r#"{"error":{"message":"the provider's words"}}"#),
        false => text("fine"),
    })
    .await;
    let gateway = Gateway::with(&provider).await;
    let id = prompt(&gateway, &[mcp.entry("s")]).await;
    let chat = json!({ "messages": [{ "role": "user", "content": "break" }] });
    let chat = gateway.client.post(&format!("/{id}/chat/completions"), &[], &chat).await;
    let words = chat.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(chat.status == 400 && words.contains("the provider's words"), "{words}");
    let failed = modern(&gateway, &id, &[], "tools/call", asking("break")).await;
    assert_eq!((failed.status, said(&failed)), (200, (words, true)));
    assert_eq!(
        said(&modern(&gateway, &id, &[], "tools/call", asking("go")).await),
        ("fine".to_owned(), false)
    );
    // A user that cannot be read, and options that are none.
    for header in [("x-toolgate-max-turns", "0"), ("x-toolgate-visibility", "public")] {
        let refused = modern(&gateway, &id, &[header], "tools/call", asking("go")).await;
        assert!(said(&refused).1, "{header:?}: {}", refused.text());
    }
    // The tool server is gone.
    let nowhere = json!({ "type": "mcp", "server_url": "http://127.0.0.1:1/mcp", "server_label": "gone" });
    let task = gateway.client.post("/v1/tasks", &[], &ask(&[nowhere])).await.json();
    let gone = task["id"].as_str().unwrap();
    let (words, is_error) = said(&modern(&gateway, gone, &[], "tools/call", asking("go")).await);
    assert!(is_error && words.contains("127.0.0.1:1"), "{words}");
}

#[tokio::test]
async fn no_call_is_kept_whatever_the_headers_of_its_client_say() {
    let provider = FakeProvider::answering(|_| text("fine")).await;
    let gateway = Gateway::with(&provider).await;
    let id = prompt(&gateway, &[]).await;
    for header in ["x-toolgate-cache-seconds", "x-toolgate-cache_seconds"] {
        for _ in 0..2 {
            let called = modern(&gateway, &id, &[(header, "600")], "tools/call", asking("go")).await;
            assert_eq!(said(&called), ("fine".to_owned(), false), "{header}");
        }
    }
    assert_eq!(provider.peer.requests().len(), 5, "the prompt's own, and one for each");
    let runs = gateway.client.get("/v1/runs").await.json();
    assert_eq!(runs["data"].as_array().unwrap().len(), 1, "{runs}");
}

#[tokio::test]
async fn a_function_of_the_application_cannot_be_answered_and_says_so() {
    let own =
        json!({ "type": "function", "function": { "name": "mine", "parameters": { "type": "object" } } });
    let provider = FakeProvider::answering(|_| calls(&[("c", "mine", json!({}))])).await;
    let gateway = Gateway::with(&provider).await;
    let id = prompt(&gateway, &[own]).await;
    let (words, is_error) = said(&modern(&gateway, &id, &[], "tools/call", asking("go")).await);
    assert!(is_error && words.contains("`mine`"), "{words}");
}

#[tokio::test]
async fn when_the_client_leaves_the_request_to_the_provider_ends() {
    let gate = Gate::new();
    let never = gate.clone();
    let provider = FakeProvider::answering(move |request| match request.text().contains("leave") {
        true => Reply::stream(vec![
            event(&delta(&json!({ "content": "the first words" }))),
            Piece::Wait(never.clone()),
        ]),
        false => text("a prompt"),
    })
    .await;
    let gateway = Gateway::with(&provider).await;
    let id = prompt(&gateway, &[]).await;
    for (number, token) in [json!({}), json!({ "_meta": { "progressToken": 1 } })].into_iter().enumerate() {
        let (headers, body) = modern_request("tools/call", with(asking("leave"), token));
        let (body, mut head) =
            (body.to_string(), format!("POST /{id}/mcp HTTP/1.1\r\nhost: {}\r\n", gateway.address));
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let length = body.len();
        let request =
            format!("{head}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}");
        let mut connection = TcpStream::connect(gateway.address).await.unwrap();
        connection.write_all(request.as_bytes()).await.unwrap();
        provider.peer.until_requests(number + 2).await;
        drop(connection);
        provider.peer.until_abandoned(number + 1).await;
    }
}

#[tokio::test]
async fn the_gateway_is_a_client_of_its_own_runs() {
    let provider = FakeProvider::answering(|request: &Recorded| {
        let body = request.json();
        match (body["tools"].is_array(), has_results(request)) {
            (true, false) => calls(&[("c", "inner_ask", json!({ "message": "from outside" }))]),
            (true, true) => text("outer"),
            _ => text("inner"),
        }
    })
    .await;
    let gateway = Gateway::with(&provider).await;
    let id = prompt(&gateway, &[]).await;
    let url = format!("http://{}/{id}/mcp", gateway.address);
    let entry = json!({ "type": "mcp", "server_url": url, "server_label": "inner" });
    let answer = gateway.client.chat(&ask(&[entry])).await;
    assert!(answer.content().ends_with("outer"), "{}", answer.text());
    assert_eq!(provider.last_said("tool"), ["inner"]);
    let asked = provider.bodies().into_iter().find(|body| body["messages"][1]["content"] == "from outside");
    assert_eq!(asked.expect("the inner run")["messages"][0]["content"], "question");
}

/// What the page of a run shows for the settings of an MCP client.
async fn settings_on_page(gateway: &Gateway, id: &str) -> Value {
    let page = gateway.client.send("GET", &format!("/{id}"), &[("accept", "text/html")], "").await;
    let page = whole(page).await.text();
    let shown = page.split_once("data-sample=\"MCP\">").expect("it is there").1;
    let shown = shown.split_once("</code>").unwrap().0.replace("&#34;", "\"").replace("&#39;", "'");
    serde_json::from_str(&shown).unwrap_or_else(|error| panic!("{error}: {shown}"))
}

#[tokio::test]
async fn a_page_has_the_entry_for_the_settings_of_a_client_without_any_key() {
    let provider = FakeProvider::answering(|_| text("fine")).await;
    let gateway = Gateway::with(&provider).await;
    let mut body = stored(ask(&[]));
    body["messages"][0]["content"] = json!("</code> \"What\" is new?");
    let id = id_of(&gateway.client.chat(&body).await);
    let url = format!("/{id}/mcp");
    let shown = settings_on_page(&gateway, &id).await;
    let server = &shown["mcpServers"]["code-what-is-new"];
    assert!(server["type"] == "http" && server["url"].as_str().unwrap().ends_with(&url), "{shown}");
    assert!(server.get("headers").is_none(), "{shown}");
    let hosted = hosted(&provider, |_| {}).await;
    let key = as_key(SHOP);
    let id = id_of(&hosted.client.post("/v1/chat/completions", &[("authorization", &key[0].1)], &body).await);
    let shown = settings_on_page(&hosted, &id).await;
    let headers = &shown["mcpServers"]["code-what-is-new"]["headers"];
    assert_eq!(headers, &json!({ "Authorization": "Bearer ${TOOLGATE_KEY}" }));
}
