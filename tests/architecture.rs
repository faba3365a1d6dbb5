//! The architecture as tables, and the tests that hold the code and the documents to them.
//!
//! Plain token scanning: it sees paths and items, not types. Each rule is a function over text that gives a list
//! of problems, so that each also has a test that shows it bad input.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

#[path = "architecture/docs.rs"]
mod docs;
#[path = "architecture/json.rs"]
mod json;
#[path = "architecture/scan.rs"]
mod scan;

use scan::Token;

/// The layers, top first. A module may use what stands in a lower layer.
const LAYERS: &[(u8, &[&str])] = &[
    (5, &["cli", "server"]),
    (4, &["api", "demo", "web", "authorization", "mcp_server"]),
    (3, &["completion"]),
    (2, &["identity", "connections", "tools", "context", "upstream", "billing", "catalog"]),
    (
        1,
        &[
            "clean_json",
            "keys",
            "store",
            "egress",
            "oauth",
            "mcp",
            "openai",
            "sse",
            "crypto",
            "config",
            "telemetry",
            "id",
            "bounds",
            "clock",
            "rate_limit",
            "memory_budget",
        ],
    ),
];

/// Inside one layer nothing is shared, but for these. The foundations may use one another without circles.
const SIDEWAYS: &[(&str, &str)] = &[("cli", "server"), ("tools", "connections"), ("context", "connections")];

/// These import nothing of ours but the entrance for JSON, do no I/O and know no clock: they can be fuzzed, and could
/// leave tomorrow.
const PURE: &[&str] = &["clean_json", "mcp", "openai", "sse", "crypto"];

/// What the pure modules may not touch.
const IMPURE: &[&str] = &[
    "tokio",
    "hyper",
    "hyper_util",
    "std::time",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
];

/// Foreign paths that only the named modules may use, with what each keeps in one place.
const RESTRICTED: &[(&str, &[&str], &str)] = &[
    ("axum", &["server", "api", "demo", "web", "authorization", "mcp_server"], "HTTP serving"),
    ("hyper::server", &["server"], "listening"),
    ("hyper_util::server", &["server"], "listening"),
    ("hyper::client", &["egress"], "outbound HTTP"),
    ("hyper_util::client", &["egress"], "outbound HTTP"),
    ("hyper_rustls", &["egress"], "outbound HTTP"),
    ("rustls", &["egress"], "outbound HTTP"),
    ("rustls_native_certs", &["egress"], "outbound HTTP"),
    ("reqwest", &["egress"], "outbound HTTP"),
    ("clap", &["cli"], "the command line"),
    ("prometheus_client", &["telemetry"], "metrics"),
    ("tracing_subscriber", &["telemetry"], "log output"),
    ("sqlx", &["store"], "SQL"),
    ("rmcp", &["tools", "connections", "mcp_server"], "the MCP library"),
    ("askama", &["web", "authorization"], "pages"),
    ("anyhow", &["cli", "server"], "errors nobody tells apart"),
];

/// Most lines of one source file.
const MAX_LINES: usize = 600;

/// The only file that prints.
const PRINTER: &str = "cli/output.rs";

