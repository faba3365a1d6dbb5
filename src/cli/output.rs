//! The one writer of stdout and stderr (logs aside).

use std::io::Write;

/// Prints results to stdout and everything else to stderr. A closed pipe is no error: nobody wants to read on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Output;

impl Output {
    /// A line of the result.
    pub fn line(&self, text: &str) {
        self.text(&format!("{text}\n"));
    }

    /// A part of the result as it arrives, shown at once.
    pub fn text(&self, text: &str) {
        let mut stdout = std::io::stdout().lock();
        let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    }

    /// Rows of the result, their columns below one another.
    pub fn table(&self, rows: &[Vec<String>]) {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in rows {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{:width$}", one_line(cell))).collect();
            self.line(cells.join("  ").trim_end());
        }
    }

    /// A line for the person at the terminal.
    pub fn note(&self, text: &str) {
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }

    /// What went wrong, in one line, and what to do about it.
    pub fn error(&self, message: &str, hint: Option<&str>) {
        self.note(&format!("error: {}", one_line(message)));
        if let Some(hint) = hint {
            self.note(&format!("hint: {}", one_line(hint)));
        }
    }
}

/// Control characters would let a foreign text draw on the terminal.
fn one_line(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}
