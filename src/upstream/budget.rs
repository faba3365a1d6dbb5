//! A budget for retries, so that a failing provider is not met with twice the load.

use std::sync::atomic::{AtomicI64, Ordering};

/// Every request deposits a part of a retry; every retry takes a whole one. Starts with ten.
#[derive(Debug)]
pub(super) struct RetryBudget {
    hundredths: AtomicI64,
    deposit: i64,
}

const WHOLE: i64 = 100;
const MOST: i64 = 10 * WHOLE;

impl RetryBudget {
    pub(super) fn new(percent: u32) -> Self {
        RetryBudget {
            hundredths: AtomicI64::new(if percent == 0 { 0 } else { MOST }),
            deposit: i64::from(percent.min(100)),
        }
    }

    /// Counts one first attempt.
    pub(super) fn deposit(&self) {
        if self.hundredths.load(Ordering::Relaxed) < MOST {
            self.hundredths.fetch_add(self.deposit, Ordering::Relaxed);
        }
    }

    /// Takes one retry, if there is one.
    pub(super) fn withdraw(&self) -> bool {
        self.hundredths
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                (left >= WHOLE).then_some(left - WHOLE)
            })
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_of_failures_gets_few_retries() {
        let budget = RetryBudget::new(20);
        let retries = (0..1000)
            .filter(|_| {
                budget.deposit();
                budget.withdraw()
            })
            .count();
        assert!((200..=212).contains(&retries), "{retries}");
        assert!(!RetryBudget::new(0).withdraw());
    }
}
