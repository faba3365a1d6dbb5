//! Where metadata stands. Pure.

use http::Uri;

use crate::egress::{Refusal, parse_uri};

/// An address to try, and the rule that puts the document there.
pub(super) struct Place {
    pub uri: Uri,
    pub rule: &'static str,
}

/// Where protected resource metadata of `resource` stands: with its path first, then at the root.
pub(super) fn of_resource(resource: &Uri) -> Vec<Place> {
    let mut places = Vec::new();
    let path = resource.path().trim_end_matches('/');
    let at = |path: &str, rule| {
        let uri =
            parse_uri(&format!("{}/.well-known/oauth-protected-resource{path}", origin(resource))).ok()?;
        Some(Place { uri, rule })
    };
    if !path.is_empty() {
        places.extend(at(path, "RFC 9728 §3.1"));
    }
    places.extend(at("", "RFC 9728 §3.1, at the root"));
    places
}

/// Where the metadata of `issuer` stands, in the order of the specification.
///
/// # Errors
/// When the issuer is no address.
pub(super) fn of_issuer(issuer: &str) -> Result<Vec<Place>, Refusal> {
    let uri = parse_uri(issuer)?;
    let (origin, path) = (origin(&uri), uri.path().trim_end_matches('/'));
    let mut written =
        vec![(format!("{origin}/.well-known/oauth-authorization-server{path}"), "RFC 8414 §3.1")];
    if path.is_empty() {
        written.push((format!("{origin}/.well-known/openid-configuration"), "OpenID Connect Discovery §4"));
    } else {
        written.push((format!("{origin}/.well-known/openid-configuration{path}"), "RFC 8414 §5"));
        written.push((
            format!("{origin}{path}/.well-known/openid-configuration"),
            "OpenID Connect Discovery §4",
        ));
    }
    written.into_iter().map(|(text, rule)| Ok(Place { uri: parse_uri(&text)?, rule })).collect()
}

/// Scheme, host and port.
pub(super) fn origin(uri: &Uri) -> String {
    let authority = uri.authority().map_or("", http::uri::Authority::as_str);
    format!("{}://{authority}", uri.scheme_str().unwrap_or("https"))
}
