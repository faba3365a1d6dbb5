//! The parts of the program that handlers see.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::ApiError;
use super::body::BodyShares;
use super::relay_body::{RelayTerms, StreamDialect};
use crate::bounds::{Bound, BoundGuard, Principal};
use crate::completion::{Engine, Reader, Runs, named_user};
use crate::config::{KeyScope, Settings};
use crate::connections::Connections;
use crate::crypto::Keyring;
use crate::identity::{Caller, CallerKind, Callers, CookieKind, Cookies, Peer, Person, Sessions, Surface};
use crate::memory_budget::MemoryBudget;
use crate::openai::{ChatRequest, ErrorKind};
use crate::rate_limit::RateLimit;
use crate::store::Store;
use crate::telemetry::Metrics;
use crate::upstream::{ProviderKey, Providers, Upstream};

/// Everything that handlers share. Behind an `Arc`.
pub struct App {
    pub settings: Settings,
    pub callers: Arc<Callers>,
    pub sessions: Sessions,
    pub cookies: Cookies,
    pub providers: Arc<Providers>,
    pub engine: Arc<Engine>,
    pub connections: Connections,
    pub metrics: Arc<Metrics>,
    pub rate_limit: Arc<RateLimit>,
    pub memory_budget: MemoryBudget,
    pub body_shares: BodyShares,
    pub store: Store,
    /// Seals what is stored.
    pub keyring: Keyring,
    /// Set when the process is asked to stop: it is not ready any more, and finishes what it has.
    pub draining: AtomicBool,
}

impl App {
    /// Who sends a request to a model provider, if they may send another one now.
    ///
    /// # Errors
    /// 401 without a usable key, 403 when it is not for this, 429 over the limit.
    pub async fn admit(&self, headers: &HeaderMap, surface: Surface) -> Result<Caller, ApiError> {
        self.admit_for(headers, surface, KeyScope::Completions).await
    }

    /// Who sends a request that needs `scope`, if they may send another one now.
    ///
    /// # Errors
    /// 401 without a usable key, 403 when it is not for this, 429 over the limit.
    pub async fn admit_for(
        &self,
        headers: &HeaderMap,
        surface: Surface,
        scope: KeyScope,
    ) -> Result<Caller, ApiError> {
        let authorization = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        let caller = match self.person(headers, surface).await? {
            Some(person) => self.callers.person(&person),
            None => self.callers.find(authorization, surface).await?,
        };
        if !caller.scopes.contains(scope) {
            return Err(ApiError::scope_missing(scope));
        }
        self.rate_limit.check(caller.counted_as(), caller.requests_per_minute)?;
        Ok(caller)
    }

