//! The built-in rows of what servers do differently, as data, and the operator's rows after them.

use http::Uri;
use serde::Deserialize;

use crate::config::OauthQuirk;
use crate::oauth::{QuirkTable, Quirks};

const BUILT_IN: &str = include_str!("quirks.toml");

#[derive(Deserialize)]
struct File {
    row: Vec<OauthQuirk>,
}

/// The built-in rows.
///
/// # Panics
/// Never: a test reads the file.
pub fn built_in() -> Vec<OauthQuirk> {
    toml::from_str::<File>(BUILT_IN).expect("a test reads the file").row
}

/// The built-in rows, and stronger ones of the operator.
pub fn table(operators: &[OauthQuirk]) -> QuirkTable {
    QuirkTable::new(built_in().into_iter().chain(operators.iter().cloned()))
}

/// What the built-in rows say about a server.
pub fn find(issuer: &str, resource: &Uri) -> Quirks {
    table(&[]).find(Some(issuer), Some(resource))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_names_hosts_says_what_it_is_about_and_changes_something() {
        let rows = built_in();
        assert!(rows.len() >= 12);
        for row in rows {
            assert!(row.about.as_ref().is_some_and(|about| about.len() > 20), "{row:?}");
            assert!(!row.issuers.is_empty() || !row.resources.is_empty(), "{row:?}");
            let empty = OauthQuirk {
                issuers: row.issuers.clone(),
                resources: row.resources.clone(),
                about: row.about.clone(),
                ..OauthQuirk::default()
            };
            assert_ne!(row, empty);
        }
    }

    #[test]
    fn rows_apply_to_their_hosts_and_to_no_lookalikes() {
        let resource = Uri::from_static("https://mcp.example.com/mcp");
        for (issuer, applies) in [
            ("https://login.microsoftonline.com/1234/v2.0", true),
            ("https://login.microsoftonline.com.evil.example/1234", false),
            ("https://login.microsoftonline.com:444/1234", false),
            ("https://pool.auth.eu-west-1.amazoncognito.com", true),
            ("https://cognito-idp.eu-west-1.amazonaws.com/pool", true),
            ("https://api.eu-west-1.amazonaws.com", false),
            ("https://amazoncognito.com", false),
            ("https://evilamazoncognito.com", false),
            ("http://LOGIN.microsoftonline.com/x", true),
        ] {
            assert_eq!(find(issuer, &resource).assume_s256, applies, "{issuer}");
        }
        let todoist = Uri::from_static("https://ai.todoist.net/mcp");
        let quirks = find("https://todoist.com", &todoist);
        assert!(quirks.hides_expiry(200, br#"{"text":"Todoist API request failed (HTTP 401). Try"}"#));
        assert!(!quirks.hides_expiry(500, b""));
    }

    #[test]
    fn an_operators_row_is_stronger() {
        let own = OauthQuirk {
            issuers: vec!["login.microsoftonline.com".to_owned()],
            assume_s256: Some(false),
            ..OauthQuirk::default()
        };
        let found = table(&[own]).find(Some("https://login.microsoftonline.com/t/v2.0"), None);
        assert!(!found.assume_s256);
        assert_eq!(found.resource, crate::config::SendResource::Omit);
    }
}
