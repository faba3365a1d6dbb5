//! Asking a token endpoint: a code for tokens, a refresh token for newer ones.

use http::Uri;

use super::fetch::{self, Failure};
use super::{AuthMethod, Client, Quirks, TokenError, Tokens, token};
use crate::config::Secret;
use crate::egress::{Egress, Reach, parse_uri};

const FORM: &str = "application/x-www-form-urlencoded";

/// A token endpoint and what every request to it says.
#[derive(Debug, Clone, Copy)]
pub struct TokenEndpoint<'a> {
    /// `token_endpoint` of the metadata.
    pub url: &'a str,
    /// [`Reach::Requested`] unless the operator's configuration names the issuer.
    pub reach: Reach,
    pub client: &'a Client,
    /// The literal from the resource's metadata; `None` to ask for no resource.
    pub resource: Option<&'a str>,
    pub quirks: &'a Quirks,
}

/// Exchanges an authorization code (RFC 6749 §4.1.3). `redirect_uri` is the one of the authorize URL.
///
/// # Errors
/// See [`TokenError`].
pub async fn exchange_code(
    egress: &Egress,
    endpoint: &TokenEndpoint<'_>,
    code: &Secret,
    redirect_uri: &str,
    verifier: &Secret,
) -> Result<Tokens, TokenError> {
    let form = vec![
        ("grant_type", "authorization_code".to_owned()),
        ("code", code.expose().to_owned()),
        ("redirect_uri", redirect_uri.to_owned()),
        ("code_verifier", verifier.expose().to_owned()),
    ];
    ask(egress, endpoint, form).await
}

/// Asks for newer tokens (RFC 6749 §6), with the scopes that were granted.
///
/// # Errors
/// See [`TokenError`]. `Temporary` and `NotAnAnswer` say by `in_doubt` whether `refresh_token` may be spent.
pub async fn refresh(
    egress: &Egress,
    endpoint: &TokenEndpoint<'_>,
    refresh_token: &Secret,
) -> Result<Tokens, TokenError> {
    let form = vec![
        ("grant_type", "refresh_token".to_owned()),
        ("refresh_token", refresh_token.expose().to_owned()),
    ];
    ask(egress, endpoint, form).await
}

async fn ask(
    egress: &Egress,
    endpoint: &TokenEndpoint<'_>,
    mut form: Vec<(&'static str, String)>,
) -> Result<Tokens, TokenError> {
    let quirks = endpoint.quirks;
    if let Some(resource) = endpoint.resource.and_then(|resource| quirks.resource_parameter(resource)) {
        form.push(("resource", resource.to_owned()));
    }
    let answer = match send(egress, endpoint, form).await? {
        Ok(answer) => answer,
        Err(Failure::Egress(crate::egress::Error::Refused(refusal))) => {
            return Err(TokenError::Address(refusal.to_string()));
        }
        Err(failure) => {
            let in_doubt = failure.may_have_arrived();
            return Err(TokenError::Temporary { reason: failure.to_string(), retry_after: None, in_doubt });
        }
    };
    token::read(answer.status, &answer.media_type(), answer.retry_after(), &answer.body, quirks)
}

/// Posts a form to the endpoint, with the client's proof.
pub(super) async fn send(
    egress: &Egress,
    endpoint: &TokenEndpoint<'_>,
    mut form: Vec<(&'static str, String)>,
) -> Result<Result<fetch::Answer, Failure>, TokenError> {
    let uri: Uri = parse_uri(endpoint.url).map_err(|refusal| TokenError::Address(refusal.to_string()))?;
    let method: AuthMethod = endpoint.quirks.auth_method.unwrap_or(endpoint.client.auth_method);
    let proof = endpoint.client.prove(method, &mut form);
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    Ok(fetch::post(egress, endpoint.reach, &uri, FORM, proof, body).await)
}
