//! What the pages share: the parts they show, and who looks at them.

use std::sync::Arc;

use askama::Template;
use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};

use super::form::{self, Fields, Refused, Sender};
use super::frame::{self, Frame, SignedIn};
use super::limits::PageLimits;
use super::message::Message;
use super::runs::Live;
use crate::clock::Clock;
use crate::completion::{Engine, Reader, Runs};
use crate::config::{self, Secret};
use crate::connections::Connections;
use crate::id::random_id;
use crate::identity::{Caller, Callers, CookieKind, Cookies, Person, Sessions, SignIn, Surface};
use crate::rate_limit::RateLimit;
use crate::upstream::Providers;

/// As long as browsers keep a cookie at most. When a session is over is decided here, by its use.
const COOKIE_SECONDS: i64 = 400 * 24 * 3600;

/// Models to choose from, at most: more are found faster by their name.
const MOST_MODELS: usize = 200;

/// What the pages are made of.
pub struct Parts {
    pub connections: Connections,
    pub sign_in: SignIn,
    pub sessions: Sessions,
    pub clock: Clock,
    pub cookies: Cookies,
    pub engine: Arc<Engine>,
    pub providers: Arc<Providers>,
    pub callers: Arc<Callers>,
    /// Shared with the API: a person has one limit.
    pub rate_limit: Arc<RateLimit>,
    pub run: config::Run,
    /// The gateway's own address, without a slash at its end.
    pub public_url: String,
    /// Whether it is one person's machine, where nobody has to sign in.
    pub local: bool,
    /// Pages that one address may ask for in a minute; 0 is no limit.
    pub pages_per_minute: u32,
}

/// The pages' shared state. Behind an `Arc`.
pub struct Site {
    pub(super) connections: Connections,
    pub(super) sign_in: SignIn,
    pub(super) sessions: Sessions,
    pub(super) clock: Clock,
    pub(super) local: bool,
    pub(super) limits: PageLimits,
    pub(super) engine: Arc<Engine>,
    pub(super) providers: Arc<Providers>,
    pub(super) rate_limit: Arc<RateLimit>,
    pub(super) run: config::Run,
    pub(super) live: Live,
    pub(super) public_url: String,
    callers: Arc<Callers>,
    origin: String,
    host: String,
    https: bool,
    cookies: Cookies,
}

/// The browser in front of a page, and its person.
pub(super) struct Visitor {
    /// Its cookie, perhaps made just now.
    pub browser: Secret,
    is_new: bool,
    pub person: Option<Person>,
    /// What the browser calls itself.
    pub agent: String,
}

impl Visitor {
    /// The id of the person who is signed in, or empty.
    fn account(&self) -> &str {
        self.person.as_ref().map_or("", |person| &person.account)
    }

    /// Who is not looked up, and gets no cookie.
    pub fn nobody() -> Visitor {
        Visitor { browser: new_browser(), is_new: false, person: None, agent: String::new() }
    }

    /// Who gets no cookie, since no form of this page is theirs.
    pub fn without_cookie(self) -> Visitor {
        Visitor { is_new: false, ..self }
    }
}

fn new_browser() -> Secret {
    Secret::new(format!("{}{}", random_id("brw_"), random_id("")))
}

/// A form that a page of ours sent, and who sent it. What else comes is answered with a page that says so.
pub(super) struct Sent {
    pub visitor: Visitor,
    pub fields: Fields,
}

impl FromRequest<Arc<Site>> for Sent {
    type Rejection = Response;

    async fn from_request(request: Request, site: &Arc<Site>) -> Result<Self, Response> {
        let (head, body) = request.into_parts();
        let (visitor, fields) = site.form(&head.headers, body, form::LARGEST).await?;
        Ok(Sent { visitor, fields })
    }
}

impl Site {
    /// Pages of `parts`.
    ///
    /// # Errors
    /// A sentence, when `public_url` is no address.
    pub fn new(parts: Parts) -> Result<Self, String> {
        let url = url::Url::parse(&parts.public_url).map_err(|error| format!("`public_url`: {error}"))?;
        let host = match (url.host_str().unwrap_or_default(), url.port()) {
            (host, Some(port)) => format!("{host}:{port}"),
            (host, None) => host.to_owned(),
        };
        Ok(Site {
            connections: parts.connections,
            sign_in: parts.sign_in,
            sessions: parts.sessions,
            clock: parts.clock,
            local: parts.local,
            limits: PageLimits::new(parts.pages_per_minute),
            origin: url.origin().ascii_serialization(),
            host,
            https: url.scheme() == "https",
            cookies: parts.cookies,
            engine: parts.engine,
            providers: parts.providers,
            rate_limit: parts.rate_limit,
            run: parts.run,
            live: Live::default(),
            public_url: parts.public_url,
            callers: parts.callers,
        })
    }

