//! Logins: what a waiting request costs, how fast it wakes, what an authorised call adds, and how long it takes to say
//! that many logins are missing.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};

use super::request::{Ask, PATH};
use super::{Options, median};
use crate::browser;
use crate::load::{self, Connection, Shot, SlowStream, percentile};
use crate::report::{Report, Table, short};
use crate::stand::Stand;

const WAITING: usize = 10_000;
/// The slowest of the servers that miss a login answers after so many milliseconds.
const SLOWEST_MS: usize = 100;

pub async fn measure(options: &Options, report: &mut Report) -> Result<(), String> {
    let mut rows = Vec::new();
    waiting(options, report, &mut rows).await?;
    let stand = Stand::build(options.toolgate.as_deref()).await?;
    authorised(options, &stand, report, &mut rows).await?;
    missing(options, &stand, report, &mut rows).await?;
    report.table(Table { title: "Logins".into(), head: vec!["what", "value"], rows });
    Ok(())
}

fn server(port: u16, delay_ms: usize, name: &str) -> Value {
    json!({
        "type": "mcp", "server_url": format!("http://127.0.0.1:{port}/mcp/{delay_ms}/{name}/1"),
        "server_label": format!("bench{name}"), "require_approval": "never",
    })
}

/// A request of `user` with these servers, for an answer that is expected to contain `expect`.
fn shot(user: &str, servers: &[Value], options: &Value, stream: bool, expect: &'static str) -> Shot {
    let wish = json!({"chunks": 1, "turns": 1, "calls": 1});
    let body = json!({
        "model": "mock/mock-model", "messages": Ask::plain("").messages(), "stream": stream, "x_bench": wish,
        "tools": servers, "toolgate": options, "user": user,
    });
    Shot { path: PATH.to_owned(), body: Bytes::from(body.to_string()), expect }
}

