//! Lists of runs, and what is said of a run that has no completion.

use serde_json::{Value, json};

use super::outside::{RIVAL, SHOP, as_key, hosted};
use super::scene::{id_of, result, stored, task};
use crate::support::{
    Answer, Client, FakeMcp, FakeProvider, FakeTool, Gate, Gateway, Reply, ask, text, whole, with,
};

async fn get(client: &Client, key: Option<&str>, path: &str) -> Answer {
    let headers = key.map(as_key).unwrap_or_default();
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    whole(client.send("GET", path, &headers, "").await).await
}

async fn post(client: &Client, key: &str, path: &str, body: &Value) -> Answer {
    let headers = as_key(key);
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    client.post(path, &headers, body).await
}

fn ids(list: &Answer) -> Vec<String> {
    assert_eq!(list.status, 200, "{}", list.text());
    let list = list.json();
    let data = list["data"].as_array().unwrap();
    data.iter().map(|run| run["id"].as_str().unwrap().to_owned()).collect()
}

fn of(user: &str) -> Value {
    with(ask(&[]), json!({ "user": user }))
}

#[tokio::test]
async fn every_kind_of_run_is_listed_and_found_by_what_it_is() {
    let gate = Gate::new();
    let slow = gate.clone();
    let provider = FakeProvider::answering(move |request| match request.text() {
        text if text.contains("fails") => Reply::with_headers(400, &[], r#"{"error":{"message":"no"}}"#),
        words if words.contains("slow") => text("late").after(&slow),
        _ => text("hello"),
    })
    .await;
    let gateway = Gateway::with(&provider).await;
    let client = &gateway.client;
    let says = |words: &str| json!({ "messages": [{ "role": "user", "content": words }] });
    let unstored = task(&gateway, &of("ann")).await;
    let kept = id_of(&client.chat(&stored(of("bob"))).await);
    let failed = task(&gateway, &with(of("ann"), says("fails"))).await;
    for id in [&unstored, &failed] {
        result(client, id).await;
    }
    let slow = task(&gateway, &with(of("bob"), says("slow"))).await;
    provider.peer.until_requests(4).await;
    client.chat(&ask(&[])).await;
    let list = |query: &'static str| async move { ids(&client.get(&format!("/v1/runs{query}")).await) };
    assert_eq!(list("").await, [&slow, &failed, &kept, &unstored].map(String::as_str), "newest first");
    assert_eq!(list("?order=asc").await, [&unstored, &kept, &failed, &slow].map(String::as_str));
    assert_eq!(list("?user=ann").await, [&failed, &unstored].map(String::as_str));
    assert_eq!(list("?status=failed").await, [failed.as_str()]);
    assert_eq!(list("?status=queued&user=bob").await, [slow.as_str()]);
    assert_eq!(list("?kind=completion").await, [kept.as_str()]);
    assert_eq!(list("?kind=task&user=ann&status=completed&model=m").await, [unstored.as_str()]);
    assert_eq!(list("?kind=page").await, [""; 0]);
    assert_eq!(list("?user=nobody").await, [""; 0]);
    gate.open();
    result(client, &slow).await;
    // Page by page it is the same list.
    let mut all = Vec::new();
    loop {
        let after = all.last().map(|last| format!("&after={last}")).unwrap_or_default();
        let page = client.get(&format!("/v1/runs?limit=1{after}")).await;
        let found = ids(&page);
        let page = page.json();
        assert_eq!((page["object"].as_str(), &page["first_id"]), (Some("list"), &json!(found.first())));
        assert_eq!(page["last_id"], json!(found.last()));
        all.extend(found);
        assert_eq!(page["has_more"], json!(all.len() < 4), "{page}");
        if page["has_more"] == false {
            break;
        }
    }
    assert_eq!(all, [slow, failed.clone(), kept, unstored]);
    // An entry is what the run itself says, but for what is among its events.
    let listed = client.get("/v1/runs?status=failed").await.json()["data"][0].clone();
    let mut alone = client.get(&format!("/v1/runs/{failed}")).await.json();
    for field in ["error", "authorization_required"] {
        assert!(alone.as_object_mut().unwrap().shift_remove(field).is_some(), "{field}");
    }
    assert_eq!(listed, alone);
    assert_eq!(
        (&listed["user"], &listed["kind"], &listed["reason"]),
        (&json!("ann"), &json!("task"), &json!("error"))
    );
}

#[tokio::test]
async fn what_nothing_is_listed_by_is_refused_with_what_there_is() {
    let provider = FakeProvider::answering(|_| text("hello")).await;
    let gateway = Gateway::with(&provider).await;
    let id = id_of(&gateway.client.chat(&stored(ask(&[]))).await);
    let none = format!("run_{}", "0".repeat(id.len() - 4));
    for (query, param, words) in [
        (
            "status=done",
            "status",
            "`queued`, `in_progress`, `requires_action`, `completed`, `failed`, `cancelled` or `incomplete`",
        ),
        ("status=", "status", "`queued`"),
        ("kind=Task", "kind", "`completion`, `task` or `page`"),
        ("order=up", "order", "`asc` or `desc`"),
        ("limit=0", "limit", "1 to 100"),
        ("limit=101", "limit", "1 to 100"),
        ("limit=x", "limit", "1 to 100"),
        ("stauts=failed", "stauts", "`status`"),
        ("after=x", "after", "no run of yours"),
        (&format!("after={none}"), "after", "no run of yours"),
    ] {
        let answer = gateway.client.get(&format!("/v1/runs?{query}")).await;
        let error = answer.json()["error"].clone();
        assert_eq!((answer.status, &error["param"]), (400, &json!(param)), "{query}: {error}");
        assert!(error["message"].as_str().unwrap().contains(words), "{query}: {error}");
    }
    assert_eq!(gateway.client.post("/v1/runs", &[], &json!({})).await.status, 405);
}

#[tokio::test]
async fn nobody_lists_the_runs_of_another_project() {
    let provider = FakeProvider::answering(|_| text("mine alone")).await;
    let gateway = hosted(&provider, |_| {}).await;
    let client = &gateway.client;
    let mine = post(client, SHOP, "/v1/tasks", &of("ann")).await.json()["id"].as_str().unwrap().to_owned();
    result(client, &mine).await;
    let public = with(stored(of("ann")), json!({ "toolgate": { "visibility": "public" } }));
    let public = id_of(&post(client, SHOP, "/v1/chat/completions", &public).await);
    assert_eq!(ids(&get(client, Some(SHOP), "/v1/runs").await), [public.as_str(), mine.as_str()]);
    for query in ["", "?user=ann", "?kind=task", "?status=completed", "?model=m", "?order=asc"] {
        let path = format!("/v1/runs{query}");
        assert_eq!(ids(&get(client, Some(RIVAL), &path).await), [""; 0], "{query}");
        assert_eq!(get(client, None, &path).await.status, 401, "{query}");
        assert_eq!(get(client, Some("tgk_none"), &path).await.status, 401, "{query}");
    }
    // Who may read a run by its address still has no place in its owner's list.
    for id in [&mine, &public] {
        assert_eq!(get(client, Some(RIVAL), &format!("/v1/runs/{id}")).await.status, 200);
        let after = get(client, Some(RIVAL), &format!("/v1/runs?after={id}")).await;
        assert_eq!((after.status, &after.json()["error"]["param"]), (400, &json!("after")));
        let read = get(client, None, &format!("/v1/runs/{id}")).await.json();
        assert_eq!((&read["user"], &read["metadata"]), (&Value::Null, &json!({})), "nor whose it is");
    }
}

#[tokio::test]
async fn a_stored_run_without_a_completion_says_so_to_its_owner_and_to_nobody_else() {
    let provider = FakeProvider::answering(|request| match request.text().contains("silent") {
        true => Reply::Silence,
        false => Reply::with_headers(429, &[], r#"{"error":{"message":"too many","code":"its_code"}}"#),
    })
    .await;
    let gateway = hosted(&provider, |_| {}).await;
    let client = &gateway.client;
    let failed = post(client, SHOP, "/v1/tasks", &stored(ask(&[]))).await.json()["id"].clone();
    let failed = failed.as_str().unwrap();
    result(client, failed).await;
    let silent = json!({ "messages": [{ "role": "user", "content": "silent" }] });
    let slow = post(client, SHOP, "/v1/tasks", &with(stored(ask(&[])), silent)).await.json()["id"].clone();
    let slow = slow.as_str().unwrap();
    provider.peer.until_requests_that(1, |request| request.text().contains("silent")).await;
    for (id, status, words) in [(failed, "failed", "failed (`its_code`)"), (slow, "queued", "has not ended")]
    {
        let path = format!("/v1/chat/completions/{id}");
        let metadata = json!({ "metadata": { "a": "b" } });
        for answer in [get(client, Some(SHOP), &path).await, post(client, SHOP, &path, &metadata).await] {
            let error = answer.json()["error"].clone();
            assert_eq!((answer.status, &error["code"]), (404, &json!("no_completion")), "{error}");
            assert_eq!(error["status"], status);
            assert!(error["message"].as_str().unwrap().contains(words), "{error}");
            let url = error["url"].as_str().unwrap();
            let there = get(client, Some(SHOP), &url[url.find("/v1/").unwrap()..]).await.json();
            assert_eq!(
                (&there["status"], &there["metadata"]),
                (&json!(status), &json!({})),
                "nothing was changed"
            );
        }
        // Whoever has the address may read the run, and is not its owner.
        let unknown = format!("/v1/chat/completions/run_{}", "0".repeat(id.len() - 4));
        for key in [Some(RIVAL), None] {
            let (one, other) = (get(client, key, &path).await, get(client, key, &unknown).await);
            assert_eq!((one.status, one.text()), (other.status, other.text()), "{key:?}");
            assert_eq!(one.header("x-result-url"), None);
        }
    }
}

#[tokio::test]
async fn stored_completions_and_messages_are_listed_by_nothing_unknown() {
    let provider = FakeProvider::answering(|_| text("hello")).await;
    let gateway = Gateway::with(&provider).await;
    let client = &gateway.client;
    let id = id_of(&client.chat(&with(stored(ask(&[])), json!({ "metadata": { "topic": "a" } }))).await);
    let list = "/v1/chat/completions";
    let messages = format!("{list}/{id}/messages");
    for query in ["", "model=m", "metadata[topic]=a", "metadata%5Btopic%5D=a&limit=5&order=asc"] {
        assert_eq!(ids(&client.get(&format!("{list}?{query}")).await), [id.as_str()], "{query}");
    }
    for (path, query, param) in [
        (list, "metadata=x", "metadata"),
        (list, "metadata[topic", "metadata[topic"),
        (list, "metadata[]=a", "metadata[]"),
        (list, "user=", "user"),
        (list, "status=failed", "status"),
        (list, "modle=m", "modle"),
        (&messages, "model=m", "model"),
        (&messages, "metadata[topic]=a", "metadata[topic]"),
    ] {
        let answer = client.get(&format!("{path}?{query}")).await;
        let error = answer.json()["error"].clone();
        assert_eq!((answer.status, &error["param"]), (400, &json!(param)), "{query}: {error}");
        assert!(error["message"].as_str().unwrap().contains("`after`, `limit` and `order` are"), "{error}");
    }
    // Null leaves the metadata as it is, here as there; what is missing is missed.
    for path in [format!("{list}/{id}"), format!("/v1/runs/{id}")] {
        let left = client.post(&path, &[], &json!({ "metadata": null })).await;
        assert_eq!((left.status, &left.json()["metadata"]), (200, &json!({ "topic": "a" })), "{path}");
    }
    let missing = client.post(&format!("{list}/{id}"), &[], &json!({})).await;
    assert_eq!((missing.status, &missing.json()["error"]["param"]), (400, &json!("metadata")));
    let emptied = client.post(&format!("{list}/{id}"), &[], &json!({ "metadata": {} })).await;
    assert_eq!(emptied.json()["metadata"], json!({}));
}

#[tokio::test]
async fn parts_of_a_result_are_read_alone() {
    let words =
        "See:\n\n```rust src/main.rs\nfn main() {}\n```\n\n```toml title=\"Cargo.toml\"\n[package]\n```\n";
    let mcp = FakeMcp::start(vec![FakeTool::text("t", "{\"a\":1}")]).await;
    let provider =
        super::scene::calling(|| crate::support::calls(&[("a", "s_t", json!({}))]), move || text(words))
            .await;
    let gateway = Gateway::with(&provider).await;
    let client = &gateway.client;
    let id = id_of(&client.chat(&stored(ask(&[mcp.entry("s")]))).await);
    assert!(
        client.get(&format!("/{id}.md")).await.text().contains("```json"),
        "tools gave blocks of their own"
    );
    let get = async |query: &str| client.get(&format!("/{id}{query}")).await;
    assert_eq!(get("?key=prompt").await.text(), "question");
    assert!(get("?key=result").await.text().contains("fn main() {}"));
    assert_eq!(get("?key=context").await.text(), format!("- {}\n", mcp.url()));
    assert_eq!(get(".json?key=prompt").await.json()["prompt"], "question");
    for (which, block) in [
        ("1", "fn main() {}\n"),
        ("2", "[package]\n"),
        ("src/main.rs", "fn main() {}\n"),
        ("Cargo.toml", "[package]\n"),
    ] {
        for form in ["", ".md"] {
            let answer = get(&format!("{form}?codeblock={which}")).await;
            assert_eq!((answer.status, answer.text().as_str()), (200, block), "{form} {which}");
            assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
        }
        let answer = get(&format!(".json?codeblock={which}")).await;
        assert_eq!((answer.status, answer.json()), (200, json!({ "codeblock": block })), "{which}");
    }
    for (query, words) in [
        ("codeblock=0", "the result has no code block `0`; it has 2, counted from 1"),
        ("codeblock=3", "it has 2"),
        ("codeblock=", "it has 2"),
        ("codeblock=nowhere.rs", "Those in what tools gave do not count"),
        ("key=prompt&codeblock=1", "the prompt has no code block `1`; it has none"),
    ] {
        for form in [".md", ".json"] {
            let answer = get(&format!("{form}?{query}")).await;
            let error = answer.json()["error"].clone();
            assert_eq!((answer.status, &error["code"]), (404, &json!("codeblock_not_found")), "{query}");
            assert!(error["message"].as_str().unwrap().contains(words), "{query}: {error}");
        }
    }
    assert_eq!(get("?key=nothing").await.status, 400);
}