    /// The browser's own cookie, when it sent one.
    pub(super) fn browser(&self, headers: &HeaderMap) -> Option<Secret> {
        self.cookies.read(headers, CookieKind::Browser)
    }

    /// Who looks at a page. A store that cannot be used signs everybody out for this page.
    pub(super) async fn visitor(&self, headers: &HeaderMap) -> Visitor {
        let cookie = self.browser(headers);
        let is_new = cookie.is_none();
        let browser = cookie.unwrap_or_else(new_browser);
        let session = self.cookies.read(headers, CookieKind::Session);
        let person = match session {
            Some(cookie) => self.sessions.find(cookie.expose()).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "a session could not be looked up");
                None
            }),
            None => None,
        };
        let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        Visitor { browser, is_new, person, agent: agent.to_owned() }
    }

    /// A form of at most `largest` bytes that a page of ours sent from this browser. Most handlers take [`Sent`].
    ///
    /// # Errors
    /// The page that says so.
    pub(super) async fn form(
        &self,
        headers: &HeaderMap,
        body: Body,
        largest: usize,
    ) -> Result<(Visitor, Fields), Response> {
        let visitor = self.visitor(headers).await;
        let known = Some(&visitor.browser).filter(|_| !visitor.is_new);
        let sender = Sender { browser: known, account: visitor.account() };
        let origin = self.own_origin(headers);
        match form::read(headers, body, sender, &origin, largest).await {
            Ok(fields) => Ok((visitor, fields)),
            Err(Refused::Foreign) => {
                Err(self.message(&visitor, StatusCode::FORBIDDEN, Message::foreign_form()))
            }
            Err(Refused::TooSlow) => {
                Err(self.message(&visitor, StatusCode::REQUEST_TIMEOUT, Message::too_slow_form()))
            }
            Err(Refused::TooLarge) => {
                Err(self.message(&visitor, StatusCode::PAYLOAD_TOO_LARGE, Message::too_large_form()))
            }
        }
    }

    /// On one's own machine the gateway has several names (`localhost`, `127.0.0.1`), all of them checked before.
    fn own_origin(&self, headers: &HeaderMap) -> String {
        match headers.get(header::HOST).and_then(|host| host.to_str().ok()) {
            Some(host) if self.local && !self.https => format!("http://{host}"),
            _ => self.origin.clone(),
        }
    }

    /// The head line for this visitor.
    pub(super) fn frame(&self, visitor: &Visitor) -> Frame {
        let signed_in = visitor.person.is_some();
        Frame {
            host: self.host.clone(),
            csrf: form::csrf(&visitor.browser, visitor.account()),
            signed_in: (signed_in || self.local).then_some(SignedIn { can_sign_out: signed_in }),
        }
    }

    /// A page for this visitor.
    pub(super) fn page<T: Template>(&self, visitor: &Visitor, status: StatusCode, template: &T) -> Response {
        let mut response = frame::page(status, template, self.https);
        if visitor.is_new {
            let cookie = self.cookies.give(CookieKind::Browser, &visitor.browser, COOKIE_SECONDS);
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        response
    }

    /// A page of a few words.
    pub(super) fn message(&self, visitor: &Visitor, status: StatusCode, message: Message) -> Response {
        self.page(visitor, status, &message.template(self.frame(visitor)))
    }

    /// A page that leads to another host by itself. Not a redirect: see [`frame`].
    pub(super) fn leave(&self, visitor: &Visitor, target: &Uri, words: &str) -> Response {
        let host = target.authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default();
        let template =
            Leaving { frame: self.frame(visitor), host, target: target.to_string(), words: words.to_owned() };
        let refresh = HeaderValue::try_from(format!("0;url={target}"));
        let Some(refresh) = refresh.ok().filter(|_| is_safe(target)) else {
            return self.message(visitor, StatusCode::BAD_GATEWAY, Message::unsafe_target());
        };
        let mut response = self.page(visitor, StatusCode::OK, &template);
        response.headers_mut().insert(header::REFRESH, refresh);
        response
    }

    /// On to another page of ours.
    pub(super) fn see(&self, visitor: &Visitor, path: &str) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SEE_OTHER;
        let location = HeaderValue::try_from(path).unwrap_or(HeaderValue::from_static("/account"));
        response.headers_mut().insert(header::LOCATION, location);
        frame::protect(&mut response, self.https);
        if visitor.is_new {
            let cookie = self.cookies.give(CookieKind::Browser, &visitor.browser, COOKIE_SECONDS);
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        response
    }

    /// Puts the session's cookie on a response.
    pub(super) fn give_session(&self, response: &mut Response, session: &Secret) {
        let cookie = self.cookies.give(CookieKind::Session, session, COOKIE_SECONDS);
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }

    /// Takes the session's cookie away.
    pub(super) fn take_session(&self, response: &mut Response) {
        response.headers_mut().append(header::SET_COOKIE, self.cookies.take(CookieKind::Session));
    }

    /// The kept runs.
    pub(super) fn runs(&self) -> &Runs {
        self.engine.runs()
    }

    /// As whom the visitor starts runs; `None` for who has to sign in first.
    pub(super) fn caller(&self, visitor: &Visitor) -> Option<Caller> {
        match &visitor.person {
            Some(person) => Some(self.callers.person(person)),
            // Everybody at one's own machine is its owner.
            None if self.local => self.callers.resolve(None, Surface::V1).ok(),
            None => None,
        }
    }

    /// Which runs are the visitor's.
    pub(super) fn reader(&self, visitor: &Visitor) -> Reader {
        let person = visitor.person.iter().flat_map(Person::ids).collect();
        match self.caller(visitor) {
            Some(caller) => {
                Reader { only_user: caller.own_user().cloned(), namespace: Some(caller.namespace), person }
            }
            None => Reader { person, ..Reader::default() },
        }
    }

    /// Names of models to choose from: those that are known without asking anybody.
    ///
    /// What the operator has configured by name is for those who may ask it.
    pub(super) fn models(&self, may_start: bool) -> Vec<String> {
        let demo = self.local.then(|| "demo".to_owned());
        let aliases = self.providers.aliases().map(|(alias, _)| alias.to_owned());
        let given = self.providers.given().filter(|(provider, _)| may_start && *provider != "demo");
        let given = given.map(|(provider, model)| format!("{provider}/{model}"));
        demo.into_iter().chain(aliases).chain(given).take(MOST_MODELS).collect()
    }

    /// The page for a run that is not there, or is not the visitor's to see: nobody can tell which.
    pub(super) fn unknown_run(&self, visitor: &Visitor, id: &str) -> Response {
        let may_sign_in = visitor.person.is_none() && self.can_sign_in();
        let message = Message::unknown_run(Some(id).filter(|_| may_sign_in));
        self.message(visitor, StatusCode::NOT_FOUND, message)
    }

    /// Puts the headers of a page on a response that is none.
    pub(super) fn protect(&self, response: &mut Response) {
        frame::protect(response, self.https);
    }

    /// Whether there is a way to sign in.
    pub(super) fn can_sign_in(&self) -> bool {
        self.sign_in.providers().next().is_some()
    }

    /// Whether there is nobody to be but the person at this machine.
    pub(super) fn is_only_local(&self) -> bool {
        self.local && !self.can_sign_in()
    }

    /// Now, in milliseconds since 1970.
    pub(super) fn now(&self) -> i64 {
        self.clock.unix_milliseconds()
    }
}

/// People are sent to https addresses and this machine only, never to `javascript:` or an application's own scheme.
fn is_safe(target: &Uri) -> bool {
    let host = target.host().unwrap_or_default().trim_matches(['[', ']']);
    let here = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    match target.scheme_str() {
        Some("https") => !host.is_empty(),
        Some("http") => here,
        _ => false,
    }
}

#[cfg(test)]
pub(super) fn preview_of_leaving(frame: Frame, host: &str, target: &str) -> String {
    let words = "You sign in there and come back by yourself.".to_owned();
    Leaving { frame, host: host.to_owned(), target: target.to_owned(), words }.render().expect("it renders")
}

/// On the way to another host.
#[derive(Template)]
#[template(path = "leaving.html")]
struct Leaving {
    frame: Frame,
    host: String,
    target: String,
    words: String,
}
