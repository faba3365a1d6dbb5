//! What a browser sends: queries and forms, and whether a page of ours sent them.

use std::time::Duration;

use axum::body::{self, Body};
use http::{HeaderMap, header};

use crate::config::Secret;
use crate::crypto::{constant_time_eq, hmac_sha256, sha256, to_hex};

/// Largest form that is sent to change something, in bytes.
pub(super) const LARGEST: usize = 16 << 10;

/// How long a form may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Names and values, in the order they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    /// Reads `a=b&c=d`.
    pub fn parse(text: &[u8]) -> Self {
        Fields(url::form_urlencoded::parse(text).into_owned().collect())
    }

    /// The value of a field that is there exactly once.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut values = self.0.iter().filter(|(field, _)| field == name);
        match (values.next(), values.next()) {
            (Some((_, value)), None) => Some(value),
            _ => None,
        }
    }

    pub fn into_pairs(self) -> Vec<(String, String)> {
        self.0
    }
}

/// Why a form is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// Another site's page sent it, or it does not carry what our page gave it.
    Foreign,
    TooLarge,
    TooSlow,
}

/// The token that our forms carry: only a page that this browser got from us can know it, and only while the same
/// person is signed in, or nobody. What one person's page shows is not for the next one to send.
pub(super) fn csrf(browser: &Secret, account: &str) -> String {
    let meant = format!("toolgate form {account}");
    to_hex(&hmac_sha256(&sha256(browser.expose().as_bytes()), meant.as_bytes()))
}

/// Who sends a form.
pub(super) struct Sender<'a> {
    /// The browser's cookie, where it had one before.
    pub browser: Option<&'a Secret>,
    /// The id of the person who is signed in, or empty.
    pub account: &'a str,
}

/// Reads a form of at most `largest` bytes that a page of ours sent. `origin` is the gateway's own.
///
/// Three things must agree: the token in the form and the browser's cookie, `Origin`, and `Sec-Fetch-Site`. The
/// last two may be absent, and `Origin` is `null` because our pages send no referrer (Fetch, "append a request
/// `Origin` header").
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    sender: Sender<'_>,
    origin: &str,
    largest: usize,
) -> Result<Fields, Refused> {
    if !is_from_our_page(headers, origin) {
        return Err(Refused::Foreign);
    }
    let reading = tokio::time::timeout(PATIENCE, body::to_bytes(body, largest)).await;
    let bytes = reading.map_err(|_| Refused::TooSlow)?.map_err(|_| Refused::TooLarge)?;
    let fields = Fields::parse(&bytes);
    let (Some(browser), Some(token)) = (sender.browser, fields.get("csrf")) else {
        return Err(Refused::Foreign);
    };
    if !constant_time_eq(csrf(browser, sender.account).as_bytes(), token.as_bytes()) {
        return Err(Refused::Foreign);
    }
    Ok(fields)
}

fn is_from_our_page(headers: &HeaderMap, origin: &str) -> bool {
    let site = headers.get("sec-fetch-site").map(|value| value.as_bytes());
    let site_is_ours = matches!(site, None | Some(b"same-origin"));
    let origin_is_ours = headers
        .get(header::ORIGIN)
        .is_none_or(|given| given.as_bytes() == origin.as_bytes() || given.as_bytes() == b"null");
    site_is_ours && origin_is_ours
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    async fn outcome(headers: &[(&'static str, &'static str)], body: &str, cookie: Option<&str>) -> String {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect();
        let browser = cookie.map(Secret::new);
        let sender = Sender { browser: browser.as_ref(), account: "acct_1" };
        match read(&headers, Body::from(body.to_owned()), sender, "https://t.example", LARGEST).await {
            Ok(fields) => fields.get("a").unwrap_or("-").to_owned(),
            Err(refused) => format!("{refused:?}"),
        }
    }

    #[tokio::test]
    async fn only_forms_of_our_own_pages_are_taken() {
        let good = format!("csrf={}&a=1", csrf(&Secret::new("brw_one"), "acct_1"));
        let cookie = Some("brw_one");
        assert_eq!(outcome(&[], &good, cookie).await, "1");
        let ours = [("origin", "https://t.example"), ("sec-fetch-site", "same-origin")];
        assert_eq!(outcome(&ours, &good, cookie).await, "1");
        assert_eq!(
            outcome(&[("origin", "null"), ("sec-fetch-site", "same-origin")], &good, cookie).await,
            "1"
        );
        for headers in [
            [("sec-fetch-site", "cross-site")],
            [("sec-fetch-site", "same-site")],
            [("sec-fetch-site", "none")],
            [("origin", "https://evil.example")],
            [("origin", "https://t.example.evil.example")],
            [("origin", "http://t.example")],
        ] {
            assert_eq!(outcome(&headers, &good, cookie).await, "Foreign", "{headers:?}");
        }
        assert_eq!(outcome(&[], &good, None).await, "Foreign", "no cookie");
        assert_eq!(outcome(&[], &good, Some("brw_two")).await, "Foreign", "another browser");
        assert_eq!(outcome(&[], "a=1", cookie).await, "Foreign", "no token");
        for account in ["", "acct_2"] {
            let before = format!("csrf={}&a=1", csrf(&Secret::new("brw_one"), account));
            assert_eq!(outcome(&[], &before, cookie).await, "Foreign", "a page of {account:?}");
        }
        assert_eq!(outcome(&[], &format!("{good}&{good}"), cookie).await, "Foreign", "the token twice");
        assert_eq!(outcome(&[], &"a".repeat(20_000), cookie).await, "TooLarge");
    }

    #[test]
    fn a_field_that_is_there_twice_is_not_there() {
        let fields = Fields::parse(b"state=a&state=b&code=%3C%00&x");
        assert_eq!((fields.get("state"), fields.get("code"), fields.get("x")), (None, Some("<\0"), Some("")));
    }
}
