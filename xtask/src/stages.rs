//! `cargo xtask test`: the stages in their order. A stage that fails does not stop the others, so that one run shows
//! everything.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use crate::count::{self, Count};
use crate::postgres::Cluster;
use crate::suites::{self, SUITES};
use crate::{place, process, setup};

const LIMIT: Duration = Duration::from_secs(40 * 60);

/// Formatting, lints, unit and integration tests.
pub fn fast() -> ExitCode {
    let mut total = Count::default();
    formatting(&mut total);
    lints(&mut total);
    tests(&mut total);
    close(&total)
}

/// The integration tests on PostgreSQL alone.
pub fn postgres() -> ExitCode {
    let mut total = Count::default();
    tests_on_postgres(&mut total);
    close(&total)
}

/// The attack group alone: its tests are ordinary integration tests, and run with all others, too.
pub fn attack() -> ExitCode {
    let mut total = Count::default();
    stage(&mut total, "attacks", || nextest_or_test(&["--package", "toolgate", "--test", "it", "attack::"]));
    close(&total)
}

/// Everything.
pub fn everything() -> ExitCode {
    let mut total = Count::default();
    formatting(&mut total);
    lints(&mut total);
    tests(&mut total);
    tests_on_postgres(&mut total);
    doc_tests(&mut total);
    dependencies(&mut total);
    counterparts(&mut total);
    close(&total)
}

fn close(total: &Count) -> ExitCode {
    println!("\n{}", count::closing_line(total));
    if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a stage, shows its name and time, and adds what it counted.
fn stage(total: &mut Count, name: &str, work: impl FnOnce() -> Count) {
    println!("\n== {name}");
    let started = Instant::now();
    let count = work();
    println!("== {name}: {} ({} s)", count::closing_line(&count), started.elapsed().as_secs());
    total.add(&count);
}

fn cargo(arguments: &[&str]) -> process::Finished {
    let mut command = Command::new(place::cargo());
    process::run(command.args(arguments).current_dir(place::root()), "  ", LIMIT)
}

fn formatting(total: &mut Count) {
    stage(total, "formatting", || Count::one(cargo(&["fmt", "--all", "--check"]).success));
}

fn lints(total: &mut Count) {
    stage(total, "lints", || {
        let arguments =
            ["clippy", "--quiet", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
        Count::one(cargo(&arguments).success)
    });
}

fn tests(total: &mut Count) {
    stage(total, "unit and integration tests", || {
        if has_nextest() {
            nextest_or_test(&["--workspace"])
        } else {
            nextest_or_test(&["--workspace", "--lib", "--bins", "--tests"])
        }
    });
}

fn has_nextest() -> bool {
    process::succeeds(&place::cargo(), &["nextest", "--version"])
}

/// Runs the tests that `only` selects with `cargo nextest` where it is installed, else with `cargo test`.
fn nextest_or_test(only: &[&str]) -> Count {
    let runner: &[&str] =
        if has_nextest() { &["nextest", "run", "--status-level", "slow"] } else { &["test"] };
    let done = cargo(&[runner, &["--locked", "--no-fail-fast"], only].concat());
    let count = if has_nextest() { count::nextest(&done.lines) } else { count::libtest(&done.lines) };
    count.settle(done.success)
}

/// The integration tests once more, every gateway with a schema of its own in a PostgreSQL that is thrown away.
fn tests_on_postgres(total: &mut Count) {
    stage(total, "integration tests on PostgreSQL", || {
        let cluster = match Cluster::start() {
            Ok(cluster) => cluster,
            Err(problem) => {
                println!("FAIL PostgreSQL: {problem}");
                return Count::one(false);
            }
        };
        let only = ["--package", "toolgate", "--test", "it", "--locked", "--no-fail-fast"];
        let has_nextest = has_nextest();
        let mut command = Command::new(place::cargo());
        if has_nextest {
            command.args(["nextest", "run"]).args(only).args(["--status-level", "slow"]);
        } else {
            command.arg("test").args(only);
        }
        command.env("TOOLGATE_TEST_POSTGRES", cluster.url()).current_dir(place::root());
        let done = process::run(&mut command, "  ", LIMIT);
        let count = if has_nextest { count::nextest(&done.lines) } else { count::libtest(&done.lines) };
        count.settle(done.success)
    });
}

fn doc_tests(total: &mut Count) {
    stage(total, "examples in documentation", || {
        let done = cargo(&["test", "--quiet", "--workspace", "--locked", "--doc"]);
        let count = count::libtest(&done.lines);
        // A library without examples is no failure; one that does not compile is.
        if done.success { count } else { count.settle(false) }
    });
}

fn dependencies(total: &mut Count) {
    stage(total, "dependencies", || {
        let program = match setup::cargo_deny() {
            Ok(program) => program,
            Err(problem) => {
                println!("FAIL dependencies: {problem}");
                return Count::one(false);
            }
        };
        let deny = |checks: &[&str]| {
            let mut command = Command::new(&program);
            command.args(["--log-level", "error", "check", "--hide-inclusion-graph"]).args(checks);
            process::run(command.current_dir(place::root()), "  ", LIMIT)
        };
        let mut count = Count::one(deny(&["bans", "licenses", "sources"]).success);
        let advisories = deny(&["advisories"]);
        if advisories.lines.iter().any(|line| line.contains("failed to fetch advisory database")) {
            println!("SKIP advisories: the RustSec database cannot be fetched from here");
            count.skipped += 1;
        } else {
            count.add(&Count::one(advisories.success));
        }
        count
    });
}

fn counterparts(total: &mut Count) {
    let mut ready = Err(String::new());
    stage(total, "installing counterparts", || {
        let installed = [setup::python(), setup::node()];
        let built = binary();
        let mut count = Count::default();
        for problem in installed.iter().filter_map(|one| one.as_ref().err()).chain(built.as_ref().err()) {
            println!("FAIL setup: {problem}");
            count.failed += 1;
        }
        ready = if count.failed == 0 { built } else { Err(String::new()) };
        count
    });
    for suite in SUITES {
        stage(total, suite.name, || match &ready {
            Ok(binary) => suites::run(suite, binary),
            Err(_) => {
                println!("FAIL {}: not run, since what it needs is not there", suite.name);
                Count::one(false)
            }
        });
    }
}

/// Builds the gateway and copies it aside, so that nothing that is built meanwhile changes what is tested.
fn binary() -> Result<PathBuf, String> {
    if !cargo(&["build", "--quiet", "--locked", "--package", "toolgate", "--bin", "toolgate"]).success {
        return Err("the gateway does not build".to_owned());
    }
    let copy = place::test_dir().join("toolgate");
    let built = place::target_dir().join("debug/toolgate");
    fs::create_dir_all(place::test_dir())
        .and_then(|()| fs::copy(&built, &copy))
        .map_err(|error| format!("{}: {error}", built.display()))?;
    Ok(copy)
}
