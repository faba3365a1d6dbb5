//! Where things are.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the repository")
}

/// Everything that the tests install and write; git ignores it.
pub fn test_dir() -> PathBuf {
    root().join(".toolgate-test")
}

/// The cargo that started us.
pub fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

/// Where cargo puts what it builds.
pub fn target_dir() -> PathBuf {
    let output = Command::new(cargo())
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let found = text.split("\"target_directory\":\"").nth(1).and_then(|rest| rest.split('"').next());
    found.map_or_else(|| root().join("target"), PathBuf::from)
}
