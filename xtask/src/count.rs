//! Counts passed and failed tests in what the runners print.

/// Numbers of tests, and the names of those that were skipped with the reason.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
}

impl Count {
    pub fn add(&mut self, other: &Count) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// One check that held or did not.
    pub fn one(success: bool) -> Count {
        Count { passed: usize::from(success), failed: usize::from(!success), skipped: 0 }
    }

    fn is_empty(&self) -> bool {
        *self == Count::default()
    }

    /// A runner that failed without naming a failed test (it did not compile, it crashed) is one failure; one that
    /// ran nothing is one too.
    pub fn settle(mut self, success: bool) -> Count {
        if self.failed == 0 && (!success || self.is_empty()) {
            self.failed = 1;
        }
        self
    }
}

/// The closing line: `N passed, N failed`, and what was skipped if anything was.
pub fn closing_line(count: &Count) -> String {
    let Count { passed, failed, skipped } = count;
    match skipped {
        0 => format!("{passed} passed, {failed} failed"),
        _ => format!("{passed} passed, {failed} failed, {skipped} skipped"),
    }
}

/// nextest's closing line: `Summary [ 0.1s] 14 tests run: 11 passed (1 slow), 2 failed, 1 timed out, 2 skipped`.
pub fn nextest(lines: &[String]) -> Count {
    let Some(summary) = lines.iter().rev().find(|line| line.trim_start().starts_with("Summary [")) else {
        return Count::default();
    };
    let results = summary.split_once("run:").map_or("", |(_, results)| results);
    Count {
        passed: number_before(results, "passed"),
        failed: ["failed", "timed out", "exec failed"].iter().map(|word| number_before(results, word)).sum(),
        skipped: number_before(results, "skipped"),
    }
}

/// The sum of libtest's `test result: ok. 3 passed; 0 failed; 1 ignored; …` lines.
pub fn libtest(lines: &[String]) -> Count {
    let mut count = Count::default();
    for line in lines.iter().filter(|line| line.starts_with("test result:")) {
        count.add(&Count {
            passed: number_before(line, "passed"),
            failed: number_before(line, "failed"),
            skipped: number_before(line, "ignored"),
        });
    }
    count
}

/// A suite's `PASS name`, `FAIL name: reason` and `SKIP name: reason` lines.
pub fn suite(lines: &[String]) -> Count {
    let starting = |word: &str| lines.iter().filter(|line| line.starts_with(word)).count();
    Count { passed: starting("PASS "), failed: starting("FAIL "), skipped: starting("SKIP ") }
}

/// The number directly before `word`.
fn number_before(text: &str, word: &str) -> usize {
    text.split([',', ';', '.', '(', ')'])
        .filter_map(|part| part.trim().strip_suffix(word))
        .filter_map(|number| number.trim().parse::<usize>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn nextest_summaries_are_counted() {
        let text = "        PASS [   0.004s] a b\n     Summary [   0.123s] 14 tests run: 11 passed (1 slow, 1 leaky), 2 failed, 1 timed out, 3 skipped\n        FAIL x";
        assert_eq!(nextest(&lines(text)), Count { passed: 11, failed: 3, skipped: 3 });
        let cut = "     Summary [ 0.1s] 2/14 tests run: 1 passed, 1 failed, 0 skipped";
        assert_eq!(nextest(&lines(cut)), Count { passed: 1, failed: 1, skipped: 0 });
    }

    #[test]
    fn libtest_results_are_summed() {
        let text = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s\nx\ntest result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 2.5s";
        assert_eq!(libtest(&lines(text)), Count { passed: 4, failed: 2, skipped: 1 });
    }

    #[test]
    fn a_runner_that_ran_nothing_or_crashed_is_a_failure() {
        assert_eq!(nextest(&lines("error: could not compile")).settle(false).failed, 1);
        assert_eq!(suite(&[]).settle(true).failed, 1);
        assert_eq!(
            suite(&lines("PASS a\nFAIL b: c")).settle(false),
            Count { passed: 1, failed: 1, skipped: 0 }
        );
        assert_eq!(
            suite(&lines("PASS a\n  PASS b")).settle(true),
            Count { passed: 1, failed: 0, skipped: 0 }
        );
    }

    #[test]
    fn the_closing_line_names_skips_only_when_there_are_any() {
        assert_eq!(closing_line(&Count { passed: 2, failed: 0, skipped: 0 }), "2 passed, 0 failed");
        assert_eq!(
            closing_line(&Count { passed: 2, failed: 1, skipped: 1 }),
            "2 passed, 1 failed, 1 skipped"
        );
    }
}
