//! A PostgreSQL of our own for the tests: made, started, stopped, thrown away.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{place, process, setup};

/// A running cluster, which ends when this is dropped.
pub struct Cluster {
    folder: PathBuf,
    bin: PathBuf,
    port: u16,
}

impl Cluster {
    /// Makes and starts one on a free port of this machine. What it holds need not outlive it, so it never waits for
    /// the disk.
    ///
    /// # Errors
    /// A sentence.
    pub fn start() -> Result<Self, String> {
        setup::debian(&setup::POSTGRESQL)?;
        let bin = programs().ok_or("initdb is nowhere below /usr/lib/postgresql")?;
        // As root the server runs as somebody else, who may not be able to reach this repository.
        let base = if is_root() { std::env::temp_dir() } else { place::test_dir() };
        let folder = base.join(format!("toolgate-postgres-{}", std::process::id()));
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .map_err(|error| format!("no free port: {error}"))?
            .port();
        let cluster = Cluster { folder, bin, port };
        if is_root() {
            let folder = cluster.folder.to_string_lossy().into_owned();
            if !process::succeeds("chown", &["postgres", &folder]) {
                return Err("there is no user `postgres`, as whom the server would run".to_owned());
            }
        }
        let data = cluster.data();
        cluster.run("initdb", &["-D", &data, "-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8"])?;
        let options = format!(
            "-p {port} -k {} -c listen_addresses=127.0.0.1 -c fsync=off -c synchronous_commit=off \
             -c full_page_writes=off -c max_connections=300",
            cluster.folder.display()
        );
        let log = cluster.folder.join("log").to_string_lossy().into_owned();
        cluster.run("pg_ctl", &["-D", &data, "-o", &options, "-l", &log, "-w", "start"])?;
        Ok(cluster)
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    fn data(&self) -> String {
        self.folder.join("data").to_string_lossy().into_owned()
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<(), String> {
        let path = self.bin.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        // Its output would hold our pipes open for as long as the server runs.
        let status = command
            .args(arguments)
            .current_dir(&self.folder)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status();
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => {
                Err(format!("`{program}` failed ({status}); see {}", self.folder.join("log").display()))
            }
            Err(error) => Err(format!("`{program}` does not start: {error}")),
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // If it never ran there is nothing to stop, and what stays is in a folder for temporary files.
        let _ = self.run("pg_ctl", &["-D", &self.data(), "-m", "immediate", "-w", "stop"]);
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The folder of the newest server's programs.
fn programs() -> Option<PathBuf> {
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let mut folders: Vec<PathBuf> =
        fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|entry| entry.path()).collect();
    folders.sort_by_key(|path| version(path));
    folders.into_iter().rev().map(|path| path.join("bin")).find(|bin| bin.join("initdb").exists())
}

fn is_root() -> bool {
    process::succeeds("sh", &["-c", "test \"$(id -u)\" = 0"])
}
