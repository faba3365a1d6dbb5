//! What is seen of one call while it runs: progress, pages that the server wants opened meanwhile, and the task that
//! it may become.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;
use tokio::time::Instant;
use url::Url;

use super::durable::Step;
use super::event::RunEvent;
use super::execute::Calling;
use super::logins::Missing;
use super::options::OnAuth;
use super::pages::Patience;
use crate::tools::{Follower, Opening, Progress, Server, TaskRef};

/// Progress is shown no more often than this.
const PROGRESS_PAUSE: Duration = Duration::from_millis(250);

/// The task that a call has become, for as long as it is not over: it is gone on with instead of calling again.
#[derive(Default)]
pub(super) struct OpenTask(Mutex<Option<TaskRef>>);

impl OpenTask {
    pub(super) fn get(&self) -> Option<TaskRef> {
        let task = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        task.clone().filter(|task| !task.is_over())
    }

    /// Whether something has begun whose end nobody knows.
    pub(super) fn is_unsettled(&self) -> bool {
        let task = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        task.as_ref().is_some_and(|task| !task.is_over() || task.was_given_up())
    }

    pub(super) fn set(&self, task: &TaskRef) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.clone());
    }
}

/// Follows one call for its viewer.
pub(super) struct Following<'a> {
    calling: &'a Calling<'a>,
    patience: &'a Patience,
    task: &'a OpenTask,
    /// When progress was shown last.
    last: Mutex<Option<Instant>>,
    /// The pages that a person was shown.
    shown: Mutex<Vec<Missing>>,
    any_shown: Notify,
}

impl<'a> Following<'a> {
    pub(super) fn new(calling: &'a Calling<'a>, patience: &'a Patience, task: &'a OpenTask) -> Self {
        let (last, shown) = (Mutex::default(), Mutex::default());
        Following { calling, patience, task, last, shown, any_shown: Notify::new() }
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

    fn task<'b>(&'b self, task: &'b TaskRef) -> BoxFuture<'b, ()> {
        self.task.set(task);
        let Calling { sink, place, server, .. } = self.calling;
        let kept = || Step::Task {
            place: *place,
            task: task.clone(),
            server: server.spec.label.clone(),
            brought: server.spec.authorization.is_some(),
        };
        let keeping = async move {
            // Lost in this moment, it is asked for by nobody, and its outcome is unknown.
            let _ = sink.step_for_good(kept).await;
        };
        keeping.boxed()
    }

    fn keeps_task(&self) -> bool {
        self.calling.sink.log().is_some_and(|log| log.is_handed_over())
    }

    fn server(&self) -> BoxFuture<'_, Option<Server>> {
        let Calling { logins, server, .. } = self.calling;
        let looking_up = async {
            // Where it cannot be looked up, the last credential serves as long as the server takes it.
            let access = logins.find_access(&server.spec).await.ok()?;
            Some(logins.server(&server.spec, access.as_ref()))
        };
        looking_up.boxed()
    }
}
