//! Installs what the tests and benchmarks need, says what it installs, and says clearly when it cannot.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use crate::{place, process};

const PYTHON: Package = Package {
    probe: ("python3", &["-c", "import venv, ensurepip"]),
    names: &["python3", "python3-venv"],
    why: "the Python SDKs and MCP servers",
};
const NODE: Package = Package {
    probe: ("sh", &["-c", "node --version && npm --version"]),
    names: &["nodejs", "npm"],
    why: "the JavaScript SDKs and MCP servers",
};
pub const POSTGRESQL: Package = Package {
    probe: ("sh", &["-c", "ls /usr/lib/postgresql/*/bin/initdb"]),
    names: &["postgresql"],
    why: "the integration tests on PostgreSQL",
};
/// Its libraries come with it; letters, without which pictures of pages show nothing, do not.
pub const CHROMIUM: Package = Package {
    probe: ("sh", &["-c", "command -v chromium"]),
    names: &["chromium", "fonts-liberation"],
    why: "the browser tests",
};
pub const NGINX: Package = Package {
    probe: ("sh", &["-c", "command -v nginx || test -x /usr/sbin/nginx"]),
    names: &["nginx-light"],
    why: "the reference of the benchmarks",
};

const CARGO_DENY_VERSION: &str = "0.20.2";
const INSTALL_LIMIT: Duration = Duration::from_secs(15 * 60);

/// A Debian package, or several that come together.
pub struct Package {
    probe: (&'static str, &'static [&'static str]),
    names: &'static [&'static str],
    why: &'static str,
}

/// `cargo xtask setup`.
pub fn only() -> ExitCode {
    let results = [cargo_deny().map(|_| ()), python(), node(), debian(&POSTGRESQL), debian(&NGINX)];
    let mut failed = false;
    for problem in results.into_iter().filter_map(Result::err) {
        println!("error: {problem}");
        failed = true;
    }
    if failed {
        return ExitCode::FAILURE;
    }
    println!("everything is installed");
    ExitCode::SUCCESS
}

/// Installs a Debian package when it is missing.
///
/// # Errors
/// A sentence that says what is missing and how to get it.
pub fn debian(package: &Package) -> Result<(), String> {
    let (program, arguments) = package.probe;
    if process::succeeds(program, arguments) {
        return Ok(());
    }
    let names = package.names.join(" ");
    println!("installing the Debian packages {names}, for {}", package.why);
    if !process::succeeds("sh", &["-c", "command -v apt-get"]) {
        return Err(format!(
            "{names} is missing, for {}; there is no apt-get here: install it by hand",
            package.why
        ));
    }
    let sudo = if process::succeeds("sh", &["-c", "test \"$(id -u)\" = 0"]) {
        ""
    } else if process::succeeds("sudo", &["-n", "true"]) {
        "sudo -n "
    } else {
        return Err(format!(
            "{names} is missing, for {}; neither root nor sudo without a password: run `apt-get install {names}`",
            package.why
        ));
    };
    let script = format!(
        "export DEBIAN_FRONTEND=noninteractive; {sudo}apt-get -qq update && {sudo}apt-get -qq install -y --no-install-recommends {names}"
    );
    let done = process::run(Command::new("sh").args(["-c", &script]), "  ", INSTALL_LIMIT);
    if done.success && process::succeeds(program, arguments) {
        return Ok(());
    }
    Err(format!("`apt-get install {names}` failed"))
}

/// `cargo-deny`, the machine's own or one built from crates.io, which takes a minute.
///
/// # Errors
/// A sentence.
pub fn cargo_deny() -> Result<PathBuf, String> {
    if process::succeeds("cargo-deny", &["--version"]) {
        return Ok(PathBuf::from("cargo-deny"));
    }
    let folder = place::test_dir().join("cargo");
    let program = folder.join("bin/cargo-deny");
    if process::succeeds(&program.to_string_lossy(), &["--version"]) {
        return Ok(program);
    }
    println!(
        "installing cargo-deny {CARGO_DENY_VERSION} into .toolgate-test/cargo, to check the dependencies"
    );
    let target = folder.join("target");
    let mut install = Command::new(place::cargo());
    install
        .args([
            "install",
            "--quiet",
            "--locked",
            "--debug",
            "cargo-deny",
            "--version",
            CARGO_DENY_VERSION,
            "--root",
        ])
        .arg(&folder)
        .arg("--target-dir")
        .arg(&target);
    let done = process::run(&mut install, "  ", INSTALL_LIMIT);
    // A gigabyte that nobody needs again; if it stays, that is no harm.
    let _ = fs::remove_dir_all(&target);
    if done.success { Ok(program) } else { Err("`cargo install cargo-deny` failed".to_owned()) }
}

/// The virtual environment `.toolgate-test/python`, as the committed requirements say.
///
/// # Errors
/// A sentence.
pub fn python() -> Result<(), String> {
    debian(&PYTHON)?;
    let lock = place::root().join("tests/counterparts/python/requirements.txt");
    let folder = place::test_dir().join("python");
    install_once(std::slice::from_ref(&lock), &folder, "Python packages", |folder| {
        let mut create = Command::new("python3");
        create.args(["-m", "venv"]).arg(folder);
        let mut install = Command::new(folder.join("bin/pip"));
        install.args(["install", "--quiet", "--disable-pip-version-check", "-r"]).arg(&lock);
        vec![create, install]
    })
}

/// `.toolgate-test/node/node_modules`, as the committed lock file says.
///
/// # Errors
/// A sentence.
pub fn node() -> Result<(), String> {
    debian(&NODE)?;
    debian(&CHROMIUM)?;
    let source = place::root().join("tests/counterparts/node");
    let locks = [source.join("package.json"), source.join("package-lock.json")];
    let folder = place::test_dir().join("node");
    install_once(&locks, &folder, "Node packages", |folder| {
        for lock in &locks {
            let name = lock.file_name().expect("it has a name");
            // If this fails, `npm ci` says that the file is missing.
            let _ = fs::copy(lock, folder.join(name));
        }
        let mut install = Command::new("npm");
        install
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"])
            .current_dir(folder);
        vec![install]
    })
}

/// Runs the commands in an empty `folder` unless that was done before with the same lock files.
fn install_once(
    locks: &[PathBuf],
    folder: &Path,
    what: &str,
    commands: impl FnOnce(&Path) -> Vec<Command>,
) -> Result<(), String> {
    let mut wanted = String::new();
    for lock in locks {
        let text = fs::read_to_string(lock).map_err(|error| format!("{}: {error}", lock.display()))?;
        wanted.push_str(&text);
    }
    let stamp = folder.join("installed-from");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    println!("installing {what} into {}", folder.strip_prefix(place::root()).unwrap_or(folder).display());
    // It may not exist; if it cannot be emptied, the next line or the installer says so.
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for mut command in commands(folder) {
        if !process::run(&mut command, "  ", INSTALL_LIMIT).success {
            return Err(format!("installing {what} failed; the lines above say why"));
        }
    }
    fs::write(&stamp, wanted).map_err(|error| format!("{}: {error}", stamp.display()))
}
