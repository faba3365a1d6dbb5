//! Putting hidden turns back in the place of what the caller saw of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::value::RawValue;

use super::key::{Key, Which, of_message};
use super::turns::{Entry, HiddenTurns, Whose};
use crate::store::MOST_FOUND;

/// Most bytes that are put back into one request; the newest count.
const MOST_BYTES: usize = 32 << 20;

impl HiddenTurns {
    /// The caller's messages, separated by commas, each that stands for turns kept for `whose` scope, provider and model
    /// replaced by them. Text with tool blocks is replaced only where the request `offers_tools`: there are providers
    /// that accept no calls in a conversation without tools, and the text is good enough.
    ///
    /// The store is asked at most once, and not for what this process remembers.
    pub async fn put_back(&self, whose: &Whose<'_>, offers_tools: bool, messages: &[&RawValue]) -> Vec<u8> {
        let which = if offers_tools { Which::CallsAndBlocks } else { Which::Calls };
        // Each is put back once: a message repeated a thousand times must not bring back a thousand histories.
        let mut once = HashSet::new();
        let places: Vec<Option<Key>> = messages
            .iter()
            .map(|message| of_message(whose.scope, message, which).filter(|key| once.insert(*key)))
            .collect();
        let found = if once.is_empty() { HashMap::new() } else { self.recall(whose, &places).await };
        let mut joined = Vec::with_capacity(messages.iter().map(|message| message.get().len() + 1).sum());
        for (message, key) in messages.iter().zip(&places) {
            if !joined.is_empty() {
                joined.push(b',');
            }
            match key.as_ref().and_then(|key| found.get(key)) {
                Some(entry) => joined.extend_from_slice(&entry.messages),
                None => joined.extend_from_slice(message.get().as_bytes()),
            }
        }
        joined
    }

    async fn recall(&self, whose: &Whose<'_>, places: &[Option<Key>]) -> HashMap<Key, Arc<Entry>> {
        let newest_first = || places.iter().rev().flatten();
        let mut found = HashMap::new();
        let mut missing = Vec::new();
        for key in newest_first() {
            match self.find(key) {
                Some(entry) => drop(found.insert(*key, entry)),
                None => missing.push(*key),
            }
        }
        missing.truncate(MOST_FOUND);
        if let Some(shelf) = self.shelf.as_ref().filter(|_| !missing.is_empty()) {
            for (key, entry) in shelf.find(whose.scope, &missing, MOST_BYTES).await {
                let entry = Arc::new(entry);
                self.remember(key, &entry);
                found.insert(key, entry);
            }
        }
        let origin = whose.origin();
        found.retain(|_, entry| entry.origin == origin);
        let mut bytes = 0;
        for key in newest_first() {
            bytes += found.get(key).map_or(0, |entry| entry.messages.len());
            if bytes > MOST_BYTES {
                found.remove(key);
            }
        }
        found
    }
}
