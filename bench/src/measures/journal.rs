//! What it costs to keep a run: the same request with `store` and without, and one answer for many who ask at once.

use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};

use super::request::{Ask, PATH};
use super::{Options, median, per};
use crate::load::{self, Connection, Shot, percentile};
use crate::report::{Report, Table, short};
use crate::stand::Stand;

/// Chunks, concurrency, streams per repetition.
const LOADS: &[(usize, usize, usize)] = &[(50, 4, 120), (1000, 8, 16)];
/// Requests that are sent at the same time.
const AT_ONCE: usize = 100;

/// A question whose answer is streamed as `wish` says; `more` is added to the request.
pub fn question(wish: &Value, more: &Value) -> Bytes {
    let mut body = json!({
        "model": "mock/mock-model", "messages": Ask::plain("").messages(), "stream": true, "x_bench": wish,
        // With an option of the gateway's it is a run in any case, so that only its keeping differs.
        "toolgate": {"max_turns": 5},
    });
    if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
        body.extend(more.clone());
    }
    Bytes::from(body.to_string())
}

/// The same, to be sent many times.
pub fn shot(wish: &Value, more: &Value) -> Shot {
    Shot { path: PATH.to_owned(), body: question(wish, more), expect: "\"finish_reason\":\"stop\"" }
}

#[derive(Default)]
struct Numbers {
    first: Vec<f64>,
    first_p99: Vec<f64>,
    cpu: Vec<f64>,
}

pub async fn measure(options: &Options, stand: &Stand, report: &mut Report) -> Result<(), String> {
    let (process, port) = stand.start_toolgate_on("journal", None).await?;
    let mut rows = Vec::new();
    for (chunks, concurrency, count) in LOADS {
        let count = options.count(*count).max(*concurrency);
        let wish = json!({"chunks": chunks, "delay_ms": 1, "bytes": 16});
        let mut numbers = [Numbers::default(), Numbers::default()];
        for _ in 0..options.repetitions() {
            for (stored, numbers) in [false, true].into_iter().zip(&mut numbers) {
                let more = json!({"store": stored});
                load::fire(port, &shot(&json!({"chunks": 2}), &more), 50, *concurrency).await?;
                settle().await;
                let before = process.cpu();
                let times = load::fire(port, &shot(&wish, &more), count, *concurrency).await?;
                settle().await;
                numbers.cpu.push(per(process.cpu() - before, count));
                numbers.first.push(percentile(&times.first, 50));
                numbers.first_p99.push(percentile(&times.first, 99));
            }
        }
        let [without, with] = &numbers;
        for (name, numbers) in [("not kept", without), ("stored", with)] {
            let cpu = median(&numbers.cpu);
            rows.push(vec![
                chunks.to_string(),
                name.to_owned(),
                short(median(&numbers.first)),
                short(median(&numbers.first_p99)),
                short(cpu),
                short(cpu / *chunks as f64),
            ]);
        }
        let added = 100.0 * (median(&with.cpu) / median(&without.cpu) - 1.0);
        report.at_most(format!("{chunks}-chunk stream, stored: added CPU per chunk"), added, 10.0, " %");
        let first = (median(&with.first) - median(&without.first)) / 1000.0;
        report.at_most(format!("{chunks}-chunk stream, stored: added to first token"), first, 5.0, " ms");
    }
    report.table(Table {
        title: "Stored streams, a chunk each millisecond".into(),
        head: vec![
            "chunks",
            "run",
            "first token p50 µs",
            "first token p99 µs",
            "CPU per stream µs",
            "CPU per chunk µs",
        ],
        rows,
    });
    cached(stand, port, report).await
}

/// What was begun is ended, also what nobody waits for.
async fn settle() {
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
}

/// Many who ask the same at once.
async fn cached(stand: &Stand, port: u16, report: &mut Report) -> Result<(), String> {
    let wish = json!({"chunks": 20, "delay_ms": 10, "bytes": 16});
    let more = json!({"toolgate": {"cache_seconds": 60}});
    let before = provider_calls(stand).await?;
    load::fire(port, &shot(&wish, &more), AT_ONCE, AT_ONCE).await?;
    let calls = provider_calls(stand).await? - before;
    let title = format!("{AT_ONCE} simultaneous identical cached requests: provider calls");
    report.at_most(title, calls as f64, 1.0, "");
    Ok(())
}

async fn provider_calls(stand: &Stand) -> Result<u64, String> {
    let answer = Connection::open(stand.provider).await?.send(Method::GET, "/", Bytes::new()).await?;
    String::from_utf8_lossy(&answer.body).parse().map_err(|_| "the provider does not count".to_owned())
}
