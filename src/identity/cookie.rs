//! The two cookies of our pages: one that tells browsers apart, one that holds a session.

use http::{HeaderMap, HeaderValue, header};

use crate::config::Secret;

/// Which cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CookieKind {
    /// Random, for every browser: what is begun in it can be finished in it only.
    Browser,
    /// Opens a session.
    Session,
}

/// Names, reads and writes our cookies. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Cookies {
    browser: String,
    session: String,
    secure: bool,
}

/// Longest value that is read, in bytes.
const LONGEST: usize = 128;

impl Cookies {
    /// For pages at `public_url`. With https the `__Host-` prefix keeps other hosts of the same domain from planting
    /// cookies. Without it, which is on this machine only, ports share cookies: the port tells gateways apart.
    pub fn new(public_url: &str) -> Self {
        let secure = public_url.starts_with("https://");
        let port = url::Url::parse(public_url).ok().and_then(|url| url.port_or_known_default());
        let prefix = match port {
            _ if secure => "__Host-toolgate-".to_owned(),
            Some(port) => format!("toolgate-{port}-"),
            None => "toolgate-".to_owned(),
        };
        Cookies { browser: format!("{prefix}browser"), session: format!("{prefix}session"), secure }
    }

    fn name(&self, kind: CookieKind) -> &str {
        match kind {
            CookieKind::Browser => &self.browser,
            CookieKind::Session => &self.session,
        }
    }

    /// The cookie's value, when the browser sent one that we could have made.
    pub fn read(&self, headers: &HeaderMap, kind: CookieKind) -> Option<Secret> {
        headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(name, value)| *name == self.name(kind) && is_ours(value))
            .map(|(_, value)| Secret::new(value))
    }

    /// The header that gives the browser this cookie for `seconds`.
    pub fn give(&self, kind: CookieKind, value: &Secret, seconds: i64) -> HeaderValue {
        let secure = if self.secure { "; Secure" } else { "" };
        let name = self.name(kind);
        let line =
            format!("{name}={}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}", value.expose());
        let mut value = HeaderValue::try_from(line).expect("our names and values are plain ASCII");
        value.set_sensitive(true);
        value
    }

    /// The header that takes the cookie away.
    pub fn take(&self, kind: CookieKind) -> HeaderValue {
        self.give(kind, &Secret::new(""), 0)
    }
}

fn is_ours(value: &str) -> bool {
    (20..=LONGEST).contains(&value.len())
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str, line: &'static str) -> Option<String> {
        let cookies = Cookies::new(url);
        let headers = HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_static(line))]);
        cookies.read(&headers, CookieKind::Session).map(|value| value.expose().to_owned())
    }

    #[test]
    fn only_our_own_cookies_are_read() {
        let https = "https://tools.example.com";
        let value = Some("tgs_0123456789abcdef".to_owned());
        assert_eq!(read(https, "a=b; __Host-toolgate-session=tgs_0123456789abcdef"), value);
        assert_eq!(read(https, "toolgate-session=tgs_0123456789abcdef"), None, "planted by a neighbour");
        assert_eq!(read(https, "__Host-toolgate-session=short"), None);
        assert_eq!(read(https, "__Host-toolgate-session=tgs_0123456789abcde\"f"), None);
        let local = "http://127.0.0.1:8787";
        assert_eq!(read(local, "toolgate-8787-session=tgs_0123456789abcdef"), value);
        assert_eq!(read(local, "toolgate-8788-session=tgs_0123456789abcdef"), None, "another gateway's");
    }

    #[test]
    fn cookies_are_kept_from_scripts_other_sites_and_plain_http() {
        let cookies = Cookies::new("https://tools.example.com");
        insta::assert_snapshot!(
            cookies.give(CookieKind::Session, &Secret::new("v"), 60).to_str().unwrap(),
            @"__Host-toolgate-session=v; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure"
        );
        let cookies = Cookies::new("http://127.0.0.1:8787");
        insta::assert_snapshot!(
            cookies.take(CookieKind::Browser).to_str().unwrap(),
            @"toolgate-8787-browser=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"
        );
        assert!(cookies.give(CookieKind::Browser, &Secret::new("v"), 1).is_sensitive());
    }
}
