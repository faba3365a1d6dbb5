//! Clients that authorization servers make for the gateway: one for everybody, until it does not do any more.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use toolgate::config::{OauthClient, Secret};

use crate::support::{
    Answer, FakeProvider, FakeTool, Gateway, Person, Place, Protected, Reply, ask, calls, settings, text,
    with,
};

/// A gateway whose model calls the tool `t` once, and a server that has it.
struct House {
    mcp: Protected,
    gateway: Gateway,
    place: Place,
}

impl House {
    async fn new(mcp: Protected) -> House {
        House::with(mcp, Vec::new()).await
    }

    async fn with(mcp: Protected, clients: Vec<OauthClient>) -> House {
        let provider = FakeProvider::answering(|request| {
            let body = request.json();
            let answered =
                body["messages"].as_array().unwrap().iter().any(|message| message["role"] == "tool");
            if answered { text("done") } else { calls(&[("call_1", "s_t", json!({}))]) }
        })
        .await;
        let place = Place::new().await;
        let mut chosen = settings(&provider);
        chosen.oauth_clients = clients;
        place.give_to(&mut chosen);
        let gateway = Gateway::start(chosen, toolgate::egress::system_lookup()).await;
        House { mcp, gateway, place }
    }

    async fn chat(&self, user: &str) -> Answer {
        self.gateway.client.chat(&with(ask(&[self.mcp.entry("s")]), json!({ "user": user }))).await
    }

    async fn runs(&self, user: &str) {
        let answer = self.chat(user).await;
        assert!(answer.content().ends_with("done"), "{}", answer.text());
        assert_eq!(answer.json()["toolgate"]["authorization_required"], json!([]));
    }

    /// The login that the user is shown a link for.
    async fn log_in(&self, user: &str) {
        let page = Person::new().log_in(&link(&self.chat(user).await)).await;
        assert_eq!(page.status, 200, "{}", page.text);
    }

    async fn execute(&self, statement: &'static str) {
        let store = self.place.store().await;
        store.execute(statement, Vec::new()).await.unwrap();
        store.close().await;
    }
}

fn link(answer: &Answer) -> String {
    let json = answer.json();
    json["toolgate"]["authorization_required"][0]["connect_url"].as_str().expect("a link").to_owned()
}

fn in_seconds(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    i64::try_from(now).unwrap() + seconds
}

async fn server() -> Protected {
    Protected::start(vec![FakeTool::text("t", "x")]).await
}

#[tokio::test]
async fn everybody_logs_in_with_one_client() {
    let house = House::new(server().await).await;
    let links = futures_util::future::join_all(["ann", "bob", "cyd"].map(|user| house.chat(user))).await;
    let people = links.iter().map(|answer| async { Person::new().log_in(&link(answer)).await.status });
    assert_eq!(futures_util::future::join_all(people).await, [200, 200, 200]);
    assert_eq!(house.mcp.registrations().len(), 1, "also when they come at the same time");
}

#[tokio::test]
async fn more_permissions_than_a_client_was_registered_for_get_another_and_nobody_loses_theirs() {
    let house = House::new(server().await).await;
    house.log_in("bob").await;
    house.log_in("ann").await;
    house.mcp.want("t", "files:write");
    house.log_in("ann").await;
    house.runs("ann").await;
    let scopes: Vec<Value> = house.mcp.registrations().iter().map(|client| client["scope"].clone()).collect();
    assert_eq!(scopes.len(), 2, "{scopes:?}");
    assert_eq!(scopes[0], "files:read");
    let named: Vec<&str> = scopes[1].as_str().unwrap().split(' ').collect();
    assert!(named.contains(&"files:read") && named.contains(&"files:write"), "{scopes:?}");
    house.mcp.expire();
    assert_eq!(house.chat("bob").await.status, 200);
    assert_eq!(house.mcp.token_clients().last().unwrap(), "client-1", "bob keeps the client of his login");
    house.log_in("bob").await;
    house.log_in("dan").await;
    assert_eq!(house.mcp.registrations().len(), 2, "the newer client does for all");
    assert_eq!(house.mcp.token_clients().last().unwrap(), "client-2");
}

#[tokio::test]
async fn a_client_whose_secret_expires_is_followed_by_another() {
    let mcp = Protected::marked(vec![FakeTool::text("t", "x")], "canary").await;
    mcp.end_secrets_at(in_seconds(86_400));
    let house = House::new(mcp).await;
    house.log_in("ann").await;
    house.execute("UPDATE registrations SET expires_at = 1").await;
    house.log_in("bob").await;
    house.log_in("cyd").await;
    assert_eq!(house.mcp.registrations().len(), 2);
    assert_eq!(house.mcp.token_clients(), ["client-1", "client-2", "client-2"]);
    house.mcp.expire();
    house.runs("ann").await;
    assert_eq!(house.mcp.token_clients().last().unwrap(), "client-1", "while it is good it is used");
}

#[tokio::test]
async fn an_end_that_is_never_or_was_long_ago_is_none() {
    for end in [0, 3600, -1] {
        let mcp = Protected::marked(vec![FakeTool::text("t", "x")], "canary").await;
        mcp.end_secrets_at(end);
        let house = House::new(mcp).await;
        house.log_in("ann").await;
        house.log_in("bob").await;
        assert_eq!(house.mcp.registrations().len(), 1, "{end}");
    }
}

#[tokio::test]
async fn a_client_that_the_server_has_forgotten_is_made_anew_at_the_next_login() {
    let house = House::new(server().await).await;
    house.log_in("ann").await;
    house.mcp.expire();
    house.mcp.at_renewal(|_| Reply::Json(401, json!({ "error": "invalid_client" })));
    house.log_in("ann").await;
    house.runs("ann").await;
    assert_eq!(house.mcp.registrations().len(), 2);
}

#[tokio::test]
async fn a_wrong_secret_of_the_operator_ends_no_login() {
    let mcp = server().await;
    let mine = OauthClient {
        issuer: mcp.peer.url(""),
        client_id: "mine".to_owned(),
        client_secret: Some(Secret::new("secret")),
        resources: vec![mcp.peer.host()],
        ..OauthClient::default()
    };
    let house = House::with(mcp, vec![mine]).await;
    house.log_in("ann").await;
    house.mcp.expire();
    house.mcp.at_renewal(|_| Reply::Json(401, json!({ "error": "invalid_client" })));
    let answer = house.chat("ann").await;
    assert!(!answer.text().contains("/connect/"), "nobody is asked to log in: {}", answer.text());
    // The operator has put it right, and the pause is over.
    house.execute("UPDATE connection_secrets SET retry_at = 0").await;
    house.runs("ann").await;
    assert_eq!(house.mcp.registrations().len(), 0);
}
