//! What is measured. Each measure is bounded in count and time, and checks every answer it times.

mod crowd;
mod journal;
mod linear;
mod logins;
mod memory;
mod plain;
mod request;
mod results;
mod start;
mod streams;
mod turns;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::report::Report;
use crate::stand::Stand;
use crate::{machine, process};

/// Every measure, in the order in which they run: memory first, while the processes are fresh.
const NAMES: &[&str] =
    &["start", "memory", "plain", "streams", "turns", "linear", "logins", "journal", "crowd", "results"];

/// How the harness was called.
pub struct Options {
    names: Vec<String>,
    pub toolgate: Option<PathBuf>,
    report: Option<PathBuf>,
    quick: bool,
    /// An empty database of PostgreSQL, if there is one.
    pub postgres: Option<String>,
}

impl Options {
    /// Reads the arguments of `run`.
    pub fn read(arguments: &[&str]) -> Result<Self, String> {
        let mut options =
            Options { names: Vec::new(), toolgate: None, report: None, quick: false, postgres: None };
        let mut references_only = false;
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut value =
                || arguments.next().map(PathBuf::from).ok_or(format!("`{argument}` needs a value"));
            match *argument {
                "--toolgate" => options.toolgate = Some(value()?),
                "--report" => options.report = Some(value()?),
                "--postgres" => options.postgres = Some(value()?.to_string_lossy().into_owned()),
                "--quick" => options.quick = true,
                "--references-only" => references_only = true,
                name if NAMES.contains(&name) => options.names.push(name.to_owned()),
                other => return Err(format!("`{other}` is none of {}", NAMES.join(", "))),
            }
        }
        if references_only {
            options.toolgate = None;
        } else if options.toolgate.is_none() {
            return Err("`--toolgate PROGRAM` is missing".to_owned());
        }
        Ok(options)
    }

    /// Repetitions of each measure.
    pub fn repetitions(&self) -> usize {
        if self.quick { 1 } else { 5 }
    }

    /// `count`, or less of it when it must be quick.
    pub fn count(&self, count: usize) -> usize {
        if self.quick { (count / 5).max(1) } else { count }
    }

    fn is_wanted(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|wanted| wanted == name)
    }
}

/// Measures, prints, and writes the page when everything was measured in full.
pub fn run(options: &Options) -> Result<(), String> {
    process::pin_self();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let mut report = Report::default();
    let started = Instant::now();
    tokio::task::LocalSet::new().block_on(&runtime, measure(options, &mut report))?;
    println!("\nmeasured in {} s", started.elapsed().as_secs());
    let missed = report.missed();
    if !missed.is_empty() {
        println!("missed: {}", missed.join("; "));
    }
    let complete = options.names.is_empty() && !options.quick && options.toolgate.is_some();
    match options.report.as_ref().filter(|_| complete) {
        Some(path) => {
            let before = fs::read_to_string(path).unwrap_or_default();
            let machine = machine::describe(options.toolgate.as_deref(), "cargo xtask bench");
            fs::write(path, report.page(&machine, &before))
                .map_err(|error| format!("{}: {error}", path.display()))
        }
        None => Ok(()),
    }
}

async fn measure(options: &Options, report: &mut Report) -> Result<(), String> {
    let wants = |name| {
        let wanted = options.is_wanted(name);
        if wanted {
            println!("\n== {name}");
        }
        wanted
    };
    if wants("start") && options.toolgate.is_some() {
        start::measure(options, report).await?;
    }
    if wants("memory") {
        memory::measure(options, report).await?;
    }
    let stand = Stand::build(options.toolgate.as_deref()).await?;
    if wants("plain") {
        plain::measure(options, &stand, report).await?;
    }
    if wants("streams") {
        streams::measure(options, &stand, report).await?;
    }
    if wants("turns") && options.toolgate.is_some() {
        turns::measure(options, &stand, report).await?;
    }
    if wants("linear") && options.toolgate.is_some() {
        linear::measure(options, &stand, report).await?;
    }
    if wants("logins") && options.toolgate.is_some() {
        logins::measure(options, report).await?;
    }
    if wants("journal") && options.toolgate.is_some() {
        journal::measure(options, &stand, report).await?;
    }
    if wants("crowd") && options.toolgate.is_some() {
        crowd::measure(options, &stand, report).await?;
    }
    if wants("results") && options.toolgate.is_some() {
        results::measure(options, &stand, report).await?;
    }
    Ok(())
}

/// The middle of the values.
fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Time on a processor per piece of work, in microseconds.
fn per(time: Duration, count: usize) -> f64 {
    time.as_secs_f64() * 1e6 / count as f64
}
