//! What a provider says it has.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

/// Credentials whose lists are kept; beyond that all are asked for anew.
const MOST_LISTS: usize = 1000;

/// The models of one provider: given, or asked for and kept for a while.
#[derive(Debug)]
pub(super) enum ModelList {
    Given(Vec<String>),
    Asked(Asked),
}

/// The last answers, one for each credential: a list can name models that belong to its key's owner alone.
#[derive(Debug, Default)]
pub(super) struct Asked {
    known: Mutex<HashMap<[u8; 32], Dated>>,
    /// Held while asking, so that many requests ask once.
    pub(super) asking: tokio::sync::Mutex<()>,
}

impl Asked {
    /// What was listed for `credential` less than `keep` ago.
    pub(super) fn fresh(&self, credential: Option<&HeaderValue>, keep: Duration) -> Option<Arc<Vec<String>>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&digest(credential)).filter(|(at, _)| at.elapsed() < keep).map(|(_, list)| Arc::clone(list))
    }

    /// What was listed for `credential`, however long ago.
    pub(super) fn last(&self, credential: Option<&HeaderValue>) -> Option<Arc<Vec<String>>> {
        self.fresh(credential, Duration::MAX)
    }

    pub(super) fn keep(&self, credential: Option<&HeaderValue>, list: Vec<String>) -> Arc<Vec<String>> {
        let list = Arc::new(list);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_LISTS {
            known.clear();
        }
        known.insert(digest(credential), (Instant::now(), Arc::clone(&list)));
        list
    }
}

/// A list, and when it was fetched.
type Dated = (Instant, Arc<Vec<String>>);

fn digest(credential: Option<&HeaderValue>) -> [u8; 32] {
    Sha256::digest(credential.map_or(&b""[..], HeaderValue::as_bytes)).into()
}

/// The ids in the body of `GET /models`; both OpenAI's `{data:[…]}` and a bare array (Together) occur.
pub(super) fn parse(body: &[u8]) -> Option<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Model {
        id: String,
    }
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Answer {
        Wrapped { data: Vec<Model> },
        Bare(Vec<Model>),
    }
    let models = match serde_json::from_slice(body).ok()? {
        Answer::Wrapped { data } => data,
        Answer::Bare(models) => models,
    };
    // Google prefixes the ids it lists, and takes them without the prefix.
    Some(
        models
            .into_iter()
            .map(|model| model.id.strip_prefix("models/").map_or(model.id.clone(), str::to_owned))
            .collect(),
    )
}
