//! Runs that are kept: started, and taken over from a process that is lost.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{AbortHandle, Abortable, Aborted, BoxFuture};
use http::HeaderMap;
use serde_json::Value;

use super::durable::{
    ClaimFailure, Creation, Idempotency, Keep, KeptApplication, KeptState, Kind, Log, Resume, Runs, Stop,
    Told, Viewer, Visibility, has_credentials, is_interrupted, kept_request, title,
};
use super::engine::Started;
use super::event::{FinishReason, Notice, RunError, RunEvent};
use super::gather::{ended, limit_reached};
use super::left_tasks::LeftTasks;
use super::prepare::{Checked, Error, Incoming};
use super::repeated_requests::{END_KNOWN, RepeatKey, RepeatedStored, StoredTryGuard};
use super::sink::Sink;
use super::who::{Users, Who, principal_of_run};
use super::{Engine, held};
use crate::bounds::Bound;
use crate::clean_json;
use crate::crypto::sha256;
use crate::id::{random_id, random_id_of};
use crate::openai::{ChatRequest, ErrorBody, ErrorKind};
use crate::rate_limit::RetryAfterSeconds;
use crate::store::{self, Claimed, INTERRUPTED, NewKey, RunRow, RunUsage};
use crate::telemetry::{Metrics, PanicSite, catch_panic};

/// How long a task that is not stored is kept after it was made, in milliseconds: a day.
const UNSTORED: i64 = 24 * 3_600_000;
/// How long an `Idempotency-Key` counts, in milliseconds: a day.
const IDEMPOTENCY: i64 = 24 * 3_600_000;
/// Random characters in the address of a run with tools.
const LONG_ID: usize = 32;
/// How often a run is taken over before it is taken to be what ends its processes.
const MOST_TAKEOVERS: i64 = 20;
/// How long the end of a run is tried to be written. Viewers are told much sooner; but what has ended, and is not known to
/// have, would begin anew.
const TO_WRITE: Duration = Duration::from_secs(3600);

/// A key that was used for another request.
pub(super) fn conflict() -> Error {
    let message = "this `Idempotency-Key` was used for another request; use a new one";
    let code = Some("idempotency_key_reused");
    Error::Ended(ended(409, ErrorBody::new(ErrorKind::InvalidRequest, code, message)))
}

fn too_many(after: RetryAfterSeconds) -> Error {
    let message =
        format!("too many runs are started by callers that nobody vouches for; try again in {} s", after.0);
    let body = ErrorBody::new(ErrorKind::RateLimit, Some("rate_limit_exceeded"), message);
    Error::Ended(RunError { retry_after: Some(after.0.to_string()), ..ended(429, body) })
}

fn store_failed(error: &store::Error) -> Error {
    tracing::error!(%error, "a run could not be kept");
    Error::Ended(unwritable())
}

/// The store broke off before it said whether the run is there: 503, with the run's id.
fn in_doubt(run: &str, url: &str) -> RunError {
    let message = format!(
        "the gateway's store broke off while it kept the run {run}; the run was not begun, and is taken back as soon as \
         the store answers. Send the request again, with the same `Idempotency-Key` if it had one"
    );
    let body = ErrorBody::new(ErrorKind::Server, Some("store_unavailable"), message)
        .with("run_id", run.into())
        .with("url", url.into());
    RunError { retry_after: Some("5".to_owned()), ..ended(503, body) }
}

/// The store takes nothing: 503.
pub fn unwritable() -> RunError {
    let message =
        "the gateway cannot keep results right now; try again later (a completion without `store` goes on)";
    let body = ErrorBody::new(ErrorKind::Server, Some("store_unavailable"), message);
    RunError { retry_after: Some("5".to_owned()), ..ended(503, body) }
}

