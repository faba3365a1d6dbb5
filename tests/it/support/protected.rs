//! An MCP server that wants a login, and the authorization server that gives it: on one origin, agreeing to everything.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use super::mcp::respond;
use super::{FakeTool, Gate, Peer, Recorded, Reply};

/// The server. Every path below `/mcp` is a protected resource of its own.
#[derive(Clone)]
pub struct Protected {
    pub peer: Peer,
    state: Arc<Mutex<State>>,
}

/// What the token endpoint does about one renewal. What it is given carries the renewal out, and says what it would
/// answer.
type Turn = Box<dyn FnOnce(&mut dyn FnMut() -> Reply) -> Reply + Send>;

#[derive(Default)]
struct State {
    codes: HashMap<String, Grant>,
    access: HashMap<String, Grant>,
    refresh: HashMap<String, Grant>,
    next: u32,
    refreshes: usize,
    /// People say no.
    declining: bool,
    /// Stands in every code, token and client secret, to be looked for.
    mark: String,
    /// What it answers when tokens are revoked; without it, it does not offer that.
    revocation: Option<u16>,
    /// It answers revocations, and codes, once these are open.
    revocation_gate: Option<Gate>,
    code_gate: Option<Gate>,
    /// Tokens that were revoked.
    revoked: Vec<String>,
    /// Tools that want one more scope.
    stricter: HashMap<String, String>,
    /// What an expired token gets instead of 401. Then tokens do not say when they end, either.
    disguise: Option<(u16, String)>,
    /// Next renewals that are not as usual.
    turns: VecDeque<Turn>,
    /// Refresh tokens stay good, and no new ones are given.
    keeps_refresh_tokens: bool,
    /// Tools are listed, and open to be called, without a login where they are not these.
    open_but_for: Option<Vec<String>>,
    /// When the secrets of clients expire; 0 is never.
    secrets_end: i64,
    /// Requests for this path are answered only once the gate is open; so many more of them.
    held: Option<(&'static str, Gate, usize)>,
    /// Whom the next login is for.
    owner: String,
    /// Clients that were registered.
    clients: u32,
    /// Tool calls with the token of somebody else.
    strangers: Vec<String>,
    /// It tells its tools without a login.
    lists_openly: bool,
    /// It is broken.
    down: bool,
}

/// What a person agreed to.
#[derive(Clone, Default)]
struct Grant {
    scopes: BTreeSet<String>,
    owner: String,
}

const METADATA: &str = "/.well-known/oauth-protected-resource";

impl Protected {
    pub async fn start(tools: Vec<FakeTool>) -> Protected {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let peer = Peer::start(move |request| {
            let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let reply = state.answer(&tools, request);
            match &mut state.held {
                Some((path, gate, count)) if *count > 0 && request.path.starts_with(*path) => {
                    *count -= 1;
                    reply.after(gate)
                }
                _ => reply,
            }
        })
        .await;
        Protected { peer, state }
    }

    /// As [`Protected::start`]; clients get a secret, and every code, token and client secret has `mark` in it.
    pub async fn marked(tools: Vec<FakeTool>, mark: &str) -> Protected {
        let made = Protected::start(tools).await;
        made.lock().mark = mark.to_owned();
        made
    }

    /// It offers the revocation of tokens, and answers with this status.
    pub fn answer_revocations(&self, status: u16) {
        self.lock().revocation = Some(status);
    }

    /// It offers the revocation of tokens, and answers once the gate is open.
    pub fn answer_revocations_after(&self, gate: &Gate) {
        let mut state = self.lock();
        (state.revocation, state.revocation_gate) = (Some(200), Some(gate.clone()));
    }

    /// It gives tokens for codes once the gate is open.
    pub fn answer_codes_after(&self, gate: &Gate) {
        self.lock().code_gate = Some(gate.clone());
    }

    /// The tokens that were revoked, in order.
    pub fn revoked(&self) -> Vec<String> {
        self.lock().revoked.clone()
    }

