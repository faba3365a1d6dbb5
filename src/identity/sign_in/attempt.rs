//! The secrets of one attempt to sign in, derived from the browser's cookie.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::config::Secret;
use crate::crypto::{constant_time_eq, hmac_sha256, sha256, to_hex};
use crate::id::random_id;

/// State, nonce and PKCE verifier of an attempt. Who does not have the cookie can compute none of them.
pub(super) struct Attempt {
    /// `{salt}.{proof}`
    pub state: String,
    pub nonce: String,
    /// PKCE's verifier (RFC 7636 §4.1): 64 characters.
    pub verifier: Secret,
}

impl Attempt {
    /// A new attempt in the browser with this cookie.
    pub fn begin(browser: &Secret) -> Self {
        Attempt::of(browser, &random_id(""))
    }

    /// The attempt that `state` was made for, when it was made for this browser.
    pub fn resume(browser: &Secret, state: &str) -> Option<Self> {
        let (salt, _) = state.split_once('.')?;
        let attempt = Attempt::of(browser, salt);
        constant_time_eq(attempt.state.as_bytes(), state.as_bytes()).then_some(attempt)
    }

    fn of(browser: &Secret, salt: &str) -> Self {
        let key = sha256(browser.expose().as_bytes());
        let derive = |purpose: &str| hmac_sha256(&key, format!("toolgate {purpose} {salt}").as_bytes());
        Attempt {
            state: format!("{salt}.{}", URL_SAFE_NO_PAD.encode(derive("state"))),
            nonce: URL_SAFE_NO_PAD.encode(derive("nonce")),
            verifier: Secret::new(to_hex(&derive("verifier"))),
        }
    }

    /// PKCE's S256 challenge (RFC 7636 §4.2).
    pub fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(sha256(self.verifier.expose().as_bytes()))
    }

    /// Under which the attempt is remembered.
    pub fn state_hash(&self) -> [u8; 32] {
        sha256(self.state.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_resumed_in_its_own_browser_only() {
        let (one, other) = (Secret::new("brw_one"), Secret::new("brw_two"));
        let attempt = Attempt::begin(&one);
        let resumed = Attempt::resume(&one, &attempt.state).unwrap();
        assert_eq!((&resumed.nonce, &resumed.verifier), (&attempt.nonce, &attempt.verifier));
        assert!(Attempt::resume(&other, &attempt.state).is_none());
        let (salt, proof) = attempt.state.split_once('.').unwrap();
        for forged in [
            String::new(),
            ".".into(),
            salt.into(),
            format!("{salt}."),
            format!("x{salt}.{proof}"),
            format!("{}x", attempt.state),
        ] {
            assert!(Attempt::resume(&one, &forged).is_none(), "{forged}");
        }
        assert_ne!(Attempt::begin(&one).state, attempt.state);
        assert_ne!(resumed.nonce, resumed.verifier.expose());
    }
}
