//! What was asked while looking for a login, in order: for the diagnosis.

use super::fetch::Answer;

/// Most steps kept.
const MAX_STEPS: usize = 64;
/// Longest address kept, in bytes.
const MAX_URL_BYTES: usize = 500;

/// Everything that was asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    pub steps: Vec<Step>,
}

/// One question and what was made of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What was looked for: "protected resource metadata".
    pub purpose: &'static str,
    /// Where it is written that it stands there: "RFC 9728 §3.1".
    pub rule: &'static str,
    /// What was asked; empty for a step without a request.
    pub url: String,
    /// The HTTP status; `None` when there was no answer or no request.
    pub status: Option<u16>,
    pub finding: Finding,
    /// What would help, when something was wrong.
    pub hint: Option<String>,
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It was used; says what it gave.
    Good(String),
    /// Nothing stands there, which is allowed.
    Absent(String),
    /// Something stands there and cannot be used.
    Bad(String),
}

impl Trace {
    /// An empty one.
    pub fn new() -> Trace {
        Trace::default()
    }

    /// Notes a step. Texts from outside are cut to one line of visible characters.
    pub fn note(&mut self, mut step: Step) {
        if self.steps.len() < MAX_STEPS {
            step.url = visible(&step.url, MAX_URL_BYTES);
            self.steps.push(step);
        }
    }

    /// The reason of the first step that found something unusable.
    pub fn first_fault(&self) -> Option<&str> {
        self.steps.iter().find_map(|step| match &step.finding {
            Finding::Bad(reason) => Some(reason.as_str()),
            Finding::Good(_) | Finding::Absent(_) => None,
        })
    }
}

impl Step {
    pub(super) fn new(purpose: &'static str, rule: &'static str, url: &str) -> Step {
        Step {
            purpose,
            rule,
            url: url.to_owned(),
            status: None,
            finding: Finding::Absent(String::new()),
            hint: None,
        }
    }

    pub(super) fn answered(mut self, answer: &Answer) -> Step {
        self.status = Some(answer.status.as_u16());
        self
    }

    pub(super) fn good(mut self, text: impl Into<String>) -> Step {
        self.finding = Finding::Good(text.into());
        self
    }

    pub(super) fn absent(mut self, text: impl Into<String>) -> Step {
        self.finding = Finding::Absent(text.into());
        self
    }

    pub(super) fn bad(mut self, text: impl Into<String>) -> Step {
        self.finding = Finding::Bad(text.into());
        self
    }

    pub(super) fn hint(mut self, text: impl Into<String>) -> Step {
        self.hint = Some(text.into());
        self
    }
}

/// At most `limit` bytes of a foreign text, without what could draw on a terminal or hide in a line.
pub(super) fn visible(text: &str, limit: usize) -> String {
    let mut shown = String::new();
    for character in text.chars() {
        let is_plain = character.is_ascii_graphic() || character == ' ' || character.is_alphanumeric();
        let character = if is_plain { character } else { '\u{fffd}' };
        if shown.len() + character.len_utf8() > limit {
            shown.push('…');
            break;
        }
        shown.push(character);
    }
    shown
}
