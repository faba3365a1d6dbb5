//! Pages that go on by themselves: one reader of a run's events for all who have its page open.
//!
//! What they get is drawn once, a few times a second at most, and everybody is sent what changed since they were sent
//! something last. Who is slow gets fewer and larger pieces.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use askama::Template;
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::show::{facts, links};
use super::view::{Links, View};
use crate::bounds::BoundGuard;
use crate::clock::Clock;
use crate::completion::{Reader, Record, Runs, Status};
use crate::sse;
use crate::web::site::Site;

/// Between two drawings of a run.
const PAUSE: Duration = Duration::from_millis(150);
/// How often a quiet stream says that it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// After how long the browser asks again when a stream breaks, in milliseconds.
const RETRY_MS: u32 = 1500;

/// What a page shows at one moment.
#[derive(Default)]
struct Shown {
    elements: Vec<Arc<str>>,
    facts: String,
    waits: bool,
    ended: bool,
}

/// A run that somebody has open.
struct Open(watch::Receiver<Arc<Shown>>);

/// Which drawing of a run: its owner's, and with login links or without.
type Key = (String, bool, bool);

/// The runs whose pages are open.
#[derive(Default)]
pub(in crate::web) struct Live {
    open: Arc<Mutex<HashMap<Key, Weak<Open>>>>,
}

impl Live {
    /// The stream for one page. It ends with the run; and before, when it cannot be followed here any more: the
    /// browser then asks again.
    pub fn watch(
        &self,
        site: &Site,
        record: Record,
        reader: Reader,
        place: BoundGuard,
    ) -> impl Stream<Item = Result<Bytes, axum::Error>> + use<> {
        let links = links(&record);
        let key = (record.id.clone(), record.is_own, links == Links::Shown);
        let mut all = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let open = match all.get(&key).and_then(Weak::upgrade) {
            Some(open) => open,
            None => {
                let (latest, receiver) = watch::channel(Arc::default());
                let open = Arc::new(Open(receiver));
                all.insert(key.clone(), Arc::downgrade(&open));
                let drawing =
                    Drawing { runs: site.runs().clone(), record, reader, links, clock: site.clock.clone() };
                let (shared, mut stopping) = (Arc::clone(&self.open), site.engine.stopping());
                tokio::spawn(async move {
                    tokio::select! {
                        () = drawing.draw(&latest) => {}
                        () = latest.closed() => {}
                        // The browser asks again, and another process answers.
                        _ = stopping.wait_for(|stopping| *stopping) => {}
                    }
                    let mut all = shared.lock().unwrap_or_else(PoisonError::into_inner);
                    // Who comes from now on begins anew.
                    if all.get(&key).is_some_and(|open| {
                        open.upgrade().is_none_or(|open| open.0.same_channel(&latest.subscribe()))
                    }) {
                        all.remove(&key);
                    }
                });
                open
            }
        };
        drop(all);
        let mut latest = open.0.clone();
        latest.mark_changed();
        let viewer = Viewer {
            _open: open,
            _place: place,
            latest,
            sent: Vec::new(),
            facts: String::new(),
            is_first: true,
            has_ended: false,
        };
        stream::unfold(viewer, |mut viewer| async move {
            let piece = viewer.next().await?;
            Some((Ok(piece), viewer))
        })
    }
}

/// Follows one run and draws it.
struct Drawing {
    runs: Runs,
    record: Record,
    reader: Reader,
    links: Links,
    clock: Clock,
}

impl Drawing {
    async fn draw(mut self, latest: &watch::Sender<Arc<Shown>>) {
        let mut events = match self.runs.follow(&self.record, 0).await {
            Ok(events) => events,
            Err(error) => {
                tracing::debug!(%error, "a run could not be followed");
                return;
            }
        };
        let mut view = View::new(self.links);
        while let Some((_, event)) = events.next().await {
            view.push(&event);
            let there = events.number();
            while let Ok(Some(event)) = events.next_below(there).await {
                view.push(&event);
            }
            self.look_again(&view).await;
            let facts = facts(&self.record, self.clock.unix_milliseconds()).render().unwrap_or_default();
            let (waits, ended) = (view.is_waiting(), view.has_ended);
            latest.send_replace(Arc::new(Shown { elements: view.elements(), facts, waits, ended }));
            if ended {
                return;
            }
            sleep(PAUSE).await;
        }
    }

    /// What the record says changes with the events; its end has the whole truth.
    async fn look_again(&mut self, view: &View) {
        if view.has_ended
            && let Ok(Some(record)) = self.runs.find(&self.record.id, &self.reader).await
            && record.status.is_over()
        {
            self.record = record;
            return;
        }
        self.record.status = if view.is_waiting() { Status::RequiresAction } else { Status::InProgress };
        self.record.turns = view.turns.into();
        self.record.tool_calls = view.tool_calls.into();
        self.record.prompt_tokens = i64::try_from(view.tokens_in).unwrap_or(i64::MAX);
        self.record.completion_tokens = i64::try_from(view.tokens_out).unwrap_or(i64::MAX);
    }
}

/// One open page.
struct Viewer {
    /// Keeps the drawing going.
    _open: Arc<Open>,
    /// The page's place among its reader's open answers.
    _place: BoundGuard,
    latest: watch::Receiver<Arc<Shown>>,
    sent: Vec<Arc<str>>,
    facts: String,
    is_first: bool,
    has_ended: bool,
}

impl Viewer {
    /// The next bytes of the stream.
    async fn next(&mut self) -> Option<Bytes> {
        let mut out = Vec::new();
        if std::mem::take(&mut self.is_first) {
            out.extend_from_slice(format!("retry: {RETRY_MS}\n\n").as_bytes());
            return Some(out.into());
        }
        while !self.has_ended {
            match timeout(KEEP_ALIVE, self.latest.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return None,
                Err(_) => {
                    sse::comment(&mut out, "still here");
                    return Some(out.into());
                }
            }
            let shown = Arc::clone(&self.latest.borrow_and_update());
            if let Some(message) = self.message(&shown) {
                sse::data(&mut out, message.as_bytes());
                return Some(out.into());
            }
        }
        None
    }

    /// What has changed since the last message; `None` when nothing has, and before anything was drawn.
    fn message(&mut self, shown: &Shown) -> Option<String> {
        if shown.facts.is_empty() {
            return None;
        }
        let same = self.sent.iter().zip(&shown.elements).take_while(|(sent, now)| sent == now).count();
        let is_same = same == self.sent.len() && same == shown.elements.len();
        if is_same && self.facts == shown.facts && !shown.ended {
            return None;
        }
        self.has_ended = shown.ended;
        self.sent.clone_from(&shown.elements);
        self.facts.clone_from(&shown.facts);
        let elements: Vec<&str> = shown.elements[same..].iter().map(|element| &**element).collect();
        let message = json!({
            "from": same,
            "elements": elements,
            "facts": shown.facts,
            "waits": shown.waits,
            "ended": shown.ended,
        });
        Some(message.to_string())
    }
}
