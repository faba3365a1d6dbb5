//! Cutting text into comparable words.

/// Words that say nothing about which tool is meant.
const STOP: &[&str] = &[
    "a", "about", "all", "also", "an", "and", "any", "are", "as", "at", "be", "by", "call", "can", "could",
    "did", "do", "does", "for", "from", "function", "give", "had", "has", "have", "he", "hello", "her", "hi",
    "his", "how", "i", "if", "in", "into", "is", "it", "its", "just", "let", "like", "ll", "lot", "many",
    "me", "more", "much", "my", "need", "now", "of", "on", "one", "or", "our", "out", "please", "s",
    "server", "she", "should", "show", "so", "some", "such", "t", "tell", "than", "that", "the", "their",
    "them", "then", "there", "these", "they", "this", "those", "times", "to", "tool", "tools", "up", "us",
    "use", "using", "very", "want", "was", "we", "were", "what", "when", "where", "which", "who", "why",
    "will", "with", "would", "you", "your",
];

/// Verbs and adjectives that many tools share: they support a choice but do not make it.
const GENERIC: &[&str] = &[
    "add", "check", "create", "current", "data", "delete", "execute", "fetch", "find", "get", "info",
    "latest", "list", "lookup", "make", "new", "process", "query", "read", "retrieve", "run", "search",
    "set", "update",
];

/// Lower-case words with a position, cut at everything that is not alphanumeric and inside `camelCase` and `3d20`.
pub fn split(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut start = None;
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        let apart = (before.is_lowercase() && c.is_uppercase())
            || (before.is_ascii_digit() && c.is_alphabetic())
            || (before.is_alphabetic() && c.is_ascii_digit());
        if let Some(from) = start
            && (apart || !c.is_alphanumeric())
        {
            words.push(&text[from..at]);
            start = None;
        }
        if start.is_none() && c.is_alphanumeric() {
            start = Some(at);
        }
        before = c;
    }
    if let Some(from) = start {
        words.push(&text[from..]);
    }
    words
}

/// A word without its ending, so that `rolls`, `rolled` and `rolling` are the same.
pub fn stem(word: &str) -> String {
    let mut word = word.to_lowercase();
    if word == "die" {
        return "dic".to_owned(); // like `dice`
    }
    if let Some(rest) = word.strip_suffix("ies").filter(|rest| rest.len() > 2) {
        word = format!("{rest}y");
    }
    if word.len() > 3 && word.ends_with('s') && !word.ends_with("ss") {
        word.pop();
    }
    for ending in ["ing", "ed"] {
        if let Some(rest) = word.strip_suffix(ending).filter(|rest| rest.len() > 2) {
            word = rest.to_owned();
        }
    }
    if word.len() > 3 && word.ends_with('e') {
        word.pop();
    }
    word
}

/// Whether a word says nothing about which tool is meant. `word` is not stemmed.
pub fn is_stop(word: &str) -> bool {
    STOP.binary_search(&word.to_lowercase().as_str()).is_ok()
}

/// Whether many tools have this word in their name. `stem` is stemmed.
pub fn is_generic(stemmed: &str) -> bool {
    GENERIC.iter().any(|generic| stem(generic) == stemmed)
}

/// The stems of all words of `text` that say something, at most `most`.
pub fn content(text: &str, most: usize) -> Vec<String> {
    split(text).into_iter().filter(|word| !is_stop(word)).take(most).map(stem).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_stop_words_is_sorted_as_the_search_in_it_needs() {
        assert!(STOP.is_sorted());
    }

    #[test]
    fn words_are_cut_where_people_read_them() {
        assert_eq!(
            split("getWeather_forCity-now 3d20, it's"),
            ["get", "Weather", "for", "City", "now", "3", "d", "20", "it", "s"]
        );
        assert_eq!(split("São Paulo—Zürich"), ["São", "Paulo", "Zürich"]);
    }

    #[test]
    fn forms_of_a_word_have_one_stem() {
        for forms in [
            &["roll", "rolls", "rolled", "rolling"][..],
            &["calculate", "calculates", "calculating", "calculated"],
            &["note", "notes", "noted"],
            &["dice", "die"],
            &["side", "sides", "sided"],
            &["query", "queries"],
            &["fail", "fails", "failed"],
        ] {
            let stems: std::collections::HashSet<_> = forms.iter().map(|form| stem(form)).collect();
            assert_eq!(stems.len(), 1, "{forms:?}: {stems:?}");
        }
    }
}
