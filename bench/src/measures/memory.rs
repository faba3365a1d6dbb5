//! Memory of open streams: a thousand slow ones at once, in fresh processes.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::request::{Ask, mcp_tools};
use super::{Options, median};
use crate::load::{self, Shot, SlowStream};
use crate::report::{Report, Table, short};
use crate::stand::Stand;

const STREAMS: usize = 1000;

/// A chunk every two seconds, for longer than the measurement takes.
fn slow() -> serde_json::Value {
    json!({"chunks": 30, "delay_ms": 2000, "bytes": 16})
}

pub async fn measure(options: &Options, report: &mut Report) -> Result<(), String> {
    let repetitions = options.repetitions().min(3);
    let mut names: Vec<&'static str> = Vec::new();
    let mut results: Vec<Vec<f64>> = Vec::new();
    for _ in 0..repetitions {
        let stand = Stand::build(options.toolgate.as_deref()).await?;
        let mut cases: Vec<(&'static str, &str, Ask)> = Vec::new();
        for name in ["nginx", "bare proxy", "toolgate"] {
            if let Some(way) = stand.way(name) {
                cases.push((name, name, Ask { stream: true, wish: slow(), ..Ask::plain(way.model) }));
            }
        }
        for (name, way, ask) in cases {
            let kib = streams(&stand, way, &ask).await?;
            note(&mut names, &mut results, name, kib);
        }
        if options.toolgate.is_some() {
            // A gateway of its own: what the relayed streams left behind would hide what these need.
            let fresh = Stand::build(options.toolgate.as_deref()).await?;
            let tools = Some(mcp_tools(fresh.mcp, 1, 1));
            let ask = Ask { stream: true, wish: slow(), tools, ..Ask::plain("mock/mock-model") };
            let kib = streams(&fresh, "toolgate", &ask).await?;
            note(&mut names, &mut results, "toolgate, with MCP tools", kib);
        }
    }
    let medians: Vec<f64> = results.iter().map(|values| median(values)).collect();
    for (name, kib) in names.iter().zip(&medians) {
        match *name {
            "toolgate" => report.at_most("memory per open stream, 1,000 open", *kib, 32.0, " KiB"),
            name => report.note(format!("memory per open stream: {name}"), format!("{} KiB", short(*kib))),
        }
    }
    report.table(Table {
        title: "Memory of 1,000 slow streams".into(),
        head: vec!["way", "KiB per stream (PSS)"],
        rows: names.iter().zip(&medians).map(|(name, kib)| vec![(*name).to_owned(), short(*kib)]).collect(),
    });
    Ok(())
}

fn note(names: &mut Vec<&'static str>, results: &mut Vec<Vec<f64>>, name: &'static str, value: f64) {
    match names.iter().position(|known| *known == name) {
        Some(index) => results[index].push(value),
        None => {
            names.push(name);
            results.push(vec![value]);
        }
    }
}

/// KiB of memory that each of a thousand open streams adds to the proxy.
async fn streams(stand: &Stand, way: &str, ask: &Ask) -> Result<f64, String> {
    let way = stand.way(way).ok_or("no such way")?;
    let process = &stand.proxies[way.process.ok_or("the direct way has no memory")?];
    let quick = Ask { wish: json!({"chunks": 2}), ..ask.clone() };
    load::fire(way.port, &quick.shot(), 200, 4).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (before, _) = process.memory();

    let shot: Shot = ask.shot();
    let arrived = Rc::new(Cell::new(0));
    let streams: Vec<SlowStream> =
        (0..STREAMS).map(|_| SlowStream::open(way.port, shot.clone(), arrived.clone())).collect();
    let deadline = Instant::now() + Duration::from_secs(30);
    while arrived.get() < STREAMS {
        if Instant::now() > deadline || streams.iter().any(SlowStream::is_over) {
            return Err(format!("{}: only {} of {STREAMS} streams opened", way.name, arrived.get()));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (during, _) = process.memory();
    drop(streams);
    Ok((during as f64 - before as f64) / 1024.0 / STREAMS as f64)
}
