//! What a server that wants input asks for (MCP 2026-07-28, multi round-trip requests; elicitation).
//!
//! Nobody sits at the gateway, so a form is cancelled and an address is shown; it is never opened.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::message::harmless;
use crate::tools::Error;

/// One thing asked for: an elicitation's parameters, as far as they are understood.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Asked {
    #[serde(default)]
    mode: Option<String>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    url: Option<String>,
}

impl Asked {
    /// In words, when it is an address to open: with its host, which is what a reader must judge.
    pub(crate) fn describe(&self) -> Option<String> {
        let url = url::Url::parse(self.url.as_deref()?).ok()?;
        let host = url.host_str()?;
        let message = self.message.as_deref().unwrap_or_default();
        Some(harmless(&format!("open {url} (at {host}) {message}")).trim_end().to_owned())
    }
}

/// What came instead of a final result.
#[derive(Debug)]
pub(crate) enum Ending {
    Complete,
    /// Repeat the call with these.
    Again(Answers),
}

/// What a repeated call carries besides its arguments.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Answers {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) input_responses: BTreeMap<String, Cancelled>,
    /// Opaque: given back byte for byte, or not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request_state: Option<Box<RawValue>>,
}

/// The answer to a form that nobody can fill in.
#[derive(Debug, Serialize)]
#[serde(tag = "action", rename = "cancel")]
pub(crate) struct Cancelled {}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    #[serde(default)]
    result_type: Option<String>,
    #[serde(default)]
    input_requests: BTreeMap<String, Request>,
    #[serde(default)]
    request_state: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Request {
    method: String,
    #[serde(default)]
    params: Option<Asked>,
}

/// Reads whether a result is final.
///
/// # Errors
/// [`Error::InputRequired`] when it asks for what cannot be given, [`Error::Protocol`] when its kind is unknown.
pub(crate) fn read(result: &Bytes) -> Result<Ending, Error> {
    // A missing kind means `complete`; most large results are not parsed a second time.
    if memchr::memmem::find(result, b"resultType").is_none() {
        return Ok(Ending::Complete);
    }
    let outcome: Outcome =
        serde_json::from_slice(result).map_err(|_| Error::Protocol("its result cannot be read".into()))?;
    match outcome.result_type.as_deref() {
        None | Some("complete") => Ok(Ending::Complete),
        Some("input_required") => again(outcome).map(Ending::Again),
        Some(other) => Err(Error::Protocol(format!("a result of the unknown kind `{}`", harmless(other)))),
    }
}

fn again(outcome: Outcome) -> Result<Answers, Error> {
    let mut input_responses = BTreeMap::new();
    for (key, request) in outcome.input_requests {
        let asked = request.params.unwrap_or_default();
        let form =
            request.method == "elicitation/create" && asked.mode.as_deref().unwrap_or("form") == "form";
        if !form {
            return Err(Error::InputRequired(asked.describe().unwrap_or_else(|| harmless(&request.method))));
        }
        input_responses.insert(key, Cancelled {});
    }
    if input_responses.is_empty() && outcome.request_state.is_none() {
        return Err(Error::Protocol("it asks for input without saying which".into()));
    }
    Ok(Answers { input_responses, request_state: outcome.request_state })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_str(text: &'static str) -> Result<Ending, Error> {
        read(&Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn a_missing_kind_is_complete_and_an_unknown_one_an_error() {
        for text in
            [r#"{"content":[]}"#, r#"{"resultType":"complete"}"#, r#"{"content":[{"resultType":"x"}]}"#]
        {
            assert!(matches!(read_str(text), Ok(Ending::Complete)), "{text}");
        }
        assert!(matches!(read_str(r#"{"resultType":"task"}"#), Err(Error::Protocol(_))));
    }

    #[test]
    fn a_form_is_cancelled_and_the_state_given_back_as_it_is() {
        let ending = read_str(
            r#"{"resultType":"input_required","inputRequests":{"k":{"method":"elicitation/create","params":{"message":"?"}}},"requestState":"{\"a\": 1}"}"#,
        );
        let Ok(Ending::Again(answers)) = ending else { panic!("{ending:?}") };
        assert_eq!(
            serde_json::to_string(&answers).unwrap(),
            r#"{"inputResponses":{"k":{"action":"cancel"}},"requestState":"{\"a\": 1}"}"#
        );
    }

    #[test]
    fn an_address_is_shown_with_its_host() {
        let asked = read_str(
            r#"{"resultType":"input_required","inputRequests":{"k":{"method":"elicitation/create","params":{"mode":"url","url":"https://login.example/a?b","message":"Sign in"}}}}"#,
        );
        let Err(Error::InputRequired(text)) = asked else { panic!("{asked:?}") };
        assert_eq!(text, "open https://login.example/a?b (at login.example) Sign in");
    }

    #[test]
    fn sampling_and_roots_are_not_answered() {
        let asked = read_str(
            r#"{"resultType":"input_required","inputRequests":{"k":{"method":"sampling/createMessage","params":{}}}}"#,
        );
        assert!(matches!(asked, Err(Error::InputRequired(text)) if text == "sampling/createMessage"));
    }
}
