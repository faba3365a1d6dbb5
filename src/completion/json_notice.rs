//! The notice that JSON from outside was not kept as it came.

use super::event::{Notice, RunEvent};

/// Code of the notice.
const CODE: &str = "json_repaired";

/// A notice that `whose` JSON had something that was replaced. `whose` begins the sentence.
pub fn json_repaired(whose: &str) -> Notice {
    let message = format!(
        "{whose} had characters, numbers or nesting that no JSON value can hold; toolgate replaced them (see \
         \"JSON from outside\" in docs/reference/http.md)."
    );
    Notice { code: CODE.to_owned(), message }
}

/// As an event of the run.
pub fn json_repaired_event(whose: &str) -> RunEvent {
    RunEvent::Notice(json_repaired(whose))
}
