//! Reading `WWW-Authenticate` (RFC 9110 §11.6.1), as tolerantly as servers write it.
//!
//! Pure. It reads what a 401 or 403 says; it never acts on it.

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// What a 401 or 403 said (RFC 9110 §11.6.1, RFC 6750 §3, RFC 9728 §5.1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Challenge {
    /// 401 or 403.
    pub status: u16,
    pub error: Option<String>,
    pub scope: Option<String>,
    pub resource_metadata: Option<String>,
}

/// Longest value kept of any parameter, in bytes; longer ones are left out.
const LONGEST_VALUE: usize = 4096;

impl Challenge {
    /// What the headers of an answer with `status` ask for. Parameters of `Bearer` challenges win over those of
    /// other schemes; among equals the first wins.
    pub fn read(status: u16, headers: &HeaderMap) -> Challenge {
        let mut bearer = Challenge::default();
        let mut other = Challenge::default();
        for value in headers.get_all(WWW_AUTHENTICATE) {
            let text = String::from_utf8_lossy(value.as_bytes());
            for (scheme, name, value) in parameters(&text) {
                let into = if scheme.eq_ignore_ascii_case("bearer") { &mut bearer } else { &mut other };
                let slot = match name.to_ascii_lowercase().as_str() {
                    "error" => &mut into.error,
                    "scope" => &mut into.scope,
                    "resource_metadata" => &mut into.resource_metadata,
                    _ => continue,
                };
                if slot.is_none() && value.len() <= LONGEST_VALUE {
                    *slot = Some(value);
                }
            }
        }
        Challenge {
            status,
            error: bearer.error.or(other.error),
            scope: bearer.scope.or(other.scope),
            resource_metadata: bearer.resource_metadata.or(other.resource_metadata),
        }
    }

    /// The token was good, but not for this: more scopes are wanted (RFC 6750 §3.1). Some servers say it with 401.
    pub fn is_insufficient_scope(&self) -> bool {
        self.error.as_deref() == Some("insufficient_scope")
    }

    /// The server forbids it for another reason than the token: no other token and no login changes that.
    pub fn is_forbidden(&self) -> bool {
        self.status == 403 && !matches!(self.error.as_deref(), Some("insufficient_scope" | "invalid_token"))
    }

    /// The scopes it names, as far as they are scopes (RFC 6749 §3.3), in its order and each once.
    pub fn scopes(&self) -> Vec<String> {
        super::scope::split(self.scope.as_deref().unwrap_or_default())
    }
}

/// Every `name=value` of a header with the scheme it stands under; the scheme is empty when none was given.
fn parameters(text: &str) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    let mut scheme = String::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() && after.is_empty() {
            return found;
        }
        let value = after.trim_start_matches([' ', '\t']);
        match value.strip_prefix('=') {
            // Padding of a token68 (`Basic Zm9v==`) looks like a parameter without a name or value; it is skipped.
            Some(value) if !word.is_empty() => {
                let (value, after) = read_value(value.trim_start_matches([' ', '\t']));
                found.push((scheme.clone(), word.to_owned(), value));
                rest = after;
            }
            Some(value) => rest = value,
            None => {
                word.clone_into(&mut scheme);
                rest = after;
            }
        }
    }
}

/// A token or a quoted string at the start of `text`, and what follows it. An open quote ends with the text.
fn read_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            _ => value.push(character),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn challenge(values: &[&str]) -> Challenge {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        Challenge::read(401, &headers)
    }

    #[test]
    fn finds_what_servers_say_in_the_forms_they_say_it() {
        let metadata = "https://a.example/.well-known/oauth-protected-resource";
        for (values, error, scope, resource_metadata) in [
            (vec![], None, None, None),
            (vec!["Bearer"], None, None, None),
            (vec![r#"Bearer scope="a b", error=invalid_token"#], Some("invalid_token"), Some("a b"), None),
            (
                vec!["Bearer resource_metadata=https://a.example/.well-known/oauth-protected-resource"],
                None,
                None,
                Some(metadata),
            ),
            (
                vec![
                    r#"Basic realm="x, scope=\"no\"", bEARER Resource_Metadata = "https://a.example/.well-known/oauth-protected-resource""#,
                ],
                None,
                None,
                Some(metadata),
            ),
            (
                vec!["Negotiate Zm9v==", r#"Bearer error="insufficient_scope",scope="s""#],
                Some("insufficient_scope"),
                Some("s"),
                None,
            ),
            (vec![r#"DPoP error="d", Bearer error="b""#], Some("b"), None, None),
            (vec![r#"error="bare""#], Some("bare"), None, None),
            (vec![r#"Bearer scope="never closed"#], None, Some("never closed"), None),
            (vec![r#"Bearer scope="a" scope="b""#], None, Some("a"), None),
        ] {
            let read = challenge(&values);
            assert_eq!(
                (read.error.as_deref(), read.scope.as_deref(), read.resource_metadata.as_deref()),
                (error, scope, resource_metadata),
                "{values:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "([a-zA-Z]{0,6}|[ ,=\"\\\\\t]|é){0,40}") {
            parameters(&text);
        }

        #[test]
        fn a_quoted_value_is_read_back(value in "[ -~]{0,40}", scheme in "[A-Za-z]{1,8}") {
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
            let read = parameters(&format!("{scheme} realm=\"r\", scope=\"{quoted}\", error=x"));
            prop_assert_eq!(&read[1], &(scheme.clone(), "scope".to_owned(), value));
            prop_assert_eq!(&read[2].2, "x");
        }
    }
}
