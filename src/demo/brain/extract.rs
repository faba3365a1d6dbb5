//! Finding numbers, names, quotations and expressions in a prompt.

use std::ops::Range;

use super::words;

const NUMBER_WORDS: [&str; 13] = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
];
/// Words that end a name or a remainder without being part of it.
const TRAILING: [&str; 8] = ["now", "please", "today", "tomorrow", "right", "currently", "again", "instead"];

/// The clauses of a prompt: cut at sentence ends, line breaks, commas, semicolons, `and` and `then`, but not inside
/// quotation marks.
pub fn clauses(text: &str) -> Vec<Range<usize>> {
    let quotes = quoted_ranges(text);
    let is_quoted = |at: usize| quotes.iter().any(|range| range.contains(&at));
    let mut cuts = Vec::new();
    for (at, c) in text.char_indices() {
        if is_quoted(at) {
            continue;
        }
        let rest = &text[at + c.len_utf8()..];
        let ends_word = rest.chars().next().is_none_or(char::is_whitespace);
        if c == '\n' || (";,.?!".contains(c) && ends_word) {
            cuts.push(at + c.len_utf8());
        } else if c == ' ' && ["and ", "then ", "& "].iter().any(|word| starts_with(rest, word)) {
            cuts.push(at + 1);
        }
    }
    cuts.push(text.len());
    let mut start = 0;
    let mut clauses = Vec::new();
    for cut in cuts {
        if text[start..cut].chars().any(char::is_alphanumeric) {
            clauses.push(start..cut);
            start = cut;
        }
    }
    clauses
}

fn starts_with(text: &str, word: &str) -> bool {
    text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
}

fn quoted_ranges(text: &str) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut from = 0;
    while let Some((open, quote)) = text[from..].char_indices().find(|(at, c)| opens(text, from + at, *c)) {
        let close = match quote {
            '“' | '„' => '”',
            '«' => '»',
            '‘' => '’',
            same => same,
        };
        let inside = from + open + quote.len_utf8();
        match text[inside..].find(close) {
            Some(length) if length > 0 => {
                ranges.push(inside..inside + length);
                from = inside + length + close.len_utf8();
            }
            _ => from = inside,
        }
    }
    ranges
}

/// An apostrophe inside a word opens nothing.
fn opens(text: &str, at: usize, c: char) -> bool {
    match c {
        '"' | '“' | '„' | '«' | '`' => true,
        '\'' | '‘' => !text[..at].ends_with(char::is_alphanumeric),
        _ => false,
    }
}

/// The texts between quotation marks.
pub fn quotations(text: &str) -> Vec<String> {
    quoted_ranges(text).into_iter().map(|range| text[range].to_owned()).collect()
}

/// A number and the words around it.
#[derive(Debug, Clone, PartialEq)]
pub struct Number {
    pub value: f64,
    /// Stems of up to two words before and after.
    pub before: Vec<String>,
    pub after: Vec<String>,
}

impl Number {
    /// How far the nearest of `words` is, 0 being the word right behind; `None` when none is near.
    pub fn distance_to(&self, words: &[String]) -> Option<usize> {
        let behind = self.after.iter().position(|word| words.contains(word)).map(|at| 2 * at);
        let ahead = self.before.iter().rev().position(|word| words.contains(word)).map(|at| 2 * at + 1);
        behind.into_iter().chain(ahead).min()
    }
}

/// The numbers of a text, in digits or in words up to twelve.
pub fn numbers(text: &str) -> Vec<Number> {
    let tokens = tokens(text);
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let Some(value) = number(token) else { continue };
        let stems = |words: &[&str]| words.iter().map(|word| words::stem(word)).collect();
        let before = stems(&tokens[at.saturating_sub(2)..at]);
        let after = stems(&tokens[at + 1..tokens.len().min(at + 3)]);
        found.push(Number { value, before, after });
    }
    found
}

fn number(token: &str) -> Option<f64> {
    if token.starts_with(|c: char| c.is_ascii_digit()) {
        return token.parse().ok();
    }
    let at = NUMBER_WORDS.iter().position(|word| token.eq_ignore_ascii_case(word))?;
    u32::try_from(at).ok().map(f64::from)
}

