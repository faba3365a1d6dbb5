//! The processes under measurement: starting them on their cores, what they cost, ending them.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A started program; ended when dropped.
pub struct Process {
    child: Child,
    name: &'static str,
}

/// Which cores a process may use. With more than one core the proxy under measurement has the last one to itself.
#[derive(Clone, Copy)]
pub enum Cores {
    Peers,
    Proxy,
}

impl Cores {
    fn list(self) -> Option<String> {
        let count = cores();
        match self {
            _ if count < 2 => None,
            Cores::Peers => Some(format!("0-{}", count - 2)),
            Cores::Proxy => Some(format!("{}", count - 1)),
        }
    }
}

/// Cores of the machine; asked once, since a pinned process only sees its own.
pub fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// Puts the calling process on the cores of the peers.
pub fn pin_self() {
    if let Some(list) = Cores::Peers.list() {
        // Without `taskset` everything shares all cores: noisier, not wrong.
        let _ = Command::new("taskset")
            .args(["-a", "-p", "-c", &list, &std::process::id().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

impl Process {
    /// Starts `program` on its cores; what it prints goes to `log`.
    pub fn start(
        name: &'static str,
        cores: Option<String>,
        program: &Path,
        arguments: &[&str],
        log: &Path,
    ) -> Result<Self, String> {
        let file = fs::File::create(log).map_err(|error| format!("{}: {error}", log.display()))?;
        let other = file.try_clone().map_err(|error| error.to_string())?;
        let mut words: Vec<String> = Vec::new();
        if exists("setpriv") {
            // A harness that is ended from outside leaves nothing behind.
            words.extend(["setpriv", "--pdeathsig", "TERM"].map(str::to_owned));
        }
        if let Some(list) = cores {
            words.extend(["taskset".to_owned(), "-c".to_owned(), list]);
        }
        words.push(program.to_string_lossy().into_owned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        let child = command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(other)
            .spawn()
            .map_err(|error| format!("cannot start {name} ({}): {error}", program.display()))?;
        Ok(Process { child, name })
    }

    /// Its process and all below it.
    fn tree(&self) -> Vec<u32> {
        let mut all = vec![self.child.id()];
        let mut next = 0;
        while next < all.len() {
            let path = format!("/proc/{0}/task/{0}/children", all[next]);
            let children = fs::read_to_string(path).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
            next += 1;
        }
        all
    }

    /// Time on a processor so far, of all its threads and children.
    pub fn cpu(&self) -> Duration {
        let nanoseconds = self.tree().iter().flat_map(|id| threads(*id)).sum();
        Duration::from_nanos(nanoseconds)
    }

    /// Bytes of memory that are in RAM: (shared pages in proportion, all pages).
    pub fn memory(&self) -> (u64, u64) {
        self.tree().iter().fold((0, 0), |(pss, rss), id| {
            let text = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).unwrap_or_default();
            let kib = |name: &str| -> u64 {
                let line = text.lines().find(|line| line.starts_with(name));
                line.and_then(|line| line.split_whitespace().nth(1)).and_then(|n| n.parse().ok()).unwrap_or(0)
            };
            (pss + 1024 * kib("Pss:"), rss + 1024 * kib("Rss:"))
        })
    }

    /// The most memory that it ever had in RAM at once, in bytes (`VmHWM`); 0 once it has ended.
    pub fn peak_memory(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib =
            line.and_then(|line| line.split_whitespace().next()).and_then(|kib| kib.parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    }

    /// Files and connections that it has open.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).map_or(0, Iterator::count)
    }

    /// Asks it to stop (SIGTERM), and waits until it has.
    ///
    /// # Errors
    /// When it still runs after `limit`.
    pub fn stop(mut self, limit: Duration) -> Result<(), String> {
        let id = self.child.id().to_string();
        // If there is no `kill`, it does not stop in time.
        let _ = Command::new("kill").args(["-TERM", &id]).stderr(Stdio::null()).status();
        let deadline = Instant::now() + limit;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                return Err(format!("{} did not stop in {} s", self.name, limit.as_secs()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Ends it at once, as a crash does (SIGKILL).
    pub fn kill(mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Whether it still runs; what it said last, if not.
    pub fn check(&mut self, log: &Path) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            _ => {
                let text = fs::read_to_string(log).unwrap_or_default();
                Err(format!("{} ended: {}", self.name, text.lines().last().unwrap_or("without a word")))
            }
        }
    }
}

/// Nanoseconds on a processor of each thread (the first number of `schedstat`).
fn threads(process: u32) -> Vec<u64> {
    let Ok(folder) = fs::read_dir(format!("/proc/{process}/task")) else { return Vec::new() };
    folder
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next().and_then(|number| number.parse().ok()))
        .collect()
}

impl Drop for Process {
    fn drop(&mut self) {
        let id = self.child.id().to_string();
        let asked = Command::new("kill").args(["-TERM", &id]).stderr(Stdio::null()).status();
        let deadline = Instant::now() + Duration::from_secs(3);
        while asked.is_ok() && Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Cores {
    /// The cores as `taskset` takes them, when there is a `taskset` and something to divide.
    pub fn available(self) -> Option<String> {
        exists("taskset").then(|| self.list()).flatten()
    }
}

fn exists(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}
