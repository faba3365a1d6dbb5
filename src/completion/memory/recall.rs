//! Putting hidden turns back in the place of what the caller saw of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::earlier_messages::{EarlierMessages, MessagesDigest};
use super::key::{Key, Which, may_have_key, of_message};
use super::turns::{Entry, HiddenTurns, Whose};
use crate::clean_json;
use crate::store::MOST_FOUND;

/// Most bytes that are put back into one request; the newest count.
const MOST_BYTES: usize = 32 << 20;

/// The messages for the model.
pub struct RestoredMessages {
    /// Separated by commas.
    pub messages: Vec<u8>,
    /// Turns were found for a call, and left out: what stands before the call is not what their run was asked.
    pub is_mismatched: bool,
}

/// A message of the caller that may stand for turns: their key, and the question that it answers.
type Place = Option<(Key, MessagesDigest)>;

impl HiddenTurns {
    /// The caller's messages, each that stands for turns kept for `whose` scope, provider and model replaced by them where
    /// what stands before it is what their run was asked. Text with tool blocks is replaced only where the request
    /// `offers_tools`: there are providers that accept no calls in a conversation without tools, and the text is good
    /// enough.
    ///
    /// The store is asked at most once, and not for what this process remembers.
    pub async fn put_back(
        &self,
        whose: &Whose<'_>,
        offers_tools: bool,
        messages: &[&RawValue],
    ) -> RestoredMessages {
        let which = if offers_tools { Which::CallsAndBlocks } else { Which::Calls };
        let places = places(whose.scope, which, messages);
        let found = if places.iter().all(Option::is_none) {
            HashMap::new()
        } else {
            self.recall(whose, &places).await
        };
        let mut joined = Vec::with_capacity(messages.iter().map(|message| message.get().len() + 1).sum());
        let mut is_mismatched = false;
        // The calls that the messages after them may answer.
        let mut open_calls: Option<&Entry> = None;
        for (place, message) in messages.iter().enumerate() {
            let place = places.get(place).copied().flatten();
            let entry = place.and_then(|(key, question)| Some((found.get(&key)?, question)));
            if !joined.is_empty() {
                joined.push(b',');
            }
            match entry {
                Some((entry, question)) if entry.question == question => {
                    joined.extend_from_slice(&entry.messages);
                    open_calls = Some(entry);
                    continue;
                }
                Some(_) => is_mismatched = true,
                None => {}
            }
            match open_calls.and_then(|entry| entry.answer(message)) {
                Some(answer) => joined.extend_from_slice(answer.as_bytes()),
                None => {
                    if !is_tool_message(message) {
                        open_calls = None;
                    }
                    joined.extend_from_slice(message.get().as_bytes());
                }
            }
        }
        RestoredMessages { messages: joined, is_mismatched }
    }

    async fn recall(&self, whose: &Whose<'_>, places: &[Place]) -> HashMap<Key, Arc<Entry>> {
        let newest_first = || places.iter().rev().flatten().map(|(key, _)| key);
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

fn places(scope: &str, which: Which, messages: &[&RawValue]) -> Vec<Place> {
    if !messages.iter().any(|message| may_have_key(message, which)) {
        return Vec::new();
    }
    let mut earlier = EarlierMessages::default();
    // Each is put back once: a message repeated a thousand times must not bring back a thousand histories.
    let mut once = HashSet::new();
    let place = |message: &&RawValue| {
        let key = of_message(scope, message, which, &earlier).filter(|key| once.insert(*key));
        let place = key.map(|key| (key, earlier.question()));
        earlier.push(message);
        place
    };
    messages.iter().map(place).collect()
}

impl Entry {
    /// `message` with the provider's own id, if it answers a call that the caller knows under ours.
    fn answer(&self, message: &RawValue) -> Option<String> {
        let mut fields: Map<String, Value> =
            clean_json::from_str(message.get()).ok().filter(|_| !self.ids.is_empty())?;
        let id = fields.get_mut("tool_call_id")?;
        let (_, own) = self.ids.iter().find(|(ours, _)| id == ours)?;
        *id = own.as_str().into();
        Some(Value::Object(fields).to_string())
    }
}

fn is_tool_message(message: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Role<'m> {
        role: &'m str,
    }
    clean_json::borrowed::<Role<'_>>(message.get().as_bytes()).is_ok_and(|message| message.role == "tool")
}
