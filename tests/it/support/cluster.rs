//! A PostgreSQL of one test's own, to be stopped and started under running gateways.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use toolgate::config::Secret;
use toolgate::id::random_id;

use super::free_address;

/// A running server. Stopped and removed when dropped.
pub struct Cluster {
    folder: PathBuf,
    programs: PathBuf,
    port: u16,
}

impl Cluster {
    /// Makes and starts one where the tests are about PostgreSQL: `cargo xtask test` has installed its programs then.
    pub fn start_new() -> Cluster {
        let programs = newest_programs().expect("initdb is below /usr/lib/postgresql");
        let folder = std::env::temp_dir().join(random_id("toolgate-it-cluster-"));
        std::fs::create_dir(&folder).expect("the directory for temporary files can be written");
        let cluster = Cluster { folder, programs, port: free_address().port() };
        if is_root() {
            // The server refuses to run as root.
            let given = Command::new("chown").arg("postgres").arg(&cluster.folder).status();
            assert!(given.expect("there is a `chown`").success());
        }
        let data = cluster.data();
        cluster.run("initdb", &["-D", &data, "-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8"]);
        cluster.start();
        cluster
    }

    pub fn url(&self) -> Secret {
        Secret::new(format!("postgres://postgres@127.0.0.1:{}/postgres", self.port))
    }

    pub fn start(&self) {
        let options = format!(
            "-p {} -k {} -c listen_addresses=127.0.0.1 -c fsync=off",
            self.port,
            self.folder.display()
        );
        let log = self.folder.join("log").display().to_string();
        self.run("pg_ctl", &["-D", &self.data(), "-o", &options, "-l", &log, "-w", "start"]);
    }

    /// Stops it at once: every connection breaks, and nobody listens any more.
    pub fn stop(&self) {
        self.run("pg_ctl", &["-D", &self.data(), "-m", "immediate", "-w", "stop"]);
    }

    /// Writes all that is in it to a file of this name.
    pub fn dump(&self, name: &str) {
        let file = self.folder.join(name).display().to_string();
        self.run("pg_dump", &["--format=custom", "--file", &file, self.url().expose()]);
    }

    /// Replaces what is in it by what was dumped to the file of this name.
    pub fn restore(&self, name: &str) {
        let file = self.folder.join(name).display().to_string();
        self.run("pg_restore", &["--clean", "--dbname", self.url().expose(), &file]);
    }

    fn data(&self) -> String {
        self.folder.join("data").display().to_string()
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let done = self.command(program, arguments).status();
        assert!(done.expect("it starts").success(), "{program}: see {}", self.folder.display());
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let path = self.programs.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        command.args(arguments).current_dir(&self.folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // It may be stopped already; what stays is in a directory for temporary files.
        let _ = self.command("pg_ctl", &["-D", &self.data(), "-m", "immediate", "-w", "stop"]).status();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The folder of the newest server's programs.
fn newest_programs() -> Option<PathBuf> {
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|entry| entry.path());
    let newest = versions.filter(|path| path.join("bin/initdb").exists()).max_by_key(|path| version(path))?;
    Some(newest.join("bin"))
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("there is an `id`");
    id.stdout.starts_with(b"0\n")
}
