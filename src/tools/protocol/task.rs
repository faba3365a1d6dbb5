//! What servers say of tasks (extension `io.modelcontextprotocol/tasks`, revision 2026-07-28).
//!
//! Pure. Ids, messages and intervals are a stranger's: bounded here, and an id never leaves in a text.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::input::Request;
use super::message::{RpcError, code, harmless};
use crate::clean_json;
use crate::tools::{Error, TaskRef};

/// Longest id of a task, in bytes.
const LONGEST_ID: usize = 1024;
/// Ids shorter than this are taken for no secret, and may well be a word or a number of the text they stand in.
const SECRET_ID: usize = 8;
/// Things that a task may ask for at a time, and the longest name of one, in bytes.
const MOST_REQUESTS: usize = 100;
const LONGEST_KEY: usize = 1024;

/// A task that a call has become.
#[derive(Debug)]
pub(crate) struct Created {
    pub(crate) task: TaskRef,
    /// Whether it is at work: then nothing is to be had at once.
    pub(crate) works: bool,
}

/// How a task is.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) state: State,
    pub(crate) poll_ms: Option<u64>,
    /// On one line, bounded, without the id.
    pub(crate) message: Option<String>,
}

#[derive(Debug)]
pub(crate) enum State {
    Working,
    /// It asks for these.
    Waiting(BTreeMap<String, Request>),
    /// The result of the call.
    Completed(Bytes),
    Failed(RpcError),
    Cancelled,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    #[serde(borrow)]
    task_id: Cow<'a, str>,
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(default)]
    status_message: Option<String>,
    #[serde(borrow, default)]
    poll_interval_ms: Option<&'a RawValue>,
    #[serde(default)]
    input_requests: BTreeMap<String, Request>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<RpcError>,
}

impl Wire<'_> {
    fn poll_ms(&self) -> Option<u64> {
        let given: f64 = clean_json::from_str(self.poll_interval_ms?.get()).ok()?;
        // Saturates: what is out of range is bounded by whoever waits.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates, and NaN is 0"
        )]
        Some(given as u64)
    }
}

/// Reads `result` as a task that was made instead of a result.
///
/// # Errors
/// [`Error::Protocol`] when it is none.
pub(crate) fn created(result: &Bytes) -> Result<Created, Error> {
    let wire: Wire<'_> =
        clean_json::borrowed(result).map_err(|_| Error::Protocol("a task that cannot be read".into()))?;
    let id = wire.task_id.trim();
    if id.is_empty() || id.len() > LONGEST_ID || id != wire.task_id || id.chars().any(char::is_control) {
        return Err(Error::Protocol("a task without a usable name".into()));
    }
    Ok(Created { task: TaskRef::new(id.to_owned(), wire.poll_ms()), works: wire.status == "working" })
}

/// Reads `result` as how the task `id` is.
///
/// # Errors
/// [`Error::TaskLost`] when it cannot be read or is about another task, [`Error::InputRequired`] when it asks for too
/// much.
pub(crate) fn read(result: &Bytes, id: &str) -> Result<Report, Error> {
    let wire: Wire<'_> =
        clean_json::borrowed(result).map_err(|_| lost("what the server says of it cannot be read"))?;
    if wire.task_id != id {
        return Err(lost("asked about it, the server tells of another task"));
    }
    let poll_ms = wire.poll_ms();
    let message = wire.status_message.as_deref().map(|text| without_id(text, id));
    let message = message.filter(|text| !text.is_empty());
    let state = match &*wire.status {
        "working" => State::Working,
        "input_required" if is_too_much(&wire.input_requests) => {
            return Err(Error::InputRequired("more than can be answered".into()));
        }
        "input_required" => State::Waiting(wire.input_requests),
        "completed" => match wire.result {
            Some(inner) => State::Completed(result.slice_ref(inner.get().as_bytes())),
            None => return Err(lost("it has ended without a result")),
        },
        "failed" => {
            let said = |error: RpcError| RpcError { message: without_id(&error.message, id), ..error };
            let error = wire.error.map(said).filter(|error| !error.message.is_empty());
            State::Failed(error.unwrap_or_else(|| RpcError {
                code: code::INTERNAL,
                message: message.clone().unwrap_or_else(|| "the task failed".into()),
                data: None,
            }))
        }
        "cancelled" => State::Cancelled,
        other => {
            return Err(lost(&format!("the server says that it is `{}`", harmless(other))));
        }
    };
    Ok(Report { state, poll_ms, message })
}

