//! Bounds for what principals store: how many runs, and how much room they take.
//!
//! The store counts, over all instances. What it said is used for a few seconds, with what this process has added since,
//! so that a burst gets no further than its bound; nobody is refused by an old count.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::bounds::{Bound, BoundScope, LimitReached, Principal};
use crate::config::Limits;
use crate::store::{Error, Holding, Store};

/// How long a count lets more in.
const COUNT_LASTS: Duration = Duration::from_secs(5);
/// How long a count refuses more, where nothing has changed here since.
const REFUSAL_LASTS: Duration = Duration::from_secs(1);
/// Counts in memory. Beyond that, old ones are forgotten.
const MOST_COUNTS: usize = 10_000;

/// Counts what is stored. Cheap to clone.
#[derive(Clone)]
pub struct StoredHoldings(Arc<HoldingsState>);

struct HoldingsState {
    store: Store,
    most_runs: u64,
    most_bytes: u64,
    counts: Mutex<HashMap<HoldingKey, HoldingCount>>,
}

/// A group, or a member of one.
type HoldingKey = (String, Option<String>);

struct HoldingCount {
    counted_at: Instant,
    stored: Holding,
    /// What is let in and not yet in the store.
    pending: Holding,
    /// What came into the store since this count began to be kept, ever growing.
    arrived: Holding,
    /// Something has changed here since it was counted.
    has_changed: bool,
}

/// Room for a run that is let in, until it is in the store or will never be.
pub struct StoredReservation {
    holdings: StoredHoldings,
    keys: Vec<HoldingKey>,
    bytes: i64,
}

impl StoredHoldings {
    /// Bounds as the settings say; 0 is none.
    pub fn new(store: Store, limits: &Limits) -> Self {
        StoredHoldings(Arc::new(HoldingsState {
            store,
            most_runs: limits.stored_runs_per_principal,
            most_bytes: limits.stored_bytes_per_principal,
            counts: Mutex::default(),
        }))
    }

    /// Room for a run of so many bytes; nothing where nothing is counted.
    ///
    /// # Errors
    /// When the store fails, and within that, when the principal has stored as much as it may.
    pub async fn reserve(
        &self,
        principal: &Principal,
        bytes: i64,
    ) -> Result<Result<Option<StoredReservation>, LimitReached>, Error> {
        let state = &self.0;
        let name = principal.holder_name();
        if name.group.is_empty() || (state.most_runs == 0 && state.most_bytes == 0) {
            return Ok(Ok(None));
        }
        let mut parts = Vec::new();
        if !name.member.is_empty() {
            parts.push(((name.group.clone(), Some(name.member)), 1, BoundScope::Member));
        }
        parts.push(((name.group, None), name.group_factor, BoundScope::Group));
        for (key, ..) in &parts {
            self.count_if(key, |count| count.counted_at.elapsed() > COUNT_LASTS).await?;
        }
        let mut is_counted_anew = false;
        loop {
            let reached = {
                let mut counts = self.counts();
                let reached = parts.iter().find_map(|(key, factor, scope)| {
                    let count = counts.get(key)?;
                    let bound = count.reached(bytes, state.most_runs * factor, state.most_bytes * factor)?;
                    let most = match bound {
                        Bound::StoredBytes => state.most_bytes,
                        _ => state.most_runs,
                    };
                    Some(principal.limit_reached(bound, most * factor, *scope))
                });
                if reached.is_none() {
                    for (key, ..) in &parts {
                        if let Some(count) = counts.get_mut(key) {
                            count.pending.runs += 1;
                            count.pending.bytes += bytes;
                        }
                    }
                }
                reached
            };
            let Some(refusal) = reached else {
                let keys = parts.into_iter().map(|(key, ..)| key).collect();
                return Ok(Ok(Some(StoredReservation { holdings: self.clone(), keys, bytes })));
            };
            if std::mem::replace(&mut is_counted_anew, true) {
                return Ok(Err(refusal));
            }
            for (key, ..) in &parts {
                let is_old =
                    |count: &HoldingCount| count.has_changed || count.counted_at.elapsed() > REFUSAL_LASTS;
                self.count_if(key, is_old).await?;
            }
        }
    }

    /// A run of this holder has come to take so many bytes more in the store.
    pub fn add_bytes(&self, group: &str, member: &str, bytes: i64) {
        let mut counts = self.counts();
        for key in [(group.to_owned(), None), (group.to_owned(), Some(member.to_owned()))] {
            if let Some(count) = counts.get_mut(&key) {
                count.stored.bytes += bytes;
                count.arrived.bytes += bytes;
                count.has_changed = true;
            }
        }
    }

    /// Something of this holder was deleted.
    pub fn forget(&self, group: &str, member: &str) {
        let mut counts = self.counts();
        for key in [(group.to_owned(), None), (group.to_owned(), Some(member.to_owned()))] {
            if let Some(count) = counts.get_mut(&key) {
                count.has_changed = true;
            }
        }
    }

    /// Counts anew where there is no count, or one that `is_old`.
    async fn count_if(&self, key: &HoldingKey, is_old: impl Fn(&HoldingCount) -> bool) -> Result<(), Error> {
        let before = {
            let counts = self.counts();
            match counts.get(key) {
                Some(count) if !is_old(count) => return Ok(()),
                Some(count) => count.arrived,
                None => Holding::default(),
            }
        };
        let counted_at = Instant::now();
        let stored = self.0.store.find_holding(&key.0, key.1.as_deref()).await?;
        let mut counts = self.counts();
        if counts.len() >= MOST_COUNTS {
            counts.retain(|_, count| count.pending.runs > 0 || count.counted_at.elapsed() < COUNT_LASTS);
        }
        let count = counts.entry(key.clone()).or_insert_with(|| HoldingCount {
            counted_at,
            stored,
            pending: Holding::default(),
            arrived: Holding::default(),
            has_changed: false,
        });
        // What has arrived meanwhile may be counted twice now, and never not at all.
        let meanwhile =
            Holding { runs: count.arrived.runs - before.runs, bytes: count.arrived.bytes - before.bytes };
        count.counted_at = counted_at;
        count.stored = Holding { runs: stored.runs + meanwhile.runs, bytes: stored.bytes + meanwhile.bytes };
        count.has_changed = meanwhile.runs > 0;
        Ok(())
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<HoldingKey, HoldingCount>> {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HoldingCount {
    /// The bound that another run of so many bytes would exceed.
    fn reached(&self, bytes: i64, most_runs: u64, most_bytes: u64) -> Option<Bound> {
        let is_over =
            |number: i64, most: u64| most > 0 && u64::try_from(number).is_ok_and(|number| number > most);
        if is_over(self.stored.runs + self.pending.runs + 1, most_runs) {
            return Some(Bound::StoredRuns);
        }
        is_over(self.stored.bytes + self.pending.bytes + bytes, most_bytes).then_some(Bound::StoredBytes)
    }
}

impl Drop for StoredReservation {
    fn drop(&mut self) {
        let mut counts = self.holdings.counts();
        for key in &self.keys {
            if let Some(count) = counts.get_mut(key) {
                for (holding, sign) in
                    [(&mut count.pending, -1), (&mut count.stored, 1), (&mut count.arrived, 1)]
                {
                    holding.runs += sign;
                    holding.bytes += sign * self.bytes;
                }
                count.has_changed = true;
            }
        }
    }
}
