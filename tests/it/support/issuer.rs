//! An OpenID provider at which people sign in to the gateway, and the way there and back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use toolgate::config::{Secret, SignIn};

use super::{Answer, Browser, Peer, Recorded, Reply};

/// Where the gateway says that it is.
pub const PUBLIC: &str = "https://tools.example.com";
/// Later than any clock of ours.
const NEVER: i64 = 9_000_000_000;

/// An issuer that signs in whoever the test says.
#[derive(Clone)]
pub struct Issuer {
    pub peer: Peer,
    /// What the token endpoint answers for each code.
    codes: Arc<Mutex<BTreeMap<String, Value>>>,
}

impl Issuer {
    pub async fn start(iss_parameter: bool) -> Issuer {
        let codes: Arc<Mutex<BTreeMap<String, Value>>> = Arc::default();
        let known = Arc::clone(&codes);
        let peer = Peer::start(move |request: &Recorded| {
            let base = format!("http://{}", request.header("host").unwrap_or_default());
            match request.path.as_str() {
                "/.well-known/openid-configuration" => Reply::Json(
                    200,
                    json!({
                        "issuer": base,
                        "authorization_endpoint": format!("{base}/authorize"),
                        "token_endpoint": format!("{base}/token"),
                        "authorization_response_iss_parameter_supported": iss_parameter,
                    }),
                ),
                "/token" | "/login/oauth/access_token" | "/2/oauth2/token" | "/common/oauth2/v2.0/token" => {
                    let text = request.text();
                    let fields: BTreeMap<_, _> =
                        url::form_urlencoded::parse(text.as_bytes()).into_owned().collect();
                    // A code works once.
                    match known.lock().unwrap().remove(fields.get("code").map_or("", String::as_str)) {
                        Some(answer) => Reply::Json(200, answer),
                        None => Reply::Json(400, json!({ "error": "invalid_grant" })),
                    }
                }
                "/api/v3/user" => Reply::Json(200, json!({ "id": 583_231, "login": "octocat" })),
                "/2/users/me" => {
                    Reply::Json(200, json!({ "data": { "id": "2244994945", "username": "dev" } }))
                }
                _ => Reply::Json(404, json!({})),
            }
        })
        .await;
        Issuer { peer, codes }
    }

    pub fn url(&self) -> String {
        self.peer.url("")
    }

    /// Lets `subject` agree at the issuer to the sign-in that `address` asks for, and gives the path of the gateway
    /// to which they are sent back. `change` is put over the ID token's claims.
    pub fn agree(&self, address: &str, subject: &str, change: &Value) -> String {
        let asked = query_of(address);
        let mut claims = json!({ "iss": self.url(), "sub": subject, "aud": "client", "exp": NEVER, "nonce": asked.get("nonce"), "email": format!("{subject}@example.com"), "email_verified": true });
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let code = format!("code-{subject}-{}", self.codes.lock().unwrap().len());
        let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()));
        self.codes
            .lock()
            .unwrap()
            .insert(code.clone(), json!({ "access_token": "at", "token_type": "Bearer", "id_token": token }));
        let callback = asked["redirect_uri"].strip_prefix(PUBLIC).unwrap();
        format!("{callback}?code={code}&state={}", asked["state"])
    }
}

pub fn query_of(address: &str) -> BTreeMap<String, String> {
    url::Url::parse(address).unwrap().query_pairs().into_owned().collect()
}

pub fn entry(name: &str, issuer: &Issuer) -> SignIn {
    SignIn {
        name: name.into(),
        issuer: Some(issuer.url()),
        client_id: "client".into(),
        client_secret: Some(Secret::new("client-secret")),
        ..SignIn::default()
    }
}

/// Goes to the provider; gives the address there.
pub async fn leave(browser: &mut Browser, provider: &str, return_to: &str) -> String {
    let page = browser.visit(&format!("/login?return_to={return_to}")).await;
    let leaving = browser.submit(&page, &format!("/login/{provider}"), &[]).await;
    assert_eq!(leaving.status, 200, "{}", leaving.text());
    browser.leads_to(&leaving)
}

pub async fn sign_in(browser: &mut Browser, issuer: &Issuer, subject: &str) -> Answer {
    let address = leave(browser, "company", "/account").await;
    browser.visit(&issuer.agree(&address, subject, &json!({}))).await
}
