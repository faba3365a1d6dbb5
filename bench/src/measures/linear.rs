//! Cost as work grows: ten times the work may take ten times as long, not a hundred times.

use serde_json::json;

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
        let (added, cpu) = plain(options, stand, bytes, count).await?;
        rows.push(vec!["plain, bytes of messages".into(), bytes.to_string(), short(added), short(cpu)]);
        costs.push(added);
    }
    grows(report, "plain completion, message 100 KB → 1 MB", costs[2], costs[3], 10.0);

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
    grows(report, "tool turn, message 100 KB → 1 MB", costs[2], costs[3], 10.0);

    let mut costs = Vec::new();
    for (tools, count) in [(1, 200), (10, 200), (100, 100), (1000, 20)] {
        let through = turn(1, 1, mcp_tools(stand.mcp, 1, tools));
        let own = turn(1, 1, function_tools(1, tools));
        let (with, without, _) = compare(options, stand, &through, &own, 1, count).await?;
        rows.push(vec!["tool turn, tools".into(), tools.to_string(), short(with - without), "–".into()]);
        costs.push(with - without);
    }
    grows(report, "tool turn, tools 100 → 1,000", costs[2], costs[3], 10.0);

    let mut costs = Vec::new();
    for (turns, count) in [(1, 200), (5, 80), (10, 40), (50, 10)] {
        let through = turn(turns, 1, mcp_tools(stand.mcp, 1, 1));
        let own = turn(turns, 1, function_tools(1, 1));
        let (with, without, _) = compare(options, stand, &through, &own, turns, count).await?;
        rows.push(vec!["turns".into(), turns.to_string(), short(with - without), "–".into()]);
        costs.push(with - without);
    }
    grows(report, "turns 10 → 50", costs[2], costs[3], 5.0);

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
    report.at_most(format!("{what}: growth of what is added"), growth, work * SLACK, " ×");
}

/// Added median and time on a processor of a plain completion with a message of this size, in microseconds.
async fn plain(options: &Options, stand: &Stand, bytes: usize, count: usize) -> Result<(f64, f64), String> {
    let count = options.count(count);
    let (mut direct, mut through, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.repetitions() {
        for (name, times) in [("direct", &mut direct), ("toolgate", &mut through)] {
            let way = stand.way(name).ok_or("no gateway was given")?;
            let shot =
                Ask { message_bytes: bytes, wish: json!({"bytes": 400}), ..Ask::plain(way.model) }.shot();
            load::fire(way.port, &shot, (count / 10).max(1), 1).await?;
            let before = stand.cpu(way);
            times.push(percentile(&load::fire(way.port, &shot, count, 1).await?.total, 50));
            if way.process.is_some() {
                cpu.push(per(stand.cpu(way) - before, count));
            }
        }
    }
    Ok((median(&through) - median(&direct), median(&cpu)))
}
