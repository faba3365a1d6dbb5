//! A person with a browser: cookies, forms, redirects one by one, and no script.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::protected::escaped;

/// No login takes more pages.
const MOST_PAGES: usize = 20;

/// One browser.
pub struct Person {
    pool: Pool<HttpConnector, Full<Bytes>>,
    /// By origin and name.
    cookies: BTreeMap<(String, String), String>,
}

/// A page.
pub struct Page {
    pub status: u16,
    pub address: String,
    pub location: Option<String>,
    pub text: String,
}

impl Page {
    /// Where it leads by itself: a redirect, or the way to another host.
    pub fn target(&self) -> Option<String> {
        match &self.location {
            Some(path) if path.starts_with('/') => Some(format!("{}{path}", origin(&self.address))),
            Some(location) => Some(location.clone()),
            None => leaving(&self.text),
        }
    }

    /// Whether it leads to an authorization server.
    pub fn leaves(&self) -> bool {
        self.target().is_some_and(|target| target.contains("/authorize?"))
    }

    /// What an application is sent to confirm.
    pub fn flow_ref(&self) -> Option<String> {
        let target = self.target()?;
        Some(target.split_once("flow_ref=")?.1.split('&').next()?.to_owned())
    }
}

impl Person {
    pub fn new() -> Person {
        Person { pool: Pool::builder(TokioExecutor::new()).build_http(), cookies: BTreeMap::new() }
    }

    /// Follows a login link to its end and agrees to everything on the way. Gives the last page.
    pub async fn log_in(&mut self, link: &str) -> Page {
        let mut page = self.open(link).await;
        for _ in 0..MOST_PAGES {
            let origin = origin(&page.address).to_owned();
            if let Some(location) = &page.location {
                let next =
                    if location.starts_with('/') { format!("{origin}{location}") } else { location.clone() };
                page = self.open(&next).await;
            } else if let Some((action, fields)) = form(&page.text, "continue") {
                page = self.submit(&format!("{origin}{action}"), &fields).await;
            } else if page.leaves() {
                page = self.follow(page).await;
            } else if let Some(path) = going_on(&page.text) {
                page = self.open(&format!("{origin}{path}")).await;
            } else {
                return page;
            }
        }
        panic!("the login does not end: {}", page.address);
    }

    /// Follows a login link to where the person would leave for the authorization server, and gives that address.
    pub async fn leave(&mut self, link: &str) -> String {
        let page = self.open(link).await;
        let (action, fields) = form(&page.text, "continue").expect("a form to go on");
        let page = self.submit(&format!("{}{action}", origin(link)), &fields).await;
        leaving(&page.text).unwrap_or_else(|| panic!("{} leads nowhere: {}", page.address, page.text))
    }

    /// Opens the link and says no there.
    pub async fn decline(&mut self, link: &str) -> Page {
        let page = self.open(link).await;
        self.press(&page, "decline").await
    }

    /// Presses a button of a page: one that says what to do, or the one of the form that goes to a path.
    pub async fn press(&mut self, page: &Page, button: &str) -> Page {
        let Some((action, fields)) = form(&page.text, button) else {
            panic!("no button {button} on {}: {}", page.address, page.text)
        };
        self.submit(&format!("{}{action}", origin(&page.address)), &fields).await
    }

    /// Goes where pages lead by themselves until one does not.
    pub async fn follow(&mut self, mut page: Page) -> Page {
        for _ in 0..MOST_PAGES {
            let Some(target) = page.target() else { return page };
            page = self.open(&target).await;
        }
        panic!("the way does not end: {}", page.address);
    }

    /// What the cookies say.
    pub fn cookie_values(&self) -> impl Iterator<Item = String> {
        self.cookies.values().filter(|value| !value.is_empty()).cloned()
    }

    pub async fn open(&mut self, address: &str) -> Page {
        self.send(address, Request::get(address), Bytes::new()).await
    }

    pub async fn submit(&mut self, address: &str, fields: &str) -> Page {
        let request = Request::post(address)
            .header("origin", origin(address))
            .header("content-type", "application/x-www-form-urlencoded");
        self.send(address, request, Bytes::copy_from_slice(fields.as_bytes())).await
    }

    async fn send(&mut self, address: &str, request: http::request::Builder, body: Bytes) -> Page {
        let at = origin(address).to_owned();
        let cookies: Vec<String> = self
            .cookies
            .iter()
            .filter(|((origin, _), _)| *origin == at)
            .map(|((_, name), value)| format!("{name}={value}"))
            .collect();
        let request = if cookies.is_empty() { request } else { request.header("cookie", cookies.join("; ")) };
        let request = request.header("accept", "text/html").body(Full::new(body)).unwrap();
        let response = self.pool.request(request).await.expect("the page is there");
        for value in response.headers().get_all("set-cookie") {
            let cookie = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
            let (name, value) = cookie.split_once('=').expect("a cookie has a name");
            self.cookies.insert((at.clone(), name.to_owned()), value.to_owned());
        }
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let (status, location) = (response.status().as_u16(), header("location").map(str::to_owned));
        let body = response.into_body().collect().await.expect("the page arrives").to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        Page { status, address: address.to_owned(), location, text }
    }
}

fn origin(address: &str) -> &str {
    let rest = address.strip_prefix("http://").expect("addresses of tests are on this machine");
    &address[.."http://".len() + rest.find('/').unwrap_or(rest.len())]
}

/// Action and fields of the form whose button says `action`, or that goes to the path.
fn form(text: &str, action: &str) -> Option<(String, String)> {
    let is_path = action.starts_with('/');
    let button =
        if is_path { format!("action=\"{action}\"") } else { format!("name=\"action\" value=\"{action}\"") };
    let form = text.split("<form").skip(1).filter_map(|form| form.split("</form>").next());
    let form = form.into_iter().find(|form| form.contains(&button))?;
    let mut fields = Vec::new();
    for tag in form.split('<').filter(|tag| tag.starts_with("input")) {
        if let (Some(name), Some(value)) = (attribute(tag, "name"), attribute(tag, "value")) {
            fields.push(format!("{name}={}", escaped(&value)));
        }
    }
    if !is_path && !fields.iter().any(|field| field.starts_with("action=")) {
        fields.push(format!("action={action}"));
    }
    Some((attribute(form, "action")?, fields.join("&")))
}

/// The address that an intermediate page leads to.
fn leaving(text: &str) -> Option<String> {
    let leads_away = |href: &String| href.contains("/authorize?") || href.contains("flow_ref=");
    text.split("<a ").find_map(|tag| attribute(tag, "href").filter(leads_away))
}

/// The next of several logins.
fn going_on(text: &str) -> Option<String> {
    text.split("<a ").find_map(|tag| attribute(tag, "href").filter(|href| href.starts_with("/connect/")))
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let from = tag.find(&format!(" {name}=\""))? + name.len() + 3;
    let value = tag[from..].split('"').next()?;
    Some(value.replace("&#38;", "&").replace("&amp;", "&"))
}
