//! Tool lists that are kept (MCP 2026-07-28, caching), and asked for once when many want them at the same time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, Shared, WeakShared};
use moka::sync::Cache;
use tokio::time::Instant;

use super::page::Listed;
use super::peer::{Key, Peer};
use crate::tools::{Error, ToolList};

/// Memory for lists, in bytes of names, descriptions and schemas.
const MOST_BYTES: u64 = 64 << 20;

type Outcome = Result<Arc<ToolList>, Error>;
type Flight = BoxFuture<'static, Outcome>;

/// The lists of all servers and users.
pub(crate) struct Lists {
    kept: Cache<Key, Kept>,
    flights: Mutex<HashMap<Key, WeakShared<Flight>>>,
    /// How long a list is kept when its server does not say.
    age: Duration,
}

#[derive(Clone)]
struct Kept {
    list: Arc<ToolList>,
    until: Instant,
    /// Whether the server gave it without a credential.
    anonymous: bool,
}

impl Lists {
    pub(crate) fn new(age: Duration) -> Self {
        let kept = Cache::builder()
            .max_capacity(MOST_BYTES)
            .weigher(|_, kept: &Kept| u32::try_from(weight(&kept.list)).unwrap_or(u32::MAX))
            .build();
        Lists { kept, flights: Mutex::default(), age }
    }

    /// The list that `peer` may be shown without asking.
    pub(crate) fn find(&self, peer: &Peer) -> Option<Arc<ToolList>> {
        let now = Instant::now();
        // Without a credential, what was given for one is not looked at: the server may want a login, and that should
        // be known before a tool is called.
        let may_see = |kept: &Kept| kept.until > now && (kept.anonymous || !peer.is_anonymous());
        let found = [peer.public, peer.private].iter().find_map(|key| self.kept.get(key).filter(may_see));
        found.map(|kept| kept.list)
    }

    /// Keeps a list as long, and for those, that its server allows.
    pub(crate) fn keep(&self, peer: &Peer, listed: Listed) -> Arc<ToolList> {
        let list = Arc::new(listed.list);
        let age = listed.age.unwrap_or(self.age);
        let key = if listed.public { peer.public } else { peer.private };
        if age.is_zero() {
            self.kept.invalidate(&key);
        } else {
            let (until, anonymous) = (Instant::now() + age, peer.is_anonymous());
            self.kept.insert(key, Kept { list: Arc::clone(&list), until, anonymous });
        }
        list
    }

    /// The list has changed, says the server.
    pub(crate) fn forget(&self, peer: &Peer) {
        self.kept.invalidate(&peer.public);
        self.kept.invalidate(&peer.private);
    }

    /// What `ask` gives, asked once for all who want `key` meanwhile. It goes on as long as one of them waits.
    pub(crate) async fn once<F>(self: &Arc<Self>, key: Key, ask: impl FnOnce() -> F) -> Outcome
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let flight = {
            let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
            let joined = flights.get(&key).and_then(WeakShared::upgrade);
            joined.unwrap_or_else(|| {
                let landing = Landing { lists: Arc::clone(self), key };
                let asking = ask();
                let flight: Shared<Flight> = async move {
                    let _landing = landing;
                    asking.await
                }
                .boxed()
                .shared();
                flights.extend(flight.downgrade().map(|weak| (key, weak)));
                flight
            })
        };
        flight.await
    }
}

/// Takes a flight off the board, whether it arrived or was given up.
struct Landing {
    lists: Arc<Lists>,
    key: Key,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut flights = self.lists.flights.lock().unwrap_or_else(PoisonError::into_inner);
        flights.remove(&self.key);
    }
}

fn weight(list: &ToolList) -> usize {
    let tools = list.tools.iter().map(|tool| {
        200 + tool.name.len()
            + tool.title.as_ref().map_or(0, String::len)
            // Twice: what the server said, and what models are offered.
            + 2 * tool.description.as_ref().map_or(0, String::len)
            + 2 * tool.input_schema.get().len()
            + tool.header_arguments.iter().flat_map(|(path, _)| path).map(String::len).sum::<usize>()
    });
    let dropped = list.dropped.iter().map(|(name, reason)| 48 + name.len() + reason.len());
    200 + tools.sum::<usize>() + dropped.sum::<usize>()
}