    pub fn url(&self) -> String {
        self.peer.url("/mcp")
    }

    /// The tool entry of a request.
    pub fn entry(&self, label: &str) -> Value {
        json!({ "type": "mcp", "server_url": self.url(), "server_label": label })
    }

    /// Its access tokens are not valid any more; they can be renewed.
    pub fn expire(&self) {
        self.lock().access.clear();
    }

    /// Nothing that was granted is valid any more.
    pub fn end_grants(&self) {
        let mut state = self.lock();
        state.access.clear();
        state.refresh.clear();
    }

    /// People say no from now on.
    pub fn decline(&self) {
        self.lock().declining = true;
    }

    /// The tool wants this scope besides.
    pub fn want(&self, tool: &str, scope: &str) {
        self.lock().stricter.insert(tool.to_owned(), scope.to_owned());
    }

    /// It tells its tools to everybody from now on; calls want a login.
    pub fn list_openly(&self) {
        self.lock().lists_openly = true;
    }

    /// It answers everything with 503 from now on.
    pub fn break_down(&self) {
        self.lock().down = true;
    }

    /// An expired token gets this answer instead of 401.
    pub fn disguise(&self, status: u16, body: &str) {
        self.lock().disguise = Some((status, body.to_owned()));
    }

    /// How often a token was renewed.
    pub fn refreshes(&self) -> usize {
        self.lock().refreshes
    }

    /// Its tools are listed to everybody, and only these want a login.
    pub fn guard_only(&self, tools: &[&str]) {
        self.lock().open_but_for = Some(tools.iter().map(|tool| (*tool).to_owned()).collect());
    }

    /// The secrets of clients that are registered from now on expire then, in seconds since 1970.
    pub fn end_secrets_at(&self, seconds: i64) {
        self.lock().secrets_end = seconds;
    }

    /// The clients that were registered, as they described themselves.
    pub fn registrations(&self) -> Vec<Value> {
        let requests = self.peer.requests();
        requests.iter().filter(|request| request.path == "/register").map(Recorded::json).collect()
    }

    /// The clients that token requests came from, in order.
    pub fn token_clients(&self) -> Vec<String> {
        let requests = self.peer.requests();
        let asked = requests.iter().filter(|request| request.path == "/token");
        asked.map(|request| field(&request.text(), "client_id")).collect()
    }

    /// The next renewal goes like this.
    pub fn at_renewal(&self, turn: impl FnOnce(&mut dyn FnMut() -> Reply) -> Reply + Send + 'static) {
        self.lock().turns.push_back(Box::new(turn));
    }

    /// Requests for `path` are carried out as they come, and answered once the gate is open.
    pub fn hold(&self, path: &'static str, gate: &Gate) {
        self.lock().held = Some((path, gate.clone(), usize::MAX));
    }

    /// As [`Protected::hold`], only the next one.
    pub fn hold_next(&self, path: &'static str, gate: &Gate) {
        self.lock().held = Some((path, gate.clone(), 1));
    }

    /// Waits until it has had `count` requests for `path`.
    pub async fn until_asked_for(&self, path: &str, count: usize) {
        self.peer.until_requests_that(count, |request| request.path.starts_with(path)).await;
    }

    /// Refresh tokens stay good from now on, and no new ones are given.
    pub fn keep_refresh_tokens(&self) {
        self.lock().keeps_refresh_tokens = true;
    }

    /// The next logins are `owner`'s.
    pub fn log_in_as(&self, owner: &str) {
        owner.clone_into(&mut self.lock().owner);
    }

    /// Tool calls whose argument `owner` is not whom their token was given to.
    pub fn strangers(&self) -> Vec<String> {
        self.lock().strangers.clone()
    }

    /// The refresh tokens that it was sent, in order.
    pub fn renewals(&self) -> Vec<String> {
        let requests = self.peer.requests();
        let renewals = requests.iter().filter(|request| is_renewal(request));
        renewals.map(|request| field(&request.text(), "refresh_token")).collect()
    }

