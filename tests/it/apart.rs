//! Two projects whose users have the same names, with profiles: whatever they do in whatever order, no request carries
//! a token of somebody else.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use toolgate::config::{ApiKey, EgressAllow};
use toolgate::crypto::ApiKeyHash;
use toolgate::store::{Project, ProjectProof};

use crate::support::{
    Answer, FakeProvider, FakeTool, Gateway, Person, Place, Protected, ask, calls, settings, text,
    text_result, whole, with,
};

const KEYS: [(&str, &str); 2] =
    [("shop", "tgk_0123456789abcdefghjkmnpq"), ("rival", "tgk_1123456789abcdefghjkmnpq")];
const PROFILES: [&str; 3] = ["", "work", "home"];
const USERS: [&str; 2] = ["ann", "Ann"];
/// Paths of one server: each a resource of its own, the first covering the second.
const PATHS: [&str; 3] = ["", "/deep", "2"];

/// Who does something, where.
#[derive(Debug, Clone, Copy)]
struct Who {
    project: usize,
    user: usize,
    profile: usize,
    path: usize,
}

#[derive(Debug, Clone)]
enum Step {
    Connect(Who),
    /// All at the same time.
    Call(Vec<Who>),
    Revoke(Who),
    Expire,
}

fn who() -> impl Strategy<Value = Who> {
    (0..KEYS.len(), 0..USERS.len(), 0..PROFILES.len(), 0..PATHS.len())
        .prop_map(|(project, user, profile, path)| Who { project, user, profile, path })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => who().prop_map(Step::Connect),
        4 => proptest::collection::vec(who(), 1..12).prop_map(Step::Call),
        1 => who().prop_map(Step::Revoke),
        1 => Just(Step::Expire),
    ];
    proptest::collection::vec(step, 6..24)
}

impl Who {
    /// Whose a token is: not which resource's, since one may cover another.
    fn name(self) -> String {
        format!("{}/{}/{}", KEYS[self.project].0, USERS[self.user], PROFILES[self.profile])
    }

    fn profiled(self) -> Value {
        match PROFILES[self.profile] {
            "" => json!({}),
            profile => json!({ "profile": profile }),
        }
    }

    fn bearer(self) -> String {
        format!("Bearer {}", KEYS[self.project].1)
    }
}

struct House {
    mcp: Protected,
    _provider: FakeProvider,
    _place: Place,
    gateway: Gateway,
}

impl House {
    async fn new() -> House {
        let mcp = Protected::start(vec![FakeTool::new("t", |_| text_result("x"))]).await;
        // The model does as its user says.
        let provider = FakeProvider::answering(|request| {
            let body = request.json();
            let messages = body["messages"].as_array().unwrap();
            if messages.iter().any(|message| message["role"] == "tool") {
                return text("done");
            }
            let owner = messages.iter().find(|message| message["role"] == "user").unwrap();
            calls(&[("call_1", "s_t", json!({ "owner": owner["content"] }))])
        })
        .await;
        let place = Place::new().await;
        let store = place.store().await;
        store.migrate().await.unwrap();
        let mut chosen = settings(&provider);
        for (name, key) in KEYS {
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
            chosen.api_keys.push(ApiKey {
                name: name.into(),
                project: Some(name.into()),
                hash: ApiKeyHash::of(key).to_string(),
                requests_per_minute: Some(1_000_000),
                scopes: None,
            });
        }
        store.close().await;
        let loopback = "127.0.0.0/8".parse().unwrap();
        chosen.egress.allow.push(EgressAllow { cidr: Some(loopback), ..EgressAllow::default() });
        place.give_to(&mut chosen);
        let gateway = Gateway::start(chosen, toolgate::egress::system_lookup()).await;
        House { mcp, _provider: provider, _place: place, gateway }
    }

    async fn send(&self, who: Who, method: &str, path: &str, body: &Value) -> Answer {
        let bearer = who.bearer();
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        whole(self.gateway.client.send(method, path, &headers, body).await).await
    }

    fn url(&self, who: Who) -> String {
        format!("{}{}", self.mcp.url(), PATHS[who.path])
    }

    /// Whether a login was needed.
    async fn connect(&self, who: Who) -> bool {
        let mut wanted = who.profiled();
        wanted["user"] = json!(USERS[who.user]);
        wanted["server_url"] = json!(self.url(who));
        let started = self.send(who, "POST", "/v1/connections", &wanted).await.json();
        let Some(link) = started["connect_url"].as_str() else {
            assert_eq!(started["status"], "connected", "{started}");
            return false;
        };
        let mut person = Person::new();
        let leaving = person.log_in(link).await;
        let reference = leaving.text.split("flow_ref=").nth(1).and_then(|rest| rest.split('"').next());
        let Some(reference) = reference else { panic!("the way to the application: {}", leaving.text) };
        let said = json!({ "flow_ref": reference, "user": USERS[who.user] });
        let back = self.send(who, "POST", "/v1/flows/confirm", &said).await.json();
        self.mcp.log_in_as(&who.name());
        let page = person.log_in(back["redirect_url"].as_str().unwrap_or_else(|| panic!("{back}"))).await;
        assert_eq!(page.status, 200, "{}", page.text);
        true
    }

    /// Whether the tool was called.
    async fn call(&self, who: Who) -> bool {
        let tool = json!({ "type": "mcp", "server_url": self.url(who), "server_label": "s" });
        let asked = json!({
            "user": USERS[who.user], "toolgate": who.profiled(),
            "messages": [{ "role": "user", "content": who.name() }],
        });
        let answer = self.send(who, "POST", "/v1/chat/completions", &with(ask(&[tool]), asked)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.content().ends_with("done")
    }

    async fn revoke(&self, who: Who) {
        let list = format!("/v1/connections?user={}", USERS[who.user]);
        let list = self.send(who, "GET", &list, &Value::Null).await.json();
        for connection in list["data"].as_array().unwrap() {
            let of = connection["profile"].as_str().unwrap_or_default();
            if of == PROFILES[who.profile] && connection["server_url"] == self.url(who) {
                let path = format!("/v1/connections/{}", connection["id"].as_str().unwrap());
                self.send(who, "DELETE", &path, &Value::Null).await;
            }
        }
    }

    /// How many tool calls there were.
    async fn go(&self, steps: &[Step]) -> usize {
        let mut called = 0;
        for step in steps {
            match step {
                Step::Connect(who) => {
                    self.connect(*who).await;
                    // A token that was refused twice within a minute wants another login.
                    if !self.call(*who).await {
                        assert!(self.connect(*who).await, "{who:?} can log in again");
                        assert!(self.call(*who).await, "{who:?} is connected");
                    }
                }
                Step::Call(all) => {
                    let done = futures_util::future::join_all(all.iter().map(|who| self.call(*who))).await;
                    called += done.into_iter().filter(|done| *done).count();
                }
                Step::Revoke(who) => self.revoke(*who).await,
                Step::Expire => self.mcp.expire(),
            }
            assert_eq!(self.mcp.strangers(), Vec::<String>::new(), "after {step:?} of {steps:?}");
        }
        called
    }
}

#[test]
fn no_request_carries_a_token_of_another_project_user_or_profile() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let house = runtime.block_on(House::new());
    let called = std::cell::Cell::new(0);
    let config = Config { cases: 24, max_shrink_iters: 0, failure_persistence: None, ..Config::default() };
    let run = TestRunner::new(config).run(&steps(), |steps| {
        called.set(called.get() + runtime.block_on(house.go(&steps)));
        Ok(())
    });
    run.unwrap();
    assert!(called.get() > 50, "tools were called: {}", called.get());
}
