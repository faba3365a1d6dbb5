//! Cost as work grows: ten times the work may take ten times as long, not a hundred times.

use super::request::{Ask, function_tools, mcp_tools};
use super::turns::{compare, turn};
use super::{Options, median, per};
use crate::load::{self, percentile};
use crate::report::{Report, Table, short};
use crate::stand::Stand;

/// How much more than the work the cost may grow before it is called more than linear.
const SLACK: f64 = 1.5;

pub async fn measure(options: &Options, stand: &Stand, report: &mut Report) -> Result<(), String> {
    let mut rows = Vec::new();

    let mut costs = Vec::new();
    for (bytes, count) in [(1_000, 500), (10_000, 500), (100_000, 200), (1_000_000, 40)] {
        for (name, added, cpu) in plain(options, stand, bytes, count).await? {
            rows.push(vec![
                format!("plain, bytes of messages: {name}"),
                bytes.to_string(),
                short(added),
                short(cpu),
            ]);
            if name == "toolgate" {
                costs.push(cpu);
            }
        }
    }
    grows(report, "plain completion, message 100 KB → 1 MB: CPU", costs[2], costs[3], 10.0);

    let mut costs = Vec::new();
    for (bytes, count) in [(1_000, 200), (10_000, 200), (100_000, 100), (1_000_000, 20)] {
        let through = Ask { message_bytes: bytes, ..turn(1, 1, mcp_tools(stand.mcp, 1, 1)) };
        let own = Ask { message_bytes: bytes, ..turn(1, 1, function_tools(1, 1)) };
        let (with, without, _) = compare(options, stand, &through, &own, 1, count).await?;
        rows.push(vec![
            "tool turn, bytes of messages".into(),
            bytes.to_string(),
            short(with - without),
            "–".into(),
        ]);
        costs.push(with - without);
    }
    grows(report, "tool turn, message 100 KB → 1 MB: what is added", costs[2], costs[3], 10.0);

    let mut costs = Vec::new();
    for (tools, count) in [(1, 200), (10, 200), (100, 100), (1000, 20)] {
        let through = turn(1, 1, mcp_tools(stand.mcp, 1, tools));
        let own = turn(1, 1, function_tools(1, tools));
        let (with, without, _) = compare(options, stand, &through, &own, 1, count).await?;
        rows.push(vec!["tool turn, tools".into(), tools.to_string(), short(with - without), "–".into()]);
        costs.push(with - without);
    }
    grows(report, "tool turn, tools 100 → 1,000: what is added", costs[2], costs[3], 10.0);

    let mut costs = Vec::new();
    for (turns, count) in [(1, 200), (5, 80), (10, 40), (50, 10)] {
        let through = turn(turns, 1, mcp_tools(stand.mcp, 1, 1));
        let own = turn(turns, 1, function_tools(1, 1));
        let (with, without, _) = compare(options, stand, &through, &own, turns, count).await?;
        rows.push(vec!["turns".into(), turns.to_string(), short(with - without), "–".into()]);
        costs.push(with - without);
    }
    grows(report, "turns 10 → 50: what is added", costs[2], costs[3], 5.0);

    report.table(Table {
        title: "Cost as work grows".into(),
        head: vec!["what grows", "to", "added p50 µs", "CPU µs"],
        rows,
    });
    Ok(())
}

fn grows(report: &mut Report, what: &str, from: f64, to: f64, work: f64) {
    // A cost too small to measure has not grown.
    let growth = to / from.max(20.0);
    report.at_most(format!("{what}: growth"), growth, work * SLACK, " ×");
}

/// For each proxy: added median and time on a processor, in microseconds, of a plain completion with a message of
/// this size.
async fn plain(
    options: &Options,
    stand: &Stand,
    bytes: usize,
    count: usize,
) -> Result<Vec<(&'static str, f64, f64)>, String> {
    let count = options.count(count);
    let ways: Vec<_> = stand.ways.iter().filter(|way| way.model == "mock-model").collect();
    let mut numbers: Vec<(Vec<f64>, Vec<f64>)> = ways.iter().map(|_| Default::default()).collect();
    for _ in 0..options.repetitions() {
        for (way, (times, cpu)) in ways.iter().zip(&mut numbers) {
            let shot = Ask { message_bytes: bytes, ..Ask::plain(way.model) }.shot();
            load::fire(way.port, &shot, (count / 10).max(1), 1).await?;
            let before = stand.cpu(way);
            times.push(percentile(&load::fire(way.port, &shot, count, 1).await?.total, 50));
            cpu.push(per(stand.cpu(way) - before, count));
        }
    }
    let direct = median(&numbers[0].0);
    let proxies = ways.iter().zip(&numbers).skip(1);
    Ok(proxies.map(|(way, (times, cpu))| (way.name, median(times) - direct, median(cpu))).collect())
}
