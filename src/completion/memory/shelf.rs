//! The same in the store, for other instances and the time after a restart. Written in the background: no answer waits
//! for it, and when it fails this process still remembers.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::earlier_messages::MessagesDigest;
use super::key::Key;
use super::turns::{Entry, LARGE, Whose};
use crate::clean_json;
use crate::clock::Clock;
use crate::completion::who::namespace_and_user;
use crate::crypto::{Keyring, to_hex};
use crate::id::random_bytes;
use crate::store::{Error, HIDDEN_TURN_MESSAGES, HiddenTurnsRow, Store};

/// How long what a person reads first may wait, so that several are written together: each transaction costs the next
/// request as much as a tool call does.
const GATHERING: Duration = Duration::from_millis(200);
/// Entries that may wait to be written, and their bytes.
const MOST_WAITING: usize = 1024;
const MOST_WAITING_BYTES: usize = 64 << 20;
/// Entries of one transaction, and their bytes; a single one may have more.
const TOGETHER: usize = 64;
const TOGETHER_BYTES: usize = 8 << 20;
/// Bytes a day that callers whom nobody knows may fill together.
const STRANGERS_BYTES: usize = 256 << 20;
const DAY: i64 = 24 * 3_600_000;
/// How long a request waits for the store; then the model reads what the caller saw.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a process that stops goes on writing.
const LAST_WRITES: Duration = Duration::from_secs(5);

/// Who comes back with what they saw, and how soon, perhaps to another instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::completion) enum Reader {
    /// It may answer its calls in the next millisecond.
    Program,
    Person,
}

pub(super) struct Shelf {
    store: Store,
    keyring: Keyring,
    clock: Clock,
    queue: Mutex<Queue>,
    added: Notify,
    /// Something was added that is not to wait for more.
    hurry: Notify,
    /// Held by who writes.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// It was said that something was left out.
    overflowed: bool,
    strangers: Strangers,
}

/// What callers whom nobody knows had written in one day.
#[derive(Default)]
struct Strangers {
    day: i64,
    bytes: usize,
}

/// What stands before the messages, in one line of JSON.
#[derive(Serialize, Deserialize)]
struct Head<'a> {
    origin: Cow<'a, str>,
    question: MessagesDigest,
    ids: Cow<'a, [(String, String)]>,
}

struct Waiting {
    key: Key,
    project: String,
    user: String,
    entry: Arc<Entry>,
}

