//! The runs that are kept, as the edges see them: found, followed, listed, cancelled, changed, deleted.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicI64};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::{broadcast, mpsc};

use super::creation::Creation;
use super::holdings::{StoredHoldings, StoredReservation};
use super::journal::{Journal, Writer};
use super::log::{Log, Stop};
use super::record::{Reader, Record, ShownSharing, Status, Visibility};
use super::resume::Resume;
use super::tell::Told;
use super::viewer::Viewer;
use crate::bounds::{LimitReached, Principal};
use crate::clock::Clock;
use crate::completion::event::{RunError, RunEvent};
use crate::completion::memory::HiddenTurns;
use crate::completion::start_kept::{Claim, Key};
use crate::config;
use crate::connections::Connections;
use crate::memory_budget::MemoryBudget;
use crate::rate_limit::{RateLimit, RetryAfterSeconds};
use crate::store::{Error, INTERRUPTED, NewKey, RunBatch, RunChange, RunFilter, RunRow, Store};

/// How long a run that is to be deleted may take to end.
const TO_END: Duration = Duration::from_secs(15);
/// Runs that have ended whose journals are made small in one go, and how often.
const TOGETHER: usize = 16;
const TIDY_EVERY: Duration = Duration::from_millis(100);
/// News that a follower may be behind.
const NEWS_AHEAD: usize = 1024;
/// Kept runs that callers for whom nobody vouches may start in a minute: from one place, and all those together whose
/// place is not known.
const STRANGERS_RUNS: u32 = 30;
const STRANGERS_TOGETHER: u32 = 600;
/// The kind of key under which the same question is found again.
pub(in crate::completion) const CONTENT: &str = "content";
/// What ids of runs begin with.
const PREFIX: &str = "run_";

/// All kept runs. Cheap to clone.
#[derive(Clone)]
pub struct Runs(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub store: Store,
    pub clock: Clock,
    pub journal: Journal,
    pub settings: config::Run,
    public_url: String,
    /// The turns that callers did not see.
    pub memory: HiddenTurns,
    /// Runs that have ended, by project and id: their journals are to be made small.
    ended: mpsc::UnboundedSender<Ended>,
    /// The process is about to stop: it takes over nothing any more.
    pub is_stopping: AtomicBool,
    /// Counts runs of callers for whom nobody vouches.
    strangers: RateLimit,
    /// As above, of those whose place is not known.
    strangers_together: RateLimit,
    /// Bounds for what principals store.
    pub holdings: StoredHoldings,
    /// Runs that were this process's in the store alone when it last looked.
    pub absent: Mutex<HashSet<String>>,
    /// When that was, in milliseconds since 1970.
    pub looked_at: AtomicI64,
    /// Runs that are being read to go on with them.
    pub taking_up: Mutex<HashSet<String>>,
    /// Runs of other processes that somebody here follows.
    pub followed: Mutex<HashMap<Arc<str>, Weak<Log>>>,
    /// Ids of runs of other processes that have something new; an empty one is all of them.
    pub news: broadcast::Sender<String>,
}

/// A run that has ended.
type Ended = (Arc<str>, Arc<str>);

/// What is done beside the runs. One task of the process has it.
pub struct Work {
    writer: Writer,
    to_tidy: mpsc::UnboundedReceiver<Ended>,
}

/// Why a run could not take its keys.
pub(in crate::completion) struct ClaimFailure {
    pub error: Error,
    /// The run, and its keys, may be in the store all the same.
    pub may_exist: bool,
}

impl From<Error> for ClaimFailure {
    fn from(error: Error) -> Self {
        ClaimFailure { error, may_exist: false }
    }
}

/// What became of a wish to change a run.
#[derive(Clone)]
pub enum Changed {
    Done(Box<Record>),
    /// There is no such run, or it is somebody else's and private.
    Unknown,
    /// It is somebody else's.
    NotYours,
    /// It is not as it was shown any more; nothing was changed.
    Stale,
    /// It does not end; it can be deleted when it has.
    StillRunning,
    /// It was not interrupted, so there is nothing to resume.
    NotInterrupted,
}