/// One file of `src/`, with its path below it (`tools/server.rs`).
struct Source {
    path: String,
    text: String,
    tokens: Vec<Token>,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Source { path: path.to_owned(), text: text.to_owned(), tokens: scan::tokens(text) }
    }

    /// The module's own names below the crate: `tools/server.rs` is `[tools, server]`, `tools/mod.rs` is `[tools]`.
    fn module(&self) -> Vec<&str> {
        let stem = self.path.strip_suffix(".rs").unwrap_or(&self.path);
        let mut names: Vec<&str> = stem.split('/').collect();
        if matches!(names.last(), Some(&("mod" | "lib" | "main"))) {
            names.pop();
        }
        names
    }

    /// The first-level module this file belongs to; empty for `lib.rs` and `main.rs`.
    fn room(&self) -> &str {
        self.module().first().copied().unwrap_or("")
    }

    /// First-level modules of the crate that this file names.
    fn uses(&self) -> BTreeSet<String> {
        let depth = self.module().len();
        let mut rooms = BTreeSet::new();
        for path in scan::paths(&self.tokens) {
            let supers = path.iter().take_while(|name| *name == "super").count();
            let target = match path[0].as_str() {
                "crate" if path.len() > 1 => path.get(1),
                "super" if supers >= depth => path.get(supers),
                _ => None,
            };
            rooms.extend(target.filter(|name| *name != self.room()).cloned());
        }
        rooms
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `folder` whose name ends in `.{extension}`, sorted; build products and installed packages apart.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder is readable").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let skipped = ["target", "node_modules", ".toolgate-test", ".git"].iter().any(|skip| name == *skip);
        if path.is_dir() && !skipped {
            out.extend(files(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            out.push(path);
        }
    }
    out.sort();
    out
}

/// `src/` without the files that are compiled for tests only.
fn sources() -> Vec<Source> {
    let src = root().join("src");
    let paths = files(&src, "rs");
    let mut tests_only = BTreeSet::new();
    for path in &paths {
        let text = fs::read_to_string(path).expect("source is UTF-8");
        let beside = path.parent().expect("in a folder");
        for name in scan::test_modules(&text) {
            // The module's own folder, or for `mod.rs` and `#[path]` the folder of the file that declares it.
            for folder in [beside, &path.with_extension("")] {
                tests_only.insert(folder.join(format!("{name}.rs")));
                tests_only.insert(folder.join(&name));
            }
        }
    }
    paths
        .iter()
        .filter(|path| !path.ancestors().any(|part| tests_only.contains(part)))
        .map(|path| {
            let name = path.strip_prefix(&src).expect("below src").to_string_lossy().into_owned();
            Source::new(&name, &fs::read_to_string(path).expect("source is UTF-8"))
        })
        .collect()
}

fn layer(room: &str) -> Option<u8> {
    LAYERS.iter().find(|(_, rooms)| rooms.contains(&room)).map(|(number, _)| *number)
}

#[track_caller]
fn assert_none(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

fn arrows_that_do_not_go_down(sources: &[Source]) -> Vec<String> {
    let mut problems = Vec::new();
    for source in sources.iter().filter(|source| !source.room().is_empty()) {
        let from = source.room();
        let Some(own) = layer(from) else {
            problems.push(format!("src/{}: `{from}` has no layer in tests/architecture.rs", source.path));
            continue;
        };
        for to in source.uses() {
            let allowed = match layer(&to) {
                _ if PURE.contains(&from) => to == "clean_json",
                Some(other) if other == own => own == 1 || SIDEWAYS.contains(&(from, &to)),
                Some(other) => other < own,
                None => false,
            };
            if !allowed {
                problems.push(format!("src/{}: `{from}` (layer {own}) may not use `{to}`", source.path));
            }
        }
    }
    problems
}

fn circles(sources: &[Source]) -> Vec<String> {
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources {
        arrows.entry(source.room().to_owned()).or_default().extend(source.uses());
    }
    // What uses nothing that is left can go; what stays in the end is in a circle or above one.
    loop {
        let done: Vec<String> = arrows
            .iter()
            .filter(|(_, uses)| !uses.iter().any(|used| arrows.contains_key(used)))
            .map(|(room, _)| room.clone())
            .collect();
        if done.is_empty() {
            break;
        }
        arrows.retain(|room, _| !done.contains(room));
    }
    if arrows.is_empty() {
        return Vec::new();
    }
    let left: Vec<&str> = arrows.keys().map(String::as_str).collect();
    vec![format!("modules use one another in a circle, among them: {}", left.join(", "))]
}

fn foreign_paths_out_of_place(sources: &[Source]) -> Vec<String> {
    let mut problems = Vec::new();
    for source in sources {
        let mut seen = BTreeSet::new();
        for path in scan::paths(&source.tokens) {
            let path = format!("{}::", path.join("::"));
            let restricted = RESTRICTED
                .iter()
                .filter(|(_, rooms, _)| !rooms.contains(&source.room()))
                .map(|(prefix, rooms, what)| (*prefix, format!("{what} belongs to {}", rooms.join(", "))));
            let impure = IMPURE
                .iter()
                .filter(|_| PURE.contains(&source.room()))
                .map(|prefix| (*prefix, "this module does no I/O and knows no clock".to_owned()));
            for (prefix, reason) in restricted.chain(impure) {
                // A lone word may be a local name; a path, or what a `use` brings in, is not.
                if path.starts_with(&format!("{prefix}::"))
                    && path.matches("::").count() > 1
                    && seen.insert(prefix)
                {
                    problems.push(format!("src/{}: uses `{prefix}`: {reason}", source.path));
                }
            }
        }
    }
    problems
}

fn too_long(path: &Path, text: &str) -> Option<String> {
    let lines = text.lines().count();
    (lines > MAX_LINES)
        .then(|| format!("{}: {lines} lines, {MAX_LINES} are the most: split it", path.display()))
}

/// `mod.rs` and `lib.rs` hold attributes, `mod name;` and `use …;`, nothing else.
fn tables_of_contents_with_code(sources: &[Source]) -> Vec<String> {
    let mut problems = Vec::new();
    for source in sources.iter().filter(|s| s.path.ends_with("mod.rs") || s.path == "lib.rs") {
        let mut items =
            source.tokens.split(|token| *token == Token::Mark(';')).filter(|item| !item.is_empty());
        let is_listing = |item: &[Token]| {
            let words = scan::words(item);
            let is_code = |word: &&str| {
                matches!(
                    *word,
                    "fn" | "struct" | "enum" | "impl" | "trait" | "const" | "static" | "type" | "macro_rules"
                )
            };
            !words.iter().any(is_code) && words.iter().any(|word| matches!(*word, "mod" | "use"))
        };
        if !items.all(is_listing) {
            problems.push(format!(
                "src/{}: a table of contents holds documentation, `mod` and `use` lines only",
                source.path
            ));
        }
    }
    problems
}

fn modules_without_a_reason(sources: &[Source]) -> Vec<String> {
    sources
        .iter()
        .filter(|source| !source.text.trim_start().starts_with("//!"))
        .map(|source| format!("src/{}: begins without `//!` that says why it exists", source.path))
        .collect()
}

fn prints_outside_the_printer(sources: &[Source]) -> Vec<String> {
    sources
        .iter()
        .filter(|source| source.path != PRINTER)
        .flat_map(|source| {
            source.tokens.windows(2).filter_map(|pair| match pair {
                [Token::Word(word), Token::Mark('!')]
                    if matches!(word.as_str(), "println" | "eprintln" | "print" | "eprint" | "dbg") =>
                {
                    Some(format!("src/{}: `{word}!`: only src/{PRINTER} prints", source.path))
                }
                _ => None,
            })
        })
        .collect()
}

/// A trait is for two real implementations, not for a test's imitation of one.
fn traits_with_one_implementation(sources: &[Source]) -> Vec<String> {
    let mut implementations: BTreeMap<String, usize> = BTreeMap::new();
    let mut traits = Vec::new();
    for source in sources {
        let words = scan::words(&source.tokens);
        for (i, word) in words.iter().enumerate() {
            if *word == "trait" && i + 1 < words.len() {
                traits.push((words[i + 1].to_owned(), &source.path));
            }
            if *word == "impl" {
                let brace =
                    source.tokens[i..].iter().position(|token| *token == Token::Mark('{')).unwrap_or(0);
                let header = &words[i..i + brace];
                let before_for = header.iter().position(|word| *word == "for").unwrap_or(0);
                let named: BTreeSet<&str> = header[..before_for].iter().copied().collect();
                for name in named {
                    *implementations.entry(name.to_owned()).or_default() += 1;
                }
            }
        }
    }
    traits
        .into_iter()
        .filter(|(name, _)| implementations.get(name).copied().unwrap_or(0) < 2)
        .map(|(name, path)| format!("src/{path}: trait `{name}` has fewer than two implementations in src/"))
        .collect()
}

#[test]
fn arrows_go_down_only() {
    assert_none(arrows_that_do_not_go_down(&sources()));
    let bad = |path, text| arrows_that_do_not_go_down(&[Source::new(path, text)]).len();
    assert_eq!(bad("tools/call.rs", "use crate::completion::Run;"), 1, "up");
    assert_eq!(bad("tools/call.rs", "fn f() { crate::upstream::send() }"), 1, "sideways");
    assert_eq!(bad("tools/call.rs", "use super::super::api;"), 1, "up through `super`");
    assert_eq!(
        bad("tools/mod.rs", "pub use super::{egress, server};"),
        1,
        "up through `super` in a use tree"
    );
    assert_eq!(bad("sse/mod.rs", "use crate::config;"), 1, "from a pure module");
    assert_eq!(bad("attic/mod.rs", ""), 1, "a module without a layer");
    assert_eq!(bad("cli/mod.rs", "use crate::*;"), 1, "everything at once");
    assert_eq!(
        bad("tools/call.rs", "use crate::{egress, config::Secret, tools::Error}; use super::Tool;"),
        0
    );
}

#[test]
fn modules_do_not_use_one_another_in_circles() {
    assert_none(circles(&sources()));
    let bad = [Source::new("id.rs", "use crate::clock;"), Source::new("clock.rs", "use crate::id;")];
    assert_eq!(circles(&bad).len(), 1);
}

#[test]
fn lib_lists_the_modules_top_layer_first() {
    let misplaced = |text: &str| {
        let tokens = scan::tokens(text);
        let listed: Vec<u8> = scan::words(&tokens)
            .windows(2)
            .filter(|pair| pair[0] == "mod")
            .map(|pair| layer(pair[1]).unwrap_or(u8::MAX))
            .collect();
        assert!(!listed.is_empty(), "lib.rs lists modules");
        listed.windows(2).filter(|pair| pair[0] < pair[1]).count()
    };
    assert_eq!(misplaced(&fs::read_to_string(root().join("src/lib.rs")).expect("lib.rs exists")), 0);
    assert_eq!(misplaced("pub mod clock; pub mod cli;"), 1);
}

#[test]
fn foreign_crates_stay_in_their_rooms() {
    assert_none(foreign_paths_out_of_place(&sources()));
    let bad = |path, text| foreign_paths_out_of_place(&[Source::new(path, text)]).len();
    assert_eq!(bad("tools/call.rs", "use axum::Router;"), 1);
    assert_eq!(bad("api/chat.rs", "use hyper_util::{rt::TokioExecutor, client::legacy::Client};"), 1);
    assert_eq!(bad("api/chat.rs", "fn f() { ::hyper_rustls::f() }"), 1);
    assert_eq!(bad("sse/decode.rs", "use std::time::Instant;"), 1);
    assert_eq!(bad("api/chat.rs", "use axum::Router; use std::time::Instant; let axum = 1;"), 0);
}

#[test]
fn files_stay_short() {
    let all = files(root(), "rs");
    assert!(all.len() > 50, "tests, tools and benchmarks are seen too");
    assert_none(all.iter().filter_map(|path| too_long(path, &fs::read_to_string(path).ok()?)).collect());
    assert!(too_long(Path::new("id.rs"), &"\n".repeat(MAX_LINES + 1)).is_some());
    assert!(too_long(Path::new("id.rs"), &"\n".repeat(MAX_LINES)).is_none());
}

#[test]
fn tables_of_contents_hold_no_code() {
    assert_none(tables_of_contents_with_code(&sources()));
    let bad = |text| tables_of_contents_with_code(&[Source::new("tools/mod.rs", text)]).len();
    assert_eq!(bad("//! Why.\nmod a; pub fn f() { let a = 1; }"), 1);
    assert_eq!(bad("mod a; const LIMIT: usize = 1;"), 1);
    assert_eq!(bad("//! Why.\nmod a;\n#[cfg(test)] mod tests;\npub use a::{B, C};"), 0);
}

#[test]
fn modules_say_why_they_exist() {
    assert_none(modules_without_a_reason(&sources()));
    assert_eq!(modules_without_a_reason(&[Source::new("id.rs", "use std::fmt;")]).len(), 1);
}

#[test]
fn one_file_prints() {
    assert_none(prints_outside_the_printer(&sources()));
    let bad = |path, text| prints_outside_the_printer(&[Source::new(path, text)]).len();
    assert_eq!(bad("tools/call.rs", "fn f() { eprintln!(\"x\") }"), 1);
    assert_eq!(bad("tools/call.rs", "// println!\nfn f() { writeln!(f) }"), 0);
}

#[test]
fn traits_have_two_implementations() {
    assert_none(traits_with_one_implementation(&sources()));
    let bad = |text| traits_with_one_implementation(&[Source::new("tools/call.rs", text)]).len();
    assert_eq!(bad("trait T {} impl T for A {} #[cfg(test)] mod tests { impl super::T for Fake {} }"), 1);
    assert_eq!(bad("trait T {} impl A { fn f() { for t in T {} } } impl B { fn g() { for t in T {} } }"), 1);
    assert_eq!(bad("trait T<X> {} impl<X> T<X> for A {} impl self::T<u8> for B {}"), 0);
}
