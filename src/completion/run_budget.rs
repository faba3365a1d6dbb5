//! What one run may take and hold: bytes over all its turns, and its part of the process's memory.
//!
//! Two sums. *Taken* is what arrived: the request, the model's words and calls, the results of tools. It only grows, and
//! ends the run at `max_bytes`. *Held* is what the run keeps in memory now, copies included; it is reserved from the
//! [`MemoryBudget`], and what is only needed for a moment is given back after it.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Map, Value};

use super::event::{Notice, RunError, RunEvent};
use crate::memory_budget::{MemoryBudget, MemoryExhausted, MemoryReservation, RETRY_AFTER_SECONDS};
use crate::openai::{ErrorBody, ErrorKind};

/// What a node of a JSON value takes besides its text.
const NODE_BYTES: usize = 64;
/// JSON texts up to this size are read without asking for memory.
const SMALL_TEXT: usize = 16 << 10;

/// A viewer of the whole answer holds what it was shown as it gathers it, and as what is sent.
const VIEWER_COPIES: usize = 2;
/// A piece of an answer that is larger counts where it is on its way, too.
const LARGE_PIECE: usize = 128 << 10;

/// The sums of one run.
#[derive(Debug)]
pub struct RunBudget {
    most: usize,
    taken: AtomicUsize,
    memory: MemoryReservation,
    /// Bytes that viewers were sent. They may hold them, and then count them themselves.
    shown: AtomicUsize,
}

/// Why the run ends before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BudgetExceeded {
    /// It has taken so many bytes.
    Bytes(usize),
    /// An answer of the provider is longer than so many bytes, its framing included.
    Answer(usize),
    /// The run would hold more of the process's memory than one run may.
    Share,
    /// The process has no memory left for it now.
    Memory,
}

impl From<MemoryExhausted> for BudgetExceeded {
    fn from(_: MemoryExhausted) -> Self {
        BudgetExceeded::Memory
    }
}

impl BudgetExceeded {
    /// What the run says when it ends for that.
    pub fn notice(self) -> RunEvent {
        let (code, message) = match self {
            BudgetExceeded::Bytes(most) => {
                let message = format!(
                    "The run has reached its limit of bytes: {most} (`toolgate.max_bytes` of the request, or `run.max_bytes`). \
                     The request and the list of tools count, too."
                );
                ("byte_budget", message)
            }
            BudgetExceeded::Answer(most) => (
                "byte_budget",
                format!("The run ended early: one answer of the provider is longer than {most} bytes."),
            ),
            BudgetExceeded::Share => {
                let message = "The run ended early: it would take more than its part of the gateway's memory (`limits.memory_bytes`).";
                ("byte_budget", message.to_owned())
            }
            BudgetExceeded::Memory => {
                let message = "The run ended early: the gateway had no memory left for it.";
                ("memory_exhausted", message.to_owned())
            }
        };
        RunEvent::Notice(Notice { code: code.to_owned(), message })
    }
}

/// The 503 of a run that cannot begin for want of memory.
pub fn no_memory() -> RunError {
    let body = ErrorBody::new(ErrorKind::Server, Some("memory_exhausted"), MemoryExhausted.to_string());
    let retry_after = Some(RETRY_AFTER_SECONDS.to_string());
    RunError { status: 503, error: body.into_value(), retry_after, login: None }
}

impl RunBudget {
    /// A budget of `most` bytes, with memory of `budget`.
    pub fn new(most: usize, budget: &MemoryBudget) -> Self {
        let (taken, shown) = (AtomicUsize::new(0), AtomicUsize::new(0));
        RunBudget { most, taken, memory: budget.reserve(), shown }
    }

    /// Bytes that may still arrive.
    pub fn left(&self) -> usize {
        self.most.saturating_sub(self.taken.load(Ordering::Relaxed))
    }

    /// What says that no more may arrive.
    pub fn exceeded(&self) -> BudgetExceeded {
        BudgetExceeded::Bytes(self.most)
    }

    /// `bytes` have arrived, and take `held` in memory. Waits for memory where there is little.
    ///
    /// # Errors
    /// [`BudgetExceeded`].
    pub async fn take(&self, bytes: usize, held: usize) -> Result<(), BudgetExceeded> {
        if bytes > self.left() {
            return Err(BudgetExceeded::Bytes(self.most));
        }
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        self.grow(held).await
    }

    /// As [`RunBudget::take`], of what viewers are about to be sent as it arrives.
    ///
    /// # Errors
    /// [`BudgetExceeded`].
    pub async fn take_and_show(&self, bytes: usize, held: usize) -> Result<(), BudgetExceeded> {
        // In the message; a large piece also as an event and as what is sent.
        let copies = if held <= LARGE_PIECE { 1 } else { 3 };
        self.take(bytes, copies * held).await?;
        self.show(held);
        Ok(())
    }

    /// Viewers are about to be sent `bytes` of what was taken.
    pub fn show(&self, bytes: usize) {
        self.shown.fetch_add(bytes, Ordering::Relaxed);
    }

    async fn grow(&self, bytes: usize) -> Result<(), BudgetExceeded> {
        // The two must not wait for one another.
        let viewer = VIEWER_COPIES * self.shown.load(Ordering::Relaxed);
        if !self.memory.can_ever_hold(bytes + viewer) {
            return Err(BudgetExceeded::Share);
        }
        Ok(self.memory.grow(bytes).await?)
    }

