//! `GET /{id}`: a run's page, and what it says while it is open.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use futures_util::StreamExt as _;
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};

use super::{Facts, Links, Preview, Prompt, RunPage, Samples, View, mcp_settings};
use crate::bounds::{Bound, Principal};
use crate::completion::{ReadError, Record, Status, Visibility};
use crate::identity::Peer;
use crate::memory_budget::MemoryReservation;
use crate::tools::text;
use crate::web::form::Fields;
use crate::web::message::Message;
use crate::web::site::{Site, Visitor};
use crate::web::{frame, limits, markdown, words};

/// What one could say to a model that has the run's question as its instructions.
const SAMPLE_QUESTION: &str = "Do that, and answer in one sentence.";
/// How often an open page asks whether its reader is still signed in.
const SESSION_LOOK: Duration = Duration::from_secs(5);
/// Copies of a run's texts in memory while its page is made: the texts, their elements, and the page.
const COPIES: usize = 4;
/// Longest text of a preview, in characters.
const PREVIEW_CHARACTERS: usize = 200;

/// The page of the run `id`, or the one that says that there is none: the same for those that are not there and those
/// that are somebody else's.
pub async fn run_page(site: &Site, id: &str, head: &Parts) -> Response {
    // Not among the routes of `web`, since the address has other forms too.
    if let Some(refused) = limits::refusal(site, head) {
        return refused;
    }
    let (uri, headers) = (&head.uri, &head.headers);
    let visitor = site.visitor(headers).await;
    let found = match find(site, &visitor, id).await {
        Ok(found) => found,
        Err(page) => return page,
    };
    let query = Fields::parse(uri.query().unwrap_or_default().as_bytes());
    let notice = match query.get("now") {
        Some("shared") => Some("Changed who may read it."),
        Some("stopping") => Some("It is told to stop."),
        _ => None,
    };
    drawn(site, visitor, found, Said { notice, stale: None }).await
}

/// The page as it is now, for an owner whose choice of who may read it came from an older one.
pub(super) async fn stale_page(site: &Site, visitor: Visitor, id: &str) -> Response {
    let found = match find(site, &visitor, id).await {
        Ok(found) => found,
        Err(page) => return page,
    };
    let stale = if found.record.used_logins {
        "Sharing was not changed. The page you used was older than this result, and tools have used your sign-in here. \
         Read the result, then choose again."
    } else {
        "Sharing was not changed. It was changed elsewhere after your page was loaded. Choose again."
    };
    drawn(site, visitor, found, Said { notice: None, stale: Some(stale) }).await
}

/// What a page says about the form that led to it.
struct Said {
    notice: Option<&'static str>,
    stale: Option<&'static str>,
}

async fn drawn(site: &Site, visitor: Visitor, found: LoadedRun, said: Said) -> Response {
    let LoadedRun { record, mut view, memory } = found;
    let is_public = record.visibility == Visibility::Public;
    let preview = is_public.then(|| Preview {
        description: text::one_line(
            &markdown::words(view.first_words().unwrap_or(&record.title)),
            PREVIEW_CHARACTERS,
        ),
    });
    let (address, prompt) = (site.runs().url(&record.id), Prompt::read(&record.request));
    let page = RunPage {
        frame: site.frame(&visitor),
        path: format!("/{}", record.id),
        facts: facts(&record, site.now()),
        elements: view.elements(),
        // At a provider's address only the key goes on that asked the run, and no page knows whose that is.
        is_prompt: site.local || record.named_provider.is_none(),
        samples: Samples::new(&address, &record.model, SAMPLE_QUESTION, &[], site.local),
        mcp: mcp_settings(&address, &prompt.title, site.local),
        address,
        prompt,
        is_live: !record.status.is_over(),
        is_waiting: record.status == Status::RequiresAction,
        is_owner: record.is_own,
        can_resume: record.is_own && record.can_be_resumed(),
        visibility: record.visibility,
        used_logins: record.used_logins,
        kept_until: record.expires_at.map(|at| words::ago(site.now(), at)),
        preview,
        again: Some(format!("/?from={}", record.id)),
        notice: said.notice,
        stale: said.stale,
    };
    let status = if said.stale.is_some() { StatusCode::CONFLICT } else { StatusCode::OK };
    // Nobody but its owner sends a form from here, and readers stay unknown.
    let visitor = if record.is_own { visitor } else { visitor.without_cookie() };
    let mut response = site.page(&visitor, status, &page);
    frame::allow_script(&mut response);
    if is_public {
        frame::allow_robots(&mut response);
    }
    drop(page);
    frame::counted(response, memory).await
}

