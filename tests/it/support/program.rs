//! The program itself, run as people run it.

use std::io::{Read, Seek, Write};
use std::net::SocketAddr;
use std::process::{Child, Stdio};

use tokio::net::TcpStream;

use super::{Client, PATIENCE, Place};

/// How to start the program: with these variables and no others.
pub struct Program(Vec<(String, String)>);

/// How it ended, and what it printed.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Program {
    /// With everything kept at `place`.
    pub fn at(place: &Place) -> Program {
        Program(place.variables())
    }

    /// With these variables.
    pub fn new(variables: Vec<(String, String)>) -> Program {
        Program(variables)
    }

    /// Without a place for files.
    pub fn nowhere() -> Program {
        Program(Vec::new())
    }

    /// With one more variable.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Program {
        self.0.retain(|(given, _)| given != name);
        self.0.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With a configuration in which people can sign in.
    #[must_use]
    pub fn with_sign_in(&self) -> Program {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/sign_in.toml");
        Program(self.0.clone()).with("TOOLGATE_CONFIG", file)
    }

    /// Runs it to its end.
    pub async fn run(&self, arguments: &[&str]) -> Ended {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_toolgate"));
        command.args(arguments).env_clear().envs(self.0.iter().cloned()).stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("it is waited for");
        let output = output.expect("the program starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ended {
            code: output.status.code().expect("it was not killed"),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }
}

/// The program while it serves. Killed when dropped.
pub struct Running {
    pub client: Client,
    address: SocketAddr,
    child: Child,
}

impl Program {
    /// Runs it as a server at `address`, with this configuration, and waits until it listens.
    pub async fn serve(&self, place: &Place, address: SocketAddr, configuration: &str) -> Running {
        let file = place.folder().join(format!("{}.toml", address.port()));
        std::fs::write(&file, configuration).expect("the configuration can be written");
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_toolgate"));
        command.args(["serve", "--listen", &address.to_string(), "--config"]).arg(file);
        command.env_clear().envs(self.0.iter().cloned());
        let log = std::fs::File::create(place.folder().join(format!("{}.log", address.port()))).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut running = Running {
            client: Client::new(address),
            address,
            child: command.spawn().expect("the program starts"),
        };
        let listening = async {
            while TcpStream::connect(address).await.is_err() {
                let ended = running.child.try_wait().expect("it is our own");
                assert!(ended.is_none(), "it ended: {}", place.log_of(address));
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, listening).await.expect("it listens");
        running
    }
}

impl Running {
    /// Ends it at once, as a crash does (SIGKILL).
    pub fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// Whether it has ended, in whatever way.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is our own").is_some()
    }

    /// Asks it to stop (SIGTERM).
    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Waits until it takes no connections any more.
    pub async fn until_closed(&self) {
        let closing = async {
            while TcpStream::connect(self.address).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, closing).await.expect("the listener closes");
    }

    /// Waits until it has ended by itself, and gives its code.
    pub async fn until_ended(&mut self) -> Option<i32> {
        let ending = async {
            loop {
                if let Some(ended) = self.child.try_wait().expect("it is our own") {
                    return ended.code();
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, ending).await.expect("it ends")
    }

    /// Stops it where it stands (SIGSTOP).
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let done = std::process::Command::new("kill").args([signal, &id]).status();
        assert!(done.expect("there is a `kill`").success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ports below those that the system gives to connections and to whoever asks for any.
const PORTS: std::ops::Range<u16> = 12_000..30_000;

/// An address at which nobody listens, and that no other test gets for a long time: a program may be started there later,
/// or again. The tests are processes that run at the same time, so they take their numbers from a file.
pub fn free_address() -> SocketAddr {
    let path = std::env::temp_dir().join("toolgate-test-ports");
    let mut file = std::fs::OpenOptions::new();
    let mut file =
        file.read(true).write(true).create(true).truncate(false).open(&path).expect("a file of ports");
    file.lock().expect("one test at a time");
    let mut text = String::new();
    file.read_to_string(&mut text).expect("the file is text");
    let mut port: u16 = text.trim().parse().unwrap_or(PORTS.start);
    loop {
        port = if PORTS.contains(&(port + 1)) { port + 1 } else { PORTS.start };
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if std::net::TcpListener::bind(address).is_ok() {
            file.rewind().and_then(|()| file.set_len(0)).expect("the file can be written");
            file.write_all(port.to_string().as_bytes()).expect("the file can be written");
            return address;
        }
    }
}
