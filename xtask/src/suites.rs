//! The suites with real counterparts. Each is a command that finds the gateway's binary in `TOOLGATE_BIN` and a
//! scratch folder in `TOOLGATE_TEST_DIR`, prints `PASS name`, `FAIL name: reason` or `SKIP name: reason` lines, and
//! exits non-zero when anything failed.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::count::{self, Count};
use crate::{place, process};

/// A suite: its name, and the interpreter with its script.
pub struct Suite {
    pub name: &'static str,
    command: &'static [&'static str],
}

pub const SUITES: &[Suite] = &[
    Suite { name: "Python SDKs", command: &["tests/counterparts/run", "sdk-python"] },
    Suite { name: "JavaScript SDKs", command: &["tests/counterparts/run", "sdk-node"] },
    Suite { name: "MCP servers", command: &["tests/counterparts/run", "servers"] },
    Suite { name: "browsers", command: &["tests/counterparts/run", "browser"] },
    Suite { name: "MCP conformance", command: &["tests/counterparts/run", "conformance"] },
    Suite { name: "MCP logins", command: &["tests/counterparts/run", "connections"] },
    Suite { name: "compatibility page", command: &["tests/counterparts/run", "page"] },
];

const LIMIT: Duration = Duration::from_secs(10 * 60);

/// Runs one suite against `binary`.
pub fn run(suite: &Suite, binary: &Path) -> Count {
    let folder = place::test_dir();
    let own = format!(
        "{}:{}:{}",
        folder.join("python/bin").display(),
        folder.join("node/node_modules/.bin").display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let mut command = Command::new("env");
    command
        .args(suite.command)
        .current_dir(place::root())
        .env("PATH", own)
        .env("NODE_PATH", folder.join("node/node_modules"))
        .env("TOOLGATE_BIN", binary)
        .env("TOOLGATE_TEST_DIR", &folder);
    let done = process::run_contained(&mut command, "", LIMIT);
    let mut count = count::suite(&done.lines);
    if done.timed_out {
        println!("FAIL {}: not finished after {} s", suite.name, LIMIT.as_secs());
        count.failed += 1;
    }
    count.settle(done.success)
}
