//! The soak: honest clients store runs that call a tool while processes are killed and stopped, the disk fills, the
//! database goes away, and strangers flood the gateways. In the end every run that was acknowledged is looked at. It
//! prints figures and fails when one is wrong.

mod clients;
mod disk;
mod fleet;
mod floods;
mod peers;
mod visitor;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clients::{Clients, Journal, Outcome};
use disk::DatabaseGate;
use fleet::Fleet;
use floods::FLOODS;
use peers::Peers;

/// How long a disk stays full and a database away.
const OUTAGE: Duration = Duration::from_secs(8);
/// How long a flood lasts.
const FLOOD: Duration = Duration::from_secs(10);
/// How long after a fault a good answer may take.
const RECOVERY: Duration = Duration::from_secs(30);
/// The most memory that one gateway may ever have in RAM, in bytes.
const MOST_MEMORY: u64 = 300 << 20;
/// Open files and connections that a gateway may have more of in the end than in the beginning.
const MORE_DESCRIPTORS: usize = 40;
/// Rest before the end is measured.
const SETTLING: Duration = Duration::from_secs(12);

/// What a soak is to do.
pub struct Options {
    toolgate: PathBuf,
    postgres: Option<String>,
    minutes: u64,
}

impl Options {
    /// Reads the arguments of the command line.
    pub fn read(arguments: &[&str]) -> Result<Self, String> {
        let (mut toolgate, mut postgres, mut minutes) = (None, None, 20);
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("`{argument}` needs a value"));
            match *argument {
                "--toolgate" => toolgate = Some(PathBuf::from(value()?)),
                "--postgres" => postgres = Some((*value()?).to_owned()),
                number => {
                    minutes = number.parse().map_err(|_| format!("`{number}` is no number of minutes"))?;
                }
            }
        }
        let toolgate = toolgate.ok_or("`--toolgate PROGRAM` is missing")?;
        Ok(Options { toolgate, postgres, minutes: minutes.max(1) })
    }
}

/// Soaks SQLite, and PostgreSQL where one is given, for half of the time each.
pub fn run(options: &Options) -> Result<(), String> {
    let engines = 1 + u64::from(options.postgres.is_some());
    let time = Duration::from_secs(options.minutes * 60 / engines);
    let mut wrong = Vec::new();
    for postgres in std::iter::once(None).chain(options.postgres.as_deref().map(Some)) {
        let engine = if postgres.is_some() { "PostgreSQL" } else { "SQLite" };
        println!("== {engine}, {} s", time.as_secs());
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        let local = tokio::task::LocalSet::new();
        let problems = local.block_on(&runtime, soak(options, postgres, time))?;
        wrong.extend(problems.into_iter().map(|problem| format!("{engine}: {problem}")));
    }
    if wrong.is_empty() {
        println!("nothing was lost, done twice, or kept beyond its bound");
        return Ok(());
    }
    Err(wrong.join("\n       "))
}

/// One fault; gives its name, or `None` where it cannot be made here.
struct Faults {
    gate: Option<DatabaseGate>,
    next: usize,
}

impl Faults {
    /// Makes the next fault, and undoes it.
    async fn happen(&mut self, fleet: &mut Fleet, clients: &Clients) -> Result<&'static str, String> {
        let number = self.next;
        self.next += 1;
        let victim = (number / 4) % fleet.members.len();
        Ok(match number % 4 {
            0 => {
                fleet.kill(victim).await?;
                "a process killed"
            }
            1 => {
                fleet.restart(victim).await?;
                "a process stopped"
            }
            2 => match &self.gate {
                Some(gate) => {
                    gate.close();
                    tokio::time::sleep(OUTAGE).await;
                    gate.open();
                    "the database away"
                }
                None if fleet.disk.is_mounted() => {
                    fleet.disk.fill();
                    tokio::time::sleep(OUTAGE).await;
                    fleet.disk.empty();
                    "the disk full"
                }
                None => "(no disk to fill: this machine lets us mount none)",
            },
            _ => {
                let kind = FLOODS[(number / 4) % FLOODS.len()];
                let port = fleet.members[victim].port;
                floods::flood(kind, port, &clients.key, clients.mcp, FLOOD).await;
                match kind {
                    floods::Flood::ParkedBodies => "a flood of parked bodies",
                    floods::Flood::EndlessArguments => "a flood of endless arguments",
                    floods::Flood::UnreadStreams => "a flood of unread streams",
                    floods::Flood::HalfHeads => "a flood of half requests",
                }
            }
        })
    }
}

