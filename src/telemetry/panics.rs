//! What happens to a panic: it ends nothing but what it happened in, is logged with its place in the code, and counted.

use std::ops::Deref;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;

use super::Metrics;

/// How long background work rests before it begins again after a panic.
const REST: Duration = Duration::from_secs(1);

/// What a panic ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PanicSite {
    /// A request before its answer began.
    Request,
    /// The body of an answer that had begun.
    Answer,
    /// A run.
    Run,
    /// Work that no request waits for. It begins again.
    Background,
}

impl PanicSite {
    /// Its word in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            PanicSite::Request => "request",
            PanicSite::Answer => "answer",
            PanicSite::Run => "run",
            PanicSite::Background => "background",
        }
    }
}

/// Logs where in the code every panic happens, in the form of all other logs. Its message is left out unless it is a
/// literal: it may hold what a stranger sent. Set once, by the process's own command.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let words = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("(not a fixed text)");
        tracing::error!(
            panic.location = place,
            panic.message = words,
            "toolgate has a defect; please report it"
        );
    }));
}

/// The output of `future`, or `None` when it panicked, which is counted. `id` names the request, run or work in the log.
///
/// Not an `async fn`: that would keep room for `future` twice, in every request and run.
pub fn catch_panic<F: Future>(
    metrics: impl Deref<Target = Metrics>,
    site: PanicSite,
    id: impl AsRef<str>,
    future: F,
) -> impl Future<Output = Option<F::Output>> {
    let note = move |_| note_panic(&metrics, site, id.as_ref());
    AssertUnwindSafe(future).catch_unwind().map(|output| output.map_err(note).ok())
}

/// Counts and logs a panic that was caught.
pub fn note_panic(metrics: &Metrics, site: PanicSite, id: &str) {
    metrics.panic(site);
    tracing::error!(panic.site = site.as_str(), panic.id = id, "a panic was caught");
}

/// Does work that lasts as long as the process. After a panic it is begun again.
pub async fn supervise(metrics: Arc<Metrics>, name: &'static str, begin: impl AsyncFnMut()) {
    supervise_resting(metrics, name, REST, begin).await;
}

async fn supervise_resting(
    metrics: Arc<Metrics>,
    name: &'static str,
    rest: Duration,
    mut begin: impl AsyncFnMut(),
) {
    while catch_panic(&*metrics, PanicSite::Background, name, begin()).await.is_none() {
        tokio::time::sleep(rest).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(metrics: &Metrics, site: &str) -> String {
        let encoded = metrics.encode();
        let name = format!("toolgate_panics_total{{site=\"{site}\"}} ");
        encoded
            .lines()
            .find_map(|line| line.strip_prefix(&name))
            .expect("it is counted from the start")
            .to_owned()
    }

    #[tokio::test]
    async fn a_panic_is_counted_where_it_happened_and_ends_nothing_else() {
        let metrics = Metrics::default();
        assert_eq!(catch_panic(&metrics, PanicSite::Request, "req_1", async { 7 }).await, Some(7));
        let panicking = async { panic!("for a test") };
        assert_eq!(
            catch_panic(&metrics, PanicSite::Request, "req_2", async { panicking.await as () }).await,
            None
        );
        assert_eq!((counted(&metrics, "request"), counted(&metrics, "run")), ("1".into(), "0".into()));
    }

    #[tokio::test]
    async fn background_work_begins_again() {
        let metrics = Arc::new(Metrics::default());
        let mut times = 0;
        supervise_resting(Arc::clone(&metrics), "test", Duration::ZERO, async || {
            times += 1;
            assert!(times == 3, "for a test");
        })
        .await;
        assert_eq!((times, counted(&metrics, "background")), (3, "2".into()));
    }
}
