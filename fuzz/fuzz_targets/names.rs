//! Function names are valid, unique, and the same in any order of servers.
#![no_main]

use std::collections::{BTreeMap, HashSet};

use libfuzzer_sys::fuzz_target;
use toolgate::tools::name;

fuzz_target!(|input: (BTreeMap<&str, Vec<&str>>, Vec<&str>, &str)| {
    let (servers, taken, host) = input;
    let taken: HashSet<&str> = taken.into_iter().collect();
    let mut servers: Vec<(&str, &[&str])> =
        servers.iter().map(|(label, tools)| (*label, &tools[..])).collect();
    let given = name::assign(&servers, &taken);
    let mut seen = HashSet::new();
    for ((_, tools), names) in servers.iter().zip(&given) {
        assert_eq!(tools.len(), names.len());
        for name in names {
            assert!((1..=name::MAX_NAME).contains(&name.len()));
            assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'));
            assert!(!taken.contains(name.as_str()) && seen.insert(name.clone()));
        }
    }
    servers.reverse();
    let mut again = name::assign(&servers, &taken);
    again.reverse();
    assert_eq!(given, again);
    assert!(name::label_from_host(host).starts_with(|c: char| c.is_ascii_alphabetic()));
});
