//! `toolgate connections` and `toolgate audit`: the operator's view of users' logins, beside a running gateway.

use std::time::Duration;

use serde_json::{Value, json};
use toolgate::config::{ApiKey, EgressAllow, Settings};
use toolgate::crypto::ApiKeyHash;

use crate::support::{
    FakeProvider, FakeTool, Gateway, PATIENCE, Person, Place, Program, Protected, text, whole,
};

async fn gateway(place: &Place, change: impl FnOnce(&mut Settings)) -> Gateway {
    let provider = FakeProvider::answering(|_| text("hello")).await;
    Gateway::configured(&provider, |settings| {
        place.give_to(settings);
        change(settings);
    })
    .await
}

/// Starts a login and gives its link.
async fn start(gateway: &Gateway, key: Option<&str>, user: &str, mcp: &Protected) -> String {
    let bearer = format!("Bearer {}", key.unwrap_or_default());
    let headers: Vec<(&str, &str)> = key.iter().map(|_| ("authorization", bearer.as_str())).collect();
    let wanted = json!({ "user": user, "server_url": mcp.url() });
    let started = gateway.client.post("/v1/connections", &headers, &wanted).await;
    assert_eq!(started.status, 201, "{}", started.text());
    started.json()["connect_url"].as_str().unwrap().to_owned()
}

async fn log_in(gateway: &Gateway, user: &str, mcp: &Protected) {
    let page = Person::new().log_in(&start(gateway, None, user, mcp).await).await;
    assert!(page.text.contains("authorised"), "{}", page.text);
}

/// What the program prints as JSON.
async fn json_of(program: &Program, arguments: &[&str]) -> Vec<Value> {
    let ended = program.run(&[arguments, &["--json"]].concat()).await;
    assert_eq!(ended.code, 0, "{arguments:?}: {}", ended.stderr);
    assert!(!ended.stdout.contains("access-") && !ended.stdout.contains("refresh-"), "{}", ended.stdout);
    let read: Value = serde_json::from_str(&ended.stdout).unwrap();
    read.as_array().unwrap().clone()
}

