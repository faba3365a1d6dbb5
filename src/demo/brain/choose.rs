//! Which tools a prompt asks for.
//!
//! Conservative: a tool is chosen when the prompt names it, or most of the words that make up its name. Descriptions
//! only support that, or decide alone when most of a clause is found in one.

use std::collections::{HashMap, HashSet};

use super::decide::Tool;
use super::{extract, words};

const MAX_DESCRIPTION_WORDS: usize = 80;

/// A tool to call, and the part of the prompt that asks for it.
pub struct Chosen<'a> {
    pub tool: &'a Tool,
    /// Where to look for its arguments.
    pub segment: String,
    /// Stems of the prompt's words that led to this tool.
    pub matched: Vec<String>,
}

/// The words of a tool.
struct Profile {
    /// Stems of the whole name.
    name: Vec<String>,
    /// Those without label and generic verbs: what the name is about.
    core: Vec<String>,
    description: HashSet<String>,
    parameters: HashSet<String>,
    takes_expression: bool,
}

struct Match {
    score: u32,
    matched: HashSet<String>,
    is_certain: bool,
}

/// The tools that `question` asks for, in the order in which it does.
pub fn choose<'a>(tools: &'a [Tool], question: &str) -> Vec<Chosen<'a>> {
    let clauses = extract::clauses(question);
    let profiles = profiles(tools);
    // Per tool its best clause.
    let mut found: Vec<(usize, usize, Match)> = Vec::new();
    for (index, profile) in profiles.iter().enumerate() {
        let best = clauses
            .iter()
            .enumerate()
            .map(|(at, range)| (at, compare(profile, &question[range.clone()])))
            .filter(|(_, compared)| compared.is_certain)
            .max_by_key(|(at, compared)| (compared.score, std::cmp::Reverse(*at)));
        if let Some((at, compared)) = best {
            found.push((index, at, compared));
        }
    }
    let found = without_shadowed(found);
    let mut starts: Vec<usize> = found.iter().map(|(_, at, _)| *at).collect();
    starts.sort_unstable();
    starts.dedup();
    let mut chosen: Vec<_> = found.into_iter().collect();
    chosen.sort_by_key(|(index, at, _)| (*at, *index));
    chosen
        .into_iter()
        .map(|(index, at, compared)| {
            // What follows belongs to this tool until another one is asked for.
            let next = starts.iter().find(|start| **start > at);
            let end = next.map_or(question.len(), |next| clauses[*next - 1].end);
            let start = if starts.first() == Some(&at) { 0 } else { clauses[at].start };
            let mut matched: Vec<_> = compared.matched.into_iter().collect();
            matched.sort();
            Chosen { tool: &tools[index], segment: question[start..end].to_owned(), matched }
        })
        .collect()
}

/// The tool with most words in common, the first when none has any: for requests that require a call.
pub fn likeliest<'a>(tools: &'a [Tool], question: &str) -> Option<&'a Tool> {
    let profiles = profiles(tools);
    let best = profiles
        .iter()
        .enumerate()
        .max_by_key(|(index, profile)| (compare(profile, question).score, std::cmp::Reverse(*index)));
    best.map(|(index, _)| &tools[index])
}

/// Of tools that matched in one clause, drops those whose matched words another explains better.
fn without_shadowed(found: Vec<(usize, usize, Match)>) -> Vec<(usize, usize, Match)> {
    let is_shadowed = |one: &(usize, usize, Match)| {
        found.iter().any(|other| {
            let better = other.2.score > one.2.score || (other.2.score == one.2.score && other.0 < one.0);
            other.0 != one.0 && other.1 == one.1 && better && one.2.matched.is_subset(&other.2.matched)
        })
    };
    let keep: Vec<bool> = found.iter().map(|one| !is_shadowed(one)).collect();
    found.into_iter().zip(keep).filter(|(_, keep)| *keep).map(|(one, _)| one).collect()
}

