//! Reads Rust source just well enough to see which paths it uses: no compiler, no expansion, plain tokens.

/// A piece of source that is no comment, string or white space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    Word(String),
    /// `::`
    Colons,
    Mark(char),
}

/// Source without comments, literals' contents and `#[cfg(test)]` items, as tokens.
pub fn tokens(source: &str) -> Vec<Token> {
    without_tests(raw_tokens(source))
}

fn raw_tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut out = Vec::new();
    let mut i = 0;
    while i < chars.len() {
        match chars[i] {
            '/' if at(i + 1) == '/' => {
                while i < chars.len() && chars[i] != '\n' {
                    i += 1;
                }
            }
            '/' if at(i + 1) == '*' => i = after_block_comment(&chars, i),
            '"' => i = after_string(&chars, i),
            '\'' => i = after_quote(&chars, i),
            ':' if at(i + 1) == ':' => {
                out.push(Token::Colons);
                i += 2;
            }
            c if is_word(c) => {
                let start = i;
                while i < chars.len() && is_word(chars[i]) {
                    i += 1;
                }
                let word: String = chars[start..i].iter().collect();
                let raw_string = matches!(word.as_str(), "r" | "br" | "cr") && matches!(at(i), '"' | '#');
                match raw_string.then(|| after_raw_string(&chars, i)).flatten() {
                    Some(end) => i = end,
                    None => out.push(Token::Word(word)),
                }
            }
            c => {
                if !c.is_whitespace() {
                    out.push(Token::Mark(c));
                }
                i += 1;
            }
        }
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn after_block_comment(chars: &[char], start: usize) -> usize {
    let (mut i, mut depth) = (start, 0);
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) => {
                (depth, i) = (depth - 1, i + 2);
                if depth == 0 {
                    return i;
                }
            }
            _ => i += 1,
        }
    }
    i
}

fn after_string(chars: &[char], start: usize) -> usize {
    let mut i = start + 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

/// `hashes` is where the `#`s or the quote begin; `None` for a raw identifier (`r#type`).
fn after_raw_string(chars: &[char], hashes: usize) -> Option<usize> {
    let count = chars[hashes..].iter().take_while(|c| **c == '#').count();
    if chars.get(hashes + count) != Some(&'"') {
        return None;
    }
    let mut i = hashes + count + 1;
    while i < chars.len() {
        if chars[i] == '"' && chars[i + 1..].iter().take_while(|c| **c == '#').count() >= count {
            return Some(i + 1 + count);
        }
        i += 1;
    }
    Some(i)
}

/// Behind a character literal, or behind the quote that begins a lifetime.
fn after_quote(chars: &[char], start: usize) -> usize {
    if chars.get(start + 1) == Some(&'\\') {
        let mut i = start + 3;
        while i < chars.len() && chars[i] != '\'' {
            i += 1;
        }
        i + 1
    } else if chars.get(start + 2) == Some(&'\'') {
        start + 3
    } else {
        start + 1
    }
}

/// Drops every item behind `#[cfg(test)]`: tests may use what they like.
fn without_tests(tokens: Vec<Token>) -> Vec<Token> {
    let marker: Vec<Token> = raw_tokens("#[cfg(test)]");
    let mut out = Vec::with_capacity(tokens.len());
    let mut i = 0;
    while i < tokens.len() {
        if tokens[i..].starts_with(&marker) {
            i = after_item(&tokens, i + marker.len());
        } else {
            out.push(tokens[i].clone());
            i += 1;
        }
    }
    out
}

/// An item ends at its `;` or at the `}` that closes its first brace.
fn after_item(tokens: &[Token], mut i: usize) -> usize {
    let mut depth = 0usize;
    while i < tokens.len() {
        match tokens[i] {
            Token::Mark('{') => depth += 1,
            Token::Mark('}') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return i + 1;
                }
            }
            Token::Mark(';') if depth == 0 => return i + 1,
            _ => {}
        }
        i += 1;
    }
    i
}

