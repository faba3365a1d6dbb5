//! Documents are held to the code: links lead somewhere, every room is described, every dependency has a reason.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::{assert_none, files, root};

/// Relative links in `text`, a document in `folder`, that lead nowhere. Links inside code are not links.
fn broken_links(folder: &Path, name: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for rest in prose(text).split("](").skip(1) {
        let target = rest.split([')', ' ']).next().unwrap_or_default().trim_matches(['<', '>']);
        let elsewhere = ["http://", "https://", "mailto:"].iter().any(|scheme| target.starts_with(scheme));
        if elsewhere || target.is_empty() {
            continue;
        }
        let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
        let path = if path.is_empty() { None } else { Some(folder.join(path)) };
        let linked = match &path {
            None => Some(text.to_owned()),
            Some(path) if path.is_dir() => Some(String::new()),
            Some(path) => fs::read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        };
        match linked {
            None => problems.push(format!("{name}: the link `{target}` leads nowhere")),
            Some(linked) if !anchor.is_empty() && !anchors(&linked).contains(anchor) => {
                problems.push(format!("{name}: `{target}`: no such heading"));
            }
            Some(_) => {}
        }
    }
    problems
}

/// The text without fenced blocks and inline code.
fn prose(text: &str) -> String {
    let mut out = String::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            out.extend(line.split('`').step_by(2));
            out.push('\n');
        }
    }
    out
}

/// The anchors that code hosts make from headings: lower case, punctuation dropped, spaces as dashes.
fn anchors(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}

/// Names of the dependencies that a manifest asks for directly, its own workspace's packages apart.
fn direct_dependencies(manifest: &str) -> BTreeSet<String> {
    let mut inside = false;
    let mut names = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.trim_matches(['[', ']']).ends_with("dependencies");
        } else if let Some((name, value)) = line.split_once('=').filter(|_| inside) {
            let is_outside = !value.contains("path =") && !name.starts_with('#');
            names.extend(is_outside.then(|| name.split('.').next().unwrap_or(name).trim().to_owned()));
        }
    }
    names
}

/// Dependencies that the page gives a reason for: lines of the form ``* `name`: reason``.
fn explained_dependencies(page: &str) -> BTreeSet<String> {
    page.lines()
        .filter_map(|line| line.strip_prefix("* `")?.split_once("`: "))
        .filter(|(_, reason)| reason.len() > 10)
        .map(|(name, _)| name.to_owned())
        .collect()
}

fn unlike(manifests: &BTreeSet<String>, explained: &BTreeSet<String>) -> Vec<String> {
    let missing = manifests.difference(explained).map(|name| format!("`{name}` has no reason"));
    let stale = explained.difference(manifests).map(|name| format!("`{name}` is no dependency any more"));
    missing.chain(stale).collect()
}

fn folders_not_described(architecture: &str, folders: &[String]) -> Vec<String> {
    folders
        .iter()
        .filter(|name| {
            let forms = [format!("`{name}`"), format!("{name}/"), format!("`{name}::")];
            !forms.iter().any(|form| architecture.contains(form))
        })
        .map(|name| format!("ARCHITECTURE.md does not name src/{name}/"))
        .collect()
}

#[test]
fn links_in_documents_lead_somewhere() {
    let mut problems = Vec::new();
    for path in files(root(), "md") {
        let text = fs::read_to_string(&path).expect("documents are UTF-8");
        let name = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
        problems.extend(broken_links(path.parent().expect("in a folder"), &name, &text));
    }
    assert_none(problems);

    let bad = |text| broken_links(root(), "x.md", text).len();
    assert_eq!(bad("[a](nowhere.md) and [b](#nothing)"), 2);
    assert_eq!(bad("[a](Cargo.toml#nothing)"), 1);
    assert_eq!(
        bad("# One & two\n[a](Cargo.toml) [b](#one--two) [c](https://example.com/x) `[d](nowhere)`"),
        0
    );
}

#[test]
fn every_dependency_has_a_reason() {
    let mut manifests = BTreeSet::new();
    for manifest in ["Cargo.toml", "bench/Cargo.toml", "xtask/Cargo.toml"] {
        manifests.extend(direct_dependencies(&fs::read_to_string(root().join(manifest)).expect("it exists")));
    }
    assert!(manifests.contains("tokio"), "the manifests are read");
    let page = fs::read_to_string(root().join("docs/decisions/dependencies.md")).expect("the page exists");
    assert_none(unlike(&manifests, &explained_dependencies(&page)));

    let asked = direct_dependencies("[dependencies]\na = \"1\"\nb.version = \"2\"\n[features]\nc = []");
    let given = explained_dependencies("* `a`: because it is good\n* `b`: no\n* `d`: was here before");
    assert_eq!(unlike(&asked, &given).len(), 2, "b without a reason, d without a use");
}

#[test]
fn every_room_is_described() {
    let mut folders: Vec<String> = fs::read_dir(root().join("src"))
        .expect("src exists")
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    folders.sort();
    if let Ok(text) = fs::read_to_string(root().join("ARCHITECTURE.md")) {
        assert_none(folders_not_described(&text, &folders));
    }
    assert_eq!(
        folders_not_described("`tools`, api/", &["tools".into(), "api".into(), "sse".into()]).len(),
        1
    );
}
