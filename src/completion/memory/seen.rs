//! What the caller of a run gets to read, as digests: the run learns under what its turns will be asked for without
//! keeping the text a second time.

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::completion::event::{FinishReason, RunEvent};
use crate::completion::render::{Output, Renderer};
use crate::completion::unsettled::Unsettled;

/// The `content` of one run so far, as a stream shows it and as a whole answer does.
#[derive(Debug, Clone)]
pub struct Seen {
    streamed: Shown,
    /// Of its own once a login was shown: a whole answer leaves out those that came while it was waited for.
    whole: Option<Box<(Shown, Unsettled)>>,
}

impl Seen {
    /// For an answer in the given form; `None` when it shows no tool calls that could be taken back.
    pub fn new(output: Output) -> Option<Self> {
        let streamed = Shown { renderer: Renderer::new(output), text: TextDigest::default() };
        (output == Output::Markdown).then_some(Seen { streamed, whole: None })
    }

    /// Takes note of an event. Every one must come by, in the order in which the caller gets them.
    pub fn note(&mut self, event: &RunEvent) {
        let is_login = matches!(
            event,
            RunEvent::AuthorizationRequired(_)
                | RunEvent::AuthorizationBatch(_)
                | RunEvent::Waiting { .. }
                | RunEvent::Authorized { .. }
        );
        if self.whole.is_none() && is_login {
            self.whole = Some(Box::new((self.streamed.clone(), Unsettled::default())));
        }
        self.streamed.take_in(event);
        if let Some(whole) = &mut self.whole {
            let (shown, unsettled) = &mut **whole;
            if let Some(before) = unsettled.settle(event) {
                before.iter().chain([event]).for_each(|event| shown.take_in(event));
            }
        }
    }

    /// Digests of what the caller will have got if the run ends now.
    pub fn digests(&self) -> Vec<[u8; 32]> {
        let mut at_end = self.clone();
        at_end.note(&RunEvent::Finish { reason: FinishReason::Model("stop".to_owned()) });
        let mut digests = vec![at_end.streamed.text.finish()];
        digests.extend(at_end.whole.map(|whole| whole.0.text.finish()));
        digests.dedup();
        digests
    }
}

#[derive(Debug, Clone)]
struct Shown {
    renderer: Renderer,
    text: TextDigest,
}

impl Shown {
    fn take_in(&mut self, event: &RunEvent) {
        if let Some(shown) = self.renderer.event(event) {
            self.text.push(&shown);
        }
        if let RunEvent::Delta { delta, .. } = event
            && let Some(Value::String(content)) = delta.get("content")
        {
            self.text.push(content);
        }
    }
}

/// A digest of a text without the white space at its ends, which clients trim.
#[derive(Debug, Clone, Default)]
pub struct TextDigest {
    /// Of everything since the first character that is no white space.
    all: Sha256,
    /// As of the last such character.
    trimmed: Sha256,
    begun: bool,
}

impl TextDigest {
    /// Of a whole text.
    pub fn of(text: &str) -> Self {
        let mut digest = TextDigest::default();
        digest.push(text);
        digest
    }

    /// Adds the next part.
    pub fn push(&mut self, text: &str) {
        let text = if self.begun { text } else { text.trim_start_matches(is_blank) };
        let solid = text.trim_end_matches(is_blank);
        if !solid.is_empty() {
            self.begun = true;
            self.all.update(solid.as_bytes());
            self.trimmed = self.all.clone();
        }
        self.all.update(&text.as_bytes()[solid.len()..]);
    }

    /// The digest.
    pub fn finish(self) -> [u8; 32] {
        self.trimmed.finalize().into()
    }
}

/// White space to any client: JavaScript trims the mark of byte order, too.
fn is_blank(c: char) -> bool {
    c.is_whitespace() || c == '\u{feff}'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(parts: &[&str]) -> [u8; 32] {
        let mut digest = TextDigest::default();
        for part in parts {
            digest.push(part);
        }
        digest.finish()
    }

    #[test]
    fn white_space_at_the_ends_does_not_count_and_inside_it_does() {
        let expect = digest(&["a b"]);
        for parts in [
            &[" a b "][..],
            &["\u{feff}", "\n a", " ", "b", "\n", "\n "],
            &["a", " b", "", "\u{a0}"],
            &["", "a", "", " ", "b"],
        ] {
            assert_eq!(digest(parts), expect, "{parts:?}");
        }
        assert_ne!(digest(&["ab"]), expect);
        assert_ne!(digest(&["a  b"]), expect);
        assert_eq!(digest(&["  "]), digest(&[]));
    }
}
