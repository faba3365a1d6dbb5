//! The address to which a browser is sent for consent (RFC 6749 §4.1.1). Pure.

use http::Uri;
use url::Url;

use super::{Pkce, Quirks, ServerMetadata};
use crate::config::Secret;
use crate::egress::{Refusal, parse_uri};

/// What goes into it.
#[derive(Debug, Clone, Copy)]
pub struct Authorize<'a> {
    pub server: &'a ServerMetadata,
    pub client_id: &'a str,
    pub redirect_uri: &'a str,
    pub scopes: &'a [String],
    pub state: &'a Secret,
    pub pkce: &'a Pkce,
    /// The literal from the resource's metadata; `None` to ask for no resource.
    pub resource: Option<&'a str>,
    pub quirks: &'a Quirks,
}

/// Builds it. What the server wrote into its endpoint's query stays, unless it is one of our parameters.
///
/// # Errors
/// [`Refusal`] when the endpoint is not an http or https address.
pub fn authorize_url(wanted: &Authorize<'_>) -> Result<Uri, Refusal> {
    let endpoint = parse_uri(&wanted.server.authorization_endpoint)?;
    let mut url = Url::parse(&endpoint.to_string())
        .map_err(|_| Refusal::Malformed(wanted.server.authorization_endpoint.chars().take(100).collect()))?;
    let quirks = wanted.quirks;
    let separator = quirks.scope_separator.as_deref().unwrap_or(" ");
    let mut ours = vec![
        ("response_type", "code".to_owned()),
        ("client_id", wanted.client_id.to_owned()),
        ("redirect_uri", wanted.redirect_uri.to_owned()),
        ("state", wanted.state.expose().to_owned()),
        ("code_challenge", wanted.pkce.challenge.clone()),
        ("code_challenge_method", "S256".to_owned()),
    ];
    if !wanted.scopes.is_empty() {
        ours.push((quirks.scope_parameter.as_deref().unwrap_or("scope"), wanted.scopes.join(separator)));
    }
    if let Some(resource) = wanted.resource.and_then(|resource| quirks.resource_parameter(resource)) {
        ours.push(("resource", resource.to_owned()));
    }
    for (name, value) in &quirks.authorize_parameters {
        if !ours.iter().any(|(known, _)| known == name) {
            ours.push((name, value.clone()));
        }
    }
    // OpenID Connect Core §11: a refresh token needs the person's consent each time.
    if wanted.scopes.iter().any(|scope| scope == "offline_access")
        && !ours.iter().any(|(name, _)| *name == "prompt")
    {
        ours.push(("prompt", "consent".to_owned()));
    }
    let theirs: Vec<(String, String)> = url
        .query_pairs()
        .filter(|(name, _)| !ours.iter().any(|(ours, _)| ours == name))
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    url.query_pairs_mut().clear().extend_pairs(theirs).extend_pairs(ours);
    parse_uri(url.as_str())
}
