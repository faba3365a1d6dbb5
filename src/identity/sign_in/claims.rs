//! What an ID token says, and whether it says it about this sign-in (OpenID Connect Core 1.0 §3.1.3.7).
//!
//! The signature is not looked at: the token comes straight from the token endpoint over TLS, in answer to a request
//! that carried our secret or PKCE verifier, which is what point 6 of that list allows instead.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::userinfo::Who;
use crate::clean_json;
use crate::crypto::constant_time_eq;

/// Largest ID token, in bytes.
const LARGEST: usize = 64 << 10;
/// How far the provider's clock may be ahead of or behind ours, in seconds.
const SKEW_SECONDS: i64 = 60;
/// Longest subject (OpenID Connect Core 1.0 §2), in bytes.
pub(super) const LONGEST_SUBJECT: usize = 255;

/// What must be so.
pub(super) struct Expected<'a> {
    /// With `{tid}` in it where every customer of the provider is an issuer of its own.
    pub issuer: &'a str,
    pub client_id: &'a str,
    pub nonce: &'a str,
    /// Unix time in seconds.
    pub now: i64,
}

/// Why a token is refused: for the log. Never shown to people, and never holds the token's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadToken {
    #[error("it is no signed JSON web token")]
    Malformed,
    #[error("`iss` is not the issuer")]
    Issuer,
    #[error("`aud` or `azp` is not this client")]
    Audience,
    #[error("it has expired, or `exp` is missing")]
    Expired,
    #[error("`nonce` belongs to another sign-in")]
    Nonce,
    #[error("`sub` is missing, too long, or not plain text")]
    Subject,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    azp: Option<String>,
    exp: Option<f64>,
    nonce: Option<String>,
    tid: Option<String>,
    name: Option<String>,
    preferred_username: Option<String>,
    email: Option<String>,
    email_verified: Option<Verified>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// Some providers write the boolean as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Verified {
    Yes(bool),
    Text(String),
}

/// Who the token is about, when everything in it fits.
pub(super) fn read(token: &str, expected: &Expected<'_>) -> Result<Who, BadToken> {
    if token.len() > LARGEST {
        return Err(BadToken::Malformed);
    }
    let mut parts = token.split('.');
    let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(BadToken::Malformed);
    };
    let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).map_err(|_| BadToken::Malformed)?;
    let claims: Claims = clean_json::from_slice(&payload).map_err(|_| BadToken::Malformed)?;
    check(&claims, expected)?;
    let email_is_verified = match &claims.email_verified {
        Some(Verified::Yes(verified)) => *verified,
        Some(Verified::Text(text)) => text == "true",
        None => false,
    };
    let label =
        [&claims.email, &claims.preferred_username, &claims.name].into_iter().flatten().next().cloned();
    Ok(Who {
        issuer: claims.iss,
        label: label.unwrap_or_else(|| claims.sub.clone()),
        subject: claims.sub,
        verified_email: claims.email.filter(|_| email_is_verified),
    })
}

fn check(claims: &Claims, expected: &Expected<'_>) -> Result<(), BadToken> {
    let issuer_fits = if expected.issuer.contains("{tid}") {
        let tenant = claims.tid.as_deref().filter(|tenant| is_tenant(tenant)).ok_or(BadToken::Issuer)?;
        expected.issuer.replace("{tid}", tenant) == claims.iss
    } else {
        expected.issuer == claims.iss
    };
    if !issuer_fits {
        return Err(BadToken::Issuer);
    }
    let for_us = match &claims.aud {
        Audience::One(audience) => audience == expected.client_id,
        Audience::Several(audiences) => {
            audiences.iter().any(|audience| audience == expected.client_id)
                && (audiences.len() == 1 || claims.azp.is_some())
        }
    };
    if !for_us || claims.azp.as_deref().is_some_and(|party| party != expected.client_id) {
        return Err(BadToken::Audience);
    }
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^52")]
    let now = (expected.now - SKEW_SECONDS) as f64;
    if claims.exp.is_none_or(|exp| exp <= now) {
        return Err(BadToken::Expired);
    }
    let nonce = claims.nonce.as_deref().unwrap_or_default();
    if !constant_time_eq(nonce.as_bytes(), expected.nonce.as_bytes()) {
        return Err(BadToken::Nonce);
    }
    if !is_subject(&claims.sub) {
        return Err(BadToken::Subject);
    }
    Ok(())
}

