//! Plain completions: no gateway feature used, answered at once.

use super::request::Ask;
use super::{Options, median, per};
use crate::load::{self, percentile};
use crate::report::{Report, Table, short};
use crate::stand::Stand;

/// Concurrency, and requests per repetition.
const LOADS: &[(usize, usize)] = &[(1, 3000), (64, 12_000)];

#[derive(Default)]
struct Numbers {
    p50: Vec<f64>,
    p99: Vec<f64>,
    cpu: Vec<f64>,
}

pub async fn measure(options: &Options, stand: &Stand, report: &mut Report) -> Result<(), String> {
    let mut rows = Vec::new();
    for (concurrency, count) in LOADS {
        let count = options.count(*count);
        let mut numbers: Vec<Numbers> = stand.ways.iter().map(|_| Numbers::default()).collect();
        for _ in 0..options.repetitions() {
            for (way, numbers) in stand.ways.iter().zip(&mut numbers) {
                let shot = Ask::plain(way.model).shot();
                load::fire(way.port, &shot, count / 10, *concurrency).await?;
                let before = stand.cpu(way);
                let times = load::fire(way.port, &shot, count, *concurrency).await?;
                numbers.cpu.push(per(stand.cpu(way) - before, count));
                numbers.p50.push(percentile(&times.total, 50));
                numbers.p99.push(percentile(&times.total, 99));
            }
        }
        let medians: Vec<(&str, f64, f64, f64)> = stand
            .ways
            .iter()
            .zip(&numbers)
            .map(|(way, n)| (way.name, median(&n.p50), median(&n.p99), median(&n.cpu)))
            .collect();
        let direct = medians[0].1;
        let nginx = medians.iter().find(|(name, ..)| *name == "nginx");
        for (name, p50, p99, cpu) in &medians {
            rows.push(vec![
                concurrency.to_string(),
                (*name).to_owned(),
                short(*p50),
                short(*p99),
                short(p50 - direct),
                short(*cpu),
                if *cpu > 0.0 { short(1e6 / cpu) } else { "–".into() },
            ]);
            let Some((_, nginx_p50, _, nginx_cpu)) = nginx else { continue };
            let (added, cpu) = ((p50 - direct) / (nginx_p50 - direct), cpu / nginx_cpu);
            let title = format!("plain completion, concurrency {concurrency}");
            match *name {
                "direct" | "nginx" => {}
                "bare proxy" => {
                    report.note(
                        format!("{title}: bare proxy"),
                        format!("{} × and {} ×", short(added), short(cpu)),
                    );
                }
                name => {
                    let name = name.trim_start_matches("toolgate");
                    report.at_most(format!("{title}{name}: added p50 / nginx's"), added, 1.3, " ×");
                    report.at_most(format!("{title}{name}: CPU per request / nginx's"), cpu, 1.6, " ×");
                }
            }
        }
        if let Some((_, _, p99, _)) = medians.iter().find(|(name, ..)| *name == "toolgate") {
            let title =
                format!("plain completion, concurrency {concurrency}: p99 (a Nagle plateau is 40 ms)");
            report.at_most(title, p99 / 1000.0, 40.0, " ms");
        }
    }
    report.table(Table {
        title: "Plain completions, 1 KB question".into(),
        head: vec![
            "concurrency",
            "way",
            "p50 µs",
            "p99 µs",
            "added p50 µs",
            "CPU µs",
            "requests per CPU-second",
        ],
        rows,
    });
    Ok(())
}
