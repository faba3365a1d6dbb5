//! What a key may be used for.

use crate::config::KeyScope;

/// A set of scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes(u8);

impl Scopes {
    /// Every scope there is.
    pub const ALL: Scopes = Scopes(0b111);

    /// What a key may do when nothing else was said: everything but reading access tokens.
    pub const USUAL: Scopes = Scopes(0b011);

    /// Whether `scope` is among them.
    pub fn contains(self, scope: KeyScope) -> bool {
        self.0 & bit(scope) != 0
    }

    /// Reads words separated by spaces, as the store keeps them. Words that this version does not know allow nothing.
    pub fn parse(text: &str) -> Self {
        let known = [KeyScope::Completions, KeyScope::Connections, KeyScope::Tokens];
        text.split(' ').filter_map(|word| known.into_iter().find(|scope| word_of(*scope) == word)).collect()
    }

    /// The words, separated by spaces.
    pub fn to_text(self) -> String {
        let known = [KeyScope::Completions, KeyScope::Connections, KeyScope::Tokens];
        let words: Vec<&str> = known.into_iter().filter(|scope| self.contains(*scope)).map(word_of).collect();
        words.join(" ")
    }
}

impl FromIterator<KeyScope> for Scopes {
    fn from_iter<I: IntoIterator<Item = KeyScope>>(scopes: I) -> Self {
        Scopes(scopes.into_iter().fold(0, |bits, scope| bits | bit(scope)))
    }
}

/// The word for a scope.
pub fn word_of(scope: KeyScope) -> &'static str {
    match scope {
        KeyScope::Completions => "completions",
        KeyScope::Connections => "connections",
        KeyScope::Tokens => "tokens",
    }
}

fn bit(scope: KeyScope) -> u8 {
    match scope {
        KeyScope::Completions => 0b001,
        KeyScope::Connections => 0b010,
        KeyScope::Tokens => 0b100,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_sets_are_the_same() {
        assert_eq!(Scopes::USUAL.to_text(), "completions connections");
        assert_eq!(Scopes::ALL.to_text(), "completions connections tokens");
        for (text, read_back) in
            [("tokens completions", "completions tokens"), ("", ""), ("admin  tokens", "tokens")]
        {
            assert_eq!(Scopes::parse(text).to_text(), read_back);
        }
        assert!(!Scopes::USUAL.contains(KeyScope::Tokens) && Scopes::ALL.contains(KeyScope::Tokens));
        assert_eq!(Scopes::default().to_text(), "");
    }
}
