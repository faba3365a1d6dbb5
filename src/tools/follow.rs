//! What a server says while one of its tools runs.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use url::Url;

use super::{Progress, Server, TaskRef};

/// Follows a call while it runs. A function of a [`Progress`] is one that opens no pages.
pub trait Follower: Send + Sync {
    fn progress(&self, progress: Progress);

    /// The server wants a person to open `page` while the call goes on (MCP 2025-11-25, elicitation in URL mode). It is
    /// an address of the web; nobody has judged it further. The server is answered when the future is ready.
    fn page<'a>(&'a self, _page: &'a Url) -> BoxFuture<'a, Opening> {
        ready(Opening::Refused).boxed()
    }

    /// The call goes on as `task` at the server. Said once, before the task is first asked about, which waits for the
    /// future: whoever keeps the task can go on with it after a restart ([`super::Tools::resume_task`]).
    fn task<'a>(&'a self, _task: &'a TaskRef) -> BoxFuture<'a, ()> {
        ready(()).boxed()
    }

    /// Whether somebody else goes on with the task. Asked when the future of the call is dropped: if not, nobody waits
    /// for the task any more, and the server is told to cancel it.
    fn keeps_task(&self) -> bool {
        false
    }

    /// The same server with the credential that is right now: a task outlives tokens, and a login may end meanwhile.
    /// Asked before each further question about a task; `None` means as before.
    fn server(&self) -> BoxFuture<'_, Option<Server>> {
        ready(None).boxed()
    }
}

/// What becomes of a page in the middle of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// A person has been shown it: the call goes on, and may be silent for this long.
    Shown(Duration),
    /// A person is shown it once the call is over: it ends in [`super::Error::PageRequired`].
    Afterwards,
    /// Nobody is shown it: the call ends in [`super::Error::InputRequired`].
    Refused,
}

impl<F: Fn(Progress) + Send + Sync> Follower for F {
    fn progress(&self, progress: Progress) {
        self(progress);
    }
}
