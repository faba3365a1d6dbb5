//! Start-up, idle memory, size of the program.

use std::fs;
use std::time::{Duration, Instant};

use super::{Options, median};
use crate::report::Report;
use crate::stand::Stand;

pub async fn measure(options: &Options, report: &mut Report) -> Result<(), String> {
    let stand = Stand::build(options.toolgate.as_deref()).await?;
    let (mut starts, mut idle, mut resident) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.repetitions() {
        let started = Instant::now();
        // One gateway at a time serves from a directory.
        let (process, _) = stand.start_toolgate_on("start", None).await?;
        starts.push(started.elapsed().as_secs_f64() * 1000.0);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (pss, rss) = process.memory();
        idle.push(pss as f64 / f64::from(1 << 20));
        resident.push(rss as f64 / f64::from(1 << 20));
    }
    report.at_most("start to first healthy answer", median(&starts), 100.0, " ms");
    report.at_most("idle memory (RSS)", median(&resident), 25.0, " MiB");
    report.note("idle memory (PSS)", format!("{:.1} MiB", median(&idle)));
    let program = options.toolgate.as_ref().ok_or("no gateway was given")?;
    let bytes = fs::metadata(program).map_err(|error| error.to_string())?.len();
    report.note(
        "size of the program (release profile)",
        format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
    );
    Ok(())
}
