//! `cargo xtask bench`: builds both programs optimised, and lets the harness measure.

use std::process::{Command, ExitCode};
use std::time::Duration;

use crate::postgres::Cluster;
use crate::{place, process, setup};

const LIMIT: Duration = Duration::from_secs(30 * 60);

/// Measures what is named, or everything; the harness itself reads the arguments.
pub fn run(arguments: &[&str]) -> ExitCode {
    if let Err(problem) = setup::debian(&setup::NGINX) {
        println!("note: {problem}; measuring without it");
    }
    let mut build = Command::new(place::cargo());
    build.args(["build", "--release", "--locked", "-p", "toolgate", "-p", "toolgate-bench"]);
    if !process::run(build.current_dir(place::root()), "  ", LIMIT).success {
        return ExitCode::FAILURE;
    }
    let cluster =
        Cluster::start().map_err(|problem| println!("note: {problem}; measuring without PostgreSQL")).ok();
    let release = place::target_dir().join("release");
    // A thousand open streams need more file descriptors than many shells give.
    let mut harness = Command::new("sh");
    harness
        .args(["-c", "ulimit -n \"$(ulimit -Hn)\" && exec \"$@\"", "sh"])
        .arg(release.join("toolgate-bench"))
        .arg("run")
        .arg("--toolgate")
        .arg(release.join("toolgate"))
        .arg("--report")
        .arg(place::root().join("docs/operations/performance.md"))
        .args(cluster.iter().flat_map(|cluster| ["--postgres".to_owned(), cluster.url()]))
        .args(arguments)
        .current_dir(place::root());
    if process::run(&mut harness, "", LIMIT).success { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
