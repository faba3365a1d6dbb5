//! Secrets stay where they belong: in nothing that is written, shown or sent, and of no use to anybody else.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};
use toolgate::store::Value as Stored;

use crate::support::{
    FakeProvider, FakeTool, Gateway, Logs, Peer, Person, Place, Program, Protected, Recorded, Reply, ask,
    calls, calls_stream, text, text_stream, with,
};

/// Stands in every code, token and client secret.
const CANARY: &str = "-CaNaRy7f3a91";

/// A provider that calls the tool of the server `s` once, and then says `done`.
async fn calling() -> FakeProvider {
    FakeProvider::answering(|request| {
        let answered =
            request.json()["messages"].as_array().unwrap().iter().any(|message| message["role"] == "tool");
        let list = [("call_1", "s_t", json!({}))];
        match (request.json()["stream"] == true, answered) {
            (true, true) => text_stream("done"),
            (true, false) => calls_stream(&list),
            (false, true) => text("done"),
            (false, false) => calls(&list),
        }
    })
    .await
}

fn of(user: &str, mcp: &Protected, options: Value) -> Value {
    with(ask(&[mcp.entry("s")]), json!({ "user": user, "toolgate": options }))
}

fn link(answer: &crate::support::Answer) -> String {
    let json = answer.json();
    let link = json["toolgate"]["authorization_required"][0]["connect_url"].as_str();
    link.unwrap_or_else(|| panic!("a link: {json}")).to_owned()
}

async fn log_in(gateway: &Gateway, user: &str, mcp: &Protected) {
    let answer = gateway.client.chat(&of(user, mcp, json!({}))).await;
    let page = Person::new().log_in(&link(&answer)).await;
    assert_eq!(page.status, 200, "{}", page.text);
}

/// The values of these fields in what a peer was sent, as they were written.
fn sent(requests: &[Recorded], fields: &[&str]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for request in requests {
        let query = request.path.split_once('?').map_or("", |(_, query)| query);
        for text in [query, &request.text()] {
            let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
            found.extend(pairs.filter(|(name, _)| fields.contains(name)).map(|(_, value)| value.to_owned()));
        }
    }
    found
}

fn assert_without(place: &str, bytes: &[u8], secrets: &BTreeSet<String>) {
    for secret in secrets {
        let at = bytes.windows(secret.len()).position(|window| window == secret.as_bytes());
        let around = at.map(|at| {
            let around = &bytes[at.saturating_sub(300)..(at + 100).min(bytes.len())];
            String::from_utf8_lossy(around).into_owned()
        });
        assert_eq!(around, None, "`{secret}` is in {place}");
    }
}

