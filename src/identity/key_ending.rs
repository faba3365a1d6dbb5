//! The part of a key that people may see.

const SHOWN: usize = 4;
/// Shorter keys would be given away too much.
const LONG_ENOUGH: usize = 20;

/// The last characters of a key, or nothing for a key that is too short to show any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyEnding(Option<[u8; SHOWN]>);

impl KeyEnding {
    /// How `key` ends.
    pub fn of(key: &str) -> Self {
        let last = key.as_bytes().last_chunk::<SHOWN>();
        KeyEnding(last.copied().filter(|last| key.len() >= LONG_ENOUGH && last.is_ascii()))
    }

    /// The characters; empty when none may be shown.
    pub fn as_str(&self) -> &str {
        self.0.as_ref().and_then(|last| std::str::from_utf8(last).ok()).unwrap_or_default()
    }
}
