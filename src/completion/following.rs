//! What is seen of one call while it runs: progress, and pages that the server wants opened meanwhile.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;
use tokio::time::Instant;
use url::Url;

use super::event::RunEvent;
use super::execute::Calling;
use super::logins::Missing;
use super::options::OnAuth;
use super::pages::Patience;
use crate::tools::{Follower, Opening, Progress};

/// Progress is shown no more often than this.
const PROGRESS_PAUSE: Duration = Duration::from_millis(250);

/// Follows one call for its viewer.
pub(super) struct Following<'a> {
    calling: &'a Calling<'a>,
    patience: &'a Patience,
    /// When progress was shown last.
    last: Mutex<Option<Instant>>,
    /// The pages that a person was shown.
    shown: Mutex<Vec<Missing>>,
    any_shown: Notify,
}

impl<'a> Following<'a> {
    pub(super) fn new(calling: &'a Calling<'a>, patience: &'a Patience) -> Self {
        let (last, shown) = (Mutex::default(), Mutex::default());
        Following { calling, patience, last, shown, any_shown: Notify::new() }
    }

    /// Ready when the process is asked to stop while the call waits for a person.
    pub(super) async fn stopping(&self) {
        self.any_shown.notified().await;
        self.calling.logins.stopping().await;
    }

    /// The pages that a person was shown during the call.
    pub(super) fn shown(&self) -> Vec<Missing> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn open(&self, page: &Url) -> Opening {
        let Calling { logins, sink, .. } = self.calling;
        let Some(page) = self.calling.page(page) else { return Opening::Refused };
        if logins.on_auth != OnAuth::Wait {
            return Opening::Afterwards;
        }
        let pages = [page];
        let told = async {
            logins.show(&pages, sink).await?;
            logins.show_waiting(&pages, sink).await
        };
        if told.await.is_err() {
            // The viewer has left, and the call ends with it.
            return Opening::Refused;
        }
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).extend(pages);
        self.any_shown.notify_one();
        Opening::Shown(self.patience.until(logins.wait).saturating_duration_since(Instant::now()))
    }
}

impl Follower for Following<'_> {
    fn progress(&self, said: Progress) {
        let now = Instant::now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| now - last < PROGRESS_PAUSE) {
            return;
        }
        *last = Some(now);
        let Calling { logins, sink, call, .. } = self.calling;
        let Progress { progress, total, message } = said;
        let message = message.map(|message| logins.parts.links.broken_in(&message).into_owned());
        sink.offer(RunEvent::ToolProgress { call_id: call.id.clone(), progress, total, message });
    }

    fn page<'a>(&'a self, page: &'a Url) -> BoxFuture<'a, Opening> {
        self.open(page).boxed()
    }
}