impl Runs {
    /// The runs in `store`, and the end of the journal that brings them there, for [`Runs::work`].
    pub fn new(
        store: Store,
        connections: Connections,
        clock: Clock,
        settings: &config::Settings,
        memory: HiddenTurns,
        memory_budget: MemoryBudget,
    ) -> (Self, Work) {
        let (journal, writer) =
            Journal::new(store.clone(), connections, clock.clone(), settings.run.max_bytes, memory_budget);
        let news = broadcast::Sender::new(NEWS_AHEAD);
        let followed = Mutex::default();
        let (ended, to_tidy) = mpsc::unbounded_channel();
        let holdings = StoredHoldings::new(store.clone(), &settings.limits);
        let is_stopping = AtomicBool::new(false);
        let inner = Inner {
            store,
            clock,
            journal,
            settings: settings.run.clone(),
            public_url: settings.public_url(),
            is_stopping,
            followed,
            news,
            memory,
            ended,
            absent: Mutex::default(),
            looked_at: AtomicI64::new(0),
            taking_up: Mutex::default(),
            strangers: RateLimit::default(),
            strangers_together: RateLimit::default(),
            holdings,
        };
        (Runs(Arc::new(inner)), Work { writer, to_tidy })
    }

    /// Memory for what is made of runs.
    pub fn memory_budget(&self) -> &MemoryBudget {
        self.0.journal.memory()
    }

    /// Counts a run that a caller starts for whom nobody vouches, by the place it comes from: what one place starts takes
    /// nothing from another.
    pub(in crate::completion) fn count_stranger(
        &self,
        place: Option<IpAddr>,
    ) -> Result<(), RetryAfterSeconds> {
        let inner = &self.0;
        if let Some(place) = place {
            return inner.strangers.check(&format!("{place}").into(), STRANGERS_RUNS);
        }
        inner.strangers_together.check(&"together".into(), STRANGERS_TOGETHER)
    }

    /// Room for a run of so many bytes; nothing where nothing is counted.
    pub(in crate::completion) async fn reserve(
        &self,
        principal: &Principal,
        bytes: i64,
    ) -> Result<Result<Option<StoredReservation>, LimitReached>, Error> {
        self.0.holdings.reserve(principal, bytes).await
    }

    /// The run that has one of these keys already.
    pub(in crate::completion) async fn find_claim(
        &self,
        project: &str,
        keys: &[Key],
    ) -> Result<Option<Claim>, Error> {
        let now = self.0.clock.unix_milliseconds();
        for (kind, hash, body_hash, _) in keys {
            if let Some((run, claimed_hash)) = self.0.store.find_key(project, kind, hash, now).await? {
                return Ok(Some(Claim { run, is_same: claimed_hash == body_hash }));
            }
        }
        Ok(None)
    }

    /// Takes a run's keys, and makes the run, unless another one has them: then that one is given.
    pub(in crate::completion) async fn claim(
        &self,
        row: &mut RunRow,
        keys: &[Key],
    ) -> Result<Option<Claim>, ClaimFailure> {
        let now = self.0.clock.unix_milliseconds();
        let instance = self.0.journal.instance();
        row.owner = instance.to_string();
        let mut open = self.0.store.begin().await?;
        if !open.still_alive(&instance, self.0.store.lease_clock(now)).await? {
            return Err(Error::Unavailable("this process was taken for dead".to_owned()).into());
        }
        for (kind, hash, body_hash, expires_at) in keys {
            let key = NewKey { kind, hash, body_hash, expires_at: *expires_at };
            let claimed = open.claim_key(&row.project, &key, &row.id, now).await?;
            if let Some(other) = Claim::of(claimed, &key) {
                if *kind == CONTENT {
                    // What was claimed before it is for the run that it leads to.
                    for (kind, hash, body_hash, expires_at) in
                        keys.iter().filter(|(kind, ..)| *kind != CONTENT)
                    {
                        open.release_key(&row.project, kind, &row.id).await?;
                        let key = NewKey { kind, hash, body_hash, expires_at: *expires_at };
                        open.claim_key(&row.project, &key, &other.run, now).await?;
                    }
                    open.commit().await?;
                }
                return Ok(Some(other));
            }
        }
        open.create_run(row).await?;
        open.commit().await.map_err(|error| ClaimFailure { error, may_exist: true })?;
        Ok(None)
    }

    /// Takes back a run that may be in the store though its writing is said to have failed. It is not carried out.
    pub(in crate::completion) fn withdraw(&self, row: RunRow) {
        let log = Log::begin(row, false, true, None, self.0.journal.clone());
        log.state().may_exist = true;
        log.refuse();
        self.0.journal.add(&log);
        log.open();
    }

