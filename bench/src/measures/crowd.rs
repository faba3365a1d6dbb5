//! A thousand runs at the pace of a model: whether the journal keeps up with them.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::Method;
use memchr::memmem;
use serde_json::json;

use super::journal::question;
use super::request::PATH;
use super::{Options, median, per};
use crate::load::{Connection, percentile};
use crate::process::Process;
use crate::report::{Report, Table, short};
use crate::stand::Stand;

const RUNS: usize = 1000;
/// Chunks of each run, and milliseconds between them: 20 a second for 20 seconds.
const CHUNKS: usize = 400;
const PACE_MS: usize = 50;
/// Every so many runs, one is watched event by event.
const WATCHED: usize = 20;
/// What each chunk has, as live viewers see it, and those who read what is in the store.
const MARK: &[u8] = b"\"content\":\"x";

/// One way to carry the runs out.
struct Case<'a> {
    name: &'static str,
    data: &'a str,
    postgres: Option<&'a str>,
    stored: bool,
}

/// When each chunk of a run was seen.
#[derive(Default)]
struct Seen {
    live: Vec<Instant>,
    durable: Vec<Instant>,
}

struct Measured {
    /// Sorted times from an event to its being in the store.
    lag: Vec<Duration>,
    cpu_per_chunk: f64,
    cpu_share: f64,
    rss: u64,
    seconds: f64,
}

pub async fn measure(options: &Options, stand: &Stand, report: &mut Report) -> Result<(), String> {
    let mut cases = vec![
        Case { name: "not kept", data: "crowd-none", postgres: None, stored: false },
        Case { name: "SQLite", data: "crowd-sqlite", postgres: None, stored: true },
    ];
    if let Some(url) = options.postgres.as_deref() {
        cases.push(Case { name: "PostgreSQL", data: "crowd-postgres", postgres: Some(url), stored: true });
    }
    let count = options.count(RUNS);
    let mut rows = Vec::new();
    for case in &cases {
        let (process, port) = stand.start_toolgate_on(case.data, case.postgres).await?;
        let found = crowd(&process, port, count, case.stored).await?;
        let lag = |percent| percentile(&found.lag, percent) / 1000.0;
        if case.stored {
            let title = format!("{count} stored runs of 20 chunks/s, {}: event to store, p99", case.name);
            report.at_most(title, lag(99), 500.0, " ms");
        }
        let lags = if case.stored {
            [short(lag(50)), short(lag(99)), short(lag(100))]
        } else {
            ["–"; 3].map(str::to_owned)
        };
        let mut row = vec![case.name.to_owned()];
        row.extend(lags);
        row.extend([
            short(found.cpu_per_chunk),
            short(100.0 * found.cpu_share),
            short(found.rss as f64 / (1 << 20) as f64),
            short(found.seconds),
        ]);
        rows.push(row);
    }
    report.table(Table {
        title: format!("{count} runs at once, {CHUNKS} chunks each, one every {PACE_MS} ms"),
        head: vec![
            "kept in",
            "event to store p50 ms",
            "p99 ms",
            "max ms",
            "CPU per chunk µs",
            "% of a core",
            "RSS MiB",
            "seconds",
        ],
        rows,
    });
    Ok(())
}

async fn crowd(process: &Process, port: u16, count: usize, stored: bool) -> Result<Measured, String> {
    let wish = json!({"chunks": CHUNKS, "delay_ms": PACE_MS, "bytes": 16});
    let body = question(&wish, &json!({"store": stored}));
    let (started, before) = (Instant::now(), process.cpu());
    let mut runs = Vec::new();
    let mut watched = Vec::new();
    for number in 0..count {
        let seen = (stored && number % WATCHED == 0).then(|| Rc::new(RefCell::new(Seen::default())));
        watched.extend(seen.clone());
        runs.push(tokio::task::spawn_local(run(port, body.clone(), seen)));
        // Not a crowd at the door.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_millis((CHUNKS * PACE_MS / 2) as u64)).await;
    let (_, rss) = process.memory();
    let mut seconds = Vec::new();
    for run in runs {
        seconds.push(run.await.map_err(|error| error.to_string())??.as_secs_f64());
    }
    let (elapsed, cpu) = (started.elapsed(), process.cpu() - before);
    let mut lag = Vec::new();
    for seen in &watched {
        let seen = seen.borrow();
        if seen.live.len() != CHUNKS || seen.durable.len() != CHUNKS {
            let (live, durable) = (seen.live.len(), seen.durable.len());
            return Err(format!("of {CHUNKS} chunks {live} were seen live and {durable} in the store"));
        }
        lag.extend(seen.live.iter().zip(&seen.durable).map(|(live, there)| there.duration_since(*live)));
    }
    lag.sort_unstable();
    Ok(Measured {
        lag,
        cpu_per_chunk: per(cpu, count * CHUNKS),
        cpu_share: cpu.as_secs_f64() / elapsed.as_secs_f64(),
        rss,
        seconds: median(&seconds),
    })
}

/// One run to its end, and, when it is watched, what the store has of it; how long it took.
async fn run(port: u16, body: Bytes, seen: Option<Rc<RefCell<Seen>>>) -> Result<Duration, String> {
    let started = Instant::now();
    let mut connection = Connection::open(port).await?;
    let mut follower = None;
    let (mut marks, mut end) = (Finder::new(MARK), Finder::new(b"[DONE]"));
    let mut is_over = false;
    connection
        .read(
            Method::POST,
            PATH,
            body,
            |head| {
                let id = head.get("x-run-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
                let seen = seen.clone();
                follower = seen.map(|seen| tokio::task::spawn_local(follow(port, id.to_owned(), seen)));
            },
            |data| {
                let found = marks.count(data);
                is_over |= end.count(data) > 0;
                if let Some(seen) = &seen {
                    seen.borrow_mut().live.extend(std::iter::repeat_n(Instant::now(), found));
                }
            },
        )
        .await?;
    let took = started.elapsed();
    if !is_over {
        return Err("a run did not come to its end".to_owned());
    }
    if let Some(follower) = follower {
        follower.await.map_err(|error| error.to_string())??;
    }
    Ok(took)
}

async fn follow(port: u16, id: String, seen: Rc<RefCell<Seen>>) -> Result<(), String> {
    let mut connection = Connection::open(port).await?;
    let mut marks = Finder::new(MARK);
    let path = format!("/v1/runs/{id}/events");
    let on_data = |data: &[u8]| {
        let found = marks.count(data);
        seen.borrow_mut().durable.extend(std::iter::repeat_n(Instant::now(), found));
    };
    connection.read(Method::GET, &path, Bytes::new(), |_| {}, on_data).await.map(drop)
}

/// Counts a word in a text that comes in pieces.
struct Finder {
    word: &'static [u8],
    /// The end of the text so far, too short for the word.
    tail: Vec<u8>,
}

impl Finder {
    fn new(word: &'static [u8]) -> Self {
        Finder { word, tail: Vec::new() }
    }

    fn count(&mut self, data: &[u8]) -> usize {
        self.tail.extend_from_slice(data);
        let count = memmem::find_iter(&self.tail, self.word).count();
        let keep = self.tail.len().min(self.word.len() - 1);
        self.tail.drain(..self.tail.len() - keep);
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_counted_once_wherever_the_pieces_begin() {
        let text = b"..\"content\":\"xx..\"content\":\"x";
        for size in 1..text.len() {
            let mut finder = Finder::new(MARK);
            let count: usize = text.chunks(size).map(|piece| finder.count(piece)).sum();
            assert_eq!(count, 2, "pieces of {size}");
        }
    }
}
