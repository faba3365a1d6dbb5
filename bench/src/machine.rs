//! What was measured on, and with what.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::process;

/// A few lines of Markdown.
pub fn describe(toolgate: Option<&Path>, command: &str) -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("")
        .trim_matches([':', ' ', '\t']);
    let cores = process::cores();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib: u64 = memory.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = kernel.split('-').next().unwrap_or_default().trim();
    let nginx =
        first_line("sh", &["-c", "PATH=$PATH:/usr/sbin nginx -v 2>&1"]).replace("nginx version: ", "");
    let rustc = first_line("rustc", &["--version"]);
    let version =
        toolgate.map(|program| first_line(&program.to_string_lossy(), &["--version"])).unwrap_or_default();
    format!(
        "Machine: {model}, {cores} cores, {} GiB, virtual, Linux {kernel}. Versions: {version}, {nginx}, {rustc}. Command: `{command}`.",
        kib >> 20
    )
}

fn first_line(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or_default().trim().to_owned()
}
