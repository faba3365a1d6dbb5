//! How many requests a caller may send.
//!
//! In memory and for this process only. Callers that were quiet for a while are forgotten, which costs nothing:
//! their bucket would be full again.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use moka::sync::Cache;

/// A bucket empties and fills within a minute; after two of silence it is full.
const FORGET_AFTER: Duration = Duration::from_secs(120);
const MOST_CALLERS: u64 = 50_000;

type Bucket<C> = RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// A token bucket for every caller: it holds one minute's requests and is refilled evenly.
pub struct RateLimit<C: Clock = DefaultClock> {
    clock: C,
    buckets: Cache<(Arc<str>, NonZeroU32), Arc<Bucket<C>>>,
}

/// The caller sent too much, and may try again after so many seconds (at least 1), for `Retry-After`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("too many requests; try again in {0} s")]
pub struct RetryAfterSeconds(pub u64);

impl Default for RateLimit {
    fn default() -> Self {
        RateLimit::with_clock(DefaultClock::default())
    }
}

impl<C: Clock + Clone> RateLimit<C>
where
    Bucket<C>: Send + Sync + 'static,
{
    fn with_clock(clock: C) -> Self {
        let buckets = Cache::builder().max_capacity(MOST_CALLERS).time_to_idle(FORGET_AFTER).build();
        RateLimit { clock, buckets }
    }

    /// Counts a request of the caller with this namespace; `per_minute` 0 is no limit.
    ///
    /// # Errors
    /// When the caller has sent as many as it may.
    pub fn check(&self, namespace: &Arc<str>, per_minute: u32) -> Result<(), RetryAfterSeconds> {
        let Some(per_minute) = NonZeroU32::new(per_minute) else { return Ok(()) };
        let bucket = self.buckets.get_with((namespace.clone(), per_minute), || {
            Arc::new(RateLimiter::direct_with_clock(Quota::per_minute(per_minute), self.clock.clone()))
        });
        bucket.check().map_err(|refusal| {
            let wait = refusal.wait_time_from(self.clock.now());
            RetryAfterSeconds((wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;

    #[test]
    fn a_caller_may_send_its_number_and_then_waits() {
        let clock = FakeRelativeClock::default();
        let limit = RateLimit::with_clock(clock.clone());
        let (one, two): (Arc<str>, Arc<str>) = ("one".into(), "two".into());
        for _ in 0..6 {
            assert_eq!(limit.check(&one, 6), Ok(()));
        }
        assert_eq!(limit.check(&one, 6), Err(RetryAfterSeconds(10)));
        assert_eq!(limit.check(&two, 6), Ok(()), "callers do not share a bucket");
        clock.advance(Duration::from_millis(9_500));
        assert_eq!(limit.check(&one, 6), Err(RetryAfterSeconds(1)));
        clock.advance(Duration::from_millis(500));
        assert_eq!(limit.check(&one, 6), Ok(()));
        assert_eq!(limit.check(&one, 6), Err(RetryAfterSeconds(10)));
    }

    #[test]
    fn zero_is_no_limit() {
        let limit = RateLimit::default();
        assert!((0..10_000).all(|_| limit.check(&"one".into(), 0).is_ok()));
        assert_eq!(limit.buckets.entry_count(), 0);
    }
}
