//! Two projects whose users have the same name: what one is given, such as ids, references and links, is nothing to the
//! other.

use serde_json::{Value, json};
use toolgate::config::{ApiKey, EgressAllow, KeyScope};
use toolgate::crypto::ApiKeyHash;
use toolgate::store::{Project, ProjectProof};

use crate::support::{
    Answer, FakeProvider, FakeTool, Gateway, Person, Place, Protected, ask, calls, settings, text, whole,
    with,
};

const SHOP: &str = "tgk_0123456789abcdefghjkmnpq";
const RIVAL: &str = "tgk_1123456789abcdefghjkmnpq";
const SHOP_TOKENS: &str = "tgk_2123456789abcdefghjkmnpq";
const RIVAL_TOKENS: &str = "tgk_3123456789abcdefghjkmnpq";

/// A shop and its rival, each of which says itself who its users are.
struct House {
    mcp: Protected,
    place: Place,
    gateway: Gateway,
}

impl House {
    async fn new() -> House {
        let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
        let provider = FakeProvider::answering(|request| {
            let said = request.json()["messages"].as_array().unwrap().len();
            if said == 1 { calls(&[("call_1", "s_t", json!({}))]) } else { text("done") }
        })
        .await;
        let place = Place::new().await;
        let store = place.store().await;
        store.migrate().await.unwrap();
        let mut chosen = settings(&provider);
        for name in ["shop", "rival"] {
            let project = Project {
                name: name.to_owned(),
                proof: ProjectProof::App,
                verifier_url: Some("http://127.0.0.1:9/verify".to_owned()),
                webhook_url: None,
                sealed_webhook_secret: None,
                created_at: 1,
                updated_at: 1,
            };
            store.create_project(&project).await.unwrap();
        }
        store.close().await;
        for (name, project, key, scopes) in [
            ("shop", "shop", SHOP, None),
            ("rival", "rival", RIVAL, None),
            ("shop-reader", "shop", SHOP_TOKENS, Some(vec![KeyScope::Tokens])),
            ("rival-reader", "rival", RIVAL_TOKENS, Some(vec![KeyScope::Tokens])),
        ] {
            chosen.api_keys.push(ApiKey {
                name: name.into(),
                project: Some(project.into()),
                hash: ApiKeyHash::of(key).to_string(),
                requests_per_minute: None,
                scopes,
            });
        }
        chosen.connections.tokens_endpoint = true;
        let loopback = "127.0.0.0/8".parse().unwrap();
        chosen.egress.allow.push(EgressAllow { cidr: Some(loopback), ..EgressAllow::default() });
        place.give_to(&mut chosen);
        let gateway = Gateway::start(chosen, toolgate::egress::system_lookup()).await;
        House { mcp, place, gateway }
    }

    async fn send(&self, key: &str, method: &str, path: &str, body: &Value) -> Answer {
        let bearer = format!("Bearer {key}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        whole(self.gateway.client.send(method, path, &headers, body).await).await
    }

    async fn confirm(&self, key: &str, reference: &str, user: &str) -> Answer {
        let said = json!({ "flow_ref": reference, "user": user });
        self.send(key, "POST", "/v1/flows/confirm", &said).await
    }

    /// Starts a login of `ann` in the shop and goes as far as to the shop's own page: gives the reference.
    async fn leave(&self, person: &mut Person) -> String {
        let wanted = json!({ "user": "ann", "server_url": self.mcp.url() });
        let started = self.send(SHOP, "POST", "/v1/connections", &wanted).await;
        assert_eq!(started.status, 201, "{}", started.text());
        let leaving = person.log_in(started.json()["connect_url"].as_str().unwrap()).await;
        let reference = leaving.text.split("flow_ref=").nth(1).and_then(|rest| rest.split('"').next());
        reference.unwrap_or_else(|| panic!("the way to the application: {}", leaving.text)).to_owned()
    }

    async fn log_in(&self) {
        let mut person = Person::new();
        let reference = self.leave(&mut person).await;
        let back = self.confirm(SHOP, &reference, "ann").await.json();
        let page = person.log_in(back["redirect_url"].as_str().unwrap()).await;
        assert!(page.text.contains("You have authorised"), "{}", page.text);
    }

    async fn list(&self, key: &str, query: &str) -> Vec<Value> {
        let list = self.send(key, "GET", &format!("/v1/connections{query}"), &Value::Null).await;
        assert_eq!(list.status, 200, "{}", list.text());
        list.json()["data"].as_array().unwrap().clone()
    }

    async fn chat(&self, key: &str) -> Answer {
        let body = with(ask(&[self.mcp.entry("s")]), json!({ "user": "ann" }));
        self.send(key, "POST", "/v1/chat/completions", &body).await
    }

    /// Actor, connection and resource of each row of the audit log about this.
    async fn audit(&self, event: &str) -> Vec<(String, Option<String>, Option<String>)> {
        let store = self.place.store().await;
        let rows = store.list_audit(None, 1000).await.unwrap();
        store.close().await;
        let about = rows.into_iter().filter(|row| row.event == event);
        about.map(|row| (row.actor, row.connection, row.resource)).collect()
    }
}

#[tokio::test]
async fn a_reference_is_the_projects_own_and_works_once() {
    let house = House::new().await;
    let mut person = Person::new();
    let reference = house.leave(&mut person).await;
    for user in ["ann", "bob"] {
        let refused = house.confirm(RIVAL, &reference, user).await;
        assert_eq!((refused.status, &refused.json()["error"]["code"]), (404, &json!("flow_not_found")));
    }
    assert_eq!(house.list(SHOP, "").await.len(), 0);
    let confirmed = house.confirm(SHOP, &reference, "ann").await;
    assert_eq!(confirmed.status, 200, "a rival's try uses nothing up: {}", confirmed.text());
    assert_eq!(house.confirm(SHOP, &reference, "ann").await.status, 404, "it worked before");
    let page = person.log_in(confirmed.json()["redirect_url"].as_str().unwrap()).await;
    assert!(page.text.contains("You have authorised"), "{}", page.text);
    assert_eq!(house.confirm(SHOP, &reference, "ann").await.status, 404, "and after the login");

    let mut other = Person::new();
    house.send(SHOP, "DELETE", &format!("/v1/connections/{}", id(&house).await), &Value::Null).await;
    let reference = house.leave(&mut other).await;
    let refused = house.confirm(SHOP, &reference, "bob").await;
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (409, &json!("user_mismatch")));
    assert_eq!(house.confirm(SHOP, &reference, "ann").await.status, 404, "a wrong name uses it up as well");
    assert_eq!(house.list(SHOP, "").await.len(), 0);
}

