//! Links as browsers go through them: coming back with another account than before, and browsers that look at pages
//! which nobody has opened.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use toolgate::config::{ApiKey, EgressAllow};
use toolgate::crypto::ApiKeyHash;
use toolgate::store::{Project, ProjectProof};

use super::support::{
    Answer, Browser, FakeProvider, FakeTool, Gateway, Person, Place, Protected, fields_of, settings, whole,
};

const KEY: &str = "tgk_0123456789abcdefghjkmnpq";
const PREFETCH: [(&str, &str); 3] =
    [("sec-purpose", "prefetch;prerender"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];

struct House {
    mcp: Protected,
    gateway: Gateway,
    place: Place,
    key: Option<&'static str>,
}

impl House {
    /// At one's own machine; with `app`, the callers are a project that proves its users itself.
    async fn new(app: bool) -> House {
        let mcp = Protected::start(vec![FakeTool::echo("t")]).await;
        let provider = FakeProvider::start(Vec::new()).await;
        let place = Place::new().await;
        let mut chosen = settings(&provider);
        place.give_to(&mut chosen);
        if app {
            let store = place.store().await;
            store.migrate().await.unwrap();
            let project = Project {
                name: "desk".into(),
                proof: ProjectProof::App,
                verifier_url: Some("http://127.0.0.1:9/verify".into()),
                webhook_url: None,
                sealed_webhook_secret: None,
                created_at: 1,
                updated_at: 1,
            };
            store.create_project(&project).await.unwrap();
            store.close().await;
            chosen.api_keys.push(ApiKey {
                name: "desk".into(),
                project: Some("desk".into()),
                hash: ApiKeyHash::of(KEY).to_string(),
                requests_per_minute: None,
                scopes: None,
            });
            let loopback = "127.0.0.0/8".parse().unwrap();
            chosen.egress.allow.push(EgressAllow { cidr: Some(loopback), ..EgressAllow::default() });
        }
        let gateway = Gateway::start(chosen, toolgate::egress::system_lookup()).await;
        House { mcp, gateway, place, key: app.then_some(KEY) }
    }

    async fn call(&self, method: &str, path: &str, body: &Value) -> Answer {
        let bearer = format!("Bearer {}", self.key.unwrap_or("none"));
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        whole(self.gateway.client.send(method, path, &headers, body).await).await
    }

    /// The path of the page behind a new link for `user`.
    async fn link(&self, user: &str) -> String {
        let wanted = json!({ "user": user, "server_url": self.mcp.url() });
        self.path_of(&self.call("POST", "/v1/connections", &wanted).await)
    }

    fn path_of(&self, started: &Answer) -> String {
        assert_eq!(started.status, 201, "{}", started.text());
        self.path(started.json()["connect_url"].as_str().unwrap())
    }

    /// The path of an address of the gateway.
    fn path(&self, address: &str) -> String {
        let origin = format!("http://{}", self.gateway.address);
        address.strip_prefix(&origin).unwrap_or_else(|| panic!("{address} is elsewhere")).to_owned()
    }

    async fn connections(&self) -> Vec<Value> {
        let list = self.call("GET", "/v1/connections?user=ann", &Value::Null).await.json();
        list["data"].as_array().unwrap().clone()
    }

    /// What the connections say of whom they are.
    async fn accounts(&self) -> Vec<String> {
        let of = |one: &Value| one["account"].as_str().unwrap_or_default().to_owned();
        self.connections().await.iter().map(of).collect()
    }

    /// Presses the button, agrees at the authorization server, and gives the way back.
    async fn way_back(&self, browser: &mut Browser, link: &str) -> String {
        let page = browser.visit(link).await;
        assert!(page.text().contains("<h1>Connect "), "{}", page.text());
        let leaving = browser.submit(&page, link, &[("action", "continue")]).await;
        self.agreed(&browser.leads_to(&leaving)).await
    }

    async fn agreed(&self, address: &str) -> String {
        self.path(&Person::new().open(address).await.location.expect("it sends back"))
    }

    /// How often each event is in the audit log.
    async fn events(&self) -> BTreeMap<String, usize> {
        let store = self.place.store().await;
        let rows = store.list_audit(None, 100).await.unwrap();
        store.close().await;
        counted(rows.into_iter().map(|row| row.event))
    }
}

fn counted(events: impl IntoIterator<Item = impl Into<String>>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for event in events {
        *counts.entry(event.into()).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn another_account_than_before_is_connected_only_when_the_person_says_so() {
    let house = House::new(false).await;
    house.mcp.log_in_as("ann@work.example");
    let mut ann = Browser::new(&house.gateway.client);
    let back = house.way_back(&mut ann, &house.link("ann").await).await;
    assert!(ann.visit(&back).await.text().contains("Connected as ann@work.example."));

    house.mcp.log_in_as("ann@home.example");
    let id = house.connections().await[0]["id"].as_str().unwrap().to_owned();
    let reauthorize = format!("/v1/connections/{id}/reauthorize");
    let link = house.path_of(&house.call("POST", &reauthorize, &json!({ "scopes": ["more"] })).await);
    let answers_to = format!("{link}/account");
    let back = house.way_back(&mut ann, &link).await;
    let asked = ann.visit(&back).await;
    assert_eq!(asked.status, 200);
    for words in ["Is this the right account?", "ann@work.example", "ann@home.example"] {
        assert!(asked.text().contains(words), "{words}: {}", asked.text());
    }
    assert_eq!(house.accounts().await, ["ann@work.example"], "nothing is changed before the answer");

    // The answer counts from the browser that came back only.
    let mut mallory = Browser::new(&house.gateway.client);
    let seen = mallory.visit(&link).await;
    assert!(seen.text().contains("<h1>Connect "), "in another browser it begins anew: {}", seen.text());
    assert!(!seen.text().contains("ann@"), "whose accounts they are is nobody else's business");
    let own = house.link("mallory").await;
    let mut stolen = fields_of(&mallory.visit(&own).await.text(), &own);
    stolen.push(("action".to_owned(), "keep".to_owned()));
    assert_eq!(mallory.post(&answers_to, &stolen).await.status, 400, "another browser");
    let with_anns = fields_of(&asked.text(), &answers_to);
    assert_eq!(mallory.post(&answers_to, &with_anns).await.status, 403, "with the form of ann's page");
    assert_eq!(ann.post_from("https://evil.example", &answers_to, &with_anns).await.status, 403);
    assert_eq!(house.accounts().await, ["ann@work.example"]);

    // Who closed the page finds the question behind the link again.
    let asked = ann.visit(&link).await;
    assert!(asked.text().contains("ann@home.example"), "{}", asked.text());
    let mut no = fields_of(&asked.text(), &answers_to);
    no.retain(|(name, _)| name != "action");
    no.push(("action".to_owned(), "drop".to_owned()));
    let dropped = ann.post(&answers_to, &no).await;
    assert!(dropped.text().contains("Nothing was changed for"), "{}", dropped.text());
    assert_eq!(ann.post(&answers_to, &with_anns).await.status, 410, "a no is a no");
    assert_eq!(house.accounts().await, ["ann@work.example"]);

    let link = house.path_of(&house.call("POST", &reauthorize, &json!({ "scopes": ["more"] })).await);
    let back = house.way_back(&mut ann, &link).await;
    let asked = ann.visit(&back).await;
    let kept = ann.submit(&asked, &format!("{link}/account"), &[]).await;
    assert!(kept.text().contains("Connected as ann@home.example."), "{}", kept.text());
    assert_eq!(house.accounts().await, ["ann@home.example"]);
    assert_eq!(
        house.events().await,
        counted([
            "flow.created",
            "connection.created",
            "flow.created",
            "flow.other_account",
            "flow.created", // mallory's own
            "flow.declined",
            "flow.created",
            "flow.other_account",
            "connection.revoked",
            "connection.created",
        ])
    );
}

#[tokio::test]
async fn a_way_back_that_is_only_looked_at_is_not_used_up() {
    let house = House::new(false).await;
    let mut ann = Browser::new(&house.gateway.client);
    let back = house.way_back(&mut ann, &house.link("ann").await).await;
    for (method, headers) in [("HEAD", &[][..]), ("GET", &PREFETCH), ("GET", &[("purpose", "prefetch")])] {
        assert_eq!(ann.send(method, &back, headers, "").await.status, 425, "{method} {headers:?}");
    }
    assert_eq!(house.connections().await, Vec::<Value>::new());
    assert_eq!(house.events().await, counted(["flow.created"]));
    assert_eq!(ann.visit(&back).await.status, 200);
    assert_eq!(house.connections().await.len(), 1);
    let reloaded = ann.visit(&back).await;
    assert_eq!(reloaded.status, 404);
    assert!(reloaded.text().contains("it is among your connections"), "{}", reloaded.text());
    assert_eq!(house.events().await, counted(["flow.created", "connection.created", "flow.unknown_state"]));
}

#[tokio::test]
async fn after_the_applications_yes_only_opening_the_page_leads_on() {
    let house = House::new(true).await;
    let link = house.link("ann").await;
    let mut ann = Browser::new(&house.gateway.client);
    let page = ann.visit(&link).await;
    let leaving = ann.submit(&page, &link, &[("action", "continue")]).await;
    let verifier = ann.leads_to(&leaving);
    let reference = verifier.split("flow_ref=").nth(1).expect("a reference");
    let said = json!({ "flow_ref": reference, "user": "ann" });
    let back = house.call("POST", "/v1/flows/confirm", &said).await.json();
    let back = house.path(back["redirect_url"].as_str().unwrap());
    for (method, headers) in [("GET", &PREFETCH[..]), ("HEAD", &[])] {
        let looked = ann.send(method, &back, headers, "").await;
        assert_eq!((looked.status, looked.header("refresh")), (425, None), "{method}");
    }
    let opened = ann.visit(&back).await;
    let back = house.agreed(&ann.leads_to(&opened)).await;
    assert!(ann.visit(&back).await.text().contains("You have authorised"));
    assert_eq!(house.events().await, counted(["flow.created", "connection.created"]));
}

#[tokio::test]
async fn the_applications_yes_is_for_one_browser() {
    let house = House::new(true).await;
    let link = house.link("ann").await;
    let (mut ann, mut mallory) = (Browser::new(&house.gateway.client), Browser::new(&house.gateway.client));
    let page = ann.visit(&link).await;
    let leaving = ann.submit(&page, &link, &[("action", "continue")]).await;
    let verifier = ann.leads_to(&leaving);
    let said = json!({ "flow_ref": verifier.split("flow_ref=").nth(1), "user": "ann" });
    assert_eq!(house.call("POST", "/v1/flows/confirm", &said).await.status, 200);
    let seen = mallory.visit(&link).await;
    assert_eq!((seen.status, seen.header("refresh")), (200, None), "mallory has to be proven first");
    let pressed = mallory.submit(&seen, &link, &[("action", "continue")]).await;
    assert!(mallory.leads_to(&pressed).starts_with("http://127.0.0.1:9/verify"), "{}", pressed.text());
    assert_eq!(house.connections().await, Vec::<Value>::new());
}
