//! Following runs: those of this process, those of others, and those that have ended.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::broadcast;

use super::event_reader::EventReader;
use super::log::Log;
use super::record::{Record, Visibility};
use super::runs::{Inner, Runs};
use super::step::Step;
use super::viewer::{LogViewer, Viewer};
use crate::clean_json;
use crate::completion::event::RunEvent;
use crate::store::{Error, RunRow, RunState};

/// Rows of events that are read at once.
const ROWS: i64 = 500;
/// How often a run of another process is looked at when nobody tells of it.
const LOOK: Duration = Duration::from_secs(1);

impl Runs {
    /// Follows a run from its event `first`, which may be any number: one that is not there begins from the start.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn follow(&self, record: &Record, first: usize) -> Result<LogViewer, Error> {
        let log = self.log(record).await?;
        let there = || log.watch_settled().borrow().events;
        let lacks_end = || {
            let last = there().checked_sub(1).and_then(|last| log.event(last));
            record.ended_at.is_some() && !last.is_some_and(|last| last.is_last())
        };
        if log.is_followed() && (first > there() || lacks_end()) {
            // Its reader may have seen more at the process that carries the run out; and what its record says of its end
            // is to be found among its events.
            self.0.catch_up(&log).await?;
        }
        if !log.is_followed() && lacks_end() {
            // It is in the store; that the log knows so takes a moment.
            let _ = tokio::time::timeout(LOOK, log.ended()).await;
        }
        let there = there();
        let first = if first > there { 0 } else { first };
        Ok(Viewer::of_settled(log, first, record.is_own))
    }

    /// The events of a run so far.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn events(&self, record: &Record) -> Result<EventReader, Error> {
        Ok(EventReader::of(self.follow(record, 0).await?))
    }

    async fn log(&self, record: &Record) -> Result<Arc<Log>, Error> {
        if let Some(log) = self.0.journal.find(&record.id) {
            return Ok(log);
        }
        if let Some(log) = self.followed().get(record.id.as_str()).and_then(Weak::upgrade) {
            return Ok(log);
        }
        let Some(row) = self.row(&record.id).await? else {
            return Err(Error::Unexpected("the run was deleted".to_owned()));
        };
        // What comes before is read from the store by whoever wants it.
        let first = self.0.store.find_last_events(&row.project, &row.id).await?;
        let first = usize::try_from(first.unwrap_or(0)).unwrap_or(0);
        let log = Log::followed(&row, first, self.0.journal.clone());
        let mut news = self.0.news.subscribe();
        let is_over = row.ended_at.is_some();
        self.0.catch_up(&log).await?;
        self.0.see(&log).await?;
        if is_over {
            return Ok(log);
        }
        {
            let mut followed = self.followed();
            if let Some(other) = followed.get(&log.id).and_then(Weak::upgrade) {
                return Ok(other);
            }
            followed.insert(Arc::clone(&log.id), Arc::downgrade(&log));
        }
        let (inner, weak, id) = (Arc::clone(&self.0), Arc::downgrade(&log), Arc::clone(&log.id));
        tokio::spawn(async move {
            inner.keep_up(&weak, &id, &mut news).await;
            let mut followed = inner.followed.lock().unwrap_or_else(PoisonError::into_inner);
            if followed.get(&id).is_some_and(|now| now.ptr_eq(&weak)) {
                followed.remove(&id);
            }
        });
        Ok(log)
    }

    fn followed(&self) -> std::sync::MutexGuard<'_, HashMap<Arc<str>, Weak<Log>>> {
        self.0.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Reads what is new of a run of another process.
    async fn catch_up(&self, log: &Log) -> Result<(), Error> {
        loop {
            let first = log.watch_settled().borrow().events;
            let from = i64::try_from(first).unwrap_or(i64::MAX);
            let rows = self.store.list_run_events(&log.project, &log.id, from, ROWS).await?;
            let is_all = rows.len() < usize::try_from(ROWS).unwrap_or(usize::MAX);
            let mut next = first;
            let mut events = Vec::new();
            for batch in rows {
                let begins = usize::try_from(batch.first).unwrap_or(usize::MAX);
                let known = next.saturating_sub(begins);
                let batch: Vec<RunEvent> = read_all(&batch.events)?;
                next += batch.len().saturating_sub(known);
                events.extend(batch.into_iter().skip(known));
            }
            if !events.is_empty() {
                // Behind the events: one of them may be the reason that strangers may not read on.
                self.see(log).await?;
                log.follow(first, events);
            }
            if is_all {
                return Ok(());
            }
        }
    }

    /// Reads on until the run has ended, or nobody follows it any more.
    async fn keep_up(&self, log: &Weak<Log>, id: &str, news: &mut broadcast::Receiver<String>) {
        loop {
            let heard = async {
                loop {
                    match news.recv().await {
                        Ok(named) if named.is_empty() || named == id => return,
                        Ok(_) => {}
                        Err(_) => return,
                    }
                }
            };
            // Whether anybody told or not.
            let _ = tokio::time::timeout(LOOK, heard).await;
            let Some(log) = log.upgrade() else { return };
            let is_over = match self.see(&log).await {
                Ok(Some(state)) => state.ended_at.is_some(),
                Ok(None) => return log.lose(),
                Err(error) => {
                    tracing::debug!(%error, "a run of another process could not be looked at");
                    continue;
                }
            };
            if let Err(error) = self.catch_up(&log).await {
                tracing::debug!(%error, "events of a run could not be read");
                continue;
            }
            if is_over {
                return;
            }
        }
    }

    /// Looks who may read a run now.
    async fn see(&self, log: &Log) -> Result<Option<RunState>, Error> {
        let state = self.store.find_run_state(&log.id).await?;
        if let Some(state) = &state {
            log.set_visibility(Visibility::parse(&state.visibility).unwrap_or(Visibility::Private));
        }
        Ok(state)
    }

    /// The whole journal of a run, to go on with it: events, steps, and the place of the next batch.
    pub(super) async fn journal_of(
        &self,
        row: &RunRow,
    ) -> Result<(Vec<Arc<RunEvent>>, Vec<Step>, i64), Error> {
        let log = Log::read_whole(row, self.journal.clone());
        self.catch_up(&log).await?;
        let mut steps = Vec::new();
        for batch in self.store.list_run_steps(&row.project, &row.id).await? {
            steps.extend(read_all::<Step>(&batch.steps.unwrap_or_default())?);
        }
        let last = self.store.last_batch(&row.project, &row.id).await?;
        let place = last.map_or(0, |(place, _, _)| place + 1);
        Ok((log.all_events(), steps, place))
    }
}

impl Log {
    /// The events from this number on in so many `rows` of the store, and the bytes of those rows; none when the run was
    /// deleted.
    pub(super) async fn read_stored(
        &self,
        first: usize,
        rows: i64,
    ) -> Result<(Vec<Arc<RunEvent>>, usize), Error> {
        let from = i64::try_from(first).unwrap_or(i64::MAX);
        let rows = self.journal().store().list_run_events(&self.project, &self.id, from, rows).await?;
        let bytes = rows.iter().map(|batch| batch.events.len()).sum();
        let mut events = Vec::new();
        for batch in rows {
            let begins = usize::try_from(batch.first).unwrap_or(usize::MAX);
            let known = (first + events.len()).saturating_sub(begins);
            let batch: Vec<RunEvent> = read_all(&batch.events)?;
            events.extend(batch.into_iter().skip(known).map(Arc::new));
        }
        Ok((events, bytes))
    }
}

/// Records of one batch, or of several that the store has put together: one array after the other.
fn read_all<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<Vec<T>, Error> {
    clean_json::records(bytes)
        .map_err(|error| Error::Unexpected(format!("a run's journal cannot be read: {error}")))
}