/// Whether a text can be somebody's stable name: plain, and not so long that it is a trick.
pub(super) fn is_subject(text: &str) -> bool {
    (1..=LONGEST_SUBJECT).contains(&text.len()) && text.bytes().all(|byte| (0x20..0x7f).contains(&byte))
}

fn is_tenant(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn outcome(issuer: &str, change: Value) -> String {
        let mut claims =
            json!({ "iss": "https://i.example", "sub": "s", "aud": "c", "exp": 1000, "nonce": "n" });
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let expected = Expected { issuer, client_id: "c", nonce: "n", now: 1000 };
        match read(&token, &expected) {
            Ok(who) => format!("{} {} {}", who.subject, who.label, who.verified_email.unwrap_or_default()),
            Err(error) => format!("{error:?}"),
        }
    }

    #[test]
    fn only_a_token_for_this_sign_in_counts() {
        for (change, expect) in [
            (json!({}), "s s "),
            (json!({ "email": "a@b.c", "email_verified": true }), "s a@b.c a@b.c"),
            (json!({ "email": "a@b.c", "email_verified": "true" }), "s a@b.c a@b.c"),
            (json!({ "email": "a@b.c", "email_verified": false }), "s a@b.c "),
            (json!({ "email": "a@b.c" }), "s a@b.c "),
            (json!({ "iss": "https://i.example/" }), "Issuer"),
            (json!({ "iss": "https://evil.example" }), "Issuer"),
            (json!({ "aud": "other" }), "Audience"),
            (json!({ "aud": ["c"] }), "s s "),
            (json!({ "aud": ["other", "c"] }), "Audience"),
            (json!({ "aud": ["other", "c"], "azp": "c" }), "s s "),
            (json!({ "aud": ["other", "c"], "azp": "other" }), "Audience"),
            (json!({ "azp": "other" }), "Audience"),
            (json!({ "aud": [] }), "Audience"),
            (json!({ "exp": 941 }), "s s "),
            (json!({ "exp": 940 }), "Expired"),
            (json!({ "exp": null }), "Expired"),
            (json!({ "exp": "1000" }), "Malformed"),
            (json!({ "nonce": "m" }), "Nonce"),
            (json!({ "nonce": null }), "Nonce"),
            (json!({ "sub": "" }), "Subject"),
            (json!({ "sub": "x".repeat(256) }), "Subject"),
            (json!({ "sub": "a\u{0}b" }), "Subject"),
            (json!({ "sub": 7 }), "Malformed"),
        ] {
            assert_eq!(outcome("https://i.example", change.clone()), expect, "{change}");
        }
    }

    #[test]
    fn each_tenant_is_an_issuer_of_its_own() {
        let common = "https://login.example/{tid}/v2.0";
        let of = |tid: &str, iss: &str| outcome(common, json!({ "tid": tid, "iss": iss }));
        assert_eq!(of("12ab-34", "https://login.example/12ab-34/v2.0"), "s s ");
        assert_eq!(of("12ab-34", "https://login.example/9999/v2.0"), "Issuer");
        assert_eq!(of("../x", "https://login.example/../x/v2.0"), "Issuer");
        assert_eq!(outcome(common, json!({ "iss": common })), "Issuer");
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let expected = Expected { issuer: "i", client_id: "c", nonce: "n", now: 0 };
        for text in ["", "a.b", "a.b.c.d", "a.!.c", "e30.e30.x", &"a".repeat(LARGEST + 1)] {
            assert_eq!(read(text, &expected).err(), Some(BadToken::Malformed));
        }
    }
}