#[tokio::test]
async fn a_whole_login_leaves_no_secret_in_logs_files_answers_pages_webhooks_or_metrics() {
    let logs = Logs::catch();
    let mcp = Protected::marked(vec![FakeTool::text("t", "a result")], CANARY).await;
    mcp.answer_revocations(200);
    let app = Peer::start(|_| Reply::with_headers(204, &[], "")).await;
    let provider = calling().await;
    let place = Place::new().await;
    let program = Program::at(&place);
    let made = program
        .with_sign_in()
        .run(&["project", "create", "shop", "--webhook-url", &app.url("/project")])
        .await;
    let webhook_secret = made.stdout.trim_end().to_owned();
    let key = program.run(&["key", "create", "--project", "shop"]).await.stdout.trim_end().to_owned();
    let gateway = Gateway::configured(&provider, |settings| place.give_to(settings)).await;
    let bearer = format!("Bearer {key}");
    let shown = gateway.client.post("/v1/connections", &[("authorization", &bearer)], &json!({})).await;
    assert_eq!(shown.status, 400, "the key is used");
    let derived = gateway.client.get("/v1/webhooks/secret").await.json()["secret"].clone();

    let mut answers: Vec<(&str, Vec<u8>)> = vec![("an answer", shown.body.to_vec())];
    let options = json!({ "authorization_callback_url": app.url("/hook") });
    let asked = gateway.client.chat(&of("ann", &mcp, options.clone())).await;
    let mut person = Person::new();
    let page = person.log_in(&link(&asked)).await;
    assert!(page.text.contains("authorised"), "{}", page.text);
    app.until_requests(2).await;
    answers.push(("the success page", page.text.into_bytes()));
    answers.push(("an answer", asked.body.to_vec()));
    answers.push(("an answer", gateway.client.chat(&of("ann", &mcp, json!({}))).await.body.to_vec()));
    mcp.expire();
    let streamed = with(of("ann", &mcp, json!({ "output": "events" })), json!({ "stream": true }));
    let stream = gateway.client.chat(&streamed).await;
    assert!(stream.text().contains("done"), "{}", stream.text());
    answers.push(("a stream", stream.body.to_vec()));
    assert_eq!(mcp.refreshes(), 1);
    let origin = format!("http://{}", gateway.address);
    let own = person.open(&format!("{origin}/connections")).await;
    answers.push(("the page of connections", own.text.into_bytes()));
    // One more login, which is refused, and one that the browser has no cookie for.
    let other = gateway.client.chat(&of("bob", &mcp, options)).await;
    let stray =
        Person::new().open(&format!("{origin}/oauth/callback?code=code{CANARY}-x&state=stray{CANARY}")).await;
    assert!(stray.status >= 400, "{}", stray.text);
    answers.push(("an error page", stray.text.into_bytes()));
    mcp.decline();
    answers.push(("the page of a refusal", Person::new().log_in(&link(&other)).await.text.into_bytes()));
    mcp.end_grants();
    answers.push(("an answer", gateway.client.chat(&of("ann", &mcp, json!({}))).await.body.to_vec()));
    for path in ["/metrics", "/v1/connections", "/readyz"] {
        answers.push((path, gateway.client.get(path).await.body.to_vec()));
    }
    for arguments in [
        &["audit", "--json"][..],
        &["connections", "list", "--json"],
        &["connections", "revoke", "--user", "ann", "--yes"],
        &["audit"],
        &["keys", "list"],
    ] {
        let ended = program.run(arguments).await;
        assert_eq!(ended.code, 0, "{arguments:?}: {}", ended.stderr);
        answers.push(("what a command prints", ended.stdout.into_bytes()));
        answers.push(("what a command says", ended.stderr.into_bytes()));
    }
    for request in app.requests() {
        answers.push(("a webhook", request.body.clone()));
        answers.push(("a webhook's headers", format!("{:?}", request.headers).into_bytes()));
    }
    for request in provider.peer.requests() {
        answers.push(("what the model is sent", request.body));
    }

    // Everything that was secret: the mark is in codes, tokens and client secrets.
    let requests = mcp.peer.requests();
    let mut secrets = sent(&requests, &["code_verifier", "state"]);
    assert!(secrets.len() >= 3, "{secrets:?}");
    for kind in ["access", "refresh", "code", "secret"] {
        let marked = format!("{kind}{CANARY}");
        let is_marked = |request: &Recorded| {
            let headers = format!("{:?}", request.headers);
            [&request.text(), &headers, &request.path].iter().any(|text| text.contains(&marked))
        };
        // A code comes back only in the form that redeems it.
        assert!(requests.iter().any(is_marked), "{kind} was in use");
    }
    secrets.insert(CANARY.to_owned());
    secrets.insert(key["tgk_".len()..key.len() - 4].to_owned());
    secrets.insert(webhook_secret["whsec_".len()..].to_owned());
    secrets.insert(derived.as_str().unwrap()["whsec_".len()..].to_owned());
    secrets.extend(person.cookie_values());
    for (place, bytes) in &answers {
        assert_without(place, bytes, &secrets);
    }
    // Links are for the user, and for whoever tells them.
    secrets.extend([&asked, &other].map(|answer| link(answer).rsplit('/').next().unwrap().to_owned()));
    gateway.stop().await;
    assert_without("the log", logs.text().as_bytes(), &secrets);
    if !place.is_shared() {
        for file in fs::read_dir(place.folder()).unwrap().map(|file| file.unwrap().path()) {
            assert_without(&file.display().to_string(), &fs::read(&file).unwrap(), &secrets);
        }
    }
}

