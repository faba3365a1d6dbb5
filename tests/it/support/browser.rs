//! A browser as far as the gateway can tell: a cookie jar, forms read from pages, redirects followed by hand.

use std::collections::BTreeMap;

use http::Response;
use hyper::body::Incoming;
use url::form_urlencoded::Serializer;

use super::{Answer, Client, whole};

/// One person's browser, pointed at one gateway.
#[derive(Clone)]
pub struct Browser {
    client: Client,
    pub cookies: BTreeMap<String, String>,
}

impl Browser {
    /// A new one, without cookies.
    pub fn new(client: &Client) -> Browser {
        Browser { client: client.clone(), cookies: BTreeMap::new() }
    }

    /// Follows a link to a path of the gateway, from anywhere.
    pub async fn visit(&mut self, path: &str) -> Answer {
        let headers = [
            ("accept", "text/html,application/xhtml+xml,*/*;q=0.8"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        self.send("GET", path, &headers, "").await
    }

    /// Sends a form that the page had, by the path it goes to; `press` adds a button's name and value.
    pub async fn submit(&mut self, page: &Answer, path: &str, press: &[(&str, &str)]) -> Answer {
        let html = page.text();
        let form = form_to(&html, path).unwrap_or_else(|| panic!("the page has no form to {path}: {html}"));
        let mut fields: Vec<(String, String)> = hidden_fields(form);
        fields.extend(press.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        self.post(path, &fields).await
    }

    /// Sends these fields as a page of the gateway would.
    pub async fn post(&mut self, path: &str, fields: &[(String, String)]) -> Answer {
        let origin = "null".to_owned();
        let headers = [
            ("sec-fetch-site", "same-origin"),
            ("origin", origin.as_str()),
            ("content-type", "application/x-www-form-urlencoded"),
        ];
        self.send("POST", path, &headers, &encode(fields)).await
    }

    /// Sends these fields as `site`'s page would.
    pub async fn post_from(&mut self, site: &str, path: &str, fields: &[(String, String)]) -> Answer {
        let headers = [
            ("sec-fetch-site", "cross-site"),
            ("origin", site),
            ("content-type", "application/x-www-form-urlencoded"),
        ];
        self.send("POST", path, &headers, &encode(fields)).await
    }

    /// What a page of the gateway follows by `EventSource`.
    pub async fn open_stream(&self, path: &str) -> Response<Incoming> {
        let jar: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let jar = jar.join("; ");
        let headers =
            [("sec-fetch-site", "same-origin"), ("accept", "text/event-stream"), ("cookie", jar.as_str())];
        self.client.send("GET", path, &headers, String::new()).await
    }

    pub async fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let jar: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let jar = jar.join("; ");
        let mut all = headers.to_vec();
        if !jar.is_empty() {
            all.push(("cookie", &jar));
        }
        let answer = whole(self.client.send(method, path, &all, body.to_owned()).await).await;
        for line in answer.headers.get_all("set-cookie") {
            let line = line.to_str().expect("cookies are ASCII");
            let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
            if line.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        answer
    }

    /// Where a page leads by itself: the address in `Refresh`, or a redirect's.
    pub fn leads_to(&self, answer: &Answer) -> String {
        let by_itself = answer.header("refresh").and_then(|text| text.strip_prefix("0;url="));
        by_itself
            .or(answer.header("location"))
            .map(str::to_owned)
            .unwrap_or_else(|| panic!("{} leads nowhere: {}", answer.status, answer.text()))
    }

    /// The value of the cookie whose name ends so.
    pub fn cookie(&self, ending: &str) -> Option<&str> {
        self.cookies.iter().find(|(name, _)| name.ends_with(ending)).map(|(_, value)| value.as_str())
    }
}

/// The hidden fields of the form on `html` that goes to `path`.
pub fn fields_of(html: &str, path: &str) -> Vec<(String, String)> {
    form_to(html, path).map(hidden_fields).unwrap_or_default()
}

fn encode(fields: &[(String, String)]) -> String {
    Serializer::new(String::new()).extend_pairs(fields).finish()
}

fn form_to<'a>(html: &'a str, path: &str) -> Option<&'a str> {
    let start = html.find(&format!("action=\"{path}\""))?;
    Some(&html[start..start + html[start..].find("</form>")?])
}

fn hidden_fields(form: &str) -> Vec<(String, String)> {
    form.split("<input type=\"hidden\" ")
        .skip(1)
        .filter_map(|input| {
            let input = &input[..input.find('>')?];
            let attribute = |name: &str| {
                let rest = &input[input.find(&format!("{name}=\""))? + name.len() + 2..];
                Some(rest[..rest.find('"')?].replace("&#34;", "\"").replace("&#38;", "&"))
            };
            Some((attribute("name")?, attribute("value")?))
        })
        .collect()
}
