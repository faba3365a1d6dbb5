//! How many bytes runs and request bodies may hold at a time, in the whole process.
//!
//! Everything that a stranger can make grow is counted here before it is kept: request bodies in flight, and what a run
//! holds of its conversation, answer and tool results. Counting costs two atomic operations and takes no lock.
//!
//! **Who is refused, who waits.** A reservation of at most [`SMALL_BYTES`] may use the whole budget. A larger one may use
//! three quarters of it, so that the largest wait while ordinary requests go on. [`MemoryReservation::grow`] waits for
//! room, in the order in which it was asked for; one reservation waits for at most [`PATIENCE`] in all, until
//! [`MemoryReservation::renew_patience`]. [`MemoryReservation::try_grow`] never waits and never overtakes who does. Whoever gets [`MemoryExhausted`] lets go of what it holds: a request that has not been
//! answered yet is refused with 503 `memory_exhausted` and `Retry-After`, and a run that has begun ends with everything so
//! far. That is also why nobody waits forever: when all reservations wait for one another, the time of the first ends, and
//! what it held is room for the rest.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;

use crate::telemetry::MemoryMetrics;

/// Reservations up to this size may use the whole budget.
pub const SMALL_BYTES: usize = 1 << 20;
/// The longest time that one reservation waits for room, over all its calls of [`MemoryReservation::grow`].
pub const PATIENCE: Duration = Duration::from_secs(10);
/// The allocator holds a third more than what is asked of it: what was let go a moment ago, and ends of pages. That is one
/// part in so many of the whole.
const ALLOCATOR_PART: usize = 4;
/// Seconds after which a refused request may be worth sending again, for `Retry-After`.
pub const RETRY_AFTER_SECONDS: u64 = 5;

/// The budget of the process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct MemoryBudget(Arc<BudgetState>);

#[derive(Debug)]
struct BudgetState {
    limit: usize,
    patience: Duration,
    used: AtomicUsize,
    /// Callers of `grow` that wait, small ones and large ones each in their own queue.
    small: WaitingLine,
    large: WaitingLine,
    freed: Notify,
    metrics: MemoryMetrics,
}

/// A queue of those who wait for room.
#[derive(Debug, Default)]
struct WaitingLine {
    length: AtomicUsize,
    /// Given out in the order in which it was asked for.
    head: Mutex<()>,
}

/// There is no room for so many bytes now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the gateway has no memory left for this request (`limits.memory_bytes`); try again in a few seconds"
)]
pub struct MemoryExhausted;

/// A part of the budget, given back when dropped.
#[derive(Debug)]
pub struct MemoryReservation {
    budget: MemoryBudget,
    held: AtomicUsize,
    /// Microseconds that it has waited for room.
    waited: AtomicU64,
}

impl MemoryBudget {
    /// A budget for a process that may use `limit` bytes for it; 0 is no limit. A quarter of them is the allocator's.
    pub fn new(limit: usize, metrics: MemoryMetrics) -> Self {
        MemoryBudget::with_patience(limit - limit / ALLOCATOR_PART, PATIENCE, metrics)
    }

    fn with_patience(limit: usize, patience: Duration, metrics: MemoryMetrics) -> Self {
        let limit = if limit == 0 { usize::MAX } else { limit };
        MemoryBudget(Arc::new(BudgetState {
            limit,
            patience,
            used: AtomicUsize::new(0),
            small: WaitingLine::default(),
            large: WaitingLine::default(),
            freed: Notify::new(),
            metrics,
        }))
    }

    /// A budget without a limit, for tests and tools.
    pub fn unlimited() -> Self {
        MemoryBudget::new(0, MemoryMetrics::default())
    }

    /// A reservation that holds nothing yet.
    pub fn reserve(&self) -> MemoryReservation {
        MemoryReservation { budget: self.clone(), held: AtomicUsize::new(0), waited: AtomicU64::new(0) }
    }

    /// A reservation of a budget of its own without a limit: for what somebody else counts.
    pub fn uncounted(&self) -> MemoryReservation {
        MemoryBudget::unlimited().reserve()
    }

