//! What was measured, as a page.

use std::fmt::Write;

/// One line of the summary.
pub struct Row {
    pub measure: String,
    pub target: String,
    pub measured: String,
    /// `None` where there is no target.
    pub met: Option<bool>,
}

/// A table of the numbers behind the summary.
pub struct Table {
    pub title: String,
    pub head: Vec<&'static str>,
    pub rows: Vec<Vec<String>>,
}

/// All results of a run.
#[derive(Default)]
pub struct Report {
    rows: Vec<Row>,
    tables: Vec<Table>,
}

/// Everything below this line of the page is written by hand and kept.
const BY_HAND: &str = "<!-- Everything below is written by hand; `cargo xtask bench` keeps it. -->";

impl Report {
    /// A measure without a target.
    pub fn note(&mut self, measure: impl Into<String>, measured: impl Into<String>) {
        self.push(Row {
            measure: measure.into(), target: "–".into(), measured: measured.into(), met: None
        });
    }

    /// A measure that must not be above `limit`.
    pub fn at_most(&mut self, measure: impl Into<String>, value: f64, limit: f64, unit: &str) {
        self.push(Row {
            measure: measure.into(),
            target: format!("≤ {}{unit}", short(limit)),
            measured: format!("{}{unit}", short(value)),
            met: Some(value <= limit),
        });
    }

    pub fn push(&mut self, row: Row) {
        println!("  {} · {} · {} · {}", row.measure, row.target, row.measured, mark(row.met));
        self.rows.push(row);
    }

    pub fn table(&mut self, table: Table) {
        println!("{}", markdown_table(&table));
        self.tables.push(table);
    }

    /// Names of the measures that miss their targets.
    pub fn missed(&self) -> Vec<&str> {
        self.rows.iter().filter(|row| row.met == Some(false)).map(|row| row.measure.as_str()).collect()
    }

    /// The page; `before` is the present one, whose hand-written part is kept.
    pub fn page(&self, machine: &str, before: &str) -> String {
        let mut out = String::from(
            "# Performance\n\nWritten by `cargo xtask bench`. Everything runs on one machine over loopback: a load \
             generator, a mock provider and a mock MCP server share the first core, the proxy under measurement has \
             the last core to itself. *Added* is a proxy's median minus the median without a proxy; a ratio divides \
             the gateway's number by that of nginx's `proxy_pass` from the same run. Numbers are medians of \
             interleaved repetitions.\n\n",
        );
        let _ = write!(out, "{machine}\n\n");
        let rows = self.rows.iter().map(|row| {
            vec![row.measure.clone(), row.target.clone(), row.measured.clone(), mark(row.met).to_owned()]
        });
        let summary = Table {
            title: "Summary".into(),
            head: vec!["measure", "target", "measured", "met?"],
            rows: rows.collect(),
        };
        out.push_str(&markdown_table(&summary));
        for table in &self.tables {
            out.push('\n');
            out.push_str(&markdown_table(table));
        }
        let by_hand = before.split_once(BY_HAND).map_or("\n", |(_, text)| text);
        let _ = write!(out, "\n{BY_HAND}{by_hand}");
        out
    }
}

fn mark(met: Option<bool>) -> &'static str {
    match met {
        Some(true) => "yes",
        Some(false) => "**no**",
        None => "–",
    }
}

fn markdown_table(table: &Table) -> String {
    let mut out = format!("## {}\n", table.title);
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    out.push_str(&line(&table.head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()));
    out.push_str(&line(&table.head.iter().map(|_| "---".to_owned()).collect::<Vec<_>>()));
    for row in &table.rows {
        out.push_str(&line(row));
    }
    out
}

/// Three significant digits or so.
pub fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_written_by_hand_is_kept() {
        let mut report = Report::default();
        report.at_most("speed", 2.0, 1.3, " ×");
        let first = report.page("machine", "");
        assert!(first.contains("| speed | ≤ 1.30 × | 2.00 × | **no** |"));
        let edited = format!("{first}Build times: long.\n");
        assert!(report.page("machine", &edited).ends_with("Build times: long.\n"));
        assert_eq!(report.missed(), ["speed"]);
    }
}
