//! What the caller of a run gets to read, as digests: the run learns under what its turns will be asked for without
//! keeping the text a second time.

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::completion::event::{FinishReason, RunEvent};
use crate::completion::render::{Output, Renderer};
use crate::completion::unsettled::Unsettled;

/// The `content` of one run so far.
#[derive(Debug)]
pub struct Seen(So);

#[derive(Debug)]
enum So {
    /// Nothing but logins: ten thousand requests may wait for theirs, so these are only listed.
    Logins(Vec<RunEvent>),
    Begun(Box<Begun>),
}

/// The content as a stream shows it and as a whole answer does.
#[derive(Debug, Clone)]
struct Begun {
    streamed: Shown,
    /// Of its own once a login was shown: a whole answer leaves out those that came while it was waited for.
    whole: Option<(Shown, Unsettled)>,
}

impl Seen {
    /// For an answer in the given form; `None` when it shows no tool calls that could be taken back.
    pub fn new(output: Output) -> Option<Self> {
        (output == Output::Markdown).then_some(Seen(So::Logins(Vec::new())))
    }

    /// Takes note of an event. Every one must come by, in the order in which the caller gets them.
    pub fn note(&mut self, event: &RunEvent) {
        match &mut self.0 {
            So::Logins(list) if is_login(event) => {
                list.reserve_exact(1);
                list.push(event.clone());
            }
            So::Logins(list) => {
                let mut begun = Begun::after(list);
                begun.note(event);
                self.0 = So::Begun(Box::new(begun));
            }
            So::Begun(begun) => begun.note(event),
        }
    }

    /// Digests of what the caller will have got if the run ends now.
    pub fn digests(&self) -> Vec<[u8; 32]> {
        let mut at_end = match &self.0 {
            So::Logins(list) => Begun::after(list),
            So::Begun(begun) => Begun::clone(begun),
        };
        at_end.note(&RunEvent::Finish { reason: FinishReason::Model("stop".to_owned()) });
        let mut digests = vec![at_end.streamed.text.finish()];
        digests.extend(at_end.whole.map(|(shown, _)| shown.text.finish()));
        digests.dedup();
        digests
    }
}

impl Begun {
    fn after(logins: &[RunEvent]) -> Self {
        let streamed = Shown { renderer: Renderer::new(Output::Markdown), text: TextDigest::default() };
        let mut begun = Begun { streamed, whole: None };
        logins.iter().for_each(|event| begun.note(event));
        begun
    }

    fn note(&mut self, event: &RunEvent) {
        if self.whole.is_none() && is_login(event) {
            self.whole = Some((self.streamed.clone(), Unsettled::default()));
        }
        self.streamed.take_in(event);
        if let Some((shown, unsettled)) = &mut self.whole
            && let Some(before) = unsettled.settle(event)
        {
            before.iter().chain([event]).for_each(|event| shown.take_in(event));
        }
    }
}

fn is_login(event: &RunEvent) -> bool {
    matches!(
        event,
        RunEvent::AuthorizationRequired(_)
            | RunEvent::AuthorizationBatch(_)
            | RunEvent::Waiting { .. }
            | RunEvent::Authorized { .. }
    )
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
    use crate::completion::event::{Notice, ToolCall};

    fn prose(text: &str) -> RunEvent {
        let delta = [("content".to_owned(), text.into())].into_iter().collect();
        RunEvent::Delta { delta, logprobs: None }
    }

    fn call() -> RunEvent {
        RunEvent::ToolCall(ToolCall {
            call_id: "1".to_owned(),
            tool: "t".to_owned(),
            function: "s_t".to_owned(),
            server_label: "s".to_owned(),
            host: "h".to_owned(),
            arguments: Value::Null,
        })
    }

    fn waited() -> [RunEvent; 2] {
        let (resource, host) = ("https://h/mcp".to_owned(), "h".to_owned());
        [
            RunEvent::Waiting { seconds: 9, resources: vec![resource.clone()] },
            RunEvent::Authorized { resource, host },
        ]
    }

    fn notice() -> RunEvent {
        RunEvent::Notice(Notice { code: "x".to_owned(), message: "gone".to_owned() })
    }

    /// What a stream shows of `events`.
    fn content(events: &[RunEvent]) -> String {
        let mut renderer = Renderer::new(Output::Markdown);
        let finish = RunEvent::Finish { reason: FinishReason::StopWhen };
        let mut content = String::new();
        for event in events.iter().chain([&finish]) {
            content.push_str(&renderer.event(event).unwrap_or_default());
            if let RunEvent::Delta { delta, .. } = event {
                content.push_str(delta["content"].as_str().unwrap());
            }
        }
        content
    }

    #[test]
    fn the_digests_are_those_of_the_stream_and_of_the_whole_answer() {
        let [waiting, authorized] = waited();
        let run = [prose("Let me "), prose("look.\n"), call(), notice(), prose("Done. ")];
        let with = |places: [usize; 2]| {
            let mut events = run.to_vec();
            events.insert(places[1], authorized.clone());
            events.insert(places[0], waiting.clone());
            events
        };
        for events in [run.to_vec(), with([0, 0]), with([0, 2]), with([3, 3])] {
            let mut seen = Seen::new(Output::Markdown).unwrap();
            events.iter().for_each(|event| seen.note(event));
            let mut expect = vec![TextDigest::of(&content(&events)).finish()];
            if events.len() > run.len() {
                expect.push(TextDigest::of(&content(&run)).finish());
            }
            assert_eq!(seen.digests(), expect, "{events:?}");
            assert_eq!(seen.digests(), expect, "asking changes nothing");
        }
        assert!(Seen::new(Output::Text).is_none() && Seen::new(Output::Events).is_none());
    }

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
