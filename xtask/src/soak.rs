//! `cargo xtask soak [minutes]`: builds both programs optimised, and lets the harness soak them.

use std::process::{Command, ExitCode};
use std::time::Duration;

use crate::postgres::Cluster;
use crate::{place, process};

const BUILD_LIMIT: Duration = Duration::from_secs(30 * 60);
/// What a soak takes beside its minutes: starting, and looking at every run.
const MORE: Duration = Duration::from_secs(15 * 60);

/// Soaks for `minutes` in all, on SQLite and, where one can be made, on PostgreSQL.
pub fn run(minutes: u64) -> ExitCode {
    let mut build = Command::new(place::cargo());
    build.args(["build", "--release", "--locked", "-p", "toolgate", "-p", "toolgate-bench"]);
    if !process::run(build.current_dir(place::root()), "  ", BUILD_LIMIT).success {
        return ExitCode::FAILURE;
    }
    let cluster =
        Cluster::start().map_err(|problem| println!("note: {problem}; soaking without PostgreSQL")).ok();
    let release = place::target_dir().join("release");
    let mut harness = Command::new("sh");
    harness
        .args(["-c", "ulimit -n \"$(ulimit -Hn)\" && exec \"$@\"", "sh"])
        .arg(release.join("toolgate-bench"))
        .args(["soak", &minutes.to_string(), "--toolgate"])
        .arg(release.join("toolgate"))
        .args(cluster.iter().flat_map(|cluster| ["--postgres".to_owned(), cluster.url()]))
        .current_dir(place::root());
    let limit = Duration::from_secs(minutes * 60) + MORE;
    if process::run(&mut harness, "", limit).success { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