    /// Waits until the store takes no writes.
    pub(in crate::completion) async fn until_outage(&self) {
        self.0.store.until_outage().await;
    }

    /// Why the store takes no writes at the moment, as far as is known.
    pub(in crate::completion) fn outage(&self) -> Option<&'static str> {
        self.0.store.outage()
    }

    /// The log of a run that begins here.
    pub(in crate::completion) fn begin(
        &self,
        row: RunRow,
        is_created: bool,
        is_chosen: bool,
        told: Option<Told>,
    ) -> Arc<Log> {
        let log = Log::begin(row, is_created, is_chosen, told, self.0.journal.clone());
        self.0.journal.add(&log);
        log.open();
        log
    }

    /// A viewer of a run that somebody else with the same key has begun, when it was made, and how many seconds ago it
    /// ended or, where it has not, was made.
    pub(in crate::completion) async fn join(&self, id: &str) -> Result<Option<(Viewer, i64, u64)>, Error> {
        let Some(row) = self.row(id).await? else { return Ok(None) };
        let viewer = match self.0.journal.find(id) {
            Some(log) => Viewer::live(log),
            None => {
                let owner = Reader { namespace: Some(row.project.as_str().into()), ..Reader::default() };
                let record = Record::of(&row, &owner);
                Viewer::Settled(self.follow(&record, 0).await?)
            }
        };
        let age = self.0.clock.unix_milliseconds() - row.ended_at.unwrap_or(row.created_at);
        Ok(Some((viewer, row.created_at, u64::try_from(age / 1000).unwrap_or(0))))
    }

    /// Whether another try of the request that began this run is to be answered by it: not when it failed without calling a
    /// tool, nor when its end is longer ago than `end_known`, in milliseconds.
    pub(in crate::completion) async fn may_be_joined(&self, id: &str, end_known: i64) -> Result<bool, Error> {
        // Its row may still be on its way into the store.
        if let Some(log) = self.0.journal.find(id) {
            match log.created().await {
                Creation::Created if log.is_over() => {}
                Creation::Created => return Ok(true),
                // It was not begun.
                Creation::Refused | Creation::Unknown => return Ok(false),
            }
        }
        let now = self.0.clock.unix_milliseconds();
        let Some(row) = self.row(id).await? else { return Ok(false) };
        let has_failed = row.status == Status::Failed.as_str() && row.usage.tool_calls == 0;
        Ok(!has_failed && row.ended_at.is_none_or(|ended_at| now - ended_at < end_known))
    }

    /// Ends a run that nobody can go on with.
    pub(in crate::completion) async fn give_up(&self, row: &RunRow, error: RunError) -> Result<(), Error> {
        let inner = &self.0;
        let (now, own) = (inner.clock.unix_milliseconds(), inner.journal.instance());
        let last = inner.store.last_batch(&row.project, &row.id).await?;
        let (place, first) = last.map_or((0, 0), |(place, first, number)| (place + 1, first + number));
        let events = serde_json::to_vec(&[RunEvent::Error(error)]).expect("an event is written to memory");
        let batch = RunBatch {
            project: row.project.clone(),
            run: row.id.clone(),
            place,
            first,
            number: 1,
            events,
            steps: None,
        };
        let change = RunChange {
            project: row.project.clone(),
            run: row.id.clone(),
            status: Status::Failed.as_str().to_owned(),
            reason: Some("run_unreadable".to_owned()),
            ended_at: Some(now),
            usage: row.usage,
            visibility: None,
            used_logins: row.used_logins,
            keep: false,
            more_bytes: 0,
        };
        let mut open = inner.store.begin().await?;
        if open.still_alive(&own, inner.store.lease_clock(now)).await? {
            open.append_events(&own, vec![batch]).await?;
            open.change_runs(&own, &[change], now).await?;
            open.commit().await?;
        }
        Ok(())
    }

    /// Takes over a run of a process that is lost.
    pub(in crate::completion) async fn take_over(
        &self,
        row: &RunRow,
        is_chosen: bool,
        told: Option<Told>,
    ) -> Result<(Arc<Log>, Resume), Error> {
        let read = self.0.journal_of(row).await;
        if read.is_err() {
            self.0.taking_up.lock().unwrap_or_else(PoisonError::into_inner).remove(&row.id);
        }
        let (events, steps, place) = read?;
        let resume = Resume::read(&events, steps);
        let log = Log::taken_over(row, events, place, is_chosen, told, self.0.journal.clone());
        self.0.journal.add(&log);
        self.0.taking_up.lock().unwrap_or_else(PoisonError::into_inner).remove(&row.id);
        Ok((log, resume))
    }

    /// The run has ended: its journal will be made small.
    pub(in crate::completion) fn end(&self, log: &Log) {
        self.0.journal.remove(&log.id);
        let (group, member) = &log.holder;
        self.0.holdings.add_bytes(group, member, log.written_bytes());
        // Whoever resumes it goes on from its steps.
        if log.reason().as_deref() == Some(INTERRUPTED) {
            return;
        }
        // A few rows without steps are as small as they get.
        if log.is_small() {
            return;
        }
        // The process may be about to end.
        let _ = self.0.ended.send((Arc::clone(&log.project), Arc::clone(&log.id)));
    }

    /// Writes, and tidies up, until the process ends.
    pub async fn work(&self, work: &mut Work) {
        let Work { writer, to_tidy } = work;
        let tidying = async {
            let mut ended = Vec::new();
            while to_tidy.recv_many(&mut ended, TOGETHER).await > 0 {
                if let Err(error) = self.tidy(&ended).await {
                    tracing::debug!(%error, runs = ended.len(), "journals of runs stay as they are");
                }
                if ended.len() < TOGETHER {
                    // Nobody waits for it, and there may be more of them in a moment.
                    tokio::time::sleep(TIDY_EVERY).await;
                }
                ended.clear();
            }
        };
        tokio::join!(writer.work(), tidying);
    }

    async fn tidy(&self, ended: &[Ended]) -> Result<(), Error> {
        let mut open = self.0.store.begin().await?;
        for (project, id) in ended {
            open.compact_run(project, id).await?;
        }
        open.commit().await
    }

    /// The address of a run's result.
    pub fn url(&self, id: &str) -> String {
        format!("{}/{id}", self.0.public_url)
    }

    /// The run of this id, if `reader` may read it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn find(&self, id: &str, reader: &Reader) -> Result<Option<Record>, Error> {
        let row = self.row(id).await?;
        Ok(row.filter(|row| reader.may_read(row)).map(|row| Record::of(&row, reader)))
    }

    pub(super) async fn row(&self, id: &str) -> Result<Option<RunRow>, Error> {
        if !is_id(id) {
            return Ok(None);
        }
        let row = self.0.store.find_run(id).await?;
        Ok(row.filter(|row| !self.is_over(row.ended_at, row.expires_at)))
    }

    /// Whether the run is to be found: one whose time is over is forgotten in a moment.
    pub fn is_kept(&self, record: &Record) -> bool {
        !self.is_over(record.ended_at, record.expires_at)
    }

    fn is_over(&self, ended_at: Option<i64>, expires_at: Option<i64>) -> bool {
        let now = self.0.clock.unix_milliseconds();
        ended_at.is_some() && expires_at.is_some_and(|at| at <= now)
    }

    /// Asks a run to end. It does so soon, on whatever instance it is; one that is over stays as it is.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn cancel(&self, id: &str, reader: &Reader) -> Result<Changed, Error> {
        let row = match self.own(id, reader).await? {
            Ok(row) => row,
            Err(why) => return Ok(why),
        };
        if row.ended_at.is_none() {
            let log = self.0.journal.find(id);
            if let Some(log) = &log {
                log.end_early(Stop::Cancelled);
            }
            let asked = self.0.store.request_cancel(&row.project, id, self.0.clock.unix_milliseconds()).await;
            match log {
                Some(log) => {
                    // Most end at once, and who asked sees it.
                    let _ = tokio::time::timeout(Duration::from_secs(2), log.ended()).await;
                    if !log.has_ended() {
                        asked?;
                    }
                }
                None => {
                    asked?;
                    self.0.store.notify(super::keeper::CANCEL).await;
                }
            }
        }
        self.again(id, reader).await
    }

    /// Changes what may be changed: `metadata` and who may read it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn change(
        &self,
        id: &str,
        reader: &Reader,
        metadata: Option<&Map<String, Value>>,
        visibility: Option<Visibility>,
    ) -> Result<Changed, Error> {
        let row = match self.own(id, reader).await? {
            Ok(row) => row,
            Err(why) => return Ok(why),
        };
        let metadata = metadata.map(|metadata| Value::Object(metadata.clone()).to_string().into_bytes());
        let now = self.0.clock.unix_milliseconds();
        let word = visibility.map(Visibility::as_str);
        self.0.store.update_run(&row.project, id, metadata.as_deref(), word, now).await?;
        if let (Some(visibility), Some(log)) = (visibility, self.0.journal.find(id)) {
            log.set_visibility(visibility);
        }
        if visibility.is_some() {
            self.0.store.notify(&format!("{}{id}", super::keeper::CHANGED)).await;
        }
        self.again(id, reader).await
    }

    /// Changes who may read a run, when it still is as its owner was shown it: a page that was loaded before a login
    /// was used must not publish what that login gave.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn share(
        &self,
        id: &str,
        reader: &Reader,
        shown: Option<ShownSharing>,
        visibility: Visibility,
    ) -> Result<Changed, Error> {
        let row = match self.own(id, reader).await? {
            Ok(row) => row,
            Err(why) => return Ok(why),
        };
        let Some(shown) = shown else { return Ok(Changed::Stale) };
        let log = self.0.journal.find(id);
        // The store may not have heard yet of what happened here.
        if log.as_ref().is_some_and(|log| log.sharing() != shown) {
            return Ok(Changed::Stale);
        }
        let now = self.0.clock.unix_milliseconds();
        let before = (shown.visibility.as_str(), shown.used_logins);
        let is_shared = self.0.store.share_run(&row.project, id, before, visibility.as_str(), now).await?;
        // A login used just now hides the run by itself, after what was written.
        if !is_shared || log.is_some_and(|log| !log.share(shown, visibility)) {
            return Ok(Changed::Stale);
        }
        self.0.store.notify(&format!("{}{id}", super::keeper::SHARED)).await;
        self.again(id, reader).await
    }

    /// Deletes a run with all that was kept of it. One that goes on is cancelled first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn delete(&self, id: &str, reader: &Reader) -> Result<Changed, Error> {
        let row = match self.own(id, reader).await? {
            Ok(row) => row,
            Err(why) => return Ok(why),
        };
        let record = Record::of(&row, reader);
        if row.ended_at.is_none() {
            self.cancel(id, reader).await?;
            let mut viewer = self.follow(&record, 0).await?;
            let ending = async { while viewer.next().await.is_some() {} };
            if tokio::time::timeout(TO_END, ending).await.is_err() {
                return Ok(Changed::StillRunning);
            }
        }
        self.0.store.delete_run(&row.project, id).await?;
        self.0.holdings.forget(&row.holder_group, &row.holder_member);
        self.0.memory.forget_run(&row.project, id).await?;
        self.0.store.notify(&format!("{}{} {id}", super::keeper::FORGET, row.project)).await;
        Ok(Changed::Done(Box::new(record)))
    }

    /// Runs, as `filter` says.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list(&self, filter: &RunFilter<'_>, reader: &Reader) -> Result<Vec<Record>, Error> {
        let rows = self.0.store.list_runs(filter).await?;
        Ok(rows.iter().map(|row| Record::of(row, reader)).filter(|record| record.is_own).collect())
    }

    /// The runs of a person who is signed in, in all projects, as `filter` says of the rest.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list_own(&self, filter: &RunFilter<'_>, reader: &Reader) -> Result<Vec<Record>, Error> {
        let rows = self.0.store.list_person_runs(&reader.person, filter).await?;
        Ok(rows.iter().map(|row| Record::of(row, reader)).filter(|record| record.is_own).collect())
    }

    pub(super) async fn again(&self, id: &str, reader: &Reader) -> Result<Changed, Error> {
        Ok(self.find(id, reader).await?.map_or(Changed::Unknown, |record| Changed::Done(Box::new(record))))
    }

    /// The run, when `reader` may change it.
    pub(super) async fn own(&self, id: &str, reader: &Reader) -> Result<Result<RunRow, Changed>, Error> {
        let row = self.row(id).await?.filter(|row| reader.may_read(row));
        Ok(match row {
            None => Err(Changed::Unknown),
            Some(row) if reader.owns(&row) => Ok(row),
            Some(_) => Err(Changed::NotYours),
        })
    }
}

/// Whether it can be the id of a run; nothing else is looked for.
pub fn is_id(text: &str) -> bool {
    let rest = text.strip_prefix(PREFIX).unwrap_or_default();
    (26..=40).contains(&rest.len())
        && rest.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}