#[tokio::test]
async fn a_connection_that_the_operator_revokes_ends_at_once_here_and_at_the_provider() {
    let mcp = Protected::marked(vec![FakeTool::echo("t")], "-x").await;
    mcp.answer_revocations(200);
    let place = Place::new().await;
    let gateway = gateway(&place, |_| {}).await;
    log_in(&gateway, "ann", &mcp).await;
    log_in(&gateway, "bob", &mcp).await;

    // The command does not know under which port the gateway is reached, and so not for which address its client is.
    let program = Program::at(&place);
    let listed = json_of(&program, &["connections", "list"]).await;
    let users: Vec<&Value> = listed.iter().map(|row| &row["user"]).collect();
    assert_eq!(users, ["ann", "bob"]);
    let ann = &listed[0];
    assert_eq!((&ann["project"], &ann["resource"]), (&json!("local"), &json!(mcp.url())));
    assert_eq!((&ann["status"], &ann["profile"]), (&json!("active"), &Value::Null));

    let id = ann["id"].as_str().unwrap();
    let ended = program.run(&["connections", "revoke", id]).await;
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stdout.starts_with(id) && ended.stdout.trim_end().ends_with("revoked"), "{}", ended.stdout);
    assert_eq!(mcp.revoked().len(), 2, "refresh and access token");
    let left = whole(gateway.client.send("GET", "/v1/connections", &[], "").await).await.json();
    assert_eq!(left["data"].as_array().unwrap().len(), 1);
    assert_eq!(left["data"][0]["user"], "bob");
    // The gateway that runs forgets the token by itself, even one that the provider would still take.
    let check = json!({ "user": "ann", "urls": [mcp.url()] });
    let noticed = async {
        loop {
            let checked = gateway.client.post("/v1/connections/check", &[], &check).await.json();
            if checked["data"][0]["status"] == "needs_login" {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, noticed).await.expect("the running gateway notices");

    let again = program.run(&["connections", "revoke", id]).await;
    assert_eq!(again.code, 2);
    assert_eq!(again.stderr.trim_end(), format!("error: the connection `{id}` has ended before"));
    let audit = json_of(&program, &["audit", "--project", "local"]).await;
    let revoked = audit.iter().find(|row| row["event"] == "connection.revoked").unwrap();
    assert_eq!((&revoked["actor"], &revoked["connection"]), (&json!("operator"), &json!(id)));
    assert!(
        audit.iter().any(|row| row["event"] == "token.revocation" && row["detail"] == "revoked"),
        "{audit:?}"
    );
}

#[tokio::test]
async fn many_are_revoked_at_once_with_a_report_for_each_and_what_failed_is_tried_again() {
    let [done, cannot, failing] = [
        Protected::start(vec![FakeTool::echo("t")]).await,
        Protected::start(vec![FakeTool::echo("t")]).await,
        Protected::start(vec![FakeTool::echo("t")]).await,
    ];
    done.answer_revocations(200);
    failing.answer_revocations(503);
    let place = Place::new().await;
    let gateway = gateway(&place, |_| {}).await;
    for mcp in [&done, &cannot, &failing] {
        log_in(&gateway, "ann", mcp).await;
    }
    log_in(&gateway, "bob", &done).await;
    let program = Program::at(&place);

    let asked = program.run(&["connections", "revoke", "--user", "ann"]).await;
    assert_eq!(asked.code, 2);
    assert!(asked.stderr.starts_with("error: 3 connections would end"), "{}", asked.stderr);
    assert!(asked.stderr.contains("hint: add `--yes`"), "{}", asked.stderr);
    assert_eq!(json_of(&program, &["connections", "list"]).await.len(), 4, "nothing has ended");

    let report = json_of(&program, &["connections", "revoke", "--user", "ann", "--yes"]).await;
    let outcome = |mcp: &Protected| {
        let row = report.iter().find(|row| row["resource"] == mcp.url()).expect("a line for each");
        row["revocation"].as_str().unwrap().to_owned()
    };
    assert_eq!(report.len(), 3);
    assert_eq!([outcome(&done), outcome(&cannot), outcome(&failing)], ["revoked", "unsupported", "retrying"]);
    let left = json_of(&program, &["connections", "list"]).await;
    assert_eq!((left.len(), &left[0]["user"]), (1, &json!("bob")));

    let issuer = left[0]["issuer"].as_str().unwrap().to_owned();
    let other = program.run(&["connections", "revoke", "--issuer", "https://else.example", "--yes"]).await;
    assert_eq!((other.code, other.stderr.trim_end()), (0, "There are no such connections."));
    let report = json_of(&program, &["connections", "revoke", "--issuer", &issuer, "--yes"]).await;
    assert_eq!((report.len(), &report[0]["revocation"]), (1, &json!("revoked")));

    failing.answer_revocations(200);
    failing.peer.until_requests_that(3, |request| request.path == "/revoke").await;
    assert_eq!(failing.revoked().len(), 2, "the running gateway has asked again");
}

#[tokio::test]
async fn a_project_is_named_by_its_name_and_has_nothing_of_another_project() {
    const SHOP: &str = "tgk_0123456789abcdefghjkmnpq";
    const RIVAL: &str = "tgk_1123456789abcdefghjkmnpq";
    let mcp = Protected::start(vec![FakeTool::echo("t")]).await;
    let place = Place::new().await;
    let gateway = gateway(&place, |settings| {
        let loopback = "127.0.0.0/8".parse().unwrap();
        settings.egress.allow.push(EgressAllow { cidr: Some(loopback), ..EgressAllow::default() });
        for (project, key) in [("shop", SHOP), ("rival", RIVAL)] {
            settings.api_keys.push(ApiKey {
                name: project.into(),
                project: Some(project.into()),
                hash: ApiKeyHash::of(key).to_string(),
                requests_per_minute: None,
                scopes: None,
            });
        }
    })
    .await;
    start(&gateway, Some(SHOP), "ann", &mcp).await;
    start(&gateway, Some(RIVAL), "ann", &mcp).await;
    start(&gateway, Some(RIVAL), "bob", &mcp).await;

    let program = Program::at(&place);
    for (project, entries) in [("shop", 1), ("project:shop", 1), ("rival", 2), ("local", 0), ("pt:shop", 0)] {
        let audit = json_of(&program, &["audit", "--project", project]).await;
        assert_eq!(audit.len(), entries, "{project}: {audit:?}");
        assert!(audit.iter().all(|row| row["event"] == "flow.created"), "{audit:?}");
    }
    let all = json_of(&program, &["audit"]).await;
    assert_eq!(all.len(), 3);
    assert!(all[0]["at_ms"].as_i64() >= all[2]["at_ms"].as_i64(), "newest first");
    let newest = json_of(&program, &["audit", "--limit", "1"]).await;
    assert_eq!((newest.len(), &newest[0]["id"]), (1, &all[0]["id"]));
    let table = program.run(&["audit", "--project", "rival"]).await.stdout;
    assert_eq!(table.lines().count(), 2);
    assert!(table.lines().all(|line| line.contains("Z  flow.created  project:rival  ")), "{table}");
}

#[tokio::test]
async fn what_is_meant_must_be_said() {
    let place = Place::new().await;
    let program = Program::at(&place);
    for (arguments, said) in [
        (
            &["connections", "revoke", "conn_x"][..],
            "error: there is no connection with the id `conn_x`\nhint: ",
        ),
        (&["connections", "revoke"], "error: nothing says which connections are meant\nhint: "),
        (&["connections", "revoke", "--yes"], "error: nothing says which connections are meant\nhint: "),
        (
            &["connections", "revoke", "conn_x", "--user", "ann"],
            "error: the argument `[ID]` cannot be used with",
        ),
        (&["connections"], "error: a command is missing"),
        (&["audit", "--limit", "-1"], "error: "),
    ] {
        let refused = program.run(arguments).await;
        assert_eq!((refused.code, refused.stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(refused.stderr.starts_with(said), "{arguments:?}: {}", refused.stderr);
    }
    let none = program.run(&["connections", "list", "--json"]).await;
    assert_eq!((none.code, none.stdout.as_str()), (0, "[]\n"));
}
