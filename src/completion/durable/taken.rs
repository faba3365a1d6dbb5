//! What of a log is to be written, and what became of it. The journal's side of a run.

use super::log::{Log, Settled};
use super::record::{Status, Visibility};
use super::tell::Told;
use crate::completion::sink::Gone;
use crate::store::{RunBatch, RunChange, RunRow};

/// What one write brings into the store.
pub struct Taken {
    pub row: Option<Box<RunRow>>,
    pub batch: Option<RunBatch>,
    pub change: Option<RunChange>,
    /// Who is told that the run has ended.
    pub told: Option<(Told, Status)>,
    /// It has ended, and not well.
    pub failed: bool,
    /// Bytes of its events in memory.
    bytes: usize,
    after: Settled,
}

/// A run waits for the store while more than this of its events is unwritten, in bytes.
const UNWRITTEN_BYTES: usize = 1 << 20;
/// Copies of an unwritten event in memory: the event, its JSON in a buffer that grows, and the copies of database driver and
/// database.
pub(super) const UNWRITTEN_COPIES: usize = 5;
/// Rows of a run that are not worth putting together.
const FEW: i64 = 4;

impl Log {
    /// Whether the run stands in few rows, and nothing in them is to be forgotten.
    pub(super) fn is_small(&self) -> bool {
        let state = self.state();
        state.place <= FEW && state.steps_written == 0 && !state.has_history
    }

    /// Whether an event of this weight may be added at once.
    pub fn has_room(&self, weight: usize) -> bool {
        self.memory.has_room(UNWRITTEN_COPIES * weight) && self.state().unwritten_bytes <= UNWRITTEN_BYTES
    }

    /// Waits until so little of the run is unwritten that an event of this weight may be added.
    ///
    /// # Errors
    /// [`Gone`] when the run is another process's now.
    pub async fn room(&self, weight: usize) -> Result<(), Gone> {
        self.memory.until_room(UNWRITTEN_COPIES * weight).await;
        let has_room = || self.state().unwritten_bytes <= UNWRITTEN_BYTES;
        if has_room() {
            return Ok(());
        }
        self.queue(true);
        let mut settled = self.settled.subscribe();
        // Whoever ends the run ends this wait, too.
        let there = settled.wait_for(|settled| settled.lost || has_room()).await;
        if there.is_ok_and(|settled| !settled.lost) { Ok(()) } else { Err(Gone) }
    }

    /// Bytes of its events that this process has brought into the store.
    pub(super) fn written_bytes(&self) -> i64 {
        self.state().written_bytes
    }

    /// What is not in the store yet. It stays so until [`Log::settle`].
    pub(super) fn take(&self) -> Taken {
        let settled = *self.settled.borrow();
        let mut state = self.state();
        state.is_queued = false;
        // Written as text below, where the run does not wait for it.
        let unwritten = settled.events.saturating_sub(state.first);
        let new = state.events.get(unwritten..).unwrap_or_default().to_vec();
        let mut batch = (!new.is_empty() || !state.steps.is_empty()).then(|| RunBatch {
            project: self.project.to_string(),
            run: self.id.to_string(),
            place: state.place,
            first: i64::try_from(settled.events).unwrap_or(i64::MAX),
            number: i64::try_from(new.len()).unwrap_or(i64::MAX),
            events: Vec::new(),
            steps: (!state.steps.is_empty()).then(|| encode(state.steps.iter())),
        });
        let mut change = state.is_changed.then(|| RunChange {
            project: self.project.to_string(),
            run: self.id.to_string(),
            status: state.status.as_str().to_owned(),
            reason: state.reason.clone(),
            ended_at: state.ended_at,
            usage: state.usage,
            visibility: state.is_hiding.then(|| Visibility::Private.as_str().to_owned()),
            used_logins: state.used_logins,
            keep: state.is_on_trial && state.status == Status::Completed,
            more_bytes: state.uncounted_bytes,
        });
        (state.is_changed, state.is_hiding) = (false, false);
        let after = Settled {
            created: true,
            events: state.number(),
            steps: state.steps_written + state.steps.len(),
            ended: state.ended_at.is_some(),
            lost: false,
            hopeless: false,
            refused: false,
        };
        let told = state.told.clone().filter(|_| after.ended).map(|told| (told, state.status));
        let failed = after.ended && state.status != Status::Completed;
        let (row, bytes) = (state.new.clone(), state.unwritten_bytes);
        drop(state);
        if let Some(batch) = &mut batch {
            batch.events = encode(new.iter().map(|event| &**event));
            if let Some(change) = &mut change {
                change.more_bytes += length(batch);
            }
        }
        Taken { row, batch, change, told, failed, bytes, after }
    }

    /// It is in the store.
    pub(super) fn settle(&self, taken: &Taken) {
        {
            let mut state = self.state();
            state.new = None;
            state.unwritten_bytes -= taken.bytes;
            state.place += i64::from(taken.batch.is_some());
            let written = taken.after.steps - state.steps_written;
            state.steps.drain(..written);
            state.steps_written = taken.after.steps;
            let written = taken.batch.as_ref().map_or(0, length);
            state.written_bytes += written;
            state.uncounted_bytes = if taken.change.is_some() { 0 } else { state.uncounted_bytes + written };
        }
        self.memory.shrink(UNWRITTEN_COPIES * taken.bytes);
        self.memory.renew_patience();
        self.settled.send_if_modified(|settled| {
            let after = Settled { lost: settled.lost, refused: settled.refused, ..taken.after };
            std::mem::replace(settled, after) != after
        });
        if taken.after.ended {
            self.end_live();
        }
        self.trim();
    }

    /// Whatever was taken may not have been written: all that is not known to be in the store is written once more.
    pub(super) fn write_anew(&self) {
        let mut state = self.state();
        state.is_changed = true;
        state.is_hiding |= state.used_logins && !state.is_chosen;
    }

    /// It is not, and is to be written again.
    pub(super) fn unsettle(&self, taken: &Taken) {
        {
            let mut state = self.state();
            state.is_changed |= taken.change.is_some();
            state.is_hiding |= taken.change.as_ref().is_some_and(|change| change.visibility.is_some());
        }
        // The store has just refused it: nobody's hurry helps.
        self.queue(false);
    }
}

/// Bytes of events, as the row of a run counts them.
fn length(batch: &RunBatch) -> i64 {
    i64::try_from(batch.events.len()).unwrap_or(i64::MAX)
}

fn encode<'e, T: serde::Serialize + 'e>(records: impl Iterator<Item = &'e T>) -> Vec<u8> {
    let mut out = vec![b'['];
    for record in records {
        if out.len() > 1 {
            out.push(b',');
        }
        serde_json::to_writer(&mut out, record).expect("records are written to memory");
    }
    out.push(b']');
    out
}