fn is_word_part(c: char) -> bool {
    c.is_alphanumeric() && !c.is_ascii_digit()
}

/// Words and numbers, decimal points kept.
fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(char::is_alphanumeric) {
        rest = &rest[start..];
        let is_number = rest.starts_with(|c: char| c.is_ascii_digit());
        // Any other alphanumeric character belongs to a word: the token is never empty, and the loop ends.
        let ends = |c: char| if is_number { !c.is_ascii_digit() && c != '.' } else { !is_word_part(c) };
        let mut end = rest.find(ends).unwrap_or(rest.len());
        while rest[..end].ends_with('.') {
            end -= 1;
        }
        tokens.push(&rest[..end]);
        rest = &rest[end..];
    }
    tokens
}

/// The longest arithmetic expression with an operator in it, as the calculator takes it.
pub fn expression(text: &str) -> Option<String> {
    let mut text = text.to_owned();
    for (word, symbol) in [
        (" multiplied by ", " * "),
        (" divided by ", " / "),
        (" to the power of ", " ^ "),
        (" plus ", " + "),
        (" minus ", " - "),
        (" times ", " * "),
        ("×", "*"),
        ("÷", "/"),
        ("−", "-"),
    ] {
        text = text.replace(word, symbol);
    }
    let is_part = |c: char| c.is_ascii_digit() || "+-*/%^(). ".contains(c);
    let runs = text.split(|c| !is_part(c)).map(|run| {
        let run = run.trim().trim_end_matches(['.', '-', '+', '*', '/', '(', ' ', '^']);
        run.trim_start_matches(['.', '*', '/', ')', ' ', '^', '%'])
    });
    let is_expression = |run: &&str| {
        let has_number = run.contains(|c: char| c.is_ascii_digit());
        let inner = run.trim_start_matches(['-', '+', '(', ' ']);
        let operands = inner
            .split(['+', '-', '*', '/', '%', '^'])
            .filter(|part| part.contains(|c: char| c.is_ascii_digit()));
        has_number && operands.count() >= 2 && !is_date(run)
    };
    runs.filter(is_expression).max_by_key(|run| run.len()).map(str::to_owned)
}

fn is_date(run: &str) -> bool {
    let parts: Vec<_> = run.split('-').collect();
    parts.len() == 3
        && parts[0].len() == 4
        && parts.iter().all(|part| part.chars().all(|c| c.is_ascii_digit()))
}

/// The first date, as `YYYY-MM-DD`, or the word `today` and its kind.
pub fn day(text: &str) -> Option<String> {
    let pieces = text.split(|c: char| !c.is_alphanumeric() && c != '-');
    let mut pieces = pieces.filter(|piece| {
        let is_word = ["today", "tomorrow", "yesterday", "tonight"].contains(&piece.to_lowercase().as_str());
        is_word || is_date(piece)
    });
    pieces.next().map(str::to_owned)
}

/// The first address with a scheme.
pub fn url(text: &str) -> Option<String> {
    let mut pieces = text.split(|c: char| c.is_whitespace() || "<>\"'`()".contains(c));
    let found = pieces.find(|piece| piece.starts_with("https://") || piece.starts_with("http://"))?;
    Some(found.trim_end_matches(['.', ',', '?', '!', ';']).to_owned())
}

/// The first e-mail address.
pub fn email(text: &str) -> Option<String> {
    let mut pieces = text.split(|c: char| c.is_whitespace() || "<>\"'`(),;".contains(c));
    let found = pieces.find(|piece| {
        piece.split_once('@').is_some_and(|(user, host)| !user.is_empty() && host.contains('.'))
    })?;
    Some(found.trim_end_matches(['.', '?', '!']).to_owned())
}

/// A capitalised name after one of `prepositions`.
pub fn name_after(text: &str, prepositions: &[&str]) -> Option<String> {
    let pieces: Vec<&str> = text.split_whitespace().collect();
    positions(&pieces, prepositions).into_iter().find_map(|at| capitalised(&pieces[at + 1..]))
}