fn profiles(tools: &[Tool]) -> Vec<Profile> {
    let names: Vec<Vec<String>> =
        tools.iter().map(|tool| words::split(&tool.name).into_iter().map(words::stem).collect()).collect();
    // How many names begin with these words: a shared beginning is a server's label, or a verb.
    let mut beginnings: HashMap<&[String], usize> = HashMap::new();
    for name in &names {
        for length in 1..name.len() {
            *beginnings.entry(&name[..length]).or_default() += 1;
        }
    }
    tools
        .iter()
        .zip(&names)
        .map(|(tool, name)| {
            let description: HashSet<String> =
                words::content(&tool.description, MAX_DESCRIPTION_WORDS).into_iter().collect();
            let shared = (1..name.len()).rev().find(|length| beginnings[&name[..*length]] > 1).unwrap_or(0);
            let is_label = |word: &String| !description.is_empty() && !description.contains(word);
            let skip = if shared > 0 { shared } else { usize::from(name.len() > 1 && is_label(&name[0])) };
            let mut core: Vec<String> =
                name[skip..].iter().filter(|word| !words::is_generic(word)).cloned().collect();
            if core.is_empty() {
                core = name[skip..].to_vec();
            }
            let properties = tool.parameters.get("properties").and_then(serde_json::Value::as_object);
            let keys = properties.into_iter().flat_map(|properties| properties.keys().take(32));
            let parameters: HashSet<String> = keys.flat_map(|key| words::content(key, 8)).collect();
            let takes_expression = parameters
                .iter()
                .any(|word| ["expression", "formula", "equation"].map(words::stem).contains(word));
            Profile { name: name.clone(), core, description, parameters, takes_expression }
        })
        .collect()
}

fn compare(profile: &Profile, clause: &str) -> Match {
    let all: Vec<String> = words::split(clause).into_iter().map(words::stem).collect();
    let content = words::content(clause, 400);
    let mut matched = HashSet::new();
    let mut score = 0;
    let mut supported = 0;
    for word in content.iter().collect::<HashSet<_>>() {
        if profile.name.contains(word) {
            score += if profile.core.contains(word) { 6 } else { 3 };
        } else if profile.description.contains(word) || profile.parameters.contains(word) {
            score += 1;
            supported += 1;
        } else {
            continue;
        }
        matched.insert(word.clone());
    }
    let named = profile.core.iter().filter(|word| matched.contains(*word)).count();
    let mut is_certain = named > 0
        && (named == profile.core.len() || (2 * named >= profile.core.len() && matched.len() > named));
    let says_something = |word: &&String| word.len() > 1 && !word.starts_with(|c: char| c.is_ascii_digit());
    if named > 0 && content.iter().filter(says_something).all(|word| matched.contains(word)) {
        is_certain = true;
    }
    // Stop words count when they spell the name out: `Who am I?` is `whoami`.
    if let Some(spelt) = spelt_out(&profile.name, &all) {
        score += 10;
        matched.extend(spelt);
        is_certain = true;
    }
    if profile.takes_expression && extract::expression(clause).is_some() {
        score += 8;
        matched.insert(String::new());
        is_certain = true;
    }
    if !is_certain && supported >= 3 && 3 * matched.len() >= 2 * content.len() {
        is_certain = true;
    }
    Match { score, matched, is_certain }
}

/// The words of the clause that, written together, are the end of the name; at least six letters.
fn spelt_out(name: &[String], clause: &[String]) -> Option<Vec<String>> {
    let endings: Vec<String> =
        (0..name.len()).map(|from| name[from..].concat()).filter(|end| end.len() >= 6).collect();
    for from in 0..clause.len() {
        let mut written = String::new();
        for (to, word) in clause.iter().enumerate().skip(from).take(6) {
            written.push_str(word);
            if to > from && endings.contains(&written) {
                return Some(clause[from..=to].to_vec());
            }
        }
    }
    None
}