/// `GET /{id}/live`: what the page shows, again and again until the run has ended.
pub(in crate::web) async fn live(
    State(site): State<Arc<Site>>,
    Path(id): Path<String>,
    head: Parts,
) -> Response {
    let visitor = site.visitor(&head.headers).await.without_cookie();
    let record = match site.runs().find(&id, &site.reader(&visitor)).await {
        Ok(Some(record)) => record,
        Ok(None) => return site.message(&visitor, StatusCode::NOT_FOUND, Message::unknown_run(None)),
        Err(error) => return broken(&site, &visitor, &error),
    };
    let principal = match &visitor.person {
        _ if site.local => Principal::Local,
        Some(person) => Principal::Person(Arc::clone(&person.account)),
        None => Principal::Stranger(head.extensions.get::<Peer>().and_then(|peer| peer.place(&head.headers))),
    };
    let open = match site.engine.bounds().acquire(Bound::Streams, &principal) {
        Ok(open) => open,
        Err(reached) => {
            let page = Message::limit_reached(&reached);
            return site.message(&visitor, StatusCode::TOO_MANY_REQUESTS, page);
        }
    };
    // What is there for its owner alone ends when they are signed out.
    let is_their_own = record.is_own && visitor.person.is_some();
    let stream = site.live.watch(&site, record, site.reader(&visitor), open);
    let watching = Arc::clone(&site);
    let signed_out = async move {
        if !is_their_own {
            std::future::pending::<()>().await;
        }
        while watching.visitor(&head.headers).await.person == visitor.person {
            tokio::time::sleep(SESSION_LOOK).await;
        }
    };
    let mut response = Response::new(Body::from_stream(stream.take_until(Box::pin(signed_out))));
    let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    site.protect(&mut response);
    response
}

/// The run and what its events show so far.
struct LoadedRun {
    record: Record,
    view: View,
    /// Counts the memory of the page.
    memory: MemoryReservation,
}

async fn find(site: &Site, visitor: &Visitor, id: &str) -> Result<LoadedRun, Response> {
    let record = match site.runs().find(id, &site.reader(visitor)).await {
        Ok(Some(record)) => record,
        Ok(None) => return Err(site.unknown_run(visitor, id)),
        Err(error) => return Err(broken(site, visitor, &error)),
    };
    let (mut view, memory) = (View::new(links(&record)), site.runs().memory_budget().reserve());
    let too_large = || site.message(visitor, StatusCode::SERVICE_UNAVAILABLE, Message::run_too_large(id));
    let unreadable = |error| match error {
        ReadError::Store(error) => broken(site, visitor, &error),
        ReadError::Memory(_) => too_large(),
    };
    let mut events = site.runs().events(&record).await.map_err(|error| broken(site, visitor, &error))?;
    while let Some(event) = events.next().await.map_err(unreadable)? {
        memory.grow(COPIES * event.json_bytes()).await.map_err(|_| too_large())?;
        view.push(&event);
    }
    Ok(LoadedRun { record, view, memory })
}

/// The page for a store that cannot be used.
pub(super) fn broken(site: &Site, visitor: &Visitor, error: &crate::store::Error) -> Response {
    tracing::warn!(%error, "a run could not be read");
    site.message(visitor, StatusCode::SERVICE_UNAVAILABLE, Message::broken())
}

/// Login links are for those who know the run's address from its owner, not for all the world.
pub(super) fn links(record: &Record) -> Links {
    if record.is_own || record.visibility != Visibility::Public { Links::Shown } else { Links::Hidden }
}

/// The line about a run.
pub(super) fn facts(record: &Record, now: i64) -> Facts {
    let number = |number: i64| words::count(number.max(0).unsigned_abs());
    let (tone, status) = words::run_status(record.status.as_str(), record.reason.as_deref());
    let has_tokens = record.prompt_tokens > 0 || record.completion_tokens > 0;
    let lasted = record.ended_at.map(|ended| ended.saturating_sub(record.created_at).max(0).unsigned_abs());
    Facts {
        tone,
        status,
        model: words::line(&record.model),
        created: words::ago(now, record.created_at),
        duration: lasted.map(words::duration).unwrap_or_default(),
        tokens: if has_tokens {
            format!("{} tokens in, {} out", number(record.prompt_tokens), number(record.completion_tokens))
        } else {
            String::new()
        },
        turns: u32::try_from(record.turns).unwrap_or(0),
        tool_calls: u32::try_from(record.tool_calls).unwrap_or(0),
    }
}
