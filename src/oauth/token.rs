//! Reading what a token endpoint answers. Pure, and as hostile as its readers expect.

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use super::error::code_of;
use super::trace::visible;
use super::{Quirks, TokenError};
use crate::clean_json;
use crate::config::Secret;

/// Longest token, in bytes.
const MAX_TOKEN_BYTES: usize = 16 << 10;
/// Longest life that is believed, in seconds: ten years.
const MAX_LIFE_SECONDS: u64 = 10 * 365 * 24 * 3600;
/// Fields beside the tokens that may say whose they are.
const ACCOUNT_FIELDS: [&str; 9] = [
    "account_id",
    "email",
    "team",
    "user",
    "user_id",
    "user_name",
    "username",
    "workspace_id",
    "workspace_name",
];

/// What a grant gave.
#[derive(Clone)]
pub struct Tokens {
    pub access: Secret,
    /// `None`: the old one stays good.
    pub refresh: Option<Secret>,
    /// From now; `None` when the server does not say.
    pub expires_in_seconds: Option<u64>,
    /// As granted; `None`: as asked.
    pub scope: Option<String>,
    pub id_token: Option<Secret>,
    /// Short texts that may tell whose tokens these are, by field.
    pub extra: BTreeMap<String, String>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("expires_in_seconds", &self.expires_in_seconds).finish_non_exhaustive()
    }
}

