//! What is remembered, first of all in this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use moka::sync::Cache;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::earlier_messages::{EarlierMessages, MessagesDigest};
use super::key::{Key, Which, of_message};
use super::shelf::{Reader, Shelf};
use crate::clean_json;
use crate::clock::Clock;
use crate::completion::who::namespace_and_user;
use crate::config;
use crate::crypto::Keyring;
use crate::store::{Error, Store};

/// Larger than this, turns are kept without the pictures and sounds of tools, and not in the store.
pub(super) const LARGE: usize = 4 << 20;

/// The memory. Cheap to clone.
#[derive(Clone)]
pub struct HiddenTurns {
    pub(super) kept: Cache<Key, Arc<Entry>>,
    /// Whether anything was ever kept. Every plain completion asks, and counting the cache's entries costs more
    /// than relaying the request.
    used: Arc<AtomicBool>,
    pub(super) shelf: Option<Arc<Shelf>>,
    pub(super) clock: Clock,
    /// Milliseconds.
    age: i64,
}

/// Whose turns they are, and what they were made with.
#[derive(Clone, Copy)]
pub struct Whose<'a> {
    /// See [`crate::completion::who::scope`].
    pub scope: &'a str,
    /// Whether the operator knows the caller.
    pub verified: bool,
    pub run: &'a str,
    pub provider: &'a str,
    pub model: &'a str,
}

impl Whose<'_> {
    /// Whether nobody is named, so that the turns may be those of several people.
    pub(super) fn is_shared(&self) -> bool {
        namespace_and_user(self.scope).is_none_or(|(_, user)| user.is_empty())
    }

    /// Provider and model. What one of them writes into its messages, another one need not understand, or accept.
    pub(super) fn origin(&self) -> String {
        json!([self.provider, self.model]).to_string()
    }
}

/// The turns of one run, in the place of one message that its caller saw.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub run: String,
    /// See [`Whose::origin`].
    pub origin: String,
    /// Milliseconds since 1970.
    pub expires_at: i64,
    /// The digest of what the run was asked: the messages from the last one of the user on. Calls are put back only where
    /// it stands before them. Older messages may be gone: the ids of calls are unguessable, and clients trim.
    pub question: MessagesDigest,
    /// The ids that the caller knows its calls by, and the provider's own.
    pub ids: Vec<(String, String)>,
    /// The messages that belong in the place of the one the caller saw, separated by commas.
    pub messages: Vec<u8>,
}

/// What a run hands over to be kept.
pub(super) struct NewTurns {
    /// See [`Entry::question`].
    pub question: MessagesDigest,
    /// See [`Entry::ids`].
    pub ids: Vec<(String, String)>,
    /// See [`Entry::messages`].
    pub messages: Vec<u8>,
}

impl HiddenTurns {
    /// A memory bounded as `settings` say, in this process alone.
    pub fn new(settings: &config::Run, clock: Clock) -> Self {
        let weigh =
            |_: &Key, entry: &Arc<Entry>| u32::try_from(entry.messages.len() + 512).unwrap_or(u32::MAX);
        let age = Duration::from_secs(settings.hidden_turn_seconds);
        let cache = Cache::builder()
            .max_capacity(settings.hidden_turn_bytes)
            .weigher(weigh)
            .time_to_live(age)
            .build();
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        HiddenTurns { kept: cache, used: Arc::default(), shelf: None, clock, age }
    }

    /// The same, kept in the store, too.
    #[must_use]
    pub fn kept_in(mut self, store: Store, keyring: Keyring) -> Self {
        self.shelf = Some(Arc::new(Shelf::new(store, keyring, self.clock.clone())));
        self
    }

    /// Whether this process knows of nothing, so that no lookup in its memory can find anything.
    pub fn is_empty(&self) -> bool {
        !self.used.load(Ordering::Acquire)
    }

