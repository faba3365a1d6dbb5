//! The authorization endpoint (RFC 6749 §3.1): the page a person sees, and their answer.

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use url::Url;

use super::client::Client;
use super::error::Refusal;
use super::fields::Fields;
use super::memory::Asked;
use super::metadata::SCOPE;
use super::page;
use crate::demo::address::Here;
use crate::demo::router::Demo;
use crate::id::random_id;
use crate::tools::text;

/// Longest query that is read, in bytes.
const MAX_QUERY_BYTES: usize = 8 << 10;
/// Longest name of a person, in characters.
pub const MAX_NAME: usize = 40;
const COOKIE: &str = "toolgate-demo-browser";

/// Why a request is not shown to the person.
enum Trouble {
    /// The client or where it wants to be answered is not to be trusted: the person is told, nobody else.
    Page(&'static str),
    /// The client may be told (RFC 6749 §4.1.2.1), but by the person alone: anybody can register an address, so that
    /// going there at once would lead whoever follows a link to us anywhere (RFC 9700 §4.11.2).
    Client { to: Box<Back>, refusal: Refusal },
}

/// How to answer a client.
struct Back {
    redirect_uri: String,
    state: Option<String>,
    issuer: String,
}

/// `GET /demo/oauth/authorize`: who asks, and the question who one wants to be.
pub async fn show(State(demo): State<Demo>, uri: Uri, headers: HeaderMap) -> Response {
    match asked(&demo, &uri, &headers).await {
        Err(Trouble::Page(why)) => page::trouble("This login cannot begin", why),
        Err(Trouble::Client { to, refusal }) => to.offer(refusal),
        Ok(asked) => {
            // One browser keeps its cookie, so that two logins can be open side by side.
            let known = browser(&headers);
            let browser = known.clone().unwrap_or_else(|| random_id("demo_browser_"));
            let id = demo.memory.open_page(demo.clock.unix_seconds(), &browser, asked.clone());
            let mut response = page::login(StatusCode::OK, &asked, &id, None);
            if known.is_none() {
                let cookie = format!("{COOKIE}={browser}; Path=/demo/oauth; HttpOnly; SameSite=Lax");
                let cookie = HeaderValue::try_from(cookie).expect("names and ids are plain ASCII");
                response.headers_mut().insert(header::SET_COOKIE, cookie);
            }
            response
        }
    }
}

/// `POST /demo/oauth/authorize`: the person's answer. It counts in the browser that was asked, and once.
pub async fn answer(State(demo): State<Demo>, request: Request) -> Response {
    let browser = browser(request.headers()).unwrap_or_default();
    let fields = match Fields::of_form(request).await {
        Ok(fields) => fields,
        Err(refusal) => return page::trouble("This login cannot go on", refusal.description),
    };
    let now = demo.clock.unix_seconds();
    let id = fields.find("page").unwrap_or_default();
    let name = text::one_line(fields.find("name").unwrap_or_default(), MAX_NAME);
    let is_allowed = fields.find("answer") == Some("allow");
    if is_allowed
        && name.is_empty()
        && let Some(asked) = demo.memory.find_page(now, id, &browser)
    {
        return page::login(StatusCode::BAD_REQUEST, &asked, id, Some("Type a name first."));
    }
    let Some(asked) = demo.memory.take_page(now, id, &browser) else {
        let why = "it was answered already, is too old, or was begun in another browser";
        return page::trouble("This login is over", why);
    };
    let back = Back::of(&asked);
    if !is_allowed {
        return back.refuse(Refusal::new("access_denied", "the person said no"));
    }
    let code = demo.memory.give_code(now, asked, name);
    back.lead(&[("code", &code)])
}

/// The checks of RFC 6749 §4.1.1, RFC 7636 §4.4.1 and RFC 8707 §2: first whether the client and its address are known,
/// for nobody else may be answered.
async fn asked(demo: &Demo, uri: &Uri, headers: &HeaderMap) -> Result<Asked, Trouble> {
    let here = Here::of(headers).ok_or(Trouble::Page("this page was called by another machine's name"))?;
    let query = uri.query().unwrap_or_default();
    if query.len() > MAX_QUERY_BYTES {
        return Err(Trouble::Page("the application's request is too long"));
    }
    let fields = Fields::read(query.as_bytes()).map_err(|refusal| Trouble::Page(refusal.description))?;
    let id = fields.find("client_id").ok_or(Trouble::Page("the application does not say who it is"))?;
    let client = Client::resolve(&demo.egress, id).await.map_err(Trouble::Page)?;
    let redirect_uri = fields
        .find("redirect_uri")
        .filter(|uri| client.has_redirect(uri))
        .ok_or(Trouble::Page("the application wants to be answered where it is not registered"))?
        .to_owned();
    let state = fields.find("state").map(str::to_owned);
    let back = Back { redirect_uri: redirect_uri.clone(), state: state.clone(), issuer: here.issuer() };
    match question(&fields, &here) {
        Err(refusal) => Err(Trouble::Client { to: Box::new(back), refusal }),
        Ok(challenge) => Ok(Asked {
            client,
            redirect_uri,
            state,
            challenge,
            resource: here.resource(),
            issuer: here.issuer(),
        }),
    }
}

/// What is asked for; gives PKCE's challenge.
fn question(fields: &Fields, here: &Here) -> Result<String, Refusal> {
    match fields.find("response_type") {
        Some("code") => {}
        Some(_) => return Err(Refusal::new("unsupported_response_type", "there is `code` only")),
        None => return Err(Refusal::invalid_request("`response_type` is missing")),
    }
    if fields.find("code_challenge_method") != Some("S256") {
        return Err(Refusal::invalid_request("`code_challenge_method` must be `S256`"));
    }
    let challenge = fields.get("code_challenge", "`code_challenge` is missing")?;
    let is_digest = challenge.len() == 43
        && challenge.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if !is_digest {
        return Err(Refusal::invalid_request("`code_challenge` is no SHA-256 in base64url"));
    }
    if fields.find("resource") != Some(&here.resource()) {
        return Err(Refusal::new("invalid_target", "`resource` must name the MCP server of this demo"));
    }
    // Words that mean nothing here are left out; the token response says what was granted (RFC 6749 §3.3).
    if let Some(scope) = fields.find("scope")
        && !scope.split(' ').any(|word| word == SCOPE)
    {
        return Err(Refusal::new("invalid_scope", "there is the scope `tools` only"));
    }
    Ok(challenge.to_owned())
}

impl Back {
    fn of(asked: &Asked) -> Back {
        Back {
            redirect_uri: asked.redirect_uri.clone(),
            state: asked.state.clone(),
            issuer: asked.issuer.clone(),
        }
    }