    /// Bytes that may be reserved.
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    /// Bytes that are reserved now.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    fn release(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let state = &*self.0;
        state.used.fetch_sub(bytes, Ordering::SeqCst);
        state.metrics.released(bytes);
        if state.small.length.load(Ordering::SeqCst) + state.large.length.load(Ordering::SeqCst) > 0 {
            state.freed.notify_waiters();
        }
    }
}

impl MemoryReservation {
    /// Bytes that this reservation holds.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Takes `bytes` more if there is room and nobody waits for it.
    ///
    /// # Errors
    /// [`MemoryExhausted`] when there is none; the reservation stays as it was.
    pub fn try_grow(&self, bytes: usize) -> Result<(), MemoryExhausted> {
        if self.take_unless_others_wait(bytes) {
            return Ok(());
        }
        self.budget.0.metrics.refused();
        Err(MemoryExhausted)
    }

    /// Whether there would be room for `bytes` more if everybody else let go.
    pub fn can_ever_hold(&self, bytes: usize) -> bool {
        let limit = self.budget.0.limit;
        self.held().saturating_add(bytes) <= (limit - limit / 4).max(SMALL_BYTES.min(limit))
    }

    /// Lets the reservation wait for [`PATIENCE`] anew: what it is for has come a step further.
    pub fn renew_patience(&self) {
        self.waited.store(0, Ordering::Relaxed);
    }

    /// Takes `bytes` more, waiting for room for what is left of [`PATIENCE`].
    ///
    /// # Errors
    /// [`MemoryExhausted`] when no room came about; the reservation stays as it was.
    pub async fn grow(&self, bytes: usize) -> Result<(), MemoryExhausted> {
        if self.take_unless_others_wait(bytes) {
            return Ok(());
        }
        // Boxed, so that whoever may have to wait keeps no room for it: ten thousand runs do.
        Box::pin(self.wait_for(bytes)).await
    }

    async fn wait_for(&self, bytes: usize) -> Result<(), MemoryExhausted> {
        let patience = self.budget.0.patience;
        let left = patience.saturating_sub(Duration::from_micros(self.waited.load(Ordering::Relaxed)));
        if left.is_zero() || !self.can_ever_hold(bytes) {
            self.budget.0.metrics.refused();
            return Err(MemoryExhausted);
        }
        let waiting =
            WaitTimer { place: Waiting::join(self.line(bytes)), since: Instant::now(), waited: &self.waited };
        let got = tokio::time::timeout(left, async {
            let _head = waiting.place.0.head.lock().await;
            loop {
                let mut freed = pin!(self.budget.0.freed.notified());
                // Registered before looking, so that no release is missed.
                freed.as_mut().enable();
                if self.take(bytes) {
                    return;
                }
                freed.await;
            }
        });
        if got.await.is_err() {
            self.budget.0.metrics.refused();
            return Err(MemoryExhausted);
        }
        Ok(())
    }

    /// Whether there is room for `bytes`, and nobody waits for it.
    pub fn has_room(&self, bytes: usize) -> bool {
        let has_room = self.take_unless_others_wait(bytes);
        if has_room {
            self.shrink(bytes);
        }
        has_room
    }

    /// Waits as [`MemoryReservation::grow`] does until there is room for `bytes`, and takes nothing.
    pub async fn until_room(&self, bytes: usize) {
        // Who has waited long enough goes on.
        if self.grow(bytes).await.is_ok() {
            self.shrink(bytes);
        }
    }

    /// Takes `bytes` more also beyond the budget: for what is there already and is about to be let go. Others wait for it.
    pub fn grow_anyway(&self, bytes: usize) {
        self.budget.0.used.fetch_add(bytes, Ordering::SeqCst);
        self.count(bytes);
    }

    /// Gives `bytes` back, at most what is held.
    pub fn shrink(&self, bytes: usize) {
        let least = |held: usize| Some(held.saturating_sub(bytes));
        let held = self.held.fetch_update(Ordering::SeqCst, Ordering::SeqCst, least).unwrap_or_default();
        self.budget.release(bytes.min(held));
    }

