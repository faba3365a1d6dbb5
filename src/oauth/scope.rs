//! Scopes as lists. Pure.

/// Most scopes kept of one list; more is no list that a person could consent to.
const MAX_SCOPES: usize = 100;
/// Longest scope, in bytes.
const MAX_SCOPE_BYTES: usize = 256;

/// The scopes of a space-separated text, each once, without what is no scope.
pub fn split(text: &str) -> Vec<String> {
    clean(text.split([' ', ',', '\t']).filter(|scope| !scope.is_empty()).map(str::to_owned))
}

/// The scopes of `one` and what `other` adds to them.
pub fn join(one: &[String], other: &[String]) -> Vec<String> {
    clean(one.iter().chain(other).cloned())
}

/// Each once, in order, only what RFC 6749 §3.3 calls a scope token, and not too many.
pub(super) fn clean(scopes: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for scope in scopes {
        let is_scope = (1..=MAX_SCOPE_BYTES).contains(&scope.len())
            && scope.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\');
        if is_scope && kept.len() < MAX_SCOPES && !kept.contains(&scope) {
            kept.push(scope);
        }
    }
    kept
}
