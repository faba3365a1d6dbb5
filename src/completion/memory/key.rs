//! What turns are kept under: a digest of whose they are and of what the caller saw of them.
//!
//! The scope is part of it, so that nobody finds another's turns, even with the very same message.

use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::earlier_messages::{EarlierMessages, MessagesDigest};
use super::seen::TextDigest;
use crate::clean_json;

/// What the blocks of a tool call begin with in `content`.
const MARK: &str = "<details><summary>🔧 ";

/// A digest.
pub type Key = [u8; 32];

/// Which of the caller's messages may stand for hidden turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those that call the caller's functions.
    Calls,
    /// Those, and those that show tool calls in their text.
    CallsAndBlocks,
}

/// One call as the caller saw it and will repeat it.
#[derive(Deserialize)]
struct SeenCall {
    id: String,
    function: SeenFunction,
}

#[derive(Deserialize)]
struct SeenFunction {
    name: String,
    #[serde(default)]
    arguments: String,
}

#[derive(Deserialize)]
struct SeenMessage<'m> {
    role: String,
    tool_calls: Option<Vec<SeenCall>>,
    #[serde(borrow)]
    content: Option<&'m RawValue>,
}

#[derive(Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    text: String,
}

/// Whether turns may be kept under `message`, as far as a look at its bytes can say. Most messages are parsed no further.
pub fn may_have_key(message: &RawValue, which: Which) -> bool {
    let has = |word: &str| memchr::memmem::find(message.get().as_bytes(), word.as_bytes()).is_some();
    has("tool_calls") || (which == Which::CallsAndBlocks && has("details"))
}

/// The key of `message`, which stands after `earlier`, if it is one that turns may be kept under.
///
/// Of a message with calls, what stands before it is no part of the key: see [`super::turns::Entry::question`].
pub fn of_message(scope: &str, message: &RawValue, which: Which, earlier: &EarlierMessages) -> Option<Key> {
    if !may_have_key(message, which) {
        return None;
    }
    let seen: SeenMessage<'_> = clean_json::borrowed(message.get().as_bytes()).ok()?;
    if seen.role != "assistant" {
        return None;
    }
    match seen.tool_calls.filter(|calls| !calls.is_empty()) {
        Some(calls) => {
            let parts = calls.iter().map(|call| {
                (call.id.as_str(), call.function.name.as_str(), call.function.arguments.as_str())
            });
            Some(of_calls(scope, parts))
        }
        None if which == Which::CallsAndBlocks => {
            let content = text(seen.content?)?;
            content
                .contains(MARK)
                .then(|| of_text(scope, &TextDigest::of(&content).finish(), &earlier.whole()))
        }
        None => None,
    }
}

/// The text of `content`: a text itself, or parts that are all text.
fn text(content: &RawValue) -> Option<String> {
    if content.get().starts_with('"') {
        return clean_json::from_str(content.get()).ok();
    }
    let parts: Vec<Part> = clean_json::from_str(content.get()).ok()?;
    parts.iter().all(|part| part.kind == "text").then(|| parts.into_iter().map(|part| part.text).collect())
}

/// For calls handed to the caller: `(id, function, arguments)` each. The ids are those that the caller was given.
pub fn of_calls<'c>(scope: &str, calls: impl Iterator<Item = (&'c str, &'c str, &'c str)>) -> Key {
    let mut digest = begin("calls", scope);
    for (id, function, arguments) in calls {
        add(&mut digest, id.as_bytes());
        add(&mut digest, function.as_bytes());
        // Clients re-encode arguments; white space between tokens may change on the way.
        let compact = clean_json::exact::<serde_json::Value>(arguments)
            .map_or_else(|_| arguments.to_owned(), |value| value.to_string());
        add(&mut digest, compact.as_bytes());
    }
    digest.finalize().into()
}

