//! Random identifiers: a prefix that says what they name, and 130 unguessable bits. And randomness itself.

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// A new id: `prefix` followed by 26 characters of Crockford's base 32 (130 bits).
///
/// # Panics
/// When the operating system gives no randomness: nothing safe can be done without it.
pub fn random_id(prefix: &str) -> String {
    random_id_of(prefix, 26)
}

/// A new id of `prefix` and so many characters, each of five random bits.
///
/// # Panics
/// As [`random_id`].
pub fn random_id_of(prefix: &str, characters: usize) -> String {
    let mut bytes = vec![0u8; characters];
    getrandom::fill(&mut bytes).expect("the operating system provides randomness");
    let mut id = String::with_capacity(prefix.len() + bytes.len());
    id.push_str(prefix);
    id.extend(bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte & 31)])));
    id
}

/// `N` random bytes, for keys and nonces.
///
/// # Panics
/// When the operating system gives no randomness: nothing safe can be done without it.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system provides randomness");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_carry_their_prefix_and_differ() {
        let (one, two) = (random_id("run_"), random_id("run_"));
        assert!(one.starts_with("run_") && one.len() == 30);
        assert_ne!(one, two);
    }
}