    /// Waits until it has been asked for `count` renewals.
    pub async fn until_renewals(&self, count: usize) {
        self.peer.until_requests_that(count, is_renewal).await;
    }

    /// The access tokens that tool calls came with, in order.
    pub fn callers(&self) -> Vec<String> {
        let requests = self.peer.requests();
        let calls = requests
            .iter()
            .filter(|request| request.path.starts_with("/mcp") && request.json()["method"] == "tools/call");
        calls.map(|call| call.header("authorization").unwrap_or_default().to_owned()).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn answer(&mut self, tools: &[FakeTool], request: &Recorded) -> Reply {
        let own = format!("http://{}", request.header("host").unwrap_or_default());
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        if self.down {
            return Reply::Json(503, json!({}));
        }
        match path {
            "/.well-known/oauth-authorization-server" => {
                let mut document = json!({
                    "issuer": own, "authorization_endpoint": format!("{own}/authorize"),
                    "token_endpoint": format!("{own}/token"), "registration_endpoint": format!("{own}/register"),
                    "response_types_supported": ["code"], "code_challenge_methods_supported": ["S256"],
                    "grant_types_supported": ["authorization_code", "refresh_token"],
                    "token_endpoint_auth_methods_supported": [self.auth_method()],
                    "authorization_response_iss_parameter_supported": true,
                });
                if self.revocation.is_some() {
                    document["revocation_endpoint"] = json!(format!("{own}/revoke"));
                }
                Reply::Json(200, document)
            }
            "/register" => {
                let mut client = request.json();
                self.clients += 1;
                client["client_id"] = json!(format!("client-{}", self.clients));
                client["token_endpoint_auth_method"] = json!(self.auth_method());
                if !self.mark.is_empty() {
                    client["client_secret"] = json!(format!("secret{}", self.mark));
                    client["client_secret_expires_at"] = json!(self.secrets_end);
                }
                Reply::Json(201, client)
            }
            "/revoke" => behind(self.revocation_gate.clone(), self.revoke(&request.text())),
            "/authorize" => self.authorize(&own, query),
            "/token" => match is_renewal(request).then(|| self.turns.pop_front()).flatten() {
                Some(turn) => turn(&mut || self.token(&request.text())),
                None if is_renewal(request) => self.token(&request.text()),
                None => behind(self.code_gate.clone(), self.token(&request.text())),
            },
            "/login" => Reply::with_headers(200, &[("content-type", "text/html")], "<h1>Log in</h1>"),
            _ if path.starts_with(METADATA) => Reply::Json(
                200,
                json!({
                    "resource": format!("{own}{}", &path[METADATA.len()..]), "authorization_servers": [own],
                    "scopes_supported": ["files:read"],
                }),
            ),
            _ if path.starts_with("/mcp") => self.mcp(tools, &own, path, request),
            _ => Reply::Json(404, json!({})),
        }
    }

    fn name(&mut self, prefix: &str) -> String {
        self.next += 1;
        format!("{prefix}{}-{}", self.mark, self.next)
    }

    fn auth_method(&self) -> &'static str {
        if self.mark.is_empty() { "none" } else { "client_secret_post" }
    }

    fn revoke(&mut self, form: &str) -> Reply {
        let status = self.revocation.unwrap_or(404);
        if status == 200 {
            let token = field(form, "token");
            self.access.remove(&token);
            self.refresh.remove(&token);
            self.revoked.push(token);
        }
        Reply::Json(status, json!({}))
    }

    fn authorize(&mut self, own: &str, query: &str) -> Reply {
        let field = |name: &str| field(query, name);
        let back = field("redirect_uri");
        let (state, issuer) = (field("state"), escaped(own));
        let answer = if self.declining {
            "error=access_denied".to_owned()
        } else {
            let code = self.name("code");
            let scopes = field("scope").split_whitespace().map(str::to_owned).collect();
            self.codes.insert(code.clone(), Grant { scopes, owner: self.owner.clone() });
            format!("code={code}")
        };
        let location = format!("{back}?{answer}&state={}&iss={issuer}", escaped(&state));
        Reply::with_headers(302, &[("location", &location)], "")
    }