/// For the text of an answer, by its digest, after the messages with the digest `earlier`. A text has no id that only its
/// conversation knows.
pub fn of_text(scope: &str, text: &[u8; 32], earlier: &MessagesDigest) -> Key {
    let mut digest = begin("text", scope);
    add(&mut digest, text);
    add(&mut digest, earlier);
    digest.finalize().into()
}

fn begin(what: &str, scope: &str) -> Sha256 {
    let mut digest = Sha256::new();
    add(&mut digest, what.as_bytes());
    add(&mut digest, scope.as_bytes());
    digest
}

fn add(digest: &mut Sha256, bytes: &[u8]) {
    digest.update((bytes.len() as u64).to_le_bytes());
    digest.update(bytes);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const SHOWN: &str = "<details><summary>🔧 t (h)</summary>\n\n</details>\n\nIt is 4.";

    fn key(scope: &str, message: &Value, which: Which) -> Option<Key> {
        let raw = RawValue::from_string(message.to_string()).unwrap();
        of_message(scope, &raw, which, &EarlierMessages::default())
    }

    fn assistant(content: &Value) -> Value {
        json!({ "role": "assistant", "content": content })
    }

    #[test]
    fn the_same_text_is_known_however_it_is_written_and_only_in_its_scope() {
        let earlier = EarlierMessages::default();
        let expect = Some(of_text("me", &TextDigest::of(SHOWN).finish(), &earlier.whole()));
        let (one, two) = SHOWN.split_at(7);
        let parts = json!([{ "type": "text", "text": one }, { "type": "text", "text": two }]);
        for message in [
            assistant(&SHOWN.into()),
            assistant(&format!(" \n{SHOWN}\n\n").into()),
            assistant(&parts),
            json!({ "role": "assistant", "content": SHOWN, "tool_calls": null }),
            json!({ "role": "assistant", "content": SHOWN, "tool_calls": [] }),
        ] {
            assert_eq!(key("me", &message, Which::CallsAndBlocks), expect, "{message}");
            assert_ne!(key("you", &message, Which::CallsAndBlocks), expect, "{message}");
            assert_eq!(key("me", &message, Which::Calls), None, "{message}");
        }
        let escaped = assistant(&SHOWN.into())
            .to_string()
            .replace('<', "\\u003C")
            .replace('>', "\\u003e")
            .replace('🔧', "\\ud83d\\udD27");
        let escaped = RawValue::from_string(escaped).unwrap();
        assert_eq!(of_message("me", &escaped, Which::CallsAndBlocks, &earlier), expect);
        let asked = RawValue::from_string(json!({ "role": "user", "content": "hi" }).to_string()).unwrap();
        let asked = EarlierMessages::of(&[&asked]);
        let after = of_message("me", &escaped, Which::CallsAndBlocks, &asked);
        assert!(after.is_some() && after != expect, "what stands before it counts");
    }

    #[test]
    fn what_is_not_an_answer_of_ours_has_no_key() {
        for message in [
            json!({ "role": "user", "content": SHOWN }),
            assistant(&"details of <details>".into()),
            assistant(&json!([{ "type": "text", "text": SHOWN }, { "type": "image_url", "image_url": {} }])),
            assistant(&json!({ "text": SHOWN })),
            assistant(&Value::Null),
            json!({ "role": "assistant", "details": 1 }),
            json!({ "role": "assistant", "content": SHOWN, "tool_calls": [{ "id": 1 }] }),
        ] {
            assert_eq!(key("me", &message, Which::CallsAndBlocks), None, "{message}");
        }
        let twice = format!(r#"{{"role":"assistant","content":{0},"content":{0}}}"#, json!(SHOWN));
        let twice = RawValue::from_string(twice).unwrap();
        assert_eq!(of_message("me", &twice, Which::CallsAndBlocks, &EarlierMessages::default()), None);
    }

    #[test]
    fn calls_and_texts_never_share_a_key() {
        let digest = TextDigest::of(SHOWN).finish();
        assert_ne!(of_text("me", &digest, &[0; 32]), of_calls("me", std::iter::empty()));
    }
}
