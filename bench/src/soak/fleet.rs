//! The gateways of a soak, on one database: one process on SQLite, two on PostgreSQL. They are killed, stopped and started
//! again on the same ports.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::disk::Disk;
use super::visitor;
use crate::process::{Cores, Process};
use crate::stand::free_port;

/// How long a gateway may take to stop in order.
const STOPPING: Duration = Duration::from_secs(60);

/// What the gateways need to run.
pub struct Fleet {
    program: PathBuf,
    folder: PathBuf,
    config: PathBuf,
    pub key: String,
    pub members: Vec<Member>,
    /// The most memory that any process had, in bytes.
    pub peak_memory: u64,
    /// Held for as long as the data is on it.
    pub disk: Disk,
}

/// One gateway, running or not.
pub struct Member {
    pub port: u16,
    pub process: Option<Process>,
    log: PathBuf,
}

impl Fleet {
    /// Makes keyring, key and configuration, and starts every gateway.
    pub async fn start(program: &Path, peers: (u16, u16), postgres: Option<&str>) -> Result<Self, String> {
        let folder = std::env::temp_dir().join(format!("toolgate-soak-{}", std::process::id()));
        // What an earlier soak left there would be measured, too.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let disk = Disk::mount(&folder.join("data"));
        let hash = run(program, &["key", "hash"]).await?;
        let mut lines = hash.lines();
        let (Some(key), Some(hash)) = (lines.next(), lines.next()) else {
            return Err("`toolgate key hash` printed no key".to_owned());
        };
        let config = folder.join("soak.toml");
        let text = configuration(hash, peers.0, postgres);
        fs::write(&config, text).map_err(|error| error.to_string())?;
        let mut fleet = Fleet {
            program: program.to_owned(),
            config,
            key: key.to_owned(),
            members: Vec::new(),
            peak_memory: 0,
            disk,
            folder,
        };
        let data = fleet.data().to_string_lossy().into_owned();
        let config = fleet.config.to_string_lossy().into_owned();
        run(program, &["init", "--data", &data, "--config", &config]).await?;
        for number in 0..if postgres.is_some() { 2 } else { 1 } {
            let log = fleet.folder.join(format!("gateway-{number}.log"));
            fleet.members.push(Member { port: free_port()?, process: None, log });
            fleet.start_member(number).await?;
        }
        Ok(fleet)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Starts a gateway that does not run, and waits until it answers.
    pub async fn start_member(&mut self, number: usize) -> Result<(), String> {
        let data = self.data();
        let member = &mut self.members[number];
        let listen = format!("127.0.0.1:{}", member.port);
        let (config, data) = (self.config.to_string_lossy(), data.to_string_lossy());
        let arguments = ["serve", "--config", &config, "--listen", &listen, "--data", &data];
        let mut process =
            Process::start("toolgate", Cores::Proxy.available(), &self.program, &arguments, &member.log)?;
        let deadline = Instant::now() + STOPPING;
        while !visitor::get(member.port, "/healthz", "").await.is_ok_and(|(status, _)| status == 200) {
            process.check(&member.log)?;
            if Instant::now() > deadline {
                return Err(format!("nothing healthy on port {}", member.port));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        member.process = Some(process);
        Ok(())
    }

    /// Ends a gateway as a crash does, and starts it again.
    pub async fn kill(&mut self, number: usize) -> Result<(), String> {
        self.note_memory();
        if let Some(process) = self.members[number].process.take() {
            process.kill();
        }
        self.keep_log(number);
        self.start_member(number).await
    }

    /// Asks a gateway to stop, waits until it has, and starts it again.
    pub async fn restart(&mut self, number: usize) -> Result<(), String> {
        self.note_memory();
        if let Some(process) = self.members[number].process.take() {
            // It hands its runs over meanwhile: the peers have to go on.
            let stopping = tokio::task::spawn_blocking(move || process.stop(STOPPING));
            stopping.await.map_err(|error| error.to_string())??;
        }
        self.keep_log(number);
        self.start_member(number).await
    }

    /// Each process has its own log, which a new one would begin anew.
    fn keep_log(&self, number: usize) {
        let log = &self.members[number].log;
        let text = fs::read_to_string(log).unwrap_or_default();
        let all = log.with_extension("before.log");
        let before = fs::read_to_string(&all).unwrap_or_default();
        // A log that cannot be kept is missing from the count of panics only.
        let _ = fs::write(all, before + &text);
    }

    /// Looks at how much memory the processes had.
    pub fn note_memory(&mut self) {
        let peaks =
            self.members.iter().filter_map(|member| member.process.as_ref()).map(Process::peak_memory);
        self.peak_memory = peaks.fold(self.peak_memory, u64::max);
    }

    /// Memory in RAM now, of the largest process, in bytes.
    pub fn memory(&self) -> u64 {
        let now = self.members.iter().filter_map(|member| member.process.as_ref());
        now.map(|process| process.memory().1).max().unwrap_or(0)
    }

    /// Open files and connections of the process that has most.
    pub fn descriptors(&self) -> usize {
        let now = self.members.iter().filter_map(|member| member.process.as_ref());
        now.map(Process::descriptors).max().unwrap_or(0)
    }

    /// Panics that any process wrote into its log.
    pub fn panics(&self) -> usize {
        let logs = self
            .members
            .iter()
            .flat_map(|member| [member.log.clone(), member.log.with_extension("before.log")]);
        logs.map(|log| fs::read_to_string(log).unwrap_or_default().matches("panicked at").count()).sum()
    }

    /// Whether every gateway says that it is ready.
    pub async fn is_ready(&self) -> bool {
        for member in &self.members {
            if !visitor::get(member.port, "/readyz", "").await.is_ok_and(|(status, _)| status == 200) {
                return false;
            }
        }
        true
    }

    /// Ends every process; the folder stays when there is something to look into.
    pub fn close(mut self, keep: bool) -> PathBuf {
        self.members.clear();
        self.disk.unmount();
        if !keep {
            // What stays is in the directory for temporary files.
            let _ = fs::remove_dir_all(&self.folder);
        }
        self.folder
    }
}

fn configuration(hash: &str, provider: u16, postgres: Option<&str>) -> String {
    let store = postgres.map(|url| format!("[store]\nurl = \"{url}\"\n")).unwrap_or_default();
    format!(
        "public_url = \"https://gateway.example\"\n{store}[pass_through]\nenabled = true\n[rate_limit]\n\
         requests_per_minute = 0\n[[egress.allow]]\ncidr = \"127.0.0.0/8\"\n[[api_keys]]\nname = \"soak\"\n\
         hash = \"{hash}\"\n[[providers]]\nname = \"mock\"\nbase_url = \"http://127.0.0.1:{provider}/v1\"\n\
         api_key = \"x\"\nmodels = [\"mock-model\"]\n"
    )
}

/// What the program prints when it is called like this. Meanwhile the peers and the way to the database go on.
async fn run(program: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    let running = tokio::task::spawn_blocking(move || command.output());
    let done = running.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    if !done.status.success() {
        return Err(String::from_utf8_lossy(&done.stderr).into_owned());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