/// Memory of waiting requests, and how long the answer of one takes to come after its login.
async fn waiting(options: &Options, report: &mut Report, rows: &mut Vec<Vec<String>>) -> Result<(), String> {
    let stand = Stand::build(options.toolgate.as_deref()).await?;
    let way = stand.way("toolgate").ok_or("no gateway was given")?;
    let process = &stand.proxies[way.process.ok_or("the gateway has a process")?];
    let count = options.count(WAITING);
    let servers = [server(stand.protected, 0, "w")];
    let wait = json!({"on_auth": "wait", "wait_seconds": 300});
    let first = shot("warm", &servers, &json!({}), false, "connect_url");
    load::fire(way.port, &first, 50, 4).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (before, _) = process.memory();

    let arrived = Rc::new(Cell::new(0));
    let mut streams = Vec::with_capacity(count);
    let deadline = Instant::now() + Duration::from_secs(240);
    for number in 0..count {
        let asked = shot(&format!("user{number}"), &servers, &wait, true, "");
        streams.push(SlowStream::open(way.port, asked, arrived.clone()));
        // Two hundred at a time: what is measured is waiting, not a crowd at the door.
        while arrived.get() + 200 < number {
            if Instant::now() > deadline || streams.iter().any(SlowStream::is_over) {
                return Err(format!("only {} of {count} requests wait", arrived.get()));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    while arrived.get() < count {
        if Instant::now() > deadline {
            return Err(format!("only {} of {count} requests wait", arrived.get()));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (during, _) = process.memory();
    let kib = (during as f64 - before as f64) / 1024.0 / count as f64;
    report.at_most(format!("memory per waiting request, {count} waiting"), kib, 16.0, " KiB");
    rows.push(vec!["KiB per waiting request (PSS)".into(), short(kib)]);

    let mut woken = Vec::new();
    for number in 0..options.count(10) {
        let user = format!("sleeper{number}");
        let asked = shot(&user, &servers, &json!({}), false, "connect_url");
        let link = link(&Connection::open(way.port).await?.fire(&asked).await?.body)?;
        let waiting = shot(&user, &servers, &wait, false, "\"finish_reason\":\"stop\"");
        let mut connection = Connection::open(way.port).await?;
        let answer = tokio::task::spawn_local(async move {
            let answer = connection.fire(&waiting).await;
            (Instant::now(), answer)
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        browser::log_in(&link).await?;
        let granted = Instant::now();
        let (at, answered) = answer.await.map_err(|error| error.to_string())?;
        answered?;
        woken.push(at.saturating_duration_since(granted).as_secs_f64() * 1000.0);
    }
    let title = format!("from the login to the whole answer, {count} others waiting");
    report.at_most(title, median(&woken), 50.0, " ms");
    rows.push(vec!["ms from the success page to the answer".into(), short(median(&woken))]);
    drop(streams);
    Ok(())
}

/// The same turn with a connection's token, and without any.
async fn authorised(
    options: &Options,
    stand: &Stand,
    report: &mut Report,
    rows: &mut Vec<Vec<String>>,
) -> Result<(), String> {
    let way = stand.way("toolgate").ok_or("no gateway was given")?;
    let guarded = [server(stand.protected, 0, "a")];
    let open = [server(stand.mcp, 0, "a")];
    let stop = "\"finish_reason\":\"stop\"";
    let asked = shot("warm", &guarded, &json!({}), false, "connect_url");
    let link = link(&Connection::open(way.port).await?.fire(&asked).await?.body)?;
    browser::log_in(&link).await?;
    let (with, without) =
        (shot("warm", &guarded, &json!({}), false, stop), shot("warm", &open, &json!({}), false, stop));
    let (mut times_with, mut times_without) = (Vec::new(), Vec::new());
    for one in [&with, &without] {
        load::fire(way.port, one, options.count(100), 1).await?;
    }
    for _ in 0..options.repetitions() {
        let count = options.count(400);
        times_with.push(percentile(&load::fire(way.port, &with, count, 1).await?.total, 50));
        times_without.push(percentile(&load::fire(way.port, &without, count, 1).await?.total, 50));
    }
    let added = (median(&times_with) - median(&times_without)) / 1000.0;
    report.at_most("authorised tool turn, warm: added to one without a login", added, 0.2, " ms");
    rows.push(vec!["ms that a login adds to a warm tool turn".into(), short(added)]);
    Ok(())
}

/// Forty servers that miss a login, against the slowest of them alone.
async fn missing(
    options: &Options,
    stand: &Stand,
    report: &mut Report,
    rows: &mut Vec<Vec<String>>,
) -> Result<(), String> {
    let way = stand.way("toolgate").ok_or("no gateway was given")?;
    let (mut all, mut alone) = (Vec::new(), Vec::new());
    for round in 0..options.repetitions() {
        let servers: Vec<Value> = (0..40)
            .map(|number| {
                let delay = if number == 39 { SLOWEST_MS } else { number * SLOWEST_MS / 80 };
                server(stand.protected, delay, &format!("{round}x{number}"))
            })
            .collect();
        let slowest = [server(stand.protected, SLOWEST_MS, &format!("{round}alone"))];
        let (one, forty) = (format!("one{round}"), format!("forty{round}"));
        let one = shot(&one, &slowest, &json!({}), false, "connect_url");
        let forty = shot(&forty, &servers, &json!({}), false, "\"connect_all_url\":\"http");
        alone.push(percentile(&load::fire(way.port, &one, 1, 1).await?.total, 50) / 1000.0);
        all.push(percentile(&load::fire(way.port, &forty, 1, 1).await?.total, 50) / 1000.0);
    }
    let ratio = median(&all) / median(&alone);
    report.at_most("40 servers missing a login, against the slowest alone", ratio, 1.2, " ×");
    rows.push(vec!["ms until 40 missing logins are shown".into(), short(median(&all))]);
    rows.push(vec!["ms until the slowest alone is shown".into(), short(median(&alone))]);
    Ok(())
}

/// The first login link of an answer.
fn link(body: &[u8]) -> Result<String, String> {
    let answer: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let link = answer["toolgate"]["authorization_required"][0]["connect_url"].as_str();
    link.map(str::to_owned).ok_or(format!("no link in {answer}"))
}