    /// Holds exactly `bytes` from now on: gives back what is more, takes what is missing also beyond the budget.
    pub fn settle(&self, bytes: usize) {
        let held = self.held();
        if held > bytes {
            self.shrink(held - bytes);
        } else {
            self.grow_anyway(bytes - held);
        }
    }

    /// These bytes, counted for as long as anybody holds them.
    pub fn bind(self, bytes: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        self.settle(bytes.as_ref().len());
        Bytes::from_owner(BoundBytes { bytes, _memory: self })
    }

    fn line(&self, bytes: usize) -> &WaitingLine {
        if self.held().saturating_add(bytes) <= SMALL_BYTES {
            &self.budget.0.small
        } else {
            &self.budget.0.large
        }
    }

    fn take_unless_others_wait(&self, bytes: usize) -> bool {
        bytes == 0 || (self.line(bytes).length.load(Ordering::SeqCst) == 0 && self.take(bytes))
    }

    fn take(&self, bytes: usize) -> bool {
        let state = &*self.budget.0;
        let is_small = self.held().saturating_add(bytes) <= SMALL_BYTES;
        let most = if is_small { state.limit } else { state.limit - state.limit / 4 };
        let more = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= most);
        let is_taken = state.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok();
        if is_taken {
            self.count(bytes);
        }
        is_taken
    }

    fn count(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::SeqCst);
        self.budget.0.metrics.reserved(bytes);
    }
}

impl Drop for MemoryReservation {
    fn drop(&mut self) {
        self.budget.release(*self.held.get_mut());
    }
}

/// Bytes and what counts them.
struct BoundBytes<B> {
    bytes: B,
    _memory: MemoryReservation,
}

impl<B: AsRef<[u8]>> AsRef<[u8]> for BoundBytes<B> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

/// A place in a queue, left when dropped.
struct Waiting<'a>(&'a WaitingLine);