    fn refuse(&self, refusal: Refusal) -> Response {
        self.lead(&[("error", refusal.code), ("error_description", refusal.description)])
    }

    /// Shows the person why the client's request is refused, and the way back to it.
    fn offer(&self, refusal: Refusal) -> Response {
        match self.address(&[("error", refusal.code), ("error_description", refusal.description)]) {
            Some(url) => page::refused(refusal.description, &url),
            None => page::trouble("This login cannot begin", refusal.description),
        }
    }

    /// The client's address with its `state` and our `iss` (RFC 9207).
    fn address(&self, fields: &[(&str, &str)]) -> Option<Url> {
        let mut url = Url::parse(&self.redirect_uri).ok()?;
        let state = self.state.as_deref().map(|state| ("state", state));
        url.query_pairs_mut()
            .extend_pairs(fields.iter().copied().chain(state))
            .append_pair("iss", &self.issuer);
        Some(url)
    }

    /// Sends the browser back to the client.
    fn lead(&self, fields: &[(&str, &str)]) -> Response {
        let Some(url) = self.address(fields) else {
            return page::trouble("This login cannot go on", "the application's address is none");
        };
        let Ok(location) = HeaderValue::try_from(url.as_str()) else {
            return page::trouble("This login cannot go on", "the application's address is none");
        };
        let mut response = StatusCode::SEE_OTHER.into_response();
        response.headers_mut().insert(header::LOCATION, location);
        page::protect(&mut response, None);
        response
    }
}

/// The cookie that tells browsers apart.
fn browser(headers: &HeaderMap) -> Option<String> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(name, value)| {
        let is_ours = (30..=60).contains(&value.len())
            && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        *name == COOKIE && is_ours
    })?;
    Some(value.to_owned())
}