    fn token(&mut self, form: &str) -> Reply {
        let grant = if field(form, "grant_type") == "refresh_token" {
            self.refreshes += 1;
            let token = field(form, "refresh_token");
            if self.keeps_refresh_tokens {
                self.refresh.get(&token).cloned()
            } else {
                self.refresh.remove(&token)
            }
        } else {
            self.codes.remove(&field(form, "code"))
        };
        let Some(grant) = grant else { return Reply::Json(400, json!({ "error": "invalid_grant" })) };
        let access = self.name("access");
        self.access.insert(access.clone(), grant.clone());
        let mut answer = json!({ "access_token": access, "token_type": "Bearer" });
        if !grant.owner.is_empty() {
            answer["email"] = json!(grant.owner);
        }
        if self.disguise.is_none() {
            answer["expires_in"] = json!(3600);
        }
        if !(self.keeps_refresh_tokens && field(form, "grant_type") == "refresh_token") {
            let refresh = self.name("refresh");
            self.refresh.insert(refresh.clone(), grant.clone());
            answer["refresh_token"] = json!(refresh);
            answer["scope"] = json!(grant.scopes.into_iter().collect::<Vec<_>>().join(" "));
        }
        Reply::Json(200, answer)
    }

    fn mcp(&mut self, tools: &[FakeTool], own: &str, path: &str, request: &Recorded) -> Reply {
        if self.lists_openly && request.json()["method"] != "tools/call" {
            return respond(tools, "private", request);
        }
        let token = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        let challenge = |status: u16, more: &str| {
            let challenge = format!(r#"Bearer resource_metadata="{own}{METADATA}{path}"{more}"#);
            Reply::with_headers(status, &[("www-authenticate", &challenge)], "")
        };
        let message = request.json();
        let is_open = self
            .open_but_for
            .as_ref()
            .is_some_and(|guarded| !guarded.iter().any(|tool| message["params"]["name"] == tool.as_str()));
        if token.is_none() && is_open {
            return respond(tools, "public", request);
        }
        let Some(grant) = token.and_then(|token| self.access.get(token)) else {
            if let (Some(_), Some((status, body))) = (token, &self.disguise) {
                let body = body.replace("\"ID\"", &request.json()["id"].to_string());
                let headers = [("content-type", "application/json"), ("location", "/login")];
                return Reply::with_headers(*status, &headers, &body);
            }
            return challenge(
                401,
                if token.is_some() { r#", error="invalid_token""# } else { r#", scope="files:read""# },
            );
        };
        let named = &message["params"]["arguments"]["owner"];
        if named.as_str().is_some_and(|named| named != grant.owner) {
            self.strangers.push(format!("{named} with the token of {}", grant.owner));
        }
        let wanted = message["params"]["name"].as_str().and_then(|tool| self.stricter.get(tool));
        if let Some(scope) = wanted.filter(|scope| !grant.scopes.contains(*scope)) {
            return challenge(403, &format!(r#", error="insufficient_scope", scope="{scope}""#));
        }
        respond(tools, "private", request)
    }
}

fn behind(gate: Option<Gate>, reply: Reply) -> Reply {
    match gate {
        Some(gate) => reply.after(&gate),
        None => reply,
    }
}

fn is_renewal(request: &Recorded) -> bool {
    request.path == "/token" && field(&request.text(), "grant_type") == "refresh_token"
}

/// A field of a query or a form.
pub fn field(text: &str, name: &str) -> String {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    let value = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next().unwrap_or_default();
    let mut bytes = Vec::new();
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next().unwrap_or(b'0'), rest.next().unwrap_or(b'0')];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap_or("0"), 16).unwrap_or(b'?')
            }
            other => other,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `text` as it stands in a query.
pub fn escaped(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(one).collect()
}
