//! Requests of a server in the middle of one of ours (MCP 2025-11-25 and older).

use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::input::{self, Asked, Response};
use super::request::{self, Reply};
use super::{Follow, input::pages};
use crate::tools::{Error, Opening};

/// Pages that one request of ours may want opened; more are a server gone wild.
pub(crate) const MOST_PAGES: u32 = 10;

/// How such a request is dealt with.
pub(crate) struct Dealt {
    /// What the server is told.
    pub(crate) answer: Bytes,
    /// How our own request goes on: as before, with time for a person, or not at all.
    pub(crate) then: Result<Option<Duration>, Error>,
}

/// A `ping` is answered, a page is shown, a form is cancelled. Anything else is not something we do. `shown` counts the
/// pages of the request of ours that this interrupts.
pub(crate) async fn deal(
    id: &RawValue,
    method: &str,
    asked: Option<&Asked>,
    shown: &mut u32,
    follow: Follow<'_>,
) -> Dealt {
    let (reply, then) = match (method, asked) {
        ("ping", _) => (Reply::Empty, Ok(None)),
        ("elicitation/create", Some(asked)) if asked.is_page() && *shown < MOST_PAGES => {
            *shown += 1;
            let (response, then) = open(asked, follow).await;
            (Reply::Elicited(response), then)
        }
        // Nobody could fill in a form. Servers of 2025-06-18 take our declaration of pages for one of forms; an error
        // would end their tool, where a form that was dismissed lets it say what it misses.
        ("elicitation/create", _) => (Reply::Elicited(Response::Cancel), Ok(None)),
        _ => (Reply::NotFound, Ok(None)),
    };
    Dealt { answer: request::answer(id, reply), then }
}

/// Has a page shown: what the server is told, and how the request goes on.
pub(crate) async fn open(asked: &Asked, follow: Follow<'_>) -> (Response, Result<Option<Duration>, Error>) {
    let Some(page) = asked.page() else { return (Response::Decline, Err(input::no_page())) };
    match follow.page(&page).await {
        Opening::Shown(wait) => (Response::Accept, Ok(Some(wait))),
        Opening::Afterwards => (Response::Accept, Err(pages(std::slice::from_ref(asked), None))),
        Opening::Refused => (
            Response::Decline,
            Err(Error::InputRequired("a page to be opened whose address is not allowed".into())),
        ),
    }
}
