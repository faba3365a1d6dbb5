//! Sealing one value so that it opens in its own place only: XChaCha20-Poly1305 with the place as additional data.
//!
//! A sealed value is: version byte, length of the key's name, the name, 24 bytes of nonce, ciphertext and tag.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

/// Length of a nonce. So long that random ones do not meet.
pub const NONCE_BYTES: usize = 24;
const VERSION: u8 = 1;
const TAG_BYTES: usize = 16;

/// Where a sealed value belongs. Moved elsewhere, it does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    pub table: &'a str,
    pub column: &'a str,
    /// The row's key.
    pub row: &'a str,
    /// The project whose secret it is; empty for the gateway's own.
    pub project: &'a str,
    /// The user whose secret it is; empty when it is nobody's.
    pub user: &'a str,
}

/// Why a value did not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It was sealed with a key that is not in the keyring.
    #[error("it is sealed with `{0}`, which is not in the keyring")]
    UnknownKey(String),
    /// It was changed, belongs elsewhere, or the key of its name is another one.
    #[error(
        "it does not open: it was changed, belongs elsewhere, or was sealed with another key of the same name"
    )]
    Refused,
    /// These bytes are no sealed value of a version known here.
    #[error("it is not a sealed value")]
    Malformed,
}

pub(super) fn seal(
    key: &[u8; 32],
    key_id: &str,
    nonce: [u8; NONCE_BYTES],
    place: &Place<'_>,
    plaintext: &[u8],
) -> Vec<u8> {
    let mut sealed = header(key_id);
    let data = additional_data(&sealed, place);
    sealed.extend_from_slice(&nonce);
    let ciphertext = XChaCha20Poly1305::new(key.into())
        .encrypt(&XNonce::from(nonce), Payload { msg: plaintext, aad: &data })
        .expect("what is stored is shorter than the cipher's limit of 256 GiB");
    sealed.extend_from_slice(&ciphertext);
    sealed
}

pub(super) fn open(
    key: &[u8; 32],
    place: &Place<'_>,
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let key_id = key_id(sealed).ok_or(OpenError::Malformed)?;
    let (head, rest) = sealed.split_at(2 + key_id.len());
    let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(OpenError::Malformed)?;
    let data = additional_data(head, place);
    XChaCha20Poly1305::new(key.into())
        .decrypt(&XNonce::from(*nonce), Payload { msg: ciphertext, aad: &data })
        .map(Zeroizing::new)
        .map_err(|_| OpenError::Refused)
}

/// The name of the key, when the bytes are long enough and of the known version.
pub(super) fn key_id(sealed: &[u8]) -> Option<&str> {
    let [VERSION, length, rest @ ..] = sealed else { return None };
    let (id, rest) = rest.split_at_checked(usize::from(*length))?;
    if rest.len() < NONCE_BYTES + TAG_BYTES {
        return None;
    }
    std::str::from_utf8(id).ok()
}

/// What every value sealed with the key of this name begins with.
pub fn sealed_prefix(key_id: &str) -> Vec<u8> {
    header(key_id)
}

fn header(key_id: &str) -> Vec<u8> {
    let length = u8::try_from(key_id.len()).expect("names of keys have at most 64 bytes");
    let mut header = vec![VERSION, length];
    header.extend_from_slice(key_id.as_bytes());
    header
}

/// Header and place, each part behind its length, so that no two places give the same bytes.
fn additional_data(header: &[u8], place: &Place<'_>) -> Vec<u8> {
    let Place { table, column, row, project, user } = place;
    let parts =
        [header, table.as_bytes(), column.as_bytes(), row.as_bytes(), project.as_bytes(), user.as_bytes()];
    let mut data = Vec::with_capacity(parts.iter().map(|part| part.len() + 8).sum());
    for part in parts {
        data.extend_from_slice(&(part.len() as u64).to_be_bytes());
        data.extend_from_slice(part);
    }
    data
}

#[cfg(test)]
mod tests {
    use super::super::{KeySet, Keyring, key_id_of};
    use super::*;
    use proptest::prelude::*;

    fn keyring(byte: u8) -> Keyring {
        Keyring::new(KeySet::of_one("key_a", &[byte; 32]).unwrap())
    }

    /// A place as owned texts, so that proptest can make it.
    type Texts = [String; 5];

    fn place(texts: &Texts) -> Place<'_> {
        let [table, column, row, project, user] = texts;
        Place { table, column, row, project, user }
    }

    fn texts() -> impl Strategy<Value = Texts> {
        prop::array::uniform5("[a-b\u{0}é]{0,3}")
    }

    proptest! {
        #[test]
        fn it_opens_at_its_own_place_with_its_own_key_only(
            own in texts(), other in texts(), nonce in any::<[u8; 24]>(), plaintext in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let sealed = keyring(1).seal(nonce, &place(&own), &plaintext);
            prop_assert_eq!(key_id_of(&sealed), Some("key_a"));
            prop_assert!(sealed.starts_with(&sealed_prefix("key_a")));
            let opened = keyring(1).open(&place(&own), &sealed).unwrap();
            prop_assert_eq!(opened.as_slice(), plaintext.as_slice());
            prop_assert_eq!(keyring(2).open(&place(&own), &sealed), Err(OpenError::Refused));
            if own != other {
                prop_assert_eq!(keyring(1).open(&place(&other), &sealed), Err(OpenError::Refused));
            }
        }

        #[test]
        fn it_does_not_open_when_any_bit_is_another(
            own in texts(), plaintext in prop::collection::vec(any::<u8>(), 0..40), bit in any::<prop::sample::Index>(),
        ) {
            let mut sealed = keyring(1).seal([9; 24], &place(&own), &plaintext);
            let bit = bit.index(sealed.len() * 8);
            sealed[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(keyring(1).open(&place(&own), &sealed).is_err());
        }

        #[test]
        fn it_does_not_open_when_it_was_cut_and_foreign_bytes_do_no_harm(
            cut in any::<prop::sample::Index>(), foreign in prop::collection::vec(any::<u8>(), 0..120),
        ) {
            let own = Place { table: "t", column: "c", row: "r", project: "p", user: "u" };
            let sealed = keyring(1).seal([9; 24], &own, b"secret");
            prop_assert!(keyring(1).open(&own, &sealed[..cut.index(sealed.len())]).is_err());
            prop_assert!(keyring(1).open(&own, &foreign).is_err());
        }
    }

    #[test]
    fn parts_of_a_place_do_not_run_into_one_another() {
        let one = Place { table: "t", column: "c", row: "r", project: "ab", user: "c" };
        let sealed = keyring(1).seal([0; 24], &one, b"secret");
        let two = Place { project: "a", user: "bc", ..one };
        assert_eq!(keyring(1).open(&two, &sealed), Err(OpenError::Refused));
    }

    #[test]
    fn the_plaintext_is_not_in_the_sealed_bytes() {
        let own = Place { table: "t", column: "c", row: "r", project: "p", user: "u" };
        let sealed = keyring(1).seal([0; 24], &own, b"a canary that sings");
        assert!(!sealed.windows(6).any(|window| window == b"canary"));
    }
}
