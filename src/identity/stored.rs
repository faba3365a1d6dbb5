//! The store's API keys, kept in memory: a request with a known key, or with any other kind of key, reads no database.
//!
//! All keys are read at once whenever the store says that something has changed, and are exchanged whole.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::caller::Known;
use super::{CallerKind, Scopes};
use crate::crypto::ApiKeyHash;
use crate::store::{self, CALLERS, Project, Store};

/// How long a change made elsewhere may go unnoticed; in the same process it is noticed at once, and on other instances
/// with the same PostgreSQL nearly so.
const POLL: Duration = Duration::from_secs(2);
/// How often unknown keys may make us ask the store, whoever sends them.
const AT_MOST_EVERY: Duration = Duration::from_millis(100);

/// How long a request with an unknown key waits for the store.
const PATIENCE: Duration = Duration::from_secs(2);

/// The keys of the store as they were a moment ago.
pub(super) struct StoredKeys {
    store: Store,
    requests_per_minute: u32,
    keys: RwLock<Arc<Keys>>,
    /// When the store was last asked, and when that was over. Held meanwhile, so that one question serves all who wait.
    asked: Mutex<Option<(Instant, Instant)>>,
    /// Held while keys are read, so that of two readings the older one cannot win.
    reading: Mutex<()>,
}

#[derive(Default)]
struct Keys {
    revision: i64,
    /// There is a project, though it may have no key.
    has_projects: bool,
    by_hash: HashMap<ApiKeyHash, Known>,
}

impl StoredKeys {
    /// None yet. `requests_per_minute` is for keys that have no number of their own.
    pub(super) fn new(store: Store, requests_per_minute: u32) -> Self {
        StoredKeys {
            store,
            requests_per_minute,
            keys: RwLock::default(),
            asked: Mutex::default(),
            reading: Mutex::default(),
        }
    }

    pub(super) fn find(&self, hash: &ApiKeyHash) -> Option<Known> {
        self.keys().by_hash.get(hash).cloned()
    }

    /// Whether there is any project.
    pub(super) fn has_projects(&self) -> bool {
        self.keys().has_projects
    }

    pub(super) fn count(&self) -> usize {
        self.keys().by_hash.len()
    }

    /// Asks the store whether anything has changed since `arrived`, unless that was found out just now. A store that
    /// does not answer holds nobody up for long, however many wait.
    pub(super) async fn look_again(&self, arrived: Instant) {
        let mut asked = self.asked.lock().await;
        if asked.as_ref().is_some_and(|(began, ended)| *began >= arrived || ended.elapsed() < AT_MOST_EVERY) {
            return;
        }
        let began = Instant::now();
        if tokio::time::timeout(PATIENCE, self.refresh_or_log()).await.is_err() {
            tracing::debug!("the store does not say whether a key is new");
        }
        *asked = Some((began, Instant::now()));
    }

    /// Reads the keys if the store's revision is not the one they were read at.
    pub(super) async fn refresh(&self) -> Result<(), store::Error> {
        let _reading = self.reading.lock().await;
        // Before the keys: what changes in between is then read a second time, and not missed.
        let revision = self.store.find_revision(CALLERS).await?;
        if revision == self.keys().revision {
            return Ok(());
        }
        let has_projects = self.store.has_projects().await?;
        let keys = self.store.list_api_keys_in_use().await?;
        let by_hash = keys.into_iter().filter_map(|key| {
            let hash = ApiKeyHash::from_bytes(key.hash.try_into().ok()?);
            let limit = key.requests_per_minute.map(|limit| u32::try_from(limit).unwrap_or(u32::MAX));
            let known = Known {
                kind: CallerKind::Project {
                    name: key.project.as_str().into(),
                    key_name: key.name.as_str().into(),
                },
                namespace: Project::namespace(&key.project).into(),
                requests_per_minute: limit.unwrap_or(self.requests_per_minute),
                scopes: Scopes::parse(&key.scopes),
            };
            Some((hash, known))
        });
        let fresh = Arc::new(Keys { revision, has_projects, by_hash: by_hash.collect() });
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// Keeps up with the store, for as long as it is polled.
    pub(super) async fn watch(&self) {
        let mut poll = tokio::time::interval(POLL);
        loop {
            match self.store.listen().await {
                Ok(mut listener) => loop {
                    let is_for_us = tokio::select! {
                        topic = listener.next() => topic.is_none_or(|topic| topic == CALLERS),
                        _ = poll.tick() => true,
                    };
                    if is_for_us {
                        self.refresh_or_log().await;
                    }
                },
                Err(_) => {
                    poll.tick().await;
                    self.refresh_or_log().await;
                }
            }
        }
    }

    async fn refresh_or_log(&self) {
        if let Err(error) = self.refresh().await {
            tracing::debug!(%error, "API keys could not be read anew; those read before stay known");
        }
    }

    fn keys(&self) -> Arc<Keys> {
        // The keys are exchanged whole, so those a panicking thread left are as good as any.
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }
}
