//! Which settings there are, asked of the settings themselves, so that no second list can go stale.

use serde::Deserialize;

use super::Settings;
use super::de::{Failure, Kind, quoted};
use super::node::{Node, Origin, Value};

/// No setting has this name.
const PROBE: &str = "?";

/// The keys that may stand in the table at `path` (numbers for list items); `None` when there is no table of fixed keys.
pub(super) fn keys(path: &[String]) -> Option<&'static [&'static str]> {
    let mut root = Node::root();
    let mut probe = path.to_vec();
    probe.push(PROBE.to_owned());
    root.set(&probe, &Origin::Option("probe"), Value::Bool(true)).ok()?;
    match Settings::deserialize(root) {
        Err(Failure { path: at, kind: Kind::UnknownKey { expected }, .. })
            if at.first().is_some_and(|key| key == PROBE) && at.len() == probe.len() =>
        {
            Some(expected)
        }
        _ => None,
    }
}

/// Whether `path` is a setting.
pub(super) fn has(path: &[String]) -> bool {
    let zeroed: Vec<String> = path
        .iter()
        .map(|key| if key.parse::<usize>().is_ok() { "0".to_owned() } else { key.clone() })
        .collect();
    zeroed
        .split_last()
        .is_some_and(|(last, table)| keys(table).is_some_and(|keys| keys.contains(&last.as_str())))
}

/// Every setting by its path; `0` stands for the items of a list.
pub(super) fn all() -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![Vec::new()];
    while let Some(table) = open.pop() {
        for key in keys(&table).unwrap_or_default() {
            let mut path: Vec<String> = table.clone();
            path.push((*key).to_owned());
            let mut item = path.clone();
            item.push("0".to_owned());
            let is_table = keys(&path).is_some();
            let is_list_of_tables = !is_table && keys(&item).is_some();
            found.push(path.join("."));
            if is_table {
                open.push(path);
            } else if is_list_of_tables {
                open.push(item);
            }
        }
    }
    found.sort();
    found
}

/// What to say about a path that does not exist: the nearest one that does, or what may stand in its place.
pub(super) fn hint(path: &[&str], expected: &[&str]) -> String {
    let written = path.join(".");
    let as_item = |path: &str| -> String {
        path.split('.')
            .map(|key| if key.parse::<usize>().is_ok() { "0" } else { key })
            .collect::<Vec<_>>()
            .join(".")
    };
    let settings = all();
    let last = path.last().copied().unwrap_or_default();
    let wanted = as_item(&written);
    let near = settings
        .iter()
        .map(|setting| (strsim::damerau_levenshtein(setting, &wanted), setting))
        .filter(|(distance, setting)| *distance <= 1 + setting.len().min(wanted.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, setting)| setting)
        .or_else(|| settings.iter().find(|setting| setting.rsplit('.').next() == Some(last)));
    match near {
        Some(near) => format!("did you mean `{}`?", with_numbers_of(near, path)),
        None if expected.is_empty() => "`config.example.toml` shows every setting".to_owned(),
        None => format!("there is {}", quoted(expected)),
    }
}

fn with_numbers_of(setting: &str, path: &[&str]) -> String {
    let mut keys: Vec<&str> = setting.split('.').collect();
    for (position, key) in keys.iter_mut().enumerate() {
        if *key == "0"
            && let Some(written) = path.get(position).filter(|written| written.parse::<usize>().is_ok())
        {
            *key = written;
        }
    }
    keys.join(".")
}
