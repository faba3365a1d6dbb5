//! What kept runs are like later: how fast a long one is read again, what they take on the disk, and what a task that
//! waits takes in memory.

use std::fs;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::Method;
use memchr::memmem;
use serde_json::{Value, json};

use super::journal::{question, shot};
use super::request::{PATH, mcp_tools};
use super::{Options, median};
use crate::load::{self, Connection};
use crate::process::Process;
use crate::report::{Report, Table, short};
use crate::stand::Stand;

const EVENTS: usize = 10_000;
const RUNS: usize = 500;
const TASKS: usize = 5000;
/// Requests for tasks at the same time.
const ASKING: usize = 16;

pub async fn measure(options: &Options, stand: &Stand, report: &mut Report) -> Result<(), String> {
    let mut rows = Vec::new();
    again(options, stand, report, &mut rows).await?;
    sizes(options, stand, report, &mut rows).await?;
    waiting(options, stand, report, &mut rows).await?;
    report.table(Table { title: "Results".into(), head: vec!["what", "value"], rows });
    Ok(())
}

/// Milliseconds until the last event of a finished run is there.
async fn read_all(port: u16, id: &str) -> Result<f64, String> {
    let path = format!("/v1/runs/{id}/events");
    let answer = Connection::open(port).await?.send(Method::GET, &path, Bytes::new()).await?;
    let events = memmem::find_iter(&answer.body, b"\nevent: delta\n").count();
    if events < EVENTS || memmem::find(&answer.body, b"\nevent: finish\n").is_none() {
        return Err(format!("{events} of {EVENTS} chunks came back"));
    }
    Ok(answer.total.as_secs_f64() * 1000.0)
}

/// A run of many events, read by the process that carried it out, and by one that never saw it.
async fn again(
    options: &Options,
    stand: &Stand,
    report: &mut Report,
    rows: &mut Vec<Vec<String>>,
) -> Result<(), String> {
    let (mut process, mut port) = stand.start_toolgate_on("again", None).await?;
    let wish = json!({"chunks": EVENTS, "bytes": 16});
    let mut id = String::new();
    let on_head = |head: &hyper::HeaderMap| {
        id = head.get("x-run-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    };
    let body = question(&wish, &json!({"store": true}));
    Connection::open(port).await?.read(Method::POST, PATH, body, on_head, |_| {}).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (mut warm, mut cold) = (Vec::new(), Vec::new());
    for _ in 0..options.repetitions() {
        for _ in 0..5 {
            warm.push(read_all(port, &id).await?);
        }
        drop(process);
        (process, port) = stand.start_toolgate_on("again", None).await?;
        cold.push(read_all(port, &id).await?);
    }
    for (name, times) in [("warm", &warm), ("the process just started", &cold)] {
        let title = format!("re-attach to a finished run of {EVENTS} events, {name}: to the last event");
        report.at_most(title, median(times), 50.0, " ms");
        let slowest = times.iter().copied().fold(0.0, f64::max);
        rows.push(vec![format!("ms to read {EVENTS} events again, {name}, slowest"), short(slowest)]);
    }
    Ok(())
}

/// Bytes that the gateway's database takes; it has ended, so that all is in its place.
fn database(stand: &Stand, name: &str) -> Result<u64, String> {
    let files = fs::read_dir(stand.data(name)).map_err(|error| error.to_string())?;
    let databases = files.flatten().filter(|file| file.file_name().to_string_lossy().contains(".db"));
    Ok(databases.filter_map(|file| file.metadata().ok()).map(|about| about.len()).sum())
}

/// Bytes on the disk of each run.
async fn sizes(
    options: &Options,
    stand: &Stand,
    report: &mut Report,
    rows: &mut Vec<Vec<String>>,
) -> Result<(), String> {
    let count = options.count(RUNS).max(100);
    let text = shot(&json!({"chunks": 20, "delay_ms": 10, "bytes": 16}), &json!({"store": true}));
    let wish = json!({"chunks": 20, "delay_ms": 1, "bytes": 16, "turns": 1});
    let tool = shot(&wish, &json!({"store": true, "tools": mcp_tools(stand.mcp, 1, 1)}));
    for (name, what, shot) in
        [("sizes-text", "20-chunk text", text), ("sizes-tool", "one tool call, 20 chunks", tool)]
    {
        let mut sizes = Vec::new();
        for _ in 0..2 {
            let (process, port) = stand.start_toolgate_on(name, None).await?;
            load::fire(port, &shot, count, 8).await?;
            tokio::time::sleep(Duration::from_secs(2)).await;
            drop(process);
            sizes.push(database(stand, name)?);
        }
        let each = sizes[1].saturating_sub(sizes[0]) as f64 / count as f64 / 1024.0;
        report.note(
            format!("database per stored run: {what}, question of 1 KB"),
            format!("{} KiB", short(each)),
        );
        rows.push(vec![format!("KiB of database per stored run, {what}"), short(each)]);
    }
    Ok(())
}

/// Memory of tasks that wait for a login.
async fn waiting(
    options: &Options,
    stand: &Stand,
    report: &mut Report,
    rows: &mut Vec<Vec<String>>,
) -> Result<(), String> {
    let (process, port) = stand.start_toolgate_on("waiting", None).await?;
    let count = options.count(TASKS);
    tasks(stand, port, "warm", 64).await?;
    let before = memory(&process).await;
    let started = Instant::now();
    tasks(stand, port, "user", count).await?;
    let took = started.elapsed().as_secs_f64();
    let kib = (memory(&process).await as f64 - before as f64) / 1024.0 / count as f64;
    report.note(format!("memory per waiting task, {count} waiting"), format!("{} KiB", short(kib)));
    rows.push(vec!["KiB per waiting task (PSS)".into(), short(kib)]);
    rows.push(vec!["tasks begun per second that wait for a login".into(), short(count as f64 / took)]);
    Ok(())
}

async fn memory(process: &Process) -> u64 {
    tokio::time::sleep(Duration::from_secs(3)).await;
    process.memory().0
}

/// Begins tasks of so many users, and returns when all of them wait.
async fn tasks(stand: &Stand, port: u16, name: &'static str, count: usize) -> Result<(), String> {
    let server = json!({
        "type": "mcp", "server_url": format!("http://127.0.0.1:{}/mcp/0/t/1", stand.protected),
        "server_label": "bencht", "require_approval": "never",
    });
    let workers = (0..ASKING).map(|worker| {
        let server = server.clone();
        tokio::task::spawn_local(async move {
            let mut connection = Connection::open(port).await?;
            for number in (worker..count).step_by(ASKING) {
                let more =
                    json!({"tools": [server.clone()], "user": format!("{name}{number}"), "toolgate": {}});
                let body = question(&json!({"chunks": 1, "turns": 1}), &more);
                let answer = connection.send(Method::POST, "/v1/tasks", body).await?;
                let task: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
                let path = format!("/v1/runs/{}", task["id"].as_str().unwrap_or_default());
                let deadline = Instant::now() + Duration::from_secs(30);
                loop {
                    let answer = connection.send(Method::GET, &path, Bytes::new()).await?;
                    if memmem::find(&answer.body, b"\"requires_action\"").is_some() {
                        break;
                    }
                    if Instant::now() > deadline {
                        return Err(format!("no task waits: {}", String::from_utf8_lossy(&answer.body)));
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            Ok::<(), String>(())
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.map_err(|error| error.to_string())??;
    }
    Ok(())
}