#[tokio::test]
async fn a_token_that_was_moved_to_another_user_is_of_no_use_to_them() {
    let mcp = Protected::start(vec![FakeTool::text("t", "a result")]).await;
    let provider = calling().await;
    let place = Place::new().await;
    let start = || Gateway::configured(&provider, |settings| place.give_to(settings));
    let gateway = start().await;
    for user in ["ann", "bob"] {
        log_in(&gateway, user, &mcp).await;
        assert!(gateway.client.chat(&of(user, &mcp, json!({}))).await.content().ends_with("done"));
    }
    let before = mcp.callers();
    assert_ne!(before[0], before[1]);
    gateway.stop().await;

    let store = place.store().await;
    let rows = store.list_connections_everywhere(None, None, None).await.unwrap();
    let id = |user: &str| rows.iter().find(|row| row.user == user).unwrap().id.clone();
    let moved = "UPDATE connection_secrets SET sealed_access = (SELECT s.sealed_access FROM connection_secrets s \
                 WHERE s.connection = $1) WHERE connection = $2";
    let moving = vec![Stored::from(id("ann").as_str()), Stored::from(id("bob").as_str())];
    assert_eq!(store.execute(moved, moving).await.unwrap(), 1);
    store.close().await;

    let gateway = start().await;
    let refused = gateway.client.chat(&of("bob", &mcp, json!({}))).await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!(refused.json()["error"]["code"], "connections_unavailable");
    assert_eq!(mcp.callers(), before, "nobody called with it");
    let answer = gateway.client.chat(&of("ann", &mcp, json!({}))).await;
    assert!(answer.content().ends_with("done"), "{}", answer.text());
    assert_eq!(mcp.callers().last(), Some(&before[0]), "whose it is may still use it");
}

#[tokio::test]
async fn the_keys_are_exchanged_while_requests_use_and_renew_tokens() {
    // Each round has users of its own: a token that is refused again just after its renewal would need a login.
    const ROUNDS: usize = 11;
    const USERS: usize = 5;
    let name = |round: usize, number: usize| format!("user {round}.{}", number % USERS);
    let mcp = Protected::start(vec![FakeTool::text("t", "a result")]).await;
    let provider = calling().await;
    let place = Place::new().await;
    let gateway = Gateway::configured(&provider, |settings| place.give_to(settings)).await;
    for round in 0..ROUNDS {
        for number in 0..USERS {
            log_in(&gateway, &name(round, number), &mcp).await;
        }
    }
    let play = async |round: usize| {
        mcp.expire();
        let requests = (0..50).map(|number| {
            let body = of(&name(round, number), &mcp, json!({}));
            let client = gateway.client.clone();
            async move { client.chat(&body).await }
        });
        for answer in futures_util::future::join_all(requests).await {
            let done = answer.status == 200 && answer.content().ends_with("done");
            assert!(done, "round {round}: {}", answer.text());
        }
    };
    let program = Program::at(&place);
    let exchange = async {
        let new = program.run(&["keys", "add"]).await.stdout.trim_end().to_owned();
        let activated = program.run(&["keys", "activate", &new]).await;
        assert_eq!(activated.code, 0, "{}", activated.stderr);
        for _ in 0..2 {
            let rotated = program.run(&["keys", "rotate"]).await;
            assert_eq!(rotated.code, 0, "{}", rotated.stderr);
        }
        new
    };
    play(0).await;
    let load = async {
        for round in 1..=8 {
            play(round).await;
        }
    };
    let (new, ()) = tokio::join!(exchange, load);
    play(9).await;
    assert_eq!(mcp.refreshes(), 10 * USERS, "one renewal for each user and round");
    // What a gateway sealed with the old key before it noticed is sealed anew; then the old key is of no use any more.
    let listed = program.run(&["keys", "list", "--json"]).await.stdout;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let old = listed.as_array().unwrap().iter().find(|key| key["id"] != new.as_str()).unwrap()["id"].clone();
    assert_eq!(program.run(&["keys", "rotate"]).await.code, 0);
    let retired = program.run(&["keys", "retire", old.as_str().unwrap()]).await;
    assert_eq!(retired.code, 0, "{}", retired.stderr);
    play(10).await;
}