/// Files of the modules that exist for tests only: `name` for `#[cfg(test)] mod name;`, or what its `#[path]` says.
pub fn test_modules(source: &str) -> Vec<String> {
    let items = source.split("#[cfg(test)]").skip(1).filter_map(|item| item.split_once([';', '{']));
    items
        .filter_map(|(item, _)| {
            let name = item.rsplit_once("mod ")?.1.trim();
            let path = item.split_once("#[path = \"").and_then(|(_, path)| path.split('"').next());
            Some(path.unwrap_or(name).trim_end_matches(".rs").to_owned())
        })
        .collect()
}

/// Every path in the tokens with its use trees spread out: `a::{b, c::d}` gives `a::b` and `a::c::d`.
pub fn paths(tokens: &[Token]) -> Vec<Vec<String>> {
    let mut out = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        let inside =
            i > 0 && tokens[i - 1] == Token::Colons && i > 1 && matches!(tokens[i - 2], Token::Word(_));
        match &tokens[i] {
            Token::Word(_) if !inside => i = spread(tokens, i, &[], &mut out),
            _ => i += 1,
        }
    }
    out
}

/// Reads one path from `i` on, below `prefix`, and gives the place behind it.
fn spread(tokens: &[Token], mut i: usize, prefix: &[String], out: &mut Vec<Vec<String>>) -> usize {
    let mut path = prefix.to_vec();
    loop {
        match tokens.get(i) {
            Some(Token::Word(word)) => path.push(word.clone()),
            Some(Token::Mark('*')) => path.push("*".to_owned()),
            Some(Token::Mark('{')) => {
                i += 1;
                while i < tokens.len() && tokens[i] != Token::Mark('}') {
                    match tokens[i] {
                        Token::Word(_) | Token::Mark('*') | Token::Mark('{') => {
                            i = spread(tokens, i, &path, out)
                        }
                        _ => i += 1,
                    }
                }
                return i + 1;
            }
            _ => break,
        }
        i += 1;
        if tokens.get(i) != Some(&Token::Colons) {
            break;
        }
        i += 1;
    }
    if path.len() > prefix.len() {
        out.push(path);
    }
    i.max(1)
}

/// The words of the tokens, in order, with everything else as single characters.
pub fn words(tokens: &[Token]) -> Vec<&str> {
    tokens
        .iter()
        .map(|token| match token {
            Token::Word(word) => word.as_str(),
            Token::Colons => "::",
            Token::Mark(_) => "",
        })
        .collect()
}

#[test]
fn literals_comments_and_tests_are_not_seen() {
    let source = r##"
        // axum::A
        /* axum::B /* nested */ axum::C */
        const A: &str = "axum::D \" axum::E"; const B: &str = r#"axum::F" axum::G"#;
        fn f<'a>(c: char) -> bool { c == '"' || c == '\'' || c == 'x' && hyper::H }
        #[cfg(test)]
        mod tests { use axum::I; fn g() { axum::J } }
        #[cfg(test)] use axum::K;
        use r#type::L;
    "##;
    let found: Vec<String> =
        paths(&tokens(source)).into_iter().filter(|p| p.len() > 1).map(|p| p.join("::")).collect();
    assert_eq!(found, ["hyper::H", "type::L"], "only code outside tests counts");
    let source =
        "mod a; #[cfg(test)] mod b;\n#[cfg(test)]\n#[path = \"c_test.rs\"]\nmod tests;\n#[cfg(test)] use d;";
    assert_eq!(test_modules(source), ["b", "c_test"]);
}

#[test]
fn use_trees_are_spread() {
    let found: Vec<String> =
        paths(&tokens("use crate::{a::{self, B}, c, d::*}; fn f(x: super::Y) -> ::std::fs::File {}"))
            .into_iter()
            .filter(|p| p.len() > 1)
            .map(|p| p.join("::"))
            .collect();
    assert_eq!(
        found,
        ["crate::a::self", "crate::a::B", "crate::c", "crate::d::*", "super::Y", "std::fs::File"]
    );
}
