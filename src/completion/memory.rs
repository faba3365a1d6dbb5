//! Turns that the caller never saw, kept until it answers its own function calls. In memory for now.
//!
//! Nothing is kept under another caller's or user's name, and a lookup never reaches across them.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use moka::sync::Cache;
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::config;

/// The memory. Cheap to clone.
#[derive(Clone)]
pub struct HiddenTurns {
    kept: Cache<[u8; 32], Arc<Entry>>,
    /// Whether anything was ever kept. Every plain completion asks, and counting the cache's entries costs more
    /// than relaying the request.
    used: Arc<AtomicBool>,
}

struct Entry {
    /// The messages that belong in the place of the one the caller saw, separated by commas.
    messages: Vec<u8>,
}

/// One call as the caller saw it and will repeat it.
#[derive(Debug, Deserialize)]
struct SeenCall {
    id: String,
    function: SeenFunction,
}

#[derive(Debug, Deserialize)]
struct SeenFunction {
    name: String,
    #[serde(default)]
    arguments: String,
}

#[derive(Deserialize)]
struct SeenMessage {
    role: String,
    tool_calls: Option<Vec<SeenCall>>,
}

impl HiddenTurns {
    /// A memory bounded as `settings` say.
    pub fn new(settings: &config::Run) -> Self {
        let weigh =
            |_: &[u8; 32], entry: &Arc<Entry>| u32::try_from(entry.messages.len() + 256).unwrap_or(u32::MAX);
        let cache = Cache::builder()
            .max_capacity(settings.hidden_turn_bytes)
            .weigher(weigh)
            .time_to_live(Duration::from_secs(settings.hidden_turn_seconds))
            .build();
        HiddenTurns { kept: cache, used: Arc::default() }
    }

    /// Whether nothing was ever kept, so that no lookup can find anything.
    pub fn is_empty(&self) -> bool {
        !self.used.load(Ordering::Acquire)
    }

    /// Whether any of `messages`, a list in JSON, has turns that were kept for `scope`.
    pub fn knows_any(&self, scope: &str, messages: &str) -> bool {
        // Only a caller that answers calls can bring them back.
        !self.is_empty()
            && memchr::memmem::find(messages.as_bytes(), b"tool_call_id").is_some()
            && serde_json::from_str::<Vec<&RawValue>>(messages)
                .is_ok_and(|messages| messages.iter().any(|message| self.find(scope, message).is_some()))
    }

    /// Keeps `messages` under the calls handed to the caller: `(id, function, arguments)` each.
    pub fn keep<'c>(
        &self,
        scope: &str,
        calls: impl Iterator<Item = (&'c str, &'c str, &'c str)>,
        messages: Vec<u8>,
    ) {
        self.kept.insert(key(scope, calls), Arc::new(Entry { messages }));
        self.used.store(true, Ordering::Release);
    }

    /// The caller's messages, separated by commas, each assistant message whose calls are remembered replaced by the
    /// turns it stands for. Says whether any was.
    pub fn put_back(&self, scope: &str, messages: &[&RawValue]) -> (Vec<u8>, bool) {
        let mut joined = Vec::with_capacity(messages.iter().map(|message| message.get().len() + 1).sum());
        // Each is put back once: a message repeated a thousand times must not bring back a thousand histories.
        let mut used = HashSet::new();
        for message in messages {
            if !joined.is_empty() {
                joined.push(b',');
            }
            match self.find(scope, message).filter(|(key, _)| used.insert(*key)) {
                Some((_, entry)) => joined.extend_from_slice(&entry.messages),
                None => joined.extend_from_slice(message.get().as_bytes()),
            }
        }
        (joined, !used.is_empty())
    }

    fn find(&self, scope: &str, message: &RawValue) -> Option<([u8; 32], Arc<Entry>)> {
        // Most messages call nothing; they are not parsed.
        memchr::memmem::find(message.get().as_bytes(), b"tool_calls")?;
        let seen: SeenMessage = serde_json::from_str(message.get()).ok()?;
        let calls = seen.tool_calls.filter(|calls| seen.role == "assistant" && !calls.is_empty())?;
        let parts = calls
            .iter()
            .map(|call| (call.id.as_str(), call.function.name.as_str(), call.function.arguments.as_str()));
        let key = key(scope, parts);
        Some((key, self.kept.get(&key)?))
    }
}

/// A digest of whose calls they are and what they say: ids alone are not unique with every provider.
fn key<'c>(scope: &str, calls: impl Iterator<Item = (&'c str, &'c str, &'c str)>) -> [u8; 32] {
    let mut digest = Sha256::new();
    let mut add = |text: &str| {
        digest.update((text.len() as u64).to_le_bytes());
        digest.update(text.as_bytes());
    };
    add(scope);
    for (id, function, arguments) in calls {
        add(id);
        add(function);
        // Clients re-encode arguments; white space between tokens may change on the way.
        let compact = serde_json::from_str::<serde_json::Value>(arguments)
            .map_or_else(|_| arguments.to_owned(), |value| value.to_string());
        add(&compact);
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn hidden_turns_come_back_in_their_place_and_only_to_their_owner() {
        let memory = HiddenTurns::new(&config::Run::default());
        assert!(memory.is_empty());
        memory.keep(
            "me",
            [("call_1", "mine", r#"{"a": 1}"#)].into_iter(),
            br#"{"hidden":1},{"hidden":2}"#.to_vec(),
        );
        assert!(!memory.is_empty());
        let question = raw(r#"{"role":"user","content":"tool_calls"}"#);
        let seen = raw(
            r#"{"role":"assistant","content":"…","tool_calls":[{"id":"call_1","type":"function","function":{"name":"mine","arguments":"{\"a\":1}"}}]}"#,
        );
        let (joined, found) = memory.put_back("me", &[&question, &seen]);
        assert!(found);
        assert_eq!(
            String::from_utf8(joined).unwrap(),
            r#"{"role":"user","content":"tool_calls"},{"hidden":1},{"hidden":2}"#
        );
        let (joined, found) = memory.put_back("someone else", &[&seen]);
        assert!(!found && joined == seen.get().as_bytes());
    }
}