    /// Whether this process remembers turns for `scope` behind any of the calls in `messages`, a list in JSON.
    pub fn knows_any(&self, scope: &str, messages: &str) -> bool {
        // Only a caller that answers calls can bring them back.
        !self.is_empty()
            && memchr::memmem::find(messages.as_bytes(), b"tool_call_id").is_some()
            && clean_json::borrowed::<Vec<&RawValue>>(messages.as_bytes()).is_ok_and(|messages| {
                let earlier = EarlierMessages::default();
                let mut keys =
                    messages.iter().filter_map(|message| of_message(scope, message, Which::Calls, &earlier));
                keys.any(|key| self.find(&key).is_some())
            })
    }

    /// Keeps `turns` under `keys`: at once in memory, soon in the store, before `reader` can come back.
    pub(super) fn keep(&self, whose: &Whose<'_>, keys: &[Key], turns: NewTurns, reader: Reader) {
        let NewTurns { question, ids, messages } = turns;
        let entry = Arc::new(Entry {
            run: whose.run.to_owned(),
            origin: whose.origin(),
            expires_at: self.clock.unix_milliseconds().saturating_add(self.age),
            question,
            ids,
            messages: without_large_media(messages),
        });
        for key in keys {
            self.remember(*key, &entry);
        }
        if let Some(shelf) = &self.shelf {
            shelf.add(whose, keys, &entry, reader);
        }
    }

    pub(super) fn remember(&self, key: Key, entry: &Arc<Entry>) {
        self.kept.insert(key, Arc::clone(entry));
        self.used.store(true, Ordering::Release);
    }

    pub(super) fn find(&self, key: &Key) -> Option<Arc<Entry>> {
        let now = self.clock.unix_milliseconds();
        self.kept.get(key).filter(|entry| entry.expires_at > now)
    }

    /// Forgets the turns of one run in this process.
    pub fn forget_here(&self, run: &str) {
        for (key, entry) in &self.kept {
            if entry.run == run {
                self.kept.invalidate(&*key);
            }
        }
    }

    /// Forgets the turns of one run of a namespace, here and in the store.
    ///
    /// # Errors
    /// When the store cannot be asked; here they are forgotten all the same.
    pub async fn forget_run(&self, namespace: &str, run: &str) -> Result<(), Error> {
        self.forget_here(run);
        match &self.shelf {
            Some(shelf) => shelf.forget_run(namespace, run).await,
            None => Ok(()),
        }
    }

    /// Writes to the store what was kept. Never ends.
    pub async fn work(&self) {
        match &self.shelf {
            Some(shelf) => shelf.work().await,
            None => std::future::pending().await,
        }
    }

    /// Writes what is left, for a few seconds at most.
    pub async fn close(&self) {
        if let Some(shelf) = &self.shelf {
            shelf.drain().await;
        }
    }
}

/// A run's messages; without those that hold pictures and sounds where all together are large. They are the only ones
/// of the role `user` that a run makes.
fn without_large_media(messages: Vec<u8>) -> Vec<u8> {
    #[derive(Deserialize)]
    struct Role<'m> {
        role: &'m str,
    }
    if messages.len() <= LARGE {
        return messages;
    }
    let list = [b"[", &messages[..], b"]"].concat();
    let Ok(parsed) = clean_json::borrowed::<Vec<&RawValue>>(&list) else { return messages };
    let kept = parsed.iter().map(|message| message.get()).filter(|message| {
        clean_json::borrowed::<Role<'_>>(message.as_bytes()).is_ok_and(|message| message.role != "user")
    });
    kept.collect::<Vec<_>>().join(",").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_left_out_where_they_would_make_turns_large() {
        let call = r#"{"role":"assistant","tool_calls":[]},{"role":"tool","content":"x"}"#;
        let picture = |bytes| format!(r#"{{"role":"user","content":["{}"]}}"#, "A".repeat(bytes));
        let small = format!("{call},{}", picture(1000)).into_bytes();
        assert_eq!(without_large_media(small.clone()), small);
        let large = format!("{call},{},{call}", picture(LARGE)).into_bytes();
        assert_eq!(without_large_media(large), format!("{call},{call}").into_bytes());
    }
}
