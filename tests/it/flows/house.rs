//! A gateway that people connect servers through, and what it has stored and written down.

use serde_json::{Value, json};
use toolgate::config::{ApiKey, EgressAllow, Secret, SignIn};
use toolgate::crypto::ApiKeyHash;
use toolgate::store::{Project, ProjectProof, Value as Sql};

use crate::support::{
    Answer, FakeProvider, FakeTool, Gateway, Page, Peer, Person, Place, Program, Protected, Reply, ask,
    settings, text, whole, with,
};

/// A project whose application proves its users.
pub const SHOP: &str = "tgk_0123456789abcdefghjkmnpq";
/// A project whose users sign in at the gateway.
pub const DESK: &str = "tgk_1123456789abcdefghjkmnpq";

pub struct House {
    pub gateway: Gateway,
    place: Place,
    _issuer: Option<Peer>,
}

pub async fn server() -> Protected {
    Protected::start(vec![FakeTool::text("t", "x")]).await
}

impl House {
    /// One person's machine, where nobody has to be proven.
    pub async fn local() -> House {
        let provider = FakeProvider::answering(|_| text("done")).await;
        let place = Place::new().await;
        let mut chosen = settings(&provider);
        place.give_to(&mut chosen);
        let gateway = Gateway::start(chosen, toolgate::egress::system_lookup()).await;
        House { gateway, place, _issuer: None }
    }

    /// For the projects [`SHOP`] and [`DESK`]; at its sign-in provider everybody is who the path of the page says.
    pub async fn hosted() -> House {
        let provider = FakeProvider::answering(|_| text("done")).await;
        let place = Place::new().await;
        let store = place.store().await;
        store.migrate().await.unwrap();
        let mut chosen = settings(&provider);
        let app = Some("http://127.0.0.1:9/verify".to_owned());
        for (name, key, proof, verifier_url) in
            [("shop", SHOP, ProjectProof::App, app), ("desk", DESK, ProjectProof::Gateway, None)]
        {
            let project = Project {
                name: name.to_owned(),
                proof,
                verifier_url,
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
                requests_per_minute: None,
                scopes: None,
            });
        }
        store.close().await;
        let loopback = "127.0.0.0/8".parse().unwrap();
        chosen.egress.allow.push(EgressAllow { cidr: Some(loopback), ..EgressAllow::default() });
        let issuer = sign_in_provider().await;
        chosen.sign_in = ["anna", "bob"]
            .iter()
            .map(|name| SignIn {
                name: (*name).into(),
                issuer: Some(issuer.url("")),
                client_id: (*name).into(),
                client_secret: Some(Secret::new("client-secret")),
                ..SignIn::default()
            })
            .collect();
        place.give_to(&mut chosen);
        let gateway = Gateway::start(chosen, toolgate::egress::system_lookup()).await;
        House { gateway, place, _issuer: Some(issuer) }
    }

    /// The program beside the gateway.
    pub fn program(&self) -> Program {
        Program::at(&self.place)
    }

    pub async fn send(&self, key: &str, path: &str, body: &Value) -> Answer {
        let bearer = format!("Bearer {key}");
        self.gateway.client.post(path, &[("authorization", &bearer)], body).await
    }

    /// The link of a login of `user` at `server`.
    pub async fn link(&self, key: &str, user: &str, server: &str) -> String {
        let started = self.send(key, "/v1/connections", &json!({ "user": user, "server_url": server })).await;
        assert_eq!(started.status, 201, "{}", started.text());
        started.json()["connect_url"].as_str().unwrap().to_owned()
    }

    /// The links of a completion that needs all these servers, and the one for all.
    pub async fn links(&self, key: &str, user: &str, servers: &[&Protected]) -> (Vec<String>, String) {
        let labels = ["one", "two", "three"];
        let tools: Vec<Value> =
            servers.iter().zip(labels).map(|(server, label)| server.entry(label)).collect();
        let body = with(ask(&tools), json!({ "user": user }));
        let answer = self.send(key, "/v1/chat/completions", &body).await.json();
        let missing = answer["toolgate"]["authorization_required"].as_array().expect("logins are missing");
        let link = |value: &Value| value.as_str().expect("a link").to_owned();
        let all = link(&answer["toolgate"]["connect_all_url"]);
        (missing.iter().map(|entry| link(&entry["connect_url"])).collect(), all)
    }

    /// The application of [`SHOP`] says who came with a reference.
    pub async fn confirm(&self, flow_ref: &str, user: &str) -> Answer {
        self.send(SHOP, "/v1/flows/confirm", &json!({ "flow_ref": flow_ref, "user": user })).await
    }

    /// Opens a link, agrees, and is confirmed by the application: the address with which it sends the browser back.
    pub async fn confirmed(&self, person: &mut Person, link: &str, user: &str) -> String {
        let page = person.open(link).await;
        let page = person.press(&page, "continue").await;
        let flow_ref = page.flow_ref().unwrap_or_else(|| panic!("the way to the application: {}", page.text));
        let answer = self.confirm(&flow_ref, user).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["redirect_url"].as_str().unwrap().to_owned()
    }

    /// Signs in as `name` of the gateway's sign-in provider.
    pub async fn sign_in(&self, person: &mut Person, name: &str) {
        let page = person.open(&self.url("/login?return_to=/account")).await;
        let page = person.press(&page, &format!("/login/{name}")).await;
        let page = person.follow(page).await;
        assert!(page.status == 200 && page.address.ends_with("/account"), "{}: {}", page.address, page.text);
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.gateway.address)
    }

    /// A page as something sees it that has no cookie.
    pub async fn look(&self, method: &str, address: &str, headers: &[(&str, &str)]) -> Answer {
        let path = address.strip_prefix(&self.url("")).expect("an address of the gateway");
        whole(self.gateway.client.send(method, path, headers, "").await).await
    }

    /// Accounts of the connections to a server.
    pub async fn accounts(&self, server: &str) -> Vec<String> {
        let sql = "SELECT account FROM connections WHERE resource = $1 AND status <> 'revoked'";
        let rows = self.rows(sql, server).await;
        rows.iter()
            .map(|row| String::from_utf8(row.opt_bytes("account").unwrap().unwrap_or_default()).unwrap())
            .collect()
    }

    /// What the audit log says about a server since its link was made, in alphabetical order.
    pub async fn audit(&self, server: &str) -> Vec<String> {
        let rows = self.rows("SELECT event FROM audit WHERE resource = $1", server).await;
        let mut events: Vec<String> = rows.iter().map(|row| row.text("event").unwrap()).collect();
        events.sort();
        events.retain(|event| event != "flow.created");
        events
    }

    /// Nothing of a server is stored, and the audit log says this.
    pub async fn nothing_stored(&self, server: &str, events: &[&str]) {
        assert_eq!(self.accounts(server).await, Vec::<String>::new());
        assert_eq!(self.audit(server).await, events);
    }

    /// The time of every open flow is up.
    pub async fn end_flows(&self) {
        let store = self.place.store().await;
        store.execute("UPDATE flows SET expires_at = 1", Vec::new()).await.unwrap();
        store.close().await;
    }

    async fn rows(&self, sql: &'static str, server: &str) -> Vec<toolgate::store::Row> {
        let store = self.place.store().await;
        let rows = store.rows(sql, vec![Sql::from(server)]).await.unwrap();
        store.close().await;
        rows
    }
}