/// One field twice is an error: nobody knows which the server meant.
#[derive(Deserialize)]
struct Document {
    access_token: Option<String>,
    token_type: Option<String>,
    refresh_token: Option<String>,
    expires_in: Option<Value>,
    scope: Option<Value>,
    id_token: Option<String>,
    error: Option<Value>,
    ok: Option<bool>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

/// Reads an answer with this status and media type. `retry_after` is what its header asked for.
///
/// # Errors
/// [`TokenError`], all but `Address`.
pub fn read(
    status: StatusCode,
    media_type: &str,
    retry_after: Option<Duration>,
    body: &[u8],
    quirks: &Quirks,
) -> Result<Tokens, TokenError> {
    let is_busy = matches!(status.as_u16(), 408 | 425 | 429) || status.is_server_error();
    if is_busy {
        let reason = format!("the authorization server answered with HTTP status {}", status.as_u16());
        // A gateway's timeout hides what became of the request behind it.
        let in_doubt = matches!(status.as_u16(), 408 | 500 | 502 | 504);
        return Err(TokenError::Temporary { reason, retry_after, in_doubt });
    }
    let nothing = |reason| TokenError::NotAnAnswer { reason, in_doubt: status.is_success() };
    let document = if media_type == "application/x-www-form-urlencoded" {
        from_form(body)
    } else {
        clean_json::from_slice::<Document>(body).ok()
    };
    let Some(mut document) = document else {
        return Err(nothing("it is not JSON, or not a token response"));
    };
    if let Some(code) = document.error.as_ref().and_then(Value::as_str) {
        return Err(refusal(code, retry_after, quirks));
    }
    if document.ok == Some(false) || !status.is_success() {
        return Err(nothing("it says no without a reason"));
    }
    let mut strict_type = true;
    if let Some(field) = &quirks.token_field
        && let Some(inner) = document.rest.remove(field)
    {
        let inner: Document =
            serde_json::from_value(inner).map_err(|_| nothing("the part with the token is unreadable"))?;
        document.access_token = inner.access_token;
        document.refresh_token = inner.refresh_token;
        document.expires_in = inner.expires_in.or(document.expires_in);
        document.scope = inner.scope.or(document.scope);
        document.rest.extend(inner.rest);
        strict_type = false;
    }
    let access = document.access_token.filter(|token| !token.is_empty()).map(Secret::new);
    let access = access.ok_or_else(|| nothing("it holds no access token"))?;
    if !is_token(access.expose()) {
        return Err(nothing("its access token is none that a header could carry"));
    }
    // RFC 6749 §7.1: a token of an unknown type must not be used. Some servers leave the type out.
    let is_bearer = document.token_type.as_deref().is_none_or(|kind| kind.eq_ignore_ascii_case("bearer"));
    if strict_type && !is_bearer {
        return Err(nothing("its token is not a bearer token"));
    }
    let refresh = document.refresh_token.filter(|token| !token.is_empty()).map(Secret::new);
    if refresh.as_ref().is_some_and(|token| !is_token(token.expose())) {
        return Err(nothing("its refresh token is unreadable"));
    }
    Ok(Tokens {
        access,
        refresh,
        expires_in_seconds: document.expires_in.as_ref().and_then(seconds),
        scope: document
            .scope
            .as_ref()
            .and_then(Value::as_str)
            .map(|scope| super::split_scopes(scope).join(" ")),
        id_token: document.id_token.filter(|token| !token.is_empty() && is_token(token)).map(Secret::new),
        extra: account_of(&document.rest),
    })
}

/// What an error code means.
fn refusal(code: &str, retry_after: Option<Duration>, quirks: &Quirks) -> TokenError {
    let is_one_of = |codes: &[String]| codes.iter().any(|known| known == code);
    match code {
        "invalid_grant" => TokenError::InvalidGrant,
        "invalid_client" => TokenError::InvalidClient,
        _ if is_one_of(&quirks.grant_errors) => TokenError::InvalidGrant,
        _ if is_one_of(&quirks.client_errors) => TokenError::InvalidClient,
        "invalid_target" => TokenError::InvalidTarget,
        "invalid_scope" => TokenError::InvalidScope,
        "temporarily_unavailable" | "server_error" | "slow_down" | "ratelimited" => TokenError::Temporary {
            reason: format!("the authorization server says `{code}`"),
            retry_after,
            in_doubt: false,
        },
        _ => TokenError::Refused { code: code_of(code) },
    }
}

/// Visible ASCII: what an `Authorization` header and a form carry unchanged.
fn is_token(text: &str) -> bool {
    text.len() <= MAX_TOKEN_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Seconds as a number or as digits; what is past or no number counts as unknown.
fn seconds(value: &Value) -> Option<u64> {
    let seconds = match value {
        Value::String(text) => text.trim().parse().ok()?,
        number => number.as_u64().or_else(|| number.as_f64().filter(|n| *n >= 0.0).map(|n| n as u64))?,
    };
    Some(seconds.min(MAX_LIFE_SECONDS))
}

fn account_of(fields: &BTreeMap<String, Value>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for name in ACCOUNT_FIELDS {
        let text = match fields.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            Some(Value::Object(inner)) => {
                let named = ["name", "email", "id"].iter().find_map(|key| inner.get(*key)?.as_str());
                named.unwrap_or_default().to_owned()
            }
            _ => continue,
        };
        if !text.is_empty() {
            found.insert(name.to_owned(), visible(&text, 200));
        }
    }
    found
}

fn from_form(body: &[u8]) -> Option<Document> {
    let mut fields = serde_json::Map::new();
    for (name, value) in url::form_urlencoded::parse(body).take(64) {
        if fields.insert(name.into_owned(), Value::String(value.into_owned())).is_some() {
            return None;
        }
    }
    serde_json::from_value(Value::Object(fields)).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const JSON: &str = "application/json";

    fn read_json(status: u16, body: &[u8]) -> Result<Tokens, TokenError> {
        read(StatusCode::from_u16(status).unwrap(), JSON, None, body, &Quirks::default())
    }

    proptest! {
        #[test]
        fn whatever_is_answered_it_is_read_without_panic_and_nothing_of_it_is_said(
            status in 100u16..600,
            body in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            for media_type in [JSON, "application/x-www-form-urlencoded", ""] {
                let quirks = Quirks { token_field: Some("a".to_owned()), ..Quirks::default() };
                let _ = read(StatusCode::from_u16(status).unwrap(), media_type, None, &body, &quirks);
            }
        }

        #[test]
        fn what_is_read_fits_into_a_header_and_shows_no_token(
            access in "\\PC{0,40}", refresh in "\\PC{0,40}", scope in "\\PC{0,40}", error in "\\PC{0,80}",
        ) {
            let body = json!({ "access_token": access, "refresh_token": refresh, "scope": scope });
            if let Ok(tokens) = read_json(200, body.to_string().as_bytes()) {
                prop_assert_eq!(tokens.access.expose(), &access);
                let header = http::HeaderValue::from_str(&format!("Bearer {access}"));
                prop_assert!(header.is_ok());
                let shown = format!("{tokens:?}");
                let is_silent = shown == "Tokens { expires_in_seconds: None, .. }";
                prop_assert!(is_silent);
            }
            let refused = read_json(400, json!({ "error": error }).to_string().as_bytes()).unwrap_err();
            prop_assert!(refused.to_string().len() < 150);
            prop_assert!(refused.to_string().chars().all(|c| c.is_ascii_graphic() || c == ' '));
        }

        #[test]
        fn good_tokens_are_read_back(
            access in "[!-~]{1,60}", refresh in "[!-~]{1,60}", seconds in 0u64..1_000_000,
        ) {
            let body = json!({
                "access_token": access, "token_type": "bearer", "refresh_token": refresh, "expires_in": seconds,
            });
            let tokens = read_json(200, body.to_string().as_bytes()).unwrap();
            prop_assert_eq!(tokens.access.expose(), &access);
            prop_assert_eq!(tokens.refresh.as_ref().map(Secret::expose), Some(refresh.as_str()));
            prop_assert_eq!(tokens.expires_in_seconds, Some(seconds));
        }
    }
}