/// Up to three words after the last of `prepositions`, for people who write names without capitals.
pub fn words_after(text: &str, prepositions: &[&str]) -> Option<String> {
    let pieces: Vec<&str> = text.split_whitespace().collect();
    let mut words = Vec::new();
    for piece in &pieces[positions(&pieces, prepositions).last()? + 1..] {
        let word = piece.trim_matches(|c: char| !c.is_alphanumeric() && c != '/');
        if word.is_empty() || TRAILING.contains(&word.to_lowercase().as_str()) || words.len() == 3 {
            break;
        }
        if !(words.is_empty() && ["the", "a", "an", "me", "my"].contains(&word)) {
            words.push(word);
        }
        if piece.ends_with(['.', ',', '?', '!', ';']) {
            break;
        }
    }
    if words.is_empty() { None } else { Some(words.join(" ")) }
}

fn positions(pieces: &[&str], wanted: &[&str]) -> Vec<usize> {
    (0..pieces.len()).filter(|at| wanted.iter().any(|word| pieces[*at].eq_ignore_ascii_case(word))).collect()
}

/// A run of capitalised words at the beginning of `pieces`, `the` skipped.
fn capitalised(pieces: &[&str]) -> Option<String> {
    let mut words = Vec::new();
    for piece in pieces.iter().skip_while(|piece| piece.eq_ignore_ascii_case("the")) {
        let word = piece.trim_matches(|c: char| !c.is_alphanumeric());
        let word = word.strip_suffix("'s").or_else(|| word.strip_suffix("’s")).unwrap_or(word);
        if !word.starts_with(char::is_uppercase) || word == "I" {
            break;
        }
        words.push(word);
        if piece.ends_with([',', '.', '?', '!', ';', ':']) {
            break;
        }
    }
    if words.is_empty() { None } else { Some(words.join(" ")) }
}

/// The first capitalised name that does not merely begin a sentence.
pub fn any_name(text: &str) -> Option<String> {
    let pieces: Vec<&str> = text.split_whitespace().collect();
    (1..pieces.len()).filter(|at| !pieces[at - 1].ends_with(['.', '?', '!', ':'])).find_map(|at| {
        let name = capitalised(&pieces[at..])?;
        // `I` and its contractions are no names.
        if name.starts_with("I'") || name.starts_with("I’") { None } else { Some(name) }
    })
}

/// What follows `key=` or `key:`, up to the next blank, or inside its quotation marks.
pub fn labelled(text: &str, key: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let key = key.to_ascii_lowercase();
    for (at, _) in lower.match_indices(&key) {
        if lower[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = text[at + key.len()..].trim_start();
        let Some(rest) = rest.strip_prefix(['=', ':']).map(str::trim_start) else { continue };
        if let Some(range) = quoted_ranges(rest).first().filter(|range| range.start <= 3) {
            return Some(rest[range.clone()].to_owned());
        }
        let end = rest.find([' ', ',', ';', '\n', ')']).unwrap_or(rest.len());
        let value = rest[..end].trim_end_matches(['.', '?', '!']);
        return if value.is_empty() { None } else { Some(value.to_owned()) };
    }
    None
}

/// What is left of the text to be asked for: behind a word like `for` or `about`, or without the words that chose the
/// tool (`matched`, stems) and those that say nothing, at its beginning.
pub fn remainder(text: &str, matched: &[String]) -> String {
    let pieces: Vec<&str> = text.split_whitespace().collect();
    let markers = ["for", "about", "saying", "says", "regarding", "with", "on"];
    let marked = pieces.iter().position(|piece| markers.contains(&piece.to_lowercase().as_str()));
    let start = match marked {
        Some(at) if at > 0 && at + 1 < pieces.len() => at + 1,
        _ => {
            let says_nothing = |piece: &&&str| {
                words::split(piece)
                    .iter()
                    .all(|word| words::is_stop(word) || matched.contains(&words::stem(word)))
            };
            pieces.iter().take_while(says_nothing).count()
        }
    };
    let mut rest = &pieces[start..];
    if rest.is_empty() {
        rest = &pieces;
    }
    while let [before @ .., last] = rest
        && !before.is_empty()
        && TRAILING.contains(&last.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase().as_str())
    {
        rest = before;
    }
    if let [before @ .., last] = rest
        && !before.is_empty()
        && ["and", "then"].contains(last)
    {
        rest = before;
    }
    rest.join(" ").trim_matches(|c: char| c.is_whitespace() || ".,;:?!".contains(c)).to_owned()
}