impl Started {
    /// Waits until a run that is to be stored is in the store: before that nobody is told of it.
    ///
    /// # Errors
    /// 503 when it is not; then it is not carried out.
    pub async fn created(&self) -> Result<(), RunError> {
        match self.events.created().await {
            Creation::Created => Ok(()),
            Creation::Refused => Err(unwritable()),
            Creation::Unknown => Err(in_doubt(&self.run_id, self.result_url.as_deref().unwrap_or_default())),
        }
    }
}

impl Engine {
    /// Starts a run that is kept. Only what can be checked at once is an error; the rest is part of the run.
    pub(super) async fn start_kept(&self, mut incoming: Incoming, keep: Keep) -> Result<Started, Error> {
        let parts = &self.parts;
        if parts.runs.outage().is_some() {
            // Nobody waits for what is known to fail.
            return Err(Error::Ended(unwritable()));
        }
        let repeat = incoming.repeat.take();
        if !incoming.who.application.verified {
            parts.runs.count_stranger(incoming.who.application.place).map_err(too_many)?;
        }
        let has_tools = incoming.request.raw("tools").is_some_and(|tools| tools.trim() != "[]");
        let id = if has_tools { random_id_of("run_", LONG_ID) } else { random_id("run_") };
        let has_credentials = has_credentials(&incoming.request, &incoming.headers, &incoming.target);
        let namespace = Arc::clone(&incoming.who.namespace);
        let request = kept_request(&incoming.request);
        let title = title(&incoming.request);
        let keys = keys(&incoming, &keep, &request, parts.clock.unix_milliseconds());
        // What is carried out is what is kept, so that another process would do the same.
        let is_repaired = incoming.request.is_repaired();
        let kept_only = ChatRequest::parse(request.clone().into()).map_err(Error::Invalid)?;
        let mut checked = self.check(incoming, id.clone(), Some(keep.kind))?;
        checked.request = kept_only.marked_repaired(is_repaired);
        let mut try_guard = None;
        if let Some(repeat) = repeat.filter(|_| checked.has_servers) {
            match self.first_try(&repeat, &id).await? {
                Ok(guard) => try_guard = Some(guard),
                Err(run) => return self.join(Claim { run, is_same: true }, &checked).await,
            }
        }
        // Who joins a run takes no place among those that are under way.
        let place = self.take_run_place(&checked);
        let state = KeptState {
            target: checked.target.kept(),
            path: checked.path.clone(),
            options: checked.options.clone(),
            application: KeptApplication::new(&checked.logins.application),
            has_credentials,
            webhook_url: keep.webhook_url.clone(),
        };
        let owner = checked.logins.owner.as_ref();
        let now = parts.clock.unix_milliseconds();
        let runs = &parts.runs;
        // Whoever nobody vouches for keeps what has ended well.
        let is_vouched_for = checked.logins.application.verified;
        let expires_at = (!keep.stored || !is_vouched_for).then(|| match checked.options.cache_seconds {
            Some(seconds) if keep.kind == Kind::Completion => now + i64::from(seconds) * 1000,
            _ => now + UNSTORED,
        });
        let holder = checked.logins.principal.holder_name();
        let mut row = RunRow {
            project: namespace.to_string(),
            id: id.clone(),
            user: owner.map(|owner| owner.user.to_string()).unwrap_or_default(),
            profile: owner.map(|owner| owner.profile.to_string()).unwrap_or_default(),
            person: keep.person.as_deref().unwrap_or_default().to_owned(),
            kind: keep.kind.as_str().to_owned(),
            model: checked.model.clone(),
            title,
            status: "queued".to_owned(),
            reason: None,
            visibility: keep.visibility.unwrap_or(Visibility::Unlisted).as_str().to_owned(),
            used_logins: false,
            stored: keep.stored,
            metadata: Value::Object(keep.metadata.clone()).to_string().into_bytes(),
            request,
            state: serde_json::to_vec(&state).expect("a state is written to memory"),
            owner: String::new(),
            takeovers: 0,
            cancel_requested: false,
            created_at: now,
            changed_at: now,
            ended_at: None,
            expires_at,
            usage: RunUsage::default(),
            holder_group: holder.group,
            holder_member: holder.member,
            bytes: 0,
        };
        row.bytes =
            i64::try_from(row.metadata.len() + row.request.len() + row.state.len()).unwrap_or(i64::MAX);
        let reserved = match place {
            Ok(guard) => {
                checked.logins.run_guard = guard;
                let room = runs.reserve(&checked.logins.principal, row.bytes).await;
                room.map_err(|error| store_failed(&error))?
                    .map_err(|reached| Error::Ended(limit_reached(reached)))
            }
            Err(error) => Err(error),
        };
        let reservation = match reserved {
            Ok(reservation) => reservation,
            Err(refusal) => {
                // Who asks for a run that is there needs no room for it.
                let found =
                    runs.find_claim(&row.project, &keys).await.map_err(|error| store_failed(&error))?;
                return match found {
                    Some(other) => self.join(other, &checked).await,
                    None => Err(refusal),
                };
            }
        };
        let is_created = !keys.is_empty();
        if is_created {
            match runs.claim(&mut row, &keys).await {
                Ok(None) => {}
                Ok(Some(other)) => return self.join(other, &checked).await,
                Err(ClaimFailure { error, may_exist: false }) => return Err(store_failed(&error)),
                Err(ClaimFailure { error, may_exist: true }) => {
                    tracing::error!(%error, run.id = id, "a run could not be kept; it is taken back");
                    runs.withdraw(row);
                    return Err(Error::Ended(in_doubt(&id, &runs.url(&id))));
                }
            }
        }
        let wants_news = keep.kind == Kind::Task || state.webhook_url.is_some();
        let told = wants_news.then(|| told(runs, &row, state.webhook_url));
        // A task's addresses are for whoever has them, and say so.
        let is_chosen = keep.visibility.is_some() || keep.kind == Kind::Task;
        let log = runs.begin(row, is_created, is_chosen, told);
        if let Some(guard) = try_guard {
            guard.begun();
        }
        if let Some(reservation) = reservation {
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                log.created().await;
                drop(reservation);
            });
        }
        // The log is new.
        let _ = checked.logins.used.log.set(Arc::clone(&log));
        let mut started = checked.started(parts, Viewer::live(Arc::clone(&log)));
        started.result_url = Some(runs.url(&id));
        let sink = Sink::to_log(Arc::clone(&log));
        let metrics = Arc::clone(&parts.metrics);
        let (new, watching) = (Arc::clone(&log), runs.clone());
        let body = Box::pin(async move {
            // Before that nobody is asked for anything.
            if !new.create_or_refuse(watching.until_outage()).await {
                return;
            }
            match checked.gather().await {
                Ok(found) => held::carry_out(checked.prepared(sink), found).await,
                // A viewer sees the run's end.
                Err(error) => drop(sink.send(RunEvent::Error(error.into())).await),
            }
        });
        tokio::spawn(carry_out(runs.clone(), metrics, log, body));
        Ok(started)
    }

    /// Whether this is the first try of a request: then the right to begin its run, else the run that it has begun.
    async fn first_try(&self, repeat: &RepeatKey, id: &str) -> Result<Result<StoredTryGuard, String>, Error> {
        let repeatable = &self.parts.repeatable;
        loop {
            let earlier = match repeatable.begin_stored(repeat, id) {
                Ok(guard) => return Ok(Ok(guard)),
                Err(RepeatedStored::Reused) => return Err(conflict()),
                Err(RepeatedStored::Earlier(earlier)) => earlier,
            };
            let run = earlier.run_id.clone();
            let runs = &self.parts.runs;
            if earlier.has_begun().await
                && runs.may_be_joined(&run, END_KNOWN).await.map_err(|error| store_failed(&error))?
            {
                return Ok(Err(run));
            }
            repeatable.forget_stored(&repeat.key, &run);
        }
    }

    /// The run that has the key already.
    async fn join(&self, other: Claim, checked: &Checked) -> Result<Started, Error> {
        let Claim { run, is_same } = other;
        if !is_same {
            return Err(conflict());
        }
        let runs = &self.parts.runs;
        let found = runs.join(&run).await.map_err(|error| store_failed(&error))?;
        let (viewer, created_at, age) = found.ok_or_else(|| Error::Ended(unwritable()))?;
        let mut started = checked.started(&self.parts, viewer);
        started.result_url = Some(runs.url(&run));
        started.created = created_at / 1000;
        started.age = Some(age);
        started.run_id = run;
        Ok(started)
    }

    /// Goes on with a run whose process is lost. It ends in any case.
    pub fn resume(&self, row: RunRow) {
        let parts = Arc::clone(&self.parts);
        let engine = Engine { parts: Arc::clone(&parts) };
        tokio::spawn(async move {
            if is_interrupted(&row) {
                tracing::info!(
                    run.id = row.id,
                    "a run that was interrupted is ended; its owner can resume it"
                );
            } else {
                tracing::info!(run.id = row.id, takeovers = row.takeovers, "a run is taken over");
            }
            let state: Option<KeptState> = clean_json::from_slice(&row.state).ok();
            let url = state.as_ref().and_then(|state| state.webhook_url.clone());
            let wants_news = row.kind == Kind::Task.as_str() || url.is_some();
            let told = wants_news.then(|| told(&parts.runs, &row, url));
            let is_chosen = row.kind == Kind::Task.as_str()
                || state.as_ref().is_some_and(|state| state.options.visibility.is_some());
            let (log, resume) = match parts.runs.take_over(&row, is_chosen, told).await {
                Ok(taken) => taken,
                // It is taken up again when the store can be read.
                Err(error @ store::Error::Unavailable(_)) => {
                    tracing::warn!(%error, run.id = row.id, "a run could not be read yet");
                    return;
                }
                Err(error) => {
                    tracing::error!(%error, run.id = row.id, "a run cannot be read, and ends");
                    let message =
                        "the run was kept by another version of the gateway, which this one cannot read";
                    let body = ErrorBody::new(ErrorKind::Server, Some("run_unreadable"), message);
                    if let Err(error) = parts.runs.give_up(&row, ended(500, body)).await {
                        tracing::error!(%error, run.id = row.id, "the end of a run could not be written");
                    }
                    return;
                }
            };
            if row.cancel_requested {
                log.end_early(Stop::Cancelled);
            }
            let is_interrupted = is_interrupted(&row);
            let left = LeftTasks::of(&row, &resume);
            let sink = Sink::to_log(Arc::clone(&log));
            let body = async move {
                if let Err(error) = engine.go_on(&row, state, sink.clone(), resume).await {
                    let _ = sink.send(error).await;
                }
            };
            carry_out(parts.runs.clone(), Arc::clone(&parts.metrics), Arc::clone(&log), Box::pin(body)).await;
            // Those of an interrupted run may be another process's: of the database that this one was copied from.
            if log.has_ended() && !is_interrupted {
                // It may have ended before it asked about them again.
                left.cancel(&parts).await;
            }
        });
    }

    async fn go_on(
        &self,
        row: &RunRow,
        state: Option<KeptState>,
        sink: Sink,
        resume: Resume,
    ) -> Result<(), RunEvent> {
        if row.cancel_requested {
            // It is ended by whoever carries it out.
            return std::future::pending().await;
        }
        let failed = |code: &str, message: &str| {
            RunEvent::Error(ended(500, ErrorBody::new(ErrorKind::Server, Some(code), message)))
        };
        if is_interrupted(row) {
            return Err(RunEvent::Error(interrupted()));
        }
        if row.takeovers > MOST_TAKEOVERS {
            let message = "the gateway was lost again and again during this run; send the request again";
            return Err(failed("run_given_up", message));
        }
        let state = state.ok_or_else(|| failed("run_unreadable", "the run was kept by another version"))?;
        if state.has_credentials {
            let message = "the gateway was restarted, and does not keep credentials that come with a request: send \
                           the request again";
            return Err(failed("credentials_not_kept", message));
        }
        let target = self.parts.providers.find_kept(&state.target).ok_or_else(|| {
            failed(
                "provider_gone",
                "the gateway was restarted, and has no such provider, or no key for it, any more",
            )
        })?;
        let request = ChatRequest::parse(row.request.clone().into())
            .map_err(|_| failed("run_unreadable", "the request cannot be read any more"))?;
        let users = if row.user.is_empty() { Users::Any } else { Users::AnyOr(row.user.as_str().into()) };
        let who = Who {
            namespace: row.project.as_str().into(),
            users,
            application: state.application.into_application(),
        };
        let kind = Kind::parse(&row.kind);
        let incoming = Incoming {
            request,
            headers: HeaderMap::new(),
            forwarded: HeaderMap::new(),
            target,
            path: state.path,
            options: state.options,
            who,
            keep: None,
            repeat: None,
        };
        let as_event = |error: Error| RunEvent::Error(error.into());
        let mut checked = self.check(incoming, row.id.clone(), kind).map_err(as_event)?;
        if let Some(log) = sink.log() {
            let _ = checked.logins.used.log.set(Arc::clone(log));
        }
        checked.logins.said = std::sync::Mutex::new(resume.said.clone());
        checked.logins.principal = principal_of_run(&row.project, &row.user, &checked.logins.application);
        checked.logins.run_guard =
            self.parts.bounds.acquire_unchecked(Bound::Runs, &checked.logins.principal);
        checked.logins.is_resumed = true;
        let found = checked.gather().await.map_err(as_event)?;
        let mut prepared = checked.prepared(sink);
        prepared.sink.note_so_far();
        let spent = self.parts.clock.unix_milliseconds().saturating_sub(row.created_at);
        let spent = Duration::from_millis(u64::try_from(spent).unwrap_or(0));
        prepared.resume = Some(Resume { spent, ..resume });
        held::carry_out(prepared, found).await;
        Ok(())
    }
}

