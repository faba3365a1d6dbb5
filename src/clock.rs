//! Wall-clock time, handed to those who need it so that tests can choose it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A source of the present time. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<AtomicI64>>);

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Clock(None)
    }

    /// A clock that stands still at `unix_milliseconds` until it is advanced.
    pub fn fixed(unix_milliseconds: i64) -> Self {
        Clock(Some(Arc::new(AtomicI64::new(unix_milliseconds))))
    }

    /// Moves a fixed clock forward; the machine's clock is left alone.
    pub fn advance(&self, by: Duration) {
        if let Some(now) = &self.0 {
            now.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
        }
    }

    /// Milliseconds since 1970-01-01 UTC.
    pub fn unix_milliseconds(&self) -> i64 {
        match &self.0 {
            Some(now) => now.load(Ordering::SeqCst),
            None => {
                #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
                let now = SystemTime::now();
                i64::try_from(now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis())
                    .unwrap_or(i64::MAX)
            }
        }
    }

    /// Seconds since 1970-01-01 UTC.
    pub fn unix_seconds(&self) -> i64 {
        self.unix_milliseconds().div_euclid(1000)
    }
}