/// What the authorization server was asked for.
pub fn asked(server: &Protected, path: &str) -> usize {
    server.peer.requests().iter().filter(|request| request.path.split('?').next() == Some(path)).count()
}

/// The way back from the authorization server, which is not gone: `page` is the one that leads there.
pub async fn way_back(person: &mut Person, page: &Page) -> String {
    let target = page.target().filter(|_| page.leaves());
    let target = target.unwrap_or_else(|| panic!("the way to the authorization server: {}", page.text));
    person.open(&target).await.location.expect("the way back")
}

/// Opens a link, agrees, and gives the way back from the authorization server, which is not gone.
pub async fn almost(person: &mut Person, link: &str) -> String {
    let page = person.open(link).await;
    let page = person.press(&page, "continue").await;
    way_back(person, &page).await
}

/// Signs in everybody as the client is called.
async fn sign_in_provider() -> Peer {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    Peer::start(|request| {
        let own = format!("http://{}", request.header("host").unwrap_or_default());
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let fields = |text: &str| -> std::collections::BTreeMap<String, String> {
            url::form_urlencoded::parse(text.as_bytes()).into_owned().collect()
        };
        match path {
            "/.well-known/openid-configuration" => Reply::Json(
                200,
                json!({
                    "issuer": own, "authorization_endpoint": format!("{own}/authorize"),
                    "token_endpoint": format!("{own}/token"),
                }),
            ),
            "/authorize" => {
                let asked = fields(query);
                let code = format!("{}~{}", asked["client_id"], asked["nonce"]);
                let back = format!("{}?code={code}&state={}", asked["redirect_uri"], asked["state"]);
                Reply::with_headers(302, &[("location", &back)], "")
            }
            "/token" => {
                let given = fields(&request.text());
                let (name, nonce) = given["code"].split_once('~').unwrap();
                let claims = json!({
                    "iss": own, "sub": name, "aud": name, "exp": 9_000_000_000_i64, "nonce": nonce,
                });
                let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()));
                Reply::Json(200, json!({ "access_token": "at", "token_type": "Bearer", "id_token": token }))
            }
            _ => Reply::Json(404, json!({})),
        }
    })
    .await
}