fn is_too_much(requests: &BTreeMap<String, Request>) -> bool {
    requests.len() > MOST_REQUESTS || requests.keys().any(|key| key.len() > LONGEST_KEY)
}

/// The task is there, or was, and nothing certain can be said of it.
pub(crate) fn lost(reason: &str) -> Error {
    Error::TaskLost { reason: reason.to_owned() }
}

/// `text`, harmless and without the id it may repeat.
pub(crate) fn without_id(text: &str, id: &str) -> String {
    let text = if id.len() < SECRET_ID { Cow::from(text) } else { Cow::from(text.replace(id, "…")) };
    harmless(text.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn made(id: &str) -> Result<Created, Error> {
        created(&json!({ "resultType": "task", "taskId": id, "status": "working" }).to_string().into())
    }

    fn report(more: Value) -> Result<Report, Error> {
        let mut task = json!({ "resultType": "complete", "taskId": "the-task-id", "ttlMs": null });
        task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        read(&task.to_string().into(), "the-task-id")
    }

    #[test]
    fn a_name_that_is_none_is_no_task() {
        let (longest, too_long) = ("x".repeat(LONGEST_ID), "x".repeat(LONGEST_ID + 1));
        for good in ["1", "größe", "a b", &longest] {
            assert_eq!(made(good).unwrap().task.id, good);
        }
        for bad in ["", " ", " a", "a\n", "a\r\nauthorization: b", "a\u{0}", "a\u{85}b", &too_long] {
            assert!(matches!(made(bad), Err(Error::Protocol(_))), "{bad:?}");
        }
    }

    #[test]
    fn the_name_of_a_task_is_not_printed() {
        let created = made("786512e2-9e0d-44bd").unwrap();
        assert!(!format!("{created:?}").contains("786512e2"));
        let kept = serde_json::to_string(&created.task).unwrap();
        assert_eq!(kept, r#"{"id":"786512e2-9e0d-44bd"}"#);
        assert_eq!(serde_json::from_str::<TaskRef>(&kept).unwrap().id, created.task.id);
    }

    #[test]
    fn every_interval_is_read_or_left_out() {
        for (given, expect) in [
            (json!(5000), Some(5000)),
            (json!(0.5), Some(0)),
            (json!(-1), Some(0)),
            (json!(1e300), Some(u64::MAX)),
            (json!("soon"), None),
            (json!(null), None),
        ] {
            let read = report(json!({ "status": "working", "pollIntervalMs": given })).unwrap();
            assert_eq!(read.poll_ms, expect, "{given}");
        }
    }

    #[test]
    fn a_result_is_a_slice_of_the_answer() {
        let read = report(json!({ "status": "completed", "result": { "content": [] } })).unwrap();
        let State::Completed(result) = read.state else { panic!("{read:?}") };
        assert_eq!(&result[..], br#"{"content":[]}"#);
    }

    #[test]
    fn what_is_no_report_on_this_task_is_an_error() {
        for more in [
            json!({ "status": "completed" }),
            json!({ "status": "napping" }),
            json!({ "status": 1 }),
            json!({}),
            json!({ "status": "completed", "result": {}, "taskId": "another-task" }),
        ] {
            assert!(matches!(report(more.clone()), Err(Error::TaskLost { .. })), "{more}");
        }
        let many = (0..=MOST_REQUESTS).map(|k| k.to_string()).collect();
        for keys in [many, vec!["x".repeat(LONGEST_KEY + 1)]] {
            let requests: serde_json::Map<_, _> =
                keys.into_iter().map(|key| (key, json!({ "method": "x" }))).collect();
            let asked = report(json!({ "status": "input_required", "inputRequests": requests }));
            assert!(matches!(asked, Err(Error::InputRequired(_))), "{asked:?}");
        }
    }

    #[test]
    fn its_words_are_harmless_and_do_not_name_it() {
        let said = json!({ "status": "working", "statusMessage": " the-task-id:\u{1b}[31m half\ndone " });
        assert_eq!(report(said).unwrap().message.unwrap(), "…:[31m half done");
        let failed = json!({ "status": "failed", "error": { "code": -1, "message": "the-task-id is dead" } });
        let State::Failed(error) = report(failed).unwrap().state else { panic!() };
        assert_eq!((error.code, &*error.message), (-1, "… is dead"));
        let failed = json!({ "status": "failed", "statusMessage": "out of paper" });
        let State::Failed(error) = report(failed).unwrap().state else { panic!() };
        assert_eq!((error.code, &*error.message), (code::INTERNAL, "out of paper"));
    }
}