impl Shelf {
    pub(super) fn new(store: Store, keyring: Keyring, clock: Clock) -> Self {
        let (queue, writing) = (Mutex::default(), tokio::sync::Mutex::default());
        Shelf { store, keyring, clock, queue, added: Notify::new(), hurry: Notify::new(), writing }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `entry` be written under `keys`, if it is not large and there is room.
    pub(super) fn add(&self, whose: &Whose<'_>, keys: &[Key], entry: &Arc<Entry>, reader: Reader) {
        let Some((project, user)) = namespace_and_user(whose.scope) else { return };
        let size = entry.messages.len();
        if size > LARGE {
            return;
        }
        let mut queue = self.queue();
        for key in keys {
            if !whose.verified && !queue.strangers.may_add(size, self.clock.unix_milliseconds() / DAY) {
                return;
            }
            if queue.waiting.len() >= MOST_WAITING || queue.bytes + size > MOST_WAITING_BYTES {
                if !std::mem::replace(&mut queue.overflowed, true) {
                    tracing::warn!("too many hidden turns wait to be stored; more are kept in memory only");
                }
                return;
            }
            queue.bytes += size;
            let (project, user, entry) = (project.clone(), user.clone(), Arc::clone(entry));
            queue.waiting.push_back(Waiting { key: *key, project, user, entry });
        }
        drop(queue);
        self.added.notify_one();
        if reader == Reader::Program {
            self.hurry.notify_one();
        }
    }

    /// Writes whenever there is something to write.
    pub(super) async fn work(&self) {
        loop {
            self.added.notified().await;
            tokio::select! {
                () = self.hurry.notified() => {}
                () = tokio::time::sleep(GATHERING) => {}
            }
            self.write().await;
        }
    }

    /// Writes what is left.
    pub(super) async fn drain(&self) {
        if timeout(LAST_WRITES, self.write()).await.is_err() {
            tracing::warn!("some hidden turns were not stored before the end");
        }
    }

    async fn write(&self) {
        let _turn = self.writing.lock().await;
        loop {
            let some = self.queue().take();
            if some.is_empty() {
                return;
            }
            let number = some.len();
            let rows = some.into_iter().map(|waiting| self.seal(waiting)).collect();
            if let Err(error) = self.store.keep_hidden_turns(rows).await
                // Else it is said already.
                && self.store.outage().is_none()
            {
                tracing::warn!(%error, number, "hidden turns could not be stored; they are kept in memory only");
            }
        }
    }

    fn seal(&self, waiting: Waiting) -> HiddenTurnsRow {
        let Waiting { key, project, user, entry } = waiting;
        let id = to_hex(&key);
        let head = Head {
            origin: Cow::Borrowed(&entry.origin),
            question: entry.question,
            ids: Cow::Borrowed(&entry.ids),
        };
        let head = serde_json::to_vec(&head).expect("texts are written to memory");
        let plain = [&head[..], b"\n", &entry.messages].concat();
        let place = HIDDEN_TURN_MESSAGES.place(&id, &project, &user);
        let sealed_messages = self.keyring.seal(random_bytes(), &place, &plain);
        let run = Some(entry.run.clone());
        HiddenTurnsRow { id, project, user, run, sealed_messages, expires_at: entry.expires_at }
    }

    /// What is stored under `keys` for this scope, at most so many bytes together.
    pub(super) async fn find(&self, scope: &str, keys: &[Key], bytes: usize) -> Vec<(Key, Entry)> {
        let Some((project, user)) = namespace_and_user(scope) else { return Vec::new() };
        let by_id: HashMap<String, Key> = keys.iter().map(|key| (to_hex(key), *key)).collect();
        let ids: Vec<String> = keys.iter().map(|key| to_hex(key)).collect();
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let now = self.clock.unix_milliseconds();
        let asked = timeout(PATIENCE, self.store.find_hidden_turns(&project, &ids, now, bytes));
        match asked.await {
            Ok(Ok(rows)) => rows
                .into_iter()
                .filter_map(|row| Some((*by_id.get(&row.id)?, self.open(&project, &user, row)?)))
                .collect(),
            Ok(Err(error)) => {
                tracing::warn!(%error, "hidden turns could not be looked up; the model reads what the caller saw");
                Vec::new()
            }
            Err(_) => {
                tracing::warn!(
                    "hidden turns could not be looked up in time; the model reads what the caller saw"
                );
                Vec::new()
            }
        }
    }

    fn open(&self, project: &str, user: &str, row: HiddenTurnsRow) -> Option<Entry> {
        let place = HIDDEN_TURN_MESSAGES.place(&row.id, project, user);
        let opened = self.keyring.open(&place, &row.sealed_messages);
        let opened = opened
            .inspect_err(|error| tracing::error!(%error, "stored hidden turns cannot be opened"))
            .ok()?;
        let end = memchr::memchr(b'\n', &opened)?;
        let head: Head<'_> = clean_json::borrowed(&opened[..end]).ok()?;
        Some(Entry {
            run: row.run.unwrap_or_default(),
            origin: head.origin.into_owned(),
            question: head.question,
            ids: head.ids.into_owned(),
            expires_at: row.expires_at,
            messages: opened[end + 1..].to_vec(),
        })
    }

    pub(super) async fn forget_run(&self, project: &str, run: &str) -> Result<(), Error> {
        // What is just being written is written first, and then forgotten.
        let _turn = self.writing.lock().await;
        self.queue().retain(|waiting| waiting.project != project || waiting.entry.run != run);
        let mut open = self.store.begin().await?;
        open.delete_hidden_turns(project, run).await?;
        open.commit().await
    }
}

impl Queue {
    /// What is written in one transaction.
    fn take(&mut self) -> Vec<Waiting> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        while taken.len() < TOGETHER && bytes < TOGETHER_BYTES {
            let Some(first) = self.waiting.pop_front() else {
                self.overflowed = false;
                break;
            };
            bytes += first.entry.messages.len();
            taken.push(first);
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        taken
    }

    fn retain(&mut self, keep: impl Fn(&Waiting) -> bool) {
        self.waiting.retain(keep);
        self.bytes = self.waiting.iter().map(|waiting| waiting.entry.messages.len()).sum();
    }
}

impl Strangers {
    fn may_add(&mut self, bytes: usize, day: i64) -> bool {
        if self.day != day {
            *self = Strangers { day, bytes: 0 };
        }
        let fits = self.bytes + bytes <= STRANGERS_BYTES;
        if fits {
            self.bytes += bytes;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_together_fill_a_part_of_the_store_a_day_and_no_more() {
        let mut strangers = Strangers::default();
        let count = |strangers: &mut Strangers, day| {
            (0..100).filter(|_| strangers.may_add(LARGE, day)).count() * LARGE
        };
        assert_eq!(count(&mut strangers, 7), STRANGERS_BYTES);
        assert!(!strangers.may_add(1, 7));
        assert_eq!(count(&mut strangers, 8), STRANGERS_BYTES);
    }
}