impl<'a> Waiting<'a> {
    fn join(line: &'a WaitingLine) -> Self {
        line.length.fetch_add(1, Ordering::SeqCst);
        Waiting(line)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.length.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A place in a queue whose time counts, also when the caller gives up before it is over.
struct WaitTimer<'a> {
    place: Waiting<'a>,
    since: Instant,
    waited: &'a AtomicU64,
}

impl Drop for WaitTimer<'_> {
    fn drop(&mut self) {
        let waited = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.waited.fetch_add(waited, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    const MIB: usize = 1 << 20;

    fn budget(limit: usize) -> MemoryBudget {
        MemoryBudget::with_patience(limit, Duration::from_millis(100), MemoryMetrics::default())
    }

    #[test]
    fn what_is_dropped_or_shrunk_is_given_back() {
        let budget = budget(8 * MIB);
        let one = budget.reserve();
        one.try_grow(5 * MIB).unwrap();
        assert_eq!((one.held(), budget.used()), (5 * MIB, 5 * MIB));
        one.shrink(2 * MIB);
        assert_eq!((one.held(), budget.used()), (3 * MIB, 3 * MIB));
        one.shrink(99 * MIB);
        assert_eq!((one.held(), budget.used()), (0, 0));
        one.try_grow(7).unwrap();
        drop(one);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn large_reservations_leave_a_quarter_to_small_ones() {
        let budget = budget(8 * MIB);
        let large = budget.reserve();
        assert_eq!(large.try_grow(6 * MIB + 1), Err(MemoryExhausted));
        large.try_grow(6 * MIB).unwrap();
        let small = [budget.reserve(), budget.reserve(), budget.reserve()];
        assert_eq!(small[0].try_grow(MIB + 1), Err(MemoryExhausted), "more than small");
        small[0].try_grow(MIB).unwrap();
        small[1].try_grow(MIB).unwrap();
        assert_eq!(small[2].try_grow(1), Err(MemoryExhausted), "the whole budget is used");
    }

    #[test]
    fn what_is_there_already_is_counted_beyond_the_limit() {
        let budget = budget(8);
        let one = budget.reserve();
        one.grow_anyway(20);
        assert_eq!(budget.used(), 20);
        assert_eq!(budget.reserve().try_grow(1), Err(MemoryExhausted));
        drop(one);
        budget.reserve().try_grow(1).unwrap();
    }

    #[test]
    fn bytes_are_counted_for_as_long_as_anybody_holds_them() {
        let budget = budget(8 * MIB);
        let reservation = budget.reserve();
        reservation.try_grow(500).unwrap();
        let bytes = reservation.bind(vec![b'a'; 300]);
        let part = bytes.slice(..10);
        drop(bytes);
        assert_eq!((budget.used(), part.len()), (300, 10));
        drop(part);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn zero_is_no_limit() {
        let one = MemoryBudget::unlimited().reserve();
        one.try_grow(usize::MAX / 4).unwrap();
    }

    #[tokio::test]
    async fn those_who_wait_are_served_in_their_order() {
        let budget = budget(8 * MIB);
        let (first, second, third) = (budget.reserve(), budget.reserve(), budget.reserve());
        first.try_grow(6 * MIB).unwrap();
        let mut one = pin!(second.grow(5 * MIB));
        let mut two = pin!(third.grow(2 * MIB));
        assert_eq!((one.as_mut().now_or_never(), two.as_mut().now_or_never()), (None, None));
        first.shrink(4 * MIB);
        assert_eq!(two.as_mut().now_or_never(), None, "there would be room, but another was first");
        assert_eq!(budget.reserve().try_grow(2 * MIB), Err(MemoryExhausted), "nor is the queue overtaken");
        first.shrink(2 * MIB);
        assert_eq!((one.await, two.as_mut().now_or_never()), (Ok(()), None));
        second.shrink(MIB);
        assert_eq!(two.await, Ok(()));
        assert_eq!(budget.used(), 6 * MIB);
    }

    #[tokio::test]
    async fn when_all_wait_for_one_another_the_first_gives_way() {
        let budget = budget(8 * MIB);
        let run = |budget: MemoryBudget| async move {
            let reservation = budget.reserve();
            let mut steps = 0;
            while steps < 4 && reservation.grow(MIB).await.is_ok() {
                steps += 1;
                tokio::task::yield_now().await;
            }
            steps
        };
        let ended = futures_util::future::join_all((0..3).map(|_| run(budget.clone()))).await;
        assert!(ended.contains(&4), "somebody comes to the end: {ended:?}");
        assert!(ended.iter().any(|steps| *steps < 4), "and somebody gave way: {ended:?}");
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn all_waits_of_a_reservation_share_one_patience() {
        let patience = Duration::from_millis(800);
        let budget = MemoryBudget::with_patience(8 * MIB, patience, MemoryMetrics::default());
        let (one, two) = (budget.reserve(), budget.reserve());
        one.try_grow(6 * MIB).unwrap();
        let freed = async {
            tokio::time::sleep(patience / 2).await;
            one.shrink(2 * MIB);
        };
        let (got, ()) = tokio::join!(two.grow(2 * MIB), freed);
        assert_eq!(got, Ok(()));
        let begun = Instant::now();
        assert_eq!(two.grow(2 * MIB).await, Err(MemoryExhausted));
        assert!(begun.elapsed() < patience * 3 / 4, "a half of it was left: {:?}", begun.elapsed());
        let begun = Instant::now();
        assert_eq!(two.grow(2 * MIB).await, Err(MemoryExhausted));
        assert!(begun.elapsed() < patience / 4, "and then nothing: {:?}", begun.elapsed());
        two.renew_patience();
        let begun = Instant::now();
        assert_eq!(two.grow(2 * MIB).await, Err(MemoryExhausted));
        assert!(begun.elapsed() >= patience, "all of it again: {:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn waiting_has_an_end_and_leaves_the_queue() {
        let budget = budget(8 * MIB);
        let one = budget.reserve();
        one.try_grow(6 * MIB).unwrap();
        let two = budget.reserve();
        assert_eq!(two.grow(2 * MIB).await, Err(MemoryExhausted));
        drop(one);
        two.try_grow(2 * MIB).unwrap();
        assert_eq!(two.held(), 2 * MIB);
    }
}