    /// Memory for a moment: until what is returned is dropped.
    ///
    /// # Errors
    /// [`BudgetExceeded::Share`], [`BudgetExceeded::Memory`].
    pub async fn hold(&self, bytes: usize) -> Result<HeldBytes<'_>, BudgetExceeded> {
        self.grow(bytes).await?;
        Ok(HeldBytes { budget: self, bytes })
    }

    /// Memory for reading a JSON text from outside: numbers and empty lists take many times their text.
    ///
    /// # Errors
    /// [`BudgetExceeded::Share`], [`BudgetExceeded::Memory`].
    pub async fn hold_for_reading(&self, json: &[u8]) -> Result<HeldBytes<'_>, BudgetExceeded> {
        if json.len() <= SMALL_TEXT {
            return Ok(HeldBytes { budget: self, bytes: 0 });
        }
        let nodes = json.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count();
        self.hold(json.len() + nodes * NODE_BYTES).await
    }

    /// Between two turns: the run holds its conversation of so many bytes, once as it grows and once as it is sent.
    ///
    /// # Errors
    /// [`BudgetExceeded::Share`], [`BudgetExceeded::Memory`].
    pub async fn settle(&self, conversation: usize) -> Result<(), BudgetExceeded> {
        self.memory.renew_patience();
        let wanted = 2 * conversation;
        let held = self.memory.held();
        if held > wanted {
            self.memory.shrink(held - wanted);
            return Ok(());
        }
        self.grow(wanted - held).await
    }
}

/// Memory that is given back when this is dropped.
#[derive(Debug)]
pub struct HeldBytes<'a> {
    budget: &'a RunBudget,
    bytes: usize,
}

impl HeldBytes<'_> {
    /// Holds this many from now on.
    ///
    /// # Errors
    /// [`BudgetExceeded::Share`], [`BudgetExceeded::Memory`].
    pub async fn set(&mut self, bytes: usize) -> Result<(), BudgetExceeded> {
        if bytes > self.bytes {
            self.budget.grow(bytes - self.bytes).await?;
        } else {
            self.budget.memory.shrink(self.bytes - bytes);
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for HeldBytes<'_> {
    fn drop(&mut self) {
        self.budget.memory.shrink(self.bytes);
    }
}

/// Bytes of the texts in these fields, and about how many they take in memory.
pub fn weigh(fields: &Map<String, Value>) -> (usize, usize) {
    fields.iter().map(|(key, value)| add((0, key.len()), weigh_value(value))).fold((0, 0), add)
}

/// As [`weigh`], of one value.
pub fn weigh_value(value: &Value) -> (usize, usize) {
    match value {
        Value::String(text) => (text.len(), text.len()),
        Value::Array(list) => list.iter().map(weigh_value).fold((2, NODE_BYTES * (1 + list.len())), add),
        Value::Object(fields) => {
            let names: usize = fields.keys().map(String::len).sum();
            add((2 + names, 2 * NODE_BYTES * (1 + fields.len())), weigh(fields))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => (4, 0),
    }
}

fn add(one: (usize, usize), two: (usize, usize)) -> (usize, usize) {
    (one.0 + two.0, one.1 + two.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::MemoryMetrics;
    use serde_json::json;

    const MIB: usize = 1 << 20;

    #[tokio::test]
    async fn a_run_takes_so_many_bytes_over_all_its_turns() {
        let budget = RunBudget::new(10, &MemoryBudget::unlimited());
        assert_eq!(budget.take(4, 0).await, Ok(()));
        assert_eq!(budget.settle(100).await, Ok(()));
        assert_eq!(budget.take(6, 0).await, Ok(()));
        assert_eq!((budget.take(1, 0).await, budget.left()), (Err(BudgetExceeded::Bytes(10)), 0));
    }

    #[tokio::test]
    async fn what_is_needed_for_a_moment_is_given_back() {
        let process = MemoryBudget::new(100 * MIB, MemoryMetrics::default());
        let budget = RunBudget::new(MIB, &process);
        let mut held = budget.hold(5).await.unwrap();
        held.set(7).await.unwrap();
        held.set(3).await.unwrap();
        assert_eq!(process.used(), 3);
        drop(held);
        assert_eq!(process.used(), 0);
        budget.take(10, 50).await.unwrap();
        budget.show(1);
        budget.settle(10).await.unwrap();
        assert_eq!(process.used(), 20);
        drop(budget);
        assert_eq!(process.used(), 0);
    }

    #[tokio::test]
    async fn many_small_values_are_weighed_by_what_they_take() {
        let process = MemoryBudget::new(16 * MIB, MemoryMetrics::default());
        let budget = RunBudget::new(usize::MAX, &process);
        let zeros = format!("[{}0]", "0,".repeat(MIB / 2));
        assert_eq!(budget.hold_for_reading(zeros.as_bytes()).await.err(), Some(BudgetExceeded::Share));
        let text = format!("[\"{}\"]", "a".repeat(MIB));
        assert!(budget.hold_for_reading(text.as_bytes()).await.is_ok());
        let Value::Object(fields) = json!({ "content": "abc", "list": [0, 0] }) else { unreachable!() };
        let (text, held) = weigh(&fields);
        assert!(text < 20 && held > 3 * NODE_BYTES, "{text} {held}");
    }
}