async fn soak(options: &Options, postgres: Option<&str>, time: Duration) -> Result<Vec<String>, String> {
    let peers = Peers::start().await?;
    let gate = match postgres {
        Some(url) => Some(DatabaseGate::start(address_of(url)?).await?),
        None => None,
    };
    let url = match (&gate, postgres) {
        (Some(gate), Some(url)) => Some(through(url, gate.port)?),
        _ => None,
    };
    let mut fleet = Fleet::start(&options.toolgate, (peers.provider, peers.mcp), url.as_deref()).await?;
    let clients = Rc::new(Clients {
        ports: fleet.members.iter().map(|member| member.port).collect(),
        key: fleet.key.clone(),
        mcp: peers.mcp,
        journal: Rc::new(RefCell::new(Journal::default())),
        is_over: Rc::new(Cell::new(false)),
    });
    let mut problems = Vec::new();
    clients.recovery("the start", RECOVERY).await?;
    let descriptors_before = fleet.descriptors();
    let visiting = clients.start();
    let (started, mut faults, mut slowest) = (Instant::now(), Faults { gate, next: 0 }, Duration::ZERO);
    let mut said = std::collections::BTreeMap::<&str, (usize, Duration)>::new();
    while started.elapsed() < time {
        let name = faults.happen(&mut fleet, &clients).await?;
        match clients.recovery(name, RECOVERY).await {
            Ok(took) => {
                slowest = slowest.max(took);
                let entry = said.entry(name).or_default();
                *entry = (entry.0 + 1, entry.1.max(took));
            }
            Err(problem) => problems.push(problem),
        }
        fleet.note_memory();
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    clients.is_over.set(true);
    for client in visiting {
        // One that hangs is seen among the figures.
        let _ = tokio::time::timeout(Duration::from_secs(120), client).await;
    }
    let outcome = clients.outcome(&peers.ledger).await;
    tokio::time::sleep(SETTLING).await;
    fleet.note_memory();
    for (name, (times, took)) in &said {
        println!("   {times} × {name}: a good answer after {:.1} s at most", took.as_secs_f64());
    }
    let end = End {
        peak: fleet.peak_memory,
        last: fleet.memory(),
        descriptors: (descriptors_before, fleet.descriptors()),
        panics: fleet.panics(),
        is_ready: fleet.is_ready().await,
    };
    problems.extend(judge(&outcome, &end));
    let folder = fleet.close(!problems.is_empty());
    for line in &outcome.examples {
        println!("   {line}");
    }
    if !problems.is_empty() {
        println!("   the logs are in {}", folder.display());
    }
    Ok(problems)
}

/// How the gateways were left.
struct End {
    /// Bytes.
    peak: u64,
    /// Bytes.
    last: u64,
    /// In the beginning, in the end.
    descriptors: (usize, usize),
    panics: usize,
    is_ready: bool,
}

/// Prints every figure, and gives those that are wrong.
fn judge(outcome: &Outcome, end: &End) -> Vec<String> {
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    println!(
        "   runs: {} acknowledged, {} of them completed; {} refused; {} requests without an answer",
        outcome.acknowledged, outcome.completed, outcome.refused, outcome.unanswered
    );
    let none = |name: &str, count: usize| (name.to_owned(), count.to_string(), count == 0);
    let (before, after) = end.descriptors;
    let figures = [
        none("lost", outcome.lost),
        none("executed twice", outcome.twice),
        none("refused and carried out", outcome.refused_and_done),
        none("with gaps", outcome.gaps),
        none("followed and changed", outcome.changed),
        none("panics", end.panics),
        ("peak memory".to_owned(), mib(end.peak), end.peak <= MOST_MEMORY),
        ("memory in the end".to_owned(), mib(end.last), end.last <= MOST_MEMORY),
        ("descriptors".to_owned(), format!("{before}, then {after}"), after <= before + MORE_DESCRIPTORS),
        ("ready in the end".to_owned(), end.is_ready.to_string(), end.is_ready),
        ("completed".to_owned(), outcome.completed.to_string(), outcome.completed > 0),
    ];
    let mut wrong = Vec::new();
    for (name, value, is_right) in figures {
        println!("   {} {name}: {value}", if is_right { "ok  " } else { "BAD " });
        if !is_right {
            wrong.push(format!("{name}: {value}"));
        }
    }
    wrong
}

/// Host and port of `postgres://…`.
fn address_of(url: &str) -> Result<SocketAddr, String> {
    let (_, place) = split(url)?;
    place.parse().map_err(|_| format!("`{place}` is no address with a port"))
}

/// The same database through a port of this machine.
fn through(url: &str, port: u16) -> Result<String, String> {
    let (before, place) = split(url)?;
    let after = &url[before.len() + place.len()..];
    Ok(format!("{before}127.0.0.1:{port}{after}"))
}

/// What stands before host and port, and those.
fn split(url: &str) -> Result<(&str, &str), String> {
    let begin = url.find("://").map(|at| at + 3).ok_or("no address of a database")?;
    let rest = &url[begin..];
    let end = rest.find('/').unwrap_or(rest.len());
    let host = rest[..end].rfind('@').map_or(0, |at| at + 1);
    Ok((&url[..begin + host], &rest[host..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_is_asked_through_the_gate() {
        let url = "postgres://me@127.0.0.1:5432/soak?x=1";
        assert_eq!(address_of(url).unwrap().port(), 5432);
        assert_eq!(through(url, 7).unwrap(), "postgres://me@127.0.0.1:7/soak?x=1");
    }

    #[test]
    fn each_wrong_figure_is_named() {
        let good = Outcome { acknowledged: 1, completed: 1, ..Outcome::default() };
        let end = |peak| End { peak, last: 1, descriptors: (10, 12), panics: 0, is_ready: true };
        assert!(judge(&good, &end(1)).is_empty());
        assert_eq!(judge(&good, &end(MOST_MEMORY + 1)).len(), 1);
        for bad in [
            Outcome { lost: 1, completed: 1, ..Outcome::default() },
            Outcome { twice: 1, completed: 1, ..Outcome::default() },
            Outcome { refused_and_done: 1, completed: 1, ..Outcome::default() },
            Outcome { gaps: 1, completed: 1, ..Outcome::default() },
            Outcome { changed: 1, completed: 1, ..Outcome::default() },
            Outcome::default(),
        ] {
            assert_eq!(judge(&bad, &end(1)).len(), 1, "{bad:?}");
        }
    }
}
