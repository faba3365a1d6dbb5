//! What a person does with a login link, for a tour that nobody watches: two pages, a name, and the way back.

use std::time::Duration;

use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

use super::Failure;
use crate::egress::{self, Egress, Reach};

const PATIENCE: Duration = Duration::from_secs(30);
const PAGE_BYTES: usize = 256 << 10;

/// Somebody with a browser that keeps cookies and follows nothing by itself.
pub(super) struct Person<'a> {
    egress: &'a Egress,
    cookies: Vec<String>,
}

/// What one step leads to.
struct Page {
    text: String,
    /// Where the browser is sent.
    location: Option<String>,
}

impl Person<'_> {
    pub(super) fn new(egress: &Egress) -> Person<'_> {
        Person { egress, cookies: Vec::new() }
    }

    /// Continues on the gateway's page, types `name` on the demo's, allows, and goes back.
    ///
    /// # Errors
    /// When a page is not what it should be.
    pub(super) async fn log_in(mut self, link: &str, name: &str) -> Result<(), Failure> {
        let page = self.send(link, None).await?;
        let mut fields = page.hidden_beside("value=\"continue\"")?;
        fields.push(("action".to_owned(), "continue".to_owned()));
        let leaving = self.send(link, Some(&fields)).await?;
        let question = leaving.text.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
        let question = question
            .map(|address| address.replace("&#38;", "&").replace("&amp;", "&"))
            .find(|address| address.contains("/demo/oauth/authorize?"))
            .ok_or_else(|| unexpected("no way to the demo's login"))?;
        let page = self.send(&question, None).await?;
        let mut fields = page.hidden_beside("value=\"allow\"")?;
        fields.extend([("name", name), ("answer", "allow")].map(|(name, value)| (name.into(), value.into())));
        let form = question.split('?').next().unwrap_or_default().to_owned();
        let allowed = self.send(&form, Some(&fields)).await?;
        let back = allowed.location.ok_or_else(|| unexpected("no way back to the gateway"))?;
        self.send(&back, None).await.map(drop)
    }

    async fn send(&mut self, address: &str, form: Option<&[(String, String)]>) -> Result<Page, Failure> {
        let failed = |error: &dyn std::fmt::Display| unexpected(&error.to_string());
        let mut request = Request::builder().uri(address).header(header::ACCEPT, "text/html");
        if !self.cookies.is_empty() {
            request = request.header(header::COOKIE, self.cookies.join("; "));
        }
        let mut body = String::new();
        if let Some(fields) = form {
            request = request
                .method("POST")
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .header(header::ORIGIN, origin(address));
            body = url::form_urlencoded::Serializer::new(body).extend_pairs(fields).finish();
        }
        let request = request.body(egress::full(body)).map_err(|error| failed(&error))?;
        let sent = self.egress.send(Reach::Configured, request, PATIENCE).await;
        let response = sent.map_err(|error| failed(&error))?;
        self.keep_cookies(&response);
        if !matches!(response.status(), StatusCode::OK | StatusCode::SEE_OTHER) {
            return Err(unexpected(&format!("status {}", response.status().as_u16())));
        }
        let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let location = location.map(str::to_owned);
        let body = Limited::new(response.into_body(), PAGE_BYTES).collect().await;
        let body = body.map_err(|error| failed(&error))?.to_bytes();
        Ok(Page { text: String::from_utf8_lossy(&body).into_owned(), location })
    }

    fn keep_cookies(&mut self, response: &Response<Incoming>) {
        for line in response.headers().get_all(header::SET_COOKIE) {
            let pair = line.to_str().unwrap_or_default().split(';').next().unwrap_or_default().to_owned();
            let name = pair.split('=').next().unwrap_or_default();
            self.cookies.retain(|known| known.split('=').next() != Some(name));
            self.cookies.push(pair);
        }
    }
}

impl Page {
    /// The hidden fields of the form with this button.
    fn hidden_beside(&self, button: &str) -> Result<Vec<(String, String)>, Failure> {
        let mut forms = self.text.split("<form").skip(1).filter_map(|rest| rest.split("</form>").next());
        let form =
            forms.find(|form| form.contains(button)).ok_or_else(|| unexpected("a page without its form"))?;
        let fields = form.split("<input type=\"hidden\" name=\"").skip(1).filter_map(|rest| {
            let (name, rest) = rest.split_once("\" value=\"")?;
            Some((name.to_owned(), rest.split('"').next()?.to_owned()))
        });
        Ok(fields.collect())
    }
}

fn origin(address: &str) -> String {
    url::Url::parse(address).map(|url| url.origin().ascii_serialization()).unwrap_or_default()
}

fn unexpected(what: &str) -> Failure {
    Failure::new(format!("the tour could not log in: {what}"))
}