async fn id(house: &House) -> String {
    house.list(SHOP, "").await[0]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_rival_can_do_nothing_with_the_id_of_a_connection() {
    let house = House::new().await;
    house.log_in().await;
    let connection = house.list(SHOP, "?user=ann").await.remove(0);
    let path = format!("/v1/connections/{}", connection["id"].as_str().unwrap());
    for query in ["", "?user=ann"] {
        assert_eq!(house.list(RIVAL, query).await, Vec::<Value>::new(), "{query}");
    }
    let after = format!("/v1/connections?after={}", connection["id"].as_str().unwrap());
    let refused = house.send(RIVAL, "GET", &after, &Value::Null).await;
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("after")));
    for (method, path, body) in [
        ("DELETE", path.clone(), Value::Null),
        ("POST", format!("{path}/reauthorize"), json!({})),
        ("POST", format!("{path}/reauthorize"), json!({ "scopes": ["files:read"] })),
    ] {
        let refused = house.send(RIVAL, method, &path, &body).await;
        assert_eq!(
            (refused.status, &refused.json()["error"]["code"]),
            (404, &json!("connection_not_found")),
            "{method}"
        );
    }
    let looked = json!({ "user": "ann", "urls": [house.mcp.url()] });
    let seen = house.send(RIVAL, "POST", "/v1/connections/check", &looked).await.json();
    assert_eq!(seen["data"][0]["status"], "needs_login");
    let answer = house.chat(RIVAL).await;
    assert_eq!(answer.json()["toolgate"]["authorization_required"].as_array().unwrap().len(), 1);
    assert_eq!(house.mcp.callers(), Vec::<String>::new());

    assert_eq!(house.list(SHOP, "?user=ann").await, [connection], "nothing has changed");
    assert!(house.chat(SHOP).await.content().ends_with("done"));
    let gone = house.send(SHOP, "DELETE", &path, &Value::Null).await;
    assert_eq!((gone.status, &gone.json()["deleted"]), (200, &json!(true)));
    assert_eq!(house.send(SHOP, "DELETE", &path, &Value::Null).await.status, 404, "it is gone");
}

#[tokio::test]
async fn a_token_is_given_out_to_its_project_with_the_scope_and_written_down() {
    let house = House::new().await;
    house.log_in().await;
    let connection = id(&house).await;
    let looked = json!({ "user": "ann", "urls": [house.mcp.url()] });
    let refused = house.send(SHOP, "POST", "/v1/connections/tokens", &looked).await;
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (403, &json!("insufficient_scope")));
    let rivals = house.send(RIVAL_TOKENS, "POST", "/v1/connections/tokens", &looked).await.json();
    assert_eq!(rivals["data"], json!([{ "url": house.mcp.url(), "status": "needs_login" }]));
    assert_eq!(house.audit("token.given_out").await, []);

    let given = house.send(SHOP_TOKENS, "POST", "/v1/connections/tokens", &looked).await;
    assert_eq!((given.status, given.header("cache-control")), (200, Some("no-store")));
    let given = given.json()["data"][0].clone();
    assert_eq!((&given["status"], &given["connection"]), (&json!("connected"), &json!(connection)));
    assert!(house.chat(SHOP).await.content().ends_with("done"));
    assert_eq!(house.mcp.callers(), [given["authorization"].as_str().unwrap()], "it is the real one");
    let written = house.audit("token.given_out").await;
    assert_eq!(written, [("shop-reader".to_owned(), Some(connection), Some(house.mcp.url()))]);
    for path in ["/v1/connections", "/v1/connections?user=ann"] {
        assert_eq!(
            house.send(SHOP_TOKENS, "GET", path, &Value::Null).await.status,
            403,
            "it is for that alone"
        );
    }
}
