//! Streams whose chunks come one by one, a millisecond apart.

use serde_json::json;

use super::request::Ask;
use super::{Options, median, per};
use crate::load::{self, percentile};
use crate::report::{Report, Table, short};
use crate::stand::Stand;

/// Chunks, concurrency, streams per repetition.
const LOADS: &[(usize, usize, usize)] = &[(50, 4, 120), (1000, 8, 16)];

#[derive(Default)]
struct Numbers {
    first: Vec<f64>,
    first_p99: Vec<f64>,
    total: Vec<f64>,
    cpu: Vec<f64>,
}

pub async fn measure(options: &Options, stand: &Stand, report: &mut Report) -> Result<(), String> {
    let mut rows = Vec::new();
    for (chunks, concurrency, count) in LOADS {
        let count = options.count(*count).max(*concurrency);
        let mut numbers: Vec<Numbers> = stand.ways.iter().map(|_| Numbers::default()).collect();
        for _ in 0..options.repetitions().min(3) {
            for (way, numbers) in stand.ways.iter().zip(&mut numbers) {
                let wish = json!({"chunks": chunks, "delay_ms": 1, "bytes": 16});
                let shot = Ask { stream: true, wish, ..Ask::plain(way.model) }.shot();
                let warm = Ask { stream: true, wish: json!({"chunks": 2}), ..Ask::plain(way.model) }.shot();
                load::fire(way.port, &warm, 100, *concurrency).await?;
                let before = stand.cpu(way);
                let times = load::fire(way.port, &shot, count, *concurrency).await?;
                numbers.cpu.push(per(stand.cpu(way) - before, count));
                numbers.first.push(percentile(&times.first, 50));
                numbers.first_p99.push(percentile(&times.first, 99));
                numbers.total.push(percentile(&times.total, 50));
            }
        }
        let medians: Vec<(&str, f64, f64, f64)> = stand
            .ways
            .iter()
            .zip(&numbers)
            .map(|(way, n)| (way.name, median(&n.first), median(&n.total), median(&n.cpu)))
            .collect();
        let (_, direct_first, direct_total, _) = medians[0];
        let nginx = medians.iter().find(|(name, ..)| *name == "nginx");
        for ((name, first, total, cpu), numbers) in medians.iter().zip(&numbers) {
            rows.push(vec![
                chunks.to_string(),
                (*name).to_owned(),
                short(*first),
                short(median(&numbers.first_p99)),
                short(first - direct_first),
                short((total - direct_total) / *chunks as f64),
                short(*cpu),
                short(cpu / *chunks as f64),
            ]);
            let Some((_, nginx_first, _, nginx_cpu)) = nginx else { continue };
            let (added, cpu_ratio) = ((first - direct_first) / (nginx_first - direct_first), cpu / nginx_cpu);
            let title = format!("{chunks}-chunk stream");
            match *name {
                "direct" | "nginx" => {}
                "bare proxy" => {
                    let measured = format!("{} × and {} ×", short(added), short(cpu_ratio));
                    report.note(format!("{title}: bare proxy"), measured);
                }
                name if *chunks == 50 => {
                    let name = name.trim_start_matches("toolgate");
                    report.at_most(
                        format!("{title}{name}: added time to first token / nginx's"),
                        added,
                        1.3,
                        " ×",
                    );
                    report.at_most(format!("{title}{name}: CPU / nginx's"), cpu_ratio, 1.6, " ×");
                }
                name => {
                    let measured =
                        format!("{} µs, {} × nginx's", short(cpu / *chunks as f64), short(cpu_ratio));
                    report.note(
                        format!("{title}{}: CPU per chunk", name.trim_start_matches("toolgate")),
                        measured,
                    );
                }
            }
        }
    }
    report.table(Table {
        title: "Streams, a chunk each millisecond".into(),
        head: vec![
            "chunks",
            "way",
            "first token p50 µs",
            "first token p99 µs",
            "added to first token µs",
            "added between chunks µs",
            "CPU per stream µs",
            "CPU per chunk µs",
        ],
        rows,
    });
    Ok(())
}