/// A run that has a key.
pub(super) struct Claim {
    pub run: String,
    /// It was claimed for the same request.
    pub is_same: bool,
}

impl Claim {
    pub fn of(claimed: Claimed, key: &NewKey<'_>) -> Option<Self> {
        match claimed {
            Claimed::New => None,
            Claimed::Taken { run, body_hash } => Some(Claim { run, is_same: body_hash == key.body_hash }),
        }
    }
}

/// Keys that a run is to have: kind, hash, hash of the body, and until when.
pub(super) type Key = (&'static str, [u8; 32], [u8; 32], i64);

fn keys(incoming: &Incoming, keep: &Keep, request: &[u8], now: i64) -> Vec<Key> {
    let mut keys = Vec::new();
    if let Some(Idempotency { key, body }) = keep.idempotency {
        keys.push(("idempotency", key, body, now + IDEMPOTENCY));
    }
    if let Some(seconds) = incoming.options.cache_seconds {
        // What the answer depends on, and whose it is.
        let target = serde_json::to_vec(&incoming.target.kept()).unwrap_or_default();
        let user = incoming.who.user(&incoming.request, &incoming.headers).ok().flatten();
        let options = serde_json::to_vec(&incoming.options).unwrap_or_default();
        let kept = format!("{:?} {} {}", keep.kind, keep.stored, Value::Object(keep.metadata.clone()));
        // What providers are told beside the body; headers of tracing are other ones each time.
        let told = |name: &http::HeaderName| {
            name.as_str().starts_with("openai-") || name.as_str().starts_with("anthropic-")
        };
        let headers = incoming
            .forwarded
            .iter()
            .filter(|(name, _)| told(name))
            .chain(incoming.headers.iter().filter(|(name, _)| *name == "x-mcp-authorization"));
        let headers: Vec<u8> = headers
            .flat_map(|(name, value)| [name.as_str().as_bytes(), b"\0", value.as_bytes(), b"\0"].concat())
            .collect();
        let tools = incoming.request.raw("tools").unwrap_or_default();
        let parts: [&[u8]; 7] = [
            kept.as_bytes(),
            &target,
            user.as_deref().unwrap_or_default().as_bytes(),
            &options,
            &headers,
            tools.as_bytes(),
            request,
        ];
        let mut all = Vec::new();
        for part in parts {
            all.extend_from_slice(&(part.len() as u64).to_le_bytes());
            all.extend_from_slice(part);
        }
        let hash = sha256(&all);
        keys.push(("content", hash, hash, now + i64::from(seconds) * 1000));
    }
    keys
}

fn told(runs: &Runs, row: &RunRow, url: Option<String>) -> Told {
    Told {
        user: row.user.clone(),
        model: row.model.clone(),
        url,
        result_url: runs.url(&row.id),
        created_at: row.created_at,
    }
}

/// Runs `body` to its end, or until the run is to end before its time, and sees to it that it has an end.
async fn carry_out(runs: Runs, metrics: Arc<Metrics>, log: Arc<Log>, body: BoxFuture<'static, ()>) {
    // Not a `select!`: that would look at every event whether the run is to end.
    let (ending, ended) = AbortHandle::new_pair();
    log.on_stop(ending);
    let body = catch_panic(&*metrics, PanicSite::Run, &*log.id, body);
    let stopped = match Abortable::new(body, ended).await {
        Ok(_) => None,
        Err(Aborted) => log.stop_reason(),
    };
    if log.is_refused() {
        // It is let go of where it may be written at the moment.
        log.open();
        return;
    }
    let last = match stopped {
        _ if log.is_handed_over() => None,
        None if log.is_over() => None,
        None => Some(RunEvent::Error(broke_off())),
        Some(Stop::Cancelled) => {
            let notice = Notice { code: "cancelled".into(), message: "The run was cancelled.".into() };
            let _ = log.push(RunEvent::Notice(notice));
            Some(RunEvent::Finish { reason: FinishReason::Cancelled })
        }
        Some(Stop::TooLarge(most)) => {
            let message = format!("The run has reached its limit of bytes: {most}.");
            let _ = log.push(RunEvent::Notice(Notice { code: "byte_budget".into(), message }));
            Some(RunEvent::Finish { reason: FinishReason::ByteBudget })
        }
        Some(Stop::Unwritable) => Some(RunEvent::Error(unwritable())),
        Some(Stop::HandedOver) => None,
    };
    if let Some(last) = last {
        let last = match last {
            RunEvent::Error(error) => RunEvent::Error(log.called.explain(error)),
            other => other,
        };
        // Lost in the last moment: another process ends it.
        let _ = log.push(last);
    }
    if log.is_handed_over() {
        runs.leave(std::slice::from_ref(&log)).await;
    } else {
        if tokio::time::timeout(TO_WRITE, log.ended()).await.is_err() {
            // Nobody waits for it here any longer; it is taken up anew when the store takes something.
            log.lose();
        }
        runs.end(&log);
    }
}

/// A run that ended without saying how: a defect of ours.
pub(super) fn broke_off() -> RunError {
    ended(500, ErrorBody::new(ErrorKind::Server, None, "the run ended unexpectedly; please report this"))
}

/// The database was restored, or copied: nobody knows what the run did since.
fn interrupted() -> RunError {
    let message = "this run was unfinished when the gateway's database was restored from a backup or copied, and was \
                   stopped so that no action is repeated; check what its tools have done, then resume it on its page or with \
                   `POST /v1/runs/{id}/resume`";
    ended(500, ErrorBody::new(ErrorKind::Server, Some(INTERRUPTED), message))
}
