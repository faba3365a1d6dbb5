//! What a server that wants input asks for (MCP 2026-07-28, multi round-trip requests; elicitation).
//!
//! Nobody sits at the gateway, so a form is cancelled and an address is reported, to be shown; it is never opened.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use url::Url;

use super::message::harmless;
use super::task::{self, Created};
use crate::clean_json;
use crate::tools::Error;
use crate::tools::error::{PageRequired, Resume};

/// Longest address that a person is asked to open, in bytes, and how many of them at a time.
const LONGEST_PAGE: usize = 4096;
const MOST_PAGES: usize = 10;

/// One thing asked for: an elicitation's parameters, as far as they are understood. Its message is left unread: the
/// gateway says in its own words what is asked.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Asked {
    #[serde(default)]
    mode: Option<String>,
    #[serde(default)]
    url: Option<String>,
}

impl Asked {
    /// The address to open, when it is one of the web.
    pub(crate) fn page(&self) -> Option<Url> {
        let text = self.url.as_deref().filter(|text| text.len() <= LONGEST_PAGE)?;
        Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
    }

    /// Whether a page is to be opened, wherever it is.
    pub(crate) fn is_page(&self) -> bool {
        self.mode.as_deref() == Some("url")
    }

    pub(crate) fn is_form(&self) -> bool {
        self.mode.as_deref().unwrap_or("form") == "form"
    }
}

/// The error that a URL elicitation stands for; `resume` is what a repeated call brings.
pub(crate) fn pages(asked: &[Asked], resume: Option<Answers>) -> Error {
    let pages: Vec<Url> = asked.iter().filter_map(Asked::page).take(MOST_PAGES).collect();
    if pages.is_empty() {
        return no_page();
    }
    Error::PageRequired(Box::new(PageRequired {
        pages,
        resume: resume.map(|answers| Resume(Box::new(answers))),
    }))
}

/// The error for a page that nobody could open.
pub(crate) fn no_page() -> Error {
    Error::InputRequired("a page to be opened, without an address of the web".into())
}

/// What came instead of a final result.
#[derive(Debug)]
pub(crate) enum Ending {
    Complete,
    /// Repeat the call with these.
    Again(Answers),
    /// The call goes on as a task.
    Task(Created),
}

/// What a repeated call carries besides its arguments.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Answers {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) input_responses: BTreeMap<String, Response>,
    /// Opaque: given back byte for byte, or not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request_state: Option<Box<RawValue>>,
}

/// The answer to one thing asked for.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(tag = "action", rename_all = "lowercase")]
pub(crate) enum Response {
    /// A form that nobody can fill in.
    Cancel,
    /// A page that nobody is shown.
    Decline,
    /// A page that was shown to the person, who may open it. It does not say that they are done there.
    Accept,
}

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

/// One thing that is asked for instead of a result.
#[derive(Debug, Deserialize)]
pub(crate) struct Request {
    pub(crate) method: String,
    #[serde(default)]
    pub(crate) params: Option<Asked>,
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
        clean_json::borrowed(result).map_err(|_| Error::Protocol("its result cannot be read".into()))?;
    match outcome.result_type.as_deref() {
        None | Some("complete") => Ok(Ending::Complete),
        Some("input_required") => again(outcome).map(Ending::Again),
        Some("task") => task::created(result).map(Ending::Task),
        Some(other) => Err(Error::Protocol(format!("a result of the unknown kind `{}`", harmless(other)))),
    }
}

fn again(outcome: Outcome) -> Result<Answers, Error> {
    let mut input_responses = BTreeMap::new();
    let mut shown = Vec::new();
    for (key, request) in outcome.input_requests {
        let asked = request.params.unwrap_or_default();
        let response = match (request.method.as_str(), asked.mode.as_deref()) {
            ("elicitation/create", _) if asked.is_form() => Response::Cancel,
            ("elicitation/create", Some("url")) => {
                shown.push(asked);
                Response::Accept
            }
            _ => return Err(Error::InputRequired(harmless(&request.method))),
        };
        input_responses.insert(key, response);
    }
    if input_responses.is_empty() && outcome.request_state.is_none() {
        return Err(Error::Protocol("it asks for input without saying which".into()));
    }
    let answers = Answers { input_responses, request_state: outcome.request_state };
    if shown.is_empty() { Ok(answers) } else { Err(pages(&shown, Some(answers))) }
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
        for text in [r#"{"resultType":"job"}"#, r#"{"resultType":"task"}"#] {
            assert!(matches!(read_str(text), Err(Error::Protocol(_))), "{text}");
        }
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

    fn pages_of(params: &str) -> Result<Ending, Error> {
        let text = format!(
            r#"{{"resultType":"input_required","inputRequests":{{"k":{{"method":"elicitation/create","params":{params}}}}},"requestState":"s"}}"#
        );
        read(&text.into())
    }

    #[test]
    fn a_page_is_reported_with_what_continues_the_call() {
        let asked = pages_of(r#"{"mode":"url","url":"https://LOGIN.example/a?b","message":"Sign in"}"#);
        let Err(Error::PageRequired(required)) = asked else { panic!("{asked:?}") };
        assert_eq!(required.pages[0].as_str(), "https://login.example/a?b");
        assert_eq!(
            serde_json::to_string(&*required.resume.unwrap().0).unwrap(),
            r#"{"inputResponses":{"k":{"action":"accept"}},"requestState":"s"}"#
        );
    }

    #[test]
    fn what_is_no_address_of_the_web_is_never_a_page() {
        let long = format!("https://a.example/{}", "x".repeat(LONGEST_PAGE));
        for url in ["javascript:alert(1)", "data:text/html,x", "file:///etc/passwd", "mailto:a@b", "", &long]
        {
            let asked = pages_of(&format!(r#"{{"mode":"url","url":"{url}","message":"m"}}"#));
            assert!(matches!(asked, Err(Error::InputRequired(_))), "{url}: {asked:?}");
        }
    }

    #[test]
    fn sampling_and_roots_are_not_answered() {
        let asked = read_str(
            r#"{"resultType":"input_required","inputRequests":{"k":{"method":"sampling/createMessage","params":{}}}}"#,
        );
        assert!(matches!(asked, Err(Error::InputRequired(text)) if text == "sampling/createMessage"));
    }
}
