//! Where a person goes on after signing in: to a page of ours, and nowhere else.

use crate::completion::is_run_id;

/// A path of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReturnTo(String);

impl ReturnTo {
    /// The given path when it is one of the few that one can come from; else the account page. Nothing is parsed as
    /// an address, so that no reading of it by a browser can lead elsewhere.
    pub fn of(given: Option<&str>) -> Self {
        let known = |path: &&str| match path.strip_prefix("/connect/") {
            Some(link) => is_link(link),
            None => matches!(*path, "/" | "/account" | "/connections" | "/runs") || is_run(path),
        };
        ReturnTo(given.filter(known).unwrap_or("/account").to_owned())
    }

    pub fn path(&self) -> &str {
        &self.0
    }

    /// Whether it leads to the page of a link.
    pub fn is_connect(&self) -> bool {
        self.0.starts_with("/connect/")
    }
}

fn is_run(path: &str) -> bool {
    path.strip_prefix('/').is_some_and(is_run_id)
}

/// Whether a text has the form of a link's id.
pub(super) fn is_link(text: &str) -> bool {
    (8..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_return_to_pages_of_ours_only() {
        for good in [
            "/connect/flw_0123456789",
            "/account",
            "/connections",
            "/",
            "/runs",
            "/run_0123456789abcdefghijklmnop",
        ] {
            assert_eq!(ReturnTo::of(Some(good)).path(), good);
        }
        for bad in [
            "",
            "//evil.example",
            "/\\evil.example",
            "https://evil.example/connect/flw_0123456789",
            "/connect/",
            "/connect//evil.example",
            "/connect/../../x",
            "/connect/flw_0123456789?x=1",
            "/connect/flw_0123456789#x",
            "/connect/flw_0123%2f456789",
            "/connect/flw_0123456789\r\nx: y",
            "javascript:alert(1)",
            "/account@evil.example",
            "/logout",
            "/run_0123456789abcdefghijklmnop/share",
            "/run_0123456789abcdefghijklmnop?x",
            "/run_",
            " /account",
        ] {
            assert_eq!(ReturnTo::of(Some(bad)).path(), "/account", "{bad:?}");
        }
        assert_eq!(ReturnTo::of(None).path(), "/account");
    }
}
