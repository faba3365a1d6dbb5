//! Proof Key for Code Exchange (RFC 7636), S256 only.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::config::Secret;

/// A verifier and the challenge that goes into the authorize URL.
#[derive(Debug, Clone)]
pub struct Pkce {
    /// Kept until the code is exchanged.
    pub verifier: Secret,
    pub challenge: String,
}

impl Pkce {
    /// A new one, of 256 random bits.
    ///
    /// # Panics
    /// When the operating system gives no randomness.
    #[expect(clippy::new_without_default, reason = "it is random, and a default is not")]
    pub fn new() -> Pkce {
        let mut bytes = Zeroizing::new([0u8; 32]);
        getrandom::fill(bytes.as_mut()).expect("the operating system provides randomness");
        Pkce::of(Secret::new(URL_SAFE_NO_PAD.encode(bytes.as_ref())))
    }

    /// The one with this verifier.
    pub fn of(verifier: Secret) -> Pkce {
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.expose().as_bytes()));
        Pkce { verifier, challenge }
    }
}
