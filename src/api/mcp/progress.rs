//! What of a run's events a client that waits is told, in words.

use crate::completion::event::RunEvent;
use crate::tools::text;

/// Longest text of a stranger in one notification, in characters.
const LONGEST: usize = 120;
/// Longest address of a login, in characters: one that is cut leads nowhere.
const LONGEST_ADDRESS: usize = 2000;

/// The words of a notification; `None` for what is not worth one.
pub(super) fn words(event: &RunEvent) -> Option<String> {
    let line = |words: &str| text::one_line(words, LONGEST);
    Some(match event {
        RunEvent::TurnStarted { turn, .. } => format!("turn {turn}: the model answers"),
        RunEvent::ToolCall(call) => format!("calling {} ({})", line(&call.tool), line(&call.host)),
        RunEvent::ToolProgress { message: Some(message), .. } => line(message),
        RunEvent::ToolResult(ended) => {
            let outcome = if ended.result.is_error { "failed" } else { "is done" };
            format!("{} ({}) {outcome}", line(&ended.tool), line(&ended.host))
        }
        RunEvent::AuthorizationRequired(login) => {
            let host = line(&login.host);
            match login.connect_url.as_deref() {
                Some(url) => format!("{host} wants a login: {}", text::one_line(url, LONGEST_ADDRESS)),
                None => format!("{host} wants a login"),
            }
        }
        RunEvent::Waiting { seconds, .. } => format!("waiting for the login, at most {seconds} s"),
        RunEvent::Authorized { host, .. } => format!("{} is logged in", line(host)),
        RunEvent::Notice(notice) => line(&notice.message),
        RunEvent::Resumed { turn } => format!("turn {turn} begins anew"),
        RunEvent::Accepted
        | RunEvent::Delta { .. }
        | RunEvent::CallerCall { .. }
        | RunEvent::ToolProgress { message: None, .. }
        | RunEvent::AuthorizationBatch(_)
        | RunEvent::Usage(_)
        | RunEvent::Finish { .. }
        | RunEvent::Error(_) => return None,
    })
}
