//! An API key as the configuration keeps it: only its hash.

use std::fmt;

use super::{constant_time_eq, sha256, to_hex};

/// The SHA-256 hash of an API key.
///
/// A fast hash is enough because keys are not chosen by people: `toolgate key hash` makes them from 130 random bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ApiKeyHash([u8; 32]);

/// The text is not a hash of an API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadHash {
    #[error("must begin with `sha256:`")]
    Scheme,
    #[error("must be `sha256:` and 64 hexadecimal digits")]
    Digits,
}

impl ApiKeyHash {
    /// The hash of `key`.
    pub fn of(key: &str) -> Self {
        ApiKeyHash(sha256(key.as_bytes()))
    }

    /// The hash that these bytes are.
    pub fn from_bytes(hash: [u8; 32]) -> Self {
        ApiKeyHash(hash)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads `sha256:` and 64 hexadecimal digits.
    ///
    /// # Errors
    /// [`BadHash`]; the text is not repeated, since people paste the key itself by mistake.
    pub fn parse(text: &str) -> Result<Self, BadHash> {
        let digits = text.strip_prefix("sha256:").ok_or(BadHash::Scheme)?.as_bytes();
        if digits.len() != 64 {
            return Err(BadHash::Digits);
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(ApiKeyHash(hash))
    }

    /// Whether both are of the same key, in constant time.
    pub fn matches(&self, other: &ApiKeyHash) -> bool {
        constant_time_eq(&self.0, &other.0)
    }
}

fn digit(character: u8) -> Result<u8, BadHash> {
    match character {
        b'0'..=b'9' => Ok(character - b'0'),
        b'a'..=b'f' => Ok(character - b'a' + 10),
        b'A'..=b'F' => Ok(character - b'A' + 10),
        _ => Err(BadHash::Digits),
    }
}

impl fmt::Display for ApiKeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", to_hex(&self.0))
    }
}

impl fmt::Debug for ApiKeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKeyHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_hash_is_read_back() {
        let hash = ApiKeyHash::of("tgk_secret");
        assert_eq!(ApiKeyHash::parse(&hash.to_string()), Ok(hash));
        assert_eq!(ApiKeyHash::parse(&hash.to_string().to_uppercase().replace("SHA", "sha")), Ok(hash));
        assert!(hash.matches(&ApiKeyHash::of("tgk_secret")) && !hash.matches(&ApiKeyHash::of("tgk_other")));
    }

    #[test]
    fn other_texts_are_refused() {
        let short = "0".repeat(63);
        for (text, error) in [
            ("", BadHash::Scheme),
            ("tgk_abc", BadHash::Scheme),
            ("sha256:", BadHash::Digits),
            (&format!("sha256:{short}"), BadHash::Digits),
            (&format!("sha256:{short}g"), BadHash::Digits),
            (&format!("sha256:{short}é"), BadHash::Digits),
        ] {
            assert_eq!(ApiKeyHash::parse(text), Err(error), "{text}");
        }
    }
}
