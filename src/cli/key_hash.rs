//! `toolgate key hash`: API keys for the configuration. The key is shown once and kept nowhere.

use std::io::{IsTerminal, Read};

use super::{Failure, Output};
use crate::config::Secret;
use crate::crypto::ApiKeyHash;
use crate::id;

const LONGEST_KEY_BYTES: u64 = 256;
/// Shorter keys could be guessed from their hash.
const SHORTEST_KEY_BYTES: usize = 24;

pub(super) fn run(output: Output) -> Result<(), Failure> {
    let key = match piped_key()? {
        Some(key) => key,
        None => {
            let key = Secret::new(id::random_id("tgk_"));
            output.note("A new key and its hash. The key is not shown again:");
            output.line(key.expose());
            key
        }
    };
    let hash = ApiKeyHash::of(key.expose());
    output.line(&hash.to_string());
    output.note(&format!("For the configuration:\n\n[[api_keys]]\nname = \"my-app\"\nhash = \"{hash}\""));
    Ok(())
}

/// The key on standard input; `None` when nobody pipes one in.
fn piped_key() -> Result<Option<Secret>, Failure> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Ok(None);
    }
    let mut text = zeroize::Zeroizing::new(String::new());
    stdin
        .lock()
        .take(LONGEST_KEY_BYTES + 2)
        .read_to_string(&mut text)
        .map_err(|error| Failure::new(format!("cannot read the key from standard input: {error}")))?;
    let key = text.trim();
    if key.is_empty() {
        return Ok(None);
    }
    if !is_key(key) {
        return Err(Failure::new("this is not a key for toolgate").hint(format!(
            "a key is `tgk_` and letters and digits, {SHORTEST_KEY_BYTES} to {LONGEST_KEY_BYTES} in all; \
             without input, `toolgate key hash` makes one"
        )));
    }
    Ok(Some(Secret::new(key)))
}

fn is_key(text: &str) -> bool {
    text.starts_with("tgk_")
        && (SHORTEST_KEY_BYTES..=LONGEST_KEY_BYTES as usize).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_keys_with_our_prefix_are_keys() {
        for (text, good) in [
            ("tgk_0123456789abcdefghij", true),
            ("tgk_0123456789abcdefghi", false),
            ("sk-0123456789abcdefghijklmn", false),
            ("tgk_0123456789 abcdefghij", false),
            ("tgk_0123456789\nabcdefghij", false),
        ] {
            assert_eq!(is_key(text), good, "{text}");
        }
        assert!(is_key(&id::random_id("tgk_")));
    }
}