    /// Who is signed in, when the request has no key and a page of ours in their browser sent it. `Sec-Fetch-Site`
    /// must say so: no page can write that header, so that requests of other sites never count.
    async fn person(&self, headers: &HeaderMap, surface: Surface) -> Result<Option<Person>, ApiError> {
        let ours = headers.get("sec-fetch-site").is_some_and(|site| site == "same-origin");
        if !ours || headers.contains_key(header::AUTHORIZATION) || surface != Surface::V1 {
            return Ok(None);
        }
        let Some(cookie) = self.cookies.read(headers, CookieKind::Session) else { return Ok(None) };
        // Boxed, so that the usual way stays small.
        let found = Box::pin(self.sessions.find(cookie.expose())).await;
        found.map_err(|error| {
            tracing::warn!(%error, "a session could not be looked up");
            ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                ErrorKind::Server,
                None,
                "the gateway cannot reach its own database; try again",
            )
        })
    }

    /// Who wants to read a run. Nobody needs to be known for what is not private.
    ///
    /// # Errors
    /// 401 for a key that is none, 429 over the limit.
    pub async fn reader(&self, head: &Parts) -> Result<Reader, ApiError> {
        let (headers, peer) = (&head.headers, head.extensions.get());
        let has_key = headers.contains_key(header::AUTHORIZATION);
        if !has_key && let Some(person) = self.person(headers, Surface::V1).await? {
            let person_namespace = self.callers.person(&person);
            self.rate_limit.check(person_namespace.counted_as(), person_namespace.requests_per_minute)?;
            return Ok(Reader { person: person.ids().to_vec(), ..reader_of(&person_namespace) });
        }
        if has_key || self.settings.is_local() {
            let caller = self.admit(headers, Surface::V1).await?;
            // A key that anybody can make up is no reason to count its bearer less.
            if caller.kind != CallerKind::PassThrough {
                return Ok(reader_of(&caller));
            }
            self.count_stranger(headers, peer)?;
            return Ok(reader_of(&caller));
        }
        self.count_stranger(headers, peer)?;
        Ok(Reader::default())
    }

    /// As [`App::reader`], for what is somebody's own.
    ///
    /// # Errors
    /// 401 without a usable key, 403 when it is not for this, 429 over the limit.
    pub async fn owner(&self, head: &Parts) -> Result<Reader, ApiError> {
        let reader = self.reader(head).await?;
        if reader.namespace.is_some() {
            return Ok(reader);
        }
        // Says what is missing.
        Ok(reader_of(&self.admit(&head.headers, Surface::V1).await?))
    }

    /// Counts a reader whom nobody vouches for, by where it comes from.
    fn count_stranger(&self, headers: &HeaderMap, peer: Option<&Peer>) -> Result<(), ApiError> {
        if let Some(place) = peer.and_then(|peer| peer.place(headers)) {
            let most = self.settings.rate_limit.pages_per_minute;
            self.rate_limit.check(&format!("reader {place}").into(), most)?;
        }
        Ok(())
    }

    /// A place among the open answers of whoever `caller` acts for.
    ///
    /// # Errors
    /// 429 when it has as many as it may.
    pub fn open_answer(
        &self,
        caller: &Caller,
        request: Option<&ChatRequest>,
        headers: &HeaderMap,
    ) -> Result<BoundGuard, ApiError> {
        let user = match &caller.kind {
            CallerKind::Project { .. } => named_user(request, headers),
            CallerKind::Local | CallerKind::Person { .. } | CallerKind::PassThrough => None,
        };
        Ok(self.engine.bounds().acquire(Bound::Streams, &caller.principal(user))?)
    }

    /// A place among the open answers of a reader of runs.
    ///
    /// # Errors
    /// 429 when it has as many as it may.
    pub fn open_answer_to_reader(&self, reader: &Reader, head: &Parts) -> Result<BoundGuard, ApiError> {
        let place = head.extensions.get::<Peer>().and_then(|peer| peer.place(&head.headers));
        let principal = match (reader.namespace.as_ref(), &reader.only_user) {
            (_, Some(account)) => Principal::Person(Arc::clone(account)),
            (Some(namespace), None) if namespace.starts_with("project:") => {
                Principal::User { namespace: Arc::clone(namespace), user: None }
            }
            _ if self.settings.is_local() => Principal::Local,
            _ => Principal::Stranger(place),
        };
        Ok(self.engine.bounds().acquire(Bound::Streams, &principal)?)
    }

    /// What an answer that is relayed from the endpoint `path` is held to.
    pub fn relay_terms(&self, open: BoundGuard, path: &str) -> RelayTerms {
        let idle = Duration::from_secs(self.settings.upstream.relay_idle_seconds);
        RelayTerms { open, idle, dialect: StreamDialect::of_path(path), ends_with_finish: false }
    }

    /// Whose key a provider of the configuration gets for this caller.
    pub fn provider_key<'c>(&self, caller: &'c Caller) -> ProviderKey<'c> {
        match &caller.kind {
            CallerKind::Local => ProviderKey::ConfiguredOr(caller.forward_key.as_ref()),
            CallerKind::Project { .. } | CallerKind::Person { .. } => ProviderKey::Configured,
            CallerKind::PassThrough => ProviderKey::Callers(caller.forward_key.as_ref()),
        }
    }

    /// The runs that are kept.
    pub fn runs(&self) -> &Runs {
        self.engine.runs()
    }

    /// The address of a run in the API.
    pub fn run_url(&self, id: &str) -> String {
        format!("{}/v1/runs/{id}", self.settings.public_url())
    }

    /// The address of a run's events.
    pub fn events_url(&self, id: &str) -> String {
        format!("{}/events", self.run_url(id))
    }

    /// The client for providers.
    pub fn upstream(&self) -> &Upstream {
        self.engine.upstream()
    }

    /// Whether the process is about to stop.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// What a caller may read: all of its namespace, or its own where it is a person.
pub(super) fn reader_of(caller: &Caller) -> Reader {
    Reader {
        namespace: Some(Arc::clone(&caller.namespace)),
        only_user: caller.own_user().cloned(),
        person: Vec::new(),
    }
}
