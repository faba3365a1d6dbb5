//! Tool turns: what the gateway adds to the provider's and the MCP server's own time.

use serde_json::json;

use super::request::{Ask, DirectLoop, asked, function_tools, mcp_tools};
use super::{Options, median};
use crate::load::{self, percentile};
use crate::report::{Report, Table, short};
use crate::stand::Stand;

/// Parallel calls, and how long the slowest takes; the others are spread below it.
const PARALLEL: (usize, u64) = (8, 80);

pub async fn measure(options: &Options, stand: &Stand, report: &mut Report) -> Result<(), String> {
    let way = stand.way("toolgate").ok_or("no gateway was given")?;
    let mut rows = Vec::new();

    let before = asked(stand.mcp).await?.discovery;
    let ask = turn(1, 1, mcp_tools(stand.mcp, 1, 7));
    load::fire(way.port, &ask.shot(), 1, 1).await?;
    report
        .note("cold tool turn: discovery requests", (asked(stand.mcp).await?.discovery - before).to_string());

    for stream in [true, false] {
        for servers in [1, 10, 40] {
            let through = Ask { stream, ..turn(1, 1, mcp_tools(stand.mcp, servers, 1)) };
            let own = Ask { stream, ..turn(1, 1, function_tools(servers, 1)) };
            let (with, without, discoveries) = compare(options, stand, &through, &own, 1, 400).await?;
            let form = if stream { "streamed" } else { "not streamed" };
            rows.push(vec![
                form.into(),
                servers.to_string(),
                short(without),
                short(with),
                short(with - without),
            ]);
            if servers == 1 {
                report.at_most(
                    format!("warm tool turn, {form}: added"),
                    (with - without) / 1000.0,
                    1.0,
                    " ms",
                );
                report.at_most(format!("warm tool turn, {form}: discovery requests"), discoveries, 0.0, "");
            } else {
                let title = format!("warm tool turn, {form}, {servers} servers: added");
                report.note(title, format!("{} ms", short((with - without) / 1000.0)));
            }
        }
    }
    report.table(Table {
        title: "Warm tool turns (two provider calls, one tool call)".into(),
        head: vec!["form", "servers", "client's own loop p50 µs", "toolgate p50 µs", "added µs"],
        rows,
    });

    let (calls, slowest) = PARALLEL;
    let mut parallel = turn(1, calls, mcp_tools(stand.mcp, 1, 1));
    parallel.wish["call_delay_ms"] = json!(slowest);
    let mut medians = Vec::new();
    for _ in 0..options.repetitions() {
        let times = load::fire(way.port, &parallel.shot(), options.count(20), 1).await?;
        medians.push(percentile(&times.total, 50) / 1000.0);
    }
    let title = format!("{calls} parallel calls, the slowest {slowest} ms: whole completion");
    report.at_most(title, median(&medians), slowest as f64 + 5.0, " ms");
    Ok(())
}

/// A request that makes the provider ask for `calls` calls in each of `turns` turns.
pub fn turn(turns: usize, calls: usize, tools: serde_json::Value) -> Ask {
    Ask {
        stream: true,
        wish: json!({"chunks": 1, "turns": turns, "calls": calls}),
        tools: Some(tools),
        ..Ask::plain("mock-model")
    }
}

/// Medians in microseconds of a conversation through the gateway and by a client's own loop, interleaved, and the
/// discovery requests that the warm ones through the gateway needed.
pub async fn compare(
    options: &Options,
    stand: &Stand,
    through: &Ask,
    own: &Ask,
    turns: usize,
    count: usize,
) -> Result<(f64, f64, f64), String> {
    let way = stand.way("toolgate").ok_or("no gateway was given")?;
    let mut direct = DirectLoop::open(stand.provider, stand.mcp).await?;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    let count = options.count(count);
    load::fire(way.port, &through.shot(), (count / 10).max(1), 1).await?;
    let before = asked(stand.mcp).await?;
    for _ in 0..options.repetitions() {
        let times = load::fire(way.port, &through.shot(), count, 1).await?;
        with.push(percentile(&times.total, 50));
        let mut times = Vec::new();
        for _ in 0..count {
            times.push(direct.run(own, turns).await?);
        }
        times.sort_unstable();
        without.push(percentile(&times, 50));
    }
    let after = asked(stand.mcp).await?;
    // Both ways call the tool once a turn; a gateway that did less would look fast.
    let expected = 2 * turns * count * options.repetitions();
    if after.calls - before.calls != expected as u64 {
        return Err(format!("{} tool calls were made, not {expected}", after.calls - before.calls));
    }
    Ok((median(&with), median(&without), (after.discovery - before.discovery) as f64))
}
